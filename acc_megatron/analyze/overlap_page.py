"""The overlap of training and benchmark questions on one page: a table, the nearest pairs, and a map by UMAP."""

import html
from pathlib import Path
from typing import Any

import numpy as np

from acc_megatron.analyze.overlap import QUESTION_CHARS
from acc_megatron.analyze.page import COLOURS
from acc_megatron.data_tools.atomic import atomic_file, write_json
from acc_megatron.observe.page import STYLE, as_drawn, figure, svg, table


def publish_overlap(out: Path, result: dict[str, Any], vectors: np.ndarray | None) -> Path:
    """Write `out/overlap.json` and `out/overlap.html`; returns the page.

    The map needs umap-learn (extra `[analyze]`); without it, or without embeddings, the page says why it has none.
    """
    out.mkdir(parents=True, exist_ok=True)
    points, note = _map(result, vectors)
    write_json(out / "overlap.json", result | {"map": note, "map_points": points})
    drawing = figure(_drawn(points), note) if points else f"<p class=note>{html.escape(note)}</p>"
    parts = [_scores(result), f"<h2>Map</h2>{drawing}", _nearest(result)]
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
        separable = near["separability_auc"] if near else None
        rows.append(
            (
                name,
                f"{found['questions']:,}",
                f"{found['shorter']:,}",
                *(f"{found[key]['contaminated']:,}" for key in ("ngrams_in_questions", "ngrams_in_other_text")),
                f"{near['contaminated']:,} of {near['embedded']:,}" if near else "not embedded",
                f"{near['distinct']:,}" if near else "",
                f"{near['mean_nearest_cosine']:.3f}" if near else "",
                "" if not near else "too few" if separable is None else f"{separable:.3f}",
            )
        )
    settings = result["settings"]
    header = (
        "benchmark", "questions", f"of fewer than {settings['num_words']} words",
        f"share {settings['num_words']} words with training questions",
        "with other training text", f"cosine {settings['similarity']} or more", "distinct embeddings",
        "mean nearest cosine", "AUC",
    )  # fmt: skip
    note = (
        f"{result['training']['questions']:,} training questions. AUC: 1 is told apart always, 0.5 never; "
        "less is met where the sides share questions, or are few. "
        f"An embedding is of a question's first {QUESTION_CHARS:,} characters, and all-MiniLM-L6-v2 reads 256 tokens "
        "of them: questions that differ only later share one. N-grams are of whole questions; one of fewer words is "
        "looked for whole, and may be found by chance. overlap.json names those that share most."
    )
    return table(header, rows, numbers=set(range(1, 9))) + f"<p class=note>{note}</p>"


def _nearest(result: dict[str, Any]) -> str:
    parts = []
    for name, found in result["benchmarks"].items():
        rows = [
            (f"{one['cosine']:.3f}", one["place"], one["question"], one["training_question"])
            for one in found.get("embeddings", {}).get("nearest", [])
        ]
        if rows:
            header = ("cosine", "place", "question, first 200 characters", "nearest training question")
            parts.append(f"<h2>Nearest to {html.escape(name)}</h2>" + table(header, rows, numbers={0}))
    return "".join(parts)


def _map(result: dict[str, Any], vectors: np.ndarray | None) -> tuple[dict[str, list[list[float]]], str]:
    """Points of the training questions and of each benchmark's, and how they were made or why there are none."""
    if vectors is None:
        return {}, "no embeddings were asked for"
    if len(vectors) < 10:
        return {}, f"{len(vectors)} questions are too few for a map"
    try:
        import umap
    except ImportError:
        return {}, "umap-learn is not installed: pip install 'acc-megatron[analyze]'"
    neighbours = min(15, len(vectors) - 1)
    reducer = umap.UMAP(n_neighbors=neighbours, metric="cosine", random_state=result["settings"]["seed"], n_jobs=1)
    found = np.round(reducer.fit_transform(vectors).astype(np.float64), 3).tolist()
    sizes = {"training questions": result["training"]["embedded"]}
    sizes |= {name: of["embeddings"]["embedded"] for name, of in result["benchmarks"].items()}
    points, start = {}, 0
    for name, size in sizes.items():
        points[name] = found[start : start + size]
        start += size
    return points, f"UMAP of cosine distances, {neighbours} neighbours"


def _drawn(points: dict[str, list[list[float]]]) -> str:
    """A mark a question; smaller sets are drawn later and larger, or a few would drown in many."""
    import matplotlib.figure

    drawing = matplotlib.figure.Figure(figsize=(8, 5), layout="constrained")
    axes = drawing.subplots()
    most = max(map(len, points.values()))
    for number, (name, part) in enumerate(points.items()):
        across, up = zip(*part, strict=True)
        axes.scatter(
            across,
            up,
            s=14 if len(part) > most / 10 else 60,
            marker="osD^vP*X"[number % 8],
            color=COLOURS[number % len(COLOURS)],
            alpha=0.7,
            linewidths=0,
            zorder=2 + most - len(part),
            label=as_drawn(f"{name} ({len(part):,})"),
        )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return svg(drawing)
