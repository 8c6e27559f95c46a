"""One triple to `(ids, mask)`: control tokens by id, everything else plain-encoded, the loss on what follows.

Text between two control ids is one plain-encoded segment, so clean text gets exactly the ids that encoding
the whole chat-template string would give, and hostile text stays text.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from acc_megatron.data_tools.schema import Dropped, Piece, Triple
from acc_megatron.data_tools.tokenizer import Tokenizer

INSTRUCTION = "Please reason based on the following documents and answer the question."
# where the prompt ends: Qwen3 opens its thinking itself, the Thinking-2507 template opens it in the prompt
TEMPLATES = ("qwen3", "qwen3-thinking-2507")


@dataclass(frozen=True, slots=True)
class Rendered:
    """`ids` int32 `[tokens]`, `mask` uint8 `[tokens]` (1 = this token is a target; no shift)."""

    ids: np.ndarray
    mask: np.ndarray
    num_prompt_tokens: int


def user_content(question: str, context: Sequence[Piece]) -> str:
    """The user turn: the instruction, every piece under a numbered heading, and the question last."""
    parts = [f"{INSTRUCTION}\n\n"]
    for number, piece in enumerate(context, start=1):
        parts += (f"[Document {number}] ", piece.title, "\n", piece.text, "\n\n")
    parts += () if context else ("\n\n",)
    return "".join([*parts, "Question: ", question])


def assistant_content(reasoning: str, answer: str) -> tuple[str, str]:
    """Reasoning and answer as the chat template normalises them: outer newlines belong to the template."""
    return reasoning.strip("\n"), answer.lstrip("\n")


def render(triple: Triple, tokenizer: Tokenizer, template: str = "qwen3") -> Rendered:
    """Render a compiled triple; see `render_turns`."""
    return render_turns(
        user_content(triple.question, triple.context), triple.reasoning, triple.answer, tokenizer, template
    )


def render_turns(
    user: str,
    reasoning: str,
    answer: str,
    tokenizer: Tokenizer,
    template: str = "qwen3",
    *,
    system: str | None = None,
) -> Rendered:
    """Ids and mask of one user turn, behind a `system` turn if there is one, and one supervised assistant turn.

    The mask covers reasoning, answer and the closing `<|im_end|>`; the final newline is context only.
    Raises Dropped('control_string_in_target') when reasoning or answer spell a control token: what the
    model is taught to write must be unambiguous, so such rows are left out rather than escaped.
    """
    assert template in TEMPLATES, template
    for name, text in (("reasoning", reasoning), ("answer", answer)):
        found = tokenizer.control_strings.search(text)
        if found:
            raise Dropped("control_string_in_target", f"{name} holds {found[0]!r} at character {found.start()}")
    reasoning, answer = assistant_content(reasoning, answer)
    encode = tokenizer.encode
    start, end, think, unthink = (
        np.array([tokenizer.control[name]], np.uint32) for name in ("<|im_start|>", "<|im_end|>", "<think>", "</think>")
    )
    between = encode("\n")
    opening = [] if system is None else [start, encode(f"system\n{system}"), end, between]
    prompt = [*opening, start, encode(f"user\n{user}"), end, between, start, encode("assistant\n")]
    # the newline after <think> joins the reasoning: one segment, so that merges are the template's
    body = encode(f"\n{reasoning}\n")
    target = [think]
    if template == "qwen3-thinking-2507":
        body = _after_prefix(body, between)
        prompt += [think, between]
        target = []
    closing, tail = encode(f"\n\n{answer}"), between
    target += [body, unthink, closing, end]
    parts = [part.view(np.int32) for part in (*prompt, *target, tail)]
    num_prompt = sum(len(part) for part in prompt)
    ids = np.concatenate(parts)
    mask = np.ones(len(ids), np.uint8)
    mask[:num_prompt] = 0
    mask[len(ids) - len(tail) :] = 0
    _check(tokenizer, (*opening[1:2], prompt[len(opening) + 1], body, closing), mask)
    return Rendered(ids, mask, num_prompt)


def _after_prefix(body: np.ndarray, prefix: np.ndarray) -> np.ndarray:
    """The ids behind `prefix`, which generation starts from: the prompt must be an exact prefix of the whole."""
    if not np.array_equal(body[: len(prefix)], prefix):
        raise Dropped("prompt_is_no_prefix", "the reasoning's first characters merge with the newline after <think>")
    return body[len(prefix) :]


def _check(tokenizer: Tokenizer, untrusted: tuple[np.ndarray, ...], mask: np.ndarray) -> None:
    largest = max((int(part.max()) for part in untrusted if len(part)), default=0)
    assert largest < tokenizer.first_control_id, f"plain text became control id {largest}"
    assert mask.any(), "an answer and its closing token are always supervised"
