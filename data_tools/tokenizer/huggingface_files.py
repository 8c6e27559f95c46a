"""Hugging Face tokenizer files, so that an exported model folder is complete."""

import json
from pathlib import Path

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as HuggingFaceTokenizer

from acc_megatron.data_tools.tokenizer.qwen_bpe import SPECIAL, Tokenizer, byte_alphabet

# the part of Qwen3's chat format that ACC uses: plain turns, with the thinking inside the assistant's content
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
    """The same vocabulary as a `tokenizers` object; the merge that produces each token follows from the ranks."""
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


def _split(token: bytes, rank: int, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """The two parts that merge into a token; both have lower ranks."""

    def rank_of(part: bytes) -> int:
        return ranks.get(part, rank)

    places = [i for i in range(1, len(token)) if rank_of(token[:i]) < rank and rank_of(token[i:]) < rank]
    if len(places) == 1:
        return token[: places[0]], token[places[0] :]
    # several places are possible: merge the bytes as the encoder does, until two parts are left
    parts = [token[i : i + 1] for i in range(len(token))]
    merged = [rank_of(token[i : i + 2]) for i in range(len(token) - 1)]  # the rank of each part with the next one
    while len(parts) > 2:
        at = merged.index(best := min(merged))
        assert best < rank, f"no merge makes {token!r}"
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
        del merged[at]
        if at:
            merged[at - 1] = rank_of(parts[at - 1] + parts[at])
        if at < len(merged):
            merged[at] = rank_of(parts[at] + parts[at + 1])
    return parts[0], parts[1]
