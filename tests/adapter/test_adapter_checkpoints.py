"""Checkpoints of an adapter have only what it trains; they resume bit by bit, and only on their base."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ADAPTER = ("adapter.rank=4", "adapter.targets=['attention', 'experts']", "adapter.trained=['router']")
ADAMW = ("optimizer.kind=adamw", "optimizer.learning_rate=3e-3", "parallel.distributed_optimizer=true")


@pytest.fixture
def go(recipe: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """Train a run in this process up to a step; returns the logged losses as hexadecimal floats."""

    def run(name: str, max_steps: int, *overrides: str) -> list[str]:
        from acc_megatron.config import load_config
        from acc_megatron.observe.metrics import read_steps
        from acc_megatron.training.train import train

        settings = [f"train.run_dir={tmp_path / name}", f"train.max_steps={max_steps}", *ADAPTER, *ADAMW, *overrides]
        train(load_config(recipe, settings))
        return [step["loss"].hex() for step in read_steps(tmp_path / name)]

    return run


def saved(run_dir: Path, step: int) -> dict[str, dict[str, Any]]:
    from acc_megatron.checkpoint.locate import read_json

    files = read_json(run_dir / "checkpoints" / f"step_{step:08d}" / "manifest.json")["files"]
    return {name: entry for name, entry in files.items() if name.endswith(".distcp")}


def test_a_resumed_adapter_writes_the_bytes_of_an_uninterrupted_one_with_dropout(
    go: Callable[..., list[str]], tmp_path: Path
) -> None:
    both = ("adapter.dropout=0.1", "train.precision=bfloat16")
    complete = go("complete", 3, *both)
    go("parts", 1, *both)
    assert go("parts", 3, *both) == complete and len(set(complete)) == 3
    assert saved(tmp_path / "parts", 3) == saved(tmp_path / "complete", 3)


def test_an_adapter_over_a_base_in_fp8_begins_with_the_loss_of_the_base_and_lowers_it(
    go: Callable[..., list[str]],
) -> None:
    precision = ("train.precision=fp8_current", "optimizer.learning_rate=0.03")
    base = go("base", 1, *precision, "adapter.rank=0", "adapter.targets=['attention']", "adapter.trained=[]")
    losses = go("adapter", 4, *precision)
    assert losses[0] == base[0], "B is 0 at first"
    assert float.fromhex(losses[-1]) < float.fromhex(losses[0]) - 0.02


def test_a_checkpoint_of_an_adapter_has_its_tensors_and_optimizer_state_and_nothing_of_the_base(
    go: Callable[..., list[str]], tmp_path: Path
) -> None:
    from torch.distributed.checkpoint import FileSystemReader

    go("run", 1)
    folder = tmp_path / "run" / "checkpoints" / "step_00000001"
    keys = {key for key in FileSystemReader(folder).read_metadata().state_dict_metadata if "shards" not in key}
    layer = "adapter.model.layers.N"
    expected = {f"{layer}.mlp.gate.weight"}
    for matrix in ("self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o"):
        expected |= {f"{layer}.{matrix}_proj.lora_{which}" for which in "AB"}
    for matrix in ("gate", "up", "down"):
        expected |= {f"{layer}.mlp.experts.{matrix}_proj.lora_{which}" for which in "AB"}
    weights = {re.sub(r"layers\.\d+", "layers.N", key) for key in keys if key.startswith("adapter.")}
    assert weights == expected
    assert {key for key in keys if not key.startswith("adapter.")} <= {"common_state/shard_0_1"}
    state = json.loads((folder / "state.json").read_text())
    assert len(state["base"]["sha256"]) == 64
    written = sum(entry["bytes"] for entry in saved(tmp_path / "run", 1).values())
    assert written < 1_000_000, "the base has 40 MB"


def test_an_adapter_does_not_resume_on_another_base_or_with_another_shape(
    go: Callable[..., list[str]], tmp_path: Path, make_hf_folder: Callable[..., Path]
) -> None:
    from support.run_processes import import_hf_folder

    from acc_megatron.errors import CheckpointError

    go("run", 1)
    import_hf_folder(make_hf_folder(tmp_path / "hf", seed=7), tmp_path / "other")
    with pytest.raises(CheckpointError) as caught:
        go("run", 2, f"train.init_from={tmp_path / 'other'}")
    assert "is an adapter of the base" in str(caught.value) and f"{tmp_path / 'other'}" in str(caught.value)
    with pytest.raises(CheckpointError, match=r"trained with adapter\.alpha = 32\.0, this run has 16\.0"):
        go("run", 2, "adapter.alpha=16")
    with pytest.raises(CheckpointError, match="is the checkpoint of an adapter, without the weights of its base"):
        go("next", 1, f"train.init_from={tmp_path / 'run'}")


def test_a_trained_adapter_is_merged_only_into_the_base_that_it_was_trained_on(
    go: Callable[..., list[str]], tmp_path: Path, imported: Path, make_hf_folder: Callable[..., Path]
) -> None:
    from safetensors.torch import load_file
    from support.in_process import acc_in_process
    from support.run_processes import import_hf_folder

    go("run", 1)
    done = acc_in_process("export", tmp_path / "run", "--out", tmp_path / "merged", "--merge")
    assert done.returncode == 0, done.stderr
    done = acc_in_process("export", tmp_path / "run", "--out", tmp_path / "peft", "--adapter", "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["step"] == 1, done.stderr
    merged, factors = (
        load_file(tmp_path / "merged" / "model.safetensors"),
        load_file(tmp_path / "peft" / "adapter_model.safetensors"),
    )
    base = load_file(imported.parent / "hf" / "model.safetensors")
    name = "model.layers.1.self_attn.q_proj"
    first, second = (factors[f"base_model.model.{name}.lora_{which}.weight"] for which in "AB")
    assert second.abs().max() > 0
    expected = base[f"{name}.weight"] + 32 / 4 * second @ first
    assert float((merged[f"{name}.weight"] - expected).abs().max()) < 1e-6
    assert (merged["lm_head.weight"] == base["lm_head.weight"]).all()
    import_hf_folder(make_hf_folder(tmp_path / "hf", seed=7), tmp_path / "other")
    done = acc_in_process(
        "export", tmp_path / "run", "--out", tmp_path / "wrong", "--merge", "--base", tmp_path / "other"
    )
    assert done.returncode == 2 and "is an adapter of the base" in done.stderr and not (tmp_path / "wrong").exists()


def test_frozen_parts_keep_their_bits_and_the_others_change(recipe: Path, tmp_path: Path, imported: Path) -> None:
    import torch

    from acc_megatron.adapter.parts import part_of
    from acc_megatron.checkpoint.locate import find
    from acc_megatron.checkpoint.saved_tensors import SavedTensors
    from acc_megatron.config import load_config
    from acc_megatron.model.families import FAMILIES
    from acc_megatron.training.train import train

    settings = [
        f"train.run_dir={tmp_path / 'run'}",
        "train.max_steps=1",
        "freeze.parts=['attention', 'experts', 'head']",
    ]
    config = load_config(recipe, settings)
    train(config)
    before, after = SavedTensors(find(imported)), SavedTensors(find(tmp_path / "run"))
    weights = FAMILIES[config.model.family].weight_map(config.model)
    for name in weights.parameter_names():
        part = part_of(weights.entry(name).hf_names[0])
        is_frozen = part in ("q", "o", "experts", "head")
        assert torch.equal(before.read(name), after.read(name)) == is_frozen, name
