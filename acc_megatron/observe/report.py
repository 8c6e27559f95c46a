"""One self-contained page about a dataset, an output of compile, a training run, or all of them; also as text."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acc_megatron.common.html_page import Bars, Part, Table, write_page
from acc_megatron.common.text_table import bar_lines, sparkline, table_lines
from acc_megatron.data_tools.compile.output import FORMAT as TRIPLES_FORMAT
from acc_megatron.data_tools.convert.dataset_folder import open_dataset
from acc_megatron.data_tools.convert.manifest import MANIFEST
from acc_megatron.errors import DataError
from acc_megatron.observe.compile_section import CompileSection, compile_section
from acc_megatron.observe.dataset_section import DatasetSection, dataset_section
from acc_megatron.observe.document_section import DocumentSection, document_section
from acc_megatron.observe.metrics import STEPS_FILE, read_steps
from acc_megatron.observe.run_comparison import RunComparison, compare_runs, run_folder
from acc_megatron.observe.run_section import RunSection, run_section

_FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class SummarySection:
    """What the pipeline of `acc-megatron quickstart` did, from its summary.json; older ones have no scores."""

    facts: Table
    scores: Table | None
    seconds: Bars


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the page shows, in this order; a part that the folder does not have is None."""

    title: str
    document: DocumentSection | None
    summary: SummarySection | None
    run: RunSection | None
    dataset: DatasetSection | None
    compiled: CompileSection | None
    losses: list[float]


def write_report(
    folder: Path, out: Path | None = None, compiled: Path | None = None, *, refresh_seconds: int | None = None
) -> Path:
    """Write the report of `folder`: a dataset folder, a run, an output of compile, or one with `dataset` and `run`.

    The page goes to `out`; by default to report.html in the folder, or next to a folder of data, whose files are all
    hashed. `compiled` is the output folder of the `compile` that made the triples; by default the folder `triples` next
    to the dataset, if there is one. Returns the page's path. Raises DataError when the folder contains none of these.
    """
    if out is None:
        is_data = (folder / MANIFEST).is_file()
        out = folder.with_name(f"{folder.name}-report.html") if is_data else folder / "report.html"
    report = make_report(folder, compiled)
    template = _FOLDER / "report.html.jinja"
    write_page(out, template, title=report.title, refresh_seconds=refresh_seconds, report=report)
    return out


def write_comparison(folders: Sequence[Path], out: Path | None = None, *, refresh_seconds: int | None = None) -> Path:
    """Write the page that compares the runs in `folders`; by default to comparison.html in the first.

    Raises DataError for a folder without logged steps.
    """
    out = out or folders[0] / "comparison.html"
    comparison = compare_runs(folders)
    title = " and ".join(comparison.names)
    template = _FOLDER / "comparison.html.jinja"
    write_page(out, template, title=title, refresh_seconds=refresh_seconds, comparison=comparison)
    return out


def make_report(folder: Path, compiled: Path | None = None) -> Report:
    """Read everything that the report of `folder` shows; see `write_report`."""
    dataset_dir = next((path for path in (folder, folder / "dataset") if _is_dataset(path)), None)
    run_dir = run_folder(folder)
    triples = _read_manifest(folder).get("format") == TRIPLES_FORMAT
    if dataset_dir is None and run_dir is None and not triples:
        raise DataError(
            f"{folder} contains neither a dataset or an output of compile ({MANIFEST}) nor a run ({STEPS_FILE})"
        )
    if compiled is None and dataset_dir is not None and (dataset_dir.parent / "triples" / MANIFEST).is_file():
        compiled = dataset_dir.parent / "triples"
    summary = folder / "summary.json"
    dataset = open_dataset(dataset_dir) if dataset_dir else None
    steps = read_steps(run_dir) if run_dir else []
    return Report(
        title=f"acc-megatron: {folder.resolve().name}",
        document=document_section(dataset, steps) if dataset and len(dataset) else None,
        summary=_summary_section(json.loads(summary.read_bytes())) if summary.is_file() else None,
        run=run_section(run_dir) if run_dir else None,
        dataset=dataset_section(dataset, compiled) if dataset else None,
        compiled=compile_section(folder) if triples else None,
        losses=[row["loss"] for row in steps],
    )


def report_lines(report: Report) -> Iterator[str]:
    """The report as lines of text: tables, bars and the curve of the loss."""
    yield report.title
    if report.document:
        yield from ("", "One document", report.document.title, *bar_lines(Bars(report.document.strip.key)))
    if report.summary:
        yield from ("", "Pipeline", *table_lines(report.summary.facts), *bar_lines(report.summary.seconds))
        if report.summary.scores:
            yield from table_lines(report.summary.scores)
    if report.run:
        yield from ("", "Training")
        if report.run.facts:
            yield from table_lines(report.run.facts)
            yield f"Loss  {sparkline(report.losses)}"
        else:
            yield "No step is logged yet."
    for data in (report.dataset, report.compiled):
        if data:
            yield from ("", data.name, data.totals, *bar_lines(data.funnel), *table_lines(data.agents))


def comparison_lines(comparison: RunComparison) -> Iterator[str]:
    """The comparison as lines of text."""
    yield from (comparison.sentence, "", *table_lines(comparison.facts))
    if comparison.settings:
        yield from ("", *table_lines(comparison.settings))


def _read_manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


def _is_dataset(folder: Path) -> bool:
    return (folder / MANIFEST).is_file() and _read_manifest(folder).get("format") != TRIPLES_FORMAT


def _summary_section(summary: dict[str, Any]) -> SummarySection:
    facts = [
        ("Documents", f"{summary['documents']:,}"),
        ("Tokens", f"{summary['tokens']:,}, {summary['supervised_tokens']:,} of them supervised"),
        ("Loss", f"{summary['loss_first']:.3f} at the first step, {summary['loss_last']:.3f} at the last"),
        ("Processes", f"{summary['world_size']} in layout {summary['layout']}"),
        ("Exported model", summary["export_dir"]),
    ]
    seconds = [Part(name, seconds, f"{seconds:.1f} s", "question") for name, seconds in summary["seconds"].items()]
    scores = [
        (benchmark, metric, f"{100 * mean:.1f}")
        for benchmark, means in summary.get("eval", {}).items()
        for metric, mean in means.items()
    ]
    return SummarySection(
        Table(("", ""), facts),
        Table(("benchmark", "metric", "percent"), scores, {2}) if scores else None,
        Bars(seconds, f"Time of each command, {sum(summary['seconds'].values()):.0f} s in total."),
    )
