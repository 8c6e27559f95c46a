"""A world of towns and roads, and the texts of its pages, questions, reasoning and answers.

Every document has a new random world: `num_pages` towns, each with one road to another town. Each town is equally
likely to be the end of a road, so a question can only be answered from its context.
"""

import random
from dataclasses import dataclass

SYLLABLES = ("ka", "mi", "to", "re", "su", "no", "la", "pe")
TOWNS = tuple(first + second for first in SYLLABLES for second in SYLLABLES)  # 64
MAX_PAGE_NUMBER = 99  # each world draws new page numbers
EVERY_ROAD = "every road"  # the question of the base model


@dataclass(frozen=True, slots=True)
class World:
    """`roads` maps a town to the town at the end of its road; `page_of` maps a town to the page with its road."""

    roads: dict[str, str]
    page_of: dict[str, int]

    def path(self, start: str, num_hops: int) -> list[str]:
        """The towns from `start` over `num_hops` roads, both ends included."""
        towns = [start]
        for _ in range(num_hops):
            towns.append(self.roads[towns[-1]])
        return towns


def draw_world(rng: random.Random, num_pages: int) -> World:
    """Draw a world of `num_pages` towns whose roads form one cycle, so that no path visits a town twice."""
    cycle = rng.sample(TOWNS, num_pages)
    roads = dict(zip(cycle, cycle[1:] + cycle[:1], strict=True))
    order = rng.sample(cycle, num_pages)
    pages = rng.sample(range(1, MAX_PAGE_NUMBER + 1), num_pages)
    return World({town: roads[town] for town in order}, dict(zip(order, pages, strict=True)))


def road_text(start: str, end: str) -> str:
    """The text of a page, which thoughts repeat."""
    return f"road {start} {end}"


def question_text(start: str, num_hops: int) -> str:
    """The question: where does a path of `num_hops` roads from `start` end?"""
    return f"{num_hops} roads from {start}"


def reasoning_text(path: list[str]) -> str:
    """The roads of a path, one per line."""
    return "\n".join(road_text(start, end) for start, end in zip(path, path[1:], strict=False))


def answer_text(town: str) -> str:
    """The answer."""
    return f"at {town}"
