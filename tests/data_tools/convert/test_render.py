"""Triples have the ids of the chat template, untrusted text stays text, and the loss covers what is generated."""

import random
from unicodedata import normalize

import numpy as np
import pytest
from tokenizers import Tokenizer as HuggingFaceTokenizer

from acc_megatron.data_tools.convert.render import exchange, lengths_of, render_turns, triple_turns
from acc_megatron.data_tools.convert.templates.registry import TEMPLATES
from acc_megatron.data_tools.schema import Piece, Triple
from acc_megatron.data_tools.tokenizer.qwen_bpe import Tokenizer
from acc_megatron.errors import Dropped

Chats = list[tuple[str, str, str]]
# what generation starts from, as the model's own template writes it
OPENING = {"qwen3": "<|im_start|>assistant\n", "qwen3-thinking-2507": "<|im_start|>assistant\n<think>\n"}
THINKING = tuple(OPENING)  # templates without thinking: templates/test_official_templates.py


def full_text(user: str, reasoning: str, answer: str) -> str:
    turn = f"<|im_start|>assistant\n<think>\n{reasoning}\n</think>\n\n{answer}<|im_end|>\n"
    return f"<|im_start|>user\n{user}<|im_end|>\n{turn}"


@pytest.mark.parametrize("template", THINKING)
def test_a_triple_has_the_ids_of_the_chat_template(
    template: str, tokenizer: Tokenizer, huggingface: HuggingFaceTokenizer, clean_chats: Chats
) -> None:
    """S2."""
    for user, reasoning, answer in clean_chats:
        rendered = render_turns(exchange(user, reasoning, answer), tokenizer, TEMPLATES[template])
        assert rendered.ids.tolist() == huggingface.encode(full_text(user, reasoning, answer)).ids
        assert rendered.ids.dtype == np.int32 and rendered.mask.dtype == np.uint8


@pytest.mark.parametrize("template", THINKING)
def test_a_system_turn_comes_first_and_is_masked_from_the_loss(
    template: str, tokenizer: Tokenizer, huggingface: HuggingFaceTokenizer
) -> None:
    system = "Be brief.<|x|>"
    rendered = render_turns(exchange("q", "r", "a", system=system), tokenizer, TEMPLATES[template])
    text = f"<|im_start|>system\n{system}<|im_end|>\n{full_text('q', 'r', 'a')}"
    assert rendered.ids.tolist() == huggingface.encode(text).ids
    bare = render_turns(exchange("q", "r", "a"), tokenizer, TEMPLATES[template])
    assert rendered.mask.tolist() == [0] * (len(rendered.ids) - len(bare.ids)) + bare.mask.tolist()
    hostile = render_turns(exchange("q", "r", "a", system="<|im_end|>"), tokenizer, TEMPLATES[template])
    assert (hostile.ids >= tokenizer.first_control_id).sum() == (rendered.ids >= tokenizer.first_control_id).sum()


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_lengths_are_those_of_the_rendered_turns(template: str, tokenizer: Tokenizer) -> None:
    for turns in (exchange("q\n\n", "\n\nr \n", "é\n"), exchange("", "", "a", system="s")):
        rendered = render_turns(turns, tokenizer, TEMPLATES[template])
        lengths = lengths_of(turns, tokenizer, TEMPLATES[template])
        assert lengths == (len(rendered.ids), rendered.mask.sum()) and 0 < lengths.num_supervised < lengths.num_tokens
    with pytest.raises(Dropped, match="nothing_supervised"):
        lengths_of(turns[:-1], tokenizer, TEMPLATES[template])


def test_outer_newlines_are_stripped_as_the_template_does(
    tokenizer: Tokenizer, huggingface: HuggingFaceTokenizer
) -> None:
    rendered = render_turns(exchange("q\n\n", "\n\nr \n", "\n\na\n"), tokenizer)
    assert rendered.ids.tolist() == huggingface.encode(full_text("q\n\n", "r ", "a\n")).ids
    empty = render_turns(exchange("q", "", "a"), tokenizer)
    assert empty.ids.tolist() == huggingface.encode(full_text("q", "", "a")).ids


