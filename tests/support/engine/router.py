"""Top-k routing with softmax, the scores of the balancing loss, and that loss, as one kernel each computes them."""

import torch

from support.engine.module import emulated


@emulated
def fused_topk_with_score_function_fwd(
    logits: torch.Tensor,
    topk: int,
    use_pre_softmax: bool,
    num_groups: int | None,
    group_topk: int | None,
    scaling_factor: float | None,
    score_function: str,
    expert_bias: torch.Tensor | None,
    routing_map_format: int = 0,
    topk_indices: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`(probabilities, routing map, intermediate)`, each `[tokens, experts]`; the last is what backward needs."""
    assert score_function == "softmax" and not (num_groups or group_topk) and routing_map_format == 0
    assert scaling_factor is None and expert_bias is None and topk_indices is None
    values = logits.float()
    scores = values.softmax(-1) if use_pre_softmax else values
    chosen = scores.topk(topk, dim=-1).indices
    routing_map = torch.zeros_like(logits, dtype=torch.bool).scatter(1, chosen, True)
    if use_pre_softmax:
        return (scores * routing_map).to(logits.dtype), routing_map, scores
    probabilities = values.masked_fill(~routing_map, float("-inf")).softmax(-1)
    return probabilities.to(logits.dtype), routing_map, probabilities


@emulated
def fused_topk_with_score_function_bwd(
    routing_map: torch.Tensor,
    intermediate_output: torch.Tensor,
    grad_probs: torch.Tensor,
    grad_logits: torch.Tensor,
    topk: int,
    use_pre_softmax: bool,
    scaling_factor: float | None,
    score_function: str,
    use_dense_indices: bool = False,
    routing_map_format: int = 0,
) -> None:
    """Write the gradient of the logits into `grad_logits`."""
    assert score_function == "softmax" and scaling_factor is None and not use_dense_indices
    grad_logits.copy_(_softmax_gradient(intermediate_output, grad_probs.float() * routing_map))


@emulated
def fused_score_for_moe_aux_loss_fwd(
    logits: torch.Tensor, topk: int, score_function: str, routing_map_format: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`(scores in float32, routing map, intermediate)`, each `[tokens, experts]`."""
    assert score_function == "softmax" and routing_map_format == 0
    scores = logits.float().softmax(-1)
    routing_map = torch.zeros_like(logits, dtype=torch.bool).scatter(1, scores.topk(topk, dim=-1).indices, True)
    return scores, routing_map, scores.clone()


@emulated
def fused_score_for_moe_aux_loss_bwd(
    intermediate_output: torch.Tensor,
    grad_scores: torch.Tensor,
    grad_logits: torch.Tensor,
    topk: int,
    score_function: str,
) -> None:
    """Write the gradient of the logits into `grad_logits`."""
    assert score_function == "softmax"
    grad_logits.copy_(_softmax_gradient(intermediate_output, grad_scores.float()))


def _softmax_gradient(softmax: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    return softmax * (gradient - (softmax * gradient).sum(-1, keepdim=True))


@emulated
def fused_moe_aux_loss_fwd(
    probs: torch.Tensor,
    tokens_per_expert: torch.Tensor,
    total_num_tokens: int,
    num_experts: int,
    num_rows: int,
    num_cols: int,
    topk: int,
    coeff: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`(loss, factor)`: `coeff experts / (topk tokens^2)` times the sum of scores x tokens of each expert."""
    assert isinstance(total_num_tokens, int) and probs.shape == (num_rows, num_cols)
    factor = torch.tensor(num_experts * coeff / (topk * total_num_tokens**2))
    return (probs.float().sum(0) * tokens_per_expert).sum().mul(factor).to(probs.dtype), factor


@emulated
def fused_moe_aux_loss_bwd(
    Const_buf: torch.Tensor,
    tokens_per_expert: torch.Tensor,
    num_rows: int,
    num_cols: int,
    grad_aux_loss: torch.Tensor,
) -> torch.Tensor:
    """The gradient of the scores `[tokens, experts]`."""
    return (Const_buf * tokens_per_expert * grad_aux_loss).expand(num_rows, num_cols).to(grad_aux_loss.dtype)
