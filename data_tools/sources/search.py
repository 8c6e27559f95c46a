"""Search runs of the WebDancer shape: pages visited are evidence, hits never visited are distractors.

A run that visited nothing read its hits, so there the hits are the evidence; `evidence_rule` in the notes says
which rule was used. Parsing starts at the third message: the second carries the tags as instructions.
"""

from typing import Any

from acc_megatron.data_tools.jsonl import Row
from acc_megatron.data_tools.resources import Resources
from acc_megatron.data_tools.schema import Dropped, Kind, Piece, Provenance, Trajectory
from acc_megatron.data_tools.sources.answer_match import matches
from acc_megatron.data_tools.sources.fields import embedded_object, objects_of, optional_object, tagged, text_of
from acc_megatron.data_tools.sources.search_pages import Page, add_response

_QUESTION_MARK = "\nUser:"
_FIRST_TURN = 2


def recognises(value: dict[str, Any]) -> bool:
    """Whether a row has WebDancer's shape: messages of a multi-turn search, or turns with tool responses."""
    messages = value.get("messages")
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        return False
    turns = (message.get("content") for message in messages[_FIRST_TURN:])
    is_search = "search" in str(value.get("task", ""))
    return is_search or any(isinstance(turn, str) and "<tool_response>" in turn for turn in turns)


def read(row: Row, resources: Resources) -> Trajectory:
    """The run of a row whose final answer says the ground truth. Raises Dropped for any other."""
    del resources  # everything stands in the row
    messages = objects_of(row.value, "messages")
    texts = [text_of(message, "content") for message in messages]
    roles = [text_of(message, "role") for message in messages]
    if len(messages) <= _FIRST_TURN or roles[-1] != "assistant":
        raise Dropped("no_answer", f"{len(messages)} messages, the last one is not the assistant's answer")
    truth, question, final = _ground_truth(row.value), _question(texts[1]), texts[-1]
    thoughts, answer = tagged(final, "think"), "\n".join(tagged(final, "answer")).strip()
    if not answer:
        raise Dropped("no_answer", "the last message has no <answer>")
    if not matches(answer, truth):
        raise Dropped("wrong_answer", f"expected {truth!r:.200}, the run ends in {answer!r:.200}")
    pages, num_unread = _pages(roles, texts)
    evidence, distractors, notes = _split(pages, _visited(roles, texts))
    reasoning = "\n\n".join(thought.strip() for thought in thoughts if thought.strip())
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
        notes=notes | {"unread_responses": num_unread, "agent_answer": answer},
    )


def _ground_truth(value: dict[str, Any]) -> str:
    """The one string under `answer`, however deep it is nested in lists."""
    truth = value.get("answer")
    while isinstance(truth, list) and len(truth) == 1:
        truth = truth[0]
    if isinstance(truth, str) and truth.strip():
        return truth.strip()
    raise Dropped("no_ground_truth", f"'answer' must hold one string, got {truth!r:.200}")


def _question(prompt: str) -> str:
    _, mark, question = prompt.partition(_QUESTION_MARK)
    if not question.strip():
        raise Dropped(
            "no_question", f"the second message has no {_QUESTION_MARK.strip()!r}" if not mark else "it is empty"
        )
    return question.strip()


def _pages(roles: list[str], texts: list[str]) -> tuple[dict[str, Page], int]:
    """Pages by url in the order met, and the number of tool responses in a form we do not know."""
    pages: dict[str, Page] = {}
    num_unread = 0
    for role, text in list(zip(roles, texts, strict=True))[_FIRST_TURN:]:
        if role != "assistant":
            for response in tagged(text, "tool_response"):
                num_unread += not add_response(pages, response.strip())
    return pages, num_unread


def _visited(roles: list[str], texts: list[str]) -> set[str]:
    """The urls of the assistant's `visit` calls; a call that is no JSON visits nothing."""
    urls: set[str] = set()
    for role, text in list(zip(roles, texts, strict=True))[_FIRST_TURN:]:
        for call in tagged(text, "tool_call") if role == "assistant" else ():
            value = embedded_object(call)
            found = optional_object(value, "arguments").get("url") if value.get("name") == "visit" else None
            urls.update(url for url in (found if isinstance(found, list) else [found]) if isinstance(url, str))
    return urls


def _split(pages: dict[str, Page], visited: set[str]) -> tuple[tuple[Piece, ...], tuple[Piece, ...], dict[str, Any]]:
    """Evidence, distractors and notes; a page counts as visited when it was asked for and something came back."""
    if not pages:
        raise Dropped("no_evidence", "no hit and no page in any tool response")
    read = {page.url for page in pages.values() if page.is_visited and page.url in visited}
    evidence = read or set(pages)
    return (
        tuple(_piece(page, "evidence") for page in pages.values() if page.url in evidence),
        tuple(_piece(page, "distractor") for page in pages.values() if page.url not in evidence),
        {"evidence_rule": "visited_pages" if read else "hits"},
    )


def _piece(page: Page, kind: Kind) -> Piece:
    text = "\n\n".join([page.url, *page.texts])
    return Piece(id=page.url, title=page.title or page.url, text=text, kind=kind)
