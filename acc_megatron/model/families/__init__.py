"""The model families that `model.family` can name; importing this package does not import torch."""

from acc_megatron.common.registry import Registry
from acc_megatron.model.families.family import ModelFamily
from acc_megatron.model.families.qwen3 import Qwen3
from acc_megatron.model.families.qwen3_moe import Qwen3Moe

FAMILIES: Registry[ModelFamily] = Registry(
    "model.family", {family.model_type: family for family in (Qwen3(), Qwen3Moe())}
)
