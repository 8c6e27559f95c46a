"""Bytes of a parameter in the optimizer: where they are stored, and what an update moves.

Read from the source of megatron-core 0.19.2 and of Transformer Engine 2.20; only the CPU figures were measured.
"""

from dataclasses import dataclass

from acc_megatron.config import Config
from acc_megatron.mesh.layout import Layout
from acc_megatron.model.precision import PRECISIONS
from acc_megatron.plan.parameters import Parameters
from acc_megatron.training.optimizers import OPTIMIZERS
from acc_megatron.training.optimizers.storage import (
    GRADIENT_BYTES,
    HOST_BYTES,
    MASTER_BYTES,
    MOMENT_BYTES,
    is_precision_aware,
    keeps_master_weights,
)

FLOAT = 4
# float32 gradient to the host, float32 weight back
OFFLOAD_COPY_BYTES = FLOAT + FLOAT
# AdamW on the host reads and writes two moments and the weight, and reads the gradient
HOST_UPDATE_BYTES = 7 * FLOAT


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterBytes:
    """Bytes of one parameter that a rank updates."""

    moments: float
    weights: float  # float32 weights next to bfloat16 ones, or what is stored in their place
    gradient: float = 0.0  # a float32 copy next to the gradient buffer
    temporary: float = 0.0  # float32 forms of narrow state, which exist for all parameters in an update
    host: float = 0.0

    @property
    def state(self) -> float:
        """What the device stores between steps."""
        return self.moments + self.weights + self.gradient


def parameter_bytes(config: Config, *, on_gpu: bool) -> ParameterBytes:
    """The bytes for the settings in [optimizer]."""
    settings = config.optimizer
    moments = float(OPTIMIZERS[settings.kind].state_bytes_per_parameter)
    weights = FLOAT if PRECISIONS[config.train.precision].dtype == "bfloat16" else 0
    if not is_precision_aware(settings):
        return ParameterBytes(moments=moments, weights=weights)
    is_copied = settings.gradients != "float32"
    if on_gpu and settings.offload_fraction:
        kept = 1 - settings.offload_fraction
        return ParameterBytes(
            moments=kept * moments,
            weights=kept * weights,
            gradient=kept * FLOAT * is_copied,
            host=settings.offload_fraction * HOST_BYTES,
        )
    moments = MOMENT_BYTES[settings.moments]
    # FusedAdam updates two moments in bfloat16 in place; of others, and of float16 weights, it makes float32 copies
    temporary = 2 * FLOAT if settings.moments == "fp8" else 0
    if not keeps_master_weights(config):
        return ParameterBytes(moments=moments, weights=weights, temporary=temporary + FLOAT * is_copied)
    temporary += FLOAT if settings.master_weights == "float16" else 0
    return ParameterBytes(moments=moments, weights=MASTER_BYTES[settings.master_weights], temporary=temporary)


def gradient_bytes(config: Config) -> int:
    """Bytes of one entry of the gradient buffer, which also is what ranks exchange."""
    return GRADIENT_BYTES[config.optimizer.gradients]


@dataclass(frozen=True, slots=True)
class UpdatedParameters:
    """Parameters that one rank updates: the distributed optimizer divides them over the replicas."""

    dense: float
    experts: float

    @property
    def total(self) -> float:
        """Dense and expert parameters."""
        return self.dense + self.experts

    @property
    def largest_group(self) -> float:
        """Parameters of the larger of the two optimizers, which update one after the other."""
        return max(self.dense, self.experts)


def updated_parameters(config: Config, layout: Layout, parameters: Parameters) -> UpdatedParameters:
    """The parameters that a rank with `parameters` updates."""
    if not config.parallel.distributed_optimizer:
        return UpdatedParameters(parameters.dense, parameters.experts)
    return UpdatedParameters(parameters.dense / (layout.data * layout.context), parameters.experts / layout.expert_data)


def update_traffic(config: Config, *, on_gpu: bool) -> float:
    """Bytes of device memory that the update of one parameter reads and writes, with the norm of the gradient."""
    each = parameter_bytes(config, on_gpu=on_gpu)
    # a bfloat16 weight is written next to the one that is updated; a float32 weight is read and written itself
    weight = 2 if PRECISIONS[config.train.precision].dtype == "bfloat16" else 2 * FLOAT
    # temporaries are written, updated, and read twice to be rounded
    return 2 * (each.moments + each.weights) + gradient_bytes(config) + weight + 5 * each.temporary


def update_temporaries(config: Config, updated: UpdatedParameters, parameters: Parameters, *, on_gpu: bool) -> float:
    """Bytes that exist only while the weights are updated, when no activations exist."""
    if on_gpu:
        return parameter_bytes(config, on_gpu=True).temporary * updated.largest_group
    settings = config.optimizer
    # torch's AdamW makes two tensors of the largest parameter; narrow state is read as float32, tensor by tensor
    tensors = 2
    if is_precision_aware(settings):
        tensors += (settings.gradients != "float32") + 2 * (settings.moments != "float32")
        tensors += settings.master_weights != "float32"
    return FLOAT * tensors * min(parameters.largest, updated.total)
