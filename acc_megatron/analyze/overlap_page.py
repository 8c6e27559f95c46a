"""The overlap of training and benchmark questions on one page: a table, the nearest pairs, and a map by UMAP."""

import html
from pathlib import Path
from typing import Any

import numpy as np

from acc_megatron.analyze.page import COLOURS
from acc_megatron.data_tools.atomic import atomic_file, write_json
from acc_megatron.observe.page import STYLE, figure, svg, table


def publish_overlap(out: Path, result: dict[str, Any], vectors: np.ndarray | None) -> Path:
    """Write `out/overlap.json` and `out/overlap.html`; returns the page.

    The map needs umap-learn (extra `[analyze]`); without it, or without embeddings, the page says why it has none.
    """
    out.mkdir(parents=True, exist_ok=True)
    drawing, note = _map(result, vectors)
    write_json(out / "overlap.json", result | {"map": note})
    parts = [_scores(result), f"<h2>Map</h2>{drawing or ''}<p class=note>{html.escape(note)}</p>", _nearest(result)]
    title = "acc-megatron: overlap"
    page = out / "overlap.html"
    with atomic_file(page) as file:
        head = f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{STYLE}</style>"
        file.write(f"{head}<h1>{title}</h1>{''.join(parts)}</html>".encode())
    return page


def _scores(result: dict[str, Any]) -> str:
    rows = []
    for name, found in result["benchmarks"].items():
        near = found.get("embeddings")
        separable = near and near["separability_auc"]
        rows.append(
            (
                name,
                f"{found['questions']:,}",
                *(f"{found[key]['contaminated']:,}" for key in ("ngrams_in_questions", "ngrams_in_other_text")),
                f"{near['contaminated']:,} of {near['embedded']:,}" if near else "not embedded",
                f"{near['mean_nearest_cosine']:.3f}" if near else "",
                f"{separable:.3f}" if separable is not None and near else "",
            )
        )
    settings = result["settings"]
    header = (
        "benchmark", "questions", f"share {settings['num_words']} words with training questions",
        "with other training text", f"cosine {settings['similarity']} or more", "mean nearest cosine", "AUC",
    )  # fmt: skip
    note = f"{result['training']['questions']:,} training questions. AUC: 1 is told apart always, 0.5 never."
    return table(header, rows, numbers=set(range(1, 7))) + f"<p class=note>{note}</p>"


def _nearest(result: dict[str, Any]) -> str:
    parts = []
    for name, found in result["benchmarks"].items():
        rows = [
            (f"{one['cosine']:.3f}", one["place"], one["question"], one["training_question"])
            for one in found.get("embeddings", {}).get("nearest", [])
        ]
        if rows:
            header = ("cosine", "place", "question", "nearest training question")
            parts.append(f"<h2>Nearest to {html.escape(name)}</h2>" + table(header, rows, numbers={0}))
    return "".join(parts)


def _map(result: dict[str, Any], vectors: np.ndarray | None) -> tuple[str | None, str]:
    if vectors is None:
        return None, "no embeddings were asked for"
    if len(vectors) < 10:
        return None, f"{len(vectors)} questions are too few for a map"
    try:
        import umap
    except ImportError:
        return None, "umap-learn is not installed: pip install 'acc-megatron[analyze]'"
    neighbours = min(15, len(vectors) - 1)
    reducer = umap.UMAP(n_neighbors=neighbours, metric="cosine", random_state=result["settings"]["seed"], n_jobs=1)
    points = reducer.fit_transform(vectors)
    import matplotlib.figure

    drawing = matplotlib.figure.Figure(figsize=(7, 5), layout="constrained")
    axes = drawing.subplots()
    sizes = [("training", result["training"]["embedded"])]
    sizes += [(name, found["embeddings"]["embedded"]) for name, found in result["benchmarks"].items()]
    start = 0
    for number, (name, size) in enumerate(sizes):
        part = points[start : start + size]
        axes.scatter(part[:, 0], part[:, 1], s=8, alpha=0.6, color=COLOURS[number % len(COLOURS)], label=name)
        start += size
    axes.set_xticks([])
    axes.set_yticks([])
    axes.legend(fontsize=8)
    return figure(svg(drawing), "Questions in two dimensions."), f"UMAP of cosine distances, {neighbours} neighbours"
