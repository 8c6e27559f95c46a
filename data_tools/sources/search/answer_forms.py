"""Whether a short answer is another form of the truth: shorter, with a middle name, as an acronym, or as a bare number.

Such a form counts only for a whole short answer or an emphasised span, because it is too short to be searched for.
"""

import re
from collections.abc import Iterator, Sequence

from acc_megatron.data_tools.sources.search.answer_words import all_words, is_number, normalise

_NICKNAME = re.compile(r"""["“(]([^"”()]{1,40})["”)]\s{1,4}(\w[^"“(]*)""")
_CAPITALISED = re.compile(r"\b[A-Z]\w*")
_OPENINGS = {"in", "on", "at", "from", "by", "around", "about", "circa", "during", "since", "until", "approximately"}
_TITLES = {
    "king", "queen", "prince", "princess", "president", "sir", "dame", "lord", "lady", "dr", "doctor", "mr", "mrs",
    "ms", "pope", "emperor", "empress", "professor", "senator", "prime", "minister",
}  # fmt: skip
_ENDINGS = tuple(
    tuple(ending.split("_"))
    for ending in (
        "football_club soccer_club fc sc company co corporation corp incorporated inc limited ltd llc plc gmbh ag "
        "holdings"
    ).split()
)
_ROMAN = "ii iii iv v vi vii viii ix x xi xii xiii xiv xv xvi xvii xviii xix xx".split()
_SHORT_NAMES = {roman: str(number) for number, roman in enumerate(_ROMAN, start=2)} | {"mt": "mount"}
_RANGE_WORDS = {"from", "to", "until", "till", "through", "between", "and"}
_SHORTEST_ACRONYM, _YEAR_DIGITS, _MAX_UNIT_WORDS = 3, 4, 3
_AMERICAN = {"united states", "america", "american"}  # the country and the nationality, as data sets mix them
_JOINS = {"and", "or", "of", "vs", "versus"}


def with_nickname(truth: str) -> str:
    """'Che Guevara' for 'Ernesto "Che" Guevara' and 'Pierre Cuypers' for 'Petrus (Pierre) Cuypers'; '' for others."""
    found = _NICKNAME.search(truth)
    return f"{found[1]} {found[2]}" if found and truth[: found.start()].strip() else ""


def is_other_form(span: str, truth: str) -> bool:
    """Whether a short answer is the truth in another form."""
    said, words = normalise(span), normalise(truth)
    if not said or not words:
        return False
    if (
        _written_out(core_of(said)) == _written_out(core_of(words))
        or _is_range(said, words)
        or _has_initials(all_words(span), all_words(truth))
    ):
        return True
    if " ".join(said) in _AMERICAN and " ".join(words) in _AMERICAN:
        return True
    numbers = [word for word in words if is_number(word)]
    if len(numbers) == 1 and said == numbers and len(words) <= 1 + _MAX_UNIT_WORDS:  # "40" for "40 members"
        return True
    if len(words) == 2 and len(said) == 3 and [said[0], said[2]] == words:  # "Nidal Malik Hasan" for "Nidal Hasan"
        return said[1] not in _JOINS and all(word.isalpha() for word in (*said, *words))
    return any(
        short.strip(" .*") == acronym for short, long in ((span, truth), (truth, span)) for acronym in _acronyms(long)
    )


def _written_out(words: Sequence[str]) -> list[str]:
    """Words with 'World War 2' for 'World War II' and 'Mount' for 'Mt.'."""
    return [_SHORT_NAMES.get(word, word) for word in words]


def core_of(words: Sequence[str]) -> list[str]:
    """Words without prepositions and titles before them, and without 'Corporation' and its like after them."""
    core = list(words)
    while len(core) > 1 and core[0] in _OPENINGS | _TITLES:
        del core[0]
    while found := next((end for end in _ENDINGS if len(core) > len(end) and tuple(core[-len(end) :]) == end), None):
        del core[-len(found) :]
    return core


def _has_initials(said: Sequence[str], words: Sequence[str]) -> bool:
    """Whether two names are equal where one has initials ("C. S. Lewis", "Clive Staples Lewis")."""
    if len(said) != len(words) or len(words) == 1 or said[-1] != words[-1] or said[-1].isdecimal():
        return False
    return all(a == b or (1 in (len(a), len(b)) and a[0] == b[0]) for a, b in zip(said, words, strict=True))


def _is_range(said: Sequence[str], words: Sequence[str]) -> bool:
    """Whether both are the same years, such as '1861–65' and 'from 1861 to 1865'."""
    left, right = _years(said), _years(words)
    return left == right and len(left) == 2


def _years(words: Sequence[str]) -> list[str]:
    years = [word for word in words if word not in _RANGE_WORDS]
    if len(years) != 2 or not all(word.isdecimal() for word in years) or len(years[0]) != _YEAR_DIGITS:
        return []
    return [years[0], years[0][: _YEAR_DIGITS - len(years[1])] + years[1]]


def _acronyms(text: str) -> Iterator[str]:
    plain = re.sub(r"\([^)]*\)", " ", text)
    acronym = "".join(word[0] for word in _CAPITALISED.findall(plain))
    if len(acronym) >= _SHORTEST_ACRONYM:
        yield acronym
