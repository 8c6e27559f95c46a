"""From scores item by item to one number an arm and seed: shares of items, and of look-ups, that are right."""

import statistics
from collections import defaultdict
from typing import Any

DEPTHS = ("first", "second", "third", "last")  # quarters of the context

Cell = dict[str, float]  # a share by the name of its measure


def measures(scores: dict[str, list[dict[str, Any]]]) -> Cell:
    """The measures of one model.

    `retrieval/N` and `multi-hop/N`: questions over one road, and over two or three, whose every look-up and answer are
    right in N pages, each given the true text before it; `greedy/N`: all questions whose whole text is right.
    `look-up/N`: roads looked up right; `depth/N/Q`: those whose page stands in quarter Q of the context;
    `next/N`: first towns of a second or third road; `no context`: look-ups with every page taken away.
    """
    right: dict[str, list[bool]] = defaultdict(list)
    for row in scores["with_context"]:
        pages = row["pages"]
        is_right = row["answer"] and all(found for _, found in row["lookups"])
        right[f"{'retrieval' if row['hops'] == 1 else 'multi-hop'}/{pages}"].append(is_right)
        right[f"greedy/{pages}"].append(row["greedy"])
        right[f"next/{pages}"] += row["starts"][1:]
        for depth, found in row["lookups"]:
            right[f"look-up/{pages}"].append(found)
            right[f"depth/{pages}/{DEPTHS[int(depth * len(DEPTHS))]}"].append(found)
    for row in scores["without_context"]:
        right["no context"] += [found for _, found in row["lookups"]]
    return {name: sum(values) / len(values) for name, values in right.items() if values}


def over_seeds(cells: list[Cell]) -> dict[str, tuple[float, float]]:
    """Mean and sample standard deviation of every measure over seeds; one seed has the deviation 0."""
    result = {}
    for name in cells[0]:
        values = [cell[name] for cell in cells]
        result[name] = (statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0)
    return result
