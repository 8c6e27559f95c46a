"""A tiny model that the tests of `eval` share."""

import json
from pathlib import Path

import pytest
from support.make_inputs import QWEN_VOCAB_SIZE, make_hf_folder


@pytest.fixture(scope="session")
def hf_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen3-MoE of one layer with the real vocabulary; its generation settings must have no effect."""
    folder = make_hf_folder(
        tmp_path_factory.mktemp("hf") / "tiny", num_hidden_layers=1, hidden_size=16, max_position_embeddings=4096,
        vocab_size=QWEN_VOCAB_SIZE,
    )  # fmt: skip
    (folder / "generation_config.json").write_text(json.dumps({"suppress_tokens": list(range(100_000))}))
    return folder
