"""docs/megatron_settings.md against megatron-core's dataclasses and against what the build passes to them."""

import ast
import dataclasses
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest
import torch
from support.commands import ROOT

from acc_megatron.mesh.process_groups import process_groups  # noqa: F401  # first: makes megatron run without CUDA

# isort: split
from megatron.core.distributed import DistributedDataParallelConfig
from megatron.core.transformer.transformer_config import TransformerConfig

from acc_megatron.config import Config, load_config
from acc_megatron.mesh.layout import build_layout
from acc_megatron.model import transformer_config as ours
from acc_megatron.training import trainer

CLASSES = (TransformerConfig, DistributedDataParallelConfig)
RECIPE = ROOT / "examples" / "qwen3_30b_a3b_128k_h100.toml"
DENSE_RECIPE = ROOT / "examples" / "qwen3_32b_128k_h200.toml"
SELECTIVE = ("memory.recompute=selective", "memory.recompute_modules=['layernorm']")
# every branch of the build; overlaps and balancing keep the values of the recipe
SETTINGS: dict[str, tuple[str, ...]] = {
    "recipe": ("train.deterministic=false",),
    "virtual pipeline": ("parallel.pipeline=2", "parallel.virtual_pipeline=4"),
    "hierarchical": ("parallel.context_communication=a2a+p2p", "parallel.hierarchical_context=[2, 4]"),
    "selective": (*SELECTIVE, "train.deterministic=true"),
    "full": ("memory.recompute=full",),
    "offloaded modules": ("memory.recompute=none", "memory.offload_modules=['core_attn']"),
    "hybridep": ("moe.dispatcher=hybridep", "moe.z_loss_coefficient=0.5"),
    "delayed": ("train.precision=fp8_delayed",),
    "blockwise": ("train.precision=fp8_blockwise", "fp8.bf16_layers_at_start=2", "fp8.bf16_layers_at_end=3"),
}


@dataclasses.dataclass
class Page:
    """The rows of one dataclass in the page."""

    passed: dict[str, str]
    later: set[str]
    defaults: dict[str, str]
    unused: list[str]


def read_page(kind: type) -> Page:
    """Read the four tables of a dataclass."""
    page = Page({}, set(), {}, [])
    for section in (ROOT / "docs" / "megatron_settings.md").read_text().split("\n## "):
        title, _, body = section.partition("\n")
        name, _, what = title.partition(": ")
        rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in body.splitlines() if "|" in line]
        if name != kind.__name__:
            continue
        for row in rows[2:]:
            field = row[0].strip("` ")
            if what == "passed":
                assert field not in page.passed, field
                page.passed[field] = row[1]
            elif what == "set later":
                page.later.add(field)
            elif what == "default, for a reason":
                page.defaults[field] = row[1]
            else:
                page.unused += re.findall(r"`(\w+)`", row[1])
    return page


@contextmanager
def recording(on_gpu: bool) -> Iterator[list[dict[str, Any]]]:
    """Collect the fields that the build passes, as on a GPU with Transformer Engine or as on a CPU."""
    found: list[dict[str, Any]] = []

    def record(**fields: Any) -> mock.Mock:
        found.append(fields)
        return mock.Mock()

    with (
        mock.patch.object(ours, "TransformerConfig", record),
        mock.patch.object(trainer, "DistributedDataParallelConfig", record),
        mock.patch.object(trainer, "DistributedDataParallel"),
        mock.patch.object(ours, "HAVE_TE", on_gpu),
        mock.patch.object(ours, "fused_topk_with_score_function", print if on_gpu else None),
        mock.patch.object(torch.cuda, "is_available", return_value=on_gpu),
    ):
        yield found


def passed_fields(kind: type, config: Config, *, on_gpu: bool) -> dict[str, Any]:
    """The fields that the build passes to a dataclass for a recipe."""
    layout = build_layout(config.parallel, config.parallel.tensor * config.parallel.context * config.parallel.pipeline)
    with recording(on_gpu) as found:
        if kind is TransformerConfig:
            ours.training_config(config, layout)
        else:
            trainer._wrap(config, mock.Mock(), [mock.Mock()])
    (fields,) = found
    return fields


def configs(*, on_gpu: bool) -> Iterator[tuple[str, Config]]:
    for name, overrides in SETTINGS.items():
        yield name, load_config(RECIPE, overrides)
    yield "dense", load_config(DENSE_RECIPE)


def documented(value: str, config: Config, *, on_gpu: bool) -> tuple[bool, Any]:
    """The value that a cell states: whether it can be compared, and the literal or the setting of its key."""
    gpu, _, cpu = value.partition("; CPU ")
    text = (cpu or gpu) if not on_gpu else gpu.removeprefix("CPU ")
    if not re.fullmatch(r"`[^`]+`", text):
        return False, None
    text = text.strip("`")
    if "." in text and text.split(".")[0] in Config.__dataclass_fields__:
        section, key = text.split(".")
        return True, getattr(getattr(config, section), key)
    return True, ast.literal_eval(text)


@pytest.mark.parametrize("kind", CLASSES)
def test_every_field_of_megatrons_dataclasses_stands_once_in_the_page(kind: type) -> None:
    page = read_page(kind)
    names = [*page.passed, *page.later, *page.defaults, *page.unused]
    assert sorted(names) == sorted(field.name for field in dataclasses.fields(kind))


@pytest.mark.parametrize("kind", CLASSES)
def test_fields_that_the_page_calls_default_have_the_default_that_it_states(kind: type) -> None:
    for field in dataclasses.fields(kind):
        stated = read_page(kind).defaults.get(field.name)
        if stated is not None:
            default = getattr(field.default, "name", None) or repr(field.default)
            assert stated.strip("`") == default, field.name


@pytest.mark.parametrize("on_gpu", [True, False], ids=["GPU", "CPU"])
@pytest.mark.parametrize("kind", CLASSES)
def test_the_build_passes_what_the_page_says(kind: type, on_gpu: bool) -> None:
    page = read_page(kind)
    seen: set[str] = set()
    compared = 0
    for name, config in configs(on_gpu=on_gpu):
        fields = passed_fields(kind, config, on_gpu=on_gpu)
        seen |= fields.keys()
        for field, value in fields.items():
            assert field in page.passed, f"{name}: {field} is passed but not in the page"
            is_comparable, expected = documented(page.passed[field], config, on_gpu=on_gpu)
            if is_comparable:
                assert value == expected, f"{name}: {field} is {value!r}, the page says {expected!r}"
                compared += 1
    assert compared > (100 if kind is TransformerConfig else 30)
    if on_gpu:
        only_on_cpu = {field for field, value in page.passed.items() if value.startswith("CPU ")}
        assert seen == page.passed.keys() - only_on_cpu
