"""Trajectories of a scripted search agent as OpenAI tool-call messages, which `acc-megatron compile` reads.

The agent goes from town to town. For each road it searches, gets a list of hits that includes the page it needs, visits
that page and notes its road. At the end it repeats the roads and answers. The visited pages are evidence, the other
hits are distractors.
"""

import json
import random
from typing import Any

from world import World, answer_text, draw_world, question_text, reasoning_text, road_text


def draw_trajectory(rng: random.Random, num_pages: int, num_hops: int) -> dict[str, Any]:
    """One trajectory in a new world; each page of the world is a hit of exactly one search."""
    world = draw_world(rng, num_pages)
    path = world.path(rng.choice(sorted(world.roads)), num_hops)
    messages: list[dict[str, Any]] = [{"role": "user", "content": question_text(path[0], num_hops)}]
    thought = ""
    for hop, hits in enumerate(_hits(rng, world, path)):
        town = path[hop]
        messages += _call(2 * hop, thought, "search", {"query": f"road {town}"}, _listing(world, hits))
        page = str(world.page_of[town])
        thought = road_text(town, path[hop + 1])
        messages += _call(2 * hop + 1, "", "visit", {"url": page}, thought)
    closing = f"<think>\n{reasoning_text(path)}\n</think>\n<answer>\n{answer_text(path[-1])}\n</answer>"
    messages.append({"role": "assistant", "content": closing})
    return {
        "question": question_text(path[0], num_hops),
        "messages": messages,
        "ground_truth": answer_text(path[-1]),
        "num_hops": num_hops,
        "num_pages": num_pages,
    }


def _hits(rng: random.Random, world: World, path: list[str]) -> list[list[str]]:
    """For each search the towns whose pages it lists: the needed one and a part of those that are never visited."""
    num_hops = len(path) - 1
    others = [town for town in world.roads if town not in path[:-1]]
    lists = []
    for hop in range(num_hops):
        hits = [path[hop], *others[hop::num_hops]]
        rng.shuffle(hits)
        lists.append(hits)
    return lists


def _listing(world: World, towns: list[str]) -> str:
    lines = []
    for number, town in enumerate(towns, start=1):
        page = world.page_of[town]
        lines.append(f"{number}. [{page}]({page})\n{road_text(town, world.roads[town])}")
    return "\n".join(lines)


def _call(number: int, thought: str, tool: str, arguments: dict[str, str], output: str) -> list[dict[str, Any]]:
    function = {"name": tool, "arguments": json.dumps(arguments)}
    request = {"role": "assistant", "content": "", "tool_calls": [{"id": f"c{number}", "function": function}]}
    if thought:
        request["reasoning_content"] = thought
    return [request, {"role": "tool", "tool_call_id": f"c{number}", "content": output}]
