"""Texts that people read use plain English: phrases that this project once used do not come back."""

import re
import subprocess

import pytest
from support.commands import ROOT

# phrase -> what to write
PHRASES = {
    r"\bmend(s|ed|ing|able)?\b": "fix",
    r"(?<!\bthere )\b(is|are|=) (\d+ )?(?-i:none)\b(?!\.\")": "is not a multiple of ..., or: there is no ...",
    r"(?<!\")\b(goes|went|gone|go) on\b": "resumes, continues",
    r"\bbeside\b": "next to, with",
    r"\balone\b(?! ?[=.,)\]\[])": "only, by itself",
    r"\b(is|are|prove[sd]?|was|were|comes?|appears?) whole\b": "OK, intact, complete",
    r"\bunlearned\b": "masked from the loss",
    r"\bat most so\b": "at most N times",
    r"\bso (similar|often|many|much|long)\b(?! that| as)": "that ..., at least ...",
    r"\bthousand millions?\b": "billion",
    r"\bno node is its own\b": "a node is not its own ...",
    r"\bwhat (it|they) (is|are) worth\b": "its value",
    r"\bthe whole road\b|\bthe road\b": "the pipeline",
    r"\bhe who\b|\bwhoever\b": "the process that ...",
    r"\bto be had\b": "available",
    r"\bthereof\b|\bwhereof\b|\btherein\b|\bhereby\b": "of it, in it",
}
WORDS = re.compile("|".join(f"(?P<p{number}>{phrase})" for number, phrase in enumerate(PHRASES)), re.IGNORECASE)
SUFFIXES = (".py", ".md", ".toml", ".yaml", ".sh", ".sbatch", ".jinja", ".cfg", "Makefile", "Dockerfile", "run")
OWN = ("tests/test_language.py",)


def texts() -> list[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    return [name for name in listed.stdout.splitlines() if name.endswith(SUFFIXES) and name not in OWN]


@pytest.mark.parametrize("folder", ["acc_megatron", "data_tools", "kernels", "examples", "tests", "docs", "."])
def test_no_text_uses_a_phrase_that_must_be_read_twice(folder: str) -> None:
    found = []
    for name in texts():
        if (name.split("/")[0] if "/" in name else ".") != folder or (ROOT / name).is_symlink():
            continue
        for number, line in enumerate((ROOT / name).read_text().splitlines(), start=1):
            words = line.replace("_", " ") if "def test_" in line else line
            for match in WORDS.finditer(words):
                advice = list(PHRASES.values())[int(next(k for k, v in match.groupdict().items() if v is not None)[1:])]
                found.append(f"{name}:{number}: {match[0]!r}: write {advice}: {line.strip()[:80]}")
    assert not found, f"{len(found)} lines:\n" + "\n".join(found[:60])
