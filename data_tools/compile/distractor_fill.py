"""Filling a context up to a target length with real documents that are not evidence of its question.

A document is skipped if its id, title or text is that of evidence of the same question (in any run), or if it contains
a text that the agent kind hides.
"""

import re
from collections.abc import Iterator

from acc_megatron.data_tools.compile.distractor_stock import Stock, digest, piece_cost, piece_key
from acc_megatron.data_tools.schema import Piece, Trajectory
from acc_megatron.data_tools.sources.known_agents import AGENT_KINDS
from acc_megatron.data_tools.sources.resources import Resources
from acc_megatron.data_tools.tokenizer.qwen_bpe import Tokenizer
from acc_megatron.errors import ConfigError

_MIN_ROOM_TOKENS = 32
_NUMBER_TOKENS = 2  # for a piece number of up to three digits
_MAX_MISSES = 64  # after this many skipped pieces in succession the context counts as full
_TARGET = re.compile(r"(\w+)=(\d+)(?:\.\.(\d+))?")

FillTargets = dict[str, tuple[int, int]]  # agent kind -> shortest and longest target length, in tokens


def parse_targets(settings: list[str]) -> FillTargets:
    """Targets from `search=100000` (one length) or `search=60000..100000` (uniform). Raises ConfigError."""
    targets: FillTargets = {}
    for setting in settings:
        match = _TARGET.fullmatch(setting)
        low = int(match[2]) if match else 0
        high = int(match[3] or low) if match else 0
        if not match or match[1] not in AGENT_KINDS or not 0 < low <= high:
            raise ConfigError(
                f"--fill-tokens {setting!r} is invalid: write AGENT=TOKENS or AGENT=LOW..HIGH, for example "
                f"search=100000 or search=60000..100000; agents: {', '.join(AGENT_KINDS)}"
            )
        targets[match[1]] = (low, high)
    return targets


class Filler:
    """Chooses added distractors, up to the target length of the trajectory's agent kind."""

    def __init__(
        self, stock: Stock, resources: Resources, targets: FillTargets, seed: int, tokenizer: Tokenizer
    ) -> None:
        self._stock, self._resources, self._targets = stock, resources, targets
        self._seed, self._tokenizer = seed, tokenizer

    def target_tokens(self, trajectory: Trajectory) -> int:
        """The target length of the document, in tokens; 0 for an agent kind without a target."""
        low, high = self._targets.get(trajectory.agent, (0, 0))
        draw = int.from_bytes(digest(str(self._seed), "target", trajectory.id)[:8])
        return low + draw % (high - low + 1)

    def pieces(self, trajectory: Trajectory, room_tokens: int) -> Iterator[tuple[Piece, int]]:
        """Pieces with their tokens that together fit into `room_tokens`."""
        own = (*trajectory.evidence, *trajectory.distractors)
        taken = self._stock.evidence_keys(trajectory.question) | {piece_key(piece.id) for piece in own}
        titles, texts = {piece.title.casefold() for piece in own}, {piece.text for piece in own}
        answers = [text.casefold() for text in AGENT_KINDS[trajectory.agent].answers_to_hide(trajectory)]
        misses = 0
        for piece, tokens in self._candidates(trajectory):
            if room_tokens < _MIN_ROOM_TOKENS or misses == _MAX_MISSES:
                return
            is_known = piece_key(piece.id) in taken or piece.title.casefold() in titles or piece.text in texts
            content = f"{piece.title}\n{piece.text}".casefold() if answers else ""
            has_answer = any(answer in content for answer in answers)
            if is_known or has_answer or tokens + _NUMBER_TOKENS > room_tokens:
                misses += 1
                continue
            misses = 0
            room_tokens -= tokens + _NUMBER_TOKENS
            titles.add(piece.title.casefold())
            yield piece, tokens

    def _candidates(self, trajectory: Trajectory) -> Iterator[tuple[Piece, int]]:
        """The run's own documents in a seeded order, then the pool of its agent kind."""
        documents = AGENT_KINDS[trajectory.agent].own_documents(trajectory, self._resources)
        for path in sorted(documents, key=lambda path: digest(str(self._seed), trajectory.id, path)):
            if (text := documents.get(path, "")).strip():
                piece = Piece(id=path, title=path, text=text, kind="distractor", filled=True)
                yield piece, piece_cost(piece, self._tokenizer)
        yield from self._stock.walk(trajectory.agent, trajectory.id)
