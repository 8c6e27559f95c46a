"""The tokenizer of the study: byte-level BPE over its few texts, with one token per word and per fixed phrase.

A model with a few 100,000 parameters needs a small vocabulary: with the 151,936 tokens of Qwen, nearly all parameters
would be embeddings.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from pipeline import publish
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from world import EVERY_ROAD, MAX_PAGE_NUMBER, TOWNS, answer_text, question_text

INSTRUCTION = "Please reason based on the following documents and answer the question."  # as `convert` writes it

# first the fixed phrases of prompts, hits and calls; then words with their space, numbers, and the rest
PATTERN = (
    r"Please reason[^\n]*\n\n\[Document |\n\n\[Document |\] |\n+(?:road|at|Question: )"
    r'|\{"name": "[a-z]+", "arguments": \{"[a-z]+": "|"\}\}|\. \[|\]\(|\)\n| ?[a-z]+|[0-9]+|\n+|[^a-z0-9\n]'
)
CONTROL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>", "<tool_response>",
    "</tool_response>", "<think>", "</think>",
)  # fmt: skip


def write_tokenizer(folder: Path) -> None:
    """Write `folder`/tokenizer.json, for the option `--tokenizer`."""
    built = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(PATTERN), "isolated")
    built.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    built.train_from_iterator(_texts(), trainers.BpeTrainer(vocab_size=4096, min_frequency=1, show_progress=False))
    built.add_tokens(list(CONTROL))
    publish(folder / "tokenizer.json", built.to_str())


def _texts() -> Iterator[str]:
    """Every word and every fixed phrase that a document of the study can contain."""
    yield f"{INSTRUCTION}\n\n[Document 1] 2\n2\n\nroad a\n\n[Document 2] 3\n\n"
    yield "[This observation is masked.]\n\nQuestion: "
    yield f"user\n{EVERY_ROAD}\n\nall"
    yield "\n".join(map(str, range(MAX_PAGE_NUMBER + 1)))
    yield "1. [2](2)\nroad a\n2. [3](3)"
    for tool, key in (("search", "query"), ("visit", "url")):
        yield f"\n{json.dumps({'name': tool, 'arguments': {key: 'road a'}})}\n"
    for town in TOWNS:
        yield f"assistant\n\nroad {town} {town}\nroad\n\n{answer_text(town)}"
        yield question_text(town, 2)
