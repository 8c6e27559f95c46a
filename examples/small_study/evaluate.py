"""Scores exported models on the held-out questions, with one forward pass per question.

    python examples/small_study/evaluate.py --questions OUT/questions --tokenizer OUT/tokenizer EXPORT=SCORES ...

`greedy` is the result of greedy decoding: every token of reasoning and answer must be the most likely one after the
true tokens before it. The other scores do not require the output format, which not every arm was taught. They check
whether a town is the most likely token after the true text. The second town of a road is looked up in the context
(chance is one divided by the number of pages, or 1/64 without context). The first town of a road and the answer are
copied.
"""

import argparse
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from pipeline import publish
from questions import read_rows
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

BATCH_TOKENS = 16_384


@dataclass(frozen=True, slots=True)
class Question:
    """One held-out document: ids and mask `[tokens]`, and the position of each needed road in the context, 0 to 1."""

    id: str
    num_pages: int
    num_hops: int
    depths: list[float]
    ids: np.ndarray
    mask: np.ndarray


def read_questions(folder: Path, kind: str) -> list[Question]:
    """The questions of the dataset `folder`/`kind`, with the positions from `folder`/triples."""
    triples = {row["id"]: row for row in read_rows(folder / "triples" / "triples.jsonl")}
    table = pq.read_table(folder / kind / "samples.parquet", columns=["id", "tokens"]).to_pydict()
    shards = sorted((folder / kind / "shards").iterdir())
    ids = np.concatenate([np.fromfile(shard / "tokens.bin", np.int32) for shard in shards])
    mask = np.concatenate([np.fromfile(shard / "loss_mask.bin", np.uint8) for shard in shards])
    ends = np.cumsum(table["tokens"])[:-1]
    questions = []
    for name, own_ids, own_mask in zip(table["id"], np.split(ids, ends), np.split(mask, ends), strict=True):
        roads, context = triples[name]["reasoning"].splitlines(), triples[name]["context"]
        places = [next(i for i, piece in enumerate(context) if piece["text"].endswith(road)) for road in roads]
        depths = [(place + 0.5) / len(context) for place in places]
        questions.append(Question(name, len(context), len(roads), depths, own_ids, own_mask))
    return questions


def score(model: Any, questions: list[Question], road_id: int) -> list[dict[str, Any]]:
    """One row per question: pages, hops, greedy, first towns of its roads, `[depth, correct]` of look-ups, answer."""
    by_length = defaultdict(list)
    for question in questions:
        by_length[len(question.ids)].append(question)
    rows = []
    for length, group in sorted(by_length.items()):
        size = max(1, BATCH_TOKENS // length)
        for start in range(0, len(group), size):
            batch = group[start : start + size]
            with torch.inference_mode():
                ids = torch.from_numpy(np.stack([question.ids for question in batch]).astype(np.int64))
                likely = model(ids).logits[:, :-1].argmax(-1).numpy()
            is_correct = likely == ids[:, 1:].numpy()
            rows += [_row(question, correct, road_id) for question, correct in zip(batch, is_correct, strict=True)]
    return rows


def _row(question: Question, correct: np.ndarray, road_id: int) -> dict[str, Any]:
    """`correct` `[tokens - 1]`: whether each token from the second on is the most likely one."""
    supervised = np.flatnonzero(question.mask)
    # a road is three tokens, "road" and two towns; the second town is looked up in the context
    roads = [place for place in supervised if question.ids[place] == road_id]
    assert len(roads) == question.num_hops
    return {
        "pages": question.num_pages,
        "hops": question.num_hops,
        "greedy": bool(correct[supervised - 1].all()),
        "starts": [bool(correct[place]) for place in roads],
        "lookups": [[depth, bool(correct[place + 1])] for depth, place in zip(question.depths, roads, strict=True)],
        "answer": bool(correct[supervised[-2] - 1]),  # the last token is the end of the turn
    }


def main() -> None:
    """Score every model whose file of scores does not exist."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("models", nargs="+", help="EXPORT=SCORES: an exported model and the file to write")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    road_id = Tokenizer.from_file(str(arguments.tokenizer / "tokenizer.json")).token_to_id("Ċroad")
    questions = {kind: read_questions(arguments.questions, kind) for kind in ("with_context", "without_context")}
    for name in arguments.models:
        export, _, scores = name.rpartition("=")
        if not Path(scores).is_file():
            model = AutoModelForCausalLM.from_pretrained(export, local_files_only=True, dtype=torch.float32).eval()
            rows = {kind: score(model, own, road_id) for kind, own in questions.items()}
            publish(Path(scores), json.dumps(rows))
    print(json.dumps({"models": len(arguments.models)}))


if __name__ == "__main__":
    main()
