"""A chat as token ids: control tokens by id, every content plain-encoded, so that no text can forge a turn."""

from collections.abc import Sequence

import numpy as np

from acc_megatron.data_tools.render import TEMPLATES
from acc_megatron.data_tools.tokenizer import Tokenizer
from acc_megatron.evaluate.items import Message, check_choice

THINKING_OPENED = "qwen3-thinking-2507"  # this template opens the thinking inside the prompt


def chat_ids(messages: Sequence[Message], tokenizer: Tokenizer, template: str = "qwen3") -> np.ndarray:
    """Ids `[tokens]` int32 of the messages and of the opening of the assistant's turn.

    Role, newline and content are one plain-encoded segment, so clean text gets the chat template's own ids.
    """
    check_choice("template", template, TEMPLATES)
    control, encode = tokenizer.control, tokenizer.encode
    start, end = [control["<|im_start|>"]], [control["<|im_end|>"]]
    parts: list[Sequence[int] | np.ndarray] = []
    for message in messages:
        text = encode(f"{message['role']}\n{message['content']}")
        assert not len(text) or int(text.max()) < tokenizer.first_control_id, "plain text became a control id"
        parts += [start, text, end, encode("\n")]
    parts += [start, encode("assistant\n")]
    if template == THINKING_OPENED:
        parts += [[control["<think>"]], encode("\n")]
    return np.concatenate([np.asarray(part, np.int32) for part in parts])
