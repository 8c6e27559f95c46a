"""Hugging Face tokenizer files made from the plain ranks, so that an exported model stands alone."""

import json
from pathlib import Path

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as HuggingFaceTokenizer

from acc_megatron.data_tools.tokenizer import SPECIAL, Tokenizer, byte_alphabet

# the part of Qwen3's chat format that ACC uses: plain turns, thinking written into the assistant's text
CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)


def write_tokenizer_files(tokenizer: Tokenizer, folder: Path, *, max_length_tokens: int) -> None:
    """Write tokenizer.json, tokenizer_config.json and chat_template.jinja into an existing folder."""
    build_huggingface_tokenizer(tokenizer).save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "model_max_length": max_length_tokens,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2))
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)


def build_huggingface_tokenizer(tokenizer: Tokenizer) -> HuggingFaceTokenizer:
    """The same vocabulary as a `tokenizers` object; the one merge that made each token is found by its rank."""
    alphabet = byte_alphabet()
    names = {token: "".join(alphabet[byte] for byte in token) for token in tokenizer.ranks}
    ordered = sorted(tokenizer.ranks.items(), key=lambda item: item[1])
    merges = []
    for token, rank in ordered:
        if len(token) > 1:
            left, right = _split(token, rank, tokenizer.ranks)
            merges.append((names[left], names[right]))
    built = HuggingFaceTokenizer(models.BPE(vocab={names[token]: rank for token, rank in ordered}, merges=merges))
    built.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(tokenizer.pattern), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    built.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    built.decoder = decoders.ByteLevel()
    for name, _ in sorted(tokenizer.control.items(), key=lambda item: item[1]):
        built.add_tokens([AddedToken(name, special=name in SPECIAL, normalized=False)])
    return built


def _split(token: bytes, rank: int, ranks: dict[bytes, int]) -> list[bytes]:
    """Merge the bytes of a token by the ranks below its own until two parts are left."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        best, at = min((ranks.get(a + b, rank), i) for i, (a, b) in enumerate(zip(parts, parts[1:], strict=False)))
        assert best < rank, f"no merge makes {token!r}"
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts
