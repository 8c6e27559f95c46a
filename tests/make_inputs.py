"""Small real inputs that several tests train on: triples, a dataset, a random model, a recipe over both."""

import json
from pathlib import Path
from typing import Any

import numpy as np

TINY_MODEL: dict[str, Any] = {
    "vocab_size": 151_936,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "max_position_embeddings": 1024,
}
WORDS = ["table", "row", "value", "north", "river", "of", "the", "seven", "blue", "index", "query", "file"]


def write_triples(
    path: Path,
    lengths_words: list[int],
    *,
    answer_words: int = 12,
    seed: int = 0,
    reasoning: dict[int, str] | None = None,
) -> Path:
    """Triples of random words, one evidence piece each, with long contexts and short answers at their end.

    `reasoning` replaces the words of some documents' reasoning.
    """
    rng = np.random.default_rng(seed)

    def text(count: int) -> str:
        return " ".join(rng.choice(WORDS, count))

    with path.open("w", encoding="utf-8") as file:
        for number, length in enumerate(lengths_words):
            row = {
                "id": f"doc-{number}",
                "agent": ("search", "swe", "sql")[number % 3],
                "question": f"which {text(3)}?",
                "context": [{"id": "a", "title": "page", "text": text(length), "kind": "evidence"}],
                "reasoning": (reasoning or {}).get(number) or text(answer_words),
                "answer": text(3),
            }
            file.write(json.dumps(row) + "\n")
    return path


def make_dataset(folder: Path) -> Path:
    """Six documents of uneven length in a dataset folder; packed into three rows of 512 tokens."""
    from acc_megatron.data_tools.convert import ConvertSettings, convert

    triples = write_triples(folder / "triples.jsonl", [340, 60, 260, 90, 20, 160])
    convert([triples], folder / "dataset", ConvertSettings())
    return folder / "dataset"


def make_one_row_documents(folder: Path, count: int, reasoning: dict[int, str] | None = None) -> Path:
    """A dataset of `count` documents of 140 to 250 tokens, so that each fills a row of 256 alone."""
    from acc_megatron.data_tools.convert import ConvertSettings, convert

    lengths = [80 + number * 80 // count for number in range(count)]
    folder.mkdir(parents=True, exist_ok=True)
    triples = write_triples(folder / "triples.jsonl", lengths, reasoning=reasoning)
    convert([triples], folder / "dataset", ConvertSettings())
    return folder / "dataset"


def make_hf_folder(path: Path, *, seed: int = 0, **changes: Any) -> Path:
    """Write a random Qwen3MoeForCausalLM folder as transformers does; norms and router are random too."""
    import torch
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    settings = TINY_MODEL | {"intermediate_size": 64, "norm_topk_prob": True, "rope_theta": 1e6} | changes
    torch.manual_seed(seed)
    model = Qwen3MoeForCausalLM(Qwen3MoeConfig(**settings))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.normal_(1.0, 0.2)
            elif name.endswith("mlp.gate.weight"):
                parameter.normal_(0.0, 0.5)
    model.save_pretrained(path)
    return path


def write_recipe(
    path: Path, *, model: dict[str, Any], dataset: Path, checkpoint: Path, batch_rows: int, epochs: int
) -> Path:
    """A recipe over a dataset from a checkpoint, with plain SGD: Adam would hide a wrong gradient scale."""
    lines = ["name = 'test'", "[model]", *(f"{key} = {json.dumps(value)}" for key, value in model.items())]
    lines += ["[data]", f"path = '{dataset}'", "seq_length_tokens = 512"]
    lines += ["[optimizer]", "kind = 'sgd'", "learning_rate = 0.3", "min_learning_rate = 0.3", "clip_grad_norm = 0.0"]
    lines += ["weight_decay = 0.0", "[train]", f"run_dir = '{path.parent / 'unset'}'", f"init_from = '{checkpoint}'"]
    lines += [f"global_batch_rows = {batch_rows}", f"epochs = {epochs}", "process_timeout_seconds = 120"]
    path.write_text("\n".join(lines) + "\n")
    return path


def make_recipe(folder: Path, dataset: Path | None = None, **changes: Any) -> Path:
    """All inputs of the layout matrix: four layers, so that two stages of two chunks exist; batches of four rows."""
    import subprocess
    import sys

    model = TINY_MODEL | {"num_hidden_layers": 4} | changes
    hf = make_hf_folder(folder / "hf", **model)
    command = [sys.executable, "-m", "acc_megatron", "import", str(hf), "--out", str(folder / "checkpoint")]
    subprocess.run([*command, "--precision", "float32"], check=True, capture_output=True, timeout=600)
    return write_recipe(
        folder / "recipe.toml",
        model=model,
        dataset=dataset or make_dataset(folder),
        checkpoint=folder / "checkpoint",
        batch_rows=4,
        epochs=6,
    )
