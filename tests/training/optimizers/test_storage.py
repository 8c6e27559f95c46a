"""Fields and bytes of the optimizer's storage, and runs that restart with each of its forms."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.layout_cases import Case
from support.layout_matrix import Result, run_cases
from support.make_inputs import make_recipe
from support.restarts import uninterrupted_and_resumed

from acc_megatron.config import OptimizerConfig

BASE = ("train.precision=bfloat16", "parallel.distributed_optimizer=true", "optimizer.kind=adamw",
        "optimizer.learning_rate=1e-3", "optimizer.min_learning_rate=1e-3", "optimizer.clip_grad_norm=1.0",
        "train.epochs=11")  # fmt: skip
STORED = {
    "float32": (),
    "bfloat16, remainders": ("optimizer.moments=bfloat16", "optimizer.master_weights=remainders"),
    "fp8, gradients bfloat16": ("optimizer.moments=fp8", "optimizer.gradients=bfloat16"),
    "fp8, float16": ("optimizer.moments=fp8", "optimizer.master_weights=float16"),
    "offloaded": ("optimizer.offload_fraction=0.5",),
}
DTYPES = {
    "bfloat16, remainders": {
        "exp_avg": torch.bfloat16, "exp_avg_sq": torch.bfloat16, "master_param": torch.int16,
    },
    "fp8, float16": {"exp_avg": torch.uint8, "exp_avg_sq": torch.bfloat16, "master_param": torch.float16},
}  # fmt: skip
LAYOUTS = {
    "one process": (1, ()),
    "DP2": (2, ()),
    "EP2": (2, ("parallel.expert=2",)),
    "TP2": (2, ("parallel.tensor=2",)),
    "PP2 VPP2": (2, ("parallel.pipeline=2", "parallel.virtual_pipeline=2")),
    "TP2 CP2 EP4": (4, ("parallel.tensor=2", "parallel.context=2", "parallel.expert=4")),
    "PP2 DP2 overlapped": (4, ("parallel.pipeline=2", "parallel.overlap_grad_reduce=true",
                               "parallel.overlap_param_gather=true")),
}  # fmt: skip


def test_every_field_exists_in_the_installed_megatron_and_accepts_its_dtype() -> None:
    from megatron.core.optimizer import OptimizerConfig as MegatronConfig

    import acc_megatron.mesh.process_groups  # noqa: F401 - first: makes megatron run without CUDA
    from acc_megatron.training.optimizers.storage import storage_fields

    known = vars(MegatronConfig(lr=1.0))
    choices = itertools.product(("float32", "bfloat16", "fp8"), ("float32", "bfloat16"), ("float32", "remainders"))
    for moments, gradients, weights in choices:
        settings = OptimizerConfig(
            learning_rate=1.0, min_learning_rate=0.0, moments=moments, gradients=gradients, master_weights=weights
        )
        assert set(storage_fields(settings)) <= set(known)
    assert storage_fields(OptimizerConfig(learning_rate=1.0, min_learning_rate=0.0)) == {}


def stored_dtypes(optimizer: Any) -> dict[str, torch.dtype]:
    """The dtypes of one parameter's state."""
    state = next(iter(optimizer.chained_optimizers[0].optimizer.state.values()))
    return {name: value.dtype for name, value in state.items()}


def train_and_resume(recipe: Path, case: Case, _: Result | None) -> Result:
    """Return the losses of a run and then of its resumed half, after a comparison of their states."""
    from acc_megatron.mesh.process_groups import process_groups  # isort: split
    from support.survivors import state_hashes

    from acc_megatron.compatibility import check_job
    from acc_megatron.config import load_config

    folder = recipe.parent / case.name.replace(" ", "_").replace(",", "")
    config = load_config(recipe, [*BASE, *case.overrides, f"train.run_dir={folder}"])
    check_job(config, case.world)
    losses: list[float] = []
    hashes = []
    with process_groups(config.parallel, timeout_seconds=300) as layout:
        for trainer, of_trainer in uninterrupted_and_resumed(config, layout):
            losses += of_trainer
            storage = case.name.rpartition(": ")[2]
            if storage in DTYPES:
                assert stored_dtypes(trainer.optimizer) == DTYPES[storage]
            hashes.append(state_hashes(trainer))
    assert hashes[0] == hashes[1], "weights and optimizer state after the resume"
    return Result(losses=losses)


