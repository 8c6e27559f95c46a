"""The MRCR grader: the published ratio behind the random string, and a flexible one."""

from difflib import SequenceMatcher

from acc_megatron.evaluate.benchmarks.question import UNMATCHED_CHARS, strip_thinking

METRICS = ("score", "flexible_score", "has_prefix")
MIN_BOUND_CHARS = 20_000


def grade(response: str, answer: str, random_string_to_prepend: str) -> dict[str, float]:
    """0 without the random string at the start, otherwise the `SequenceMatcher` ratio of the rest to the text.

    As in the dataset card, evalscope, NeMo and opencompass: response first, answer second (the ratio is not
    symmetric). Thinking is removed first, then leading newlines and spaces; trailing ones count, as in the card.

    SequenceMatcher is quadratic at worst, so characters after `bound_chars` (twice the answer, at least 20,000) are not
    matched. They still count in the ratio's length, and `unmatched_chars` is their number.

    The flexible score ignores what comes before the random string (a greeting, quotes, a code fence) and white space
    around the text; without the string it is 0 too.
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
        UNMATCHED_CHARS: max(0, len(after) - bound_chars) if found else 0,
        "response_chars": len(response),
        "bound_chars": bound_chars,
    }


def _ratio(response: str, answer: str, bound_chars: int) -> float:
    head = response[:bound_chars]
    score = SequenceMatcher(None, head, answer).ratio()
    if len(head) < len(response):
        score *= (len(head) + len(answer)) / (len(response) + len(answer))
    return score
