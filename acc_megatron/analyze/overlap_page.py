"""The page of `analyze overlap`: a table of scores, the nearest pairs, and a map of the questions by UMAP."""

from pathlib import Path

import numpy as np
from markupsafe import Markup

from acc_megatron.analyze.comparison_page import COLORS
from acc_megatron.analyze.overlap import QUESTION_CHARS
from acc_megatron.analyze.results_format import OverlapResult
from acc_megatron.common.atomic_files import write_json
from acc_megatron.common.html_page import Figure, Table, matplotlib_text, svg, write_page
from acc_megatron.optional import missing_package


def publish_overlap(out: Path, result: OverlapResult, vectors: np.ndarray | None) -> Path:
    """Write `out/overlap.json` and `out/overlap.html`; returns the page.

    The map needs umap-learn (extra `[analyze]`); without it, or without embeddings, the page states why it has none.
    """
    out.mkdir(parents=True, exist_ok=True)
    points, note = _map(result, vectors)
    write_json(out / "overlap.json", {**result, "map": note, "map_points": points})
    page = out / "overlap.html"
    write_page(
        page,
        Path(__file__).with_name("overlap.html.jinja"),
        title="acc-megatron: overlap",
        scores=_scores(result),
        num_training_questions=f"{result['training']['questions']:,}",
        question_chars=f"{QUESTION_CHARS:,}",
        map_figure=Figure(_drawn(points), note) if points else None,
        map_note=note,
        nearest=_nearest(result),
    )
    return page


def _scores(result: OverlapResult) -> Table:
    rows = []
    for name, found in result["benchmarks"].items():
        row = [
            name,
            f"{found['questions']:,}",
            f"{found['shorter']:,}",
            f"{found['ngrams_in_questions']['contaminated']:,}",
            f"{found['ngrams_in_other_text']['contaminated']:,}",
        ]
        if near := found.get("embeddings"):
            auc = near["separability_auc"]
            row += [
                f"{near['contaminated']:,} of {near['embedded']:,}",
                f"{near['distinct']:,}",
                f"{near['mean_nearest_cosine']:.3f}",
                "too few" if auc is None else f"{auc:.3f}",
            ]
        rows.append(row)
    settings = result["settings"]
    header = [
        "benchmark", "questions", f"with fewer than {settings['num_words']} words",
        f"share {settings['num_words']} words with training questions", "with other training text",
    ]  # fmt: skip
    if any(found.get("embeddings") for found in result["benchmarks"].values()):
        header += [f"cosine {settings['similarity']} or more", "distinct embeddings", "mean nearest cosine", "AUC"]
    return Table(header, rows, number_columns=range(1, len(header)))


def _nearest(result: OverlapResult) -> dict[str, Table]:
    tables = {}
    for name, found in result["benchmarks"].items():
        embeddings = found.get("embeddings")
        if embeddings:
            rows = [
                (f"{one['cosine']:.3f}", one["place"], one["question"], one["training_question"])
                for one in embeddings["nearest"]
            ]
            header = ("cosine", "place", "question, first 200 characters", "nearest training question")
            tables[name] = Table(header, rows, number_columns={0})
    return tables


def _map(result: OverlapResult, vectors: np.ndarray | None) -> tuple[dict[str, list[list[float]]], str]:
    """Points of the training questions and of each benchmark, and how they were computed or why there are none."""
    if vectors is None:
        return {}, "The map needs embeddings: give --embedder or --endpoint."
    if len(vectors) < 10:
        return {}, f"{len(vectors)} questions are too few for a map; it needs 10"
    try:
        import umap
    except ModuleNotFoundError:
        return {}, str(missing_package("umap", "the map of questions"))
    neighbors = min(15, len(vectors) - 1)
    reducer = umap.UMAP(n_neighbors=neighbors, metric="cosine", random_state=result["settings"]["seed"], n_jobs=1)
    found = np.round(reducer.fit_transform(vectors).astype(np.float64), 3).tolist()
    sizes = {"training questions": result["training"]["embedded"]}
    sizes |= {name: of["embeddings"]["embedded"] for name, of in result["benchmarks"].items()}
    points, start = {}, 0
    for name, size in sizes.items():
        points[name] = found[start : start + size]
        start += size
    return points, f"UMAP of cosine distances, {neighbors} neighbors"


def _drawn(points: dict[str, list[list[float]]]) -> Markup:
    """One mark for each question; smaller sets are drawn later and larger, so that they stay visible."""
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
            color=COLORS[number % len(COLORS)],
            alpha=0.7,
            linewidths=0,
            zorder=2 + most - len(part),
            label=matplotlib_text(f"{name} ({len(part):,})"),
        )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return svg(drawing)
