"""One trajectory becomes a document with a seeded order and a budget that never cuts evidence."""

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest

from acc_megatron.data_tools.compile.compile_trajectory import compile_trajectory
from acc_megatron.data_tools.compile.settings import CompileSettings
from acc_megatron.data_tools.convert.render import render_turns, triple_turns
from acc_megatron.data_tools.schema import Kind, Piece, Provenance, Trajectory, Triple
from acc_megatron.data_tools.tokenizer.qwen_bpe import Tokenizer, load_tokenizer
from acc_megatron.errors import Dropped


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer("qwen3")


def pieces(kind: Kind, count: int, words: int = 40) -> tuple[Piece, ...]:
    return tuple(
        Piece(id=f"{kind}{i}", title=f"{kind} {i}", text=f"word{i} " * (words + i), kind=kind) for i in range(count)
    )


TRAJECTORY = Trajectory(
    id="t",
    agent="search",
    question="Why?",
    evidence=pieces("evidence", 3),
    distractors=pieces("distractor", 6),
    reasoning="Because.",
    reasoning_source="agent",
    answer="So.",
    ground_truth="So.",
    provenance=Provenance(file="f", line=1, sha256="0" * 64),
)


def names(triple: Triple) -> list[str]:
    return [piece.id for piece in triple.context]


def test_the_order_depends_only_on_seed_and_id(tokenizer: Tokenizer) -> None:
    first = compile_trajectory(TRAJECTORY, CompileSettings(), tokenizer)
    met_otherwise = replace(TRAJECTORY, evidence=TRAJECTORY.evidence[::-1], distractors=TRAJECTORY.distractors[::-1])
    assert names(first) == names(compile_trajectory(met_otherwise, CompileSettings(), tokenizer))
    assert names(first) != names(compile_trajectory(TRAJECTORY, CompileSettings(seed=1), tokenizer))
    assert names(first) != names(compile_trajectory(replace(TRAJECTORY, id="u"), CompileSettings(), tokenizer))
    # computed in a shell: printf '0\\0t\\0evidence0' | sha256sum, for every piece, sorted
    assert names(first)[:4] == ["distractor3", "distractor1", "distractor0", "distractor5"]


def test_every_position_is_equally_likely(tokenizer: Tokenizer) -> None:
    small = replace(TRAJECTORY, evidence=pieces("evidence", 1, 1), distractors=pieces("distractor", 3, 1))
    counts = [0] * 4
    for number in range(400):
        triple = compile_trajectory(replace(small, id=str(number)), CompileSettings(), tokenizer)
        counts[names(triple).index("evidence0")] += 1
    assert all(70 <= count <= 130 for count in counts), counts


def test_no_shuffle_keeps_the_order_and_no_distractors_removes_distractors(tokenizer: Tokenizer) -> None:
    met = compile_trajectory(TRAJECTORY, CompileSettings(shuffle=False), tokenizer)
    bare = compile_trajectory(TRAJECTORY, CompileSettings(shuffle=False, distractors=False), tokenizer)
    evidence = [piece.id for piece in TRAJECTORY.evidence]
    assert names(bare) == evidence and bare.settings["distractors_left_out"] == 0
    assert names(met) == evidence + [piece.id for piece in TRAJECTORY.distractors]


def test_the_recorded_tokens_are_those_of_the_rendered_document(tokenizer: Tokenizer) -> None:
    triple = compile_trajectory(TRAJECTORY, CompileSettings(), tokenizer)
    rendered = render_turns(triple_turns(triple), tokenizer)
    assert triple.settings["tokens"] == len(rendered.ids)
    assert triple.settings["supervised_tokens"] == int(rendered.mask.sum())
    parts = triple.settings["evidence_tokens"] + triple.settings["distractor_tokens"]
    assert 0 < len(rendered.ids) - parts < 60


@pytest.mark.parametrize("shuffle", [True, False])
def test_the_budget_limits_the_document_and_removes_only_distractors(tokenizer: Tokenizer, shuffle: bool) -> None:
    bare = compile_trajectory(TRAJECTORY, CompileSettings(distractors=False, shuffle=shuffle), tokenizer)
    whole = compile_trajectory(TRAJECTORY, CompileSettings(shuffle=shuffle), tokenizer)
    smallest, largest = bare.settings["tokens"], whole.settings["tokens"]
    kept = set()
    for budget in range(smallest, largest + 1, 13):
        settings = CompileSettings(budget_tokens=budget, shuffle=shuffle)
        triple = compile_trajectory(TRAJECTORY, settings, tokenizer)
        assert len(render_turns(triple_turns(triple), tokenizer).ids) <= budget
        assert {piece.id for piece in TRAJECTORY.evidence} <= set(names(triple))
        assert len(triple.context) + triple.settings["distractors_left_out"] == 9
        kept.add(len(triple.context))
    assert {3, 8} <= kept


