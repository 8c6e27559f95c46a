"""What a checkpoint costs one rank while it is saved: bytes written, and host memory. A save needs no device memory."""

from dataclasses import dataclass

from acc_megatron.config import Config
from acc_megatron.mesh.layout import Layout
from acc_megatron.model.precision import PRECISIONS
from acc_megatron.plan.optimizer_bytes import parameter_bytes
from acc_megatron.plan.parameters import Parameters


@dataclass(frozen=True, slots=True)
class SavingCost:
    """Bytes of one rank in one save."""

    written: float
    host: float  # at the peak; torch, CUDA and the file system's cache not included


def saved_bytes_per_parameter(config: Config) -> tuple[int, int]:
    """Return the bytes of a weight, and those of its optimizer state: moments, and the weights that are updated."""
    stored = parameter_bytes(config, on_gpu=False)  # a checkpoint is the same, wherever the state is
    weight = 2 if PRECISIONS[config.train.precision].dtype == "bfloat16" else 4
    return weight, round(stored.moments + stored.weights)


def saving_cost(config: Config, layout: Layout, parameters: Parameters) -> SavingCost:
    """The cost of a save for the rank that writes most.

    Replicas share out complete tensors; the distributed optimizer has already divided its state into equal parts.
    """
    weight, state = saved_bytes_per_parameter(config)
    replicas, divided = layout.data * layout.context, state if config.parallel.distributed_optimizer else 0
    whole = weight + state - divided
    dense = max(whole * parameters.dense / replicas, whole * parameters.largest)
    written = dense + divided * parameters.dense / replicas + (weight + state) * parameters.experts / layout.expert_data
    # without async_save one tensor at a time is copied to the host
    return SavingCost(written, written if config.train.async_save else 4.0 * parameters.largest)
