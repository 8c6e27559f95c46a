"""The report page is self-contained, and its numbers are those of the dataset and the run."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from support.in_process import acc_in_process

from acc_megatron.data_tools.convert.convert import ConvertSettings, convert
from acc_megatron.data_tools.convert.dataset_folder import open_dataset
from acc_megatron.data_tools.convert.verify import verify
from acc_megatron.errors import DataError
from acc_megatron.observe.metrics import MetricsLog, Restart, read_restarts, read_steps
from acc_megatron.observe.report import write_report


def log_run(folder: Path, steps: range) -> None:
    with MetricsLog(folder, active=True) as log:
        for step in steps:
            log.step(
                step, loss=10.0 / step, learning_rate=0.1, grad_norm=1.0, tokens_per_second=5.0, layout="TP1 <CP2>"
            )


def test_a_step_repeated_after_a_restart_counts_once(tmp_path: Path) -> None:
    log_run(tmp_path, range(1, 5))
    log_run(tmp_path, range(3, 7))
    assert [row["step"] for row in read_steps(tmp_path)] == [1, 2, 3, 4, 5, 6]
    assert list((tmp_path / "tensorboard").glob("events.*"))


def test_an_incomplete_last_line_is_ignored_by_readers_and_removed_by_the_next_run(tmp_path: Path) -> None:
    log_run(tmp_path, range(1, 4))
    with (tmp_path / "steps.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    assert [row["step"] for row in read_steps(tmp_path)] == [1, 2, 3]
    log_run(tmp_path, range(4, 6))
    assert [row["step"] for row in read_steps(tmp_path)] == [1, 2, 3, 4, 5]


def test_each_restart_is_read_with_the_number_of_repeated_steps(tmp_path: Path) -> None:
    for part in (range(1, 8), range(5, 9), range(9, 11)):
        log_run(tmp_path, part)
    assert read_restarts(tmp_path) == [Restart(5, 3), Restart(9, 0)]


def test_an_inactive_log_writes_nothing(tmp_path: Path) -> None:
    with MetricsLog(tmp_path / "run", active=False) as log:
        log.step(1, loss=1.0)
    assert not (tmp_path / "run").exists()


def test_the_page_is_self_contained_and_shows_totals_and_losses(dataset: Path, tmp_path: Path) -> None:
    log_run(tmp_path / "run", range(1, 5))
    (tmp_path / "dataset").symlink_to(dataset)
    page = write_report(tmp_path)
    text = page.read_text()
    assert not re.findall(r'(?:src|href)="(?!#)', text.replace("xlink:href", "href")), "no resource from another site"
    assert "<script" not in text
    assert set(re.findall(r"https?://[^\"]+", text)) == {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    manifest = open_dataset(dataset).manifest
    assert f"{manifest['documents_in']:,} rows in = {manifest['documents_out']:,} documents" in text
    assert "10.000 at step 1, 2.500 at step 4" in text
    assert "TP1 &lt;CP2&gt;" in text, "text from files is escaped"
    assert text.count("<svg") == 2
    assert '<meta name="viewport"' in text


def test_the_page_of_a_dataset_is_written_outside_the_dataset(dataset: Path) -> None:
    page = write_report(dataset)
    assert page.parent == dataset.parent
    assert verify(dataset) == []


def test_a_folder_without_dataset_or_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="contains neither a dataset"):
        write_report(tmp_path)


def bar_height(path: str) -> float:
    heights = [float(y) for y in re.findall(r"[ML] \S+ (\S+)", path)]
    return max(heights) - min(heights)


def test_the_histogram_counts_each_agents_documents_in_bins_that_follow_the_data(tmp_path: Path) -> None:
    """The lengths span 6,500 tokens, so the bins have 1,000: 500 would give more than 8 of them."""
    words = {"search": [1, 1990, 2500, 4100], "$\\no$": [1, 2, 3, 6500]}
    rows = [
        {
            "id": f"{agent}-{count}",
            "agent": agent,
            "question": "which?",
            "context": [{"id": "a", "title": "page", "text": " the" * count, "kind": "evidence"}],
            "reasoning": "R",
            "answer": "A",
        }
        for agent, counts in words.items()
        for count in counts
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    convert([tmp_path / "rows.jsonl"], tmp_path / "dataset", ConvertSettings())
    opened = open_dataset(tmp_path / "dataset")
    want = {
        agent: Counter(
            row["tokens"] // 1000
            for row in opened.samples.select(["agent", "tokens"]).to_pylist()
            if row["agent"] == agent
        )
        for agent in words
    }
    assert [sorted(bins) for bins in want.values()] == [[0, 2, 4], [0, 6]]
    text = write_report(tmp_path).read_text()
    assert "in bins of 1,000 tokens" in text
    panels = re.split(r'<g id="axes_\d+">', text)[1:]
    for panel, (agent, bins) in zip(panels, sorted(want.items()), strict=True):
        assert f">{agent}: 4 documents<" in panel
        heights = [
            bar_height(path) for path in re.findall(r'<path d="([^"]+)" clip-path="[^"]+" style="fill: #(?!f)', panel)
        ]
        tallest = max(bins.values())
        assert [round(height / max(heights) * tallest, 3) for height in heights] == [bins[k] for k in range(7)]


def test_drops_are_counted_in_rows_and_in_tokens(dataset: Path, tmp_path: Path) -> None:
    """The six documents with a limit that keeps five of them, and a line that is not JSON."""
    tokens = sorted(open_dataset(dataset).lengths.tolist())
    rows = (dataset.parent / "triples.jsonl").read_text() + "{broken\n"
    (tmp_path / "rows.jsonl").write_text(rows)
    convert([tmp_path / "rows.jsonl"], tmp_path / "dataset", ConvertSettings(max_tokens=tokens[-2]), max_bad_share=0.5)
    page = write_report(tmp_path).read_text()
    header = "".join(f"<th class=number>{name}</th>" for name in ("rows", "share", "tokens", "share"))
    assert f"<th>reason for the drop</th>{header}" in page

    def row(*cells: str) -> str:
        return f"<tr><td>{cells[0]}</td>" + "".join(f"<td class=number>{cell}</td>" for cell in cells[1:]) + "</tr>"

    assert row("broken_json", "1", "14.29%", "not tokenised", "") in page
    assert row("over_max_tokens", "1", "14.29%", f"{tokens[-1]:,}", f"{tokens[-1] / sum(tokens):.2%}") in page


def test_the_page_shows_shares_pass_rates_and_packing(dataset: Path, tmp_path: Path) -> None:
    counts = {"documents_in": 8, "documents_out": 2, "pass_rate": 0.25, "dropped": {"malformed": 2, "wrong_answer": 4}}
    manifest = {"by_agent": {"search": counts}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    opened = open_dataset(dataset)
    text = write_report(dataset, tmp_path / "page.html", tmp_path).read_text()
    pieces = [piece for row in opened.samples["pieces"].to_pylist()[::3] for piece in row]
    tokens = sum(piece["tokens"] for piece in pieces if piece["kind"] == "evidence")
    assert f"<td class=number>{tokens / opened.manifest['agents']['search']['tokens']:.1%}</td>" in text
    assert "<td class=number>25.0%</td><td class=number>25.0%</td><td>wrong_answer 4, malformed 2</td>" in text
    assert f"1 of {131_072:,} tokens; every packing needs at least 1" in text
    assert f"{opened.lengths.sum() / 131_072:.2%} of the tokens are documents" in text
    with pytest.raises(DataError, match="not an output folder of acc-megatron compile"):
        write_report(dataset, tmp_path / "page.html", dataset)


def test_the_page_shows_restarts_skipped_steps_and_uneven_experts(tmp_path: Path) -> None:
    rows = {
        step: {
            "loss": 9.0 if step == 7 else 3.0,
            "grad_norm": 1.0,
            "learning_rate": 0.1,
            "tokens_per_second": 5.0,
            "layout": "TP1",
            "skipped": step == 7,
            "documents": "3,5-6" if step == 7 else "0",
            "expert_load_max_over_mean": [1.25, 3.5],
            "dead_experts": [0, 2],
        }
        for step in range(1, 11)
    }
    for part in (range(1, 6), range(5, 9), range(9, 11)):
        with MetricsLog(tmp_path, active=True) as log:
            for step in part:
                log.step(step, **rows[step])
    text = write_report(tmp_path).read_text()
    for cells in (("Restarts", "2, which repeated 1 step"), ("Skipped steps", "1")):
        assert "".join(f"<td>{cell}</td>" for cell in cells) in text
    # counted from 0, as checkpoints and the analyses name layers
    assert "least even in layer 1: its busiest expert gets 3.50 times the mean" in text
    assert "over all layers: 2 at the last step, at most 2 at any step" in text
    events = re.findall(r"<td class=number>(\d+)</td><td>([^<]+)</td><td>([^<]*)</td>", text)
    assert events == [
        ("5", "restart", "repeated 1 step"),
        ("7", "skipped as a spike", "loss 9.000, gradient norm 1.000; documents 3, 5, 6"),
        ("9", "restart", "no step repeated"),
    ]


def test_a_report_opens_with_one_document_divided_into_its_parts(tmp_path: Path) -> None:
    """Each word is one token, so the sizes of the pieces are known."""
    kinds = {"evidence": 300, "distractor": 500}
    context = [{"id": kind, "title": kind, "text": " the" * count, "kind": kind} for kind, count in kinds.items()]
    row = {"id": "one", "agent": "sql", "question": "which table?", "context": context, "reasoning": "It is there."}
    (tmp_path / "rows.jsonl").write_text(json.dumps({**row, "answer": "Table 7"}) + "\n")
    convert([tmp_path / "rows.jsonl"], tmp_path / "dataset", ConvertSettings())
    log_run(tmp_path / "run", range(1, 3))
    lines = [json.loads(line) for line in (tmp_path / "run" / "steps.jsonl").read_text().splitlines()]
    (tmp_path / "run" / "steps.jsonl").write_text(
        "".join(json.dumps(line | {"documents": "0"}) + "\n" for line in lines)
    )
    text = write_report(tmp_path).read_text()
    assert text.index("One document") < text.index("<h2>Training</h2>") < text.index("<h2>Dataset</h2>")
    total = open_dataset(tmp_path / "dataset").lengths[0]
    key = dict(re.findall(r"</i>([a-z ]+): ([\d,]+) tokens", text))
    assert set(key) == {"evidence", "distractors", "question and instructions", "reasoning", "answer"}
    assert sum(int(count.replace(",", "")) for count in key.values()) == total
    assert 300 <= int(key["evidence"]) <= 310 and 500 <= int(key["distractors"]) <= 510
    sizes = [float(size) for size in re.findall(r'-fill style="flex: ([\d.]+) 0 0"', text)]
    assert sum(sizes) == pytest.approx(1000, abs=0.01)
    assert max(sizes) / 1000 * total == pytest.approx(int(key["distractors"]), abs=0.01)
    assert "Table 7" in text and "which table?" in text
    assert "The batch with it had a loss of 10.000 at step 1 and of 5.000 at step 2." in text


def test_a_report_of_compiled_triples_is_a_funnel_from_runs_in_to_triples_out(tmp_path: Path) -> None:
    page = [{"url": "u", "title": "T", "text": "The Aare flows through Bern."}]
    step = {"tool": "search", "input": "x", "output": json.dumps(page), "thought": "I look."}
    runs = [
        {"question": f"Which river ({n})?", "steps": [step], "answer": answer, "ground_truth": "Aare"}
        for n, answer in enumerate(["Aare"] * 6 + ["Rhine"] * 2)
    ]
    (tmp_path / "runs.jsonl").write_text("".join(json.dumps(run) + "\n" for run in runs))
    done = acc_in_process("compile", tmp_path / "runs.jsonl", "--out", tmp_path / "triples")
    assert done.returncode == 0, done.stderr
    shown = write_report(tmp_path / "triples")
    assert shown == tmp_path / "triples-report.html"
    bars = re.findall(
        r'<span>([^<]+)</span><i class=\S+ style="width: ([\d.]+)%"></i><b>([^<]+)</b>', shown.read_text()
    )
    assert bars == [
        ("runs in", "100.00", "8"),
        ("− wrong_answer", "25.00", "2 (25.0%)"),
        ("triples", "75.00", "6 (75.0%)"),
    ]
