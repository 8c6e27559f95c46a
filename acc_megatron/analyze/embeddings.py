"""Embeddings of texts as unit vectors, from a local model such as all-MiniLM-L6-v2 or from an endpoint."""

import importlib.util
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx2
import numpy as np

from acc_megatron.errors import CheckpointError, DataError

Embed = Callable[[Sequence[str]], np.ndarray]  # texts to float64 [texts, dim], each row of length 1
_BATCH = 32
MAX_TOKENS = 256  # the limit of all-MiniLM-L6-v2, from its model card


def local_embedder(place: str) -> Embed:
    """Mean of the last hidden states over at most 256 tokens, as sentence-transformers does for all-MiniLM-L6-v2.

    `place` is a folder, or an installed package that contains one. Only safetensors are read and no code from there
    runs. Raises CheckpointError if the model does not exist.
    """
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = _model_folder(place)
    safe: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, **safe)
        model: Any = AutoModel.from_pretrained(folder, use_safetensors=True, dtype=torch.float32, **safe).eval()
    except Exception as error:  # a damaged folder raises the exceptions of many libraries
        raise CheckpointError(f"{folder} cannot be loaded: {type(error).__name__}: {error}") from error
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token

    def embed(texts: Sequence[str]) -> np.ndarray:
        parts = []
        for start in range(0, len(texts), _BATCH):
            batch = tokenizer(
                list(texts[start : start + _BATCH]),
                padding=True,
                truncation=True,
                max_length=MAX_TOKENS,
                return_tensors="pt",
            )
            with torch.inference_mode():
                hidden = model(**batch).last_hidden_state
            mask = batch["attention_mask"][..., None].to(hidden.dtype)
            parts.append(((hidden * mask).sum(1) / mask.sum(1).clamp(min=1)).double().numpy())
        return _unit(np.concatenate(parts))

    return embed


def _model_folder(place: str) -> Path:
    if (Path(place) / "config.json").is_file():
        return Path(place)
    spec = importlib.util.find_spec(place) if place.isidentifier() else None  # located without importing it
    for root in (spec.submodule_search_locations or []) if spec else []:
        for weights in sorted(Path(root).rglob("*.safetensors")):
            if (weights.parent / "config.json").is_file():
                return weights.parent
    found = "a package without a model" if spec else "neither a folder with config.json nor an installed package"
    raise CheckpointError(f"no embedding model at {place}: it is {found}")


def endpoint_embedder(endpoint: str, model: str, *, timeout_seconds: float = 120.0) -> Embed:
    """Requests `endpoint/embeddings` with the key in ACC_API_KEY. Raises DataError for an unusable reply."""
    url = f"{endpoint.rstrip('/')}/embeddings"
    key = os.environ.get("ACC_API_KEY", "")
    headers = {"Authorization": f"Bearer {key}"} if key else {}

    def ask(texts: Sequence[str]) -> np.ndarray:
        body = {"model": model, "input": list(texts)}
        try:
            reply = httpx2.post(url, json=body, headers=headers, timeout=timeout_seconds, trust_env=False)
            rows = sorted(reply.raise_for_status().json()["data"], key=lambda row: row["index"])
            vectors = np.array([row["embedding"] for row in rows], np.float64)
        except (httpx2.HTTPError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{url.partition('?')[0]} returned no embeddings: {type(error).__name__}: {error}"
            ) from None
        if vectors.ndim != 2 or len(vectors) != len(texts) or not np.isfinite(vectors).all():
            raise DataError(
                f"{url.partition('?')[0]} returned embeddings of shape {vectors.shape} for {len(texts)} texts"
            )
        return vectors

    def embed(texts: Sequence[str]) -> np.ndarray:
        parts = [ask(texts[start : start + _BATCH]) for start in range(0, len(texts), _BATCH)]
        dims = sorted({part.shape[1] for part in parts})
        if len(dims) > 1:
            raise DataError(f"{url.partition('?')[0]} returned embeddings of different sizes {dims}")
        return _unit(np.concatenate(parts))

    return embed


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
