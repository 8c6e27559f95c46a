"""An answer matches if it states the truth in another spelling, not if it only contains its letters."""

import pytest

from acc_megatron.data_tools.sources.search.answer_match import matches
from acc_megatron.data_tools.sources.search.answer_words import normalise


@pytest.mark.parametrize(
    ("answer", "truth"),
    [
        ("It is **The Archers**.", "The Archers - Radio Soap"),
        ("The word is **troll**.", "Troll (Internet"),
        ("All died.\n\n**Casualties**: 298 deaths.", "two hundred and ninety eight"),
        ("They were held in **1948**.", "one thousand, nine hundred and forty-eight"),
        ("In football a team has 12 players. American teams have 11.", "TWELVE"),
        ("The architect is César Manrique.", "cesar manrique"),
        ("He was **Jesse James**.", "jesse woodson james"),
        ("It moved from September 3 to September 13, 1752.", "3rd to 13th September"),
        ("The *Mary Celeste* was a ghost ship", "The Mary Celeste"),
        ("Action: Final Answer\nThe answer is **yes**, she is.", "Yes"),
        ("The \u201cTrust-Buster\u201d", "trust buster"),
        ("Betty Boothroyd was the first woman.", "Betty Boothroyd, Baroness Boothroyd of Sandwell"),
        ("a **4 inch** line, 4 inches wide", "Four inches"),
        ("The rate rose by 5.6% then.", "5.6%"),
        ("It was −5 °C that day.", "-5"),
        ("答案是**北京**。", "北京"),
        ("他出生于1948年。", "1948年"),
        ("監督は黒澤 明です。", "黒澤明"),
        ("古都は京都です。", "京都"),
        ("他在京都。", "京都"),
        ("作家鲁迅", "鲁迅"),
        ("No, fue Mara Lind.", "Mara Lind"),
        ("It cost $40.", "$40"),
        ("It cost 40 dollars.", "$40"),
        ("It cost €37 ($40).", "$40"),
    ],
)
def test_the_truth_in_other_spelling_matches(answer: str, truth: str) -> None:
    assert matches(answer, truth)


@pytest.mark.parametrize(
    ("answer", "truth"),
    [
        ("Yes, it does offer more, though no source says so.", "No"),
        ("It was so yesterday.", "Yes"),
        ("There are **4 subjects**.\n1. Marketing 7\n2. Tourism", "7"),
        ("The year was 1948.", "194"),
        ("The rate rose by 4.6%.", "5.6%"),
        ("The service is **Check Point**.", "Cloudflare"),
        ("The class is Arachnida.", "arachnid"),
        ("The lake is the **Serpentine Lake** in **Hyde Park**.", "Serpentine River, Hyde Park"),
        ("He was **Jim**.", "jim douglas race car driver"),
        ("The Derby has a long history. It is an English race. A horse ran.", "English horse race Derby"),
        ("", "Paris"),
        ("Paris", "()"),
        ("It was 5 degrees.", "-5"),
        ("It was -5 degrees.", "5"),
        ("东京在北边。", "北京"),
        ("他在北京大学。", "大"),
        ("首都は東京都です。", "京都"),
        ("東京都", "京都"),
        ("No fue Mara Lind.", "Mara Lind"),
        ("Não foi Mara Lind, foi Jon Berg.", "Mara Lind"),
        ("It cost €40.", "$40"),
        ("It cost £5 million.", "$5 million"),
    ],
)
def test_another_answer_does_not_match(answer: str, truth: str) -> None:
    assert not matches(answer, truth)


def test_numbers_become_digits() -> None:
    assert normalise("Twenty-three thousand and five, and 1,948 the 3rd") == ["23005", "and", "1948", "3"]


@pytest.mark.parametrize("truth", ["Four", "TWELVE", "two hundred and ninety eight", "1,948"])
def test_a_number_matches_the_same_number(truth: str) -> None:
    assert matches(truth, truth)
    assert not matches("Eight", "Four") and not matches("Four", "Eight")
