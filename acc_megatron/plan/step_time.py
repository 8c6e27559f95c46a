"""Seconds of a step by parts: a roofline of arithmetic, memory and links at stated efficiencies. No measurement."""

from dataclasses import dataclass

from acc_megatron.config import Config
from acc_megatron.flops import attention_flops_per_squared_token, training_flops
from acc_megatron.layout import Layout
from acc_megatron.machines import Machine
from acc_megatron.model.precision import PRECISIONS
from acc_megatron.plan.communication import Collective, passes
from acc_megatron.plan.efficiency import EFFICIENCY
from acc_megatron.plan.memory import HEAD_KEEP_LIMIT_BYTES, head_rows
from acc_megatron.plan.parameters import Parameters
from acc_megatron.plan.shapes import Shapes
from acc_megatron.plan.workload import Workload

# the update reads and writes three float32 numbers a parameter, reads the gradient and writes the weight
UPDATE_BYTES_PER_PARAMETER = 6 * 4 + 4 + 2


@dataclass(frozen=True, slots=True)
class StepTime:
    """Seconds of a step; the parts add up to `total`."""

    arithmetic: float  # matrix products of layers and head
    attention: float
    memory_traffic: float  # norms, rotation, permutation, activation: what no matrix product hides
    recompute: float
    launches: float  # where the host cannot keep up with the GPU
    tensor: float
    context: float  # beyond what attention hides
    experts: float
    waiting: float  # for ranks with costlier rows
    bubble: float  # of the pipeline
    gradients: float  # reduced, and weights gathered, beyond what overlaps
    update: float

    @property
    def total(self) -> float:
        """The step."""
        return sum(getattr(self, name) for name in self.__slots__)


@dataclass(frozen=True, slots=True)
class _LayerTime:
    """Seconds of one layer's forward pass on one mean row; `backward` of the three."""

    arithmetic: float
    attention: float
    memory: float


def step_time(
    config: Config,
    layout: Layout,
    shapes: Shapes,
    parameters: Parameters,
    workload: Workload,
    found: list[Collective],
    machine: Machine,
) -> StepTime:
    """Seconds of a step of the slowest stage, the last, which has the head."""
    layers = config.model.num_hidden_layers // layout.pipeline
    microbatches = config.train.global_batch_rows // layout.data
    calls, again = layers * microbatches, passes(config) - 1
    layer = _forward(config, layout, shapes, workload, machine)
    backward_attention = layer.attention * 2.5 * EFFICIENCY.attention_forward / EFFICIENCY.attention_backward
    arithmetic = calls * 3 * layer.arithmetic
    attention = calls * (layer.attention + backward_attention)
    memory = calls * 3 * layer.memory
    forward = layer.arithmetic + layer.attention + layer.memory
    recompute = calls * again * forward + calls * _selective_seconds(config, shapes, layer, machine)
    head = microbatches * _head_seconds(config, shapes, workload, machine)
    # a backward pass launches about twice as many kernels as a forward pass
    host = calls * (3 + again) * EFFICIENCY.host_seconds_per_layer
    launches = max(0.0, host - arithmetic - attention - memory - recompute)
    by_axis = {axis: sum(c.step_seconds for c in found if f"({axis})" in c.name) for axis in ("TP", "CP", "EP", "ETP")}
    context = max(0.0, by_axis["CP"] - attention - calls * again * layer.attention)
    if config.parallel.context_communication.startswith("a2a"):
        context = by_axis["CP"]
    tensor, experts = by_axis["TP"], by_axis["EP"] + by_axis["ETP"]
    busy = arithmetic + head + attention + memory + recompute + launches + tensor + context + experts
    waiting = busy * (1 / workload.balance(layout.data, config.train.global_batch_rows) - 1)
    slot = (busy + waiting) / microbatches
    bubble = slot * (layout.pipeline - 1) / config.parallel.virtual_pipeline
    bubble += sum(c.step_seconds for c in found if "(PP)" in c.name)
    shard = parameters.total
    if config.parallel.distributed_optimizer:
        shard = parameters.dense // (layout.data * layout.context) + parameters.experts // layout.expert_data
    gradients = sum(c.step_seconds for c in found if "(DP)" in c.name)
    if config.parallel.overlap_grad_reduce:
        gradients = max(0.0, gradients - 2 / 3 * slot)
    return StepTime(
        arithmetic=arithmetic + head,
        attention=attention,
        memory_traffic=memory,
        recompute=recompute,
        launches=launches,
        tensor=tensor,
        context=context,
        experts=experts,
        waiting=waiting,
        bubble=bubble,
        gradients=gradients,
        update=shard * UPDATE_BYTES_PER_PARAMETER / (machine.memory_bytes_per_second * EFFICIENCY.memory),
    )


