"""Attention statistics computed in chunks equal the definition on the full matrix, in float64."""

import sys

import pytest
import torch
from support.commands import run_command

from acc_megatron.analyze import attention_distance as distance
from acc_megatron.analyze.attention_distance import NUM_BINS, DistanceSums, add_attention


def full_matrix(query: torch.Tensor, key: torch.Tensor, span: int, far: int) -> dict[str, torch.Tensor]:
    """The definitions as loops over heads, queries and keys, in float64."""
    tokens, heads, dim = query.shape
    groups = heads // key.shape[1]
    found = {name: torch.zeros(heads, dtype=torch.float64) for name in ("distance", "entropy", "long_mass")}
    mass = torch.zeros(heads, NUM_BINS, dtype=torch.float64)
    for h in range(heads):
        for i in range(tokens):
            logits = (key[: i + 1, h // groups].double() @ query[i, h].double()) * dim**-0.5
            a = torch.exp(logits - logits.max())
            a = a / a.sum()
            for j in range(i + 1):
                found["distance"][h] += a[j] * (i - j)
                mass[h, min(NUM_BINS - 1, (i - j) * NUM_BINS // span)] += a[j]
            if i >= far:
                part = a[: i - far + 1]
                found["long_mass"][h] += part.sum()
                p = part / part.sum()
                found["entropy"][h] -= (p * p.log()).sum()
    return found | {"mass": mass}


@pytest.mark.parametrize(
    ("tokens", "heads", "kv_heads", "span", "far"), [(37, 4, 2, 37, 9), (1, 2, 1, 64, 3), (50, 3, 3, 41, 1)]
)
@pytest.mark.parametrize("chunk_elements", [1, 200, 1 << 24])
def test_chunks_give_the_sums_of_the_full_matrix(
    tokens: int, heads: int, kv_heads: int, span: int, far: int, chunk_elements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distance, "CHUNK_ELEMENTS", chunk_elements)
    generator = torch.Generator().manual_seed(tokens)
    query = torch.randn(tokens, heads, 8, generator=generator) * 2
    key = torch.randn(tokens, kv_heads, 8, generator=generator) * 2
    sums = DistanceSums.zeros(heads)
    # in two unordered parts, like the queries of context-parallel ranks
    order = torch.randperm(tokens, generator=generator)
    for part in order.chunk(2):
        add_attention(sums, query[part], key, part, scale=8**-0.5, span_tokens=span, long_range_tokens=far)
    want = full_matrix(query, key, span, far)
    torch.testing.assert_close(sums.distance, want["distance"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sums.mass, want["mass"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sums.long_mass, want["long_mass"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sums.entropy, want["entropy"], rtol=1e-4, atol=1e-5)
    assert sums.num_queries == tokens and sums.num_long == max(0, tokens - far)
    torch.testing.assert_close(sums.means().histogram.sum(-1), torch.ones(heads, dtype=torch.float64))


MEASURE = """
import sys, torch
from pathlib import Path
from acc_megatron.analyze import attention_distance as distance
torch.set_num_threads(1)
distance.CHUNK_ELEMENTS = 1 << 20
def peak_mib():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) >> 10
def look(tokens):
    query, key = torch.randn(tokens, 2, 8), torch.randn(tokens, 1, 8)
    distance.add_attention(
        distance.DistanceSums.zeros(2), query, key, torch.arange(tokens), scale=0.3, span_tokens=tokens,
        long_range_tokens=tokens // 4,
    )
look(1024)
before = peak_mib()
look(8192)
print(peak_mib() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_peak_memory_does_not_grow_with_the_square_of_the_sequence() -> None:
    done = run_command([sys.executable, "-c", MEASURE])
    assert done.returncode == 0, done.stderr
    # a full [heads, queries, keys] matrix would take 512 MiB in float32
    assert int(done.stdout) < 100
