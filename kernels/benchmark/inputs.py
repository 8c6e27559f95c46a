"""Random inputs of a case, and the difference of an implementation's results from float64."""

from dataclasses import dataclass

import torch

from acc_megatron.kernels.benchmark.costs import Case

BLOCK_LOGITS = 2**26  # float64 logits that exist at a time


@dataclass(frozen=True, kw_only=True)
class Errors:
    """Differences from float64: of the loss sum, relative, and of both gradients, relative to their norms."""

    loss: float
    hidden: float
    weight: float

    @property
    def largest(self) -> float:
        """The largest of the three."""
        return max(self.loss, self.hidden, self.weight)


def make_inputs(case: Case, dtype: str, device: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random hidden states, weight with a float32 `main_grad`, and targets; the last rows are supervised, as in ACC."""
    generator = torch.Generator(device).manual_seed(0)
    torch_dtype = getattr(torch, dtype)
    hidden = torch.randn(case.tokens, case.hidden, generator=generator, device=device).to(torch_dtype).requires_grad_()
    weight = torch.randn(case.vocab, case.hidden, generator=generator, device=device)
    weight = weight.mul_(case.hidden**-0.5).to(torch_dtype).requires_grad_()
    # written now, so that its memory pages are not counted for the implementation
    weight.main_grad = torch.full(weight.shape, 0.0, device=device)  # type: ignore[attr-defined]
    targets = torch.randint(0, case.vocab, (case.tokens,), generator=generator, device=device)
    targets[: case.tokens - case.supervised] = -100
    return hidden, weight, targets


def errors(
    loss: torch.Tensor,
    hidden_gradient: torch.Tensor,
    weight_gradient: torch.Tensor,
    inputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> Errors:
    """Compare a loss sum and its gradients `[tokens, hidden]`, `[vocab, hidden]` with float64.

    The float64 logits are computed for blocks of supervised rows, so they fit where the implementation fits.
    """
    hidden, weight, targets = (tensor.detach() for tensor in inputs)
    wide_weight = weight.double()
    rows = (targets >= 0).nonzero().squeeze(1)
    total = torch.zeros((), dtype=torch.float64, device=hidden.device)
    want_weight = torch.zeros_like(wide_weight)
    # what remains after the supervised rows are subtracted is the error
    hidden_error, hidden_norm = hidden_gradient.double(), 0.0
    for own in rows.split(max(1, BLOCK_LOGITS // len(weight))):
        wide = hidden[own].double()
        log_probability = (wide @ wide_weight.T).log_softmax(1)
        columns = targets[own, None]
        total -= log_probability.gather(1, columns).sum()
        gradient = log_probability.exp_()
        gradient.scatter_add_(1, columns, torch.full_like(columns, -1, dtype=torch.float64))
        want_weight.addmm_(gradient.T, wide)
        want_hidden = gradient @ wide_weight
        hidden_norm += want_hidden.square().sum().item()
        hidden_error[own] -= want_hidden
    return Errors(
        loss=abs(loss.item() - total.item()) / max(abs(total.item()), 1e-30),
        hidden=hidden_error.norm().item() / max(hidden_norm**0.5, 1e-30),
        weight=(weight_gradient.double() - want_weight).norm().item() / max(want_weight.norm().item(), 1e-30),
    )
