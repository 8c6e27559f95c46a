"""Runs with calls and outputs in the tags of one text: Search-R1, ReSearch, R1-Searcher and Search-o1."""

from dataclasses import dataclass
from typing import Any

Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RunTags:
    """The tags around a query, and the tags around its documents."""

    query: tuple[str, str]
    documents: tuple[str, str]

    def are_in(self, text: str) -> bool:
        """Whether a text contains a query with its documents after it."""
        start = text.find(self.query[0])
        return start >= 0 and text.find(self.documents[0], start) >= 0


RUN_TAGS = (
    RunTags(("<search>", "</search>"), ("<information>", "</information>")),  # Search-R1
    RunTags(("<search>", "</search>"), ("<result>", "</result>")),  # ReSearch
    RunTags(("<search>", "</search>"), ("<observation>", "</observation>")),
    RunTags(("<search>", "</search>"), ("<documents>", "</documents>")),
    RunTags(("<query>", "</query>"), ("<result>", "</result>")),
    RunTags(("<query>", "</query>"), ("<information>", "</information>")),
    RunTags(("<|begin_of_query|>", "<|end_of_query|>"), ("<|begin_of_documents|>", "<|end_of_documents|>")),
    RunTags(("<|begin_search_query|>", "<|end_search_query|>"), ("<|begin_search_result|>", "<|end_search_result|>")),
)


# a run of several turns keeps the markup of its chat template around the documents
REPLY_MARKS = ("<|im_start|>assistant\n", "<|start_header_id|>assistant<|end_header_id|>\n")
_END_MARKS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "</s>")


def tags_of(text: str) -> RunTags | None:
    """The first kind of tags that a text uses for a query and its documents."""
    return next((tags for tags in RUN_TAGS if tags.are_in(text)), None)


def messages_of_tagged_run(text: str) -> list[Message]:
    """A text as OpenAI messages: text with a call of `search`, documents, ..., and the closing text.

    A query without documents, and documents without a query, stay part of the text of their message.
    """
    tags = tags_of(text)
    messages: list[Message] = []
    position = 0
    while tags and (start := text.find(tags.query[0], position)) >= 0:
        end = text.find(tags.query[1], start)
        opening = text.find(tags.documents[0], end) if end >= 0 else -1
        closing = text.find(tags.documents[1], opening) if opening >= 0 else -1
        if closing < 0:
            break
        # a query that the search engine did not answer belongs to the text before the next one
        start = text.rfind(tags.query[0], start, opening)
        query = text[start + len(tags.query[0]) :].partition(tags.query[1])[0]
        call = {"function": {"name": "search", "arguments": {"query": query.strip()}}}
        before = _without_open_thought(_reply(text[position:start]))
        messages.append({"role": "assistant", "content": before.strip(), "tool_calls": [call]})
        documents = text[opening + len(tags.documents[0]) : closing].strip()
        messages.append({"role": "tool", "content": documents})
        position = closing + len(tags.documents[1])
    return [*messages, {"role": "assistant", "content": _reply(text[position:]).strip()}]


def _reply(text: str) -> str:
    """What the agent says in a part of a run, without what the environment says before it and without end marks."""
    for mark in REPLY_MARKS:
        text = text.rpartition(mark)[2]
    for mark in _END_MARKS:
        text = text.replace(mark, "")
    return text


def _without_open_thought(text: str) -> str:
    """A text without a last `<think>` that ends only after a later query."""
    start = text.rfind("<think>")
    is_open = start >= 0 and text.find("</think>", start) < 0
    return text[:start] + text[start + len("<think>") :] if is_open else text


def with_tagged_runs(messages: list[Message]) -> list[Message]:
    """Messages in which the only reply of the agent, if it is a whole run in tags, is replaced by its messages."""
    replies = [number for number, message in enumerate(messages) if message.get("role") == "assistant"]
    content = messages[replies[0]].get("content") if len(replies) == 1 else None
    if not isinstance(content, str) or messages[replies[0]].get("tool_calls") or tags_of(content) is None:
        return messages
    return [*messages[: replies[0]], *messages_of_tagged_run(content), *messages[replies[0] + 1 :]]
