"""The words of answers in one spelling: case, accents, punctuation, numbers, units, dates and names of states."""

import re
import unicodedata
from functools import lru_cache

_ARTICLES = {"a", "an", "the"}
_UNIT_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
_TEN_WORDS = "twenty thirty forty fifty sixty seventy eighty ninety"
_UNITS = {word: number for number, word in enumerate(_UNIT_WORDS.split())}
_TENS = {word: 10 * number for number, word in enumerate(_TEN_WORDS.split(), start=2)}
_SCALES = {"hundred": 100, "thousand": 1_000, "million": 1_000_000, "billion": 1_000_000_000}
_ORDINAL_WORDS = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth "
    "sixteenth seventeenth eighteenth nineteenth twentieth"
)
_ORDINALS = {word: number for number, word in enumerate(_ORDINAL_WORDS.split(), start=1)}
_ORDINALS |= {word.removesuffix("y") + "ieth": number for word, number in _TENS.items()}
_OTHER_MEANINGS = {"first", "second"}  # "at first", "a second": no number unless tens precede it
_NUMBER_WORDS = {*_UNITS, *_TENS, *_SCALES, *_ORDINALS}
_ORDINAL = re.compile(r"(\d+)(?:st|nd|rd|th)")
# C++ and C# are other words than C
_WORD = re.compile(r"(?<!\S)[-−]\d+(?:\.\d+)?%?|\d+(?:st|nd|rd|th)\b|\d+(?:\.\d+)?%?|[^\W\d_]+(?:\+\+(?!\w)|#(?!\w))?")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}\b)")
# 1 234 567 and 1.234.567 are one number each, and 3,14 has decimals
_GROUPED = re.compile(r"(?<![\d.,])\d{1,3}(?:([ .\u00a0\u2009\u202f])\d{3})(?:\1\d{3})+(?![\d.,]\d)")
_DECIMAL_COMMA = re.compile(r"(?<![\d.,])(\d+),(\d{1,2})(?![\d,]|\.\d)")
_DEGREES = re.compile(r"\bdegrees? (c|f)(?:elsius|ahrenheit)?\b", re.IGNORECASE)
_DIGIT = re.compile(r"\d")
_ISO_DATE = re.compile(r"\b(\d{4})-(\d{2})-(\d{2})\b")
_FOREIGN_MONTHS = {
    name: number
    for names in (
        "januar februar märz april mai juni juli august september oktober november dezember",
        "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
        "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
        "gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre dicembre",
        "janeiro fevereiro março abril maio junho julho agosto setembro outubro novembro dezembro",
        "января февраля марта апреля мая июня июля августа сентября октября ноября декабря",
    )
    for number, name in enumerate(names.split())
}
_FOREIGN_DATE = re.compile(
    rf"\b(\d{{1,2}})\.? (?:de )?({'|'.join(_FOREIGN_MONTHS)}) (?:de )?(\d{{4}})\b", re.IGNORECASE
)
_MONTHS = ("january february march april may june july august september october november december").split()
_SHORT_MONTHS = {name[:3]: name for name in _MONTHS if name != "may"} | {"sept": "september"}
# the spellings of a unit after a number
_MEASURES = {
    spelling: group.split()[0]
    for group in (
        "ft feet foot", "in inches inch", "mi miles mile", "yd yards yard",
        "km kilometers kilometres kilometer kilometre",
        "m meters metres meter metre", "cm centimeters centimetres centimeter centimetre", "kg kilograms kilogram",
        "mm millimeters millimetres millimeter millimetre", "g grams gram", "lb lbs pounds pound", "oz ounces ounce",
        "h hours hour hrs hr", "min minutes minute mins", "s seconds second secs sec", "yr years year yrs",
        "mph", "kmh", "t tonnes tonne tons ton", "l liters litres liter litre", "bc bce",
    )
    for spelling in group.split()
}  # fmt: skip
_STATES = dict(
    pair.split(":")
    for pair in (
        "al:alabama ak:alaska az:arizona ar:arkansas ca:california co:colorado ct:connecticut de:delaware fl:florida "
        "ga:georgia hi:hawaii id:idaho il:illinois in:indiana ia:iowa ks:kansas ky:kentucky la:louisiana me:maine "
        "md:maryland ma:massachusetts mi:michigan mn:minnesota ms:mississippi mo:missouri mt:montana ne:nebraska "
        "nv:nevada nh:new_hampshire nj:new_jersey nm:new_mexico ny:new_york nc:north_carolina nd:north_dakota oh:ohio "
        "ok:oklahoma or:oregon pa:pennsylvania ri:rhode_island sc:south_carolina sd:south_dakota tn:tennessee tx:texas "
        "ut:utah vt:vermont va:virginia wa:washington wv:west_virginia wi:wisconsin wy:wyoming"
    ).split()
)
_STATE_AT_END = re.compile(r",\s*([A-Za-z]{2})\b\.?(?=\s*$|\s*[.,;)*\n])")
_COUNTRY = re.compile(r"\bU\.?[SK]|\bunited states of", re.IGNORECASE)
_COUNTRIES = (
    (re.compile(r"\b(?:U\.S\.A\.|U\.S\.|USA\b|US\b)"), "United States"),
    (re.compile(r"\b(?:U\.K\.|UK\b)"), "United Kingdom"),
    (re.compile(r"\bUnited States of America\b", re.IGNORECASE), "United States"),
)


