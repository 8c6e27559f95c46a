"""Reads search runs: visited pages are evidence, hits that were not visited are distractors.

If a run visited no page, its hits are the evidence; `evidence_rule` in the notes names the rule that was used. The
ground truth and its aliases are found by truth.py; without them, an answer that was judged right is the truth. The
agent's own answer is its closing text. A row without one counts as verified by its author.
"""

import re
from collections.abc import Mapping
from typing import Any

from acc_megatron.common.json_rows import Row
from acc_megatron.data_tools.rows.fields import optional_object, tagged
from acc_megatron.data_tools.schema import Kind, Piece, Provenance, Trajectory
from acc_megatron.data_tools.sources.formats.known_formats import has_run_of, tool_names, transcript_of
from acc_megatron.data_tools.sources.formats.log_format import FINISH_TOOLS, Transcript
from acc_megatron.data_tools.sources.formats.message_log import message_key
from acc_megatron.data_tools.sources.formats.run_text import is_answer_text
from acc_megatron.data_tools.sources.page_url import page_key
from acc_megatron.data_tools.sources.search.judged_answers import JudgeVerdict, check_stated
from acc_megatron.data_tools.sources.search.pages import Page, add_output, tool_kind, visited_urls
from acc_megatron.data_tools.sources.search.truth import find_truth, has_truth_key
from acc_megatron.data_tools.sources.sql.table_names import is_select
from acc_megatron.data_tools.sources.swe.steps import is_swe_run
from acc_megatron.data_tools.sources.verdict import says_failed, says_succeeded
from acc_megatron.errors import Dropped

_QUESTION_MARK = "\nUser:"
_FIRST_TURN = 2
_QUESTION_KEYS = ("question", "prompt", "task_description")  # in an object of the row
_THOUGHT_ENDS = ("</think>", "</thought>", "<answer>")
_IS_RIGHT = re.compile(
    r"\s*(?:Episode finished, reward = (?:1|True)\b|Answer is CORRECT\b)"
)  # of HotpotQA's environment
_TAGS = ("<tool_call>", "<tool_response>")
_OWN_ANSWER_KEYS = (
    "prediction", "final_answer", "predicted_answer", "model_answer", "predicted", "pred", "pred_answer",
    "final_boxed_answer",
)  # fmt: skip


def recognises(value: dict[str, Any]) -> bool:
    """Whether a row is a search run: by its task, its tagged tool responses, or the names of its tools.

    A run that only finishes is one as well, and a question with its truth and no call: an agent can answer without a
    search, among others that search.
    """
    if not has_run_of("search", value):
        return False
    if "search" in str(value.get("task", ""))[:200] and "messages" in value:
        return True
    if is_swe_run(value):
        return False
    names = tool_names(value)
    if any(map(tool_kind, names)) or _is_tagged(value):
        return True
    is_sql = any(isinstance(text, str) and is_select(text[:200]) for text in value.values())
    has_truth = bool(_own_question(value)) and has_truth_key(value) and not is_sql
    only_finishes = all(name.lower() in FINISH_TOOLS for name in names)
    return only_finishes and (bool(names) or has_truth or is_answer_text(value))


def read(row: Row, verdicts: Mapping[str, JudgeVerdict] | None = None) -> Trajectory:
    """The run of a row whose final answer states the ground truth. Raises Dropped for any other run.

    `verdicts` of a judge decide about answers that the rule leaves open.
    """
    transcript = transcript_of(row.value).of_one_question(_own_question(row.value))
    truth_key, truth, aliases = _truth(row.value, transcript)
    question = _question(row.value, transcript)
    answer, reasoning = _answer(row.value, transcript, truth_key)
    if says_failed(row.value):
        raise Dropped("wrong_answer", "the row says that the run failed")
    judged = {} if answer is None else check_stated(question, answer, (truth, *aliases), verdicts or {})
    pages: dict[str, Page] = {}
    known = [add_output(pages, step) for step in transcript.steps if step.output.strip()]
    asked_for = {page_key(url) for step in transcript.steps for url in visited_urls(step)}
    if not pages:
        raise Dropped("no_evidence", f"none of the {len(known)} tool responses contains a hit or a page")
    evidence, distractors, notes = _split(pages, asked_for)
    return Trajectory(
        id=f"search-{row.sha256[:16]}",
        agent="search",
        question=question,
        evidence=evidence,
        distractors=distractors,
        reasoning=reasoning,
        reasoning_source="agent" if reasoning else "none",
        answer=truth,
        ground_truth=truth,
        provenance=Provenance(file=row.file, line=row.line, sha256=row.sha256),
        is_judged=answer is not None or says_succeeded(row.value),
        notes=notes
        | judged
        | {
            "unread_responses": known.count(False),
            "agent_answer": answer,
            "aliases": aliases,
        },
    )


