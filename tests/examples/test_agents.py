"""The scripted agents: their logs have the public formats, and their answers are correct or wrong as intended."""

import json
import re
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support.commands import ROOT

AGENTS = ROOT / "examples" / "agents"
COUNT = 8
WRONG = [3]  # the fourth of every eight
LENGTH_TOKENS = 3000


def run_agent(agent: str, out: Path, *, count: int = COUNT, seed: int = 0, length_tokens: int = LENGTH_TOKENS) -> Path:
    """Run an agent without site packages; return its folder."""
    command = [sys.executable, "-S", str(AGENTS / f"{agent}_agent.py"), "--out", str(out), "--count", str(count)]
    command += ["--seed", str(seed), "--length-tokens", str(length_tokens)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["trajectories"] == count
    return out / agent


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("agents")
    for agent in ("sql", "swe", "search"):
        run_agent(agent, out)
    return out


@pytest.fixture(scope="module")
def sql_rows(made: Path) -> list[dict[str, Any]]:
    return rows_of(made / "sql" / "trajectories.jsonl")


@pytest.fixture(scope="module")
def search_rows(made: Path) -> list[dict[str, Any]]:
    return rows_of(made / "search" / "trajectories.jsonl")


@pytest.fixture(scope="module")
def instances(made: Path) -> list[dict[str, Any]]:
    return json.loads((made / "swe" / "instances.json").read_text())


def traj_of(made: Path, instance: dict[str, Any]) -> dict[str, Any]:
    return json.loads((made / "swe" / f"{instance['instance_id']}.traj").read_text())


@pytest.mark.parametrize("agent", ["sql", "swe", "search"])
def test_equal_arguments_give_equal_bytes(agent: str, made: Path, tmp_path: Path) -> None:
    again = run_agent(agent, tmp_path)
    files = sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(made / agent) for path in (made / agent).rglob("*") if path.is_file())
    assert all((again / file).read_bytes() == (made / agent / file).read_bytes() for file in files)


@pytest.mark.parametrize("agent", ["sql", "search"])
def test_another_seed_asks_other_questions(agent: str, made: Path, tmp_path: Path) -> None:
    other = run_agent(agent, tmp_path, seed=1)
    assert (other / "trajectories.jsonl").read_bytes() != (made / agent / "trajectories.jsonl").read_bytes()


def test_a_folder_that_no_agent_made_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "mine.txt").write_text("keep")
    command = [sys.executable, str(AGENTS / "search_agent.py"), "--out", str(tmp_path), "--count", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "not made by a scripted agent" in done.stderr
    assert [path.name for path in tmp_path.rglob("*")] == ["search", "mine.txt"]


@pytest.mark.parametrize("agent", ["sql", "swe", "search"])
def test_a_larger_length_gives_longer_logs(agent: str, made: Path, tmp_path: Path) -> None:
    def size(folder: Path) -> int:
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

    longer = run_agent(agent, tmp_path, count=2, length_tokens=24_000)
    assert size(longer) / 2 > 2 * size(made / agent) / COUNT


# --- SQL


def test_sql_rows_have_intercode_fields(sql_rows: list[dict[str, Any]]) -> None:
    assert [row["task_id"] for row in sql_rows] == list(range(COUNT))
    for row in sql_rows:
        history = row["turn_history"]
        lengths = {len(history[key]) for key in ("actions", "observations", "rewards", "thoughts", "valid_action")}
        assert lengths == {row["summary"]["turns_taken"]}
        assert history["actions"][0] == "execute[SHOW TABLES]" and history["actions"][-1] == "submit"
        assert row["summary"]["max_reward"] == history["rewards"][-1] and row["gold_error"] is None


def test_sql_gold_queries_return_the_gold_results(made: Path, sql_rows: list[dict[str, Any]]) -> None:
    for row in sql_rows:
        connection = sqlite3.connect(f"file:{made}/sql/db/{row['db']}.sqlite?mode=ro", uri=True)
        assert [list(found) for found in connection.execute(row["gold_sql"])] == row["gold_result"] != []
        connection.close()


def test_sql_observations_are_the_results_of_the_database(made: Path, sql_rows: list[dict[str, Any]]) -> None:
    for row in sql_rows:
        connection = sqlite3.connect(f"file:{made}/sql/db/{row['db']}.sqlite?mode=ro", uri=True)
        for action, seen in zip(row["turn_history"]["actions"], row["turn_history"]["observations"], strict=True):
            if action.startswith("execute[SELECT"):
                try:
                    expected = str(connection.execute(action.removeprefix("execute[")[:-1]).fetchall())
                except sqlite3.Error as error:
                    expected = f"Error executing query: {error}"
                assert seen == expected
        connection.close()


def test_sql_rewards_are_below_one_only_for_the_wrong_trajectories(sql_rows: list[dict[str, Any]]) -> None:
    assert [index for index, row in enumerate(sql_rows) if row["turn_history"]["rewards"][-1] < 1.0] == WRONG


def test_sql_questions_need_two_tables(made: Path, sql_rows: list[dict[str, Any]]) -> None:
    for row in sql_rows:
        connection = sqlite3.connect(f"file:{made}/sql/db/{row['db']}.sqlite?mode=ro", uri=True)
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        connection.close()
        assert len({name for name in tables if re.search(rf"\b(FROM|JOIN) {name}\b", row["gold_sql"])}) >= 2


def test_the_sql_agent_cannot_write(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE t (a INTEGER)")
    connection.commit()
    connection.close()
    script = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(AGENTS)!r})
