"""A byte-level BPE of a few hundred tokens with Qwen's pattern and control tokens.

Most of the time of a tiny model with Qwen's 151,936 tokens goes to its embeddings and its output layer.
"""

from collections.abc import Sequence
from pathlib import Path

from acc_megatron.data_tools.tokenizer.qwen_bpe import ADDED, PATTERN, SPECIAL

VOCAB_SIZE = 1024  # of models; the tokenizer has fewer ids, as Qwen's does
NUM_PLAIN_TOKENS = 900
# what `convert` adds to the words of the documents, so that its texts have as many tokens as with Qwen's vocabulary
ADDED_TEXT = (
    "user\nPlease reason based on the following documents and answer the question.\n\n[ Document 1] page\n"
    "\n\nQuestion: which assistant\n"
)


def write_small_tokenizer(folder: Path, words: Sequence[str], pattern: str = PATTERN) -> Path:
    """Write `folder`/tokenizer.json, which has one token for each of `words`; return the folder."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    built = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    built.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=NUM_PLAIN_TOKENS,
        min_frequency=1,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [ADDED_TEXT, *ADDED_TEXT.split(), *words, *(f" {word}" for word in words)]
    built.train_from_iterator(texts, trainer)
    built.add_tokens([*SPECIAL, *ADDED])
    folder.mkdir(parents=True, exist_ok=True)
    built.save(str(folder / "tokenizer.json"))
    return folder
