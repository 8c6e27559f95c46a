"""Import and export of a large random Hugging Face folder on two ranks: peak memory and all files compared.

PYTHONPATH=tests python -m support.import_memory --gigabytes 2  (about 2 minutes)
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from support.commands import ROOT, free_port

MEGABYTE = 1 << 20
LIMIT_MB = 512  # memory that a rank may use in addition to its own part of the weights


def write_folder(path: Path, *, gigabytes: float, hidden: int, num_files: int, **changes: Any) -> dict[str, Any]:
    """Write random bfloat16 weights in files of about equal size; returns config.json."""
    import torch
    from safetensors.torch import save_file

    from acc_megatron.mesh import cpu_backend

    cpu_backend.install()
    from acc_megatron.checkpoint.huggingface_config import hf_config
    from acc_megatron.config import ModelConfig
    from acc_megatron.model.families import FAMILIES

    def model(num_layers: int) -> ModelConfig:
        sizes: dict[str, Any] = {
            "vocab_size": 151_936, "num_attention_heads": 16, "num_key_value_heads": 4, "head_dim": 64,
            "num_experts": 16, "num_experts_per_tok": 4, "moe_intermediate_size": 512, "max_position_embeddings": 4096,
        }  # fmt: skip
        return ModelConfig(hidden_size=hidden, num_hidden_layers=num_layers, **sizes)

    def num_bytes(shapes: dict[str, tuple[int, ...]]) -> int:
        return 2 * sum(torch.Size(shape).numel() for shape in shapes.values())

    def tensors(num_layers: int, is_fused: bool = False) -> dict[str, tuple[int, ...]]:
        built = model(num_layers)
        return FAMILIES[built.family].weight_map(built).shapes(is_fused=is_fused)

    fixed = num_bytes(tensors(0))
    num_layers = max(1, round((gigabytes * 1e9 - fixed) / (num_bytes(tensors(1)) - fixed)))
    config = hf_config(model(num_layers), "bfloat16", None, None) | changes
    shapes = tensors(num_layers, bool(config.pop("fused", False)))
    files: list[dict[str, tuple[int, ...]]] = [{}]
    for name, shape in shapes.items():
        if num_bytes(files[-1]) > num_bytes(shapes) / num_files:
            files.append({})
        files[-1][name] = shape
    path.mkdir(parents=True)
    weight_map = {}
    generator = torch.Generator().manual_seed(0)
    for number, part in enumerate(files, start=1):
        name = f"model-{number:05d}-of-{len(files):05d}.safetensors"
        bits = {
            # without the highest bit of the exponent no value is NaN or infinite
            tensor: torch.randint(-(1 << 15), 1 << 15, shape, dtype=torch.int16, generator=generator) & ~0x4000
            for tensor, shape in part.items()
        }
        save_file({tensor: value.view(torch.bfloat16) for tensor, value in bits.items()}, path / name, {"format": "pt"})
        weight_map |= dict.fromkeys(part, name)
    total = num_bytes(shapes)
    index = {"metadata": {"total_parameters": total // 2, "total_size": total}, "weight_map": weight_map}
    (path / "model.safetensors.index.json").write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")
    (path / "config.json").write_text(json.dumps(config, indent=2))
    (path / "tokenizer.json").write_text("{}")
    return config


def measured_ranks(world: int, *arguments: str | Path) -> list[float]:
    """Run `acc-megatron` on `world` ranks and return each rank's peak memory in MB.

    Each rank is started by a small process, so that no memory of this process counts.
    """
    port = free_port()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        processes = []
        for rank in range(world):
            usage = Path(folder) / f"{rank}.json"
            errors = stack.enter_context((Path(folder) / f"{rank}.err").open("wb"))
            starter = [sys.executable, "-I", "-S", str(ROOT / "acc_megatron/bench/run_measured.py"), str(usage)]
            environment = {"RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1"}
            processes.append(
                subprocess.Popen(
                    [*starter, sys.executable, "-m", "acc_megatron", *map(str, arguments)],
                    env=os.environ | {"OMP_NUM_THREADS": "1", "MASTER_PORT": str(port)} | environment,
                    stderr=errors,
                    cwd=ROOT,
                    start_new_session=True,
                )
            )
        try:
            for process in processes:
                process.wait(timeout=600)
        finally:
            for process in processes:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, 9)
        peaks = []
        for rank in range(world):
            result = json.loads((Path(folder) / f"{rank}.json").read_bytes())
            assert result["exit_code"] == 0, (Path(folder) / f"{rank}.err").read_text()[-3000:]
            peaks.append(result["peak_kib"] / 1024)
        return peaks


def own_megabytes(hf: Path, *, tensor: int, expert: int) -> float:
    """Return the size of one rank's part of a folder, from the headers of its files."""
    from acc_megatron.checkpoint.huggingface import read_shapes

    total = 0.0
    for file in hf.glob("*.safetensors"):
        for name, shape in read_shapes(file).items():
            size = 2.0
            for dim in shape:
                size *= dim
            if ".experts." in name:
                size /= expert
            elif "norm" not in name and "mlp.gate." not in name:
                size /= tensor
            total += size
    return total / MEGABYTE


