"""A model in a local Hugging Face folder: asked one question at a time, with cached answers as for an endpoint."""

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from acc_megatron.common.atomic_files import sha256_file
from acc_megatron.data_tools.convert.templates.registry import TEMPLATES
from acc_megatron.errors import CheckpointError, Dropped
from acc_megatron.evaluate.models.generate import Sampling, generate, load_model
from acc_megatron.evaluate.models.model import ModelContext
from acc_megatron.evaluate.models.prompt import Answer, NoAnswer, Outcome, Prompt


def folder_config(folder: Path) -> dict[str, Any]:
    """The folder's config.json. Raises CheckpointError if it is missing or is not the configuration of a model."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
        needed = {name: int(config[name]) for name in ("vocab_size", "max_position_embeddings")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{folder / 'config.json'} is not the configuration of a model: {type(error).__name__}: {error}"
        ) from None
    return config | needed


def folder_digest(folder: Path) -> str:
    """One SHA-256 of the configuration and every tensor file; it identifies the checkpoint in the cache."""
    files = [folder / "config.json", *sorted(folder.glob("*.safetensors"))]
    return hashlib.sha256("".join(f"{path.name} {sha256_file(path)}\n" for path in files).encode()).hexdigest()


class LocalModel:
    """Loads the folder when the first answer is not cached. Raises CheckpointError for a damaged folder."""

    def __init__(self, context: ModelContext) -> None:
        settings, tokenizer = context.settings, context.tokenizer
        assert settings.folder is not None
        self.name, self._folder = context.name, Path(settings.folder)
        self._context, self._settings, self._tokenizer = context, settings, tokenizer
        config = folder_config(self._folder)
        self.window_tokens = settings.window_tokens or config["max_position_embeddings"]
        if config["vocab_size"] < tokenizer.vocab_size:
            raise CheckpointError(
                f"the model has {config['vocab_size']} token embeddings but tokenizer {tokenizer.name} needs "
                f"{tokenizer.vocab_size}; give the tokenizer that the model was trained with"
            )
        self._digest = folder_digest(self._folder)

    @cached_property
    def _model(self) -> Any:
        return load_model(self._folder)

    def num_prompt_tokens(self, prompt: Prompt) -> int:
        """Number of tokens that the model reads."""
        return len(self._context.ids(prompt))

    def describe(self) -> dict[str, object]:
        """The folder, its digest, the tokenizer and the temperature."""
        return {
            "folder": str(self._folder.resolve()),
            "sha256": self._digest,
            "tokenizer": {"name": self._tokenizer.name, "sha256": self._tokenizer.sha256},
            "temperature": self._settings.temperature,
        }

    def answer(self, prompts: Sequence[Prompt], on_outcome: Callable[[Outcome], None]) -> list[Outcome]:
        """An outcome for each prompt, in order."""
        outcomes: list[Outcome] = []
        for prompt in prompts:
            outcomes.append(self._answer(prompt))
            on_outcome(outcomes[-1])
        return outcomes

    def _answer(self, prompt: Prompt) -> Outcome:
        ids = self._context.ids(prompt)
        sampling = Sampling(
            temperature=self._settings.temperature,
            top_p=self._settings.top_p,
            top_k=self._settings.top_k,
            seed=self._context.seed + prompt.repeat,
        )
        asked = f"{self._digest} {prompt.max_new_tokens} {sampling}"
        key = hashlib.sha256(asked.encode() + np.ascontiguousarray(ids).tobytes()).hexdigest()
        outcome = self._context.cache.get(key)
        if outcome is None:
            if late := self._context.out_of_time():
                return late
            try:
                number = self._context.cache.begin(key, len(ids) + prompt.max_new_tokens)
            except Dropped as dropped:
                return NoAnswer(dropped.reason, dropped.detail)
            made = generate(self._model, ids, self._tokenizer, prompt.max_new_tokens, sampling)
            outcome = {"text": made.text, "new_tokens": made.num_new_tokens, "cut": made.cut}
            self._context.cache.finish(number, key, outcome, len(ids) + made.num_new_tokens)
        return Answer(
            response=TEMPLATES[self._settings.template].generation_prefix + outcome["text"],
            reasoning_chars=0,
            finish_reason="length" if outcome["cut"] else "stop",
            prompt_tokens=len(ids),
            new_tokens=outcome["new_tokens"],
        )
