"""A world of towns and roads: what a document says, what a question asks, and what a full answer reads like.

Every document draws a fresh world: `num_pages` towns, each with one road, and the roads form one random permutation.
So each town is as likely as any other to lie behind a road, and only the context of a question can answer it.
"""

import random
from dataclasses import dataclass

SYLLABLES = ("ka", "mi", "to", "re", "su", "no", "la", "pe")
TOWNS = tuple(first + second for first in SYLLABLES for second in SYLLABLES)  # 64
MAX_PAGE_NUMBER = 99  # pages are known by a number, drawn anew for every world
EVERY_ROAD = "every road"  # the base's question


@dataclass(frozen=True, slots=True)
class World:
    """Roads by the town they leave, in a random order, and the number of the page that each stands on."""

    roads: dict[str, str]
    page_of: dict[str, int]

    def path(self, start: str, num_hops: int) -> list[str]:
        """The towns from `start` over `num_hops` roads, both ends included."""
        towns = [start]
        for _ in range(num_hops):
            towns.append(self.roads[towns[-1]])
        return towns


def draw_world(rng: random.Random, num_pages: int) -> World:
    """A world of `num_pages` towns whose roads are one cycle through all of them: no path meets a town twice."""
    cycle = rng.sample(TOWNS, num_pages)
    roads = dict(zip(cycle, cycle[1:] + cycle[:1], strict=True))
    order = rng.sample(cycle, num_pages)
    pages = rng.sample(range(1, MAX_PAGE_NUMBER + 1), num_pages)
    return World({town: roads[town] for town in order}, dict(zip(order, pages, strict=True)))


def road_text(start: str, end: str) -> str:
    """What a page says, and what a thought repeats."""
    return f"road {start} {end}"


def question_text(start: str, num_hops: int) -> str:
    """What is asked: where so many roads from a town lead."""
    return f"{num_hops} roads from {start}"


def reasoning_text(path: list[str]) -> str:
    """The roads of a path, one a line."""
    return "\n".join(road_text(start, end) for start, end in zip(path, path[1:], strict=False))


def answer_text(town: str) -> str:
    """The answer."""
    return f"at {town}"
