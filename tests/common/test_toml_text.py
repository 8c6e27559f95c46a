"""Settings that are written as TOML are read as the same settings."""

import dataclasses
import tomllib

from support.make_inputs import TINY_DENSE

from acc_megatron.common.toml_text import write_toml
from acc_megatron.common.typed_settings import from_dict
from acc_megatron.config import (
    Config,
    DataConfig,
    MemoryConfig,
    ModelConfig,
    OptimizerConfig,
    ParallelConfig,
    RopeScaling,
    TrainConfig,
)


def test_written_settings_are_read_as_they_were() -> None:
    scaling = RopeScaling(factor=4.0, original_max_position_embeddings=256)
    config = Config(
        name='quotes " and \\ and ü',
        model=dataclasses.replace(ModelConfig(**TINY_DENSE), rope_scaling=scaling, tie_word_embeddings=True),
        data=DataConfig(path="x", seq_length_tokens=512),
        parallel=ParallelConfig(context=4, context_communication="a2a+p2p", hierarchical_context=[2, 2]),
        memory=MemoryConfig(recompute="selective", recompute_modules=["layernorm"]),
        optimizer=OptimizerConfig(learning_rate=1e-5, min_learning_rate=1e-6),
        train=TrainConfig(run_dir="x", global_batch_rows=1),
    )
    text = write_toml(config)
    assert from_dict(Config, tomllib.loads(text), "written") == config
    assert "[moe]" not in text and "rope_theta" not in text, "defaults are not written"
