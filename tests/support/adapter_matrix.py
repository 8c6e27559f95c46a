"""Losses and gradients of an adapter in parallel layouts, compared with one process.

PYTHONPATH=tests python -m support.adapter_matrix [dense]  prints the table of differences (about 4 minutes on 2 cores)
"""

import functools
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from support import layout_matrix
from support.layout_cases import ADAM, OVERLAPPED, Case, without_experts
from support.layout_matrix import Result, loss_difference, norm_difference, run_cases
from support.peft_folders import ATTENTION, MLP, write_peft_folder

ALL = "['attention', 'experts', 'router', 'embeddings', 'head']"
DENSE_ALL = "['attention', 'mlp', 'embeddings', 'head']"


def _case(name: str, world: int, *overrides: str) -> Case:
    return Case(name, world, tuple(f"parallel.{one}" if one.count(".") == 0 else one for one in overrides))


SINGLES = [
    _case("TP2 (SP)", 2, "tensor=2"),
    _case("TP2 ETP2", 2, "tensor=2", "expert_tensor=2"),
    _case("EP2", 2, "expert=2"),
    _case("CP2", 2, "context=2"),
    _case("PP2", 2, "pipeline=2"),
    _case("PP2 VPP2", 2, "pipeline=2", "virtual_pipeline=2"),
    _case("DP2 overlap", 2, "overlap_grad_reduce=true"),
    _case("EP2 allgather", 2, "expert=2", "moe.dispatcher=allgather"),
    _case("EP2 full recompute", 2, "expert=2", "memory.recompute=full"),
    _case("TP2 full recompute", 2, "tensor=2", "memory.recompute=full"),
    _case("CP2 recompute of norms", 2, "context=2", "memory.recompute=selective",
          "memory.recompute_modules=['core_attn', 'layernorm']"),
]  # fmt: skip
PAIRS = [
    _case("TP2 CP2", 4, "tensor=2", "context=2"),
    _case("TP2 EP2", 4, "tensor=2", "expert=2"),
    _case("TP2 PP2", 4, "tensor=2", "pipeline=2"),
    _case("EP2 PP2", 4, "expert=2", "pipeline=2"),
    _case("TP2 CP2 EP4", 4, "tensor=2", "context=2", "expert=4"),
]
SHARDED = [
    Case("TP2, distributed optimizer overlapped", 2, (*OVERLAPPED, "parallel.tensor=2"), compare_gradients=False),
    Case("EP2, distributed optimizer overlapped", 2, (*OVERLAPPED, "parallel.expert=2"), compare_gradients=False),
]


def make_adapter(folder: Path, recipe: Path, *, trained: tuple[str, ...] = (), targets: tuple[str, ...] = ()) -> Path:
    """Write a random PEFT folder for the base of a recipe, and import it; returns the checkpoint."""
    from acc_megatron.config import load_config
    from acc_megatron.model.families import FAMILIES
    from support.run_processes import start

    model = load_config(recipe).model
    shapes = FAMILIES[model.family].weight_map(model).shapes()
    peft = write_peft_folder(folder / "peft", shapes, targets, trained=trained)
    arguments = ["import", str(peft), "--out", str(folder / "adapter"), "--base", str(recipe.parent / "hf")]
    run = start(folder / "output", [*arguments, "--precision", "float32"])
    assert run.wait() == [0], run.error_output()[-3000:]
    return folder / "adapter"


def settings(adapter: Path, targets: str = ALL, trained: str = "['norms']") -> tuple[str, ...]:
    """The overrides of a run that starts from an adapter of `write_peft_folder`."""
    return (
        "adapter.rank=4", "adapter.alpha=8", f"adapter.targets={targets}", f"adapter.trained={trained}",
        f"adapter.init_from={adapter}",
    )  # fmt: skip


NORMS = ("input_layernorm", "post_attention_layernorm", "q_norm", "k_norm", "norm")


def gradients(trainer: Any) -> Iterator[tuple[str, torch.Tensor, tuple[slice, ...]]]:
    """Yield name, gradient and place in the complete tensor of everything that this rank trains."""
    from acc_megatron.adapter.state import adapter_state

    for chunk in trainer.models:
        for entry in adapter_state(chunk).values():
            place = zip(entry.global_offset, entry.local_shape, strict=True)
            yield entry.key, entry.data.main_grad, tuple(slice(first, first + size) for first, size in place)


def complete_gradients(trainer: Any) -> dict[str, torch.Tensor]:
    """Return the gradients of one process by name."""
    return {name: gradient.clone() for name, gradient, _ in gradients(trainer)}


def difference(trainer: Any, reference: Result, _: Any) -> float:
    """Return the largest difference, relative to the largest entry of the complete gradient."""
    largest = 0.0
    for name, gradient, place in gradients(trainer):
        complete = reference.gradients[name]
        largest = max(largest, float((gradient - complete[place]).abs().max() / complete.abs().max()))
    return largest


def measure(extra: tuple[str, ...], recipe: Path, case: Case, reference: Result | None) -> Result:
    """Train a case with the overrides of an adapter."""
    import dataclasses

    case = dataclasses.replace(case, overrides=(*extra, *case.overrides))
    with (
        mock.patch.object(layout_matrix, "complete_gradients", complete_gradients),
        mock.patch.object(layout_matrix, "difference", difference),
    ):
        return layout_matrix.run_case(recipe, case, reference)


def run(recipe: Path, cases: Sequence[Case], reference: Result | None, extra: tuple[str, ...]) -> dict[str, Result]:
    """Run cases of one world size with an adapter."""
    return run_cases(recipe, cases, reference, functools.partial(measure, extra))


def one_process(recipe: Path, extra: tuple[str, ...]) -> tuple[Result, Result]:
    """Return the references: the same steps in one process, with SGD and with AdamW."""
    results = run(recipe, [Case("SGD", 1), Case("AdamW", 1, ADAM, compare_gradients=False)], None, extra)
    return results["SGD"], results["AdamW"]


def main() -> None:
    """Print the table of differences as Markdown."""
    from support.make_inputs import make_recipe

    is_dense = sys.argv[1:] == ["dense"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recipe = make_recipe(folder, family="qwen3" if is_dense else "qwen3_moe")
        router = () if is_dense else ("gate",)
        targets = (*ATTENTION, *MLP, *router, "embed_tokens", "lm_head")
        adapter = make_adapter(folder / "adapter", recipe, targets=targets, trained=NORMS)
        extra = settings(adapter, DENSE_ALL if is_dense else ALL)
        sgd, adamw = one_process(recipe, extra)
        choose = without_experts if is_dense else list[Case]
        print(
            "| layout | processes | largest loss difference | largest relative gradient difference |\n|---|---|---|---|"
        )
        for cases in map(choose, (SINGLES, PAIRS)):
            for row, result in run(recipe, cases, sgd, extra).items():
                loss = loss_difference(result, sgd)
                print(f"| {row} | {cases[0].world} | {loss:.1e} | {result.gradient_difference:.1e} |", flush=True)
        for row, result in run(recipe, choose(SHARDED), None, extra).items():
            loss, norm = loss_difference(result, adamw), norm_difference(result, adamw)
            print(f"| {row} | 2 | {loss:.1e} | {norm:.1e} (norm) |", flush=True)


if __name__ == "__main__":
    main()
