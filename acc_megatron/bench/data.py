"""`bench data`: convert against Megatron's own path and against its bare tokenizer, on the same generated documents.

Every program is measured whole, start-up included, and the programs take turns within a round; the figures are
medians over the rounds. Ours writes mask, sample table, hashes and manifest, and could resume; the others do not.
"""

import json
import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from acc_megatron.bench.documents import write_documents
from acc_megatron.bench.measure import Usage, append_csv, run_program
from acc_megatron.data_tools.dataset_folder import open_dataset
from acc_megatron.data_tools.fast_encoder import FastTokenizer, with_engine
from acc_megatron.data_tools.indexed import IndexedFile, write_indexed
from acc_megatron.data_tools.render import assistant_content, user_content
from acc_megatron.data_tools.schema import Triple
from acc_megatron.data_tools.tokenizer import load_tokenizer
from acc_megatron.data_tools.tokenizer_files import write_tokenizer_files
from acc_megatron.errors import DataError

MEGABYTE = 1_000_000
LONG_TOKENS, NUM_LONG = 131_072, 64
OURS, BARE, MEGATRON = "acc-megatron convert", "bare tokenizer", "megatron-core"


@dataclass(slots=True)
class _Bench:
    """The folder of a run and everything measured in it."""

    folder: Path
    engine: str
    say: Callable[[str], None]
    rows: list[dict[str, Any]] = field(default_factory=list)

    def take(self, provider: str, megabytes: float, workers: int, arguments: list[str]) -> Usage:
        """Measure one program once."""
        usage = run_program(arguments)
        self.rows.append({"provider": provider, "input_mb": megabytes, "workers": workers, **asdict(usage)})
        self.say(
            f"{provider:<22} {megabytes:>7,.1f} MB  {workers} workers  {usage.cpu_seconds:7.2f} CPU s  "
            f"{usage.wall_seconds:7.2f} s  {usage.peak_mb:6.0f} MB peak"
        )
        return usage

    def convert(self, triples: Path, megabytes: float, workers: int) -> Usage:
        """Measure a conversion into the folder's `out`, made anew."""
        shutil.rmtree(self.folder / "out", ignore_errors=True)
        arguments = ["-m", "acc_megatron", "convert", str(triples), "--out", str(self.folder / "out")]
        return self.take(OURS, megabytes, workers, [*arguments, "--workers", str(workers), "--engine", self.engine])

    def bare(self, texts: Path, megabytes: float) -> Usage:
        """Measure the bare tokenizer loop."""
        program = ["-m", "acc_megatron.bench.bare_tokenizer", "--input", str(texts), "--engine", self.engine]
        return self.take(BARE, megabytes, 1, program)

    def megatron(self, texts: Path, megabytes: float, workers: int) -> Usage:
        """Measure Megatron's path into the folder's `megatron.bin`."""
        program = ["-m", "acc_megatron.bench.megatron_path", "--input", str(texts), "--workers", str(workers)]
        program += ["--tokenizer", str(self.folder / "tokenizer"), "--out", str(self.folder / "megatron")]
        return self.take(MEGATRON, megabytes, workers, program)


