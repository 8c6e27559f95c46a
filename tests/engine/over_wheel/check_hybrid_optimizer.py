"""Megatron's HybridDeviceOptimizer, which updates a share of the parameters on the host, against AdamW in float64."""

from support.engine.install import install

install()  # here and not in a conftest.py, which pytest would also load in the process that collects the tests

from typing import Any  # noqa: E402

import pytest  # noqa: E402
import torch  # noqa: E402
from support.engine.offloading import install_offloading, is_on_host  # noqa: E402

from acc_megatron.mesh.process_groups import process_groups  # noqa: E402, F401 - redirects device="cuda"

# isort: split
from megatron.core.optimizer.cpu_offloading import HybridDeviceOptimizer  # noqa: E402
from transformer_engine.pytorch.optimizers import FusedAdam  # noqa: E402

install_offloading()

SIZES = ((37, 19), (5,), (64, 8), (8, 3))
RATE, BETAS, EPSILON, STEPS = 1e-2, (0.9, 0.95), 1e-8, 10
DECAYS = (0.1, 0.0)  # of the first two and of the last two parameters
TOTAL = sum(torch.Size(size).numel() for size in SIZES)


def build(weights: list[torch.Tensor], fraction: float, *, overlaps: bool = True) -> HybridDeviceOptimizer:
    """Build it with the arguments that Megatron gives it."""
    groups = [{"params": weights[:2], "weight_decay": DECAYS[0]}, {"params": weights[2:], "weight_decay": DECAYS[1]}]
    return HybridDeviceOptimizer(
        groups, offload_fraction=fraction, cpu_optimizer_cls=torch.optim.AdamW, gpu_optimizer_cls=FusedAdam,
        param_update_in_fp32=True, overlap_cpu_optimizer_d2h_h2d=overlaps, lr=RATE, betas=BETAS, eps=EPSILON,
        weight_decay=DECAYS[0], bias_correction=True, fused=True,
    )  # fmt: skip


def weights_and_gradients() -> tuple[list[torch.Tensor], list[list[torch.Tensor]]]:
    """Bfloat16 weights, and float32 gradients of every step."""
    torch.manual_seed(0)
    return (
        [torch.randn(size).bfloat16() for size in SIZES],
        [[torch.randn(size) for size in SIZES] for _ in range(STEPS)],
    )


def expected(weights: list[torch.Tensor], gradients: list[list[torch.Tensor]]) -> list[torch.Tensor]:
    """AdamW (arXiv 1711.05101) in float64."""
    wide = [weight.double() for weight in weights]
    first, second = ([torch.zeros_like(weight) for weight in wide] for _ in range(2))
    for step, current in enumerate(gradients, start=1):
        for number, gradient in enumerate(each.double() for each in current):
            first[number] = BETAS[0] * first[number] + (1 - BETAS[0]) * gradient
            second[number] = BETAS[1] * second[number] + (1 - BETAS[1]) * gradient**2
            update = first[number] / (1 - BETAS[0] ** step) / (
                (second[number] / (1 - BETAS[1] ** step)).sqrt() + EPSILON
            )  # fmt: skip
            wide[number] = wide[number] - RATE * (update + DECAYS[number // 2] * wide[number])
    return wide


@pytest.mark.parametrize("overlaps", [True, False])
@pytest.mark.parametrize("fraction", [0.3, 0.5, 1.0])
def test_ten_updates_with_a_share_on_the_host_are_those_of_adamw(fraction: float, overlaps: bool) -> None:
    weights, gradients = weights_and_gradients()
    reference = expected(weights, gradients)
    optimizer = build(weights, fraction, overlaps=overlaps)
    on_host = [weight for weight in weights if weight in optimizer.gpu_params_map_cpu_copy]
    assert sum(weight.numel() for weight in on_host) >= fraction * TOTAL
    assert len(on_host) < len(weights) or fraction == 1.0
    for current in gradients:
        for weight, gradient in zip(weights, current, strict=True):
            weight.decoupled_grad = gradient.clone()  # type: ignore[attr-defined]
        optimizer.step()
    for weight, wide in zip(weights, reference, strict=True):
        state: Any = optimizer.state[weight]
        assert is_on_host(state["master_param"]) == (weight in optimizer.gpu_params_map_cpu_copy)
        torch.testing.assert_close(state["master_param"].double(), wide, rtol=1e-5, atol=1e-6)
        assert torch.equal(weight, state["master_param"].bfloat16()), "the new weights were copied back"
