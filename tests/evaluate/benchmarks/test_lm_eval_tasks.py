"""lm-eval's real code with our models: tasks of local rows, its own graders, and tasks that cannot be asked."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from support.teacher_server import Teacher, completion, send, send_json

from acc_megatron.errors import ConfigError, DataError, EnvironmentProblem
from acc_megatron.evaluate.benchmarks.graphwalks.benchmark import GraphWalksSettings
from acc_megatron.evaluate.benchmarks.lm_eval_tasks.chat_model import until
from acc_megatron.evaluate.runner import evaluate
from acc_megatron.evaluate.settings import run_from_tree

TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
output_type: {kind}
test_split: test
doc_to_text: "What is {{{{a}}}} plus {{{{b}}}}?"
doc_to_target: "{{{{a + b}}}}"
{more}
"""
GENERATIVE = """
generation_kwargs: {until: ["Question:"], do_sample: false}
filter_list:
  - name: strict-match
    filter: [{function: regex, regex_pattern: "The answer is (\\\\d+)"}, {function: take_first}]
  - name: flexible-extract
    filter: [{function: regex, regex_pattern: "(\\\\d+)", group_select: -1}, {function: take_first}]
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep the datasets out of the user's cache."""
    pytest.importorskip("lm_eval")
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def task_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "tasks"
    folder.mkdir()
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps({"a": a, "b": 2}) + "\n" for a in range(6)))
    (folder / "sums.yaml").write_text(TASK.format(name="sums", rows=rows, kind="generate_until", more=GENERATIVE))
    choices = 'doc_to_choice: ["{{a}}", "{{b}}"]\ndoc_to_target: 0'
    text = TASK.format(name="likely", rows=rows, kind="multiple_choice", more=choices)
    (folder / "likely.yaml").write_text(text.replace('doc_to_target: "{{a + b}}"\n', ""))
    return folder


def adding(handler: Any, body: dict[str, Any], _: int) -> None:
    """Adds up, in the strict form for even numbers; fails for 5."""
    a = int(body["messages"][-1]["content"].split()[2])
    if a == 5:
        send(handler, 400, b'{"error": "five is right out"}')
    elif a % 2:
        send_json(handler, completion(f"It is {a + 2}.", reasoning=""))
    else:
        text = f"<think>The answer is 99</think>The answer is {a + 2}\nQuestion: The answer is 77"
        send_json(handler, completion(text, reasoning=""))


def settings(teacher: Teacher, task_folder: Path, *tasks: str, **changes: Any) -> Any:
    model = {"endpoint": teacher.url, "model": "m", "window_tokens": 4096, "tries": 1}
    benchmark = {"kind": "lm_eval", "tasks": list(tasks), "task_folder": str(task_folder), "max_new_tokens": 64}
    tree = {"name": "x", "models": {"m": model}, "benchmarks": {"sums": benchmark}, "bootstrap_samples": 20}
    return run_from_tree(tree | changes, "x")


def test_a_task_is_asked_through_our_client_and_graded_by_lm_eval(tmp_path: Path, task_folder: Path) -> None:
    with Teacher(adding) as teacher:
        results = evaluate(settings(teacher, task_folder, "sums"), tmp_path / "out", show=print)
        bodies = [json.loads(data) for data in teacher.asked]
        assert {body["max_tokens"] for body in bodies} == {64}
        assert sorted(body["messages"][-1]["content"] for body in bodies) == [f"What is {a} plus 2?" for a in range(6)]
        assert all("stop" not in body for body in bodies)  # a stop string would end the thinking too
        before = sum(teacher.asked.values())
        evaluate(settings(teacher, task_folder, "sums"), tmp_path / "out", show=print)
        assert sum(teacher.asked.values()) == before + 1  # only the failed one
    summary = results["benchmarks"]["sums"]["models"]["m"]
    # five answers: strict for 0, 2 and 4, flexible for all; the failed one is counted but not scored
    assert summary["num_items"] == 5
    assert summary["means"] == {"exact_match,flexible-extract": 1.0, "exact_match,strict-match": 0.6}
    assert summary["asked"]["without_answer"] == {"http_400": 1}
    assert summary["lm_eval"]["repeats"][0]["sums"]["exact_match,strict-match"] == 0.5  # lm-eval saw an empty answer
    assert {item["groups"]["task"] for item in results["items"]} == {"sums"}


