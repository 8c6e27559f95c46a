"""The arms of the ablations: the same documents under another treatment.

`acc` is the method; without distractors, without the shuffle, with one agent type, or with a share of the
observations masked it is a control; `agent-sft` is the baseline that learns each turn with observations outside
the loss.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from acc_megatron.data_tools.schema import Piece

ARMS = ("acc", "agent-sft")
NOTICE = "[This observation is masked.]"


def mask_observations(pieces: Sequence[Piece], share: float, *, seed: int, name: str) -> list[Piece]:
    """The pieces with NOTICE for the text of a `share` of the evidence, drawn from (seed, name, piece id).

    The number masked is `share` x evidence pieces, rounded up or down at random, so that the share holds over
    many documents also where each has one piece.
    """
    evidence = [piece.id for piece in pieces if piece.kind == "evidence"]
    order = sorted(evidence, key=lambda id_: _digest(seed, name, id_))
    chance = int.from_bytes(_digest(seed, name)[:8]) / 2**64
    masked = set(order[: int(share * len(evidence) + chance)])
    return [replace(piece, text=NOTICE) if piece.id in masked else piece for piece in pieces]


def _digest(seed: int, *names: str) -> bytes:
    return hashlib.sha256("\0".join(("mask", str(seed), *names)).encode()).digest()
