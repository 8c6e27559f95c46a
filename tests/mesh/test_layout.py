"""Sizes of the mesh axes: what does not divide is refused with the numbers."""

import pytest
from support.commands import ROOT

from acc_megatron.compatibility.layout import check_divides
from acc_megatron.config import ParallelConfig, load_config
from acc_megatron.errors import ConfigError
from acc_megatron.mesh.layout import Layout, build_layout

TINY = ROOT / "examples" / "tiny_cpu.toml"


def test_the_data_parallel_size_is_the_world_divided_by_the_other_axes() -> None:
    layout = build_layout(ParallelConfig(tensor=2, context=4, expert=8), 64)
    assert (layout.data, layout.expert_data) == (8, 8)
    assert layout.data * layout.tensor * layout.context * layout.pipeline == 64
    assert layout.expert_data * layout.expert * layout.expert_tensor * layout.pipeline == 64


def test_a_product_that_does_not_divide_the_world_is_refused_with_its_factors() -> None:
    with pytest.raises(ConfigError, match="tp 2 x cp 4 x pp 3 = 24 does not divide 64 ranks"):
        build_layout(ParallelConfig(tensor=2, context=4, pipeline=3), 64)
    with pytest.raises(ConfigError, match="etp 1 x ep 4 x pp 1 = 4 does not divide 2 ranks"):
        build_layout(ParallelConfig(expert=4), 2)
    with pytest.raises(ConfigError, match=r"parallel\.tensor must be at least 1, got 0"):
        build_layout(ParallelConfig(tensor=0), 2)


@pytest.mark.parametrize(
    ("overrides", "layout", "message"),
    [
        (
            ["model.num_experts=6"],
            Layout(world=4, expert=4),
            "model.num_experts = 6 is not a multiple of parallel.expert = 4",
        ),
        (
            ["model.moe_intermediate_size=63"],
            Layout(world=2, tensor=2, expert_tensor=2),
            "model.moe_intermediate_size = 63 is not a multiple of parallel.expert_tensor = 2",
        ),
        (
            [],
            Layout(world=4, tensor=4),
            "model.num_key_value_heads = 2 is not a multiple of parallel.tensor = 4",
        ),
        (
            ["model.num_hidden_layers=3"],
            Layout(world=2, pipeline=2),
            "model.num_hidden_layers = 3 is not a multiple of parallel.pipeline x virtual_pipeline = 2",
        ),
        (
            ["train.global_batch_rows=3"],
            Layout(world=2),
            "train.global_batch_rows = 3 is not a multiple of the number of data-parallel ranks = 2",
        ),
        (
            ["data.seq_length_tokens=1000"],
            Layout(),
            "data.seq_length_tokens = 1000 is not a multiple of data.document_multiple_tokens = 64",
        ),
        (
            ["data.document_multiple_tokens=6"],
            Layout(world=2, context=2),
            "data.document_multiple_tokens = 6 is not a multiple of 2 x parallel.context = 4",
        ),
        (["data.seq_length_tokens=32768"], Layout(), "exceeds model.max_position_embeddings = 16384"),
        (["train.epochs=0"], Layout(), "train.epochs = 0 must be at least 1"),
    ],
)
def test_a_size_that_does_not_divide_over_the_layout_is_refused_by_name(
    overrides: list[str], layout: Layout, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        check_divides(load_config(TINY, overrides), layout)
    assert message in str(caught.value)