def bench_data(
    folder: Path,
    *,
    megabytes: float,
    rounds: int,
    workers: int,
    engine: str,
    curve_megabytes: list[float],
    csv_file: Path,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Generate documents into `folder`, measure, append rows to `csv_file`; returns the figures.

    Raises DataError when Megatron's path and ours do not write the same token bytes.
    """
    bench = _Bench(folder, engine, say)
    tokenizer = load_tokenizer()
    (folder / "tokenizer").mkdir(parents=True, exist_ok=True)
    write_tokenizer_files(tokenizer, folder / "tokenizer", max_length_tokens=LONG_TOKENS)
    small, main = (folder / f"{name}.jsonl" for name in ("one", "main"))
    write_documents(small, tokenizer, 1)
    num_documents = write_documents(main, tokenizer, int(megabytes * MEGABYTE))
    small_texts, main_texts = _texts(small), _texts(main)
    say(f"{num_documents:,} generated documents, {megabytes:g} MB; {rounds} rounds")
    ours, alone, bare, theirs = [], [], [], []
    for _ in range(rounds):
        ours.append(bench.convert(main, megabytes, workers).cpu_seconds)
        bare.append(bench.bare(main_texts, megabytes).cpu_seconds)
        theirs.append(bench.megatron(main_texts, megabytes, workers).cpu_seconds)
        alone.append(bench.convert(main, megabytes, 1).cpu_seconds)
    num_tokens = _same_tokens(folder)
    startup = {
        "ours": bench.convert(small, 0, workers).cpu_seconds,
        "megatron": bench.megatron(small_texts, 0, workers).cpu_seconds,
    }
    peaks, one_worker = {}, Usage(0, 0, 0)
    for size in curve_megabytes:
        large = folder / "curve.jsonl"
        write_documents(large, tokenizer, int(size * MEGABYTE))
        one_worker = bench.convert(large, size, 1)
        peaks[f"{size:g}"] = round(one_worker.peak_mb)
    two_workers = bench.convert(large, size, 2) if curve_megabytes else one_worker
    ratios = [a / b for a, b in zip(theirs, ours, strict=True)]
    result = {
        "cpu_seconds_ratio_vs_megatron": round(statistics.median(ratios), 2),
        "rate_vs_bare_tokenizer": round(statistics.median(a / b for a, b in zip(bare, alone, strict=True)), 3),
        "peak_memory_mb": round(max(row["peak_mb"] for row in bench.rows if row["provider"] == OURS)),
        "peak_memory_mb_by_input_mb": peaks,
        "cpu_seconds_ratio_without_startup": round(
            (statistics.median(theirs) - startup["megatron"]) / (statistics.median(ours) - startup["ours"]), 2
        ),
        "tokens_per_cpu_second": round(num_tokens / statistics.median(alone)),
        "speedup_1_to_2_workers": round(one_worker.wall_seconds / two_workers.wall_seconds, 2) if peaks else None,
        "random_access_ms": round(_random_access_ms(folder), 3),
        "engine": "gigatoken" if isinstance(with_engine(tokenizer, engine), FastTokenizer) else "tiktoken",
    }
    append_csv(csv_file, [row | {"engine": result["engine"]} for row in bench.rows])
    return result


def _texts(triples: Path) -> Path:
    """The rendered documents as Megatron's tools take them: one `{"text": ...}` a line."""
    path = triples.with_suffix(".texts")
    with triples.open("rb") as source, path.open("w", encoding="utf-8") as target:
        for line in source:
            triple = Triple.from_dict(json.loads(line), str(triples))
            reasoning, answer = assistant_content(triple.reasoning, triple.answer)
            user = user_content(triple.question, triple.context)
            text = (
                f"<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n"
                f"<think>\n{reasoning}\n</think>\n\n{answer}<|im_end|>\n"
            )
            target.write(json.dumps({"text": text}) + "\n")
    return path


def _same_tokens(folder: Path) -> int:
    """The number of tokens both wrote; DataError when a byte differs."""
    dataset = open_dataset(folder / "out")
    theirs = IndexedFile(folder / "megatron")
    same = np.array_equal(theirs.lengths, dataset.lengths) and all(
        np.array_equal(theirs[number], dataset.document(number)[0]) for number in range(len(dataset))
    )
    if not same:
        raise DataError(f"convert and megatron-core wrote different tokens in {folder}: the figures mean nothing")
    return int(dataset.lengths.sum())


def _random_access_ms(folder: Path) -> float:
    """Median time to copy out one of 64 documents of 131,072 tokens with its mask, in any order."""
    rng = np.random.default_rng(0)
    ids = [rng.integers(0, 151_643, LONG_TOKENS, np.int32) for _ in range(NUM_LONG)]
    write_indexed(folder / "long", ids, np.int32)
    write_indexed(folder / "long_mask", (np.ones(LONG_TOKENS, np.uint8) for _ in ids), np.uint8)
    tokens, masks = IndexedFile(folder / "long"), IndexedFile(folder / "long_mask")
    times = []
    for number in rng.permutation(NUM_LONG):
        start = time.perf_counter()
        np.array(tokens[number]), np.array(masks[number])
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1_000
