"""The optimizers that `optimizer.kind` can name; importing this package does not import torch."""

from acc_megatron.common.registry import Registry
from acc_megatron.training.optimizers.adamw import AdamW
from acc_megatron.training.optimizers.kind import OptimizerKind
from acc_megatron.training.optimizers.sgd import Sgd

OPTIMIZERS: Registry[OptimizerKind] = Registry("optimizer.kind", {"adamw": AdamW(), "sgd": Sgd()})
