"""Scaled-down training runs whose peak memory is measured to the byte.

`acc_megatron.selftest.allocated_memory` counts every allocation of torch's CPU allocator.
"""

import json
import os
import resource
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from acc_megatron.bench.random_dataset import write_dataset
from acc_megatron.selftest.allocated_memory import allocated_bytes, count_every_allocation, peak_bytes
from support.run_processes import start

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
DOCUMENT_SHARES = (0.5, 0.3125, 0.1875)  # of a packed row
TIME_LIMIT_SECONDS = 1200
WARM_UP_STEPS = 2  # afterwards optimizer states and cached buffers exist


@dataclass(frozen=True)
class Case:
    """A run: overrides of the base recipe, and the number of processes."""

    name: str
    world: int
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Measured:
    """Memory of one rank."""

    between_steps_bytes: int
    peak_bytes: int  # in a step
    resident_bytes: int  # peak of the process
    expert_load: (
        float  # tokens of the rank's experts over the mean of all ranks, in the last microbatch, averaged over layers
    )


def run_cases(cases: Sequence[Case]) -> list[list[Measured]]:
    """Train a few steps of each case on gloo; cases of one world size. Returns the memory of each rank of each case."""
    results = []
    for case in cases:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            run = start(folder, (case, folder), world=case.world, body=_train_and_measure)
            codes = run.wait(TIME_LIMIT_SECONDS)
            assert codes == [0] * case.world, run.error_output()[-3000:]
            files = [folder / f"measured_{rank}.json" for rank in range(case.world)]
            results.append([Measured(**json.loads(file.read_text())) for file in files])
    return results


def case_config(case: Case, folder: Path) -> Any:
    """Load the config of a case, with its dataset and run folder inside `folder`."""
    from acc_megatron.config import load_config

    recipe = folder / "recipe.toml"
    recipe.write_text(RECIPE)
    return load_config(recipe, [f"data.path={folder / 'dataset'}", f"train.run_dir={folder / 'run'}", *case.overrides])


def row_documents(config: Any) -> list[int]:
    """Document lengths of every packed row of the measured runs."""
    return [int(config.data.seq_length_tokens * share) for share in DOCUMENT_SHARES]


def _train_and_measure(arguments: tuple[Case, Path]) -> None:
    case, folder = arguments
    count_every_allocation()  # otherwise memory that gloo's threads release is not counted as released
    rank = int(os.environ.get("RANK", "0"))
    own = folder / f"rank_{rank}"
    own.mkdir()
    config = case_config(case, own)
    documents = row_documents(config) * config.train.global_batch_rows
    write_dataset(own / "dataset", documents, config.model.vocab_size, supervised_share=SUPERVISED_SHARE)
    (folder / f"measured_{rank}.json").write_text(json.dumps(measure(config, case.world)))


def measure(config: Any, world: int) -> dict[str, float]:
    """Measure one rank's memory between steps and in its third step, beyond what was allocated before."""
    from acc_megatron.mesh.process_groups import process_groups  # isort: split
    from acc_megatron.compatibility import check_job
    from acc_megatron.training.step import train_step
    from acc_megatron.training.trainer import build_trainer

    check_job(config, world)
    before = allocated_bytes()
    with process_groups(config.parallel, timeout_seconds=300) as layout:
        trainer = build_trainer(config, layout)
        taken = _watch_experts(trainer)
        for _ in range(WARM_UP_STEPS):
            train_step(trainer)
        between_steps = allocated_bytes() - before
        peak = peak_bytes(partial(train_step, trainer)) - before
        load = _expert_load(trainer, taken)
        del trainer
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"between_steps_bytes": between_steps, "peak_bytes": peak, "resident_bytes": resident, "expert_load": load}


def _watch_experts(trainer: Any) -> dict[int, int]:
    """Record the number of tokens that each layer's experts processed last."""
    taken: dict[int, int] = {}
    for model in trainer.models:
        for module in model.modules():
            if hasattr(module, "local_experts"):
                module.register_forward_pre_hook(lambda layer, inputs: taken.update({id(layer): len(inputs[0])}))
    return taken


def _expert_load(trainer: Any, taken: dict[int, int]) -> float:
    config, layout = trainer.config, trainer.layout
    if not config.model.num_experts:
        return 1.0
    split = config.data.seq_length_tokens // layout.context // layout.tensor
    loads = list(taken.values())
    if config.loss.last_layer_rows == "supervised":
        loads.pop()  # of the last layer, which routes fewer rows
    return sum(loads) / len(loads) / (split * config.model.num_experts_per_tok * layout.expert_tensor)
