"""Memory of one rank at the peak of a step, by purpose.

The peak consists of memory that exists between steps (weights, gradients, optimizer, buffers), activations saved by
the microbatches in flight, and the larger of two working sets that never exist at once: that of one layer's backward
pass, and that of the head.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from acc_megatron.config import Config
from acc_megatron.mesh.layout import Layout
from acc_megatron.model.precision import PRECISIONS
from acc_megatron.plan.activations import LayerMemory, layer_memory, layer_tensors, working_bytes
from acc_megatron.plan.last_layer import last_layer_memory, row_sizes
from acc_megatron.plan.optimizer_bytes import (
    FLOAT,
    gradient_bytes,
    parameter_bytes,
    update_temporaries,
    updated_parameters,
)
from acc_megatron.plan.parameters import Parameters
from acc_megatron.plan.rank_sizes import RankSizes
from acc_megatron.plan.trained import factor_parameters, trained_parameters, without_frozen

# constants of the head, repeated because importing them imports torch; a test compares them
HEAD_KEEP_LIMIT_BYTES = 2 * 1024**3
HEAD_WINDOW_COLUMNS = 8192
# assumed, not measured: CUDA context with cuBLAS and cuDNN workspaces, and the buffers of one NCCL communicator
CUDA_CONTEXT_BYTES = 1.5e9
NCCL_BYTES_PER_GROUP = 0.2e9


@dataclass(frozen=True, slots=True)
class StageMemory:
    """Bytes on one rank of a pipeline stage at the peak of a step."""

    weights: float
    gradients: float
    optimizer: float
    activations: float  # saved for backward, plus a layer's working set where it is larger than the head's
    loss: float
    buffers: float
    host: float = 0.0  # in host memory: offloaded activations and optimizer state

    @property
    def total(self) -> float:
        """The sum on the device."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.loss + self.buffers


@dataclass(frozen=True, slots=True)
class RowContents:
    """The documents of one packed row, and its supervised tokens, which are at the ends of the documents."""

    documents_tokens: Sequence[int]
    supervised_tokens: int


def saved_by_layer(config: Config, sizes: RankSizes, row: RowContents) -> LayerMemory:
    """What each layer saves, recomputes and offloads."""
    aux_loss = config.moe.load_balancing != "none"
    tensors = layer_tensors(sizes, row.documents_tokens, aux_loss=aux_loss)
    return layer_memory(without_frozen(config, tensors, sizes), sizes, config.memory)


def stage_memory(
    config: Config,
    layout: Layout,
    sizes: RankSizes,
    parameters: Parameters,
    *,
    stage: int,
    row: RowContents,
    layer: LayerMemory | None = None,
) -> StageMemory:
    """The peak on the rank of `stage` that has context rank 0, and therefore the end of every document.

    `layer` is the result of `saved_by_layer`, which is equal for all stages.
    """
    layer = layer or saved_by_layer(config, sizes, row)
    layers = config.model.num_hidden_layers // layout.pipeline
    alive = layers * in_flight(config, layout, stage)
    # of offloaded tensors those of one layer leave while those of another one come back
    saved = layer.saved_bytes * alive + min(2.0, alive) * layer.offloaded_bytes
    is_last = stage == layout.pipeline - 1
    if is_last:
        normed = sizes
        if config.loss.last_layer_rows == "supervised":
            # the last layer's backward pass follows its forward pass: only one microbatch is alive in it
            last = last_layer_memory(config, sizes, row.documents_tokens, row.supervised_tokens)
            saved -= layer.saved_bytes - last.saved_bytes
            normed = row_sizes(sizes, row.supervised_tokens)
        # the final norm
        saved += 2 * normed.split_tokens * sizes.hidden * (2 if sizes.on_gpu else 4)
    loss = head_bytes(config, sizes, row) if is_last else 0.0
    working = layer.recomputed_bytes + working_bytes(sizes)
    trained = trained_parameters(config, layout, parameters, stage)
    weights = parameters.total * weight_bytes(config, sizes)
    weights += factor_parameters(config, layout, stage) * sizes.element_bytes
    gradients = trained.total * gradient_bytes(config)
    updated = updated_parameters(config, layout, trained)
    optimizer = updated.total * parameter_bytes(config, on_gpu=sizes.on_gpu).state
    buffers = buffer_bytes(layout, sizes)
    # of the update, when activations are already freed
    update = update_temporaries(config, updated, trained, on_gpu=sizes.on_gpu)
    activations = max(saved + max(0.0, working - loss), update - loss)
    host = alive * layer.host_bytes + updated.total * parameter_bytes(config, on_gpu=sizes.on_gpu).host
    return StageMemory(weights, gradients, optimizer, activations, loss, buffers, host)


