"""One run as it is written in each layout: independent writers, which share no code with the readers."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Call:
    """One step of a run: what the agent thought, called and saw."""

    thought: str
    tool: str
    arguments: dict[str, Any]
    output: str


@dataclass(frozen=True, kw_only=True)
class Run:
    """A prompt, the steps, and the closing text."""

    prompt: str
    calls: tuple[Call, ...]
    final: str


Layout = Callable[[Run], dict[str, Any]]


def openai(run: Run) -> dict[str, Any]:
    messages: list[dict[str, Any]] = [{"role": "user", "content": run.prompt}]
    for i, call in enumerate(run.calls):
        function = {"name": call.tool, "arguments": json.dumps(call.arguments)}
        made = [{"id": f"c{i}", "type": "function", "function": function}]
        messages.append({"role": "assistant", "content": call.thought, "tool_calls": made})
        messages.append({"role": "tool", "tool_call_id": f"c{i}", "content": call.output})
    return {"messages": [*messages, {"role": "assistant", "content": run.final}]}


def openai_parts(run: Run) -> dict[str, Any]:
    row = openai(run)
    for message in row["messages"]:
        message["content"] = [{"type": "text", "text": message["content"]}]
    return {"messages": json.dumps(row["messages"])}


def openai_args(run: Run) -> dict[str, Any]:
    row = openai(run)
    for message in row["messages"]:
        for call in message.get("tool_calls", ()):
            function = call.pop("function")
            call |= {"name": function["name"], "args": json.loads(function["arguments"])}
    return row


def names_without_ids(run: Run) -> dict[str, Any]:
    row = openai(run)
    tools = iter(run.calls)
    for message in row["messages"]:
        for call in message.get("tool_calls", ()):
            del call["id"]
        if message["role"] == "tool":
            del message["tool_call_id"]
            message["name"] = next(tools).tool
    return row


def anthropic(run: Run) -> dict[str, Any]:
    messages: list[dict[str, Any]] = [{"role": "user", "content": [{"type": "text", "text": run.prompt}]}]
    for i, call in enumerate(run.calls):
        use = {"type": "tool_use", "id": f"t{i}", "name": call.tool, "input": call.arguments}
        messages.append({"role": "assistant", "content": [{"type": "text", "text": call.thought}, use]})
        result = {"type": "tool_result", "tool_use_id": f"t{i}", "content": [{"type": "text", "text": call.output}]}
        messages.append({"role": "user", "content": [result]})
    return {"messages": [*messages, {"role": "assistant", "content": [{"type": "text", "text": run.final}]}]}


def sharegpt(run: Run) -> dict[str, Any]:
    turns = [{"from": "human", "value": run.prompt}]
    for call in run.calls:
        made = json.dumps({"name": call.tool, "arguments": call.arguments})
        turns.append({"from": "gpt", "value": f"{call.thought}\n<tool_call>\n{made}\n</tool_call>".strip()})
        turns.append({"from": "observation", "value": call.output})
    return {"conversations": [*turns, {"from": "gpt", "value": run.final}]}


def langchain(run: Run) -> dict[str, Any]:
    messages: list[dict[str, Any]] = [{"type": "human", "data": {"content": run.prompt}}]
    for i, call in enumerate(run.calls):
        made = [{"name": call.tool, "args": call.arguments, "id": f"l{i}", "type": "tool_call"}]
        messages.append({"type": "ai", "data": {"content": call.thought, "tool_calls": made}})
        messages.append({"type": "tool", "data": {"content": call.output, "tool_call_id": f"l{i}"}})
    return {"messages": [*messages, {"type": "ai", "data": {"content": run.final}}]}


def responses(run: Run) -> dict[str, Any]:
    items: list[dict[str, Any]] = [{"role": "user", "content": run.prompt}]
    for i, call in enumerate(run.calls):
        items.append({"type": "reasoning", "summary": [{"type": "summary_text", "text": call.thought}]})
        arguments = json.dumps(call.arguments)
        items.append({"type": "function_call", "call_id": f"r{i}", "name": call.tool, "arguments": arguments})
        items.append({"type": "function_call_output", "call_id": f"r{i}", "output": call.output})
    text = {"type": "output_text", "text": run.final}
    return {"messages": [*items, {"type": "message", "role": "assistant", "content": [text]}]}


MESSAGE_LAYOUTS: dict[str, Layout] = {
    "openai": openai, "parts": openai_parts, "args": openai_args, "names": names_without_ids, "anthropic": anthropic,
    "sharegpt": sharegpt, "langchain": langchain, "responses": responses,
}  # fmt: skip


def executor(run: Run) -> dict[str, Any]:
    """The result of LangChain's AgentExecutor."""
    pairs = [
        [{"tool": call.tool, "tool_input": call.arguments, "log": f"{call.thought}\nAction: {call.tool}"}, call.output]
        for call in run.calls
    ]
    return {"input": run.prompt, "output": run.final, "intermediate_steps": pairs}


def smolagents(run: Run) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"task": run.prompt}]
    for i, call in enumerate(run.calls):
        made = [{"id": f"s{i}", "name": call.tool, "arguments": call.arguments}]
        steps.append({"step_number": i, "model_output": call.thought, "tool_calls": made, "observations": call.output})
    closing = [{"id": "end", "name": "final_answer", "arguments": {"answer": run.final}}]
    steps.append({"step_number": 99, "model_output": "", "tool_calls": closing, "observations": run.final})
    return {"intermediate_steps": steps}


def react(run: Run) -> dict[str, Any]:
    parts = [f"Question: {run.prompt}"]
    for i, call in enumerate(run.calls, start=1):
        given = json.dumps(call.arguments)
        parts.append(f"Thought {i}: {call.thought}\nAction {i}: {call.tool}\nAction Input {i}: {given}")
        parts.append(f"Observation {i}: {call.output}")
    return {"prompt": "\n".join([*parts, f"Final Answer: {run.final}"])}


def plain_steps(run: Run) -> dict[str, Any]:
    """`question`, `steps` and the agent's own answer."""
    steps = [
        {"thought": call.thought, "tool": call.tool, "input": call.arguments, "output": call.output}
        for call in run.calls
    ]
    return {"question": run.prompt, "steps": steps, "prediction": run.final}
