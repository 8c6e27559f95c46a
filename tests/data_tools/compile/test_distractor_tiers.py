"""Opened pages that a run does not cite are distractors in the tiers `opened` and `all`."""

from dataclasses import replace

import pytest

from acc_megatron.data_tools.compile.distractor_tiers import cited_pieces, with_tier
from acc_megatron.data_tools.compile.settings import CompileSettings
from acc_megatron.data_tools.schema import Kind, Piece, Provenance, Trajectory
from acc_megatron.errors import ConfigError


def page(id_: str, kind: Kind = "evidence") -> Piece:
    return Piece(id=id_, title=id_, text=f"text of {id_}", kind=kind)


RUN = Trajectory(
    id="t",
    agent="search",
    question="Why?",
    evidence=(page("https://a.org/x"), page("https://b.org/y"), page("51423")),
    distractors=(page("https://c.org/z", "distractor"),),
    reasoning="As http://www.a.org/x/ says, so.",
    reasoning_source="agent",
    answer="So.",
    ground_truth="So.",
    provenance=Provenance(file="f", line=1, sha256="0" * 64),
    notes={"evidence_rule": "visited_pages", "agent_answer": "So [51423]."},
)


def ids(pieces: tuple[Piece, ...]) -> list[str]:
    return [piece.id for piece in pieces]


@pytest.mark.parametrize(
    ("tier", "evidence", "distractors"),
    [
        ("found", ["https://a.org/x", "https://b.org/y", "51423"], ["https://c.org/z"]),
        ("opened", ["https://a.org/x", "51423"], ["https://b.org/y"]),
        ("all", ["https://a.org/x", "51423"], ["https://b.org/y", "https://c.org/z"]),
    ],
)
def test_a_tier_decides_evidence_and_distractors(tier: str, evidence: list[str], distractors: list[str]) -> None:
    found = with_tier(RUN, tier)
    assert (ids(found.evidence), ids(found.distractors)) == (evidence, distractors)
    assert all(piece.kind == "distractor" for piece in found.distractors)
    assert all(piece.kind == "evidence" for piece in found.evidence)
    if tier != "found":
        assert found.notes["evidence_rule"] == "cited_pages"
        assert found.notes["distractor_tiers"] == {"opened": 1, "found": 1}


@pytest.mark.parametrize(
    ("text", "cited"),
    [
        ("See https://b.org/y.", ["https://b.org/y"]),
        ("[b](https://b.org/y) and (51423)", ["https://b.org/y", "51423"]),
        ("https://b.org/other and 51423 people", []),
        ("【51423】", ["51423"]),
    ],
)
def test_a_page_is_cited_by_its_url_or_its_id_in_brackets(text: str, cited: list[str]) -> None:
    run = replace(RUN, reasoning=text, notes=RUN.notes | {"agent_answer": None})
    assert ids(tuple(cited_pieces(run))) == cited


def test_a_run_without_citations_keeps_its_opened_pages_as_evidence() -> None:
    run = replace(RUN, reasoning="So.", notes=RUN.notes | {"agent_answer": "So."})
    found = with_tier(run, "all")
    assert found.evidence == run.evidence and found.distractors == run.distractors
    assert found.notes["evidence_rule"] == "visited_pages"
    other = replace(RUN, notes=RUN.notes | {"evidence_rule": "hits"})
    assert with_tier(other, "opened") is other, "a run that opened no page has no tiers"


def test_an_unknown_tier_and_a_contradiction_are_refused() -> None:
    with pytest.raises(ConfigError, match="known: found, opened, all"):
        CompileSettings(distractor_tier="cited")
    with pytest.raises(ConfigError, match="give only one"):
        CompileSettings(distractor_tier="all", distractors=False)