def _forward(config: Config, layout: Layout, s: Shapes, workload: Workload, machine: Machine) -> _LayerTime:
    """A layer's forward pass on one rank."""
    model, peak = config.model, machine.flops_per_second
    is_fp8 = PRECISIONS[config.train.precision].recipe is not None
    linear_peak = peak * (machine.fp8_speedup if is_fp8 else 1)
    attention_weights = s.hidden * 2 * (s.queries + s.keys)
    dense = 2 * s.tokens * attention_weights + 2 * s.split_tokens * s.hidden * s.experts
    experts = 2 * s.expert_tokens * 3 * s.hidden * s.expert_ffn
    pairs = attention_flops_per_squared_token(model) * workload.squared_tokens / (layout.context * layout.tensor)
    rate = machine.memory_bytes_per_second * EFFICIENCY.memory
    return _LayerTime(
        arithmetic=dense / (linear_peak * EFFICIENCY.dense_gemm) + experts / (linear_peak * EFFICIENCY.expert_gemm),
        attention=pairs / (peak * EFFICIENCY.attention_forward),
        memory=(_traffic_bytes(s) + (_cast_bytes(s) if is_fp8 else 0)) / rate,
    )


def _traffic_bytes(s: Shapes) -> float:
    """Reads and writes of a layer's forward pass outside matrix products and attention.

    Stream: two norms (4) and two additions (6). Queries and keys: split, norm, rotation (6). Tokens of experts:
    permuted, sent, sorted, and back (8). Their activation, unfused: SiLU, product, probability (10 of
    the expert's width).
    """
    heads = s.tokens * (s.queries + s.keys) * s.element_bytes
    experts = s.expert_tokens * (8 * s.hidden + 10 * s.expert_ffn) * s.element_bytes
    return 10 * s.stream_bytes + 6 * heads + experts


def _cast_bytes(s: Shapes) -> float:
    """FP8: the input of each linear layer is read in bfloat16 and written in FP8, as it is and transposed."""
    return 4 * (s.tokens * (s.hidden + s.queries) + s.expert_tokens * (s.hidden + s.expert_ffn))


def _selective_seconds(config: Config, s: Shapes, layer: _LayerTime, machine: Machine) -> float:
    """What selective recompute makes again of one layer."""
    if config.memory.recompute != "selective":
        return 0.0
    modules = set(config.memory.recompute_modules)
    rate = machine.memory_bytes_per_second * EFFICIENCY.memory
    seconds = layer.attention if "core_attn" in modules else 0.0
    if "layernorm" in modules:
        seconds += 4 * s.stream_bytes / rate
    if "moe" in modules:
        experts = 2 * s.expert_tokens * 3 * s.hidden * s.expert_ffn
        traffic = s.expert_tokens * (8 * s.hidden + 10 * s.expert_ffn) * s.element_bytes
        seconds += experts / (machine.flops_per_second * EFFICIENCY.expert_gemm) + traffic / rate
    elif "moe_act" in modules:
        seconds += 10 * s.expert_tokens * s.expert_ffn * s.element_bytes / rate
    return seconds


def _head_seconds(config: Config, s: Shapes, workload: Workload, machine: Machine) -> float:
    """The masked head on one mean row: 3 passes over the weight, or 4 where logits are made again."""
    rows = head_rows(s, workload.fullest) * workload.supervised_tokens / max(1, workload.fullest.supervised_tokens)
    keeps = config.loss.plan == "keep" or (
        config.loss.plan == "auto" and rows * s.vocab * s.element_bytes <= HEAD_KEEP_LIMIT_BYTES
    )
    flops = 2 * (3 if keeps else 4) * rows * s.vocab * s.hidden
    return flops / (machine.flops_per_second * EFFICIENCY.dense_gemm)


def model_flops_per_step(config: Config, workload: Workload) -> float:
    """Model FLOPs of a step on all ranks: causal per document, the head on supervised tokens alone."""
    return config.train.global_batch_rows * training_flops(
        config.model,
        tokens=workload.document_tokens,
        squared_tokens=workload.squared_tokens,
        head_tokens=workload.supervised_tokens,
    )
