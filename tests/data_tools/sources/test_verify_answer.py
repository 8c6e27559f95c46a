"""Verifiers accept answers that reach the ground truth and refuse all others with a reason."""

import json
import sqlite3
from pathlib import Path

import pytest
from support.commands import SHARED_DATA

from acc_megatron.data_tools.schema import Piece, Triple
from acc_megatron.data_tools.sources.container_test import ContainerTest, container_test
from acc_megatron.data_tools.sources.resources import Resources
from acc_megatron.data_tools.sources.sql.answer_rows import answer_rows
from acc_megatron.data_tools.sources.swe.answer_patch import patch_of
from acc_megatron.data_tools.sources.verify_answer import Verifier
from acc_megatron.errors import Dropped, EnvironmentProblem

DATA = SHARED_DATA
PATCH = "diff --git a/a.py b/a.py\n--- a/a.py\n+++ b/a.py\n@@ -1,2 +1,2 @@\n one\n-two\n+2\n"


def triple(agent: str, truth: str, **notes: str | list[str]) -> Triple:
    piece = Piece(id="a.py", title="a.py", text="one\ntwo\n", kind="evidence")
    return Triple(
        id="t",
        agent=agent,
        question="q",
        context=(piece,),
        reasoning="r",
        answer=truth,
        ground_truth=truth,
        settings={"notes": notes},
    )


def reason_of(verifier: Verifier, question: Triple, answer: str) -> str:
    try:
        verifier.check(question, answer)
    except Dropped as dropped:
        return dropped.reason
    return "passed"


@pytest.fixture
def resources(tmp_path: Path) -> Resources:
    with sqlite3.connect(tmp_path / "shop.sqlite") as connection:
        connection.execute("CREATE TABLE t (name TEXT, price REAL)")
        connection.executemany("INSERT INTO t VALUES (?, ?)", [("b", 2.0), ("a", 1.5), ("b", 2.0), (None, 0.1 + 0.2)])
    found = Resources()
    found.add_database(tmp_path / "shop.sqlite")
    return found


def test_a_search_answer_can_match_an_alias() -> None:
    question = triple("search", "Four")
    assert reason_of(Verifier(Resources()), question, "There are **4** of them.") == "passed"
    assert reason_of(Verifier(Resources()), question, "There are five.") == "wrong_answer"
    named = triple("search", "NYC", aliases=["Big Apple", "New York City"])
    assert reason_of(Verifier(Resources()), named, "It is New York City.") == "passed"
    assert reason_of(Verifier(Resources()), named, "It is Boston.") == "wrong_answer"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("b | 2\na | 1.5\nb | 2.0\nNULL | 0.3", "passed"),
        ("```\n| NULL | 0.30000000000000004 |\n| b | 2 |\n| b | 2 |\n| a | 1.5 |\n```", "passed"),
        ("b | 2\na | 1.5\nNULL | 0.3", "wrong_answer"),  # one of two equal rows is missing
        ("b | 2\na | 1.5\nb | 3\nNULL | 0.3", "wrong_answer"),
        ("(no rows)", "wrong_answer"),
        ("", "wrong_answer"),
    ],
)
def test_sql_answers_are_compared_with_the_gold_query_as_multisets(
    resources: Resources, answer: str, expected: str
) -> None:
    question = triple("sql", "stale", database="shop", gold_sql="SELECT name, price FROM t")
    assert reason_of(Verifier(resources), question, answer) == expected


def test_the_order_of_sql_rows_counts_only_if_the_query_orders_them(resources: Resources) -> None:
    for sql, expected in (
        ("SELECT price FROM t WHERE name IS NOT NULL", "passed"),
        ("{} ORDER BY price", "wrong_answer"),
    ):
        sql = sql.format("SELECT price FROM t WHERE name IS NOT NULL")
        assert reason_of(Verifier(resources), triple("sql", "", database="shop", gold_sql=sql), "2\n2\n1.5") == expected
    no_rows = triple("sql", "", database="shop", gold_sql="SELECT name FROM t WHERE price > 9")
    assert reason_of(Verifier(resources), no_rows, "(no rows)") == "passed"
    assert reason_of(Verifier(resources), no_rows, "b") == "wrong_answer"


