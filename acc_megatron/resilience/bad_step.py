"""Error messages for a step that cannot be taken, collected from all ranks: rank, samples and previous losses."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch.distributed as dist

from acc_megatron.errors import DataError, NonFiniteStep
from acc_megatron.resilience.spikes import SpikeRule

MAX_LISTED = 16


@dataclass(frozen=True)
class BadStep:
    """What one rank observed of a step that is not finite."""

    documents: list[int]  # of the rows with a non-finite loss, otherwise of all rows of the rank
    samples: list[str]  # their ids
    has_bad_loss: bool
    grad_norm: float
    first_bad_gradient: str | None  # the name of a parameter


def broken_data(step: int, problem: DataError | None) -> DataError:
    """The reason of the first rank that could not read its rows; collective."""
    reasons: list[str | None] = [None] * dist.get_world_size()
    dist.all_gather_object(reasons, None if problem is None else str(problem))
    rank, reason = next((rank, reason) for rank, reason in enumerate(reasons) if reason is not None)
    return DataError(f"step {step}, rank {rank}: {reason}; this step did not change the weights")


def non_finite_step(rule: SpikeRule, step: int, own: BadStep) -> NonFiniteStep:
    """An error that names step, ranks, samples and previous losses; collective. `own` is what this rank observed."""
    seen = [own] * dist.get_world_size()
    dist.all_gather_object(seen, own)
    bad = {rank: one for rank, one in enumerate(seen) if one.has_bad_loss}
    if bad:
        what = f"the loss is not finite on rank{'s' if len(bad) > 1 else ''} {_listed(map(str, bad))}"
    else:
        bad = {rank: one for rank, one in enumerate(seen) if one.first_bad_gradient} or dict(enumerate(seen))
        names = {one.first_bad_gradient for one in bad.values() if one.first_bad_gradient}
        where = f" (first in {sorted(names)[0]})" if names else ""
        what = (
            f"the loss is finite, but the gradient norm is {own.grad_norm}: non-finite gradients{where} on "
            f"rank{'s' if len(bad) > 1 else ''} {_listed(map(str, bad))}"
        )
        bad = dict(enumerate(seen))  # gradients are summed over ranks, so any sample may be the cause
    samples = {
        document: sample for one in bad.values() for document, sample in zip(one.documents, one.samples, strict=True)
    }
    last = ", ".join(f"{loss:.4f}" for loss in rule.recent_losses) or "none"
    return NonFiniteStep(
        f"step {step}: {what}. Samples: "
        f"{_listed(f'{samples[number]!r} (document {number})' for number in sorted(samples))}. "
        f"Previous losses: {last}. The weights of step {step - 1} are saved. Look at these samples with "
        "`acc-megatron inspect DATASET --doc N`; remove them from the dataset, or reduce optimizer.learning_rate"
    )


def _listed(items: Iterable[str]) -> str:
    names = list(items)
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return ", ".join(names[:MAX_LISTED]) + more
