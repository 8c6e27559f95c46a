"""FusedAdam of the wheel with state narrower than float32, against the optimizer that replaces it on CPU."""

from support.engine.install import install

install()  # here and not in a conftest.py, which pytest would also load in the process that collects the tests

from typing import Any  # noqa: E402
from unittest import mock  # noqa: E402

import pytest  # noqa: E402
import torch  # noqa: E402
from support.engine.multi_tensor import adamw  # noqa: E402

from acc_megatron.mesh.process_groups import process_groups  # noqa: E402, F401 - redirects device="cuda"
from acc_megatron.training.optimizers import narrow_adamw  # noqa: E402
from acc_megatron.training.optimizers.narrow_adamw import NarrowAdamW  # noqa: E402
from acc_megatron.training.optimizers.zero_tensors import keep_zeros  # noqa: E402

# isort: split
from transformer_engine.pytorch.optimizers import FusedAdam  # noqa: E402

MOMENTS = {
    "float32": {},
    "bfloat16": {"exp_avg_dtype": torch.bfloat16, "exp_avg_sq_dtype": torch.bfloat16},
    "fp8": {"exp_avg_dtype": torch.uint8, "exp_avg_sq_dtype": torch.bfloat16},
}
WEIGHTS = {
    "float32": {},
    "remainders": {"store_param_remainders": True},
    "float16": {"master_weight_dtype": torch.float16},
}
GRADIENTS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
RATE, BETAS, EPSILON, DECAY, STEPS = 1e-2, (0.9, 0.95), 1e-8, 0.1, 10


def update_in_the_order_of_the_kernel(
    weights: list[torch.Tensor],
    gradients: list[torch.Tensor],
    first_moments: list[torch.Tensor],
    second_moments: list[torch.Tensor],
    group: dict[str, Any],
) -> None:
    """Replaces torch's AdamW, which computes the same in another order."""
    for weight, gradient, first, second in zip(weights, gradients, first_moments, second_moments, strict=True):
        settings = {"lr": group["lr"], "betas": group["betas"], "epsilon": group["eps"], "step": group["step"]}
        found = adamw(weight, gradient, (first, second), **settings, weight_decay=group["weight_decay"])
        for target, value in zip((weight, first, second), found, strict=True):
            target.copy_(value)


def parameters() -> list[torch.Tensor]:
    """Sizes that no block divides; the last one never gets a gradient other than 0."""
    torch.manual_seed(0)
    return [torch.randn(37, 19).bfloat16(), (torch.randn(5) * 1e-3).bfloat16(), torch.randn(8, 3).bfloat16()]


def train(kind: Any, dtype: torch.dtype, **storage: Any) -> tuple[Any, list[torch.Tensor]]:
    """Make STEPS updates; gradients differ by several powers of two between elements and between steps."""
    weights = parameters()
    optimizer = kind(weights, lr=RATE, betas=BETAS, eps=EPSILON, weight_decay=DECAY, master_weights=True,
                     use_decoupled_grad=True, **storage)  # fmt: skip
    keep_zeros(optimizer)
    torch.manual_seed(1)
    for step in range(STEPS):
        for number, weight in enumerate(weights):
            gradient = torch.randn(weight.shape) * torch.exp2(torch.randint(-8, 8, weight.shape).float() - step)
            weight.decoupled_grad = (gradient if number < 2 else 0 * gradient).to(dtype)  # type: ignore[attr-defined]
        optimizer.step()
    return optimizer, weights


@pytest.mark.parametrize("gradients", GRADIENTS)
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("moments", MOMENTS)
def test_both_store_the_same_bits_when_they_compute_in_the_same_order(
    moments: str, weights: str, gradients: str
) -> None:
    storage: Any = MOMENTS[moments] | WEIGHTS[weights]
    fused, found = train(FusedAdam, GRADIENTS[gradients], **storage)
    with mock.patch.object(narrow_adamw, "update", update_in_the_order_of_the_kernel):
        narrow, expected = train(NarrowAdamW, GRADIENTS[gradients], **storage)
    for weight, other in zip(found, expected, strict=True):
        assert torch.equal(weight, other)
        assert fused.state[weight].keys() == narrow.state[other].keys()
        for name, value in narrow.state[other].items():
            stored = fused.state[weight][name]
            assert torch.equal(getattr(stored, "_data", stored), value), name
            if name in narrow._scales[other]:
                scale = stored._scale_inv if hasattr(stored, "_scale_inv") else fused._scales[weight][name]
                assert torch.equal(scale, narrow._scales[other][name]), name
    assert fused.param_groups[0]["step"] == narrow.param_groups[0]["step"] == STEPS
    assert float((found[0] != parameters()[0]).float().mean()) > 0.9, "the weights move"


def test_in_their_own_order_both_have_the_weights_of_float32() -> None:
    fused, found = train(FusedAdam, torch.float32)
    narrow, expected = train(NarrowAdamW, torch.float32)
    for weight, other in zip(found, expected, strict=True):
        torch.testing.assert_close(fused.state[weight]["master_param"], narrow.state[other]["master_param"],
                                   rtol=1e-6, atol=1e-7)  # fmt: skip
