"""A document is shown coloured by its mask, and its text cannot control the terminal."""

import io
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np
import pytest
from rich.console import Console
from rich.text import Text

from acc_megatron.data_tools.convert.convert import ConvertSettings, convert
from acc_megatron.data_tools.convert.dataset_folder import open_dataset
from acc_megatron.data_tools.convert.inspect import CONTEXT, CONTROL, SUPERVISED, SUPERVISED_CONTROL, coloured, inspect
from acc_megatron.data_tools.convert.render import exchange, render_turns
from acc_megatron.data_tools.tokenizer.qwen_bpe import Tokenizer
from acc_megatron.errors import DataError

Writer = Callable[[Path, list[Any]], Path]


def styled(text: Text) -> list[tuple[str, str]]:
    """All styled parts in order."""
    return [(text.plain[span.start : span.end], str(span.style)) for span in text.spans]


def shown(path: Path, number: int, tokenizer: Tokenizer, **settings: Any) -> str:
    console = Console(file=io.StringIO(), force_terminal=True, width=200)
    inspect(path, number, tokenizer, console, **settings)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_colours_follow_the_mask(tokenizer: Tokenizer) -> None:
    rendered = render_turns(exchange("Why 世界?", "Think.", "So."), tokenizer)
    first, supervised = rendered.num_prompt_tokens, int(rendered.mask.sum())
    assert styled(coloured(rendered.ids, rendered.mask, tokenizer)) == [
        ("<|im_start|>", CONTROL),
        ("user\nWhy 世界?", CONTEXT),
        ("<|im_end|>", CONTROL),
        ("\n", CONTEXT),
        ("<|im_start|>", CONTROL),
        ("assistant\n", CONTEXT),
        (f"── {supervised} supervised tokens from token {first} ──\n", SUPERVISED),
        ("<think>", SUPERVISED_CONTROL),
        ("\nThink.\n", SUPERVISED),
        ("</think>", SUPERVISED_CONTROL),
        ("\n\nSo.", SUPERVISED),
        ("<|im_end|>", SUPERVISED_CONTROL),
        (f"\n── not supervised from token {first + supervised} ──\n", CONTEXT),
        ("\n", CONTEXT),
    ]
    assert len({SUPERVISED, SUPERVISED_CONTROL, CONTEXT, CONTROL}) == 4


def test_text_that_spells_a_control_token_is_not_coloured_as_one(tokenizer: Tokenizer) -> None:
    rendered = render_turns(exchange("<think>", "r", "a"), tokenizer)
    assert ("user\n<think>", CONTEXT) in styled(coloured(rendered.ids, rendered.mask, tokenizer))


@pytest.mark.parametrize("context_tokens", [1, 2, 51, 400])
def test_long_context_is_hidden_and_counted_and_targets_never_are(tokenizer: Tokenizer, context_tokens: int) -> None:
    user, reasoning = "word " * 1_000, "thought " * 1_000
    rendered = render_turns(exchange(user, reasoning, "So."), tokenizer)
    text = coloured(rendered.ids, rendered.mask, tokenizer, context_tokens).plain
    hidden = rendered.num_prompt_tokens - max(context_tokens // 2 * 2, 2)
    assert f"... {hidden:,} context tokens not shown (--all shows them) ..." in text
    assert text.count("word") <= max(context_tokens, 2)
    assert text.count("thought") == 1_000 and "So.<|im_end|>" in text
    assert coloured(rendered.ids, rendered.mask, tokenizer, 0).plain.count("word") == 1_000


def test_the_header_describes_the_document(dataset: Path, tokenizer: Tokenizer) -> None:
    ids, mask = open_dataset(dataset).document(4)
    output = shown(dataset, 4, tokenizer, context_tokens=0)
    assert "document 4 of 64: run-4 (swe)" in output
    assert f"{len(ids):,} tokens, {int(mask.sum()):,} supervised" in output
    assert f"from token {len(ids) - int(mask.sum()) - 1:,}; 1 evidence, 1 distractors; reasoning from agent" in output
    assert "\x1b[1;32m" in output, "supervised text is bold green on a terminal"


def test_without_a_terminal_lines_are_not_wrapped_and_the_mask_is_described_in_words(
    dataset: Path, tokenizer: Tokenizer
) -> None:
    plain = io.StringIO()
    inspect(dataset, 4, tokenizer, Console(file=plain, width=20), context_tokens=0)
    ids, mask = open_dataset(dataset).document(4)
    bounds = np.flatnonzero(np.diff(mask)) + 1
    context, target, tail = (normalize("NFC", tokenizer.decode(part)) for part in np.split(ids, bounds))
    heading = f"── {int(mask.sum()):,} supervised tokens from token {bounds[0]:,} ──\n"
    begin, end = plain.getvalue().index(heading), plain.getvalue().index("\n── not supervised from token")
    shown_target = plain.getvalue()[begin + len(heading) : end]
    expected = "".join(c if c in "\n\t" or c.isprintable() else f"\\x{ord(c):02x}" for c in target)
    blanks = re.compile(r"[ \t]+")  # a tab is shown as blanks
    assert blanks.sub(" ", shown_target) == blanks.sub(" ", expected)
    assert context.endswith("<|im_start|>assistant\n") and tail == "\n"
    assert "legend" not in plain.getvalue() and "\x1b" not in plain.getvalue()


def test_untrusted_text_cannot_control_the_terminal(
    tmp_path: Path, tokenizer: Tokenizer, triple_rows: list[dict[str, Any]], write_rows: Writer
) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\x9b31m\r\x08\x7f\u202e[/bold]"
    row = triple_rows[0] | dict.fromkeys(("id", "agent", "question", "reasoning", "answer", "reasoning_source"), evil)
    source = write_rows(tmp_path / "triples.jsonl", [row])
    convert([source], tmp_path / "out", ConvertSettings())
    plain = io.StringIO()
    inspect(tmp_path / "out", 0, tokenizer, Console(file=plain, width=10_000), context_tokens=0)
    assert {c for c in plain.getvalue() if not c.isprintable()} <= {"\n"}
    assert plain.getvalue().count("\\x1b]0;owned\\x07\\x1b[2J\\x9b31m\\x0d\\x08\\x7f\\x202e[/bold]") == 6


def test_another_tokenizer_is_refused_and_both_are_named(dataset: Path, tokenizer: Tokenizer) -> None:
    other = replace(tokenizer, sha256="f" * 64)
    with pytest.raises(DataError, match=f"made with tokenizer {tokenizer.sha256}, this is {'f' * 64}"):
        shown(dataset, 0, other)


def test_an_unknown_document_number_is_refused(dataset: Path, tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match="has no document 64: documents are numbered 0 to 63"):
        shown(dataset, 64, tokenizer)


def test_every_piece_starts_with_its_kind_title_and_length(dataset: Path, tokenizer: Tokenizer) -> None:
    output = Text.from_ansi(shown(dataset, 3, tokenizer, context_tokens=20)).plain
    first, second = open_dataset(dataset).samples["pieces"][3].as_py()
    heading = output.index(f"── 1 evidence: Evidence ({first['tokens']:,} tokens) ──\n[Document 1] Evidence\n")
    assert heading < output.index(f"── 2 distractor: <think> ({second['tokens']:,} tokens) ──\n[Document 2] <think>\n")
    assert output.count("context tokens not shown") >= 2, "each piece keeps both its ends"
