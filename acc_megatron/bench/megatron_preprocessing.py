"""Megatron's preprocessing from text to an indexed dataset, for comparison; it repeats `tools/preprocess_data.py`.

A pool of Hugging Face tokenizers reads JSON lines `{"text": ...}`, and one process writes the documents with
megatron-core's `IndexedDatasetBuilder`. It is a separate program so that all its processes can be measured.
"""

import argparse
import json
import multiprocessing
from pathlib import Path
from typing import Any

CHUNK_LINES = 32  # lines that preprocess_data.py sends to a worker at a time

_tokenizer: Any = None


def _initialise(tokenizer_folder: str) -> None:
    global _tokenizer
    from megatron.core.tokenizers.text.libraries.huggingface_tokenizer import HuggingFaceTokenizer

    _tokenizer = HuggingFaceTokenizer(tokenizer_folder)


def _encode(line: str) -> list[int]:
    return _tokenizer.text_to_ids(json.loads(line)["text"])


def main() -> None:
    """Tokenize `--input` with `--workers` processes into `--out`.bin and `--out`.idx."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    for name in ("--input", "--tokenizer", "--out"):
        parser.add_argument(name, required=True)
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    from acc_megatron.mesh import cpu_backend

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
