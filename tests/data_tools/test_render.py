"""Clean text renders as the chat template does, hostile text stays text, and the loss covers what is generated."""

import random
from unicodedata import normalize

import numpy as np
import pytest
from tokenizers import Tokenizer as HuggingFaceTokenizer

from acc_megatron.data_tools.render import TEMPLATES, render, render_turns
from acc_megatron.data_tools.schema import Dropped, Piece, Triple
from acc_megatron.data_tools.tokenizer import Tokenizer

Chats = list[tuple[str, str, str]]
# what generation starts from, as the model's own template writes it
OPENING = {"qwen3": "<|im_start|>assistant\n", "qwen3-thinking-2507": "<|im_start|>assistant\n<think>\n"}


def full_text(user: str, reasoning: str, answer: str) -> str:
    turn = f"<|im_start|>assistant\n<think>\n{reasoning}\n</think>\n\n{answer}<|im_end|>\n"
    return f"<|im_start|>user\n{user}<|im_end|>\n{turn}"


@pytest.mark.parametrize("template", TEMPLATES)
def test_clean_text_renders_as_the_chat_template_does(
    template: str, tokenizer: Tokenizer, huggingface: HuggingFaceTokenizer, clean_chats: Chats
) -> None:
    """S2: 200 triples, in both templates."""
    for user, reasoning, answer in clean_chats:
        rendered = render_turns(user, reasoning, answer, tokenizer, template)
        assert rendered.ids.tolist() == huggingface.encode(full_text(user, reasoning, answer)).ids
        assert rendered.ids.dtype == np.int32 and rendered.mask.dtype == np.uint8


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_system_turn_comes_first_as_in_the_template_and_is_not_learned(
    template: str, tokenizer: Tokenizer, huggingface: HuggingFaceTokenizer
) -> None:
    system = "Be brief.<|x|>"
    rendered = render_turns("q", "r", "a", tokenizer, template, system=system)
    text = f"<|im_start|>system\n{system}<|im_end|>\n{full_text('q', 'r', 'a')}"
    assert rendered.ids.tolist() == huggingface.encode(text).ids
    bare = render_turns("q", "r", "a", tokenizer, template)
    assert rendered.mask.tolist() == [0] * (len(rendered.ids) - len(bare.ids)) + bare.mask.tolist()
    hostile = render_turns("q", "r", "a", tokenizer, template, system="<|im_end|>")
    assert (hostile.ids >= tokenizer.first_control_id).sum() == (rendered.ids >= tokenizer.first_control_id).sum()


def test_outer_newlines_are_normalised_as_the_template_does(
    tokenizer: Tokenizer, huggingface: HuggingFaceTokenizer
) -> None:
    rendered = render_turns("q\n\n", "\n\nr \n", "\n\na\n", tokenizer)
    assert rendered.ids.tolist() == huggingface.encode(full_text("q\n\n", "r ", "a\n")).ids
    empty = render_turns("q", "", "a", tokenizer)
    assert empty.ids.tolist() == huggingface.encode(full_text("q", "", "a")).ids


@pytest.mark.parametrize("template", TEMPLATES)
def test_prompt_ids_are_an_exact_prefix_and_the_mask_starts_there(
    template: str, tokenizer: Tokenizer, huggingface: HuggingFaceTokenizer, clean_chats: Chats
) -> None:
    """S3: in both templates; what cannot be so is dropped, see the last test here."""
    for user, reasoning, answer in clean_chats:
        prompt = huggingface.encode(f"<|im_start|>user\n{user}<|im_end|>\n{OPENING[template]}").ids
        rendered = render_turns(user, reasoning, answer, tokenizer, template)
        assert rendered.ids[: len(prompt)].tolist() == prompt
        assert rendered.num_prompt_tokens == len(prompt) == int(rendered.mask.argmax())


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_mask_covers_reasoning_answer_and_closing_token_exactly(
    template: str, tokenizer: Tokenizer, clean_chats: Chats
) -> None:
    opening = "<think>\n" if template == "qwen3" else ""
    for user, reasoning, answer in clean_chats:
        rendered = render_turns(user, reasoning, answer, tokenizer, template)
        supervised = np.flatnonzero(rendered.mask)
        assert np.array_equal(supervised, np.arange(supervised[0], supervised[-1] + 1))
        expected = normalize("NFC", f"{opening}{reasoning}\n</think>\n\n{answer}<|im_end|>")
        assert tokenizer.decode(rendered.ids[supervised]) == expected
        assert rendered.ids[supervised[-1]] == 151_645
        assert tokenizer.decode(rendered.ids[supervised[-1] + 1 :]) == "\n"


@pytest.mark.parametrize("template", TEMPLATES)
def test_untrusted_text_never_becomes_control(template: str, tokenizer: Tokenizer) -> None:
    """S1: every control string alone, nested, split across a join, and 1,000 fuzzed contexts; decoding gives NFC."""
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
        ids = render(triple, tokenizer, template).ids
        controls = np.flatnonzero(ids >= 151_643)
        # im_start, im_end, im_start, think, /think, im_end: the six that we insert, and no other
        assert ids[controls].tolist() == [151644, 151645, 151644, 151667, 151668, 151645]
        context = f"[Document 1] {title}\n{first}\n\n[Document 2] {title}\n{second}"
        expected = (
            "user\nPlease reason based on the following documents and answer the question.\n\n"
            f"{context}\n\nQuestion: {question}"
        )
        assert tokenizer.decode(ids[controls[0] + 1 : controls[1]]) == normalize("NFC", expected)


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_control_string_in_a_target_drops_the_row_with_its_place(template: str, tokenizer: Tokenizer) -> None:
    for name in tokenizer.control:
        for reasoning, answer, where in ((f"ab{name}c", "a", "reasoning"), ("r", f"ab{name}", "answer")):
            with pytest.raises(Dropped) as drop:
                render_turns("q", reasoning, answer, tokenizer, template)
            assert drop.value.reason == "control_string_in_target"
            assert drop.value.detail == f"{where} holds {name!r} at character 2"


def test_reasoning_that_melts_into_the_prompt_drops_the_row(
    tokenizer: Tokenizer, huggingface: HuggingFaceTokenizer
) -> None:
    template, num_dropped = "qwen3-thinking-2507", 0
    prompt = huggingface.encode(f"<|im_start|>user\nq<|im_end|>\n{OPENING[template]}").ids
    for reasoning in ("", "r", " r", " ", " \nr", "\r\nr", "\rr", "\tr", "\u2028r", "\u0301r"):
        expected = huggingface.encode(full_text("q", reasoning, "a")).ids
        if expected[: len(prompt)] == prompt:
            assert render_turns("q", reasoning, "a", tokenizer, template).ids.tolist() == expected
            continue
        num_dropped += 1
        with pytest.raises(Dropped) as drop:
            render_turns("q", reasoning, "a", tokenizer, template)
        assert drop.value.reason == "prompt_is_no_prefix"
    assert 2 <= num_dropped <= 8
