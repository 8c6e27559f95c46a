"""Scaled-down training runs whose peak memory is measured to the byte, in processes of their own.

torch's profiler reports every allocation of its CPU allocator, temporaries inside operations included: no noise, unlike
resident memory, which also holds the interpreter, libraries and what the C library keeps.
"""

import ctypes
import gc
import hashlib
import json
import os
import resource
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.multiprocessing as mp
from commands import free_port

RECIPE = """
name = "memory"
[model]
vocab_size = 8192
hidden_size = 256
num_hidden_layers = 4
num_attention_heads = 8
num_key_value_heads = 2
head_dim = 32
num_experts = 8
num_experts_per_tok = 2
moe_intermediate_size = 96
max_position_embeddings = 8192
[data]
path = "unset"
seq_length_tokens = 2048
[optimizer]
learning_rate = 1e-4
min_learning_rate = 1e-5
[train]
run_dir = "unset"
global_batch_rows = 4
epochs = 100
"""
SUPERVISED_SHARE = 0.05
DOCUMENTS = (0.5, 0.3125, 0.1875)  # of a row
TIME_LIMIT_SECONDS = 1200
WARM_UP_STEPS = 2  # optimizer states and cached buffers exist after these


@dataclass(frozen=True)
class Case:
    """A run by its overrides of the base recipe, and how many processes it takes."""

    name: str
    world: int
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Measured:
    """Bytes of one rank: alive between steps, at the peak of a step, and resident in the process at its own peak."""

    standing_bytes: int
    peak_bytes: int
    resident_bytes: int
    expert_load: float  # tokens of the rank's experts over the even share, in the last microbatch, mean over layers


def write_dataset(folder: Path, lengths_tokens: Sequence[int], vocab_size: int, *, supervised_share: float) -> Path:
    """A dataset folder of random ids below `vocab_size`, supervised at the end of each document."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from acc_megatron.data_tools.dataset_folder import FORMAT_VERSION, SAMPLE_SCHEMA, SAMPLES, fingerprint
    from acc_megatron.data_tools.indexed import write_indexed

    rng = np.random.default_rng(0)
    shard = folder / "shards" / "00000"
    shard.mkdir(parents=True)
    documents = [rng.integers(0, vocab_size, length, dtype=np.int32) for length in lengths_tokens]
    masks = [np.zeros(length, np.uint8) for length in lengths_tokens]
    rows: list[dict[str, Any]] = []
    for number, (length, mask) in enumerate(zip(lengths_tokens, masks, strict=True)):
        supervised = max(1, round(length * supervised_share))
        mask[length - supervised :] = 1
        row: dict[str, Any] = dict.fromkeys(SAMPLE_SCHEMA.names)
        rows.append(row | {"id": str(number), "tokens": length, "supervised_tokens": supervised})
    write_indexed(shard / "tokens", documents, np.int32)
    write_indexed(shard / "loss_mask", masks, np.uint8)
    pq.write_table(pa.Table.from_pylist(rows, SAMPLE_SCHEMA), folder / SAMPLES, write_page_checksum=True)
    files = {
        str(path.relative_to(folder)): {
            "bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()
        }
        for path in sorted(folder.rglob("*")) if path.is_file()
    }  # fmt: skip
    manifest = {"format_version": FORMAT_VERSION, "shards": 1, "files": files}
    manifest |= {
        "tokenizer": {"vocab_size": vocab_size, "pad_id": 0},
        "settings": {},
        "dropped": {},
        "dropped_tokens": {},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest | {"fingerprint": fingerprint(manifest)}))
    return folder


def run_cases(cases: Sequence[Case]) -> list[list[Measured]]:
    """Train a few real steps of each case on gloo, all of one world, in processes of their own; what each rank saw."""
    world = cases[0].world
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ports = [free_port() for _ in cases]
        context = mp.start_processes(_worker, (cases, ports, folder), nprocs=world, join=False, start_method="spawn")
        assert context is not None
        try:
            deadline = time.monotonic() + TIME_LIMIT_SECONDS
            while not context.join(timeout=1):
                assert time.monotonic() < deadline, f"no end after {TIME_LIMIT_SECONDS} s"
        finally:
            for process in context.processes:
                process.kill()
        return [
            [Measured(**json.loads((folder / f"{number}-{rank}.json").read_text())) for rank in range(world)]
            for number in range(len(cases))
        ]


def case_config(case: Case, folder: Path) -> Any:
    """The case's config, over a dataset and a run folder inside `folder`."""
    from acc_megatron.config import load_config

    recipe = folder / "recipe.toml"
    recipe.write_text(RECIPE)
    return load_config(recipe, [f"data.path={folder / 'dataset'}", f"train.run_dir={folder / 'run'}", *case.overrides])


