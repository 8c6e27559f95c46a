"""`bench data`: convert against Megatron's own path and against its bare tokenizer, on the same documents.

Every program is measured whole, start-up included, and the programs take turns within a round; the figures are
medians over the rounds. Ours writes mask, sample table, hashes and manifest, and could resume; the others do not.
Documents are generated, and where real runs are given, those are compiled and compared as well.
"""

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from acc_megatron.bench.data_programs import OURS, DataPrograms
from acc_megatron.bench.data_scale import MEGABYTE, memory_curves, worker_scaling
from acc_megatron.bench.documents import write_documents
from acc_megatron.bench.measure import append_csv
from acc_megatron.data_tools.dataset_folder import open_dataset
from acc_megatron.data_tools.fast_encoder import FastTokenizer, with_engine
from acc_megatron.data_tools.indexed import IndexedFile, write_indexed
from acc_megatron.data_tools.render import assistant_content, user_content
from acc_megatron.data_tools.schema import Triple
from acc_megatron.data_tools.tokenizer import load_tokenizer
from acc_megatron.data_tools.tokenizer_files import write_tokenizer_files
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
    """Generate documents into `folder`, measure, append rows to `csv_file`; returns the figures.

    `real` is a folder of trajectories, measured as well. Raises DataError when Megatron's path and ours do not write
    the same token bytes.
    """
    programs, tokenizer = DataPrograms(folder, engine, say), load_tokenizer()
    (folder / "tokenizer").mkdir(parents=True, exist_ok=True)
    write_tokenizer_files(tokenizer, folder / "tokenizer", max_length_tokens=LONG_TOKENS)
    main = folder / "main.jsonl"
    num_documents = write_documents(main, tokenizer, int(megabytes * MEGABYTE))
    say(f"{num_documents:,} generated documents, {megabytes:g} MB; {rounds} rounds")
    result = _compare(programs, main, megabytes, rounds, workers)
    if curve_megabytes:
        result |= memory_curves(programs, tokenizer, curve_megabytes)
        result |= worker_scaling(programs, tokenizer, max(curve_megabytes), rounds)
    peak_mb = max(row["peak_mb"] for row in programs.rows if row["provider"] == OURS)
    result |= {
        "peak_memory_mb": round(peak_mb),
        "random_access_ms": round(_random_access_ms(folder), 3),
        "engine": "gigatoken" if isinstance(with_engine(tokenizer, engine), FastTokenizer) else "tiktoken",
    }
    if real is not None:
        result["real"] = _real(programs, real, rounds, workers)
    append_csv(csv_file, [row | {"engine": result["engine"]} for row in programs.rows])
    return result


def _compare(programs: DataPrograms, triples: Path, megabytes: float, rounds: int, workers: int) -> dict[str, Any]:
    """Ours with `workers`, the bare loop, Megatron's path and ours alone, in turns; the ratios' medians."""
    texts = _texts(triples)
    ours, alone, bare, theirs = [], [], [], []
    for _ in range(rounds):
        ours.append(programs.convert(triples, megabytes, workers).cpu_seconds)
        bare.append(programs.bare(texts, megabytes).cpu_seconds)
        theirs.append(programs.megatron(texts, megabytes, workers).cpu_seconds)
        alone.append(programs.convert(triples, megabytes, 1).cpu_seconds)
    num_tokens = _same_tokens(programs.folder)
    return {
        "cpu_seconds_ratio_vs_megatron": round(statistics.median(a / b for a, b in zip(theirs, ours, strict=True)), 2),
        "rate_vs_bare_tokenizer": round(statistics.median(a / b for a, b in zip(bare, alone, strict=True)), 3),
        "tokens": num_tokens,
        "tokens_per_cpu_second": round(num_tokens / statistics.median(alone)),
    }


def _real(programs: DataPrograms, runs: Path, rounds: int, workers: int) -> dict[str, Any]:
    """Real runs compiled, and their documents converted in comparison; small inputs are mostly start-up."""
    kinds = [str(path) for name in ("search", "swe", "sql") if (path := runs / name).is_dir()]
    megabytes = (
        sum(file.stat().st_size for kind in kinds for file in Path(kind).rglob("*") if file.is_file()) / MEGABYTE
    )
    compiled = programs.folder / "real"
    usage = programs.compile(kinds or [str(runs)], round(megabytes, 1), compiled)
    triples = compiled / "triples.jsonl"
    size_mb = round(triples.stat().st_size / MEGABYTE, 1)
    return {
        "input_mb": round(megabytes, 1),
        "triples_mb": size_mb,
        "compile_cpu_seconds": round(usage.cpu_seconds, 2),
    } | (_compare(programs, triples, size_mb, rounds, workers))


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