def test_a_group_is_scored_over_the_items_of_all_its_tasks(tmp_path: Path, task_folder: Path) -> None:
    """As for MMLU-Pro and its subjects, the mean is over items: four rows weigh four times as much as one."""
    text = (task_folder / "sums.yaml").read_text()
    for name, numbers in (("few", range(1)), ("many", range(1, 5))):
        rows = task_folder / f"{name}.jsonl"
        rows.write_text("".join(json.dumps({"a": a, "b": 2}) + "\n" for a in numbers))
        file = text.replace("task: sums", f"task: all_{name}").replace(str(task_folder / "rows.jsonl"), str(rows))
        (task_folder / f"{name}.yaml").write_text(file)
    (task_folder / "inner.yaml").write_text("group: inner\ntask: [all_many]\n")
    (task_folder / "all.yaml").write_text("group: all\ntask: [all_few, inner]\n")
    with Teacher(adding) as teacher:
        results = evaluate(settings(teacher, task_folder, "all", "sums"), tmp_path / "out", show=print)
    groups = results["benchmarks"]["sums"]["models"]["m"]["groups"]
    sizes = {task: part["num_items"] for task, part in groups["task"].items()}
    assert sizes == {"all_few": 1, "all_many": 4, "sums": 5}
    whole = groups["task_group"]["all"]
    # only even numbers are strict: 0 and 2, 4 of 0 to 4; the mean of the two tasks would be 0.75
    assert (whole["num_items"], whole["means"]["exact_match,strict-match"]) == (5, 0.6)


def test_a_limit_draws_by_seed_and_repeats_are_averaged(tmp_path: Path, task_folder: Path) -> None:
    def sometimes(handler: Any, body: dict[str, Any], _: int) -> None:
        a = int(body["messages"][-1]["content"].split()[2])
        send_json(handler, completion(f"The answer is {a + 2 if body['seed'] % 2 else 0}", reasoning=""))

    asked = []
    for seed in (0, 2):
        with Teacher(sometimes) as teacher:
            models = {"m": {"endpoint": teacher.url, "model": "m", "window_tokens": 4096, "temperature": 1.0}}
            run = settings(teacher, task_folder, "sums", limit=3, seed=seed, repeats=2, models=models)
            results = evaluate(run, tmp_path / str(seed), show=print)
            asked.append({json.loads(data)["messages"][-1]["content"] for data in teacher.asked})
            assert sum(teacher.asked.values()) == 6
        assert [item["scores"]["exact_match,strict-match"] for item in results["items"]] == [0.5] * 3
        numbers = [int(item["id"].rpartition("/")[2]) for item in results["items"]]
        assert asked[-1] == {f"What is {a} plus 2?" for a in numbers}
    assert asked[0] != asked[1]


def test_a_task_of_likelihoods_is_rejected_with_an_alternative(tmp_path: Path, task_folder: Path) -> None:
    with Teacher(adding) as teacher, pytest.raises(ConfigError, match="task likely compares likelihoods"):
        evaluate(settings(teacher, task_folder, "likely"), tmp_path / "out", show=print)


