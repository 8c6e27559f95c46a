"""Answers that the rule of answer_match.py leaves open, and the verdicts of a judge on them."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from acc_megatron.data_tools.sources.search.answer_match import is_open, matches
from acc_megatron.errors import Dropped


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeRequest:
    """What a judge is asked: does the answer state one of the truths?"""

    question: str
    truths: tuple[str, ...]
    answer: str

    @property
    def key(self) -> str:
        """The SHA-256 of the request, under which its verdict is kept."""
        return hashlib.sha256(json.dumps([self.question, self.truths, self.answer]).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeVerdict:
    """The verdict of a judge, with its reply as the reason; it is stored in the triple."""

    is_right: bool
    model: str
    reply: str


class OpenAnswer(Dropped):
    """The rule accepts an answer neither as right nor as certainly wrong, and no judge has accepted it."""

    def __init__(self, request: JudgeRequest, detail: str) -> None:
        super().__init__("wrong_answer", detail)
        self.request = request


def check_stated(
    question: str, answer: str, truths: Sequence[str], verdicts: Mapping[str, JudgeVerdict]
) -> dict[str, Any]:
    """Return the judge's verdict for the notes, empty where the rule decides. Raises Dropped('wrong_answer')."""
    if any(matches(answer, truth) for truth in truths):
        return {}
    detail = f"expected {truths[0]!r:.200}, the final answer is {answer!r:.200}"
    if not any(is_open(answer, truth) for truth in truths):
        raise Dropped("wrong_answer", detail)
    request = JudgeRequest(question=question, truths=tuple(truths), answer=answer)
    verdict = verdicts.get(request.key)
    if verdict is None:
        raise OpenAnswer(request, detail)
    if not verdict.is_right:
        raise Dropped("wrong_answer", f"{detail}; the judge {verdict.model!r:.80} agrees: {verdict.reply!r:.200}")
    return {"judge": {"model": verdict.model, "verdict": "right", "reply": verdict.reply}}
