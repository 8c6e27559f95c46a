"""The arms of the ablations, and evidence whose text is masked.

The arm `acc` is the method; the arm `agent-sft` is the baseline that learns every turn of the agent, with the
observations masked from the loss. Both arms have the same documents.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from acc_megatron.data_tools.schema import Piece

ARMS = ("acc", "agent-sft")
NOTICE = "[This observation is masked.]"


def mask_observations(pieces: Sequence[Piece], share: float, *, seed: int, name: str) -> list[Piece]:
    """The pieces with NOTICE as the text of a `share` of the evidence, drawn by (seed, name, piece id).

    The number of masked pieces is `share` x evidence pieces, rounded up or down at random, so that the share is right
    over many documents even if each has one piece.
    """
    evidence = [piece.id for piece in pieces if piece.kind == "evidence"]
    order = sorted(evidence, key=lambda id_: _digest(seed, name, id_))
    chance = int.from_bytes(_digest(seed, name)[:8]) / 2**64
    masked = set(order[: int(share * len(evidence) + chance)])
    return [replace(piece, text=NOTICE) if piece.id in masked else piece for piece in pieces]


def _digest(seed: int, *names: str) -> bytes:
    return hashlib.sha256("\0".join(("mask", str(seed), *names)).encode()).digest()
