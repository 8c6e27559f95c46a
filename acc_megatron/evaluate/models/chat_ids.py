"""A benchmark's messages as the token ids of a prompt."""

from collections.abc import Sequence
from typing import cast

import numpy as np

from acc_megatron.data_tools.conversation import Role, Turn
from acc_megatron.data_tools.convert.render import prompt_ids
from acc_megatron.data_tools.convert.templates.registry import TEMPLATES
from acc_megatron.data_tools.tokenizer.qwen_bpe import Tokenizer
from acc_megatron.evaluate.models.prompt import Message


def chat_ids(messages: Sequence[Message], tokenizer: Tokenizer, template: str = "qwen3") -> np.ndarray:
    """Ids `[tokens]` int32 of the messages and of the start of the assistant's turn; no text can forge a turn."""
    turns = [Turn(role=cast(Role, message["role"]), text=message["content"]) for message in messages]
    return prompt_ids(turns, tokenizer, TEMPLATES[template])
