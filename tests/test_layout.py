"""Rank arithmetic: products that do not work out are refused with the sum."""

from pathlib import Path

import pytest

from acc_megatron.config import ParallelConfig, load_config
from acc_megatron.errors import ConfigError
from acc_megatron.layout import Layout, build_layout, check_fit

TINY = Path(__file__).parent.parent / "examples" / "tiny_cpu.toml"


def test_data_parallelism_is_what_remains_of_the_world() -> None:
    layout = build_layout(ParallelConfig(tensor=2, context=4, expert=8), 64)
    assert (layout.data, layout.expert_data) == (8, 8)
    assert layout.data * layout.tensor * layout.context * layout.pipeline == 64
    assert layout.expert_data * layout.expert * layout.expert_tensor * layout.pipeline == 64


def test_a_product_that_does_not_divide_the_world_is_refused_with_the_sum() -> None:
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
            Layout(4, 1, 1, 1, 4, 1),
            "model.num_experts = 6 does not divide by parallel.expert = 4",
        ),
        ([], Layout(4, 4, 1, 1, 1, 1), "model.num_key_value_heads = 2 does not divide by parallel.tensor = 4"),
        (["train.global_batch_rows=3"], Layout(2, 1, 1, 1, 1, 1), "train.global_batch_rows = 3 does not divide by"),
        (["data.seq_length_tokens=1000"], Layout(1, 1, 1, 1, 1, 1), "data.seq_length_tokens = 1000 does not divide by"),
        (["data.document_multiple_tokens=6"], Layout(2, 1, 2, 1, 1, 1), "data.document_multiple_tokens = 6 does not"),
        (["data.seq_length_tokens=32768"], Layout(1, 1, 1, 1, 1, 1), "exceeds model.max_position_embeddings = 16384"),
        (["model.num_experts_per_tok=9"], Layout(1, 1, 1, 1, 1, 1), "exceeds model.num_experts = 8"),
    ],
)
def test_what_does_not_divide_over_the_layout_is_refused_by_name(
    overrides: list[str], layout: Layout, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        check_fit(load_config(TINY, overrides), layout)
    assert message in str(caught.value)
