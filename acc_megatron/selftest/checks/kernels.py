"""The masked loss on every device, and split over all of them, against float64."""

from acc_megatron.mesh.process_groups import process_groups  # first: makes megatron run without CUDA

# isort: split
import torch
import torch.distributed as dist
import torch.nn.functional as F

from acc_megatron.config import ParallelConfig
from acc_megatron.kernels.masked_linear_cross_entropy.op import choose, masked_linear_cross_entropy
from acc_megatron.selftest.accuracy import Bounds, require_within
from acc_megatron.selftest.check import Found
from acc_megatron.selftest.place import GROUP_TIMEOUT_SECONDS, Place

SUPERVISED_SHARE = 0.05
# relative to the norm of the float64 gradient; those of bfloat16 are stated in docs/kernels.md
BOUNDS = {
    torch.float32: Bounds({"loss": 1e-6, "gradient of hidden": 1e-5, "gradient of weight": 1e-5}),
    torch.bfloat16: Bounds({"loss": 1e-5, "gradient of hidden": 3e-3, "gradient of weight": 2e-3}),
}


class Kernels:
    """The loss kernels in both memory modes: on one rank, and with the vocabulary split over all."""

    name = "kernels"
    summary = "loss and gradients of the masked head equal float64 within the stated bounds"
    limit_seconds = 300.0
    advice = "run make test-gpu on that node, which tests each kernel; loss.implementation=torch works without them"

    def run(self, place: Place) -> Found:
        """Compare with a float64 linear layer and cross entropy of torch."""
        figures: dict[str, float] = {}
        place.meet()
        with process_groups(ParallelConfig(), timeout_seconds=GROUP_TIMEOUT_SECONDS):
            device = torch.cuda.current_device()
            hidden, weight, targets, token_weights = (x.to(device) for x in _problem(place.world))
            truth = _float64(hidden, weight, targets, token_weights)
            for mode in ("keep", "recompute"):
                got = _ours(hidden, weight, targets, token_weights, mode, None)
                _compare(got, truth, f"memory mode {mode}", hidden.dtype, figures)
            if place.world > 1:
                shard = weight.chunk(place.world)[place.rank]
                loss, dhidden, dweight = _ours(hidden, shard, targets, token_weights, "keep", dist.group.WORLD)
                split = (truth[0], truth[1], truth[2].chunk(place.world)[place.rank])
                what = f"vocabulary over {place.world} ranks"
                _compare((loss, dhidden, dweight), split, what, hidden.dtype, figures)
            backend = choose(hidden, weight).name
        return Found(figures, f"{backend} kernels, {str(hidden.dtype).removeprefix('torch.')}")


def _problem(world: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Hidden states `[tokens, hidden]`, weight `[vocab, hidden]`, targets and token weights `[tokens]`, on any rank."""
    on_gpu = torch.cuda.is_available()
    tokens, hidden, vocab = (4096, 2048, 32_768) if on_gpu else (512, 64, 1024)
    dtype = torch.bfloat16 if on_gpu else torch.float32
    vocab = -(-vocab // (16 * world)) * 16 * world
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(tokens, hidden, generator=generator).to(dtype)
    weight = (torch.randn(vocab, hidden, generator=generator) * 3 * hidden**-0.5).to(dtype)
    targets = torch.randint(0, vocab, (tokens,), generator=generator)
    supervised = torch.rand(tokens, generator=generator) < SUPERVISED_SHARE
    token_weights = supervised * (0.5 + torch.rand(tokens, generator=generator))
    return states, weight, targets.where(supervised, -100), token_weights


def _ours(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, token_weights: torch.Tensor, mode: str,
    group: dist.ProcessGroup | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    hidden, weight = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
    loss, _ = masked_linear_cross_entropy(hidden, weight, targets, token_weights, group=group, memory_mode=mode)
    loss.backward()
    assert hidden.grad is not None and weight.grad is not None
    return loss.detach(), hidden.grad, weight.grad


def _float64(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, token_weights: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    wide_hidden, wide_weight = hidden.double().requires_grad_(), weight.double().requires_grad_()
    rows = token_weights > 0
    losses = F.cross_entropy(wide_hidden[rows] @ wide_weight.T, targets[rows], reduction="none")
    loss = (losses * token_weights[rows].double()).sum()
    loss.backward()
    assert wide_hidden.grad is not None and wide_weight.grad is not None
    return loss.detach(), wide_hidden.grad, wide_weight.grad


def _compare(
    got: tuple[torch.Tensor, ...],
    truth: tuple[torch.Tensor, ...],
    what: str,
    dtype: torch.dtype,
    figures: dict[str, float],
) -> None:
    names = BOUNDS[dtype].limits
    require_within(BOUNDS[dtype], dict(zip(names, zip(got, truth, strict=True), strict=True)), what, figures)
