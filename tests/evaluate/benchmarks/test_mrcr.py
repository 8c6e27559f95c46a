"""MRCR: generated rows meet the invariants of the published ones; every trap of the grader by name."""

import dataclasses
import json
import re

import pytest

from acc_megatron.errors import ConfigError, DataError
from acc_megatron.evaluate.benchmarks.mrcr.benchmark import bin_name, question
from acc_megatron.evaluate.benchmarks.mrcr.generator import make_row, make_rows
from acc_megatron.evaluate.benchmarks.mrcr.grader import METRICS, grade
from acc_megatron.evaluate.benchmarks.mrcr.rows import MrcrRow, check_row, from_row, messages_of

RAND = "mWEa9DrPT3"


def count_words(text: str) -> int:
    return len(text.split())


def row_of(seed: int = 0, n_needles: int = 4, length_tokens: int = 3000) -> MrcrRow:
    return make_row(n_needles=n_needles, length_tokens=length_tokens, count_tokens=count_words, seed=seed)


@pytest.mark.parametrize("n_needles", [2, 4, 8])
def test_the_follow_up_names_the_answer_among_its_needles(n_needles):
    wanted = set()
    for seed in range(30):
        row = row_of(seed, n_needles)
        messages = json.loads(row.prompt)
        last = messages[-1]["content"]
        rand, i, ending, form, topic = re.fullmatch(
            r"Prepend (\w{10}) to the (\d+)(st|nd|rd|th) \(1 indexed\) (.+) about (\w+)\. "
            r"Do not include any other text in your response\.",
            last,
        ).groups()
        asks = [k for k, m in enumerate(messages) if m["content"] == f"write a {form} about {topic}"]
        assert len(asks) == n_needles == row.n_needles
        assert ending == {1: "st", 2: "nd", 3: "rd"}.get(int(i), "th")
        assert asks[int(i) - 1] == row.desired_msg_index
        assert row.answer == rand + messages[row.desired_msg_index + 1]["content"]
        assert row.random_string_to_prepend == rand
        assert len({messages[k + 1]["content"] for k in asks}) == n_needles
        wanted.add(int(i))
    assert len(wanted) >= min(n_needles, 4)  # the occurrence asked for varies


