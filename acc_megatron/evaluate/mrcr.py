"""OpenAI MRCR (openai/mrcr, MIT): synthetic rows under the published columns, their invariants, and the grader.

A row is a long chat of writing requests in which one request occurs `n_needles` times; the model must repeat the
text that answered its i-th occurrence. Published texts are GPT-4o's; ours come from templates.
"""

import json
import random
import re
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from functools import partial
from itertools import pairwise
from typing import Any

from acc_megatron.errors import ConfigError, DataError
from acc_megatron.evaluate.items import (
    CountTokens,
    Message,
    Question,
    Row,
    check_at_least,
    item_seed,
    strip_thinking,
)
from acc_megatron.evaluate.mrcr_texts import FORMATS, TOPICS, write_text

NAME = "mrcr"
METRICS = ("score", "flexible_score", "has_prefix")
OPENING = "Here are some examples of conversations succeeded by a follow-up question answered correctly:"
EXAMPLE, END_EXAMPLE = "======EXAMPLE======", "======END EXAMPLE======"
BIN_EDGES_TOKENS = tuple(4096 << i for i in range(9))  # 8 doubling bins, 4,096 to 1,048,576
MIN_BOUND_CHARS = 20_000
_RANDOM_CHARS = 10
_MAX_SENTENCES = 24  # near the published mean answer of 1,796 characters
_FOLLOW_UP = re.compile(
    r"Prepend (?P<rand>\S{10}) to the [1-9]\d*(?:st|nd|rd|th) \(1 indexed\) "
    r"(?P<format>.+) about (?P<topic>.+)\. Do not include any other text in your response\."
)
Ask = tuple[str, str]  # format, topic


