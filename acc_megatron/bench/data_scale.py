"""How `compile` and `convert` scale: peak memory by input size, and the speedup from one worker to two."""

from typing import Any

from acc_megatron.bench.data_programs import DataPrograms
from acc_megatron.bench.generated_documents import write_trajectories, write_triples
from acc_megatron.bench.program_usage import median_ratio, rounded
from acc_megatron.data_tools.tokenizer.qwen_bpe import Tokenizer

MEGABYTE = 1_000_000


def memory_curves(programs: DataPrograms, tokenizer: Tokenizer, sizes_mb: list[float]) -> dict[str, Any]:
    """Peak MB of the largest process by MB of input, for generated triples (convert) and trajectories (compile)."""
    convert_peaks, compile_peaks = {}, {}
    for size in sizes_mb:
        triples, trajectories = programs.folder / "curve.jsonl", programs.folder / "trajectories.jsonl"
        write_triples(triples, tokenizer, int(size * MEGABYTE))
        usage = programs.convert(triples, size, 1)
        convert_peaks[f"{size:g}"] = usage and round(usage.peak_mb)
        triples.unlink()
        write_trajectories(trajectories, tokenizer, int(size * MEGABYTE))
        usage = programs.compile([str(trajectories)], size, programs.folder / "compiled")
        compile_peaks[f"{size:g}"] = usage and round(usage.peak_mb)
        trajectories.unlink()
    return {"peak_memory_mb_by_input_mb": convert_peaks, "compile_peak_memory_mb_by_input_mb": compile_peaks}


def worker_scaling(programs: DataPrograms, tokenizer: Tokenizer, size_mb: float, rounds: int) -> dict[str, Any]:
    """Compare one worker with two, in turns on the same input; medians of the ratios over the rounds."""
    triples = programs.folder / "scaling.jsonl"
    write_triples(triples, tokenizer, int(size_mb * MEGABYTE))
    pairs = [[programs.convert(triples, size_mb, workers) for workers in (1, 2)] for _ in range(rounds)]
    triples.unlink()
    one, two = zip(*pairs, strict=True)
    return {
        "speedup_1_to_2_workers": rounded(median_ratio(one, two, "wall_seconds"), 2),
        "cpu_ratio_1_to_2_workers": rounded(median_ratio(two, one), 2),
    }