def check(results: dict[str, Result]) -> None:
    for name, result in results.items():
        assert len(set(result.losses)) == 4, name
        assert [loss.hex() for loss in result.losses[4:]] == [loss.hex() for loss in result.losses[2:4]], name


@pytest.mark.distributed
@pytest.mark.parametrize(
    "names",
    [pytest.param(["bfloat16, remainders"], id="one"), pytest.param(list(STORED), id="all", marks=pytest.mark.slow)],
)
def test_a_restart_with_any_storage_has_the_losses_and_the_state_of_an_uninterrupted_run(
    names: list[str], tmp_path: Path
) -> None:
    check(run_cases(make_recipe(tmp_path), [Case(name, 1, STORED[name]) for name in names], None, train_and_resume))


@pytest.mark.distributed
@pytest.mark.slow
@pytest.mark.parametrize("world", [2, pytest.param(4, marks=pytest.mark.long)])
def test_every_layout_trains_and_restarts_with_narrow_state(world: int, tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path)
    reference = run_cases(recipe, [Case(name, 1, STORED[name]) for name in STORED], None, train_and_resume)
    cases = [
        Case(f"{layout}: {name}", world, (*LAYOUTS[layout][1], *STORED[name]))
        for layout in LAYOUTS
        if LAYOUTS[layout][0] == world
        for name in ("bfloat16, remainders", "fp8, gradients bfloat16", "fp8, float16")
    ]
    results = run_cases(recipe, cases, None, train_and_resume)
    check(results)
    for name, result in results.items():
        expected = reference[name.partition(": ")[2]].losses
        assert result.losses == pytest.approx(expected, rel=2e-3), name


MOVES = {
    "bfloat16, remainders": (LAYOUTS["DP2"], LAYOUTS["PP2 VPP2"], LAYOUTS["TP2"]),
    "fp8, float16": (LAYOUTS["DP2"], LAYOUTS["TP2"], LAYOUTS["EP2"]),
}
TWO_STEPS = "step_00000002"


def load_and_save(recipe: Path, case: Case, _: Result | None) -> Result:
    """Load what the layout before this one saved, or train two steps if this is the first; then save."""
    from acc_megatron.mesh.process_groups import process_groups  # isort: split
    from acc_megatron.checkpoint import store
    from acc_megatron.config import load_config
    from acc_megatron.training.step import train_step
    from acc_megatron.training.trainer import build_trainer

    config = load_config(recipe, [*BASE, *case.overrides, f"train.run_dir={recipe.parent / 'unused'}"])
    number = int(case.name)
    with process_groups(config.parallel, timeout_seconds=300) as layout:
        trainer = build_trainer(config, layout)
        if number:
            store.load(recipe.parent / str(number - 1) / TWO_STEPS, trainer.models, trainer.optimizer)
        else:
            for _step in range(2):
                train_step(trainer)
        store.save(recipe.parent / case.name / TWO_STEPS, trainer.models, trainer.optimizer, {"step": 2, "model": {}})
    return Result()


def stored(folder: Path) -> dict[str, "object"]:
    """Read the complete state: values by name, in float64 where they have scales."""
    from torch.distributed.checkpoint import FileSystemReader, load
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    entries = FileSystemReader(folder).read_metadata().state_dict_metadata
    tensors = {
        key: torch.zeros(entry.size, dtype=entry.properties.dtype)
        for key, entry in entries.items()
        if isinstance(entry, TensorStorageMetadata)
    }
    load(tensors, storage_reader=FileSystemReader(folder), no_dist=True)
    values = {}
    for key, value in tensors.items():
        if not key.startswith("optimizer_shards"):
            continue
        scales = f"optimizer_scales{key.removeprefix('optimizer_shards')}."
        if value.dtype in (torch.uint8, torch.float16):
            wide = (value.view(torch.float8_e4m3fn) if value.dtype is torch.uint8 else value).double()
            for chunk in entries[key].chunks:
                offset, size = ("_".join(map(str, part)) for part in (chunk.offsets, chunk.sizes))
                place = tuple(slice(a, a + n) for a, n in zip(chunk.offsets, chunk.sizes, strict=True))
                wide[place] *= tensors[f"{scales}{offset}.{size}"].item()
            value = wide
        values[key] = value
    return values


