"""A document as an HTML page: its text coloured by the loss mask, with a heading for each piece."""

from pathlib import Path

from acc_megatron.common.html_page import write_page
from acc_megatron.data_tools.convert.inspect import (
    CONTEXT,
    CONTROL,
    HEADINGS,
    SUPERVISED,
    SUPERVISED_CONTROL,
    coloured,
    open_document,
)
from acc_megatron.data_tools.tokenizer.qwen_bpe import Tokenizer

_TEMPLATE = Path(__file__).with_name("inspect_page.html.jinja")
CLASSES = {
    SUPERVISED: "supervised",
    SUPERVISED_CONTROL: "supervised control",
    CONTEXT: "context",
    CONTROL: "control",
    **{style: kind for kind, style in HEADINGS.items()},
}


def write_inspect_page(folder: Path, number: int, tokenizer: Tokenizer, out: Path) -> None:
    """Write the complete document of a dataset folder to the HTML file `out`. Raises DataError like `inspect`."""
    document = open_document(folder, number, tokenizer)
    text = coloured(document.ids, document.mask, tokenizer, pieces=document.pieces)
    parts = [(CLASSES[str(span.style)], text.plain[span.start : span.end]) for span in text.spans]
    write_page(out, _TEMPLATE, title=document.title, facts=document.facts, parts=parts, legend=CLASSES.values())
