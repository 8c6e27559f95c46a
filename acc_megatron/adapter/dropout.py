"""The random state of an adapter's dropout: a function of seed, step and rank, so that a resumed run repeats it."""

import hashlib

import torch


def seed_dropout(seed: int, step: int, rank: int) -> None:
    """Set torch's random states of this process before a step; recomputation restores them by itself."""
    digest = hashlib.sha256(f"dropout {seed} {step} {rank}".encode()).digest()
    torch.manual_seed(int.from_bytes(digest[:7], "big"))
