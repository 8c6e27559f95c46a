"""Documents as rows of `messages`, on which TRL, axolotl and ms-swift train without a preparation of their own.

Reasoning and tool calls are part of the content, as Qwen3 writes them. Every message therefore has only a role and a
content, whatever the arguments of a call are, and the official chat template of Qwen3 renders a row to the tokens that
`convert` writes.
"""

import json
from typing import Any

from acc_megatron.data_tools.conversation import Conversation, Turn
from acc_megatron.data_tools.convert.render import exchange, user_content
from acc_megatron.data_tools.schema import Triple


def messages_row(document: Triple | Conversation) -> dict[str, Any]:
    """The row of a document: `id`, `agent`, `messages`, and `tools` as the JSON text of a list, or null."""
    if isinstance(document, Triple):
        user = user_content(document.question, document.context)
        turns = exchange(user, document.reasoning, document.answer)
    else:
        turns = document.turns
    tools = [json.loads(tool) for turn in turns for tool in turn.tools]
    return {
        "id": document.id,
        "agent": document.agent,
        "messages": [_message(turn, is_last=turn is turns[-1]) for turn in turns if turn.text or not turn.tools],
        "tools": json.dumps(tools, ensure_ascii=False) if tools else None,
    }


def _message(turn: Turn, *, is_last: bool) -> dict[str, str]:
    calls = "\n".join(f"<tool_call>\n{call}\n</tool_call>" for call in turn.tool_calls)
    content = "\n".join(part for part in (turn.text, calls) if part)
    if turn.role == "assistant" and (turn.reasoning or is_last):
        reasoning = turn.reasoning.strip("\n")
        content = f"<think>\n{reasoning}\n</think>\n\n{content.lstrip(chr(10))}"
    return {"role": turn.role, "content": content}
