"""How `compile` and `convert` grow: peak memory over the size of the input, and time from one worker to two."""

import statistics
from typing import Any

from acc_megatron.bench.data_programs import DataPrograms
from acc_megatron.bench.documents import write_documents, write_runs
from acc_megatron.data_tools.tokenizer import Tokenizer

MEGABYTE = 1_000_000


def memory_curves(programs: DataPrograms, tokenizer: Tokenizer, sizes_mb: list[float]) -> dict[str, Any]:
    """Peak MB of the largest process by MB of input: generated triples to convert, generated runs to compile."""
    convert_peaks, compile_peaks = {}, {}
    for size in sizes_mb:
        documents, runs = programs.folder / "curve.jsonl", programs.folder / "runs.jsonl"
        write_documents(documents, tokenizer, int(size * MEGABYTE))
        convert_peaks[f"{size:g}"] = round(programs.convert(documents, size, 1).peak_mb)
        documents.unlink()
        write_runs(runs, tokenizer, int(size * MEGABYTE))
        compile_peaks[f"{size:g}"] = round(programs.compile([str(runs)], size, programs.folder / "compiled").peak_mb)
        runs.unlink()
    return {"peak_memory_mb_by_input_mb": convert_peaks, "compile_peak_memory_mb_by_input_mb": compile_peaks}


def worker_scaling(programs: DataPrograms, tokenizer: Tokenizer, size_mb: float, rounds: int) -> dict[str, Any]:
    """One worker against two, in turns on the same input; medians of the rounds' ratios."""
    documents = programs.folder / "scaling.jsonl"
    write_documents(documents, tokenizer, int(size_mb * MEGABYTE))
    pairs = [[programs.convert(documents, size_mb, workers) for workers in (1, 2)] for _ in range(rounds)]
    documents.unlink()
    return {
        "speedup_1_to_2_workers": round(statistics.median(a.wall_seconds / b.wall_seconds for a, b in pairs), 2),
        "cpu_ratio_1_to_2_workers": round(statistics.median(b.cpu_seconds / a.cpu_seconds for a, b in pairs), 2),
    }
