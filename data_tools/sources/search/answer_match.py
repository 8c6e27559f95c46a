"""Whether a free-text answer states the ground truth: stricter than substring search, tolerant of spelling.

Both sides are words in one spelling (answer_words.py). What counts of an answer is its conclusion: the text after its
last "the answer is", "final answer" or "exact answer", or inside \\boxed{}, otherwise all of it. The headline of a
conclusion is its emphasised spans, its first sentence and its last line. A conclusion matches if it is the truth, or if
1. the truth is yes or no, also as a short sentence ("Yes, they are."), and is the first yes or no of the conclusion;
2. the truth is one number, and is the first number of the emphasis, or without emphasis a number of the headline that
   is not denied ("not 5", "between 5 and 9");
3. the truth is one letter or symbol, and the conclusion is that letter;
4. the truth, or its part before a comma or a dash, is a phrase of the conclusion and is not denied ("not X", "X or Y",
   "X was not", and the forms in answer_clauses.py) and is not one of two things ("X and Y");
5. the truth has two or more words, and one sentence contains them: two words next to each other in any order, more
   words anywhere, or all words written together ("jukebox");
6. a span of emphasis, or the whole short conclusion, is the truth without its middle words ("Rick Mears" for "Rick
   Ravon Mears"), without "Republic of" and its like, or in another form (answer_forms.py); or
7. the truth offers alternatives ("X or Y"), and such a span is one of them.
Parts of the truth in parentheses are optional. Chinese, Japanese and Thai put no spaces between words, so a truth of
two or more characters can be inside a longer sequence there; in Korean a particle may follow it. `test_answer_cases.py`
contains the cases that this rule is held against.
"""

import re
from collections.abc import Iterator, Sequence

from acc_megatron.data_tools.sources.search.answer_clauses import has_another_currency, stated, with_saints
from acc_megatron.data_tools.sources.search.answer_forms import core_of, is_other_form, with_nickname
from acc_megatron.data_tools.sources.search.answer_words import is_number, normalise

_EMPHASIS = re.compile(r"\*\*(.+?)\*\*", re.DOTALL)
_CONCLUSION = re.compile(
    r"\\boxed\{|\b(?:final|exact) answer\b(?: is)?[\s:*]*|\b(?:the |my )?(?:correct )?answer is\b[\s:]*(?=\S)",
    re.IGNORECASE,
)
_CONFIDENCE = re.compile(r"\n\W{0,4}confidence\b[^\n:]{0,20}:", re.IGNORECASE)  # of BrowseComp's form of an answer
_SENTENCE_END = re.compile(r"(?<=[.!?])(?<!\b[A-Z]\.)\s+|\n+")  # not after an initial
_PARENTHESES = re.compile(r"\([^)]*\)?")
_ALIAS_END = re.compile(r"\s[-–—]\s|,")
_RANGE = re.compile(r"(?<![\d.,-])\d[\d,.]{0,20}\s?[-–—]\s?\d[\d,.]{0,20}(?![\d-])")  # no date such as 1990-12-25
_AND = re.compile(r"\s+(?:and|&)\s+", re.IGNORECASE)
_ALTERNATIVES = re.compile(r"\s+or\s+|\s*;\s*|\s+/\s+", re.IGNORECASE)
_YES_OR_NO = re.compile(r"(yes|no)(?:[.!]|[,;]\s.{1,80})?", re.IGNORECASE)
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")
_IDEOGRAPHS_AT_END = re.compile(r"[\u3400-\u9fff]+$")
_DENIED_AFTER = ("不是", "并非", "並非", "不叫")
_DENIED_BEFORE = tuple("".join(normalise(denial)) for denial in ("ではな", "じゃな", "でもな"))
_PREPOSITIONS = "在于於是为為叫到从從由和与與及去"
_HANGUL = re.compile(r"[\uac00-\ud7a3]$")
_PARTICLES = re.compile(
    r"(?:이|가|은|는|을|를|의|에|에서|로|으로|과|와|도|이다|입니다|이며|이고|라고|이라고|예요|이에요|였다|이었다|였습니다|이었습니다)"
)
_FOREIGN_YES_OR_NO = re.compile(
    r"\W*(?:((?:sí|oui|ja|sim|да)(?=[,.!\s]|$)|是的|是,|はい|네|예,)|(?:(?:nein|non|não|нет)(?=[,.!\s]|$)|不是|不,|いいえ|아니))",
    re.IGNORECASE,
)
_UNKNOWN = re.compile(
    r"\W*(?:insufficient information|not enough information|there is no (?:evidence|proof)|it is (?:unclear|unknown))"
    r"|\W*(?:i |we )?(?:could not|couldn't|cannot|can't|(?:am |was |were )?unable to|do not|don't) "
    r"(?:be |been )?(?:determine|find|know|identif|verif|confirm|answer)\w*",
    re.IGNORECASE,
)
_DENIALS = {
    "not", "isnt", "wasnt", "arent", "werent", "never", "neither", "nor", "unlike", "without", "except", "cannot",
    "instead", "rather", "or", "either", "nicht", "kein", "keine", "pas", "не",
}  # fmt: skip
_RELATIVES = {
    "wife", "husband", "widow", "son", "daughter", "father", "mother", "brother", "sister", "nephew", "niece", "uncle",
    "aunt", "cousin", "grandson", "granddaughter", "grandfather", "grandmother", "successor", "predecessor",
}  # fmt: skip
_EVERYONE = {"everyone", "everybody", "all", "anyone", "anybody"}
_VERBS = [[verb] for verb in ("did", "was", "is", "does", "were", "are", "has", "had", "could", "do")]
_NEGATED = [[verb] for verb in ("didnt", "wasnt", "isnt", "doesnt", "werent", "arent", "hasnt", "hadnt", "never")]
_LINKS = {"than", "of", "by", "be", "to", "was", "is", "been", "in", "at", "on", "called", "named"}
_TRUE_OR_FALSE = {"true": "yes", "correct": "yes", "false": "no", "incorrect": "no"}
_GENERIC = {"republic", "kingdom", "state", "city", "commonwealth", "province", "county"}
_EDGES = " .*\n"
_SHORT_WORDS, _JOINED_CHARACTERS, _JOINED_WORDS, _MAX_LINKS = 6, 6, 6, 3