def weight_bytes(config: Config, sizes: RankSizes) -> int:
    """Bytes of one weight.

    On GPU an FP8 recipe stores each weight in FP8 and transposed FP8, and in bfloat16 unless `fp8.param_gather` is on.
    """
    if not sizes.on_gpu or PRECISIONS[config.train.precision].recipe is None:
        return sizes.element_bytes
    return 2 if config.fp8.param_gather else sizes.element_bytes + 2


def in_flight(config: Config, layout: Layout, stage: int) -> float:
    """Microbatches whose activations exist at once in `stage`, in units of all layers of the stage.

    The schedules are one-forward-one-backward, where it is stages - stage, and its interleaved form for several chunks
    per stage (arXiv 2104.04473, sections 2.2.1 and 2.2.2).
    """
    microbatches = config.train.global_batch_rows // layout.data
    chunks = config.parallel.virtual_pipeline
    if chunks == 1:
        return min(layout.pipeline - stage, microbatches)
    warm_up = (layout.pipeline - stage - 1) * 2 + (chunks - 1) * layout.pipeline + 1
    return min(warm_up, microbatches * chunks) / chunks


def head_rows(config: Config, sizes: RankSizes, row: RowContents) -> int:
    """Supervised tokens on context rank 0, which has the last chunk, the supervised one, of every document.

    A last layer that computes supervised rows only shares them evenly.
    """
    if sizes.context == 1:
        return row.supervised_tokens
    if config.loss.last_layer_rows == "supervised":
        return -(-row.supervised_tokens // sizes.context)
    tokens = sum(2 * (length // (2 * sizes.context)) for length in row.documents_tokens)
    return min(row.supervised_tokens, tokens)


def head_bytes(config: Config, sizes: RankSizes, row: RowContents) -> float:
    """Bytes of the masked head at its peak: supervised hidden states, logits (all or one window), and their gradients.

    The hidden states of all tensor-parallel ranks are gathered; the vocabulary is this rank's part.
    """
    rows, element = head_rows(config, sizes, row), sizes.element_bytes
    window = min(HEAD_WINDOW_COLUMNS, sizes.vocab)
    logits = rows * sizes.vocab * element
    keeps = config.loss.plan == "keep" or (config.loss.plan == "auto" and logits <= HEAD_KEEP_LIMIT_BYTES)
    compact = rows * sizes.hidden * (element + FLOAT)  # the gradient of hidden states is summed in float32
    stored_logits = logits if keeps else rows * window * element
    # plain torch converts windows of logits and weights to float32
    widened = 0
    if element < 4 and not sizes.on_gpu:
        widened = (rows + sizes.hidden) * window * 4 + rows * sizes.hidden * 4
    gradient = sizes if config.loss.last_layer_rows == "all" else row_sizes(sizes, row.supervised_tokens)
    return compact + stored_logits + widened + gradient.stream_bytes


def buffer_bytes(layout: Layout, sizes: RankSizes) -> float:
    """Bytes of tokens gathered by sequence parallelism, of pipeline messages, and on GPU of CUDA and NCCL."""
    buffers = 0.0
    if layout.tensor > 1:
        buffers += sizes.tokens * sizes.hidden * sizes.element_bytes
    if layout.pipeline > 1:
        buffers += 2 * sizes.stream_bytes
    if sizes.on_gpu:
        axes = (layout.tensor, layout.context, layout.pipeline, layout.expert, layout.data, layout.expert_data)
        buffers += CUDA_CONTEXT_BYTES + NCCL_BYTES_PER_GROUP * sum(size > 1 for size in axes)
    return buffers