def make_row(
    *, n_needles: int, length_tokens: int, count_tokens: CountTokens, seed: int, num_sentences: int | None = None
) -> Row:
    """One seeded row that fills `length_tokens` (contents of all messages, plus the answer) without passing it.

    Texts have `num_sentences` sentences (default: by the length, 1 to 24). Other requests recur too, as often as
    the chosen one at most, until every request was used. Raises ConfigError when the needles alone do not fit.
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
    opening, closing = _opening(rng, write), _follow_up(rand, wanted + 1, target)
    fixed = [opening, closing, answer, *needles, *[_ask(target)] * n_needles]
    left_tokens = length_tokens - sum(map(count_tokens, fixed))
    if left_tokens < 0:
        raise ConfigError(
            f"an MRCR row with {n_needles} needles of {num_sentences} sentences has {length_tokens - left_tokens} "
            f"tokens before any other text, over the limit of {length_tokens}; raise it or ask for fewer needles"
        )
    fillers = []
    for ask in _other_asks(rng, target, n_needles):
        text = write(ask)
        left_tokens -= count_tokens(_ask(ask)) + count_tokens(text)
        if left_tokens < 0:
            break
        fillers.append((ask, text))
    slots = sorted(rng.sample(range(len(fillers) + n_needles), n_needles))
    rng.shuffle(fillers)
    pairs = list(fillers)
    for slot, needle in zip(slots, needles, strict=True):
        pairs.insert(slot, (target, needle))
    messages = [_message("user", opening)]
    for ask, text in pairs:
        messages += _message("user", _ask(ask)), _message("assistant", text)
    messages.append(_message("user", closing))
    row = Row(
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
) -> list[Row]:
    """`count` rows; the needle counts take turns (2 and 4 are the ones the ACC paper reports)."""
    return [
        make_row(
            n_needles=needles[index % len(needles)],
            length_tokens=length_tokens,
            count_tokens=count_tokens,
            seed=item_seed(NAME, seed, index),
        )
        for index in range(count)
    ]


def _write_new(rng: random.Random, ask: Ask, *, num_sentences: int, written: set[str]) -> str:
    """A text unlike all before it."""
    while (text := write_text(rng, *ask, num_sentences)) in written:
        pass
    written.add(text)
    return text


def _other_asks(rng: random.Random, target: Ask, at_most: int) -> Iterator[Ask]:
    """Requests other than `target` without end, in groups of 1 to `at_most` alike."""
    others = [(form, topic) for form in FORMATS for topic in TOPICS if (form, topic) != target]
    while True:
        rng.shuffle(others)
        for ask in others:
            yield from [ask] * rng.randint(1, at_most)


def _opening(rng: random.Random, write: Callable[[Ask], str]) -> str:
    """Message 0: two worked examples, each a request answered twice and the follow-up about one of the two."""
    blocks = []
    for topic in rng.sample(TOPICS, 2):
        ask = rng.choice(FORMATS), topic
        texts, wanted, rand = [write(ask), write(ask)], rng.randrange(2), _random_string(rng)
        turns = [f"User: {_ask(ask)}\nAssistant: {text}\n" for text in texts]
        turns.append(f"User: {_follow_up(rand, wanted + 1, ask)}\nAssistant: {rand}{texts[wanted]}\n")
        blocks.append("\n".join([f"{EXAMPLE}", *turns, f"{END_EXAMPLE}\n"]))
    return "\n".join([f"{OPENING}\n", *blocks])


def _ask(ask: Ask) -> str:
    return f"write a {ask[0]} about {ask[1]}"  # "write a email about horses" is how the rows say it


def _follow_up(rand: str, i: int, ask: Ask) -> str:
    ordinal = f"{i}{'th' if i % 100 in (11, 12, 13) else {1: 'st', 2: 'nd', 3: 'rd'}.get(i % 10, 'th')}"
    return (
        f"Prepend {rand} to the {ordinal} (1 indexed) {ask[0]} about {ask[1]}. "
        "Do not include any other text in your response."
    )


def _random_string(rng: random.Random) -> str:
    return "".join(rng.choices(string.ascii_letters + string.digits, k=_RANDOM_CHARS))


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def messages_of(row: Row, where: str = "row") -> list[Message]:
    """The chat in a row's `prompt`. Raises DataError if it is not a JSON list of role and content."""
    try:
        messages = json.loads(row.prompt)
    except ValueError as error:
        raise DataError(f"{where}: 'prompt' is not JSON: {error}") from None
    good = isinstance(messages, list) and all(
        isinstance(message, dict)
        and message.get("role") in ("user", "assistant")
        and isinstance(message.get("content"), str)
        for message in messages
    )
    if not good:
        raise DataError(f"{where}: 'prompt' must be a list of messages with a role (user, assistant) and content")
    return [_message(message["role"], message["content"]) for message in messages]