def row_documents(config: Any) -> list[int]:
    """Tokens of the documents of every row of the measured runs."""
    return [int(config.data.seq_length_tokens * share) for share in DOCUMENTS]


def _worker(rank: int, cases: Sequence[Case], ports: list[int], folder: Path) -> None:
    torch.set_num_threads(1)
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libc10.so"))
    # or what gloo's threads release would never be counted as released
    ctypes.c_bool.in_dll(library, "FLAGS_caffe2_report_cpu_memory_usage").value = True
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(cases[0].world), "MASTER_ADDR": "127.0.0.1"}
    for number, (case, port) in enumerate(zip(cases, ports, strict=True)):
        os.environ["MASTER_PORT"] = str(port)
        own = folder / f"{number}-{rank}"
        own.mkdir()
        config = case_config(case, own)
        documents = row_documents(config) * config.train.global_batch_rows
        write_dataset(own / "dataset", documents, config.model.vocab_size, supervised_share=SUPERVISED_SHARE)
        (folder / f"{number}-{rank}.json").write_text(json.dumps(measure(config)))


def measure(config: Any) -> dict[str, float]:
    """One rank's memory between steps and in its third step, beyond what the process held before."""
    from torch.profiler import ProfilerActivity, profile

    from acc_megatron.distributed import process_groups  # isort: split
    from acc_megatron.compatibility import check_job
    from acc_megatron.step import train_step
    from acc_megatron.trainer import build_trainer

    check_job(config, int(os.environ["WORLD_SIZE"]))
    before = allocated_bytes()
    with process_groups(config.parallel, timeout_seconds=300) as layout:
        trainer = build_trainer(config, layout)
        taken = _watch_experts(trainer)
        for _ in range(WARM_UP_STEPS):
            train_step(trainer)
        standing = allocated_bytes() - before
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            train_step(trainer)
        peak = max(_totals(profiler)) - before
        load = _expert_load(trainer, taken)
        del trainer
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"standing_bytes": standing, "peak_bytes": peak, "resident_bytes": resident, "expert_load": load}


def _watch_experts(trainer: Any) -> dict[int, int]:
    """Tokens that each layer's experts took last, filled as the model runs."""
    taken: dict[int, int] = {}
    for model in trainer.models:
        for module in model.modules():
            if hasattr(module, "local_experts"):
                module.register_forward_pre_hook(lambda layer, inputs: taken.update({id(layer): len(inputs[0])}))
    return taken


def _expert_load(trainer: Any, taken: dict[int, int]) -> float:
    config, layout = trainer.config, trainer.layout
    split = config.data.seq_length_tokens // layout.context // layout.tensor
    return sum(taken.values()) / len(taken) / (split * config.model.num_experts_per_tok * layout.expert_tensor)


def allocated_bytes() -> int:
    """What torch's CPU allocator holds now."""
    from torch.profiler import ProfilerActivity, profile

    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        probe = torch.empty(1, dtype=torch.uint8)
    return _totals(profiler)[0] - probe.nbytes


def _totals(profiler: Any) -> list[int]:
    """Bytes that the allocator held after each of its calls."""
    from torch._C._profiler import _EventType

    found: list[tuple[int, int]] = []
    waiting = list(profiler.profiler.kineto_results.experimental_event_tree())
    while waiting:
        event = waiting.pop()
        if event.tag == _EventType.Allocation:
            found.append((event.start_time_ns, event.extra_fields.total_allocated))
        waiting += event.children
    return [total for _, total in sorted(found, key=lambda item: item[0])]
