"""The GraphWalks grader: set F1, precision and recall, by the dataset card's strict rule and by a flexible one."""

import re
from collections.abc import Iterable

from acc_megatron.evaluate.benchmarks.question import strip_thinking

METRICS = ("f1", "precision", "recall", "flexible_f1", "flexible_precision", "flexible_recall")
# published as `Final Answer: ?\[.*\]`; the closing bracket is searched from the end, in linear time for any text
_FINAL_ANSWER = re.compile(r"Final Answer: ?\[")
_FLEXIBLE_ANSWER = re.compile(r"final answer[\s:(]*(?:is\b[\s:(]*)?\[([^\[\]]*)\]", re.IGNORECASE)
_MARKUP = re.compile(r"\\[\[\]()]|\\(?:boxed|text\w*|math\w+|left|right)|[*`$\\{}]")  # Markdown and LaTeX


def grade(response: str, answer_nodes: Iterable[str]) -> dict[str, float]:
    """Set F1, precision and recall: strict (only the last line counts) and flexible (the last answer anywhere).

    The strict rule is the dataset card's: the last line must contain `Final Answer: [...]`; trailing white space is not
    a line. The flexible rule takes the last answer in the text, as lm-eval's `flexible_f1` does, and ignores mere form:
    Markdown and LaTeX around it, the case of the two words, a list over several lines, and quotes around nodes. A
    missing answer scores 0, also where no node is expected. Two empty sets score 1 (lm-eval gives 0), disjoint ones 0
    (the card's literal `else 1` gives 1). Thinking is removed first.
    """
    expected = set(answer_nodes)
    text = strip_thinking(response).rstrip()
    strict = _strict_answer(text.rpartition("\n")[2])
    flexible = _flexible_answer(text)
    return _set_scores(strict, expected) | {f"flexible_{k}": v for k, v in _set_scores(flexible, expected).items()}


def _strict_answer(line: str) -> set[str] | None:
    opened, end = _FINAL_ANSWER.search(line), line.rfind("]")
    return _nodes(line[opened.end() : end]) if opened and opened.end() <= end else None


def _flexible_answer(text: str) -> set[str] | None:
    found = _FLEXIBLE_ANSWER.findall(_MARKUP.sub("", text))
    return {node.strip("'\"") for node in _nodes(found[-1])} if found else None


def _nodes(listed: str) -> set[str]:
    return {node.strip() for node in listed.split(",") if node.strip()}


def _set_scores(found: set[str] | None, expected: set[str]) -> dict[str, float]:
    if found is None:
        return {"f1": 0.0, "precision": 0.0, "recall": 0.0}
    if not found and not expected:
        return {"f1": 1.0, "precision": 1.0, "recall": 1.0}
    overlap = len(found & expected)
    precision = overlap / len(found) if found else 0.0
    recall = overlap / len(expected) if expected else 0.0
    f1 = 2 * precision * recall / (precision + recall) if overlap else 0.0
    return {"f1": f1, "precision": precision, "recall": recall}
