"""The table of cases of answer matching: kinds of answers, and every real row of the search data, both ways."""

import json
import re

import pytest
from support.commands import SHARED_DATA

from acc_megatron.data_tools.sources.search.answer_match import matches
from acc_megatron.data_tools.sources.search.answer_words import normalise

DATA = SHARED_DATA / "search" / "webdancer.jsonl"
RIGHT = [
    ("Sí, ambos nacieron en Lima.", "Yes"),
    ("Nein, sie wurden in verschiedenen Jahren gegründet.", "No"),
    ("Да, оба города находятся в России.", "Yes"),
    ("是的,两者都是作家。", "Yes"),
    ("不是,他们不是同一个人。", "No"),
    ("Although many believe it was Edison, it was Joseph Swan.", "Joseph Swan"),
    ("Die Antwort ist nicht Berlin, sondern Wien.", "Wien"),
    ("Ce n'est pas Victor Hugo, c'est Émile Zola.", "Émile Zola"),
    ("The city is **Seattle, Washington**.", "Seattle, Wa"),
    ("Yes, the newer ones are more effective.", "Yes, they are."),
    ("No.", "No, it is not."),
    ("There is no doubt about it.\n**Yes**", "Yes"),
    ("Final Answer: Argentina.", "ARGENTINA or URUGUAY."),
    ("**Uruguay**", "ARGENTINA or URUGUAY."),
    ("A", "A"),
    ("The answer is (B).", "B"),
    ("Option C.", "C"),
    ("The language is **C**.", "C"),
    ("It is written in C++.", "C++"),
    ("86 feet", "86 ft"),
    ("It is 12 kilometres long.", "12 km"),
    ("It weighs 3.50 kg.", "3.5 kilograms"),
    ("Rick Mears", "rick ravon mears"),
    ("Mara Ann Lind", "Mara Lind"),
    ("M. A. Lind", "Mara Ann Lind"),
    ("Mimi Lind", 'Mara Ann "Mimi" Lind'),
    ("Mimi Lind", "Mara Ann (Mimi) Lind"),
    ("It was Mara Lind.", "Prime Minister Mara Lind"),
    ("Edward II of England", "King Edward II"),
    ("Lockheed", "Lockheed Corporation"),
    ("Hull City SC", "Hull City Soccer Club"),
    ("Mara Lind", "by Mara Lind"),
    ("1520", "from around 1520"),
    ("40", "40 members"),
    ("one", "one live album"),
    ("1989-1994", "from 1989 until 1994"),
    ("1861–1865", "1861–65"),
    ("OSRIC", "Old School Reference and Index Compilation"),
    ("**BBC**", "British Broadcasting Corporation (BBC)"),
    ("British Broadcasting Corporation", "BBC"),
    ("Alzheimer's disease", "Alzheimer"),
    ("American", "United States"),
    ("poet, critic, and film lyricist", "film lyricist"),
    ("Dec 25, 1990", "December 25, 1990"),
    ("World War 2", "World War II"),
    ("Mount Everest", "Mt. Everest"),
    ("The captain, who is Mara Lind", "Mara Lind"),
    ("It opened on 1990-12-25.", "1990-12-25"),
    ("40 US dollars", "$40"),
    ("The winner was **Patrick White**.", "Patrick Victor Martindale White"),
    ("12 percent", "12%"),
    ("12.0", "12"),
    ("12", "12.0"),
    ("The answer is 5 million.", "5,000,000"),
    ("\\boxed{42}", "42"),
    ("First I thought of 41. The final answer is 42.", "42"),
    ("정답은 서울입니다.", "서울"),
    ("서울", "서울"),
    ("คำตอบคือกรุงเทพมหานคร", "กรุงเทพ"),
    ("The launch is shown as 🚀.", "🚀"),
    ("The country is **Lithuania**.", "Republic of Lithuania (1918-1940)"),
    ("John Landy was the second.", "Landy, John Michael"),
    ("It is the **jukebox**.", "juke boxes"),
    ("It was signed on 1752-09-03.", "September 3, 1752"),
    ("It was in the USA.", "United States"),
    ("It was in the U.S.", "United States of America"),
    ("It was made by Johnson & Johnson.", "Johnson and Johnson"),
    ("Her name was not known before; it was Mara Lind.", "Mara Lind"),
    ("It was Mara Lind, not Jon Berg.", "Mara Lind"),
    ("It was the film No Country for Old Men.", "No Country for Old Men"),
    ("It was 15, not 5.", "15"),
    ("Mara Lind was not only its engineer but also its owner.", "Mara Lind"),
    ("Some say Jon Berg, but it was Mara Lind.", "Mara Lind"),
    ("$5", "5 dollars"),
    ("Barack H. Obama", "Barack Obama"),
    ("It is St. Louis.", "Saint Louis"),
    ("true", "Yes"),
    ("It was all but certain that Mara Lind built it.", "Mara Lind"),
    ("Explanation: of 15 ships, 5 sank.\nExact Answer: 5\nConfidence: 80%", "5"),
    ("Exact Answer: Oslo\nConfidence: 90%", "Oslo"),
    ("The answer is 1 234 567.", "1234567"),
    ("Es waren 1.234.567 Einwohner.", "1,234,567"),
    ("Der Wert ist 3,14.", "3.14"),
    ("Am 4. Juli 1776.", "July 4, 1776"),
    ("Nació el 3 de marzo de 1901.", "March 3, 1901"),
    ("It is the 3rd.", "third"),
    ("In the 19th century.", "nineteenth century"),
    ("He was the twenty-first president.", "21st president"),
    ("20 °C", "20 degrees Celsius"),
    ("44 BCE", "44 BC"),
    ("It was J. R. R. Tolkien.", "JRR Tolkien"),
    ("She was the wife of Jon Berg.", "Jon Berg"),
    ("答案不是鲁迅,而是老舍。", "老舍"),
]
WRONG = [
    ("Nein, sie wurden getrennt gegründet.", "Yes"),
    ("Although many believe it was Edison, it was Joseph Swan.", "Edison"),
    ("Many think Thomas Edison invented it. In fact Joseph Swan did.", "Thomas Edison"),
    ("Insufficient information; candidates are Oslo and Bergen.", "Oslo"),
    ("There is no evidence that Mara Lind was the author.", "Mara Lind"),
    ("Die Antwort ist nicht Berlin, sondern Wien.", "Berlin"),
    ("Ce n'est pas Victor Hugo, c'est Émile Zola.", "Victor Hugo"),
    ("Это был не Пушкин, а Лермонтов.", "Пушкин"),
    ("Yes and no.", "Yes"),
    ("It is unclear whether yes or no.", "Yes"),
    ("Explanation: of 15 ships, 5 sank.\nExact Answer: 5\nConfidence: 15%", "15"),
    ("Explanation: Oslo was considered.\nExact Answer: Bergen\nConfidence: 80%", "Oslo"),
    ("There were 15, of which 5 failed. The answer is 15.", "5"),
    ("There were **15**, of which **5** failed.", "5"),
    ("I first counted 41.\n\\boxed{42}", "41"),
    ("12", "12.5"),
    ("12%", "13 percent"),
    ("86 meters", "86 ft"),
    ("It is not Mara Lind; it was Jon Berg.", "Mara Lind"),
    ("It was Jon Berg rather than Mara Lind.", "Mara Lind"),
    ("It was Jon Berg instead of Mara Lind.", "Mara Lind"),
    ("Neither Mara Lind nor Jon Berg built it.", "Jon Berg"),
    ("Unlike Mara Lind, Jon Berg built it.", "Mara Lind"),
    ("It wasn't Mara Lind.", "Mara Lind"),
    ("Mara Lind or Jon Berg", "Mara Lind"),
    ("Either Mara Lind or Jon Berg.", "Jon Berg"),
    ("I considered Mara Lind. The answer is Jon Berg.", "Mara Lind"),
    ("I could not determine whether Mara Lind built it.", "Mara Lind"),
    ("The language is C++.", "C"),
    ("The language is C#.", "C"),
    ("A dog barked.", "A"),
    ("B", "A"),
    ("Yes, they are.", "No, they are not."),
    ("No", "Yes"),
    ("The team is **New York**.", "New York Yankees"),
    ("The state is **Kansas**.", "Kansas City"),
    ("서울대학교입니다.", "서울"),
    ("The launch is shown as 🛸.", "🚀"),
    ("The city is **Seattle, Oregon**.", "Seattle, Wa"),
    ("Final Answer: Brazil.", "ARGENTINA or URUGUAY."),
    ("No, it was There Will Be Blood.", "No Country for Old Men"),
    ("The answer is 6 million.", "5,000,000"),
    ("Lind", "Mara Lind"),
    ("It was 5, not 15.", "15"),
    ("The answer is not 5.", "5"),
    ("Between 5 and 10", "5"),
    ("Between 5 and 10", "10"),
    ("1999 (others say 1998)", "1998"),
    ("Mara Lind did not build it; Jon Berg did.", "Mara Lind"),
    ("Mara Lind wasn't the engineer, Jon Berg was.", "Mara Lind"),
    ("Some say Mara Lind, but it was Jon Berg.", "Mara Lind"),
    ("Everyone but Mara Lind.", "Mara Lind"),
    ("March 4, 1809", "March 4, 1797"),
    ("Pippa and Piper", "Piper"),
    ("The answer is Jon Berg, who succeeded Mara Lind.", "Mara Lind"),
    ("Jon Berg (previously attributed to Mara Lind)", "Mara Lind"),
    ("formerly Mara Lind, now Jon Berg", "Mara Lind"),
    ("1982-1988", "1988"),
    ("10–20", "20"),
    ("40 euros", "$40"),
    ("World War I", "World War II"),
    ("Mara Lind and her father", "Mara Lind"),
    ("Mara or Lind", "Mara Lind"),
    ("40 teams", "50 members"),
    ("1989-1995", "from 1989 until 1994"),
    ("Lind Corporation", "Lockheed Corporation"),
    ("BBC", "British Library Board"),
    ("M. B. Lind", "Mara Ann Lind"),
    ("Mara Lind's father, Jon Berg", "Mara Lind"),
    ("Mara Lind? No, Jon Berg.", "Mara Lind"),
    ("false", "Yes"),
    ("At first there were 40 of them.", "1"),
    ("It took 12.345 seconds.", "12345"),
    ("In the 18th century.", "nineteenth century"),
    ("Am 4. Juni 1776.", "July 4, 1776"),
    ("20 °F", "20 degrees Celsius"),
    ("The wife of Jon Berg.", "Jon Berg"),
    ("George H. W. Bush", "George W. Bush"),
    ("不是鲁迅,而是老舍。", "鲁迅"),
    ("京都ではなく奈良です。", "京都"),
]
# lines of real rows, judged by hand: the agent's answer is another one than the truth
WRONG_ROWS = {10, 103, 105, 114, 115}
# right answers that only a reader with knowledge of the subject can accept, and a wrong one that the rule accepts
MISSED_ROWS, ACCEPTED_ROWS = {1, 17, 20, 30, 38, 40, 50, 106}, {10}


