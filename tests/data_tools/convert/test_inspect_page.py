"""The page of a document shows the text and the mask of the dataset, and cannot contain markup of the data."""

import html
import re
from pathlib import Path
from typing import Any

import numpy as np

from acc_megatron.data_tools.convert.convert import ConvertSettings, convert
from acc_megatron.data_tools.convert.dataset_folder import open_dataset
from acc_megatron.data_tools.convert.inspect_page import write_inspect_page
from acc_megatron.data_tools.tokenizer.qwen_bpe import Tokenizer


def test_the_page_has_the_text_of_the_document_with_its_mask_and_pieces(
    tmp_path: Path, tokenizer: Tokenizer, write_rows: Any
) -> None:
    pieces = [
        {"id": "a", "title": "Oslo <script>alert(1)</script>", "text": "Oslo & Bergen", "kind": "evidence"},
        {"id": "b", "title": "page b", "text": "other text", "kind": "distractor"},
    ]
    triple = {"id": "t", "agent": "search", "question": "Which?", "context": pieces}
    source = write_rows(tmp_path / "triples.jsonl", [triple | {"reasoning": "It says <b>so</b>.", "answer": "Oslo"}])
    convert([source], tmp_path / "data", ConvertSettings())
    write_inspect_page(tmp_path / "data", 0, tokenizer, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "<script" not in page and "<b>" not in page
    assert "1 evidence: Oslo &lt;script&gt;" in page and "2 distractor: page b" in page
    body = page.partition("<pre>")[2].partition("</pre>")[0]
    parts = [
        (name, html.unescape(text)) for name, text in re.findall(r'<span class="([^"]*)">(.*?)</span>', body, re.S)
    ]
    shown = [(name, re.sub(r"\n?── .* ──\n", "", text)) for name, text in parts]
    ids, mask = open_dataset(tmp_path / "data").document(0)
    supervised = "".join(text for name, text in shown if name.startswith("supervised"))
    assert (
        supervised
        == tokenizer.decode(ids[np.flatnonzero(mask)])
        == "<think>\nIt says <b>so</b>.\n</think>\n\nOslo<|im_end|>"
    )
    assert "".join(text for _, text in shown) == tokenizer.decode(ids)