def test_a_gold_query_that_writes_is_refused(resources: Resources) -> None:
    question = triple("sql", "", database="shop", gold_sql="ATTACH 'x.db' AS x")
    assert reason_of(Verifier(resources), question, "1") == "database_not_allowed"


def test_without_the_database_answers_are_compared_with_the_recorded_rows() -> None:
    assert reason_of(Verifier(Resources()), triple("sql", "a | 1\nb | 2"), "b | 2.0\na | 1") == "passed"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (PATCH, "passed"),
        (f"The fix:\n\n```diff\n{PATCH}```\nDone.", "passed"),
        (PATCH.replace("-two", "-three"), "patch_does_not_apply"),
        (PATCH.replace("+2", "+two"), "patch_changes_nothing"),
        ("I would change two to 2.", "patch_empty_patch"),
    ],
)
def test_swe_answers_must_apply_to_the_given_files(answer: str, expected: str) -> None:
    assert reason_of(Verifier(Resources()), triple("swe", PATCH), answer) == expected


def test_the_test_command_gets_the_patch_in_a_container_without_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = tmp_path / "fake-engine"
    engine.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/called\n'
        f'cat > {tmp_path}/patch\nexec grep -q "^+2" {tmp_path}/patch\n'
    )
    engine.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    test = ContainerTest(image="bench.{instance_id}", command=("sh", "-c", "x; y $HOME"), engine="fake-engine")
    verifier = Verifier(Resources(), test)
    question = triple("swe", PATCH, instance_id="o__r-1")
    assert reason_of(verifier, question, PATCH) == "passed"
    called = (tmp_path / "called").read_text().splitlines()
    assert called[:4] == ["run", "--rm", "--interactive", "--network=none"]
    assert called[-4:] == ["bench.o__r-1", "sh", "-c", "x; y $HOME"]  # each argument is passed on without a shell
    assert (tmp_path / "patch").read_text() == PATCH + "\n"
    assert reason_of(verifier, question, PATCH.replace("+2", "+zwei")) == "tests_failed"
    assert reason_of(verifier, triple("swe", PATCH, instance_id="a b;c"), PATCH) == "no_instance"
    with pytest.raises(EnvironmentProblem, match="'absent' is not on PATH"):
        Verifier(Resources(), ContainerTest(image="i", command=("c",), engine="absent")).check(question, PATCH)
    engine.write_text("#!/bin/sh\necho Cannot connect to the daemon >&2\nexit 125\n")
    with pytest.raises(EnvironmentProblem, match=r"could not run a container of bench\.o__r-1: Cannot connect"):
        verifier.check(question, PATCH)


def test_a_missing_container_engine_is_an_error_before_the_teacher_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvironmentProblem, match="needs docker or podman, and neither is on PATH"):
        container_test("image", "make test")
    assert container_test(None, None) is None
    (tmp_path / "podman").write_text("#!/bin/sh\n")
    (tmp_path / "podman").chmod(0o755)
    assert container_test("image", "sh -c 'a b'") == ContainerTest(
        image="image", command=("sh", "-c", "a b"), engine="podman"
    )


def test_rows_and_patches_are_found_in_answers() -> None:
    assert answer_rows("007 | -1 | 1e3 | a\\|b | 01") == [["007", -1, 1000.0, "a\\|b", "01"]]
    assert patch_of("text only") == ""
    assert patch_of("```python\nx\n```\n```\n--- a/x\n+++ b/x\n```") == "--- a/x\n+++ b/x\n"


@pytest.mark.data
@pytest.mark.skipif(not DATA.is_dir(), reason="no shared data")
def test_the_gold_patches_of_real_instances_apply_to_their_files() -> None:
    for row in json.loads((DATA / "swe" / "instances_with_files.json").read_bytes()):
        pieces = tuple(
            Piece(id=path, title=path, text=text, kind="evidence") for path, text in row["files_at_base_commit"].items()
        )
        question = Triple(id="t", agent="swe", question="q", context=pieces, reasoning="r", answer=row["patch"])
        assert reason_of(Verifier(Resources()), question, row["patch"].strip("\r\n")) == "passed"