@pytest.mark.parametrize(("answer", "truth"), RIGHT)
def test_a_right_answer_in_another_form_matches(answer: str, truth: str) -> None:
    assert matches(answer, truth)


@pytest.mark.parametrize(("answer", "truth"), WRONG)
def test_a_wrong_answer_that_mentions_the_truth_does_not_match(answer: str, truth: str) -> None:
    assert not matches(answer, truth)


def real_answers() -> list[tuple[str, str]]:
    """(answer, truth) of every row."""
    found = []
    for line in DATA.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        answers = re.findall("<answer>(.*?)</answer>", row["messages"][-1]["content"], re.DOTALL)
        found.append((answers[-1].strip(), row["answer"][0][0]))
    return found


@pytest.mark.data
@pytest.mark.skipif(not DATA.is_file(), reason="no shared data")
def test_precision_and_recall_on_the_real_rows() -> None:
    accepted = {line for line, (answer, truth) in enumerate(real_answers(), start=1) if matches(answer, truth)}
    right = set(range(1, 121)) - WRONG_ROWS
    assert right - accepted == MISSED_ROWS and accepted - right == ACCEPTED_ROWS
    precision, recall = len(right & accepted) / len(accepted), len(right & accepted) / len(right)
    assert precision > 0.99 and recall > 0.92


@pytest.mark.data
@pytest.mark.skipif(not DATA.is_file(), reason="no shared data")
def test_real_answers_to_other_questions_do_not_match() -> None:
    rows = real_answers()[::4]
    pairs = [
        (answer, truth)
        for answer, own in rows
        for _, truth in rows
        if normalise(own) != normalise(truth) and len(normalise(truth)) > 1
    ]
    assert len(pairs) > 300 and [pair for pair in pairs if matches(*pair)] == []
