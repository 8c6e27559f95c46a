"""One self-contained HTML page: a dataset's lengths, shares and drops, and a run's curves; no script, no link out."""

import html
import json
from pathlib import Path
from typing import Any

from acc_megatron.data_tools.atomic import atomic_file
from acc_megatron.data_tools.dataset_folder import MANIFEST, open_dataset
from acc_megatron.errors import DataError
from acc_megatron.observe.dataset_section import dataset_section
from acc_megatron.observe.metrics import STEPS_FILE
from acc_megatron.observe.page import STYLE, table
from acc_megatron.observe.run_section import run_section


def write_report(folder: Path, out: Path | None = None, compiled: Path | None = None) -> Path:
    """Draw what is in `folder`: a dataset folder, a training run, or a folder that holds `dataset` and `run`.

    The page goes to `out`, or to report.html in the folder (beside it, for a dataset, whose files are all hashed).
    `compiled` is the folder of the compile that made the triples; without it a `triples` folder beside is taken.
    Raises DataError when the folder holds neither.
    """
    dataset_dir = next((path for path in (folder, folder / "dataset") if (path / MANIFEST).is_file()), None)
    run_dir = next((path for path in (folder, folder / "run") if (path / STEPS_FILE).is_file()), None)
    if dataset_dir is None and run_dir is None:
        raise DataError(f"{folder} holds neither a dataset ({MANIFEST}) nor a run ({STEPS_FILE})")
    if compiled is None and dataset_dir is not None and (dataset_dir.parent / "triples" / MANIFEST).is_file():
        compiled = dataset_dir.parent / "triples"
    sections = []
    if (folder / "summary.json").is_file():
        sections.append(_summary_section(json.loads((folder / "summary.json").read_bytes())))
    if run_dir is not None:
        sections.append(run_section(run_dir))
    if dataset_dir is not None:
        sections.append(dataset_section(open_dataset(dataset_dir), compiled))
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
    return "<h2>The road</h2>" + table(("", ""), facts) + table(("stage", "seconds"), stages, numbers={1})
