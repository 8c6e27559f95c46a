"""Scores of exported models on the held-out items, from one forward pass an item, in a process of its own.

    python examples/small_study/evaluate.py --items OUT/items --tokenizer OUT/tokenizer EXPORT=SCORES ...

`greedy` is what greedy decoding gives: every token of reasoning and answer is the most likely one after the true tokens
before it, and a first wrong token is where decoding would leave the truth. The others forgive the form, which not every
arm was taught: given the true text so far, is a town the most likely token? A road's second town is looked up in the
context, where chance is one in its pages (one in 64 without it); its first is copied, as is the answer.
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
from items import read_rows
from road import publish
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

BATCH_TOKENS = 16_384


@dataclass(frozen=True, slots=True)
class Item:
    """One held-out document: ids and mask `[tokens]`, and where in the context each road of its path stands, 0 to 1."""

    id: str
    num_pages: int
    num_hops: int
    depths: list[float]
    ids: np.ndarray
    mask: np.ndarray


def read_items(folder: Path, kind: str) -> list[Item]:
    """The items of a dataset folder `kind` beside the triples they come from."""
    triples = {row["id"]: row for row in read_rows(folder / "triples" / "triples.jsonl")}
    table = pq.read_table(folder / kind / "samples.parquet", columns=["id", "tokens"]).to_pydict()
    shards = sorted((folder / kind / "shards").iterdir())
    ids = np.concatenate([np.fromfile(shard / "tokens.bin", np.int32) for shard in shards])
    mask = np.concatenate([np.fromfile(shard / "loss_mask.bin", np.uint8) for shard in shards])
    ends = np.cumsum(table["tokens"])[:-1]
    items = []
    for name, own_ids, own_mask in zip(table["id"], np.split(ids, ends), np.split(mask, ends), strict=True):
        roads, context = triples[name]["reasoning"].splitlines(), triples[name]["context"]
        places = [next(i for i, piece in enumerate(context) if piece["text"].endswith(road)) for road in roads]
        depths = [(place + 0.5) / len(context) for place in places]
        items.append(Item(name, len(context), len(roads), depths, own_ids, own_mask))
    return items


def score(model: Any, items: list[Item], road_id: int) -> list[dict[str, Any]]:
    """One row an item: pages, hops, greedy, the first towns of its roads, `[depth, right]` of look-ups, the answer."""
    by_length = defaultdict(list)
    for item in items:
        by_length[len(item.ids)].append(item)
    rows = []
    for length, group in sorted(by_length.items()):
        size = max(1, BATCH_TOKENS // length)
        for start in range(0, len(group), size):
            batch = group[start : start + size]
            with torch.inference_mode():
                ids = torch.from_numpy(np.stack([item.ids for item in batch]).astype(np.int64))
                likely = model(ids).logits[:, :-1].argmax(-1).numpy()
            rows += [
                _row(item, right, road_id) for item, right in zip(batch, likely == ids[:, 1:].numpy(), strict=True)
            ]
    return rows


def _row(item: Item, right: np.ndarray, road_id: int) -> dict[str, Any]:
    """`right` `[tokens - 1]`: whether each token from the second on is the most likely one."""
    supervised = np.flatnonzero(item.mask)
    # a road is three tokens, "road" and two towns: the second town is what is looked up
    roads = [place for place in supervised if item.ids[place] == road_id]
    assert len(roads) == item.num_hops
    return {
        "pages": item.num_pages,
        "hops": item.num_hops,
        "greedy": bool(right[supervised - 1].all()),
        "starts": [bool(right[place]) for place in roads],
        "lookups": [[depth, bool(right[place + 1])] for depth, place in zip(item.depths, roads, strict=True)],
        "answer": bool(right[supervised[-2] - 1]),  # before the end of the turn
    }


def main() -> None:
    """Score every model that has no scores yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("models", nargs="+", help="EXPORT=SCORES: an exported model, and the file to write")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    road_id = Tokenizer.from_file(str(arguments.tokenizer / "tokenizer.json")).token_to_id("Ċroad")
    items = {kind: read_items(arguments.items, kind) for kind in ("with_context", "without_context")}
    for name in arguments.models:
        export, _, scores = name.rpartition("=")
        if not Path(scores).is_file():
            model = AutoModelForCausalLM.from_pretrained(export, local_files_only=True, dtype=torch.float32).eval()
            rows = {kind: score(model, own, road_id) for kind, own in items.items()}
            publish(Path(scores), json.dumps(rows))
    print(json.dumps({"models": len(arguments.models)}))


if __name__ == "__main__":
    main()
