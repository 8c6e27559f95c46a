"""The report page stands alone, and its numbers are those of the dataset and the run."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from acc_megatron.data_tools.convert import ConvertSettings, convert
from acc_megatron.data_tools.dataset_folder import open_dataset
from acc_megatron.data_tools.verify import verify
from acc_megatron.errors import DataError
from acc_megatron.observe.metrics import MetricsLog, read_restarts, read_steps
from acc_megatron.observe.report import write_report


def log_run(folder: Path, steps: range) -> None:
    with MetricsLog(folder, active=True) as log:
        for step in steps:
            log.step(
                step, loss=10.0 / step, learning_rate=0.1, grad_norm=1.0, tokens_per_second=5.0, layout="TP1 <CP2>"
            )


def test_a_step_done_again_after_a_restart_counts_once(tmp_path: Path) -> None:
    log_run(tmp_path, range(1, 5))
    log_run(tmp_path, range(3, 7))
    assert [row["step"] for row in read_steps(tmp_path)] == [1, 2, 3, 4, 5, 6]
    assert list((tmp_path / "tensorboard").glob("events.*"))


def test_a_line_that_a_kill_tore_off_is_neither_read_nor_built_upon(tmp_path: Path) -> None:
    log_run(tmp_path, range(1, 4))
    with (tmp_path / "steps.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    assert [row["step"] for row in read_steps(tmp_path)] == [1, 2, 3]
    log_run(tmp_path, range(4, 6))
    assert [row["step"] for row in read_steps(tmp_path)] == [1, 2, 3, 4, 5]


def test_restarts_are_marked_with_the_steps_done_again(tmp_path: Path) -> None:
    for part in (range(1, 8), range(5, 9), range(9, 11)):
        log_run(tmp_path, part)
    assert read_restarts(tmp_path) == [(5, 3), (9, 0)]


def test_an_inactive_log_writes_nothing(tmp_path: Path) -> None:
    with MetricsLog(tmp_path / "run", active=False) as log:
        log.step(1, loss=1.0)
    assert not (tmp_path / "run").exists()


def test_the_page_links_to_nothing_and_shows_the_books(dataset: Path, tmp_path: Path) -> None:
    log_run(tmp_path / "run", range(1, 5))
    (tmp_path / "dataset").symlink_to(dataset)
    page = write_report(tmp_path)
    text = page.read_text()
    assert not re.findall(r'(?:src|href)="(?!#)', text.replace("xlink:href", "href")), "no resource from outside"
    assert "<script" not in text
    assert set(re.findall(r"https?://[^\"]+", text)) == {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    manifest = open_dataset(dataset).manifest
    assert f"{manifest['documents_in']:,} rows in = {manifest['documents_out']:,} documents" in text
    assert "10.000 at step 1, 2.500 at step 4" in text
    assert "TP1 &lt;CP2&gt;" in text, "text from files is escaped"
    assert text.count("<svg") == 2


def test_the_page_of_a_dataset_leaves_the_dataset_whole(dataset: Path) -> None:
    page = write_report(dataset)
    assert page.parent == dataset.parent
    assert verify(dataset) == []


def test_a_folder_with_neither_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="neither a dataset"):
        write_report(tmp_path)


def bar_height(path: str) -> float:
    heights = [float(y) for y in re.findall(r"[ML] \S+ (\S+)", path)]
    return max(heights) - min(heights)


def test_the_histogram_holds_each_agents_documents_in_bins_of_2000_tokens(tmp_path: Path) -> None:
    """Words of one token each beside a frame of a known length put documents at chosen sides of the bins' edges."""
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
            row["tokens"] // 2000
            for row in opened.samples.select(["agent", "tokens"]).to_pylist()
            if row["agent"] == agent
        )
        for agent in words
    }
    assert [sorted(bins) for bins in want.values()] == [[0, 1, 2], [0, 3]]
    text = write_report(tmp_path).read_text()
    panels = re.split(r'<g id="axes_\d+">', text)[1:]
    for panel, (agent, bins) in zip(panels, sorted(want.items()), strict=True):
        assert f"<!-- {agent}: 4 documents -->" in panel
        heights = [
            bar_height(path) for path in re.findall(r'<path d="([^"]+)" clip-path="[^"]+" style="fill: #(?!f)', panel)
        ]
        tallest = max(bins.values())
        assert [round(height / max(heights) * tallest, 3) for height in heights] == [bins[k] for k in range(4)]


def test_drops_are_told_in_rows_and_in_tokens(dataset: Path, tmp_path: Path) -> None:
    """The six documents again under a limit that keeps five, with a line that no one can read."""
    tokens = sorted(open_dataset(dataset).lengths.tolist())
    rows = (dataset.parent / "triples.jsonl").read_text() + "{broken\n"
    (tmp_path / "rows.jsonl").write_text(rows)
    convert([tmp_path / "rows.jsonl"], tmp_path / "dataset", ConvertSettings(max_tokens=tokens[-2]), max_bad_share=0.5)
    page = write_report(tmp_path).read_text()
    header = "".join(f"<th class=number>{name}</th>" for name in ("rows", "of all", "tokens", "of all"))
    assert f"<th>dropped for</th>{header}" in page

    def row(*cells: str) -> str:
        return f"<tr><td>{cells[0]}</td>" + "".join(f"<td class=number>{cell}</td>" for cell in cells[1:]) + "</tr>"

    assert row("broken_json", "1", "14.29%", "never tokenised", "") in page
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
    assert f"1 of {131_072:,} tokens; no packing needs fewer than 1" in text
    assert f"{opened.lengths.sum() / 131_072:.2%} of the rows" in text
    with pytest.raises(DataError, match="not the output of a compile"):
        write_report(dataset, tmp_path / "page.html", dataset)


def test_the_page_marks_restarts_skipped_steps_and_uneven_experts(tmp_path: Path) -> None:
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
    for cells in (("Restarts", "2, which did 1 steps again"), ("Skipped steps", "1")):
        assert "".join(f"<td>{cell}</td>" for cell in cells) in text
    # counted from 0, as checkpoints and the analyses name layers
    assert "layer 1 is the least even: its fullest expert has 3.50 times the mean" in text
    assert "no token: 2 of all layers at the last step, at most 2 at any step" in text
    events = re.findall(r"<td class=number>(\d+)</td><td>([^<]+)</td><td>([^<]*)</td>", text)
    assert events == [
        ("5", "restart", "1 steps were done again"),
        ("7", "skipped as a spike", "loss 9.000, gradient norm 1.000; documents 3, 5, 6"),
        ("9", "restart", ""),
    ]
