"""Tools that the model's provider runs: Anthropic puts their calls and results into the agent's own message."""

import json
from typing import Any

from acc_megatron.data_tools.rows.fields import objects_in
from acc_megatron.data_tools.sources.formats.content import text_of_parts

_USE, _RESULT = "_tool_use", "_tool_result"  # `server_tool_use`, `mcp_tool_use`; `web_search_tool_result`, ...


def without_server_tools(message: dict[str, Any]) -> list[dict[str, Any]]:
    """The message, or the messages that an agent, its own tools and again the agent would have written."""
    content = message.get("content")
    parts = objects_in(content)
    if not any(str(part.get("type")).endswith(_RESULT) and part["type"] != "tool_result" for part in parts):
        return [message]
    cited = _cited_texts(parts)
    messages: list[dict[str, Any]] = []
    said: list[dict[str, Any]] = []
    for part in parts:
        kind = str(part.get("type"))
        if kind.endswith(_RESULT):
            result = {"type": "tool_result", "tool_use_id": part.get("tool_use_id"), "content": _output(part, cited)}
            messages += [message | {"content": said}] if said else []
            messages.append({"role": "user", "content": [result]})
            said = []
        elif kind == "text" and said and said[-1].get("type") == "text":  # a text is cut where a citation begins
            said[-1] = {"type": "text", "text": f"{said[-1].get('text', '')}{part.get('text', '')}"}
        else:
            said.append(part | {"type": "tool_use"} if kind.endswith(_USE) else part)
    return [*messages, message | {"content": said}] if said else messages


def _cited_texts(parts: list[dict[str, Any]]) -> dict[str, list[str]]:
    """URL -> texts that the agent cites from it; the text of a search result is encrypted."""
    cited: dict[str, list[str]] = {}
    for part in parts:
        found = part.get("citations")
        for citation in found if isinstance(found, list) else []:
            if isinstance(citation, dict) and isinstance(citation.get("cited_text"), str):
                cited.setdefault(str(citation.get("url")), []).append(citation["cited_text"])
    return cited


def _output(part: dict[str, Any], cited: dict[str, list[str]]) -> object:
    content = part.get("content")
    items = content if isinstance(content, list) else [content]
    found = [_page(item, cited) for item in items if isinstance(item, dict) and isinstance(item.get("url"), str)]
    if found:
        return json.dumps(found if isinstance(content, list) else found[0], ensure_ascii=False)
    if isinstance(content, dict) and "error_code" in content:
        return f"Error: {content['error_code']}"
    return text_of_parts(content)


def _page(item: dict[str, Any], cited: dict[str, list[str]]) -> dict[str, Any]:
    """URL, title and text of a search result or of a fetched page."""
    document: Any = item.get("content")
    document = document if isinstance(document, dict) else {}
    source = document.get("source")
    text = source.get("data") if isinstance(source, dict) and source.get("type") == "text" else None
    title = item.get("title") or document.get("title")
    return {
        "url": item["url"],
        "title": title,
        "content": text or "\n\n".join(dict.fromkeys(cited.get(item["url"], []))),
    }
