"""One self-contained HTML page: a dataset's lengths, shares and drops, and a run's curves; no script, no link out."""

import html
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from acc_megatron.data_tools.atomic import atomic_file
from acc_megatron.data_tools.dataset_folder import MANIFEST, DatasetFolder, open_dataset
from acc_megatron.errors import DataError
from acc_megatron.observe.metrics import STEPS_FILE, read_steps

BIN_TOKENS = 2_000  # as in the paper's figure 3
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a }
h1 { font-size: 1.6rem } h2 { font-size: 1.2rem; margin-top: 2.2rem; border-bottom: 1px solid #ddd }
table { border-collapse: collapse; margin: .8rem 0 } td, th { padding: .25rem .9rem .25rem 0; text-align: left }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums }
th { border-bottom: 1px solid #999; font-weight: 600 } figure { margin: 1rem 0 } svg { max-width: 100%; height: auto }
figcaption, .note { color: #666; font-size: .9rem }
"""


def write_report(folder: Path, out: Path | None = None) -> Path:
    """Draw what is in `folder`: a dataset folder, a training run, or a folder that holds `dataset` and `run`.

    The page goes to `out`, or to report.html in the folder (beside it, for a dataset, whose files are all hashed).
    Raises DataError when the folder holds neither.
    """
    dataset_dir = next((path for path in (folder, folder / "dataset") if (path / MANIFEST).is_file()), None)
    run_dir = next((path for path in (folder, folder / "run") if (path / STEPS_FILE).is_file()), None)
    if dataset_dir is None and run_dir is None:
        raise DataError(f"{folder} holds neither a dataset ({MANIFEST}) nor a run ({STEPS_FILE})")
    sections = []
    if (folder / "summary.json").is_file():
        sections.append(_summary_section(json.loads((folder / "summary.json").read_bytes())))
    if run_dir is not None:
        sections.append(_run_section(read_steps(run_dir)))
    if dataset_dir is not None:
        sections.append(_dataset_section(open_dataset(dataset_dir)))
    if out is None:
        out = folder.with_name(f"{folder.name}-report.html") if folder == dataset_dir else folder / "report.html"
    title = f"acc-megatron: {html.escape(folder.resolve().name)}"
    body = "\n".join(sections)
    head = f'<meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
    page = f'<!doctype html><html lang="en"><head>{head}</head><body><h1>{title}</h1>{body}</body></html>\n'
    with atomic_file(out) as file:
        file.write(page.encode())
    return out


def _summary_section(summary: dict[str, Any]) -> str:
    facts = [
        ("Documents", f"{summary['documents']:,}"),
        ("Tokens, of which supervised", f"{summary['tokens']:,}, {summary['supervised_tokens']:,}"),
        ("Loss, first and last step", f"{summary['loss_first']:.3f}, {summary['loss_last']:.3f}"),
        ("Processes and layout", f"{summary['world_size']}, {summary['layout']}"),
        ("Exported model", summary["export_dir"]),
    ]
    stages = [(name, f"{seconds:.1f}") for name, seconds in summary["seconds"].items()]
    return "<h2>The road</h2>" + _table(("", ""), facts) + _table(("stage", "seconds"), stages, numbers={1})


def _run_section(steps: list[dict[str, Any]]) -> str:
    if not steps:
        return "<h2>Training</h2><p>No step is logged yet.</p>"
    first, last = steps[0], steps[-1]
    rate = float(np.median([row["tokens_per_second"] for row in steps]))
    note = (
        f"{len(steps)} steps; loss {first['loss']:.3f} at step {first['step']}, {last['loss']:.3f} at step "
        f"{last['step']}; median {rate:,.0f} tokens/s in layout {html.escape(last['layout'])}."
    )
    return f"<h2>Training</h2><p>{note}</p>" + _figure(_run_figure(steps), "Loss is per supervised token.")


def _dataset_section(dataset: DatasetFolder) -> str:
    manifest = dataset.manifest
    rows = []
    for agent, counts in manifest["agents"].items():
        lengths = _lengths(dataset, agent)
        share = counts["supervised_tokens"] / counts["tokens"]
        median, largest = int(np.median(lengths)), int(lengths.max())
        rows.append(
            (agent, f"{counts['documents']:,}", f"{counts['tokens']:,}", f"{median:,}", f"{largest:,}", f"{share:.2%}")
        )
    header = ("agent", "documents", "tokens", "median length", "longest", "supervised")
    drops = [(reason, f"{count:,}") for reason, count in manifest["dropped"].items()]
    num_dropped = sum(manifest["dropped"].values())
    text = f"{manifest['documents_in']:,} rows in = {manifest['documents_out']:,} documents + {num_dropped:,} dropped."
    dropped = _table(("dropped for", "rows"), drops, numbers={1}) if drops else ""
    caption = f"Document lengths in bins of {BIN_TOKENS:,} tokens, by agent."
    return (
        f"<h2>Dataset</h2><p>{text}</p>"
        + _table(header, rows, numbers={1, 2, 3, 4, 5})
        + dropped
        + _figure(_length_figure(dataset), caption)
        + f'<p class="note">Dataset fingerprint {dataset.fingerprint}</p>'
    )


def _lengths(dataset: DatasetFolder, agent: str) -> np.ndarray:
    agents = np.asarray(dataset.samples["agent"].to_pylist())
    return dataset.lengths[agents == agent]


def _run_figure(steps: list[dict[str, Any]]) -> str:
    import matplotlib.figure

    figure = matplotlib.figure.Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.subplots(1, 3)
    numbers = [row["step"] for row in steps]
    for axis, (key, label) in zip(
        axes, (("loss", "loss"), ("learning_rate", "learning rate"), ("grad_norm", "gradient norm")), strict=True
    ):
        axis.plot(numbers, [row[key] for row in steps], color="#1f5fa8")
        axis.set_xlabel("step")
        axis.set_title(label, fontsize=10)
        axis.grid(alpha=0.3)
    return _svg(figure)


def _length_figure(dataset: DatasetFolder) -> str:
    import matplotlib.figure

    figure = matplotlib.figure.Figure(figsize=(9, 3.2), layout="constrained")
    axis = figure.subplots()
    agents = list(dataset.manifest["agents"])
    num_bins = int(dataset.lengths.max()) // BIN_TOKENS + 1
    edges = np.arange(num_bins + 1) * BIN_TOKENS
    axis.hist([_lengths(dataset, agent) for agent in agents], bins=list(edges), stacked=True, label=agents)
    axis.set_xlabel("tokens")
    axis.set_ylabel("documents")
    axis.legend(frameon=False)
    return _svg(figure)


def _svg(figure: Any) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _figure(svg: str, caption: str) -> str:
    return f"<figure>{svg}<figcaption>{html.escape(caption)}</figcaption></figure>"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], numbers: set[int] = frozenset()) -> str:  # type: ignore[assignment]
    def line(cells: Sequence[str], tag: str) -> str:
        cell = (
            f"<{tag}{' class=number' if column in numbers else ''}>{html.escape(str(text))}</{tag}>"
            for column, text in enumerate(cells)
        )
        return f"<tr>{''.join(cell)}</tr>"

    head = line(header, "th") if any(header) else ""
    return f"<table>{head}{''.join(line(row, 'td') for row in rows)}</table>"
