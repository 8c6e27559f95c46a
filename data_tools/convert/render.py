"""Turns to token ids and loss mask: control tokens by id, everything else plain-encoded, the loss on the replies."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from acc_megatron.data_tools.conversation import Turn
from acc_megatron.data_tools.convert.templates.registry import QWEN3
from acc_megatron.data_tools.convert.templates.template import ChatTemplate
from acc_megatron.data_tools.convert.token_writer import TokenWriter
from acc_megatron.data_tools.schema import Piece, Triple
from acc_megatron.data_tools.tokenizer.qwen_bpe import Tokenizer
from acc_megatron.errors import Dropped

INSTRUCTION = "Please reason based on the following documents and answer the question."


@dataclass(frozen=True, slots=True)
class Rendered:
    """`ids` int32 `[tokens]`, `mask` uint8 `[tokens]` (1 = this token is a target; no shift)."""

    ids: np.ndarray
    mask: np.ndarray
    num_prompt_tokens: int


class Lengths(NamedTuple):
    """The number of tokens of a document, and of those in the loss."""

    num_tokens: int
    num_supervised: int


def user_content(question: str, context: Sequence[Piece]) -> str:
    """The user turn: the instruction, every piece under a numbered heading, and the question last."""
    parts = [f"{INSTRUCTION}\n\n"]
    for number, piece in enumerate(context, start=1):
        parts += (f"[Document {number}] ", piece.title, "\n", piece.text, "\n\n")
    parts += () if context else ("\n\n",)
    return "".join([*parts, "Question: ", question])


def exchange(user: str, reasoning: str, answer: str, *, system: str | None = None) -> tuple[Turn, ...]:
    """One user turn and one supervised reply, after a system turn if `system` is given."""
    opening = () if system is None else (Turn(role="system", text=system),)
    reply = Turn(role="assistant", text=answer, reasoning=reasoning, supervised=True)
    return (*opening, Turn(role="user", text=user), reply)


def triple_turns(triple: Triple) -> tuple[Turn, ...]:
    """The turns of a compiled triple."""
    return exchange(user_content(triple.question, triple.context), triple.reasoning, triple.answer)


def render_turns(turns: Sequence[Turn], tokenizer: Tokenizer, template: ChatTemplate = QWEN3) -> Rendered:
    """Ids and mask of complete turns; the loss covers supervised turns with the token that ends them.

    Raises Dropped: `control_string_in_target` when a supervised turn contains the text of a control token (the model
    must learn to write unambiguous text, so such rows are dropped, not escaped), and `nothing_supervised`.
    """
    writer, _ = _written(turns, tokenizer, template)
    mask = writer.mask()
    return Rendered(writer.ids(), mask, int(mask.argmax()))


def lengths_of(turns: Sequence[Turn], tokenizer: Tokenizer, template: ChatTemplate = QWEN3) -> Lengths:
    """The lengths of what `render_turns` gives, without making ids and mask. Raises Dropped as it does."""
    return _written(turns, tokenizer, template)[1]


def _written(turns: Sequence[Turn], tokenizer: Tokenizer, template: ChatTemplate) -> tuple[TokenWriter, Lengths]:
    for number, turn in enumerate(turns, start=1):
        if turn.supervised:
            _need_no_control_string(number, turn, tokenizer)
    writer = TokenWriter(tokenizer)
    template.write_turns(writer, turns)
    lengths = Lengths(*writer.lengths())
    if not lengths.num_supervised:
        raise Dropped("nothing_supervised", "no turn of the row is supervised")
    return writer, lengths


def prompt_ids(turns: Sequence[Turn], tokenizer: Tokenizer, template: ChatTemplate = QWEN3) -> np.ndarray:
    """Ids `[tokens]` int32 that a model is given to generate the next assistant turn."""
    writer = TokenWriter(tokenizer)
    template.write_turns(writer, turns)
    template.write_generation_prompt(writer)
    return writer.ids()


def _need_no_control_string(number: int, turn: Turn, tokenizer: Tokenizer) -> None:
    calls = [("tool call", form) for call in turn.tool_calls for form in (call, _unescaped(call))]
    parts = [("reasoning", turn.reasoning), ("text", turn.text), *calls]
    for name, part in parts:
        if found := tokenizer.control_strings.search(part):
            detail = f"the {name} of turn {number} contains {found[0]!r} at character {found.start()}"
            raise Dropped("control_string_in_target", detail)


def _unescaped(call: str) -> str:
    """The JSON text of a call without `\\u` escapes, as templates write that give each argument as plain text."""
    if "\\u" not in call:
        return call
    try:
        return json.dumps(json.loads(call), ensure_ascii=False)
    except (ValueError, RecursionError):
        return call
