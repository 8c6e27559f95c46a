"""The ground truth of a search row and its aliases, under the names that data sets use.

Data sets write the truth as a text, a number, a list of texts (an answer with its aliases), or an object with such a
list (`ground_truth.target`, `answer.aliases`), in the row itself or in one of _PLACES.
"""

import re
from functools import lru_cache
from typing import Any

from acc_megatron.data_tools.rows.fields import embedded_list, embedded_object, plain_name
from acc_megatron.errors import Dropped

TRUTH_KEYS = (
    "ground_truth", "gold_answer", "gold", "label", "golden_answers", "gold_answers", "golden", "golden_answer",
    "true_answer", "gt", "gt_answer", "correct_answer", "correct_answers", "reference_answer", "reference_answers",
    "expected_answer", "expected", "ground_truths", "groundtruth", "ground_truth_answer", "gold_label",
    "possible_answers", "answer_list", "target", "targets",
    "reference", "solution", "answer_key", "expected_output", "gts", "ans", "Answer",
)  # fmt: skip
ANSWER_KEYS = ("answer", "answers")  # the truth, unless another key has it
_KEYS, _TRUTH_KEYS = (*TRUTH_KEYS, *ANSWER_KEYS), frozenset(TRUTH_KEYS)
_PLACES = (  # verl, MINT, and the rows of data sets around a run
    "reward_model", "reward_spec", "extra_info", "metadata", "meta", "task", "sample", "example", "item", "qa", "doc",
    "reference_outputs",
)  # fmt: skip
# gold, true or expected answers under other names, such as `gold_ans` and `expected_answers`
_TRUE_WORDS = {
    "gold",
    "golden",
    "ground",
    "truth",
    "true",
    "correct",
    "reference",
    "ref",
    "expected",
    "standard",
    "target",
}
_ANSWER_WORDS = {"answer", "answers", "ans", "label", "labels", "list", "text", "value", "final"}
_NO_COMMA = re.compile(r"""^\s*\[\s*(['"]).*\1\s+['"]""", re.DOTALL)
_QUOTED = re.compile(r"""'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)\"""")
_MAIN_KEYS = ("target", "value", "answer", "ground_truth", "text", "answers")
_LIST_KEYS = ("target", "targets", "aliases", "normalized_aliases", "answers", "text")
_ALIAS_KEYS = ("golden_answers", "answers", "answer_aliases", "aliases")  # lists of correct answers


def has_truth_key(value: dict[str, Any]) -> bool:
    """Whether the row itself has a key of a truth."""
    return any(value.get(key) is not None for key in _KEYS)


def find_truth(value: dict[str, Any]) -> tuple[str, str, list[str]]:
    """The key of the ground truth, the ground truth, and other answers that the row accepts.

    Raises Dropped('no_ground_truth').
    """
    inside = [embedded_object(value.get(name)) for name in _PLACES if name in value]
    places = [_with_plain_names(place) for place in (value, *inside)]
    present = [(key, place) for place in places for key in _KEYS if key in place and place[key] is not None]
    read = ((key, place, _texts(place[key], is_list_of_aliases=key in _ALIAS_KEYS)) for key, place in present)
    key, place, texts = next((found for found in read if found[2]), (*(present or [("answer", value)])[0], []))
    if not texts:
        if key not in place:
            raise Dropped("no_ground_truth", f"the row has none of the keys {', '.join(_KEYS)}")
        found = place[key]
        raise Dropped("no_ground_truth", f"{key!r} must be one string, or one list of strings, got {found!r:.200}")
    lists = [found for alias_key in _ALIAS_KEYS if isinstance(found := value.get(alias_key), list)]
    aliases = [*texts[1:], *(text.strip() for found in lists for text in found if isinstance(text, str))]
    others = [text for text in dict.fromkeys(aliases) if text and text != texts[0]]
    return key if place is places[0] else "", texts[0], others


def _with_plain_names(place: dict[str, Any]) -> dict[str, Any]:
    """The object with keys like `Correct Answer` and `goldAnswer` also as `correct_answer` and `gold_answer`."""
    plain = ((plain_name(key), found) for key, found in place.items())
    read = ((_named_as_truth(key), found) for key, found in plain)
    return {key: found for key, found in read if key in _TRUTH_KEYS} | place


@lru_cache(maxsize=4096)
def _named_as_truth(name: str) -> str:
    """`gold_answer` for other names of such words, and any other name as it is."""
    words = set(name.split("_"))
    is_truth = name == "truth" or (bool(words & _TRUE_WORDS) and bool(words & _ANSWER_WORDS))
    return "gold_answer" if is_truth and name not in _KEYS and words <= _TRUE_WORDS | _ANSWER_WORDS else name


def _texts(found: Any, *, is_list_of_aliases: bool) -> list[str]:
    """The truth and its aliases; empty for a list of several lists, and for any other value."""
    if isinstance(found, str) and (mark := found.lstrip()[:1]) in ("{", "["):
        found = (embedded_object(found) if mark == "{" else _listed(found)) or found
    if isinstance(found, dict):
        main = next((found[key] for key in _MAIN_KEYS if found.get(key) is not None), None)
        more = [item for key in _LIST_KEYS if isinstance(found.get(key), list) for item in found[key]]
        return list(dict.fromkeys([*_texts(main, is_list_of_aliases=True), *_strings(more)]))
    while isinstance(found, list) and len(found) == 1 and isinstance(found[0], list) and len(found[0]) == 1:
        found = found[0]
    if not isinstance(found, list):
        return _strings([found])
    if is_list_of_aliases and all(isinstance(item, dict) for item in found):
        return [text for item in found for text in _texts(item, is_list_of_aliases=True)]
    texts = _strings(found)
    return texts if len(texts) == len(found) or is_list_of_aliases else []


def _listed(text: str) -> list[Any] | None:
    """The list in a text of JSON, Python or NumPy, which writes no commas."""
    if _NO_COMMA.search(text):
        return [first or second for first, second in _QUOTED.findall(text)]
    return embedded_list(text)


def _strings(items: list[Any]) -> list[str]:
    """Texts and numbers as texts, without blank ones."""
    texts = (str(item).strip() for item in items if isinstance(item, str | int | float) and not isinstance(item, bool))
    return [text for text in texts if text]