@pytest.mark.distributed
@pytest.mark.slow
@pytest.mark.parametrize("name", MOVES)
def test_a_checkpoint_with_narrow_state_moves_through_layouts(name: str, tmp_path: Path) -> None:

    recipe = make_recipe(tmp_path)
    for number, (world, overrides) in enumerate([LAYOUTS["one process"], *MOVES[name]]):
        run_cases(recipe, [Case(str(number), world, (*overrides, *STORED[name]))], None, load_and_save)
    first = stored(tmp_path / "0" / TWO_STEPS)
    for number in range(1, 4):
        moved = stored(tmp_path / str(number) / TWO_STEPS)
        assert moved.keys() == first.keys()
        for key, value in first.items():
            assert isinstance(value, torch.Tensor)
            if "fp8" not in name or "exp_avg_sq" in key:
                assert torch.equal(moved[key], value), key
                continue
            # a rank of another layout has another largest value: each move may round once more
            limit = number * (2**-4 if "exp_avg" in key else 2**-11)
            smallest = value.abs().max() * 2**-14
            torch.testing.assert_close(moved[key], value, rtol=limit, atol=float(limit * smallest))


@pytest.fixture
def go(tmp_path: Path) -> Callable[..., None]:
    recipe = make_recipe(tmp_path)

    def run(max_steps: int, *overrides: str) -> None:
        from acc_megatron.config import load_config
        from acc_megatron.training.train import train

        train(
            load_config(
                recipe, [*BASE, f"train.run_dir={tmp_path / 'run'}", f"train.max_steps={max_steps}", *overrides]
            )
        )

    return run


def test_another_storage_of_the_state_is_refused_on_resume_by_its_key(go: Callable[..., None]) -> None:
    from acc_megatron.errors import CheckpointError

    go(1, "optimizer.moments=bfloat16")
    with pytest.raises(CheckpointError, match=r"optimizer\.moments = 'bfloat16', this run has 'fp8': restore it"):
        go(2, "optimizer.moments=fp8")
    go(2, "optimizer.moments=bfloat16", "optimizer.gradients=bfloat16")


# neighbours of e4m3 differ by up to 1/8, and a moment that follows a steady gradient stops when 1 - beta1 of what is
# missing is less than half of that
SLOWEST = 1 / (1 + 0.5 * 2**-3 / (1 - 0.9))


@pytest.mark.slow
@pytest.mark.long
def test_fifty_steps_with_narrow_state_have_the_losses_of_float32_state_within_the_stated_drift(tmp_path: Path) -> None:
    from support.precision_drift import NUM_STEPS, drift, make_drift_recipe
    from support.storage_drift import REFERENCE, curves

    found = curves(make_drift_recipe(tmp_path, NUM_STEPS), NUM_STEPS)
    reference = found.pop(REFERENCE)
    assert reference[0] - reference[-1] > 5, "the model learns"
    for name, losses in found.items():
        if "fp8" in name:
            late = np.interp(SLOWEST * np.arange(NUM_STEPS), np.arange(NUM_STEPS), reference)
            assert all(loss <= 1.01 * bound for loss, bound in zip(losses, late, strict=True)), name
            assert all(loss >= 0.95 * exact for loss, exact in zip(losses, reference, strict=True)), name
            losses, compared = losses[-10:], reference[-10:]
        else:
            compared = reference
        mean, largest = drift(losses, compared)
        assert mean <= 0.01 and largest <= 0.05, (name, mean, largest)
