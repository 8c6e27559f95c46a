"""Tiers of distractors as in LongTraceRL (arXiv 2605.31584): pages opened but not cited, and pages only found.

A page is cited if the final reasoning or answer of the run contains its URL, or its id in brackets. A run that cites
none of the pages that it opened says nothing about them, so all of them stay evidence.
"""

import re
from dataclasses import replace

from acc_megatron.data_tools.schema import Piece, Trajectory
from acc_megatron.data_tools.sources.page_url import page_key
from acc_megatron.errors import ConfigError

TIERS = ("found", "opened", "all")
_OPENED_RULE, _CITED_RULE = "visited_pages", "cited_pages"  # of evidence, in the notes of a trajectory
_URL = re.compile(r"https?://[^\s<>\"'\])}]+")
_BRACKETS = re.compile(r"[\[(【]([^\[\]()【】]{1,200})[\])】]")
_END_OF_SENTENCE = ".,;:!?"


def check_tier(name: str) -> None:
    """Raise ConfigError unless `name` is a tier."""
    if name not in TIERS:
        raise ConfigError(f"--distractors {name!r} is unknown; known: {', '.join(TIERS)}")


def with_tier(trajectory: Trajectory, tier: str) -> Trajectory:
    """The trajectory with the distractors of a tier; its notes say how many each tier has.

    `found` keeps every opened page as evidence. With `opened` and `all`, only cited pages are evidence.
    """
    if tier == "found" or trajectory.notes.get("evidence_rule") != _OPENED_RULE:
        return trajectory
    cited = cited_pieces(trajectory)
    uncited = [piece for piece in trajectory.evidence if piece not in cited] if cited else []
    opened = tuple(replace(piece, kind="distractor") for piece in uncited)
    found = trajectory.distractors if tier == "all" else ()
    notes = {"evidence_rule": _CITED_RULE} if cited else {}
    tiers = {"opened": len(opened), "found": len(trajectory.distractors)}
    return replace(
        trajectory,
        evidence=tuple(cited) or trajectory.evidence,
        distractors=(*opened, *found),
        notes=trajectory.notes | notes | {"distractor_tiers": tiers},
    )


def cited_pieces(trajectory: Trajectory) -> list[Piece]:
    """The pieces of evidence that the final reasoning or answer of the run cites."""
    text = f"{trajectory.reasoning}\n{trajectory.notes.get('agent_answer') or ''}"
    keys = {page_key(url.rstrip(_END_OF_SENTENCE)) for url in _URL.findall(text)}
    named = {name.strip() for name in _BRACKETS.findall(text)}
    return [piece for piece in trajectory.evidence if page_key(piece.id) in keys or piece.id in named]