def _is_tagged(value: dict[str, Any]) -> bool:
    """Whether tool responses are in tags; the first messages are skipped because the prompt explains the tags."""
    messages = value.get(message_key(value) or "")
    turns = [item.get("content") for item in messages[_FIRST_TURN:]] if isinstance(messages, list) else []
    return any(isinstance(turn, str) and "<tool_response>" in turn for turn in turns)


def _asks_for_tags(value: dict[str, Any]) -> bool:
    """Whether the first messages ask for an answer in tags: then a closing text without them is none."""
    messages = value.get(message_key(value) or "")
    asked = [item.get("content") for item in messages[:_FIRST_TURN]] if isinstance(messages, list) else []
    return any(isinstance(text, str) and "<answer>" in text for text in asked)


def _own_question(value: dict[str, Any]) -> str:
    """The row's `question` or `query`, or that of its `task` (MINT) or `inputs` (LangSmith); '' if it has none."""
    inside = [(optional_object(value, place), _QUESTION_KEYS) for place in ("task", "inputs", "input")]
    places = [(value, ("question", "query")), *inside]
    own = (place[key].strip() for place, keys in places for key in keys if isinstance(place.get(key), str))
    return next((text for text in own if text), "")


def _question(value: dict[str, Any], transcript: Transcript) -> str:
    """The row's `question`, otherwise the prompt after 'User:', otherwise a prompt that does not explain tags."""
    if own := _own_question(value):
        return own
    _, mark, question = transcript.prompt.partition(_QUESTION_MARK)
    if not mark and not any(tag in transcript.prompt for tag in _TAGS):
        question = transcript.prompt
    if not question.strip():
        raise Dropped(
            "no_question",
            "the question is empty" if mark else f"no 'question', and no {_QUESTION_MARK.strip()!r} in the prompt",
        )
    return question.strip()


def _truth(value: dict[str, Any], transcript: Transcript) -> tuple[str, str, list[str]]:
    """See find_truth; without one, the run's own answer if the row or the last observation says that it is right."""
    try:
        return find_truth(value)
    except Dropped:
        last = transcript.steps[-1:]
        is_right = says_succeeded(value) or any(_IS_RIGHT.match(step.output) for step in last)
        own = _answer(value, transcript, "")[0] if is_right else None
        if not own:
            raise
        return "", own, []


def _answer(value: dict[str, Any], transcript: Transcript, truth_key: str) -> tuple[str | None, str]:
    """The agent's own answer, None if the row has none, and the reasoning before it."""
    keys = _OWN_ANSWER_KEYS if truth_key in ("answer", "answers") else (*_OWN_ANSWER_KEYS, "answer")
    own = next((value[key] for key in keys if isinstance(value.get(key), str)), None)
    final = transcript.final
    closing = transcript.steps[-1] if transcript.steps else None
    if not final and closing and closing.tool.lower() in FINISH_TOOLS:
        final = closing.argument("answer", "final_answer", "input") or closing.output
    if "steps" in value and not final:
        return own, transcript.thoughts()
    thoughts = "\n\n".join(thought.strip() for thought in tagged(final, "think") if thought.strip())
    answer = "\n".join(tagged(final, "answer") or tagged(final, "solution")).strip()
    if not answer and not _asks_for_tags(value):
        answer = final.rpartition("</think>")[2].rpartition("Final Answer:")[2].strip()
    if not answer and own is None:
        raise Dropped(
            "no_answer", f"the last message after {len(transcript.steps)} steps is not an answer of the agent"
        )
    return answer or own, thoughts or "\n\n".join(filter(None, (transcript.thoughts(), _text_before_answer(final))))


def _text_before_answer(final: str) -> str:
    """The end of thoughts that began before the closing text, or what it says before its `<answer>`."""
    end = next((mark for mark in _THOUGHT_ENDS if mark in final), "")
    return final.partition(end)[0].replace("<thought>", "").strip() if end else ""


def _split(pages: dict[str, Page], visited: set[str]) -> tuple[tuple[Piece, ...], tuple[Piece, ...], dict[str, Any]]:
    """Evidence, distractors and notes; `visited` are the keys of the pages that the agent asked for.

    A page counts as visited if it was asked for and has a text.
    """
    read = {key for key, page in pages.items() if page.is_visited and key in visited}
    evidence = read or set(pages)
    return (
        tuple(_piece(page, "evidence") for key, page in pages.items() if key in evidence),
        tuple(_piece(page, "distractor") for key, page in pages.items() if key not in evidence),
        {"evidence_rule": "visited_pages" if read else "hits"},
    )


def _piece(page: Page, kind: Kind) -> Piece:
    text = "\n\n".join([page.url, *page.texts])
    return Piece(id=page.url, title=page.title or page.url, text=text, kind=kind)
