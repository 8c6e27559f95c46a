"""The documents that are held out for validation: all of another dataset, or a share of the training documents."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from acc_megatron.config import Config
from acc_megatron.data_tools.convert.dataset_folder import DatasetFolder, open_dataset
from acc_megatron.errors import DataError

HASH_BITS = 64


def is_held_out(document_id: str, share: float) -> bool:
    """Return whether a document is held out: its SHA-256 decides, so no seed, order or layout changes the choice."""
    digest = hashlib.sha256(document_id.encode()).digest()
    return int.from_bytes(digest[: HASH_BITS // 8], "big") < share * 2**HASH_BITS


def split_documents(ids: Sequence[str], share: float) -> tuple[list[int], list[int]]:
    """Return the numbers of the documents to train on, and of those held out."""
    held = [is_held_out(document, share) for document in ids]
    numbers = range(len(held))
    return [n for n in numbers if not held[n]], [n for n in numbers if held[n]]


@dataclass(frozen=True)
class HeldOut:
    """Which documents of the training dataset are trained on, and which of `dataset` are held out, by agent kind."""

    trained: list[int] | None  # None: all
    dataset: DatasetFolder | None = None
    by_agent: dict[str, list[int]] | None = None


def choose_held_out(config: Config, training: DatasetFolder) -> HeldOut:
    """Apply [validation] to a dataset. Raises DataError if no document is left on one side."""
    settings = config.validation
    if settings.every_steps is None:
        return HeldOut(None)
    if settings.path is not None:
        other = open_dataset(Path(settings.path))
        return HeldOut(None, other, _by_agent(other, range(len(other))))
    trained, held = split_documents(training.samples["id"].to_pylist(), settings.share)
    if not trained or not held:
        raise DataError(
            f"validation.share = {settings.share} holds out {len(held)} of the {len(training)} documents of "
            f"{training.path}: choose a share that leaves some on both sides, or give validation.path"
        )
    return HeldOut(trained, training, _by_agent(training, held))


def _by_agent(dataset: DatasetFolder, documents: Sequence[int]) -> dict[str, list[int]]:
    agents = dataset.samples["agent"].to_pylist()
    found: dict[str, list[int]] = {}
    for number in documents:
        found.setdefault(agents[number] or "unknown", []).append(number)
    return dict(sorted(found.items()))
