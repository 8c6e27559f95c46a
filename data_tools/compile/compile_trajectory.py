"""Compiles one trajectory into a triple whose rendered document fits the token budget.

Order: pieces are sorted by SHA-256 of (seed, trajectory id, piece id). This is a random permutation that does not
depend on workers, other rows or library versions, and that keeps the order of the evidence if distractors are left out.
Budget: it counts the whole rendered document. Evidence, reasoning and answer are never cut. Distractors are taken in
the order of the permutation, each if it still fits; the others are counted. Pieces that fill a context toward its
target length (distractor_fill.py) are added before the permutation and are distractors like any other.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from acc_megatron.data_tools.compile.distractor_fill import Filler
from acc_megatron.data_tools.compile.distractor_stock import piece_cost
from acc_megatron.data_tools.compile.masked_observations import NOTICE, mask_observations
from acc_megatron.data_tools.compile.settings import CompileSettings
from acc_megatron.data_tools.convert.render import Lengths, exchange, lengths_of, triple_turns, user_content
from acc_megatron.data_tools.schema import Piece, Trajectory, Triple, shallow_dict
from acc_megatron.data_tools.tokenizer.qwen_bpe import Tokenizer
from acc_megatron.errors import Dropped

_TEMPLATE_TOKENS = 100  # at least what a document contains apart from its pieces and the texts of the run
_MAX_TOKENS_PER_CHARACTER = 12  # a token has at least one byte, and NFC makes at most three characters of one


def compile_trajectory(
    trajectory: Trajectory, settings: CompileSettings, tokenizer: Tokenizer, filler: Filler | None = None
) -> Triple:
    """The triple of a trajectory, with its token counts in `settings`.

    Raises Dropped: over_budget if evidence, reasoning and answer do not fit; empty_answer; empty_reasoning and
    no_verdict if the settings do not accept that; and the reasons of `render`.
    """
    check_verdict(trajectory, settings)
    if not trajectory.answer.strip():
        raise Dropped("empty_answer", "the answer is empty, so the loss would cover no text")
    if not trajectory.reasoning.strip() and not settings.allow_empty_reasoning:
        raise Dropped(
            "empty_reasoning",
            "the run states no reasoning, so the model would learn to answer without it; --allow-empty-reasoning keeps "
            "such runs, for example to ask a teacher for reasoning",
        )
    pieces = [*trajectory.evidence, *(trajectory.distractors if settings.distractors else ())]
    costs = {piece.id: piece_cost(piece, tokenizer) for piece in pieces}
    if filler:
        target = min(filler.target_tokens(trajectory), settings.budget_tokens)
        room = target - _frame_tokens(trajectory, tokenizer) - sum(costs.values())
        filled = dict(filler.pieces(trajectory, room))
        pieces += filled
        costs |= {piece.id: tokens for piece, tokens in filled.items()}
    assert len(costs) == len(pieces), "an agent kind gives each piece its own id"
    costs = {id_: tokens + len(str(len(pieces))) - 1 for id_, tokens in costs.items()}
    if settings.shuffle:
        pieces.sort(key=lambda piece: order_key(settings.seed, trajectory.id, piece.id))
    kept = _within_budget(pieces, costs, trajectory, settings.budget_tokens, tokenizer)
    triple = _triple(trajectory, kept, settings)
    if settings.mask_observations:
        fit(triple, settings.budget_tokens, tokenizer)  # drops the same documents as the arm without masks
        masked = mask_observations(kept, settings.mask_observations, seed=settings.seed, name=trajectory.id)
        costs |= {piece.id: piece_cost(piece, tokenizer) for piece in masked if piece.text == NOTICE}
        triple = replace(triple, context=tuple(masked))
    triple, lengths = fit(triple, settings.budget_tokens, tokenizer)
    num_masked = sum(piece.text == NOTICE and piece.kind == "evidence" for piece in triple.context)
    triple.settings.update(
        tokens=lengths.num_tokens,
        supervised_tokens=lengths.num_supervised,
        **_tokens_by_kind(triple, costs),
        masked_pieces=num_masked,
        distractors_left_out=len(pieces) - len(triple.context),
        notes=trajectory.notes,
    )
    return triple


def check_verdict(trajectory: Trajectory, settings: CompileSettings) -> None:
    """Raise Dropped('no_verdict') if the settings require a verdict and nobody judged the run."""
    if settings.require_verdict and not trajectory.is_judged:
        raise Dropped("no_verdict", "neither the row nor a report next to it says whether the run reached its goal")


def _tokens_by_kind(triple: Triple, costs: dict[str, int]) -> dict[str, int]:
    """Tokens of evidence, of all distractors, and of the added distractors."""
    kinds = [(piece.kind, piece.filled, costs[piece.id]) for piece in triple.context]
    return {
        "evidence_tokens": sum(tokens for kind, _, tokens in kinds if kind == "evidence"),
        "distractor_tokens": sum(tokens for kind, _, tokens in kinds if kind == "distractor"),
        "filled_tokens": sum(tokens for _, is_filled, tokens in kinds if is_filled),
    }


def order_key(seed: int, trajectory_id: str, piece_id: str) -> bytes:
    """The sort key of a piece in the permutation of its trajectory."""
    return hashlib.sha256(f"{seed}\0{trajectory_id}\0{piece_id}".encode()).digest()


def _frame_tokens(trajectory: Trajectory, tokenizer: Tokenizer) -> int:
    """The tokens of the document without pieces."""
    empty = exchange(user_content(trajectory.question, ()), trajectory.reasoning, trajectory.answer)
    return lengths_of(empty, tokenizer).num_tokens


def _within_budget(
    pieces: Sequence[Piece], costs: dict[str, int], trajectory: Trajectory, budget_tokens: int, tokenizer: Tokenizer
) -> list[Piece]:
    """All evidence, and each distractor in turn that still fits; the rest of the document is counted if it matters."""
    num_characters = len(trajectory.question) + len(trajectory.reasoning) + len(trajectory.answer)
    longest_frame = _TEMPLATE_TOKENS + _MAX_TOKENS_PER_CHARACTER * num_characters
    if sum(costs.values()) + longest_frame <= budget_tokens:
        return list(pieces)
    room_tokens = budget_tokens - _frame_tokens(trajectory, tokenizer)
    room_tokens -= sum(costs[piece.id] for piece in pieces if piece.kind == "evidence")
    kept = []
    for piece in pieces:
        if piece.kind == "distractor":
            if costs[piece.id] > room_tokens:
                continue
            room_tokens -= costs[piece.id]
        kept.append(piece)
    return kept


def fit(triple: Triple, budget_tokens: int, tokenizer: Tokenizer) -> tuple[Triple, Lengths]:
    """The triple and its lengths, leaving out its last distractors until it fits. Raises Dropped('over_budget').

    The context was chosen by sums of token counts of its parts, so the document can be a few tokens too long.
    """
    kept = list(triple.context)
    while True:
        lengths = lengths_of(triple_turns(triple), tokenizer)
        if lengths.num_tokens <= budget_tokens:
            return triple, lengths
        last = next((i for i in reversed(range(len(kept))) if kept[i].kind == "distractor"), None)
        if last is None:
            detail = f"{lengths.num_tokens} tokens without distractors, the budget is {budget_tokens}"
            raise Dropped("over_budget", detail, num_tokens=lengths.num_tokens)
        del kept[last]
        triple = replace(triple, context=tuple(kept))


def _triple(trajectory: Trajectory, context: Sequence[Piece], settings: CompileSettings) -> Triple:
    return Triple(
        id=trajectory.id,
        agent=trajectory.agent,
        question=trajectory.question,
        context=tuple(context),
        reasoning=trajectory.reasoning,
        answer=trajectory.answer,
        reasoning_source=trajectory.reasoning_source,
        ground_truth=trajectory.ground_truth,
        provenance=shallow_dict(trajectory.provenance),
        settings=shallow_dict(settings),
    )