from sql_agent import Environment
environment = Environment(Path({str(path)!r}))
for sql in ("INSERT INTO t VALUES (1)", "ATTACH '{tmp_path}/y' AS y", "CREATE TEMP TABLE u (a)", "PRAGMA user_version"):
    observation, valid = environment.execute(sql)
    assert not valid and observation.startswith("Error executing query"), (sql, observation)
assert environment.execute("SELECT COUNT(*) FROM t") == ("[(0,)]", True)
"""
    subprocess.run([sys.executable, "-c", script], check=True)
    assert not (tmp_path / "y").exists()


# --- SWE


def apply_patch(files: dict[str, str], patch: str) -> dict[str, str]:
    """Apply a unified diff whose hunks must fit exactly."""
    result = dict(files)
    for part in re.split(r"(?m)^(?=diff --git )", patch)[1:]:
        path = re.search(r"^\+\+\+ b/(.*)$", part, flags=re.MULTILINE)
        assert path is not None
        old, new, position = files[path[1]].split("\n"), [], 0
        for hunk in re.split(r"(?m)^(?=@@ )", part)[1:]:
            head, *lines = hunk.removesuffix("\n").split("\n")
            start = int(head.split()[1].split(",")[0][1:]) - 1
            new += old[position:start]
            before = [line[1:] for line in lines if line[0] in " -"]
            assert old[start : start + len(before)] == before
            new += [line[1:] for line in lines if line[0] in " +"]
            position = start + len(before)
        result[path[1]] = "\n".join(new + old[position:])
    return result


def script_output(files: dict[str, str], folder: Path) -> str:
    """The output of the test script on these files."""
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(text.encode())
    script = next(path for path in files if path.startswith("tests/"))
    done = subprocess.run([sys.executable, "-I", script], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == int("FAILED" in done.stdout)
    return done.stdout


def test_swe_patches_fix_the_failing_tests(instances: list[dict[str, Any]], tmp_path: Path) -> None:
    for instance in instances[:4]:
        files, names = instance["files_at_base_commit"], [name.split("::")[1] for name in instance["FAIL_TO_PASS"]]
        before = script_output(files, tmp_path / instance["instance_id"] / "before")
        assert re.findall(r"FAILED (\w+)", before) == names != []
        after = script_output(apply_patch(files, instance["patch"]), tmp_path / instance["instance_id"] / "after")
        assert "FAILED" not in after and {*re.findall(r"PASSED (\w+)", after)} >= {*names}


def test_swe_patches_touch_two_files(instances: list[dict[str, Any]]) -> None:
    for instance in instances:
        patched = re.findall(r"^diff --git a/(\S+) b/\1$", instance["patch"], flags=re.MULTILINE)
        assert len(set(patched)) == 2 and set(patched) <= set(instance["files_at_base_commit"])
        assert re.fullmatch(r"[0-9a-f]{40}", instance["base_commit"])


def test_swe_submissions_resolve_all_instances_except_the_wrong_ones(
    made: Path, instances: list[dict[str, Any]]
) -> None:
    assert [index for index, instance in enumerate(instances) if not instance["resolved"]] == WRONG
    for instance in instances:
        submission = traj_of(made, instance)["info"]["submission"].removeprefix("\n")
        assert (submission == instance["patch"]) == instance["resolved"]
        apply_patch(instance["files_at_base_commit"], submission)


def test_swe_trajectories_have_the_layout_of_swe_agent(made: Path, instances: list[dict[str, Any]]) -> None:
    for instance in instances:
        traj = traj_of(made, instance)
        assert traj["environment"] == instance["instance_id"] and traj["info"]["exit_status"] == "submitted"
        assert len(traj["history"]) == 2 * len(traj["trajectory"]) + 1
        for step in traj["trajectory"]:
            assert set(step) == {"action", "observation", "response", "state", "thought"}
            assert set(json.loads(step["state"])) == {"open_file", "working_dir"}
        assert traj["trajectory"][-1]["action"] == "submit\n"
        assert str(made) not in json.dumps(traj) and "/tmp" not in traj["trajectory"][0]["observation"]


def test_swe_windows_show_the_files(made: Path, instances: list[dict[str, Any]]) -> None:
    for instance in instances:
        files = instance["files_at_base_commit"]
        opened = [step for step in traj_of(made, instance)["trajectory"] if step["action"].startswith("open ")]
        for step in opened:
            head, *lines = step["observation"].splitlines()
            found = re.fullmatch(r"\[File: /testbed/(\S+) \((\d+) lines total\)\]", head)
            assert found is not None
            text = files[found[1]].removesuffix("\n").split("\n")
            assert len(text) == int(found[2])
            numbered = [line.split(":", 1) for line in lines if re.match(r"\d+:", line)]
            assert len(numbered) == min(100, len(text))
            assert all(text[int(number) - 1] == shown for number, shown in numbered)
        distinct = {step["action"].split()[1] for step in opened}
        assert len(distinct) >= 2


# --- search


def parts_of(message: dict[str, str], tag: str) -> list[str]:
    return re.findall(rf"<{tag}>\n(.*?)\n</{tag}>", message["content"], flags=re.DOTALL)


def calls_of(row: dict[str, Any]) -> list[dict[str, Any]]:
    return [json.loads(call) for message in row["messages"][2:] for call in parts_of(message, "tool_call")]


def pages_of(row: dict[str, Any]) -> dict[str, str]:
    """The visited pages by url."""
    blocks = [block for message in row["messages"][2:] for response in parts_of(message, "tool_response")
              for block in response.split("\n=======\n")]  # fmt: skip
    pattern = (
        r"The useful information in (\S+) for user goal .* as follows: \n\nEvidence in page: \n(.*)\n\nSummary: \n.*"
    )
    found = [re.fullmatch(pattern, block, flags=re.DOTALL) for block in blocks]
    return {match[1]: match[2] for match in found if match}


def test_search_rows_are_webdancer_chats(search_rows: list[dict[str, Any]]) -> None:
    for row in search_rows:
        roles = [message["role"] for message in row["messages"]]
        assert roles == ["system", "user"] + ["assistant", "user"] * ((len(roles) - 3) // 2) + ["assistant"]
        assert row["messages"][1]["content"].count("User:") == 1
        assert len(row["answer"]) == len(row["answer"][0]) == 1
        for message in row["messages"][2:-1]:
            if message["role"] == "assistant":
                assert len(parts_of(message, "think")) == len(parts_of(message, "tool_call")) == 1
            else:
                assert len(parts_of(message, "tool_response")) == 1
        assert len(parts_of(row["messages"][-1], "answer")) == 1


def test_search_responses_have_the_format_of_webdancer(search_rows: list[dict[str, Any]]) -> None:
    for row in search_rows:
        for call, message in zip(calls_of(row), row["messages"][3::2], strict=False):
            blocks = parts_of(message, "tool_response")[0].split("\n=======\n")
            if call["name"] == "visit":
                assert len(blocks) == len(call["arguments"]["url"])
                continue
            for query, block in zip(call["arguments"]["query"], blocks, strict=True):
                head = re.match(r"A Google search for '(.*)' found (\d+) results:\n\n## Web Results\n", block)
                assert head is not None and head[1] == query
                hits = re.findall(r"^\d+\. \[.*?\]\(https://docs\.example/python/\S+\)$", block, flags=re.MULTILINE)
                assert len(hits) == int(head[2])


def test_search_answers_are_contained_in_visited_pages(search_rows: list[dict[str, Any]]) -> None:
    for row in search_rows:
        pages = pages_of(row)
        urls = [url for call in calls_of(row) if call["name"] == "visit" for url in call["arguments"]["url"]]
        assert len(pages) >= 2 and list(pages) == urls
        assert any(row["answer"][0][0] in text for text in pages.values())


def test_search_answers_are_correct_except_for_the_wrong_trajectories(search_rows: list[dict[str, Any]]) -> None:
    said = [parts_of(row["messages"][-1], "answer")[0] for row in search_rows]
    pairs = enumerate(zip(said, search_rows, strict=True))
    assert [index for index, (answer, row) in pairs if row["answer"][0][0] not in answer] == WRONG


def test_search_questions_are_all_different(tmp_path: Path) -> None:
    rows = rows_of(run_agent("search", tmp_path, count=40) / "trajectories.jsonl")
    questions = Counter(row["messages"][1]["content"].partition("User: ")[2] for row in rows)
    assert max(questions.values()) == 1


# --- all three


def test_compile_keeps_the_correct_trajectories_and_drops_the_wrong_ones(made: Path, tmp_path: Path) -> None:
    compile_module = pytest.importorskip("acc_megatron.data_tools.compile.compile")
    from acc_megatron.data_tools.tokenizer.qwen_bpe import load_tokenizer

    manifest = compile_module.compile_inputs(
        [made / agent for agent in ("sql", "swe", "search")],
        tmp_path / "triples",
        agent="auto",
        resources=[],
        settings=compile_module.CompileSettings(),
        tokenizer=load_tokenizer(),
    )
    assert manifest["documents_in"] == 3 * COUNT
    assert manifest["documents_out"] == 3 * (COUNT - len(WRONG))
    assert manifest["dropped"] == {"wrong_answer": 2, "unresolved": 1}
    for row in rows_of(tmp_path / "triples" / "triples.jsonl"):
        assert sum(piece["kind"] == "evidence" for piece in row["context"]) >= 2
