"""Why a step is not taken, told by all ranks together: which rank, which samples, and the losses before."""

from typing import Any

import torch.distributed as dist

from acc_megatron.errors import DataError, NonFiniteStep
from acc_megatron.resilience.spikes import SpikeRule

MOST_NAMED = 16


def broken_data(step: int, problem: DataError | None) -> DataError:
    """The first rank's reason why its rows could not be read; collective."""
    reasons: list[str | None] = [None] * dist.get_world_size()
    dist.all_gather_object(reasons, None if problem is None else str(problem))
    rank, reason = next((rank, reason) for rank, reason in enumerate(reasons) if reason is not None)
    return DataError(f"step {step}, rank {rank}: {reason}; nothing of this step was learned")


def non_finite_step(rule: SpikeRule, step: int, own: dict[str, Any]) -> NonFiniteStep:
    """Step, ranks, samples and the losses before; `own` is what this rank saw; collective.

    Keys of `own`: losses (of each microbatch), documents and samples (those with a bad loss, else all of the rank),
    has_bad_loss, grad_norm, first_bad_gradient.
    """
    seen: list[dict[str, Any]] = [{}] * dist.get_world_size()
    dist.all_gather_object(seen, own)
    bad = {rank: one for rank, one in enumerate(seen) if one["has_bad_loss"]}
    if bad:
        what = f"the loss is not a number on rank{'s' if len(bad) > 1 else ''} {_listed(map(str, bad))}"
    else:
        bad = {rank: one for rank, one in enumerate(seen) if one["first_bad_gradient"]} or dict(enumerate(seen))
        names = {one["first_bad_gradient"] for one in bad.values()} - {None}
        where = f" (first in {sorted(names)[0]})" if names else ""
        what = (
            f"the loss is a number, the gradient norm is {own['grad_norm']}: bad gradients{where} on "
            f"rank{'s' if len(bad) > 1 else ''} {_listed(map(str, bad))}"
        )
        bad = dict(enumerate(seen))  # gradients are summed over ranks, so any row may have brought it
    samples = {
        document: sample
        for one in bad.values()
        for document, sample in zip(one["documents"], one["samples"], strict=True)
    }
    last = ", ".join(f"{loss:.4f}" for loss in rule.recent_losses) or "none"
    return NonFiniteStep(
        f"step {step}: {what}. Samples: "
        f"{_listed(f'{samples[number]!r} (document {number})' for number in sorted(samples))}. "
        f"Losses before: {last}. The weights are those of step {step - 1}, which is kept: look at these samples with "
        "`acc-megatron inspect DATASET --doc N`, lower optimizer.learning_rate, or leave the samples out"
    )


def _listed(items: Any) -> str:
    names = list(items)
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more
