"""Megatron's own road from text to an indexed dataset, as its `tools/preprocess_data.py` goes it, for comparison.

A pool of Hugging Face tokenizers reads JSON lines of `{"text": ...}`; one process writes the documents with
megatron-core's `IndexedDatasetBuilder`. Run as a program of its own, so that its processes can be measured whole.
"""

import argparse
import json
import multiprocessing
from pathlib import Path
from typing import Any

CHUNK_LINES = 32  # what preprocess_data.py hands a worker at a time

_tokenizer: Any = None


def _initialise(tokenizer_folder: str) -> None:
    global _tokenizer
    from megatron.core.tokenizers.text.libraries.huggingface_tokenizer import HuggingFaceTokenizer

    _tokenizer = HuggingFaceTokenizer(tokenizer_folder)


def _encode(line: str) -> list[int]:
    return _tokenizer.text_to_ids(json.loads(line)["text"])


def main() -> None:
    """Tokenise `--input` with `--workers` processes into `--out`.bin and `--out`.idx."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    for name in ("--input", "--tokenizer", "--out"):
        parser.add_argument(name, required=True)
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    from acc_megatron import cpu_backend

    cpu_backend.install()
    import numpy as np
    from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

    builder = IndexedDatasetBuilder(f"{arguments.out}.bin", dtype=np.int32)
    with (
        Path(arguments.input).open(encoding="utf-8") as lines,
        multiprocessing.Pool(arguments.workers, _initialise, (arguments.tokenizer,)) as pool,
    ):
        for ids in pool.imap(_encode, lines, CHUNK_LINES):
            builder.add_document(ids, [len(ids)])
        pool.close()
        pool.join()
    builder.finalize(f"{arguments.out}.idx")


if __name__ == "__main__":
    main()
