"""Generates triples and trajectories to measure: equal parts of prose, Python and tables, with rare words."""

import itertools
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from acc_megatron.data_tools.tokenizer.qwen_bpe import Tokenizer

TAIL_WORDS, COMPOUND_SHARE = 12_000, 0.12


class _Words:
    """Words of the vocabulary, most of them frequent, and some pairs joined: about four characters per token."""

    def __init__(self, tokenizer: Tokenizer, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        plain = (token[1:].decode() for token in tokenizer.ranks if re.fullmatch(rb" [a-z]{2,}", token))
        self._words = np.array(list(itertools.islice(plain, TAIL_WORDS)), dtype=object)

    def take(self, count: int) -> list[str]:
        words = self._draw(count)
        joined = self.rng.random(count) < COMPOUND_SHARE
        words[joined] += self._draw(int(joined.sum()))
        return list(words)

    def _draw(self, count: int) -> np.ndarray:
        return self._words[(len(self._words) * self.rng.random(count) ** 3).astype(np.int64)]


def _prose(words: _Words) -> str:
    lines = []
    for paragraph in range(4):
        text = words.take(80)
        lines.append(f"## {text[0].title()} {text[1]}\n" if not paragraph else "")
        lines.append(f"{' '.join(text[2:40]).capitalize()}, {' '.join(text[40:])}.\n")
    return "\n".join(lines)


def _python(words: _Words) -> str:
    names, numbers = iter(words.take(60)), iter(words.rng.integers(0, 10_000, 30))
    parts = []
    for _ in range(5):
        a, b, c, d, e = (next(names) for _ in range(5))
        parts.append(
            f"def {a}_{b}({c}: int, {d}: str = {e!r}) -> list[str]:\n"
            f'    """Return the {b} of {c}."""\n'
            f"    {e} = [{d}[i : i + {next(numbers)}] for i in range({c})]\n"
            f"    if len({e}) > {next(numbers)} and {d} is not None:\n"
            f'        raise ValueError(f"{{{c}}} has no {a}")\n'
            f"    return {e}\n\n"
        )
    return "\n".join(parts)


def _table(words: _Words) -> str:
    names, numbers = words.take(40), words.rng.integers(0, 1_000_000, 40)
    rows = [f"| {i} | {names[i]} {names[-i]} | {numbers[i]} | {numbers[-i] / 100:.2f} |" for i in range(40)]
    return "\n".join(["| id | name | count | price |", "|---|---|---|---|", *rows])


GENERATORS: tuple[Callable[[_Words], str], ...] = (_prose, _python, _table)


def _texts(words: _Words, num_characters: int) -> Iterator[str]:
    """Texts of each kind in turn until their total length reaches `num_characters`."""
    generators, size = itertools.cycle(GENERATORS), 0
    while size < num_characters:
        text = next(generators)(words)
        yield text
        size += len(text)


def write_triples(
    path: Path, tokenizer: Tokenizer, num_bytes: int, *, document_bytes: int = 64_000, seed: int = 0
) -> int:
    """Write triples of about `document_bytes` each until `num_bytes` are written; return their number."""
    words, written, number = _Words(tokenizer, seed), 0, 0
    with path.open("wb") as file:
        while written < num_bytes:
            context = [
                {"id": f"p{i}", "title": f"page {i}", "text": text, "kind": "evidence" if i % 4 else "distractor"}
                for i, text in enumerate(_texts(words, document_bytes))
            ]
            row = {
                "id": f"generated-{number:07d}",
                "agent": ("search", "swe", "sql")[number % 3],
                "question": f"Which {' '.join(words.take(12))}?",
                "context": context,
                "reasoning": " ".join(words.take(400)),
                "answer": " ".join(words.take(20)),
            }
            written += file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
            number += 1
    return number


def write_trajectories(
    path: Path, tokenizer: Tokenizer, num_bytes: int, *, trajectory_bytes: int = 64_000, seed: int = 0
) -> int:
    """Write search trajectories of about `trajectory_bytes` each, one page per step; return their number."""
    words, written, number = _Words(tokenizer, seed), 0, 0
    with path.open("wb") as file:
        while written < num_bytes:
            steps = []
            for i, text in enumerate(_texts(words, trajectory_bytes)):
                page = {"url": f"https://example.org/{number}/{i}", "title": " ".join(words.take(4)), "text": text}
                thought = " ".join(words.take(10))
                steps.append({"tool": "search", "thought": thought, "input": {"query": thought}, "output": [page]})
            question, answer = f"Which {' '.join(words.take(12))}?", " ".join(words.take(3))
            row = {"id": f"run-{number:07d}", "question": question, "steps": steps, "answer": answer}
            written += file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
            number += 1
    return number
