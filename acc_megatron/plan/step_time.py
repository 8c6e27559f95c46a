"""Predicted seconds of a step: a roofline of compute, memory and links at measured or assumed speeds."""

import dataclasses
from dataclasses import dataclass

from acc_megatron.config import Config
from acc_megatron.mesh.layout import Layout
from acc_megatron.model.flops import training_flops
from acc_megatron.plan.activations import layer_memory, layer_tensors
from acc_megatron.plan.assumed_efficiency import EFFICIENCY
from acc_megatron.plan.communication import Collective, forward_passes
from acc_megatron.plan.last_layer_time import last_layer_saving
from acc_megatron.plan.layer_time import LayerTime, head_seconds, layer_time
from acc_megatron.plan.optimizer_bytes import HOST_UPDATE_BYTES, OFFLOAD_COPY_BYTES, update_traffic, updated_parameters
from acc_megatron.plan.parameters import Parameters
from acc_megatron.plan.rank_sizes import RankSizes
from acc_megatron.plan.speeds import Speeds
from acc_megatron.plan.trained import factor_seconds, weight_gradient_share, without_frozen
from acc_megatron.plan.workload import Workload


@dataclass(frozen=True, slots=True)
class StepTime:
    """Seconds of a step by part."""

    arithmetic: float  # matrix products of layers and head
    attention: float
    memory_traffic: float  # norms, rotary embedding, permutation, activation functions
    recompute: float
    launches: float  # time in which the GPU waits for the host to launch kernels
    tensor: float
    context: float  # not overlapped by attention
    experts: float
    waiting: float  # for data-parallel ranks with costlier rows
    bubble: float  # of the pipeline
    gradients: float  # reduction of gradients and gathering of weights, not overlapped
    update: float
    offload: float  # copies to and from host memory, and the update there

    @property
    def total(self) -> float:
        """The sum of all parts."""
        return sum(self.by_part().values())

    def by_part(self) -> dict[str, float]:
        """Seconds by the name of the part."""
        return dataclasses.asdict(self)


def step_time(
    config: Config,
    layout: Layout,
    sizes: RankSizes,
    parameters: Parameters,
    workload: Workload,
    collectives: list[Collective],
    speeds: Speeds,
) -> StepTime:
    """Predict a step of the last pipeline stage, the slowest, because it has the head.

    With `loss.last_layer_rows = "supervised"` it may be another one: then the excess of the last stage is left out.
    """
    layers = config.model.num_hidden_layers // layout.pipeline
    microbatches = config.train.global_batch_rows // layout.data
    calls, num_recomputed = layers * microbatches, forward_passes(config) - 1
    layer = layer_time(config, layout, sizes, workload, speeds)
    # forward, gradients of inputs, and gradients of the weights that are trained
    arithmetic = calls * (2 + weight_gradient_share(config)) * layer.arithmetic
    arithmetic += calls * factor_seconds(config, layout, sizes, speeds)
    attention = calls * (layer.attention + layer.attention_backward)
    memory = calls * 3 * layer.memory
    recompute = calls * (num_recomputed * layer.forward + layer.recompute)
    head = microbatches * head_seconds(config, sizes, workload, speeds)
    # a backward pass launches about twice as many kernels as a forward pass
    launches = calls * (3 + num_recomputed) * speeds.host_seconds_per_layer
    if sizes.on_gpu:
        launches = max(0.0, launches - arithmetic - attention - memory - recompute)
    by_axis = {axis: sum(c.step_seconds for c in collectives if c.axis == axis) for axis in ("TP", "CP", "EP", "ETP")}
    context = max(0.0, by_axis["CP"] - attention - calls * num_recomputed * layer.attention)
    if config.parallel.context_communication.startswith("a2a") or not sizes.on_gpu:
        context = by_axis["CP"]
    tensor, experts = by_axis["TP"], by_axis["EP"] + by_axis["ETP"]
    saved = last_layer_saving(
        config, layout, sizes, workload, speeds, layer=layer, expert_seconds=experts / calls, head_seconds=head
    )
    arithmetic, attention, memory = (
        arithmetic - saved.arithmetic,
        attention - saved.attention,
        memory - saved.memory_traffic,
    )
    recompute, experts, context = recompute - saved.recompute, experts - saved.experts, context + saved.gathering
    busy = arithmetic + head + attention + memory + recompute + launches + tensor + context + experts
    waiting = busy * (1 / workload.balance(layout.data, config.train.global_batch_rows) - 1)
    slot = (busy + waiting) / microbatches
    bubble = slot * (layout.pipeline - 1) / config.parallel.virtual_pipeline
    bubble += exposed_messages(config, layout, sizes) * sum(c.step_seconds for c in collectives if c.axis == "PP")
    updated = updated_parameters(config, layout, parameters).total
    gradients = sum(c.step_seconds for c in collectives if c.axis == "DP")
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
        update=updated * update_traffic(config, on_gpu=sizes.on_gpu) / speeds.update_bytes_per_second,
        offload=updated * offload_seconds(config, speeds, on_gpu=sizes.on_gpu)
        + calls * activation_copies(config, sizes, workload, layer, speeds),
    )


def exposed_messages(config: Config, layout: Layout, sizes: RankSizes) -> float:
    """Return the share of a stage's messages that no computation hides.

    With several chunks a stage sends and receives while another chunk computes, except while the pipeline fills and
    drains: stages - 1 microbatches until the last stage starts, and its warm-up of (chunks - 1) x stages.
    """
    chunks = config.parallel.virtual_pipeline
    if chunks == 1 or not sizes.on_gpu:
        return 1.0
    messages = config.train.global_batch_rows // layout.data * chunks
    return min(1.0, (chunks * layout.pipeline - 1) / messages)


def offload_seconds(config: Config, speeds: Speeds, *, on_gpu: bool) -> float:
    """Seconds for one parameter of the optimizer's state in host memory; copies and updates do not overlap here."""
    machine, fraction = speeds.machine, config.optimizer.offload_fraction if on_gpu else 0.0
    copies = OFFLOAD_COPY_BYTES / (machine.host_link_bytes_per_second * EFFICIENCY.link)
    return fraction * (copies + HOST_UPDATE_BYTES / (machine.host_memory_bytes_per_second * EFFICIENCY.host_memory))


def activation_copies(config: Config, sizes: RankSizes, workload: Workload, layer: LayerTime, speeds: Speeds) -> float:
    """Seconds in which a layer waits for copies of its activations, which run behind its forward and backward pass."""
    if not config.memory.offload_modules:
        return 0.0
    tensors = layer_tensors(sizes, workload.fullest.documents_tokens, aux_loss=config.moe.load_balancing != "none")
    copied = layer_memory(without_frozen(config, tensors, sizes), sizes, config.memory).host_bytes
    copy = copied / (speeds.machine.host_link_bytes_per_second * EFFICIENCY.link)
    return max(0.0, copy - layer.forward) + max(0.0, copy - layer.backward)


def model_flops_per_step(config: Config, workload: Workload) -> float:
    """Model FLOPs of a step on all ranks: causal attention per document, and the head on supervised tokens only."""
    return config.train.global_batch_rows * training_flops(
        config.model,
        tokens=workload.document_tokens,
        squared_tokens=workload.squared_tokens,
        head_tokens=workload.supervised_tokens,
    )
