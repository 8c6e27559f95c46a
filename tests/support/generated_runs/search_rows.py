"""Generated search runs."""

import json
import random
from typing import Any

from support.generated_runs.layouts import (
    MESSAGE_LAYOUTS,
    Call,
    Layout,
    Run,
    executor,
    plain_steps,
    react,
    smolagents,
)
from support.generated_runs.made import Made

LAYOUTS: dict[str, Layout] = MESSAGE_LAYOUTS | {
    "executor": executor, "smolagents": smolagents, "react": react, "steps": plain_steps,
}  # fmt: skip
_NAMES = "Mara Lind, Jon Berg, Ute Okafor, Ivo Tanaka, Lea Moreau, Pia Novak, Amir Haddad, Noor Silva".split(", ")
_TRUTHS = ("answer", "golden_answers", "ground_truth", "gt", "true_answer", "reward_model")
_IMAGE = f"![x](data:image/png;base64,iVBORw0KGgo{'QUJD' * 30})"
FAULTS = ("", "", "", "", "wrong", "no truth", "failed", "silent", "notices", "two questions", "image")


def truth_fields(key: str, truth: str) -> dict[str, Any]:
    if key == "reward_model":
        return {key: {"ground_truth": {"target": [truth]}, "style": "rule"}}
    return {key: [truth]} if key == "golden_answers" else {key: truth}


def search_row(number: int, chosen: random.Random) -> Made:
    layout, fault = chosen.choice(list(LAYOUTS)), chosen.choice(FAULTS)
    truth, other = chosen.sample(_NAMES, 2)
    question = f"Who built tower {number}?"
    hits = [
        {
            "url": f"https://site{i}.example/{number}",
            "title": f"Tower {number}.{i}",
            "snippet": f"Snippet {i} of {number}.",
        }
        for i in range(chosen.randint(1, 3))
    ]
    thoughts = ["", ""] if fault == "silent" else [f"I search tower {number}.", f"I read page {number}."]
    image = _IMAGE if fault == "image" else ""
    outputs = [json.dumps({"results": hits}), f"{image}The page says that {truth} built tower {number}."]
    if fault == "notices":
        outputs = ["No results found.", "Error: 404 not found"]
    calls = [Call(thought=thoughts[0], tool="search", arguments={"query": f"tower {number}"}, output=outputs[0])]
    is_visiting = chosen.random() < 0.6
    if is_visiting:
        calls.append(Call(thought=thoughts[1], tool="visit", arguments={"url": hits[0]["url"]}, output=outputs[1]))
    run = Run(prompt=question, calls=tuple(calls), final=other if fault == "wrong" else truth)
    row = LAYOUTS[layout](run)
    row |= {} if fault == "no truth" else truth_fields(chosen.choice(_TRUTHS), truth)
    reason = {
        "wrong": "wrong_answer", "no truth": "no_ground_truth", "failed": "wrong_answer", "silent": "empty_reasoning",
        "notices": "no_evidence",
    }.get(fault, "")  # fmt: skip
    if fault == "failed":
        row |= chosen.choice([{"success": False}, {"reward": 0.0}, {"info": {"correct": "no"}}, {"status": "failed"}])
    if fault == "two questions" and layout in ("openai", "args", "names"):
        earlier = LAYOUTS[layout](Run(prompt="Who built the bridge?", calls=tuple(calls[:1]), final="Nobody."))
        row["messages"] = earlier["messages"] + row["messages"]
        reason = "several_questions"
    text = outputs[1].removeprefix(_IMAGE) if is_visiting else ""
    evidence = {hits[0]["url"]: text} if is_visiting else {hit["url"]: hit["snippet"] for hit in hits}
    return Made(
        name=f"search {layout} {fault}",
        row=row,
        question=question,
        evidence=evidence,
        reasoning="\n\n".join(call.thought for call in calls if call.thought),
        answer=truth,
        reason=reason,
    )