def test_a_row_is_examples_then_pairs_then_the_follow_up():
    row = row_of()
    messages = json.loads(row.prompt)
    first = messages[0]["content"]
    assert first.startswith(
        "Here are some examples of conversations succeeded by a follow-up question answered correctly:"
    )
    assert re.findall(r"======[A-Z ]+======", first) == ["======EXAMPLE======", "======END EXAMPLE======"] * 2
    assert [m["role"] for m in messages[1:-1]] == ["user", "assistant"] * ((len(messages) - 2) // 2)
    assert (messages[0]["role"], messages[-1]["role"]) == ("user", "user")
    assert row.total_messages == len(messages)
    assert row.n_chars == sum(len(m["content"]) for m in messages)


def test_all_texts_of_a_row_are_distinct_and_other_requests_repeat():
    messages = json.loads(row_of(length_tokens=20_000).prompt)
    texts = [m["content"] for m in messages if m["role"] == "assistant"]
    asks = [m["content"] for m in messages[1:-1] if m["role"] == "user"]
    assert len(texts) > 20
    assert len(set(texts)) == len(texts)
    assert sum(asks.count(ask) > 1 for ask in set(asks)) > 3


def test_length_counts_all_messages_and_the_answer_and_is_filled_but_not_exceeded():
    for length in (1500, 8192, 50_000):
        row = row_of(length_tokens=length)
        tokens = sum(count_words(m["content"]) for m in json.loads(row.prompt)) + count_words(row.answer)
        assert length - 500 < tokens <= length


def test_rows_depend_only_on_their_seed():
    rows = make_rows(4, length_tokens=2000, count_tokens=count_words, seed=1)
    assert rows == make_rows(4, length_tokens=2000, count_tokens=count_words, seed=1)
    assert [row.n_needles for row in rows] == [2, 4, 2, 4]
    alike = [make_rows(4, length_tokens=2000, count_tokens=count_words, seed=seed, needles=[2]) for seed in (1, 2)]
    assert len({row.prompt for row in alike[0] + alike[1]}) == 8  # neighbouring seeds share no row


def test_needles_stay_distinct_where_random_texts_would_repeat():
    row = make_row(n_needles=1000, length_tokens=100_000, count_tokens=count_words, seed=0, num_sentences=1)
    messages = json.loads(row.prompt)
    ask = messages[row.desired_msg_index]["content"]
    texts = [messages[k + 1]["content"] for k, m in enumerate(messages) if m["content"] == ask]
    assert len(texts) == len(set(texts)) == 1000


def test_needles_that_do_not_fit_are_rejected_with_the_numbers():
    with pytest.raises(ConfigError, match=r"8 needles .* over the limit of 200"):
        row_of(n_needles=8, length_tokens=200)


def changed(messages: list, index: int, **change: str) -> str:
    return json.dumps([m | change if k == index % len(messages) else m for k, m in enumerate(messages)])


def broken_rows():
    row = row_of()
    messages = json.loads(row.prompt)
    needle_ask = messages[row.desired_msg_index]["content"]
    filler = next(k for k, m in enumerate(messages) if k % 2 and m["content"] != needle_ask)
    first, last = messages[0]["content"], messages[-1]["content"]
    edit = dataclasses.replace
    yield "opens with", edit(row, prompt=changed(messages, 0, content="Hi! " + first))
    yield "two ======EXAMPLE", edit(row, prompt=changed(messages, 0, content=first + "======EXAMPLE======"))
    yield "'User: '", edit(row, prompt=changed(messages, 0, content=first.replace("User: ", "Q: ")))
    yield "alternating", edit(row, prompt=changed(messages, 2, role="user"))
    yield "alternating", edit(row, prompt=changed(messages, -1, role="assistant"))
    yield "prepend the random string", edit(row, prompt=changed(messages, -1, content=last.replace("Do not", "Never")))
    text = row.answer.removeprefix(row.random_string_to_prepend)
    yield "prepend the random string", edit(row, random_string_to_prepend=RAND, answer=RAND + text)
    yield "the request the last message names", edit(row, desired_msg_index=filler)
    yield "followed directly by", edit(row, answer=row.answer.replace(row.random_string_to_prepend, RAND + " "))
    yield "n_needles is 4 and 5", edit(row, prompt=changed(messages, filler, content=needle_ask))
    yield "n_needles is 3 and 4", edit(row, n_needles=3)
    yield "total_messages", edit(row, total_messages=row.total_messages + 1)
    yield "outside", edit(row, desired_msg_index=len(messages) - 1)
    yield "outside", edit(row, desired_msg_index=0)
    yield "not JSON", edit(row, prompt="[")
    yield "list of messages", edit(row, prompt='{"role": "user"}')


@pytest.mark.parametrize("invariant, row", list(broken_rows()))
def test_each_broken_invariant_is_named(invariant, row):
    with pytest.raises(DataError, match=f"here: .*{re.escape(invariant)}"):
        check_row(row, "here")


def test_a_published_row_may_have_more_columns_but_not_fewer():
    columns = dataclasses.asdict(row_of())
    assert from_row(columns | {"date_added": "x"}, "here") == row_of()
    del columns["desired_msg_index"]
    with pytest.raises(DataError, match="here: MRCR column 'desired_msg_index' must be int, got nothing"):
        from_row(columns, "here")


def test_bins_include_their_lower_bound_and_the_last_also_its_upper_bound():
    assert bin_name(4096) == bin_name(8191) == "4096-8192"
    assert bin_name(8192) == "8192-16384"
    assert bin_name(1 << 20) == bin_name((1 << 20) - 1) == "524288-1048576"
    assert bin_name(4095) == bin_name((1 << 20) + 1) == "out of range"


def test_a_question_is_grouped_by_needles_and_by_its_length_including_the_answer():
    row = row_of()
    asked = question(row, "x", lambda text: 4096 if text == row.answer else 0)
    assert asked.groups == {"n_needles": "4", "bin_tokens": "4096-8192"}
    asked = question(row, "x", lambda text: 0 if text == row.answer else 1)
    assert asked.groups == {"n_needles": "4", "bin_tokens": "out of range"}
    assert list(asked.messages) == messages_of(row)
    assert asked.grade(row.answer)["score"] == 1


# The grader. Ratios by hand: 2 x matching characters / characters of both texts, without the random string.


def test_grade_is_the_ratio_after_the_random_string():
    scores = grade(f"{RAND}abcd", f"{RAND}bcde", RAND)  # bcd matches: 2 x 3 / 8
    assert (scores["score"], scores["has_prefix"]) == (0.75, 1)
    assert grade(f"{RAND}abcd", f"{RAND}abcd", RAND)["score"] == 1
    assert grade(f"{RAND}abcd", f"{RAND}wxyz", RAND)["score"] == 0


def test_trap_without_the_random_string_at_the_start_the_score_is_zero():
    for response in ("abcd", f"Sure: {RAND}abcd", f"{RAND[:-1]}abcd", RAND.lower() + "abcd", ""):
        scores = grade(response, f"{RAND}abcd", RAND)
        assert (scores["score"], scores["has_prefix"]) == (0, 0)


def test_trap_the_random_string_is_removed_from_both_sides():
    # with it, "xy" and "ab" would score 2 x 10 / 24
    assert grade(f"{RAND}xy", f"{RAND}ab", RAND)["score"] == 0


def test_trap_a_space_after_the_random_string_lowers_the_score():
    assert grade(f"{RAND} ab", f"{RAND}ab", RAND)["score"] == pytest.approx(4 / 5)


def test_trap_thinking_is_removed_before_the_random_string_is_searched():
    assert grade(f"<think>\nwhich one?\n</think>\n\n{RAND}ab", f"{RAND}ab", RAND)["score"] == 1
    assert grade(f"{RAND}draft</think>no", f"{RAND}ab", RAND)["score"] == 0
    assert grade(f"<think>{RAND}ab", f"{RAND}ab", RAND)["score"] == 0


def test_trap_leading_white_space_is_ignored_and_trailing_counts():
    assert grade(f" \r\n{RAND}ab", f"{RAND}ab", RAND)["score"] == 1
    assert grade(f"{RAND}ab\n", f"{RAND}ab", RAND)["score"] == pytest.approx(4 / 5)


def test_only_the_flexible_score_ignores_text_around_the_answer():
    for response in (f"Sure: {RAND}ab", f"```\n{RAND}ab\n", f"{RAND} ab "):
        scores = grade(response, f"{RAND}ab", RAND)
        assert scores["flexible_score"] == 1 > scores["score"]
    assert grade("ab", f"{RAND}ab", RAND)["flexible_score"] == 0
    assert grade(f"<think>{RAND}ab", f"{RAND}ab", RAND)["flexible_score"] == 0
    assert set(METRICS) <= set(grade("", f"{RAND}ab", RAND))


def test_trap_the_ratio_takes_the_response_first():
    # "tide", "diet" matches only t; "diet", "tide" matches i and e (an example of Python's difflib documentation)
    assert grade(f"{RAND}tide", f"{RAND}diet", RAND)["score"] == 0.25
    assert grade(f"{RAND}diet", f"{RAND}tide", RAND)["score"] == 0.5


def test_trap_matching_of_a_long_response_is_bounded_and_the_bound_is_reported():
    scores = grade(f"{RAND}{'ab' * 5_000_000}", f"{RAND}{'ab' * 50}", RAND)
    assert scores["response_chars"] == 10 + 10_000_000
    assert scores["bound_chars"] == 20_000
    assert scores["unmatched_chars"] == 10_000_000 - 20_000
    # all 100 characters of the answer match; the denominator includes the whole response
    assert scores["score"] == pytest.approx(2 * 100 / (10_000_000 + 100))


def test_a_correct_answer_of_any_length_is_matched_completely():
    text = RAND + "".join(chr(0x4E00 + k % 20_000) for k in range(30_000))
    scores = grade(text, text, RAND)
    assert (scores["score"], scores["unmatched_chars"]) == (1, 0)