def matches(answer: str, truth: str) -> bool:
    """Whether `answer` states `truth`, by the rules above."""
    if answer == truth:
        return True
    truth = with_saints(truth)
    said = stated(_conclusion(answer), truth)
    if said.strip(_EDGES) == truth.strip(_EDGES) != "":
        return True
    words = normalise(truth)
    if not words or (len(words) == 1 and len(truth.strip(" .()")) == 1 and not is_number(words[0])):
        return _is_symbol(said, truth)
    if has_another_currency(said, truth):
        return False
    if (found := _YES_OR_NO.fullmatch(truth.strip())) is not None:
        return _first_yes_or_no(said) == found[1].lower()
    if len(words) == 1 and is_number(words[0]):
        return _states_number(said, words[0])
    forms = _forms(truth)
    if _adds_another(said, truth, forms):
        return False
    if _states(said, truth, forms):
        return True
    texts = [span for span in dict.fromkeys(_spans(said)) if span.strip("* ")]
    spans = [normalise(span) for span in texts]
    if any(_is_short_form(span, form) for span in spans for form in forms):
        return True
    if any(is_other_form(span, truth) for span in texts):
        return True
    parts = [part for part in _ALTERNATIVES.split(truth.strip(" .")) if normalise(part)]
    is_choice = len(parts) > 1 and all(len(normalise(part)) <= _SHORT_WORDS for part in parts)
    return is_choice and any(normalise(part) in spans for part in parts)


def is_open(answer: str, truth: str) -> bool:
    """Whether an answer that does not match can still be right: in other words that only a reader can compare.

    It is not open if it states another value of the same kind (yes or no, a number, a letter), denies the truth, or
    says that the answer is unknown.
    """
    said, words = stated(_conclusion(answer), truth), normalise(truth)
    if not said.strip() or not words or _UNKNOWN.match(said):
        return False
    if len(words) == 1 and len(truth.strip(" .()")) == 1 and not is_number(words[0]):
        return False
    if _YES_OR_NO.fullmatch(truth.strip()) is not None:
        return not _first_yes_or_no(said)
    if len(words) == 1 and is_number(words[0]):
        has_other_notation = "/" in said + truth or ("%" in said) != ("%" in truth)  # "3/4" for "0.75"
        return has_other_notation or not any(map(is_number, normalise(said)))
    whole = f" {' '.join(normalise(said))} "
    return not any(f" {' '.join(form)} " in whole for form in _forms(truth))  # it is there, but denied


def _conclusion(answer: str) -> str:
    """The text after the last announcement of the answer, or the whole answer."""
    ends = [match.end() for match in _CONCLUSION.finditer(answer)]
    found = _CONFIDENCE.split(answer[ends[-1] :])[0].strip().rstrip("}") if ends else ""
    return found if any(map(str.isalnum, found)) else answer