def check_row(row: Row, where: str = "row") -> None:
    """Raise DataError, naming the first broken invariant of a published row.

    The invariants hold in the real files as a public checker found them: two example blocks, then strict
    user and assistant pairs, then the follow-up; `answer` is the random string and the chosen text with nothing
    between; exactly `n_needles` requests equal the chosen one.
    """
    messages = messages_of(row, where)
    if not 0 < row.desired_msg_index < len(messages) - 2:
        raise DataError(f"{where}: desired_msg_index {row.desired_msg_index} is outside {len(messages)} messages")
    first, chosen = messages[0]["content"], messages[row.desired_msg_index]
    asks = [message["content"] for message in messages[1:-1] if message["role"] == "user"]
    follow_up = _FOLLOW_UP.fullmatch(messages[-1]["content"])
    pairs = ["user", "assistant"] * ((len(messages) - 2) // 2)
    num_same = asks.count(chosen["content"])
    promises = {
        f"message 0 opens with {OPENING!r}": first.startswith(OPENING),
        f"message 0 has two {EXAMPLE} blocks": re.findall(r"={6}(?:END )?EXAMPLE={6}", first)
        == [EXAMPLE, END_EXAMPLE] * 2,
        "the examples hold 'User: ' and 'Assistant: ' lines": "\nUser: " in first and "\nAssistant: " in first,
        "a user message, then user and assistant in turn, then a user message": [m["role"] for m in messages]
        == ["user", *pairs, "user"],
        "the last message asks to prepend the random string": follow_up is not None
        and follow_up["rand"] == row.random_string_to_prepend,
        "desired_msg_index is the request the last message names": follow_up is not None
        and chosen == _message("user", _ask((follow_up["format"], follow_up["topic"]))),
        "answer is the random string and the chosen text, nothing between": row.answer
        == row.random_string_to_prepend + messages[row.desired_msg_index + 1]["content"],
        f"n_needles is {row.n_needles} and {num_same} requests equal the chosen one": num_same == row.n_needles,
        f"total_messages is {row.total_messages} of {len(messages)}": row.total_messages == len(messages),
    }
    for promise, kept in promises.items():
        if not kept:
            raise DataError(f"{where}: not an MRCR row; this does not hold: {promise}")


def grade(response: str, answer: str, random_string_to_prepend: str) -> dict[str, float]:
    """0 without the random string in front, else the `SequenceMatcher` ratio of what follows it to the text.

    As in the dataset card, evalscope, NeMo and opencompass: response first, answer second (the ratio is not
    symmetric). Thinking is removed first, then leading newlines and spaces; trailing ones count, as in the card.

    SequenceMatcher is quadratic at worst, so characters past `bound_chars` (twice the answer, at least 20,000) are
    not matched; they still count in the ratio's length, and `unmatched_chars` says how many there were.

    The flexible score forgives what stands before the random string (a greeting, quotes, a code fence) and white
    space around the text; without the string it is 0 too.
    """
    response = strip_thinking(response).lstrip("\r\n ")
    bound_chars = max(MIN_BOUND_CHARS, 2 * len(answer))
    text = answer.removeprefix(random_string_to_prepend)
    before, found, after = response.partition(random_string_to_prepend)
    strict = bool(found) and not before
    return {
        "score": _ratio(after, text, bound_chars) if strict else 0.0,
        "flexible_score": _ratio(after.strip(), text.strip(), bound_chars) if found else 0.0,
        "has_prefix": float(strict),
        "unmatched_chars": max(0, len(after) - bound_chars) if found else 0,
        "response_chars": len(response),
        "bound_chars": bound_chars,
    }


def _ratio(response: str, answer: str, bound_chars: int) -> float:
    head = response[:bound_chars]
    score = SequenceMatcher(None, head, answer).ratio()
    if len(head) < len(response):
        score *= (len(head) + len(answer)) / (len(response) + len(answer))
    return score


def bin_name(num_tokens: int) -> str:
    """The bin of a row by the tokens of all contents and the answer, such as `8192-16384`; else `out of range`.

    Bins are closed on the left; the last one on the right too.
    """
    for low, high in pairwise(BIN_EDGES_TOKENS):
        if low <= num_tokens < high or num_tokens == high == BIN_EDGES_TOKENS[-1]:
            return f"{low}-{high}"
    return "out of range"


def from_row(row: Mapping[str, Any], where: str) -> Row:
    """A published row; columns we do not know are left aside. Raises DataError for another shape."""
    types = Row.__annotations__
    for name, kind in types.items():
        if not isinstance(row.get(name), kind):
            found = type(row[name]).__name__ if name in row else "nothing"
            raise DataError(f"{where}: MRCR column {name!r} must be {kind.__name__}, got {found}")
    result = Row(**{name: row[name] for name in types})
    check_row(result, where)
    return result


def question(row: Row, row_id: str, count_tokens: CountTokens) -> Question:
    """The row as the runner asks it, grouped by needle count and by its bin under this token count."""
    messages = messages_of(row, row_id)
    num_tokens = sum(count_tokens(message["content"]) for message in messages)
    return Question(
        id=row_id,
        benchmark=NAME,
        groups={"n_needles": str(row.n_needles), "bin_tokens": bin_name(num_tokens + count_tokens(row.answer))},
        messages=tuple(messages),
        grade=partial(grade, answer=row.answer, random_string_to_prepend=row.random_string_to_prepend),
        num_tokens=num_tokens,
    )