def differing_files(first: Path, second: Path) -> list[str]:
    """Return the names of files that are missing in one folder or whose bytes differ."""
    names = {file.name for file in (*first.iterdir(), *second.iterdir())}
    return sorted(
        name
        for name in names
        if not all((folder / name).is_file() for folder in (first, second))
        or subprocess.run(["cmp", "-s", first / name, second / name]).returncode
    )


def measure(folder: Path, hf: Path, *, tensor: int, expert: int) -> dict[str, Any]:
    """Import and export on two ranks; returns peaks, the size of a rank's part, and the files that differ."""
    layout = [f"parallel.tensor={tensor}", f"parallel.expert={expert}"]
    checkpoint, out = folder / f"checkpoint{tensor}{expert}", folder / f"export{tensor}{expert}"
    peaks = measured_ranks(2, "import", hf, "--out", checkpoint, *layout)
    export_peaks = measured_ranks(2, "export", checkpoint, "--out", out)
    added = {"tokenizer_config.json", "chat_template.jinja"}  # the export makes these if none was imported
    return {
        "import_peak_mb": max(peaks),
        "export_peak_mb": max(export_peaks),
        "own_mb": own_megabytes(hf, tensor=tensor, expert=expert),
        "differing": [name for name in differing_files(hf, out) if name not in added],
        "files": len(list(out.glob("*.safetensors"))),
    }


def main() -> None:
    """Print one line of the table per layout."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--gigabytes", type=float, default=2.0)
    gigabytes = parser.parse_args().gigabytes
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        hf = folder / "hf"
        # memory that transformers, torch and megatron-core use themselves: the same command on a tiny model
        write_folder(folder / "small", gigabytes=0.0, hidden=8, num_files=1)
        base = max(measured_ranks(2, "import", folder / "small", "--out", folder / "s", "parallel.expert=2"))
        write_folder(hf, gigabytes=gigabytes, hidden=1024, num_files=5)
        total = sum(file.stat().st_size for file in hf.glob("*.safetensors")) / MEGABYTE
        print(f"{total:,.0f} MB in {len(list(hf.glob('*.safetensors')))} files; without weights {base:,.0f} MB\n")
        print("| layout | part of a rank, MB | peak, import, MB | limit, MB | peak, export, MB | files |")
        print("|---|---|---|---|---|---|")
        for tensor, expert in ((1, 2), (2, 2)):
            row = measure(folder, hf, tensor=tensor, expert=expert)
            assert not row["differing"], row["differing"]
            print(
                f"| TP{tensor} EP{expert} | {row['own_mb']:,.0f} | {row['import_peak_mb']:,.0f} | "
                f"{row['own_mb'] + LIMIT_MB:,.0f} | {row['export_peak_mb']:,.0f} | {row['files']} equal byte for byte |"
            )


if __name__ == "__main__":
    main()