def test_rows_that_cannot_be_downloaded_are_one_clear_error(
    tmp_path: Path, task_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    text = (task_folder / "sums.yaml").read_text()
    (task_folder / "far.yaml").write_text(text.replace("task: sums", "task: far").replace(": json", ": nobody/nothing"))
    with (
        Teacher(adding) as teacher,
        pytest.raises(DataError, match=r"benchmarks\.sums: lm-eval could not run its tasks"),
    ):
        evaluate(settings(teacher, task_folder, "far"), tmp_path / "out", show=print)


def test_without_lm_eval_the_extra_is_named_before_anything_is_asked(
    tmp_path: Path, task_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with Teacher(adding) as teacher:
        run = settings(teacher, task_folder, "sums")
        walks = GraphWalksSettings(kind="graphwalks", items=1, length_tokens=[700])
        run = dataclasses.replace(run, benchmarks={"walks": walks, **run.benchmarks})
        with pytest.raises(EnvironmentProblem, match=r"pip install lm-eval==0\.4\.13 langdetect immutabledict"):
            evaluate(run, tmp_path / "out", show=print)
        assert not teacher.asked


def test_a_task_that_lm_eval_does_not_know_is_named_before_anything_is_asked(tmp_path: Path, task_folder: Path) -> None:
    with Teacher(adding) as teacher:
        run = settings(teacher, task_folder, "sums", "aime_24")
        walks = GraphWalksSettings(kind="graphwalks", items=1, length_tokens=[700])
        run = dataclasses.replace(run, benchmarks={"walks": walks, **run.benchmarks})
        with pytest.raises(
            ConfigError, match=r"benchmarks\.sums\.tasks: lm-eval .* has no task 'aime_24'; .* aime24\?"
        ):
            evaluate(run, tmp_path / "out", show=print)
        assert not teacher.asked


def tasks_of_the_paper(folder: Path) -> Path:
    """lm-eval's own task files over local rows of the published schemas."""
    import lm_eval

    own = Path(lm_eval.__file__).parent / "tasks"
    folder.mkdir()
    sum_of = {"question": "1 + 1?", "options": ["3", "2", "4"], "answer": "B", "answer_index": 1, "category": "math",
              "cot_content": "A: Let's think step by step. It is two. The answer is (B)."}  # fmt: skip
    instructions = {"key": 1, "prompt": "Write one sentence without any comma.", "kwargs": [{"num_words": None}],
                    "instruction_id_list": ["punctuation:no_comma"]}  # fmt: skip
    wrong = {"Correct Answer": "right"} | {f"Incorrect Answer {k}": f"wrong {k}" for k in (1, 2, 3)}
    sources = {
        "gpqa_diamond_cot_zeroshot": ("gpqa/cot_zeroshot/_gpqa_cot_zeroshot_yaml", {
            "train": [wrong | {"Question": f"Which is right, number {k}?"} for k in range(8)]}),
        "mmlu_pro_math": ("mmlu_pro/mmlu_pro_math.yaml", {
            "test": [sum_of, sum_of | {"question": "law?", "category": "law"}], "validation": [sum_of] * 5}),
        "aime24": ("aime/aime24.yaml", {"train": [{"ID": "I-1", "Problem": "What is 200 + 4?", "Answer": 204}]}),
        "ifeval": ("ifeval/ifeval.yaml", {
            "train": [instructions, instructions | {"key": 2, "prompt": "Write two clauses, no comma."}]}),
    }  # fmt: skip
    for task, (file, splits) in sources.items():
        files = {}
        for split, rows in splits.items():
            files[split] = str(folder / f"{task}_{split}.jsonl")
            Path(files[split]).write_text("".join(json.dumps(row) + "\n" for row in rows))
        (folder / f"{task}.yaml").write_text(
            f"include: {own / file}\ntask: {task}\ndataset_path: json\ndataset_name: null\n"
            f"dataset_kwargs: {json.dumps({'data_files': files})}\n"
        )
    return folder


def schoolchild(handler: Any, body: dict[str, Any], _: int) -> None:
    """Knows every answer, but puts a forbidden comma into one of two texts."""
    asked = body["messages"][-1]["content"]
    if "Which is right" in asked:
        letter = next(letter for letter in "ABCD" if f"({letter}) right\n" in asked)
        text = f"<think>hm, (A) or (B)?</think>The answer is ({letter})."
    elif "Options:" in asked:
        text = "Two. The answer is (B)."
    elif "200 + 4" in asked:
        text = "It is $\\boxed{204}$."
    else:
        text = "First, a comma." if "two" in asked else "No such thing here."
    send_json(handler, completion(text, reasoning=""))


def test_gpqa_mmlu_pro_aime_and_ifeval_are_graded_on_rows_of_their_published_schemas(tmp_path: Path) -> None:
    folder = tasks_of_the_paper(tmp_path / "tasks")
    names = ("gpqa_diamond_cot_zeroshot", "mmlu_pro_math", "aime24", "ifeval")
    with Teacher(schoolchild) as teacher:
        results = evaluate(settings(teacher, folder, *names), tmp_path / "out", show=print)
        asked = set(teacher.asked)
        again = evaluate(settings(teacher, folder, *names), tmp_path / "again", show=print)
        assert set(teacher.asked) == asked, "GPQA's choices have the same order in another run"
        evaluate(settings(teacher, folder, *names, seed=1), tmp_path / "other", show=print)
        assert set(teacher.asked) > asked, "and another order with another seed"
    assert again["items"] == results["items"]
    scores = {item["id"].partition("/")[2]: item["scores"] for item in results["items"]}
    assert len(scores) == 8 + 1 + 1 + 2, "the question of law does not belong to mathematics"
    for number in range(8):
        found = scores[f"gpqa_diamond_cot_zeroshot/{number}"]
        assert found == {"exact_match,strict-match": 1.0, "exact_match,flexible-extract": 1.0}
    assert scores["mmlu_pro_math/0"] == {"exact_match,custom-extract": 1.0}
    assert scores["aime24/0"] == {"exact_match": 1.0}
    assert [scores[f"ifeval/{k}"]["prompt_level_strict_acc"] for k in (0, 1)] == [1.0, 0.0]
    shots = [json.loads(data)["messages"] for data in asked if "Options" in data]
    assert [len(messages) for messages in shots] == [12], "a system message, five examples as turns, the question"


def test_the_papers_benchmarks_are_generative_tasks_of_lm_eval() -> None:
    """Names and kinds in lm-eval's own files; the rows would have to be downloaded."""
    lm_eval = pytest.importorskip("lm_eval")
    tasks = Path(lm_eval.__file__).parent / "tasks"
    names = {
        "gpqa/cot_zeroshot/gpqa_diamond_cot_zeroshot.yaml": "task: gpqa_diamond_cot_zeroshot",
        "gpqa/cot_zeroshot/_gpqa_cot_zeroshot_yaml": "output_type: generate_until",
        "mmlu_pro/_mmlu_pro.yaml": "group: mmlu_pro",
        "mmlu_pro/_default_template_yaml": "output_type: generate_until",
        "aime/aime24.yaml": "task: aime24",
        "aime/aime25.yaml": "task: aime25",
        "ifeval/ifeval.yaml": "task: ifeval",
    }
    for file, line in names.items():
        assert line in (tasks / file).read_text(), file
    for file in ("aime/aime24.yaml", "aime/aime25.yaml", "ifeval/ifeval.yaml"):
        assert "output_type: generate_until" in (tasks / file).read_text(), file


def test_a_text_ends_at_its_first_stop_string() -> None:
    assert until("a Question: b </s>", ["</s>", "Question:"]) == "a "
    assert until("a</s>b", "</s>") == "a"
    assert until("plain", ["", "x"]) == "plain"
