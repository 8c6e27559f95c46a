"""From scores item by item to one number an arm and seed: shares of items, and of look-ups, that are right."""

import statistics
from collections import defaultdict
from typing import Any

DEPTHS = ("first", "second", "third", "last")  # quarters of the context

Cell = dict[str, float]  # a share by the name of its measure


def measures(scores: dict[str, list[dict[str, Any]]]) -> Cell:
    """The measures of one model.

    `retrieval/N` and `multi-hop/N`: exact answers over one road and over two or three, in N pages. `look-up/N`: roads
    looked up right given the true text so far; `depth/N/Q` of those whose page stands in quarter Q of the context.
    `no context`: look-ups with every page taken away.
    """
    right: dict[str, list[bool]] = defaultdict(list)
    for row in scores["with_context"]:
        pages = row["pages"]
        right[f"{'retrieval' if row['hops'] == 1 else 'multi-hop'}/{pages}"].append(row["exact"])
        for depth, is_right in row["lookups"]:
            right[f"look-up/{pages}"].append(is_right)
            right[f"depth/{pages}/{DEPTHS[int(depth * len(DEPTHS))]}"].append(is_right)
    for row in scores["without_context"]:
        right["no context"] += [is_right for _, is_right in row["lookups"]]
    return {name: sum(values) / len(values) for name, values in right.items()}


def over_seeds(cells: list[Cell]) -> dict[str, tuple[float, float]]:
    """Mean and sample standard deviation of every measure over seeds; one seed has the deviation 0."""
    result = {}
    for name in cells[0]:
        values = [cell[name] for cell in cells]
        result[name] = (statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0)
    return result
