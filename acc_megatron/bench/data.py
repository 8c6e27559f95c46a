"""`bench data`: compares `convert` with Megatron's preprocessing and with the bare tokenizer on the same documents.

Every program is measured from start to end, start-up included. The programs take turns within a round, and figures are
medians over the rounds. Only `convert` writes masks, a sample table, hashes and a manifest, and can resume. The
documents are generated; if real trajectories are given, these are compiled and compared as well.
"""

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from acc_megatron.bench.csv_file import append_csv
from acc_megatron.bench.data_programs import OURS, DataPrograms
from acc_megatron.bench.data_scale import MEGABYTE, memory_curves, worker_scaling
from acc_megatron.bench.generated_documents import write_triples
from acc_megatron.bench.program_usage import median_ratio, rounded
from acc_megatron.data_tools.convert.dataset_folder import open_dataset
from acc_megatron.data_tools.convert.indexed_file import IndexedFile, write_indexed
from acc_megatron.data_tools.convert.render import user_content
from acc_megatron.data_tools.schema import Triple
from acc_megatron.data_tools.tokenizer.gigatoken_engine import FastTokenizer, with_engine
from acc_megatron.data_tools.tokenizer.huggingface_files import write_tokenizer_files
from acc_megatron.data_tools.tokenizer.qwen_bpe import load_tokenizer
from acc_megatron.errors import DataError

LONG_TOKENS, NUM_LONG = 131_072, 64


def bench_data(
    folder: Path,
    *,
    megabytes: float,
    rounds: int,
    workers: int,
    engine: str,
    curve_megabytes: list[float],
    real: Path | None,
    csv_file: Path,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Generate documents in `folder`, measure, append rows to `csv_file` and return the figures.

    `real` is an optional folder of trajectories that is measured as well. Raises DataError if Megatron and `convert`
    write different tokens. A program that fails is a row with the reason, and its ratios are None.
    """
    programs, tokenizer = DataPrograms(folder, engine, say), load_tokenizer()
    (folder / "tokenizer").mkdir(parents=True, exist_ok=True)
    write_tokenizer_files(tokenizer, folder / "tokenizer", max_length_tokens=LONG_TOKENS)
    main = folder / "main.jsonl"
    num_documents = write_triples(main, tokenizer, int(megabytes * MEGABYTE))
    say(f"{num_documents:,} generated documents, {megabytes:g} MB; {rounds} rounds")
    result = _compare(programs, main, megabytes, rounds, workers)
    if curve_megabytes:
        result |= memory_curves(programs, tokenizer, curve_megabytes)
        result |= worker_scaling(programs, tokenizer, max(curve_megabytes), rounds)
    peaks_mb = [row["peak_mb"] for row in programs.rows if row["provider"] == OURS and row["peak_mb"] is not None]
    result |= {
        "peak_memory_mb": rounded(max(peaks_mb, default=None), 0),
        "random_access_ms": round(_random_access_ms(folder), 3),
        "engine": "gigatoken" if isinstance(with_engine(tokenizer, engine), FastTokenizer) else "tiktoken",
    }
    if real is not None:
        result["real"] = _real(programs, real, rounds, workers)
    append_csv(csv_file, [row | {"engine": result["engine"]} for row in programs.rows])
    return result


def _compare(programs: DataPrograms, triples: Path, megabytes: float, rounds: int, workers: int) -> dict[str, Any]:
    """Measure `convert`, the bare tokenizer, Megatron and `convert` with one worker in turns; medians of the ratios."""
    texts = _texts(triples)
    ours, single, bare, megatron = [], [], [], []
    for _ in range(rounds):
        ours.append(programs.convert(triples, megabytes, workers))
        bare.append(programs.bare(texts, megabytes))
        megatron.append(programs.megatron(texts, megabytes, workers))
        single.append(programs.convert(triples, megabytes, 1))
    both_ran = single[-1] is not None and megatron[-1] is not None
    num_tokens = _count_equal_tokens(programs.folder) if both_ran else None
    seconds = [usage.cpu_seconds for usage in single if usage]
    return {
        "cpu_seconds_ratio_vs_megatron": rounded(median_ratio(megatron, ours), 2),
        "rate_vs_bare_tokenizer": rounded(median_ratio(bare, single), 3),
        "tokens": num_tokens,
        "tokens_per_cpu_second": round(num_tokens / statistics.median(seconds)) if num_tokens else None,
    }


def _real(programs: DataPrograms, runs: Path, rounds: int, workers: int) -> dict[str, Any]:
    """Compile real trajectories and compare the conversion of their documents; small inputs mostly measure start-up."""
    kinds = [str(path) for name in ("search", "swe", "sql") if (path := runs / name).is_dir()]
    megabytes = (
        sum(file.stat().st_size for kind in kinds for file in Path(kind).rglob("*") if file.is_file()) / MEGABYTE
    )
    compiled = programs.folder / "real"
    usage = programs.compile(kinds or [str(runs)], round(megabytes, 1), compiled)
    if usage is None:
        return {"input_mb": round(megabytes, 1)}
    triples = compiled / "triples.jsonl"
    size_mb = round(triples.stat().st_size / MEGABYTE, 1)
    return {
        "input_mb": round(megabytes, 1),
        "triples_mb": size_mb,
        "compile_cpu_seconds": round(usage.cpu_seconds, 2),
    } | (_compare(programs, triples, size_mb, rounds, workers))


def _texts(triples: Path) -> Path:
    """Write the rendered documents in the format of Megatron's tools: one `{"text": ...}` per line."""
    path = triples.with_suffix(".texts")
    with triples.open("rb") as source, path.open("w", encoding="utf-8") as target:
        for line in source:
            triple = Triple.from_dict(json.loads(line), str(triples))
            reasoning, answer = triple.reasoning.strip("\n"), triple.answer.lstrip("\n")
            user = user_content(triple.question, triple.context)
            text = (
                f"<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n"
                f"<think>\n{reasoning}\n</think>\n\n{answer}<|im_end|>\n"
            )
            target.write(json.dumps({"text": text}) + "\n")
    return path


def _count_equal_tokens(folder: Path) -> int:
    """The number of tokens that both programs wrote. Raises DataError if a token differs."""
    dataset = open_dataset(folder / "out")
    megatron = IndexedFile(folder / "megatron")
    is_equal = np.array_equal(megatron.lengths, dataset.lengths) and all(
        np.array_equal(megatron[number], dataset.document(number)[0]) for number in range(len(dataset))
    )
    if not is_equal:
        raise DataError(f"convert and megatron-core wrote different tokens in {folder}: the figures are not comparable")
    return int(dataset.lengths.sum())


def _random_access_ms(folder: Path) -> float:
    """Median time to copy one of 64 documents of 131,072 tokens and its mask, in random order."""
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
