"""The baseline that `convert` is compared with: read JSON lines `{"text": ...}`, encode each text, keep nothing."""

import argparse
import json
from pathlib import Path

from acc_megatron.data_tools.tokenizer.gigatoken_engine import ENGINES, with_engine
from acc_megatron.data_tools.tokenizer.qwen_bpe import load_tokenizer


def main() -> None:
    """Tokenize `--input` in one process with `--engine`."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--engine", choices=ENGINES, default="auto")
    arguments = parser.parse_args()
    tokenizer = with_engine(load_tokenizer(), arguments.engine)
    with arguments.input.open("rb") as file:
        for line in file:
            tokenizer.encode(json.loads(line)["text"])


if __name__ == "__main__":
    main()
