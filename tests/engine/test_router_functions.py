"""The emulated router functions against autograd in float64 through the same formulas, one token at a time."""

import pytest
import torch
from support.engine import router

TOKENS, EXPERTS, TOPK = 9, 6, 2


@pytest.fixture
def logits() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(TOKENS, EXPERTS, dtype=torch.float64, requires_grad=True)


def routed(row: torch.Tensor) -> list[int]:
    return sorted(range(EXPERTS), key=lambda expert: -float(row[expert]))[:TOPK]


@pytest.mark.parametrize("softmax_first", [False, True])
def test_probabilities_are_a_softmax_over_chosen_or_over_all_experts(logits: torch.Tensor, softmax_first: bool) -> None:
    expected = torch.zeros(TOKENS, EXPERTS, dtype=torch.float64)
    for token, row in enumerate(logits):
        chosen = routed(row)
        expected[token, chosen] = row.softmax(-1)[chosen] if softmax_first else row[chosen].softmax(-1)
    gradient = torch.randn(TOKENS, EXPERTS, dtype=torch.float64)
    expected.backward(gradient)
    arguments = (TOPK, softmax_first, None, None, None, "softmax")
    probs, routing_map, kept = router.fused_topk_with_score_function_fwd(logits.detach().float(), *arguments, None)
    torch.testing.assert_close(probs.double(), expected.detach(), rtol=1e-5, atol=1e-6)
    assert routing_map.tolist() == [[expert in routed(row) for expert in range(EXPERTS)] for row in logits]
    result = torch.empty(TOKENS, EXPERTS)
    router.fused_topk_with_score_function_bwd(
        routing_map, kept, gradient.float(), result, TOPK, softmax_first, None, "softmax"
    )
    torch.testing.assert_close(result.double(), logits.grad, rtol=1e-4, atol=1e-5)


def test_scores_of_the_balancing_loss_are_a_softmax_over_all_experts(logits: torch.Tensor) -> None:
    expected = logits.softmax(-1)
    gradient = torch.randn(TOKENS, EXPERTS, dtype=torch.float64)
    expected.backward(gradient)
    scores, routing_map, kept = router.fused_score_for_moe_aux_loss_fwd(logits.detach().float(), TOPK, "softmax")
    torch.testing.assert_close(scores.double(), expected.detach(), rtol=1e-5, atol=1e-6)
    assert routing_map.sum(1).tolist() == [TOPK] * TOKENS
    result = torch.empty(TOKENS, EXPERTS)
    router.fused_score_for_moe_aux_loss_bwd(kept, gradient.float(), result, TOPK, "softmax")
    torch.testing.assert_close(result.double(), logits.grad, rtol=1e-4, atol=1e-5)


def test_the_balancing_loss_is_the_one_of_switch_transformers(logits: torch.Tensor) -> None:
    scores = logits.softmax(-1).detach().requires_grad_()
    counts = torch.tensor([5, 0, 3, 4, 6, 0])
    # E x sum over experts of (share of choices) x (mean score), arXiv 2101.03961
    expected = 0.1 * EXPERTS * ((counts / (TOKENS * TOPK)) * scores.mean(0)).sum()
    (3 * expected).backward()
    loss, kept = router.fused_moe_aux_loss_fwd(
        scores.detach().float(), counts, TOKENS, EXPERTS, TOKENS, EXPERTS, TOPK, 0.1
    )
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    result = router.fused_moe_aux_loss_bwd(kept, counts, TOKENS, EXPERTS, torch.tensor(3.0))
    torch.testing.assert_close(result.double(), scores.grad, rtol=1e-5, atol=1e-8)
