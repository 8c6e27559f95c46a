"""Trajectories of Moatless: a tree of nodes, each with thoughts, and steps of an action and its observation.

Nodes are nested under `root`, or listed under `nodes` with the ids of their parents. The run is the path from the root
to the last node that finishes, otherwise to the last node. Older versions list the states of one path under
`transitions`, each with the actions in this state.
"""

import json
from typing import Any

from acc_megatron.data_tools.conversation import Turn, agent_turn, call_text
from acc_megatron.data_tools.rows.fields import objects_in, optional_object
from acc_megatron.data_tools.schema import Trajectory
from acc_megatron.data_tools.sources.formats.log_format import FINISH_TOOLS, Fences, LogFormat, Step, Transcript

_CLASS, _ACTIONS = "action_args_class", "actions"
_THOUGHT_KEYS = ("thoughts", "scratch_pad")
_MAX_NODES = 100_000
Node = dict[str, Any]


class Moatless(LogFormat):
    """The names of actions are those of their classes; files that `ViewCode` shows count as viewed."""

    name = "Moatless trajectory"
    agent = "swe"

    def recognises(self, value: dict[str, Any]) -> bool:
        """Whether any node has an action with the class of its arguments, or any state has actions."""
        nodes = _nodes(value)
        return any(_CLASS in step["action"] or _ACTIONS in node for node, _ in nodes for step in _steps_of(node))

    def transcript(self, value: dict[str, Any], *, fences: Fences = "") -> Transcript:
        """The steps on the path; the first message of the user is the prompt."""
        path = _path(value)
        prompts = (_text(value, "initial_message"), *(_text(node, "user_message", "message") for node in path))
        prompt = next((text for text in prompts if text), "")
        steps = tuple(step for node in path for step in _steps(node))
        return Transcript(prompt=prompt, steps=steps, final="")

    def turns(self, value: dict[str, Any], trajectory: Trajectory) -> list[Turn]:
        """The prompt, and a call and an output for each step."""
        transcript = self.transcript(value)
        system = _text(optional_object(value, "agent"), "system_prompt")
        turns = [Turn(role="system", text=system)] if system else []
        turns.append(Turn(role="user", text=transcript.prompt or trajectory.question))
        for step in transcript.steps:
            turns.append(agent_turn(reasoning=step.thought, calls=(call_text(step.tool, step.arguments),)))
            turns.append(Turn(role="tool", text=step.output))
        return turns


def _nodes(value: dict[str, Any]) -> list[tuple[Node, int]]:
    """(node, index of its parent or -1) of every node, parents first; empty without nodes."""
    listed = next((value[key] for key in ("nodes", "transitions") if key in value), None)
    if isinstance(listed, list) and listed and all(isinstance(node, dict) for node in listed[:_MAX_NODES]):
        places = {node.get("node_id"): i for i, node in enumerate(listed[:_MAX_NODES])}
        parents = [node.get("parent_id", node.get("parent")) for node in listed[:_MAX_NODES]]
        return [
            (node, min(places.get(parent, i - 1), i - 1))
            for i, (node, parent) in enumerate(zip(listed, parents, strict=False))
        ]
    found: list[tuple[Node, int]] = []
    root = value.get("root")
    waiting = [(root, -1)] if isinstance(root, dict) else []
    while waiting and len(found) < _MAX_NODES:
        node, parent = waiting.pop()
        found.append((node, parent))
        children = node.get("children")
        inside = objects_in(children)
        waiting += [(child, len(found) - 1) for child in reversed(inside)]
    return found


def _path(value: dict[str, Any]) -> list[Node]:
    nodes = _nodes(value)
    finished = [i for i, (node, _) in enumerate(nodes) if any(_ends(step) for step in _steps(node))]
    place = finished[-1] if finished else len(nodes) - 1
    path = []
    while place >= 0:
        node, parent = nodes[place]
        path.append(node)
        place = parent
    return path[::-1]


def _steps_of(node: Node) -> list[dict[str, Any]]:
    """The steps with an action, also of a node that keeps its only action and output itself."""
    if isinstance(made := node.get(_ACTIONS), list):
        return [step for item in made if isinstance(item, dict) and (step := _step_in_state(node, item))]
    listed = node.get("action_steps")
    steps = listed if isinstance(listed, list) else [{"action": node.get("action"), "observation": node.get("output")}]
    return [step for step in steps if isinstance(step, dict) and isinstance(step.get("action"), dict)]


def _step_in_state(node: Node, item: dict[str, Any]) -> dict[str, Any] | None:
    """A step of an older version, which names the action and its output in two ways; None for anything else."""
    action = item.get("action", item.get("request"))
    response = optional_object(item, "response")
    output = item.get("output") or response.get("output") or response.get("retry_message")
    if not isinstance(action, dict):
        return None
    return {"action": {_CLASS: str(node.get("name", ""))} | action, "observation": output}


def _steps(node: Node) -> list[Step]:
    steps = []
    before = _text(optional_object(node, "thoughts"), "text") or _text(node, "assistant_message")
    for step in _steps_of(node):
        arguments = dict(step["action"])
        tool = str(arguments.pop(_CLASS, "")).rpartition(".")[2].removesuffix("Args")
        thoughts = [text for key in _THOUGHT_KEYS if (text := _text({key: arguments.pop(key, "")}, key))]
        files = arguments.get("files")
        viewed = files[0].get("file_path") if isinstance(files, list) and files and isinstance(files[0], dict) else None
        if tool == "ViewCode" and isinstance(viewed, str):
            tool, arguments = "view_file", arguments | {"path": viewed}
        output = _output(step.get("observation"))
        thought = "\n\n".join(dict.fromkeys([*([before] if before else []), *thoughts]))
        steps.append(Step(thought=thought, tool=tool or "action", arguments=arguments, output=output))
        before = ""
    return steps


def _output(observation: object) -> str:
    if isinstance(observation, dict) and isinstance(observation.get("message"), str):
        return observation["message"]
    return observation if isinstance(observation, str) else json.dumps(observation, ensure_ascii=False)


def _ends(step: Step) -> bool:
    return step.tool.lower() in FINISH_TOOLS


def _text(value: dict[str, Any], *keys: str) -> str:
    return next((value[key] for key in keys if isinstance(value.get(key), str)), "")