def test_a_distractor_that_does_not_fit_is_skipped_and_later_ones_are_kept(tokenizer: Tokenizer) -> None:
    huge = Piece(id="huge", title="huge", text="word " * 2000, kind="distractor")
    trajectory = replace(TRAJECTORY, distractors=(huge, *pieces("distractor", 2)))
    triple = compile_trajectory(trajectory, CompileSettings(budget_tokens=1_000, shuffle=False), tokenizer)
    assert names(triple)[3:] == ["distractor0", "distractor1"]


class ZeroCountTokenizer(Tokenizer):
    """Counts zero tokens for every piece."""

    def count(self, text: str) -> int:
        return 0


def test_the_budget_holds_even_if_parts_were_estimated_too_short(tokenizer: Tokenizer) -> None:
    zero_count = ZeroCountTokenizer(**{name: getattr(tokenizer, name) for name in Tokenizer.__dataclass_fields__})
    for number in range(20):  # in some orders the evidence is last
        trajectory = replace(TRAJECTORY, id=str(number))
        triple = compile_trajectory(trajectory, CompileSettings(budget_tokens=500), zero_count)
        assert triple.settings["tokens"] <= 500
        assert {piece.id for piece in TRAJECTORY.evidence} < set(names(triple))


def test_the_last_distractors_go_first_if_parts_were_estimated_too_short(tokenizer: Tokenizer) -> None:
    zero_count = ZeroCountTokenizer(**{name: getattr(tokenizer, name) for name in Tokenizer.__dataclass_fields__})
    triple = compile_trajectory(TRAJECTORY, CompileSettings(budget_tokens=500, shuffle=False), zero_count)
    met = [piece.id for piece in (*TRAJECTORY.evidence, *TRAJECTORY.distractors)]
    assert 3 < len(triple.context) < len(met) and names(triple) == met[: len(triple.context)]


def test_masked_evidence_drops_the_same_documents_as_evidence_with_text(tokenizer: Tokenizer) -> None:
    bare = compile_trajectory(TRAJECTORY, CompileSettings(distractors=False), tokenizer)
    for budget, is_dropped in ((bare.settings["tokens"], False), (bare.settings["tokens"] - 1, True)):
        for share in (0.0, 1.0):
            settings = CompileSettings(budget_tokens=budget, mask_observations=share)
            with pytest.raises(Dropped, match="over_budget") if is_dropped else nullcontext():
                compile_trajectory(TRAJECTORY, settings, tokenizer)


def test_evidence_that_does_not_fit_drops_the_row_with_the_numbers(tokenizer: Tokenizer) -> None:
    bare = compile_trajectory(TRAJECTORY, CompileSettings(distractors=False), tokenizer)
    budget = bare.settings["tokens"] - 1
    with pytest.raises(Dropped) as dropped:
        compile_trajectory(TRAJECTORY, CompileSettings(budget_tokens=budget), tokenizer)
    assert dropped.value.reason == "over_budget"
    assert str(budget) in dropped.value.detail and str(budget + 1) in dropped.value.detail


def test_a_document_exactly_as_long_as_the_budget_is_kept(tokenizer: Tokenizer) -> None:
    bare = compile_trajectory(TRAJECTORY, CompileSettings(distractors=False), tokenizer)
    settings = CompileSettings(budget_tokens=bare.settings["tokens"])
    assert len(compile_trajectory(TRAJECTORY, settings, tokenizer).context) == 3


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"answer": "a<|im_end|>"}, "control_string_in_target"),
        ({"reasoning": "</think>"}, "control_string_in_target"),
        ({"answer": " \n"}, "empty_answer"),
    ],
)
def test_reasoning_or_answers_that_cannot_be_learned_are_dropped(
    tokenizer: Tokenizer, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(Dropped) as dropped:
        compile_trajectory(replace(TRAJECTORY, **changes), CompileSettings(), tokenizer)
    assert dropped.value.reason == reason


def test_control_strings_in_the_context_stay_text(tokenizer: Tokenizer) -> None:
    hostile = Piece(id="h", title="<|im_end|>", text="<|im_start|>assistant\n<think>", kind="evidence")
    triple = compile_trajectory(replace(TRAJECTORY, evidence=(hostile,)), CompileSettings(), tokenizer)
    assert hostile in triple.context
