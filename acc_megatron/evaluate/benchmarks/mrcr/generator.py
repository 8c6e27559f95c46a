"""Seeded MRCR rows of any length, under the published columns; their texts come from templates."""

import json
import random
import string
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from acc_megatron.errors import ConfigError
from acc_megatron.evaluate.benchmarks.mrcr.rows import (
    END_EXAMPLE,
    EXAMPLE,
    OPENING,
    MrcrRow,
    Request,
    chat_message,
    check_row,
    follow_up,
    request_text,
)
from acc_megatron.evaluate.benchmarks.mrcr.texts import FORMATS, TOPICS, write_text
from acc_megatron.evaluate.benchmarks.question import CountTokens, item_seed
from acc_megatron.evaluate.checks import check_at_least

_RANDOM_CHARS = 10
_MAX_SENTENCES = 24  # near the published mean answer of 1,796 characters


def make_row(
    *, n_needles: int, length_tokens: int, count_tokens: CountTokens, seed: int, num_sentences: int | None = None
) -> MrcrRow:
    """One seeded row that fills `length_tokens` (all message contents plus the answer) without exceeding it.

    Texts have `num_sentences` sentences (default: 1 to 24, by the length). Other requests repeat too, at most as often
    as the chosen one, until every request was used. Raises ConfigError if the needles do not fit.
    """
    check_at_least("n_needles", n_needles, 1)
    rng = random.Random(seed)
    if num_sentences is None:
        num_sentences = max(1, min(_MAX_SENTENCES, length_tokens // 700))
    written: set[str] = set()
    write = partial(_write_new, rng, num_sentences=num_sentences, written=written)
    target = rng.choice(FORMATS), rng.choice(TOPICS)
    needles = [write(target) for _ in range(n_needles)]
    wanted = rng.randrange(n_needles)
    rand = _random_string(rng)
    answer = rand + needles[wanted]
    opening, closing = _opening(rng, write), follow_up(rand, wanted + 1, target)
    fixed = [opening, closing, answer, *needles, *[request_text(target)] * n_needles]
    left_tokens = length_tokens - sum(map(count_tokens, fixed))
    if left_tokens < 0:
        raise ConfigError(
            f"an MRCR row with {n_needles} needles of {num_sentences} sentences has {length_tokens - left_tokens} "
            f"tokens before any other text, over the limit of {length_tokens}; raise the limit or choose fewer needles"
        )
    fillers = []
    for request in _other_requests(rng, target, n_needles):
        text = write(request)
        left_tokens -= count_tokens(request_text(request)) + count_tokens(text)
        if left_tokens < 0:
            break
        fillers.append((request, text))
    slots = sorted(rng.sample(range(len(fillers) + n_needles), n_needles))
    rng.shuffle(fillers)
    pairs = list(fillers)
    for slot, needle in zip(slots, needles, strict=True):
        pairs.insert(slot, (target, needle))
    messages = [chat_message("user", opening)]
    for request, text in pairs:
        messages += chat_message("user", request_text(request)), chat_message("assistant", text)
    messages.append(chat_message("user", closing))
    row = MrcrRow(
        prompt=json.dumps(messages, ensure_ascii=False),
        answer=answer,
        random_string_to_prepend=rand,
        n_needles=n_needles,
        desired_msg_index=1 + 2 * slots[wanted],
        total_messages=len(messages),
        n_chars=sum(len(message["content"]) for message in messages),
    )
    check_row(row, f"generated row of seed {seed}")
    return row


def make_rows(
    count: int, *, length_tokens: int, count_tokens: CountTokens, seed: int, needles: Sequence[int] = (2, 4)
) -> list[MrcrRow]:
    """`count` rows; the needle counts alternate (the ACC paper reports 2 and 4)."""
    return [
        make_row(
            n_needles=needles[index % len(needles)],
            length_tokens=length_tokens,
            count_tokens=count_tokens,
            seed=item_seed("mrcr", seed, index),
        )
        for index in range(count)
    ]


def _write_new(rng: random.Random, request: Request, *, num_sentences: int, written: set[str]) -> str:
    """A text that is not in `written`."""
    while (text := write_text(rng, *request, num_sentences)) in written:
        pass
    written.add(text)
    return text


def _other_requests(rng: random.Random, target: Request, at_most: int) -> Iterator[Request]:
    """Endless requests other than `target`, each repeated 1 to `at_most` times in a row."""
    others = [(form, topic) for form in FORMATS for topic in TOPICS if (form, topic) != target]
    while True:
        rng.shuffle(others)
        for request in others:
            yield from [request] * rng.randint(1, at_most)


def _opening(rng: random.Random, write: Callable[[Request], str]) -> str:
    """Message 0: two worked examples, each with a request answered twice and a follow-up about one of the answers."""
    blocks = []
    for topic in rng.sample(TOPICS, 2):
        request = rng.choice(FORMATS), topic
        texts, wanted, rand = [write(request), write(request)], rng.randrange(2), _random_string(rng)
        turns = [f"User: {request_text(request)}\nAssistant: {text}\n" for text in texts]
        turns.append(f"User: {follow_up(rand, wanted + 1, request)}\nAssistant: {rand}{texts[wanted]}\n")
        blocks.append("\n".join([f"{EXAMPLE}", *turns, f"{END_EXAMPLE}\n"]))
    return "\n".join([f"{OPENING}\n", *blocks])


def _random_string(rng: random.Random) -> str:
    return "".join(rng.choices(string.ascii_letters + string.digits, k=_RANDOM_CHARS))