def _forms(truth: str) -> list[list[str]]:
    """Forms of the truth: without parentheses, complete, the part before a comma or dash, and 'First Last' names."""
    plain = _PARENTHESES.sub(" ", truth).replace("disambiguation", " ")
    parts = [normalise(part) for part in _ALIAS_END.split(plain)]
    whole = normalise(plain)
    is_name = len(parts[0]) > 1 or (_ALIAS_END.search(plain) is not None and "," not in plain)
    is_name = is_name and not (len(parts) > 1 and any(map(is_number, parts[0])) and any(map(is_number, parts[1])))
    names = [normalise(nickname)] if (nickname := with_nickname(truth)) else []
    names += [core] if len(core := core_of(whole)) > 1 else []
    forms = [whole or normalise(truth), normalise(truth), parts[0] if is_name else whole, *names]
    if len(parts) == 2 and len(parts[0]) == 1 and plain.count(",") == 1 and not any(map(is_number, whole)):
        forms.append(parts[1] + parts[0])  # "Landy, John Michael"
        forms.append(parts[1][:1] + parts[0])
    return [list(form) for form in dict.fromkeys(map(tuple, forms)) if form]


def _spans(said: str) -> Iterator[str]:
    """The emphasised spans, and the conclusion or its first sentence if they are short."""
    yield from _EMPHASIS.findall(said)
    for text in (said, _SENTENCE_END.split(said.strip(), maxsplit=1)[0]):
        if len(normalise(text)) <= _SHORT_WORDS:
            yield text


def _states(said: str, truth: str, forms: list[list[str]]) -> bool:
    """Rules 4 and 5."""
    emphasised = _EMPHASIS.findall(said)
    if not emphasised and _UNKNOWN.match(said):
        return False
    for sentence in _SENTENCE_END.split(said):
        words = normalise(sentence)
        if any(_has_phrase(words, form) or _has_all(words, form) for form in forms):
            return True
    whole = normalise(said)
    if any(_has_phrase(whole, form) for form in forms):
        return True
    if _UNSPACED.search(truth):
        return any(len(run := "".join(form)) > 1 and _has_run("".join(whole), run) for form in forms)
    return False


def _adds_another(said: str, truth: str, forms: list[list[str]]) -> bool:
    """Whether a short conclusion is the truth and another thing ("Pippa and Piper" for "Piper")."""
    parts = _AND.split(said.strip())
    if len(parts) != 2 or _AND.search(truth) or "," in said + truth or len(normalise(said)) > 2 * _SHORT_WORDS:
        return False
    return any(normalise(part) in forms for part in parts)


def _has_run(text: str, run: str) -> bool:
    """Whether unspaced text states the run: 東京都 does not state 京都, and 不是京都 and 京都ではない deny it."""
    for found in re.finditer(re.escape(run), text):
        if text.endswith(_DENIED_AFTER, 0, found.start()) or text.startswith(_DENIED_BEFORE, found.end()):
            continue
        if not (before := _IDEOGRAPHS_AT_END.search(text, 0, found.start())):
            return True
        if len(before[0]) != 1 or before[0] in _PREPOSITIONS:
            return True
    return False


def _has_phrase(words: Sequence[str], phrase: Sequence[str]) -> bool:
    """Whether the words contain the phrase where it is not denied; a Korean particle may follow its last word."""
    size = len(phrase)
    if size > len(words) or f" {' '.join(phrase)}" not in f" {' '.join(words)}":
        return False
    for i in range(len(words) - size + 1):
        if _is_phrase(words[i : i + size], phrase) and not _is_denied(words, i, i + size):
            return True
    return False


def _is_phrase(words: Sequence[str], phrase: Sequence[str]) -> bool:
    if list(words[:-1]) != list(phrase[:-1]):
        return False
    last, wanted = words[-1], phrase[-1]
    has_particle = last.startswith(wanted) and _HANGUL.search(wanted) and _PARTICLES.fullmatch(last[len(wanted) :])
    return last == wanted or bool(has_particle)


