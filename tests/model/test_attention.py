"""Core attention, compared with a plain softmax in float64: document bounds, causality, context parallelism."""

import pytest
import torch
import torch.distributed as dist
from support.gloo import run_on_ranks

BOUNDS = (0, 4, 20, 24, 64)
HEADS, KV_HEADS, DIM = 4, 2, 8


def row(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((BOUNDS[-1], heads, DIM) for heads in (HEADS, KV_HEADS, KV_HEADS))
    query, key, value = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return query, key, value


def plain(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Compute the definition: softmax over the same and earlier tokens of the same document."""
    position = torch.arange(BOUNDS[-1])
    document = torch.bucketize(position, torch.tensor(BOUNDS[1:]), right=True)
    allowed = (position[:, None] >= position) & (document[:, None] == document)
    key, value = (tensor.repeat_interleave(HEADS // KV_HEADS, 1) for tensor in (key, value))
    scores = torch.einsum("qhd,khd->hqk", query, key) / DIM**0.5
    weights = scores.masked_fill(~allowed, float("-inf")).softmax(-1)
    return torch.einsum("hqk,khd->qhd", weights, value).flatten(1)


def _attend(rank: int, context: int) -> None:
    from acc_megatron.mesh import cpu_backend

    cpu_backend.install()
    from types import SimpleNamespace

    from megatron.core.packed_seq_params import PackedSeqParams
    from megatron.core.transformer.enums import AttnMaskType

    from acc_megatron.mesh.context_shard import shard
    from acc_megatron.model.attention import PackedAttention

    config = SimpleNamespace(attention_dropout=0.0, kv_channels=DIM)
    groups = SimpleNamespace(cp=dist.group.WORLD)
    attention = PackedAttention(config, 1, AttnMaskType.causal, "self", pg_collection=groups)  # type: ignore[arg-type]
    bounds = torch.tensor(BOUNDS, dtype=torch.int32)
    packed = PackedSeqParams(qkv_format="thd", cu_seqlens_q=bounds, cu_seqlens_kv=bounds)
    complete = [tensor.requires_grad_() for tensor in row()]
    expected = plain(*complete)
    cotangent = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected.backward(cotangent)
    mine = [shard(tensor.detach(), BOUNDS, context, rank).requires_grad_() for tensor in complete]
    actual = attention(*mine, packed_seq_params=packed)
    actual.backward(shard(cotangent, BOUNDS, context, rank))
    torch.testing.assert_close(actual, shard(expected, BOUNDS, context, rank), rtol=1e-9, atol=1e-9)
    for local, full in zip(mine, complete, strict=True):
        torch.testing.assert_close(local.grad, shard(full.grad, BOUNDS, context, rank), rtol=1e-9, atol=1e-9)


@pytest.mark.distributed
@pytest.mark.parametrize("context", [1, 2])
def test_packed_attention_and_its_gradients_match_the_dense_definition(context: int) -> None:
    run_on_ranks(_attend, context, context)


def _attend_from_the_last(_: int) -> None:
    from acc_megatron.mesh import cpu_backend

    cpu_backend.install()
    from types import SimpleNamespace

    from megatron.core.packed_seq_params import PackedSeqParams
    from megatron.core.transformer.enums import AttnMaskType

    from acc_megatron.model.attention import PackedAttention

    config = SimpleNamespace(attention_dropout=0.0, kv_channels=DIM)
    groups = SimpleNamespace(cp=dist.group.WORLD)
    attention = PackedAttention(config, 1, AttnMaskType.causal, "self", pg_collection=groups)  # type: ignore[arg-type]
    query, key, value = row()
    lengths = (1, 7, 4, 40)  # of documents of 4, 16, 4 and 40 tokens
    rows = torch.cat([torch.arange(end - n, end) for end, n in zip(BOUNDS[1:], lengths, strict=True)])
    packed = PackedSeqParams(
        qkv_format="thd",
        cu_seqlens_q=torch.tensor([0, *lengths]).cumsum(0).int(),
        cu_seqlens_kv=torch.tensor(BOUNDS, dtype=torch.int32),
        local_cp_size=1,
    )
    actual = attention(query[rows], key, value, packed_seq_params=packed)
    torch.testing.assert_close(actual, plain(query, key, value)[rows], rtol=1e-9, atol=1e-9)


@pytest.mark.distributed
def test_a_document_may_attend_from_its_last_tokens_only() -> None:
    run_on_ranks(_attend_from_the_last, 1)
