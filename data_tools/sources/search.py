"""Search runs: pages visited are evidence, hits never visited are distractors.

A run that visited nothing read its hits, so there the hits are the evidence; `evidence_rule` in the notes says
which rule was used. Layouts: WebDancer and other chats with calls in the text, OpenAI tool calls, and generic
{question, steps, answer}. The truth is the row's `ground_truth`, `gold_answer`, `gold`, `label` or first of
`golden_answers`, else its `answer`; the other golden answers and its `answer_aliases` count as well.
The agent's own answer is its closing text; where the row keeps none, it counts as verified by whoever wrote the row.
"""

from typing import Any

from acc_megatron.data_tools.jsonl import Row
from acc_megatron.data_tools.resources import Resources
from acc_megatron.data_tools.schema import Dropped, Kind, Piece, Provenance, Trajectory
from acc_megatron.data_tools.sources.answer_match import matches
from acc_megatron.data_tools.sources.fields import tagged
from acc_megatron.data_tools.sources.search_pages import Page, add_output, page_key, tool_kind, visited_urls
from acc_megatron.data_tools.sources.swe_steps import is_swe_run
from acc_megatron.data_tools.sources.transcript import (
    Transcript,
    has_transcript,
    message_key,
    tool_names,
    transcript_of,
)
from acc_megatron.data_tools.sources.verdict import says_failed, says_succeeded

_QUESTION_MARK = "\nUser:"
_FIRST_TURN = 2
_TAGS = ("<tool_call>", "<tool_response>")
_TRUTH_KEYS = ("ground_truth", "gold_answer", "gold", "label", "golden_answers")
_ALIAS_KEYS = ("golden_answers", "answer_aliases")  # lists of which any will do
_OWN_ANSWER_KEYS = ("prediction", "final_answer", "predicted_answer", "model_answer")
_FINISH_TOOLS = {"finish", "final_answer", "answer", "submit"}


def recognises(value: dict[str, Any]) -> bool:
    """Whether a row is a search run: by its task, its tagged tool responses, or the names of its tools."""
    if not has_transcript(value):
        return False
    if "search" in str(value.get("task", ""))[:200] and "messages" in value:
        return True
    return not is_swe_run(value) and (_is_tagged(value) or any(tool_kind(name) for name in tool_names(value)))


def read(row: Row, resources: Resources) -> Trajectory:
    """The run of a row whose final answer says the ground truth. Raises Dropped for any other."""
    del resources  # everything stands in the row
    transcript = transcript_of(row.value)
    truth_key = next((key for key in _TRUTH_KEYS if row.value.get(key) is not None), "answer")
    truth, question = _truth(row.value, truth_key), _question(row.value, transcript)
    aliases = _aliases(row.value, truth)
    answer, reasoning = _answer(row.value, transcript, truth_key)
    if says_failed(row.value):
        raise Dropped("wrong_answer", "the row says that the run failed")
    if answer is not None and not any(matches(answer, said) for said in (truth, *aliases)):
        raise Dropped("wrong_answer", f"expected {truth!r:.200}, the run ends in {answer!r:.200}")
    pages: dict[str, Page] = {}
    known = [add_output(pages, step) for step in transcript.steps if step.output.strip()]
    asked_for = {page_key(url) for step in transcript.steps for url in visited_urls(step)}
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
        notes=notes | {"unread_responses": known.count(False), "agent_answer": answer, "aliases": aliases},
    )


def _is_tagged(value: dict[str, Any]) -> bool:
    """Whether tool responses stand in tags; such a run's prompt carries the tags as instructions."""
    messages = value.get(message_key(value) or "")
    turns = [item.get("content") for item in messages[_FIRST_TURN:]] if isinstance(messages, list) else []
    return any(isinstance(turn, str) and "<tool_response>" in turn for turn in turns)


def _truth(value: dict[str, Any], key: str) -> str:
    """The one string or number under a key, however deep it is nested in lists; the first of several aliases."""
    truth = value.get(key)
    while isinstance(truth, list) and (len(truth) == 1 or (truth and key in _ALIAS_KEYS)):
        truth = truth[0]
    if isinstance(truth, int | float) and not isinstance(truth, bool):
        truth = str(truth)
    if isinstance(truth, str) and truth.strip():
        return truth.strip()
    raise Dropped("no_ground_truth", f"{key!r} must hold one string, got {truth!r:.200}")


def _aliases(value: dict[str, Any], truth: str) -> list[str]:
    """Other answers that the row takes for right."""
    lists = [found for key in _ALIAS_KEYS if isinstance(found := value.get(key), list)]
    texts = [text.strip() for found in lists for text in found if isinstance(text, str) and text.strip()]
    return [text for text in dict.fromkeys(texts) if text != truth]


def _question(value: dict[str, Any], transcript: Transcript) -> str:
    """The row's own `question`, else what follows 'User:' in the prompt, else the prompt if it is no manual."""
    own = value.get("question")
    if isinstance(own, str) and own.strip():
        return own.strip()
    _, mark, question = transcript.prompt.partition(_QUESTION_MARK)
    if not mark and not any(tag in transcript.prompt for tag in _TAGS):
        question = transcript.prompt
    if not question.strip():
        raise Dropped(
            "no_question", "it is empty" if mark else f"no 'question', and no {_QUESTION_MARK.strip()!r} in the prompt"
        )
    return question.strip()


def _answer(value: dict[str, Any], transcript: Transcript, truth_key: str) -> tuple[str | None, str]:
    """The agent's own answer, None where the row keeps none, and the reasoning before it."""
    keys = _OWN_ANSWER_KEYS if truth_key == "answer" else (*_OWN_ANSWER_KEYS, "answer")
    own = next((value[key] for key in keys if isinstance(value.get(key), str)), None)
    final = transcript.final
    closing = transcript.steps[-1] if transcript.steps else None
    if not final and closing and closing.tool.lower() in _FINISH_TOOLS:
        final = closing.argument("answer", "final_answer", "input") or closing.output
    if "steps" in value and not final:
        return own, transcript.thoughts()
    thoughts = "\n\n".join(thought.strip() for thought in tagged(final, "think") if thought.strip())
    answer = "\n".join(tagged(final, "answer")).strip()
    if not answer and not _is_tagged(value) and "search" not in str(value.get("task", ""))[:200]:
        answer = final.rpartition("</think>")[2].rpartition("Final Answer:")[2].strip()
    if not answer and own is None:
        raise Dropped("no_answer", f"after {len(transcript.steps)} steps the last message is no answer of the agent")
    return answer or own, thoughts or transcript.thoughts()


def _split(pages: dict[str, Page], visited: set[str]) -> tuple[tuple[Piece, ...], tuple[Piece, ...], dict[str, Any]]:
    """Evidence, distractors and notes, from pages and the keys of those asked for.

    A page counts as visited when it was asked for and something came back.
    """
    if not pages:
        raise Dropped("no_evidence", "no hit and no page in any tool response")
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
