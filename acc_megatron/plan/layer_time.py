"""Seconds of one layer's passes over one average packed row on one rank, and of the head."""

from dataclasses import dataclass

from acc_megatron.config import Config
from acc_megatron.mesh.layout import Layout
from acc_megatron.model.flops import attention_flops_per_squared_token
from acc_megatron.model.precision import PRECISIONS
from acc_megatron.plan.layer_traffic import (
    activation_bytes,
    cast_bytes,
    dense_activation_bytes,
    permuted_bytes,
    plain_bytes,
)
from acc_megatron.plan.memory import HEAD_KEEP_LIMIT_BYTES, head_rows
from acc_megatron.plan.rank_sizes import RankSizes
from acc_megatron.plan.speeds import Speeds
from acc_megatron.plan.trained import head_products
from acc_megatron.plan.workload import Workload

BACKWARD_ATTENTION = 2.5  # FLOPs relative to forward: five products for two


@dataclass(frozen=True, slots=True)
class LayerTime:
    """Seconds of one layer; backward passes of products and memory traffic take twice as long as forward passes."""

    arithmetic: float  # forward
    attention: float  # forward
    attention_backward: float
    memory: float  # forward
    recompute: float  # selective

    @property
    def forward(self) -> float:
        """Seconds of a forward pass."""
        return self.arithmetic + self.attention + self.memory

    @property
    def backward(self) -> float:
        """Seconds of a backward pass, with selective recompute."""
        return 2 * self.arithmetic + self.attention_backward + 2 * self.memory + self.recompute


def layer_time(config: Config, layout: Layout, s: RankSizes, workload: Workload, speeds: Speeds) -> LayerTime:
    """Time one layer."""
    is_fp8 = PRECISIONS[config.train.precision].recipe is not None
    faster = speeds.machine.fp8_speedup if is_fp8 else 1
    attention_weights = s.hidden * 2 * (s.queries + s.keys)
    dense = 2 * s.tokens * (attention_weights + _mlp_weights(s)) + 2 * s.split_tokens * s.hidden * s.experts
    flops = attention_flops_per_squared_token(config.model) / (layout.context * layout.tensor)
    if not s.on_gpu and layout.context > 1:
        # a masked chunk of the CPU path computes the rectangle of all its keys
        flops *= (2 * layout.context + 1) / (2 * layout.context)
    pairs = [(item.tokens, flops * item.squared_tokens) for item in workload.lengths]
    attention = sum(work / speeds.attention_forward.at(length) for length, work in pairs)
    plain = plain_bytes(s) + (cast_bytes(s) if is_fp8 else 0)
    return LayerTime(
        arithmetic=(dense / speeds.gemm.at(s.tokens) + _expert_flops(s) / _expert_rate(s, speeds)) / faster,
        attention=attention,
        attention_backward=sum(
            BACKWARD_ATTENTION * work / speeds.attention_backward.at(length) for length, work in pairs
        ),
        memory=plain / speeds.memory_bytes_per_second + permuted_bytes(s) / speeds.permutation_bytes_per_second,
        recompute=_selective_seconds(config, s, attention, speeds),
    )


def _mlp_weights(s: RankSizes) -> int:
    """Gate, up and down projection of the dense MLP on this rank; 0 in a model with experts."""
    return 3 * s.hidden * s.ffn


def _expert_flops(s: RankSizes) -> float:
    return 2 * s.expert_tokens * 3 * s.hidden * s.expert_ffn


def _expert_rate(s: RankSizes, speeds: Speeds) -> float:
    return speeds.expert_gemm.at(s.expert_tokens / max(1, s.local_experts))


def _selective_seconds(config: Config, s: RankSizes, attention: float, speeds: Speeds) -> float:
    """Seconds of selective recompute in one layer."""
    if config.memory.recompute != "selective":
        return 0.0
    modules = set(config.memory.recompute_modules)
    rate = speeds.memory_bytes_per_second
    seconds = attention if "core_attn" in modules else 0.0
    if "layernorm" in modules:
        seconds += 4 * s.stream_bytes / rate
    if "moe" in modules:
        seconds += _expert_flops(s) / _expert_rate(s, speeds) + activation_bytes(s) / rate
        seconds += permuted_bytes(s) / speeds.permutation_bytes_per_second
    if "mlp" in modules:
        seconds += 2 * s.tokens * _mlp_weights(s) / speeds.gemm.at(s.tokens) + dense_activation_bytes(s) / rate
    if "moe_act" in modules and "moe" not in modules:
        seconds += activation_bytes(s) / rate
    return seconds


def head_seconds(config: Config, s: RankSizes, workload: Workload, speeds: Speeds) -> float:
    """Seconds of the masked head on one average row.

    It makes 3 passes over the weight, 4 if logits are recomputed, and one less if the weight is frozen.
    """
    rows = (
        head_rows(config, s, workload.fullest) * workload.supervised_tokens / max(1, workload.fullest.supervised_tokens)
    )
    keeps = config.loss.plan == "keep" or (
        config.loss.plan == "auto" and rows * s.vocab * s.element_bytes <= HEAD_KEEP_LIMIT_BYTES
    )
    passes = (2 if keeps else 3) + head_products(config)
    return 2 * passes * rows * s.vocab * s.hidden / speeds.gemm.at(rows)