def _is_denied(words: Sequence[str], start: int, end: int) -> bool:
    """Whether a denial precedes the phrase, with at most links between, or 'or' follows it."""
    before = start - 1
    while before >= 0 and words[before] in _LINKS and start - before <= _MAX_LINKS:
        before -= 1
    is_excepted = before > 0 and words[before] == "but" and words[before - 1] in _EVERYONE
    after = words[end : end + 3]
    is_negated = after[:1] in _NEGATED or (after[:1] in _VERBS and after[1:2] == ["not"] and after[2:] != ["only"])
    is_denied = before >= 0 and words[before] in _DENIALS
    is_relative = before == 0 and words[0] in _RELATIVES and words[start - 1] == "of"  # "the wife of X" is not X
    return is_denied or is_relative or is_excepted or is_negated or after[:1] == ["or"]


def _has_all(words: Sequence[str], form: Sequence[str]) -> bool:
    """Rule 5 for one sentence."""
    size = len(form)
    if size < 2:
        return False
    joined = _singular("".join(form)) if size <= _JOINED_WORDS else ""
    if len(joined) >= _JOINED_CHARACTERS:
        windows = ((i, i + n) for n in range(1, _JOINED_WORDS + 1) for i in range(len(words) - n + 1))
        if any(_singular("".join(words[i:j])) == joined and not _is_denied(words, i, j) for i, j in windows):
            return True
    if size > len(words):
        return False
    if size == 2:
        return any(
            sorted(words[i : i + 2]) == sorted(form) and not _is_denied(words, i, i + 2) for i in range(len(words))
        )
    initials = [{word for word in part if len(word) == 1 and word.isalpha()} for part in (form, words)]
    # "George H. W. Bush" does not state "George W. Bush"
    return set(form) <= set(words) and "not" not in words and (not initials[0] or initials[0] == initials[1])


def _singular(word: str) -> str:
    return word.removesuffix("es") if word.endswith("xes") else word.removesuffix("s")


def _is_short_form(span: Sequence[str], form: Sequence[str]) -> bool:
    """Whether a span is the form without its middle words, or without 'Republic of' and its like."""
    if not span or len(form) < 2:
        return False
    if len(span) > 1 and span[0] == form[0] and span[-1] == form[-1]:
        rest = iter(form)
        return all(word in rest for word in span) and 2 * len(span) >= len(form)
    return form[0] in _GENERIC and form[1] == "of" and list(span) == list(form[2:])


def _is_symbol(said: str, truth: str) -> bool:
    """Rule 3: a letter in capitals as it is, 'option A', or a symbol without letters."""
    wanted = truth.strip(" .()")
    if not wanted:
        return False
    if not any(character.isalnum() for character in wanted):
        return wanted == said.strip(" .*") or (not wanted.isascii() and wanted in said)
    if any(span.strip(" .()") == wanted for span in _EMPHASIS.findall(said)):
        return True
    opening = r"(?:^|\b(?i:is|option|choice|letter|answer)\b:?\s*)"
    return re.search(rf"{opening}\(?{re.escape(wanted)}\)?(?:[.):,;]|\s*$)", said.strip()) is not None


def _first_yes_or_no(said: str) -> str:
    """The first yes or no that stands in emphasis or opens a sentence, otherwise the first one."""
    only = " ".join(normalise(said))
    if "yes or no" in only or "yes and no" in only:
        return ""
    if only in _TRUE_OR_FALSE:
        return _TRUE_OR_FALSE[only]
    if (foreign := _FOREIGN_YES_OR_NO.match(said)) is not None:
        return "yes" if foreign[1] else "no"
    opening = [normalise(span)[:1] for span in (*_EMPHASIS.findall(said), *_SENTENCE_END.split(said.strip()))]
    found = [words[0] for words in opening if words and words[0] in ("yes", "no")]
    return next((word for word in (*found, *normalise(said)) if word in ("yes", "no")), "")


def _states_number(said: str, number: str) -> bool:
    """Rule 2; lines are read one by one, because number words of two lines are two numbers."""
    if any(number in normalise(bound) for bound in _RANGE.findall(said)):
        return False
    for span in _EMPHASIS.findall(said):
        if numbers := [word for line in span.split("\n") for word in normalise(line) if is_number(word)]:
            return number in numbers
    first = _SENTENCE_END.split(said.strip(), maxsplit=1)[0]
    last = said.strip().rpartition("\n")[2]
    return any(_has_number(normalise(line), number) for line in (first, last))


def _has_number(words: Sequence[str], number: str) -> bool:
    """Whether the words contain a number that is neither denied ("not 5") nor a bound ("between 5 and 9")."""
    for i, word in enumerate(words):
        is_bound = words[max(i - 1, 0) : i] == ["between"] or words[max(i - 3, 0) : i - 2] == ["between"]
        if word == number and not is_bound and not _is_denied(words, i, i + 1):
            return True
    return False
