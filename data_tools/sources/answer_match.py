"""Does a free-text answer say the ground truth? Stricter than substring search, tolerant of spelling.

Both sides are normalised: case, accents, punctuation, articles, number words and ordinals. Then one of
1. a yes/no truth equals the first yes or no of the answer;
2. a number alone stands, as a whole number, in the answer's headline;
3. the truth, or its part before a comma or a dash, stands in the answer as one phrase;
4. all words of a truth of two words or more stand in one sentence of the answer;
5. the headline's first emphasis is made of words of the truth, and of at least half of them.
The headline is the answer's emphasised spans, first sentence, last line and what follows "final answer". Parenthesised
parts of the truth are read with and without. Rule 5 also takes a broader name of the same head ("New York" for
"New York Yankees"): that is the price of "Jesse James" for "jesse woodson james". Chinese and Japanese set no blanks
between words, so there a truth of two characters or more may stand inside a longer run (rule 3).
"""

import re
import unicodedata
from collections.abc import Sequence

_EMPHASIS = re.compile(r"\*\*(.+?)\*\*", re.DOTALL)
_FINAL = re.compile(r"final answer\W*(.*)", re.IGNORECASE | re.DOTALL)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
_PARENTHESES = re.compile(r"\([^)]*\)?")
_ALIAS_END = re.compile(r"\s[-–—]\s|,")
_ORDINAL = re.compile(r"(\d+)(?:st|nd|rd|th)")
_UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")  # kana and Chinese characters
_WORD = re.compile(r"(?<!\S)[-−]\d+(?:\.\d+)?%?|\d+(?:st|nd|rd|th)\b|\d+(?:\.\d+)?%?|[^\W\d_]+")
_ARTICLES = {"a", "an", "the"}
_UNIT_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
_TEN_WORDS = "twenty thirty forty fifty sixty seventy eighty ninety"
_UNITS = {word: number for number, word in enumerate(_UNIT_WORDS.split())}
_TENS = {word: 10 * number for number, word in enumerate(_TEN_WORDS.split(), start=2)}
_SCALES = {"hundred": 100, "thousand": 1_000, "million": 1_000_000, "billion": 1_000_000_000}


def matches(answer: str, truth: str) -> bool:
    """Whether `answer` says `truth`, by the rules above."""
    words = normalise(truth)
    if not words:
        return False
    if words in (["yes"], ["no"]):
        first = next((word for word in normalise(answer) if word in ("yes", "no")), "")
        return [first] == words
    if len(words) == 1 and _is_number(words[0]):
        # line by line: number words of two lines are two numbers
        return any(words[0] in normalise(line) for line in _headline(answer).split("\n"))
    forms = [form for form in _forms(truth) if form]
    said = normalise(answer)
    if any(_has_phrase(said, form) for form in forms):
        return True
    if _UNSPACED.search(truth) and any(len(run := "".join(form)) > 1 and run in "".join(said) for form in forms):
        return True
    sentences = [set(normalise(sentence)) for sentence in _SENTENCE_END.split(answer)]
    if any(len(form) > 1 and set(form) <= sentence for form in (words, forms[0]) for sentence in sentences):
        return True
    emphasis = _EMPHASIS.search(answer)
    return emphasis is not None and any(_is_most_of(normalise(emphasis[1]), form) for form in forms)


def normalise(text: str) -> list[str]:
    """Words of a text: folded case, no accents, articles or punctuation; numbers as digits ('1,948' -> '1948')."""
    text = unicodedata.normalize("NFKD", text).casefold()
    text = "".join(character for character in text if not unicodedata.combining(character))
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text).replace("'", "").replace("’", "")
    words = [_ORDINAL.sub(r"\1", word).replace("−", "-") for word in _WORD.findall(text)]
    return [word for word in _number_words_as_digits(words) if word not in _ARTICLES]


def _forms(truth: str) -> list[list[str]]:
    """Ways to say the truth: without parentheses, whole, and its head before a comma or dash (two words or more)."""
    plain = _PARENTHESES.sub(" ", truth)
    head = normalise(_ALIAS_END.split(plain)[0])
    whole = normalise(plain)
    is_name = len(head) > 1 or (_ALIAS_END.search(plain) is not None and "," not in plain)
    return [whole or normalise(truth), normalise(truth), head if is_name else whole]


def _headline(answer: str) -> str:
    first = _SENTENCE_END.split(answer.strip(), maxsplit=1)[0]
    last = answer.strip().rpartition("\n")[2]
    return "\n".join([*_EMPHASIS.findall(answer), first, last, *_FINAL.findall(answer)])


def _has_phrase(words: Sequence[str], phrase: Sequence[str]) -> bool:
    return f" {' '.join(phrase)} " in f" {' '.join(words)} "


def _is_most_of(words: list[str], truth: list[str]) -> bool:
    return bool(words) and set(words) <= set(truth) and 2 * len(set(words)) >= len(set(truth))


def _is_number(word: str) -> bool:
    return word.lstrip("-")[0].isdigit()


def _number_words_as_digits(words: list[str]) -> list[str]:
    """'two hundred and ninety eight' -> '298'; single words too, so that 'Four' meets '4'."""
    result: list[str] = []
    total, current, is_open, joining = 0, 0, False, False
    for word in [*words, ""]:
        if word in _UNITS or word in _TENS:
            current += _UNITS.get(word, _TENS.get(word, 0))
            is_open, joining = True, False
        elif word in _SCALES and is_open and current < 1000:
            scale, joining = _SCALES[word], False
            current, total = (current * scale, total) if scale == 100 else (0, total + current * scale)
        elif word == "and" and is_open:
            joining = True
        else:
            if is_open:
                result.append(str(total + current))
                total, current, is_open = 0, 0, False
            if joining:
                result.append("and")
                joining = False
            result.append(word)
    return result[:-1]
