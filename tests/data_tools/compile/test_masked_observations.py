"""Masking replaces the text of the stated share of evidence, depends only on the seed, and changes nothing else."""

from dataclasses import replace

import pytest

from acc_megatron.data_tools.compile.compile_trajectory import compile_trajectory
from acc_megatron.data_tools.compile.masked_observations import NOTICE, mask_observations
from acc_megatron.data_tools.compile.settings import CompileSettings
from acc_megatron.data_tools.schema import Piece, Provenance, Trajectory
from acc_megatron.data_tools.tokenizer.qwen_bpe import Tokenizer
from acc_megatron.errors import ConfigError


def evidence(count: int) -> list[Piece]:
    return [Piece(id=f"e{i}", title=f"e{i}", text=f"text {i} " * 30, kind="evidence") for i in range(count)]


@pytest.mark.parametrize("num_pieces", [1, 3, 10])
def test_the_share_of_masked_evidence_is_right_over_many_documents(num_pieces: int) -> None:
    pieces = evidence(num_pieces)
    masked = [
        sum(piece.text == NOTICE for piece in mask_observations(pieces, 0.3, seed=0, name=str(i))) for i in range(1_000)
    ]
    assert abs(sum(masked) / (1_000 * num_pieces) - 0.3) < 0.05
    assert {int(0.3 * num_pieces), int(0.3 * num_pieces) + (0.3 * num_pieces % 1 > 1e-9)} >= set(masked) - {
        round(0.3 * num_pieces) + 1
    }


def test_masking_depends_on_the_seed_and_changes_only_the_text_of_evidence() -> None:
    pieces = [*evidence(6), Piece(id="d", title="d", text="d", kind="distractor")]
    one, two, other = (mask_observations(pieces, 0.5, seed=seed, name="n") for seed in (1, 1, 2))
    assert one == two != other
    assert [replace(piece, text="") for piece in one] == [replace(piece, text="") for piece in pieces]
    assert one[-1] == pieces[-1]
    assert mask_observations(pieces, 0.0, seed=1, name="n") == pieces


def test_the_masked_arm_has_the_same_documents_and_counts_the_masked_pieces(tokenizer: Tokenizer) -> None:
    run = Trajectory(
        id="t",
        agent="search",
        question="Why?",
        evidence=tuple(evidence(4)),
        distractors=(),
        reasoning="So.",
        reasoning_source="agent",
        answer="A.",
        ground_truth="A.",
        provenance=Provenance(file="f", line=1, sha256="0"),
    )
    whole = compile_trajectory(run, CompileSettings(), tokenizer)
    masked = compile_trajectory(run, CompileSettings(mask_observations=0.5), tokenizer)
    assert [piece.id for piece in masked.context] == [piece.id for piece in whole.context]
    assert masked.settings["masked_pieces"] == 2 == sum(piece.text == NOTICE for piece in masked.context)
    assert masked.settings["tokens"] < whole.settings["tokens"]
    assert masked.settings["evidence_tokens"] < whole.settings["evidence_tokens"]


def test_unknown_arms_and_shares_are_refused() -> None:
    with pytest.raises(ConfigError, match="unknown arm 'sft'"):
        CompileSettings(arm="sft")
    with pytest.raises(ConfigError, match="between 0 and 1"):
        CompileSettings(mask_observations=30)
