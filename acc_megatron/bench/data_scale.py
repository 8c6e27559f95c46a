"""How `compile` and `convert` scale: peak memory by input size, and the speedup from one worker to two."""

import statistics
from typing import Any

from acc_megatron.bench.data_programs import DataPrograms
from acc_megatron.bench.generated_documents import write_trajectories, write_triples
from acc_megatron.data_tools.tokenizer.qwen_bpe import Tokenizer

MEGABYTE = 1_000_000


def memory_curves(programs: DataPrograms, tokenizer: Tokenizer, sizes_mb: list[float]) -> dict[str, Any]:
    """Peak MB of the largest process by MB of input, for generated triples (convert) and trajectories (compile)."""
    convert_peaks, compile_peaks = {}, {}
    for size in sizes_mb:
        triples, trajectories = programs.folder / "curve.jsonl", programs.folder / "trajectories.jsonl"
        write_triples(triples, tokenizer, int(size * MEGABYTE))
        convert_peaks[f"{size:g}"] = round(programs.convert(triples, size, 1).peak_mb)
        triples.unlink()
        write_trajectories(trajectories, tokenizer, int(size * MEGABYTE))
        usage = programs.compile([str(trajectories)], size, programs.folder / "compiled")
        compile_peaks[f"{size:g}"] = round(usage.peak_mb)
        trajectories.unlink()
    return {"peak_memory_mb_by_input_mb": convert_peaks, "compile_peak_memory_mb_by_input_mb": compile_peaks}


def worker_scaling(programs: DataPrograms, tokenizer: Tokenizer, size_mb: float, rounds: int) -> dict[str, Any]:
    """Compare one worker with two, in turns on the same input; medians of the ratios over the rounds."""
    triples = programs.folder / "scaling.jsonl"
    write_triples(triples, tokenizer, int(size_mb * MEGABYTE))
    pairs = [[programs.convert(triples, size_mb, workers) for workers in (1, 2)] for _ in range(rounds)]
    triples.unlink()
    return {
        "speedup_1_to_2_workers": round(statistics.median(a.wall_seconds / b.wall_seconds for a, b in pairs), 2),
        "cpu_ratio_1_to_2_workers": round(statistics.median(b.cpu_seconds / a.cpu_seconds for a, b in pairs), 2),
    }