@pytest.mark.parametrize("template", THINKING)
def test_prompt_ids_are_an_exact_prefix_and_the_mask_starts_there(
    template: str, tokenizer: Tokenizer, huggingface: HuggingFaceTokenizer, clean_chats: Chats
) -> None:
    """S3."""
    for user, reasoning, answer in clean_chats:
        prompt = huggingface.encode(f"<|im_start|>user\n{user}<|im_end|>\n{OPENING[template]}").ids
        rendered = render_turns(exchange(user, reasoning, answer), tokenizer, TEMPLATES[template])
        assert rendered.ids[: len(prompt)].tolist() == prompt
        assert rendered.num_prompt_tokens == len(prompt) == int(rendered.mask.argmax())


@pytest.mark.parametrize("template", THINKING)
def test_the_mask_covers_reasoning_answer_and_closing_token_exactly(
    template: str, tokenizer: Tokenizer, clean_chats: Chats
) -> None:
    opening = "<think>\n" if template == "qwen3" else ""
    for user, reasoning, answer in clean_chats:
        rendered = render_turns(exchange(user, reasoning, answer), tokenizer, TEMPLATES[template])
        supervised = np.flatnonzero(rendered.mask)
        assert np.array_equal(supervised, np.arange(supervised[0], supervised[-1] + 1))
        expected = normalize("NFC", f"{opening}{reasoning}\n</think>\n\n{answer}<|im_end|>")
        assert tokenizer.decode(rendered.ids[supervised]) == expected
        assert rendered.ids[supervised[-1]] == 151_645
        assert tokenizer.decode(rendered.ids[supervised[-1] + 1 :]) == "\n"


@pytest.mark.parametrize("template", TEMPLATES)
def test_untrusted_text_never_becomes_a_control_token(template: str, tokenizer: Tokenizer) -> None:
    """S1: every control string by itself, nested, split across two fields, and 1,000 fuzzed contexts."""
    names = list(tokenizer.control)
    generator = random.Random(6)

    def hostile() -> str:
        a, b = generator.choice(names), generator.choice(names)
        cut = generator.randrange(len(a) + 1)
        shapes = (a, a[:cut] + b + a[cut:], a[:cut], a[cut:], a + b, f"\n{a}\n", f"x{a}", "row 1", "")
        return "".join(generator.choice(shapes) for _ in range(generator.randint(1, 4)))

    alone = [(name, name, name, name) for name in names]
    split = [(name[cut:], "", name[:cut], name[cut:]) for name in names for cut in range(1, len(name))]
    for question, title, first, second in [*alone, *split, *(tuple(hostile() for _ in "qt12") for _ in range(1_000))]:
        pieces = tuple(
            Piece(id=str(i), title=title, text=text, kind="evidence") for i, text in enumerate((first, second))
        )
        triple = Triple(id="t", agent="sql", question=question, context=pieces, reasoning="r", answer="a")
        ids = render_turns(triple_turns(triple), tokenizer, TEMPLATES[template]).ids
        controls = np.flatnonzero(ids >= 151_643)
        # im_start, im_end, im_start, think, /think, im_end: those that we insert, and no other
        thinking = [151667, 151668] if template in THINKING else []
        assert ids[controls].tolist() == [151644, 151645, 151644, *thinking, 151645]
        context = f"[Document 1] {title}\n{first}\n\n[Document 2] {title}\n{second}"
        expected = (
            "user\nPlease reason based on the following documents and answer the question.\n\n"
            f"{context}\n\nQuestion: {question}"
        )
        assert tokenizer.decode(ids[controls[0] + 1 : controls[1]]) == normalize("NFC", expected)


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_control_string_in_a_reply_drops_the_row_and_names_its_place(template: str, tokenizer: Tokenizer) -> None:
    for name in tokenizer.control:
        for reasoning, answer, where in ((f"ab{name}c", "a", "reasoning"), ("r", f"ab{name}", "text")):
            with pytest.raises(Dropped) as drop:
                render_turns(exchange("q", reasoning, answer), tokenizer, TEMPLATES[template])
            assert drop.value.reason == "control_string_in_target"
            assert drop.value.detail == f"the {where} of turn 2 contains {name!r} at character 2"
