"""YaRN: frequencies and attention factor are transformers', and the window that a recipe may use follows from it."""

import dataclasses

import pytest
import torch
from support.make_inputs import TINY_DENSE

from acc_megatron.compatibility.layout import check_divides
from acc_megatron.config import Config, DataConfig, ModelConfig, OptimizerConfig, RopeScaling, TrainConfig
from acc_megatron.errors import ConfigError
from acc_megatron.mesh.layout import Layout
from acc_megatron.model.families.rope_scaling import attention_factor, check_rope_scaling, frequencies

QWEN3 = ModelConfig(**(TINY_DENSE | {"head_dim": 128, "max_position_embeddings": 40_960}))
SCALINGS = {
    "Qwen3's": RopeScaling(factor=4.0, original_max_position_embeddings=32_768),
    "other limits, not rounded": RopeScaling(
        factor=2.5, original_max_position_embeddings=4096, beta_fast=20.0, beta_slow=2.0, truncate=False
    ),
    "mscale": RopeScaling(factor=40.0, original_max_position_embeddings=4096, mscale=1.0, mscale_all_dim=0.7),
    "attention factor": RopeScaling(factor=8.0, original_max_position_embeddings=8192, attention_factor=1.5),
    "a window of a few tokens": RopeScaling(factor=8.0, original_max_position_embeddings=16),
    "no extension": RopeScaling(factor=1.0, original_max_position_embeddings=32_768),
}


@pytest.mark.parametrize("name", SCALINGS)
@pytest.mark.parametrize("theta", [1e4, 1e6])
def test_frequencies_and_attention_factor_equal_those_of_transformers(name: str, theta: float) -> None:
    from transformers import Qwen3Config
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaling = SCALINGS[name]
    given = {key: value for key, value in dataclasses.asdict(scaling).items() if value is not None}
    config = Qwen3Config(head_dim=128, rope_parameters=given | {"rope_theta": theta})
    expected, factor = ROPE_INIT_FUNCTIONS["yarn"](config, device="cpu")
    found = frequencies(dataclasses.replace(QWEN3, rope_theta=theta, rope_scaling=scaling))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    assert attention_factor(scaling) == pytest.approx(factor, rel=1e-12)


def test_a_row_may_be_as_long_as_the_scaled_window() -> None:
    scaling = SCALINGS["Qwen3's"]
    scaled = dataclasses.replace(QWEN3, rope_scaling=scaling)

    def check(model: ModelConfig, tokens: int) -> None:
        config = Config(
            name="x",
            model=model,
            data=DataConfig(path="x", seq_length_tokens=tokens),
            optimizer=OptimizerConfig(learning_rate=1.0, min_learning_rate=1.0),
            train=TrainConfig(run_dir="x", global_batch_rows=1),
        )
        check_divides(config, Layout())

    check(scaled, 131_072)
    with pytest.raises(ConfigError, match=r"exceeds model\.rope_scaling\.factor x original.* = 131072"):
        check(scaled, 131_136)
    with pytest.raises(ConfigError, match=r"exceeds model\.max_position_embeddings = 40960; .*rope_scaling"):
        check(QWEN3, 65_536)


@pytest.mark.parametrize(
    "changes, key",
    [
        ({"factor": 0.5}, "factor = 0.5"),
        ({"original_max_position_embeddings": 0}, "original_max_position_embeddings = 0"),
        ({"beta_slow": 40.0}, "beta_slow = 40.0"),
        ({"beta_slow": 0.0}, "beta_slow = 0.0"),
    ],
)
def test_numbers_that_yarn_is_not_defined_for_are_refused_by_key(changes: dict[str, float], key: str) -> None:
    scaling = dataclasses.replace(SCALINGS["Qwen3's"], **changes)
    with pytest.raises(ConfigError, match=rf"model\.rope_scaling\.{key}"):
        check_rope_scaling(dataclasses.replace(QWEN3, rope_scaling=scaling))