def normalise(text: str) -> list[str]:
    """Words of a text: folded case, no accents, articles or punctuation; numbers as digits ('1,948' -> '1948')."""
    return [word for word in all_words(text) if word not in _ARTICLES]


def all_words(text: str) -> list[str]:
    """The words of a text with its articles."""
    return list(_words(text))


@lru_cache(maxsize=16)  # an answer is compared with each form of the truth
def _words(text: str) -> tuple[str, ...]:
    if _COUNTRY.search(text):
        for pattern, name in _COUNTRIES:
            text = pattern.sub(name, text)
    if "," in text:
        text = _STATE_AT_END.sub(_state_in_words, text)
    text = _ISO_DATE.sub(_date_in_words, text).replace("&", " and ")
    if _DIGIT.search(text):
        text = _with_plain_numbers(text)
    if text.isascii():
        text = text.lower()
    else:
        text = unicodedata.normalize("NFKD", text.replace("°", " ")).casefold()
        text = "".join(character for character in text if not unicodedata.combining(character))
        text = unicodedata.normalize("NFC", text)  # Hangul is syllables again
    text = _THOUSANDS.sub("", text).replace("'", "").replace("’", "")
    words = [word if word.isalpha() else _plain_number(word) for word in _WORD.findall(text)]
    if not _NUMBER_WORDS.isdisjoint(words):
        words = _number_words_as_digits(words)
    return tuple(words if all(map(str.isalpha, words)) else _measured(_with_months(words)))


def _with_months(words: list[str]) -> list[str]:
    """'dec' next to a number as 'december'."""
    if _SHORT_MONTHS.keys().isdisjoint(words):
        return words
    near = [any(map(is_number, words[max(i - 1, 0) : i] + words[i + 1 : i + 2])) for i in range(len(words))]
    return [_SHORT_MONTHS.get(word, word) if near[i] else word for i, word in enumerate(words)]


def _with_plain_numbers(text: str) -> str:
    """Numbers as English writes them, without spaces or dots between thousands, and dates with English months."""
    text = _GROUPED.sub(lambda match: match[0].replace(match[1], ""), text)
    text = _DEGREES.sub(r"\1", _DECIMAL_COMMA.sub(r"\1.\2", text))
    return with_english_dates(text)


def with_english_dates(text: str) -> str:
    """A text with '4 july 1776' for '4. Juli 1776' and its like in six languages."""
    return _FOREIGN_DATE.sub(lambda match: f"{match[1]} {_MONTHS[_FOREIGN_MONTHS[match[2].lower()]]} {match[3]}", text)


def _plain_number(word: str) -> str:
    return _ORDINAL.sub(r"\1", word).replace("−", "-")


def is_number(word: str) -> bool:
    """Whether a word is a number, also with a sign or %."""
    return word.lstrip("-")[:1].isdigit()


def _state_in_words(match: re.Match[str]) -> str:
    name = _STATES.get(match[1].lower())
    return f", {name.replace('_', ' ')}" if name else match[0]


def _date_in_words(match: re.Match[str]) -> str:
    year, month, day = (int(part) for part in match.groups())
    return f"{day} {_MONTHS[month - 1]} {year}" if 1 <= month <= len(_MONTHS) else match[0]


def _measured(words: list[str]) -> list[str]:
    """Numbers without zeros at the end of their decimals, with one spelling of the unit after them."""
    result: list[str] = []
    for word in words:
        before = result[-1] if result else ""
        if is_number(word) and "." in word:
            mark = "%" if word.endswith("%") else ""
            word = word.rstrip("%").rstrip("0").rstrip(".") + mark
        if is_number(before) and word in ("percent", "percentage") and not before.endswith("%"):
            result[-1] = f"{before}%"
        else:
            result.append(_MEASURES.get(word, word) if is_number(before) else word)
    return result


def _number_words_as_digits(words: list[str]) -> list[str]:
    """'two hundred and ninety eight' -> '298', '5 million' -> '5000000'; single words too, so that 'Four' meets '4'."""
    result: list[str] = []
    total, current, is_open, joining = 0, 0, False, False
    for word in [*words, ""]:
        if word in _UNITS or word in _TENS:
            current += _UNITS.get(word, _TENS.get(word, 0))
            is_open, joining = True, False
        elif word in _SCALES and is_open and current < 1000:
            scale, joining = _SCALES[word], False
            current, total = (current * scale, total) if scale == 100 else (0, total + current * scale)
        elif word in _SCALES and result and not is_open and re.fullmatch(r"\d{1,6}(?:\.\d{1,6})?", result[-1]):
            number = float(result[-1]) * _SCALES[word]
            result[-1] = str(int(number)) if number.is_integer() else str(number)
        elif word in _ORDINALS and (is_open or word not in _OTHER_MEANINGS):
            result.append(str(total + current + _ORDINALS[word]))
            total, current, is_open, joining = 0, 0, False, False
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
