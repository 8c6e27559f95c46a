"""Every rank saves its own shard of the optimizer, and a rank of any other layout finds its shard in the same files."""

import functools
from itertools import groupby, pairwise
from pathlib import Path

import pytest
import torch
from support.layout_cases import Case
from support.layout_matrix import Result, run_cases, small_buckets
from support.memory_cases import write_dataset
from support.survivors import write_recipe

BF16 = ("model.num_hidden_layers=4", "train.precision=bfloat16")
SHARDED = (*BF16, "parallel.distributed_optimizer=true")
ORIGIN = "one process"  # trains two steps; all others only load and save
VOCABULARY = 16_384
CHAIN = {
    ORIGIN: (1, BF16),
    "PP2 VPP2, whole optimizer": (2, (*BF16, "parallel.pipeline=2", "parallel.virtual_pipeline=2")),
    "TP2": (2, (*SHARDED, "parallel.tensor=2")),
    "DP2": (2, SHARDED),
    "DP4": (4, SHARDED),
    "TP2 DP2": (4, (*SHARDED, "parallel.tensor=2")),
    "EP2 DP4, whole optimizer": (4, (*BF16, "parallel.expert=2")),
    "PP2 VPP2 DP2": (4, (*SHARDED, "parallel.pipeline=2", "parallel.virtual_pipeline=2")),
    "TP2 CP2 EP4": (4, (*SHARDED, "parallel.tensor=2", "parallel.context=2", "parallel.expert=4")),
    "TP2 EP2, whole optimizer": (4, (*BF16, "parallel.tensor=2", "parallel.expert=2")),
}
pytestmark = pytest.mark.distributed


def checkpoint(recipe: Path, name: str) -> Path:
    return recipe.parent / name.replace(" ", "_") / "step_00000002"


def load_and_save(sources: dict[str, str], recipe: Path, case: Case, _: Result | None) -> Result:
    """Load what the layout before this one in `sources` saved, or train two steps if there is none; then save."""
    from acc_megatron.mesh.process_groups import process_groups  # isort: split
    from acc_megatron.checkpoint import store
    from acc_megatron.config import load_config
    from acc_megatron.training.step import train_step
    from acc_megatron.training.trainer import build_trainer

    config = load_config(recipe, [*case.overrides, f"train.run_dir={recipe.parent / 'unused'}"])
    with small_buckets(), process_groups(config.parallel, timeout_seconds=300) as layout:
        trainer = build_trainer(config, layout)
        if case.name not in sources:
            for _ in range(2):
                train_step(trainer)
            torch.save(optimizer_in_memory(trainer), recipe.parent / "memory.pt")
        else:
            store.load(checkpoint(recipe, sources[case.name]), trainer.models, trainer.optimizer)
        store.save(checkpoint(recipe, case.name), trainer.models, trainer.optimizer, {"step": 2, "model": {}})
        return Result(losses=[float(group["step"]) for group in trainer.optimizer.param_groups])


def optimizer_in_memory(trainer) -> dict[str, torch.Tensor]:
    """Return moments and float32 weights of one process, from Megatron's objects, by their names in a checkpoint."""
    from acc_megatron.checkpoint.saved_tensors import place_in_checkpoint

    states = {
        main: state for part in trainer.optimizer.chained_optimizers for main, state in part.optimizer.state.items()
    }
    tensors = {}
    for name, parameter in trainer.models[0].module.named_parameters():
        key, place = place_in_checkpoint(name)
        # Transformer Engine fuses this norm into the next layer, and checkpoints have its name
        key = key.replace("input_layernorm.weight", "self_attention.linear_qkv.layer_norm_weight")
        state = states[parameter.main_param] | {"fp32_param": parameter.main_param.detach()}
        for kind, value in state.items():
            tensors[".".join(["optimizer_shards", kind, key, *map(str, place)])] = value
    return tensors


def saved(folder: Path) -> dict[str, torch.Tensor]:
    """Read all tensors completely, with torch's reader."""
    from torch.distributed.checkpoint import FileSystemReader, load
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    stored = FileSystemReader(folder).read_metadata().state_dict_metadata
    tensors = {
        key: torch.full(entry.size, torch.nan, dtype=entry.properties.dtype)
        for key, entry in stored.items()
        if isinstance(entry, TensorStorageMetadata)
    }
    load(tensors, storage_reader=FileSystemReader(folder), no_dist=True)
    return tensors


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(["PP2 VPP2, whole optimizer", "TP2", "DP2"], id="two processes"),
        pytest.param(list(CHAIN)[1:], id="every layout", marks=[pytest.mark.slow, pytest.mark.long]),
    ],
)
def test_a_checkpoint_that_moves_through_layouts_keeps_every_bit(names: list[str], tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "dataset", [200] * 8, VOCABULARY, supervised_share=0.1)
    recipe = write_recipe(tmp_path / "recipe.toml", dataset, batch_rows=4, epochs=1)
    cases = [Case(name, *CHAIN[name]) for name in (ORIGIN, *names)]
    move = functools.partial(load_and_save, dict(pairwise(reversed([ORIGIN, *names]))))
    for _, same_world in groupby(cases, key=lambda case: case.world):
        for name, result in run_cases(recipe, list(same_world), None, move).items():
            assert set(result.losses) == {2.0}, f"{name}: the number of updates"
    memory = torch.load(tmp_path / "memory.pt", weights_only=True)
    origin = saved(checkpoint(recipe, ORIGIN))
    assert {key for key in origin if key.startswith("optimizer_shards")} == set(memory)
    assert all(torch.equal(origin[key], value) for key, value in memory.items())
    for name in names:
        moved = saved(checkpoint(recipe, name))
        assert moved.keys() == origin.keys(), name
        assert [key for key in origin if not torch.equal(moved[key], origin[key])] == [], name
    for name in {"DP2", "DP4"}.intersection(names):
        check_files(recipe, name, num_ranks=CHAIN[name][0])


def check_files(recipe: Path, name: str, num_ranks: int) -> None:
    """Each rank wrote about an equal part, as `plan` predicts, and a damaged shard of any rank is refused."""
    from acc_megatron.checkpoint import integrity
    from acc_megatron.config import load_config
    from acc_megatron.errors import CheckpointError
    from acc_megatron.mesh.layout import build_layout
    from acc_megatron.plan.parameters import stage_parameters
    from acc_megatron.plan.saving import saving_cost

    folder = checkpoint(recipe, name)
    files = [folder / f"__{rank}_0.distcp" for rank in range(num_ranks)]
    sizes = [file.stat().st_size for file in files]
    # embedding and head are not divided: two ranks write all of their weights
    assert max(sizes) < 1.2 * sum(sizes) / num_ranks, sizes
    config = load_config(recipe, SHARDED)
    layout = build_layout(config.parallel, num_ranks)
    cost = saving_cost(config, layout, stage_parameters(config.model, layout, 0))
    assert max(sizes) == pytest.approx(cost.written, rel=0.1)  # a stored tensor has a header
    integrity.check(folder)
    for file in files:
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
        with pytest.raises(CheckpointError, match=f"{file} is damaged: .* expected"):
            integrity.check(folder)
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
