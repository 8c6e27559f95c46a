"""Takes out of an answer what it reports or denies but does not state, and writes it as the truth is written.

"Some say X, but it was Y", "X? No, Y", "Y (others say X)" and "X's father" do not state X, nor does "€40" state "$40".
"""

import re

from acc_megatron.data_tools.sources.search.answer_words import with_english_dates

_SAYS = r"(?:say|says|said|believed?|thinks?|thought|claim(?:s|ed)?|suggest(?:s|ed)?|argued?|assumed?)"
_WHO_SAYS = ("some", "many", "most", "others", "people", "sources")
_HEARSAY = re.compile(
    rf"\b(?:{'|'.join(_WHO_SAYS)})\b[^.!?\n]{{0,40}}\b{_SAYS}\b[^.!?\n]{{0,200}}?\b(?:but|however)\b",
    re.IGNORECASE,
)
_BELIEF = re.compile(
    rf"\b(?:although|though|while) (?:some|many|most|others|people)\b[^.,!?\n]{{0,20}}\b{_SAYS}\b[^.,!?\n]{{0,100}},"
    rf"|\b(?:some|many|most) (?:people )?{_SAYS}\b[^.!?\n]{{0,200}}[.] (?=in fact\b|actually\b)",
    re.IGNORECASE,
)
_ASIDE = re.compile(
    r"\((?:not|others?|some|or|formerly|previously|wrongly|rather|instead)\b[^)\n]{0,200}\)", re.IGNORECASE
)
_FORMERLY = re.compile(r"\b(?:formerly|previously) [^.,;!?\n]{1,60}, (?=now\b)", re.IGNORECASE)
# what is said about another thing, which stands before the clause
_RELATIVE = re.compile(r"(?<=\w), (?:who|which|whose) (?!is\b|was\b|are\b|were\b)[^.,;!?\n]{1,200}")
_ASKED = re.compile(r"[^.!?\n]{1,100}\?\s{1,4}no\b", re.IGNORECASE)
_NO_AFTER = re.compile(r"\?\s{1,4}no\b", re.IGNORECASE)
_FOREIGN_NOTS = ("no fue", "no es", "no era", "não foi", "não é", "não era", "non è", "non fu", "non era")
_FOREIGN_NOT = re.compile(rf"\b(?:{'|'.join(_FOREIGN_NOTS)})\b", re.IGNORECASE)
_INITIAL = re.compile(r"(?<=[a-z] )[A-Z]\. (?=[A-Z])")
_INITIALS = re.compile(r"\b[A-Z]{2,4}\b")
_MONEY = re.compile(r"(?:US)?([$€£])\s?(\d[\d,.]{0,30}(?: (?:hundred|thousand|million|billion|trillion))?)")
_CURRENCY_WORDS = re.compile(r"\d[\d,.]{0,30} (?:\w{1,20} )?(dollar|euro|pound|yen|rupee|won)s?\b", re.IGNORECASE)
_SIGN_OF = {"dollar": "$", "euro": "€", "pound": "£", "yen": "¥", "rupee": "₹", "won": "₩"}
_CURRENCIES = {_SIGN_OF[name]: f"{name}s" for name in ("dollar", "euro", "pound")}
_NAMED = re.compile(r"\b[A-Z\d]")
_SIGNS = {*_SIGN_OF.values()}
_MAX_CHARACTERS = 20_000  # no answer is longer, and the search for clauses is slow
_POSSESSIVE = re.compile(r"['’]s (?=\w)")
_SAINT = re.compile(r"\bSt\.?(?= [A-Z])")


def stated(answer: str, truth: str) -> str:
    """The part of an answer that states something, in the spelling of the truth. A very long answer stays as it is."""
    if len(answer) > _MAX_CHARACTERS:
        return answer
    text, lower = answer, answer.lower()  # a search for words is faster than for a pattern that begins with one of them
    if any(words in lower for words in _FOREIGN_NOTS):
        text = _FOREIGN_NOT.sub("not", text)
    if any(word in lower for word in _WHO_SAYS):
        text = _BELIEF.sub(" ", _HEARSAY.sub(" ", text))
    if "(" in text:
        text = _ASIDE.sub(" ", text)
    if "ly " in text and ", now" in text:
        text = _FORMERLY.sub("", text)
    if ", wh" in text and _NAMED.search(text.partition(", wh")[0][1:]):
        text = _RELATIVE.sub("", text)
    if "?" in text and _NO_AFTER.search(text):
        text = _ASKED.sub("No", text)
    if len(plain := truth.strip()) > 1 and _POSSESSIVE.search(text):  # no pattern is compiled for most answers
        text = re.sub(rf"({re.escape(plain)})['’]s (?=disease\b|syndrome\b)", r"\1 ", text, flags=re.IGNORECASE)
        text = re.sub(rf"{re.escape(plain)}['’]s (?=\w)", " ", text, flags=re.IGNORECASE)
    if not _INITIAL.search(truth) and not _INITIALS.search(truth):
        text = _INITIAL.sub("", text)
    if any(name[:-1] in truth.lower() for name in _CURRENCIES.values()):
        text = _MONEY.sub(lambda match: f"{match[2].rstrip('.,')} {_CURRENCIES[match[1]]}", text)
    return with_saints(with_english_dates(text))  # before "4. Juli" is taken for the end of a sentence


def has_another_currency(said: str, truth: str) -> bool:
    """Whether the truth has the sign of a currency, and the answer only signs of others ("€40" for "$40")."""
    wanted = _SIGNS.intersection(truth)
    if not wanted:
        return False
    found = _SIGNS.intersection(said) | {_SIGN_OF[word.lower()] for word in _CURRENCY_WORDS.findall(said)}
    return bool(found) and wanted.isdisjoint(found)


def with_saints(text: str) -> str:
    """A text with 'Saint' for 'St.' before a name."""
    return _SAINT.sub("Saint", text)
