"""Generation with an exported Hugging Face folder; torch and transformers are imported inside the functions."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from acc_megatron.data_tools.tokenizer.qwen_bpe import Tokenizer
from acc_megatron.errors import CheckpointError


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """A generated text; `cut` means that it had not ended at `max_new_tokens`."""

    text: str
    num_new_tokens: int
    cut: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the next token is chosen: the most likely one at temperature 0, otherwise drawn with `seed`."""

    temperature: float = 0.0
    top_p: float | None = None
    top_k: int | None = None
    seed: int = 0


def load_model(hf_dir: Path) -> Any:
    """The causal language model in a local folder, in bfloat16 on a GPU or in float32 on the CPU.

    Only safetensors are read and no code from the folder runs. Raises CheckpointError if the folder has no model or its
    tensors are not exactly the model's (transformers would fill missing ones with random numbers).
    """
    import torch
    from transformers import AutoModelForCausalLM

    if not (hf_dir / "config.json").is_file():
        raise CheckpointError(
            f"no Hugging Face model at {hf_dir}: config.json is missing; "
            "run 'acc-megatron export RUN --out FOLDER' first"
        )
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
    except Exception as error:  # a damaged folder raises the exceptions of many libraries
        raise CheckpointError(f"{hf_dir} cannot be loaded: {type(error).__name__}: {error}") from error
    model, info = loaded
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info[kind]:
            keys = sorted(map(str, info[kind]))
            raise CheckpointError(f"{hf_dir} has {len(keys)} {kind.replace('_', ' ')}, the first is {keys[0]}")
    return model.to(device).eval()


def generate(model: Any, ids: np.ndarray, tokenizer: Tokenizer, max_new_tokens: int, sampling: Sampling) -> Generation:
    """The continuation of `ids` `[tokens]` up to `<|im_end|>` or `<|endoftext|>`, with a KV cache."""
    import torch
    from transformers import GenerationConfig

    stops = [tokenizer.control["<|im_end|>"], tokenizer.control["<|endoftext|>"]]
    chosen: dict[str, Any] = {"do_sample": False}
    if sampling.temperature > 0:
        # unset means no limit; the default of transformers is the 50 most likely tokens
        chosen = {"do_sample": True, "temperature": sampling.temperature, "top_k": sampling.top_k or 0}
        chosen["top_p"] = 1.0 if sampling.top_p is None else sampling.top_p
        torch.manual_seed(sampling.seed)
    settings = GenerationConfig(max_new_tokens=max_new_tokens, eos_token_id=stops, pad_token_id=stops[1], **chosen)
    model.generation_config = settings  # otherwise transformers would add the folder's own settings, such as penalties
    prompt = torch.from_numpy(ids.astype(np.int64))[None].to(model.device)
    with torch.inference_mode():
        output = model.generate(prompt, attention_mask=torch.ones_like(prompt), generation_config=settings)
    new = output[0, len(ids) :].tolist()
    ended = bool(new) and new[-1] in stops
    return Generation(
        text=tokenizer.decode(new[:-1] if ended else new),
        num_new_tokens=len(new),
        cut=not ended,
    )
