"""Bytes of one rank at the peak of a step, by what they are for.

A step's peak is what stands between steps (weights, gradients, optimizer, buffers), what the microbatches in flight
keep, and the larger of two working sets that never exist at once: that of a layer's backward pass, and the head's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from acc_megatron.config import Config
from acc_megatron.layout import Layout
from acc_megatron.model.precision import PRECISIONS
from acc_megatron.plan.activations import layer_memory, layer_tensors, working_bytes
from acc_megatron.plan.parameters import Parameters
from acc_megatron.plan.shapes import Shapes

MAIN_GRADIENT_BYTES = 4
# the head's own constants; they cannot be imported without torch, and a test holds them equal
HEAD_KEEP_LIMIT_BYTES = 2 * 1024**3
HEAD_WINDOW_COLUMNS = 8192
# stated, not measured here: the CUDA context with cuBLAS and cuDNN workspaces, and what NCCL holds for a communicator
CUDA_CONTEXT_BYTES = 1.5e9
NCCL_BYTES_PER_GROUP = 0.2e9


@dataclass(frozen=True, slots=True)
class StageMemory:
    """Bytes of one rank of a pipeline stage at the peak; `total` is their sum."""

    weights: float
    gradients: float
    optimizer: float
    activations: float  # kept for backward, and a layer's working set where it exceeds the head's
    loss: float
    buffers: float

    @property
    def total(self) -> float:
        """What the device must have."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.loss + self.buffers


@dataclass(frozen=True, slots=True)
class Row:
    """The row that memory is counted for: its documents, and its supervised tokens, all at their documents' ends."""

    documents_tokens: Sequence[int]
    supervised_tokens: int


def stage_memory(
    config: Config, layout: Layout, shapes: Shapes, parameters: Parameters, *, stage: int, row: Row
) -> StageMemory:
    """The peak of a rank of `stage`, the one of context rank 0, which holds every document's end."""
    aux_loss = config.moe.load_balancing != "none"
    tensors = layer_tensors(shapes, row.documents_tokens, aux_loss=aux_loss)
    layer = layer_memory(tensors, shapes, config.memory)
    layers = config.model.num_hidden_layers // layout.pipeline
    kept = layer.kept_bytes * layers * in_flight(config, layout, stage)
    is_last = stage == layout.pipeline - 1
    if is_last:
        # the final norm
        kept += 2 * shapes.split_tokens * shapes.hidden * (2 if shapes.on_gpu else 4)
    loss = head_bytes(config, shapes, row) if is_last else 0.0
    working = layer.remade_bytes + working_bytes(shapes)
    weights = parameters.total * weight_bytes(config, shapes)
    gradients = parameters.total * MAIN_GRADIENT_BYTES
    optimizer = optimizer_bytes(config, layout, parameters)
    buffers = buffer_bytes(layout, shapes)
    # the update's own temporaries: two of the largest tensor, when no activation exists any more
    update = 0.0 if shapes.on_gpu else 2 * 4 * parameters.largest
    activations = max(kept + max(0.0, working - loss), update - loss)
    return StageMemory(weights, gradients, optimizer, activations, loss, buffers)


def weight_bytes(config: Config, shapes: Shapes) -> int:
    """Of one weight. On GPU an FP8 recipe keeps it in FP8 and transposed, beside bfloat16 unless FP8 is gathered."""
    if not shapes.on_gpu or PRECISIONS[config.train.precision].recipe is None:
        return shapes.element_bytes
    return 2 if config.fp8.param_gather else shapes.element_bytes + 2


def in_flight(config: Config, layout: Layout, stage: int) -> float:
    """Microbatches whose activations stage `stage` holds at once, in units of all its layers.

    One forward, one backward (arXiv 2104.04473, sections 2.2.1 and 2.2.2): stages - stage, or interleaved in chunks.
    """
    microbatches = config.train.global_batch_rows // layout.data
    chunks = config.parallel.virtual_pipeline
    if chunks == 1:
        return min(layout.pipeline - stage, microbatches)
    warm_up = (layout.pipeline - stage - 1) * 2 + (chunks - 1) * layout.pipeline + 1
    return min(warm_up, microbatches * chunks) / chunks


def optimizer_bytes(config: Config, layout: Layout, parameters: Parameters) -> float:
    """AdamW's two moments and, beside bfloat16 weights, float32 ones; the distributed optimizer shards them."""
    per_parameter = 8 if config.optimizer.kind == "adamw" else 0
    if PRECISIONS[config.train.precision].dtype == "bfloat16":
        per_parameter += 4
    if not config.parallel.distributed_optimizer:
        return per_parameter * parameters.total
    dense, experts = parameters.dense / (layout.data * layout.context), parameters.experts / layout.expert_data
    return per_parameter * (dense + experts)


def head_rows(shapes: Shapes, row: Row) -> int:
    """Supervised tokens of context rank 0: documents are supervised at their end, and it holds every last chunk."""
    if shapes.context == 1:
        return row.supervised_tokens
    held = sum(2 * (length // (2 * shapes.context)) for length in row.documents_tokens)
    return min(row.supervised_tokens, held)


def head_bytes(config: Config, shapes: Shapes, row: Row) -> float:
    """The masked head at its peak: compact rows, kept logits or one window of them, and the gradients of both.

    Rows of all tensor ranks are gathered; the vocabulary is this rank's shard.
    """
    rows, element = head_rows(shapes, row), shapes.element_bytes
    window = min(HEAD_WINDOW_COLUMNS, shapes.vocab)
    logits = rows * shapes.vocab * element
    keeps = config.loss.plan == "keep" or (config.loss.plan == "auto" and logits <= HEAD_KEEP_LIMIT_BYTES)
    compact = rows * shapes.hidden * (element + MAIN_GRADIENT_BYTES)
    held = logits if keeps else rows * window * element
    # in plain torch, windows of logits and weights are widened to float32 where they are narrower
    widened = 0
    if element < 4 and not shapes.on_gpu:
        widened = (rows + shapes.hidden) * window * 4 + rows * shapes.hidden * 4
    dweight = 0
    if config.parallel.overlap_grad_reduce:
        dweight = shapes.vocab * shapes.hidden * element
    return compact + held + widened + dweight + shapes.stream_bytes


def buffer_bytes(layout: Layout, shapes: Shapes) -> float:
    """Gathered rows of sequence parallelism, what pipeline stages send each other, and on GPU the libraries' own."""
    buffers = 0.0
    if layout.tensor > 1:
        buffers += shapes.tokens * shapes.hidden * shapes.element_bytes
    if layout.pipeline > 1:
        buffers += 2 * shapes.stream_bytes
    if shapes.on_gpu:
        sizes = (layout.tensor, layout.context, layout.pipeline, layout.expert, layout.data, layout.expert_data)
        buffers += CUDA_CONTEXT_BYTES + NCCL_BYTES_PER_GROUP * sum(size > 1 for size in sizes)
    return buffers
