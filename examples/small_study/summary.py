"""Summarizes scores: the shares of correct questions and look-ups per model, and their mean over seeds."""

import statistics
from collections import defaultdict
from typing import Any

DEPTHS = ("first", "second", "third", "last")  # quarters of the context

Cell = dict[str, float]  # measure -> share


def measures(scores: dict[str, list[dict[str, Any]]]) -> Cell:
    """The measures of one model.

    N is the number of pages. `retrieval/N` and `multi-hop/N` are the shares of questions over one road, and over two or
    three, for which every look-up and the answer are correct, each after the true text. `greedy/N` is the share of
    questions whose complete text is correct. `look-up/N` is the share of correct look-ups, `depth/N/Q` that of look-ups
    whose page is in quarter Q of the context, `next/N` that of first towns of a second or third road, and `no context`
    that of look-ups without any page.
    """
    correct: dict[str, list[bool]] = defaultdict(list)
    for row in scores["with_context"]:
        pages = row["pages"]
        is_correct = row["answer"] and all(found for _, found in row["lookups"])
        correct[f"{'retrieval' if row['hops'] == 1 else 'multi-hop'}/{pages}"].append(is_correct)
        correct[f"greedy/{pages}"].append(row["greedy"])
        correct[f"next/{pages}"] += row["starts"][1:]
        for depth, found in row["lookups"]:
            correct[f"look-up/{pages}"].append(found)
            correct[f"depth/{pages}/{DEPTHS[int(depth * len(DEPTHS))]}"].append(found)
    for row in scores["without_context"]:
        correct["no context"] += [found for _, found in row["lookups"]]
    return {name: sum(values) / len(values) for name, values in correct.items() if values}


def over_seeds(cells: list[Cell]) -> dict[str, tuple[float, float]]:
    """Mean and sample standard deviation of every measure over seeds; the deviation of one seed is 0."""
    result = {}
    for name in cells[0]:
        values = [cell[name] for cell in cells]
        result[name] = (statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0)
    return result
