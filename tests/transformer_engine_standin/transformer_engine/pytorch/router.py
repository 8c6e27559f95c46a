"""Fused routing, which our configuration does not turn on."""

from typing import Any


def fused_topk_with_score_function(
    logits: Any, topk: int, use_pre_softmax: bool, num_groups: Any, group_topk: Any, scaling_factor: Any,
    score_function: str, expert_bias: Any,
) -> Any:  # fmt: skip
    raise NotImplementedError("not stood in for")


def fused_compute_score_for_moe_aux_loss(logits: Any, topk: int, score_function: str) -> Any:
    raise NotImplementedError("not stood in for")


def fused_moe_aux_loss(
    probs: Any, tokens_per_expert: Any, total_num_tokens: int, num_experts: int, topk: int, coeff: float
) -> Any:
    raise NotImplementedError("not stood in for")
