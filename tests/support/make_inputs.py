"""Makes the small inputs that several tests train on: triples, a dataset, a random model and a recipe."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np

from support.small_tokenizer import VOCAB_SIZE, write_small_tokenizer

QWEN_VOCAB_SIZE = 151_936
TINY_MODEL: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
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
TINY_DENSE: dict[str, Any] = {
    "family": "qwen3",
    **{key: value for key, value in TINY_MODEL.items() if "expert" not in key and "moe" not in key},
    "intermediate_size": 48,
}
TINY_MODELS: dict[str, dict[str, Any]] = {"qwen3": TINY_DENSE, "qwen3_moe": TINY_MODEL}
WORDS = ["table", "row", "value", "north", "river", "of", "the", "seven", "blue", "index", "query", "file"]


def write_triples(
    path: Path,
    lengths_words: list[int],
    *,
    answer_words: int = 12,
    seed: int = 0,
    reasoning: dict[int, str] | None = None,
) -> Path:
    """Write triples of random words with one piece of evidence each: long contexts, short answers at the end.

    `reasoning` maps a document number to its reasoning.
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


def convert_triples(triples: Path, out: Path, tokenizer: str | None = None) -> Path:
    """Convert triples of random words; return `out`. The default tokenizer is a small one, written next to `out`."""
    from acc_megatron.data_tools.convert.convert import ConvertSettings, convert

    tokenizer = tokenizer or str(write_small_tokenizer(out.with_name("tokenizer"), WORDS))
    convert([triples], out, ConvertSettings(tokenizer=tokenizer))
    return out


def make_dataset(folder: Path, tokenizer: str | None = None) -> Path:
    """Write a dataset folder of six documents of uneven length, which pack into three rows of 512 tokens."""
    triples = write_triples(folder / "triples.jsonl", [340, 60, 260, 90, 20, 160])
    return convert_triples(triples, folder / "dataset", tokenizer)


def make_one_row_documents(folder: Path, count: int, reasoning: dict[int, str] | None = None) -> Path:
    """Write a dataset of `count` documents of 140 to 250 tokens, so that a row of 256 tokens has one document.

    Documents with reasoning of their own have Qwen's vocabulary, in which their words are rare tokens.
    """
    lengths = [80 + number * 80 // count for number in range(count)]
    folder.mkdir(parents=True, exist_ok=True)
    triples = write_triples(folder / "triples.jsonl", lengths, reasoning=reasoning)
    return convert_triples(triples, folder / "dataset", "qwen3" if reasoning else None)


def make_hf_folder(path: Path, *, family: str = "qwen3_moe", seed: int = 0, **changes: Any) -> Path:
    """Write a Hugging Face folder with a random model of a family, including random norms and routers."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = {"rope_theta": 1e6} | TINY_MODELS[family]
    settings |= {"intermediate_size": 64, "norm_topk_prob": True} if family == "qwen3_moe" else {}
    settings = copy.deepcopy({key: value for key, value in (settings | changes).items() if key != "family"})
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **settings))
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
    """Write a recipe that trains a checkpoint on a dataset with SGD. Adam would hide a wrong gradient scale."""
    scaling = model.get("rope_scaling")
    lines = ["name = 'test'", "[model]"]
    lines += [f"{key} = {json.dumps(value)}" for key, value in model.items() if key != "rope_scaling"]
    if scaling:
        lines += ["[model.rope_scaling]", *(f"{key} = {json.dumps(value)}" for key, value in scaling.items())]
    lines += ["[data]", f"path = '{dataset}'", "seq_length_tokens = 512"]
    lines += ["[optimizer]", "kind = 'sgd'", "learning_rate = 0.3", "min_learning_rate = 0.3", "clip_grad_norm = 0.0"]
    lines += ["weight_decay = 0.0", "[train]", f"run_dir = '{path.parent / 'unset'}'", f"init_from = '{checkpoint}'"]
    lines += [f"global_batch_rows = {batch_rows}", f"epochs = {epochs}", "process_timeout_seconds = 120"]
    path.write_text("\n".join(lines) + "\n")
    return path


def make_recipe(folder: Path, dataset: Path | None = None, *, family: str = "qwen3_moe", **changes: Any) -> Path:
    """Write all inputs of the layout matrix: four layers (two stages of two chunks) and batches of four rows."""
    from support.run_processes import import_hf_folder

    model = TINY_MODELS[family] | {"num_hidden_layers": 4} | changes
    hf = make_hf_folder(folder / "hf", **({"family": family} | model))
    import_hf_folder(hf, folder / "checkpoint")
    return write_recipe(
        folder / "recipe.toml",
        model=model,
        dataset=dataset or make_dataset(folder),
        checkpoint=folder / "checkpoint",
        batch_rows=4,
        epochs=6,
    )
