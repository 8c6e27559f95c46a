"""Greedy generation with an exported Hugging Face folder; torch and transformers are imported inside functions."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from acc_megatron.data_tools.tokenizer import Tokenizer
from acc_megatron.errors import CheckpointError, ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """What the model wrote after one prompt; `cut` says that it had not ended at `max_new_tokens`."""

    text: str
    num_new_tokens: int
    cut: bool
    seconds: float


def load_model(hf_dir: Path) -> Any:
    """The causal language model in a local folder: float32 on the CPU, bfloat16 on a GPU where there is one.

    Reads safetensors alone and runs no code from the folder. Raises CheckpointError when the folder is no model or
    its tensors are not exactly the model's (transformers would fill missing ones with random numbers).
    """
    import torch
    from transformers import AutoModelForCausalLM

    if not (hf_dir / "config.json").is_file():
        raise CheckpointError(f"no Hugging Face model at {hf_dir}: config.json is missing; export one first")
    device, dtype = ("cuda", torch.bfloat16) if torch.cuda.is_available() else ("cpu", torch.float32)
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            hf_dir,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=dtype,
            output_loading_info=True,
        )
    except Exception as error:  # a damaged folder fails in many libraries' own ways
        raise CheckpointError(f"{hf_dir} cannot be loaded: {type(error).__name__}: {error}") from error
    model, info = loaded
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info[kind]:
            keys = sorted(map(str, info[kind]))
            raise CheckpointError(f"{hf_dir} has {len(keys)} {kind.replace('_', ' ')}, the first is {keys[0]}")
    return model.to(device).eval()


def check_fits(model: Any, tokenizer: Tokenizer, lengths_tokens: dict[str, int], max_new_tokens: int) -> None:
    """Raise an AccError unless the model knows the tokenizer's ids and every prompt leaves room for the answer."""
    if model.config.vocab_size < tokenizer.vocab_size:
        raise CheckpointError(
            f"the model has {model.config.vocab_size} token embeddings and tokenizer {tokenizer.name} needs "
            f"{tokenizer.vocab_size}; give the tokenizer that it was trained with"
        )
    longest = max(lengths_tokens, key=lambda name: lengths_tokens[name])
    positions = model.config.max_position_embeddings
    if lengths_tokens[longest] + max_new_tokens > positions:
        raise ConfigError(
            f"{longest} has {lengths_tokens[longest]} tokens and max_new_tokens is {max_new_tokens}, together over "
            f"the model's {positions} positions; lower length_tokens or max_new_tokens"
        )


def generate(model: Any, ids: np.ndarray, tokenizer: Tokenizer, max_new_tokens: int) -> Generation:
    """The most likely continuation of `ids` `[tokens]`, greedily with a KV cache, up to `<|im_end|>`."""
    import torch
    from transformers import GenerationConfig

    stops = [tokenizer.control["<|im_end|>"], tokenizer.control["<|endoftext|>"]]
    settings = GenerationConfig(
        do_sample=False, max_new_tokens=max_new_tokens, eos_token_id=stops, pad_token_id=stops[1]
    )
    model.generation_config = settings  # else transformers fills gaps with the folder's own, such as penalties
    prompt = torch.from_numpy(ids.astype(np.int64))[None].to(model.device)
    started = time.monotonic()
    with torch.inference_mode():
        output = model.generate(prompt, attention_mask=torch.ones_like(prompt), generation_config=settings)
    new = output[0, len(ids) :].tolist()
    ended = bool(new) and new[-1] in stops
    return Generation(
        text=tokenizer.decode(new[:-1] if ended else new),
        num_new_tokens=len(new),
        cut=not ended,
        seconds=time.monotonic() - started,
    )
