"""report.html: every model of one or more runs side by side, beside the paper's numbers; no script, no link out."""

import html
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from acc_megatron.data_tools.atomic import atomic_file
from acc_megatron.evaluate.published import COLUMNS, HARNESS, OWN, PUBLISHED
from acc_megatron.evaluate.results import differences, natural_order
from acc_megatron.observe.page import STYLE, as_drawn, figure, svg, table

HEADLINE = {"mrcr": "score", "graphwalks": "f1", "multiple_choice": "accuracy"}
_COLOURS = ("#1f5fa8", "#c2571a", "#2e7d4f", "#8a3fa0", "#8c6d1f", "#555555")
_STYLE = f"{STYLE} body {{ max-width: 80rem }} td.number {{ white-space: nowrap }}"
NONE = "–"


@dataclass(frozen=True)
class Shown:
    """One model as the page names it, and the results that it is from."""

    label: str
    model: str
    results: dict[str, Any]

    def on(self, benchmark: str, kind: str) -> dict[str, Any] | None:
        """Its summary on a benchmark of this name and kind, if it was asked."""
        found = self.results["benchmarks"].get(benchmark)
        return found["models"].get(self.model) if found and found["kind"] == kind else None


def write_report(runs: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw the results of `runs` on one page; the first names it."""
    shown = list(_shown(runs))
    asked = dict.fromkeys((name, part["kind"]) for results in runs for name, part in results["benchmarks"].items())
    sections = [_asked_section(shown), _paper_section(shown)]
    sections += [
        _benchmark_section(name, kind, [one for one in shown if one.on(name, kind)], runs[0]["settings"])
        for name, kind in asked
    ]
    title = f"Evaluation: {html.escape(runs[0]['name'])}"
    body = "\n".join(section for section in sections if section)
    head = f'<meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
    page = f'<!doctype html><html lang="en"><head>{head}</head><body><h1>{title}</h1>{body}</body></html>\n'
    with atomic_file(path) as file:
        file.write(page.encode())


def _shown(runs: Sequence[dict[str, Any]]) -> Iterator[Shown]:
    taken: set[str] = set()
    for results in runs:
        for model in results["models"]:
            label, number = model, 1
            while label in taken:
                label, number = f"{model} ({results['name']}{f' {number}' if number > 1 else ''})", number + 1
            taken.add(label)
            yield Shown(label, model, results)


def percent(summary: dict[str, Any] | None, metric: str) -> str:
    """A mean with its interval in percent, such as `51.2 [48.0, 54.1]`."""
    if summary is None or metric not in summary["means"]:
        return NONE
    mean, interval = summary["means"][metric], summary["intervals"][metric]
    return f"{100 * mean:.1f}" + (f" [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]" if interval else "")


def _asked_section(shown: Sequence[Shown]) -> str:
    rows = []
    for one in shown:
        asked = [part["models"][one.model]["asked"] for part in one.results["benchmarks"].values()]
        reasons: dict[str, int] = {}
        for part in asked:
            for reason, count in part["without_answer"].items():
                reasons[reason] = reasons.get(reason, 0) + count
        source = one.results["models"][one.model]
        rows.append(
            (
                one.label,
                str(source.get("endpoint") or source.get("folder")),
                _sampling(one),
                *(f"{sum(part[key] for part in asked):,}" for key in ("num_answers", "num_cut_at_max_new_tokens")),
                ", ".join(f"{count} {reason}" for reason, count in reasons.items()) or "none",
                *(f"{sum(part[key] for part in asked):,}" for key in ("prompt_tokens", "new_tokens")),
                f"{sum(part['cost'] for part in asked):,.2f}",
            )
        )
    header = (
        "model",
        "where",
        "sampling",
        "answers",
        "of these cut",
        "without answer",
        "tokens in",
        "tokens out",
        "cost",
    )
    return "<h2>What was asked</h2>" + table(header, rows, numbers={3, 4, 6, 7, 8})


def _sampling(one: Shown) -> str:
    settings = one.results["settings"]
    model = settings["models"][one.model]
    given = [f"{name} {model[name]:g}" for name in ("temperature", "top_p", "top_k") if model[name] is not None]
    return ", ".join([*given, f"avg@{settings['repeats']}", f"seed {settings['seed']}"])


def _paper_section(shown: Sequence[Shown]) -> str:
    """The paper's numbers above ours, for the columns that we have; nothing where there is none."""
    ours = {one.label: {column: _own(one, column) for column in COLUMNS} for one in shown}
    columns = [column for column in COLUMNS if any(cells[column] != NONE for cells in ours.values())]
    if not columns:
        return ""
    rows = [
        (name, *(f"{values[column]:.2f}" if column in values else NONE for column in columns))
        for name, values in PUBLISHED.items()
    ]
    rows += [(label, *(cells[column] for column in columns)) for label, cells in ours.items()]
    made = any(part["generated"] for one in shown for part in one.results["benchmarks"].values())
    note = (
        "In percent; ours with 95 % bootstrap intervals over items. MRCR is the mean ratio, GraphWalks F1 (whether the "
        "paper means F1 or precision is not known; both stand below). Paper: arXiv 2605.21850, averages of 3 samples."
    )
    if made:
        note += " Some of our rows are generated, not the published ones: compare models here, not with the paper."
    return f"<h2>Beside the paper</h2>{table(('', *columns), rows, numbers=set(range(1, 12)))}<p class=note>{note}</p>"


def _own(one: Shown, column: str) -> str:
    for benchmark in one.results["benchmarks"].values():
        summary = benchmark["models"][one.model]
        if column in OWN and benchmark["kind"] == OWN[column][0]:
            _, group, metric = OWN[column]
            part = summary["groups"].get(group[0], {}).get(group[1]) if group else _paper_needles(summary)
            if part is not None:
                return percent(part, metric)
        if column in HARNESS and benchmark["kind"] == "lm_eval":
            kind, pattern, metrics = HARNESS[column]
            for task, part in summary["groups"].get(kind, {}).items():
                found = [metric for metric in metrics if fnmatchcase(task, pattern) and metric in part["means"]]
                if found:
                    return percent(part, found[0])
    return NONE


def _paper_needles(summary: dict[str, Any]) -> dict[str, Any] | None:
    """The total of a benchmark, unless it holds needle counts that the paper's does not."""
    return None if set(summary["groups"].get("n_needles", {})) - {"2", "4"} else summary


def _benchmark_section(name: str, kind: str, shown: Sequence[Shown], settings: dict[str, Any]) -> str:
    first = shown[0].results["benchmarks"][name]
    summaries = [(one, one.on(name, kind) or {}) for one in shown]
    metrics = sorted({metric for _, summary in summaries for metric in summary["means"]}, key=headline_first(first))
    parts = [f"<h2>{html.escape(name)}</h2>"]
    by_note: dict[str, list[str]] = {}
    for one in shown:
        by_note.setdefault(_rows_note(one.results, name), []).append(one.label)
    for note, labels in by_note.items():
        of = f"{', '.join(labels)}: " if len(by_note) > 1 else ""
        parts.append(f"<p class=note>{html.escape(of + note)}.</p>")
    for one, summary in summaries:
        if count := summary["asked"]["num_longer_than_matched"]:
            note = f"{one.label}: {count:,} answers are longer than is matched; their rest counts as wrong."
            parts.append(f"<p class=note>{html.escape(note)}</p>")
    rows = [
        (one.label, f"{summary['num_items']:,}", *(percent(summary, metric) for metric in metrics))
        for one, summary in summaries
    ]
    parts.append(table(("model", "items", *metrics), rows, numbers=set(range(1, len(metrics) + 2))))
    metric = HEADLINE.get(kind, metrics[0])
    groups = dict.fromkeys(group for _, summary in summaries for group in summary["groups"])
    for group in groups:
        found = {value for _, summary in summaries for value in summary["groups"].get(group, {})}
        values = sorted(found, key=natural_order)  # two runs may have different bins
        if len(values) > 1:
            for one_metric in (metric, f"flexible_{metric}"):
                if one_metric in metrics:
                    parts.append(_group_table(group, values, one_metric, summaries))
            if group == "bin_tokens":
                drawing = _bins_figure([value for value in values if value[0].isdecimal()], metric, summaries)
                parts.append(figure(drawing, f"{metric} by length in tokens, with 95 % intervals over items."))
    parts.append(_differences_table(name, shown, metrics, settings))
    return "".join(parts)


def _rows_note(results: dict[str, Any], name: str) -> str:
    """What the rows of a run's benchmark are, what was left out of them and what was corrected."""
    part = results["benchmarks"][name]
    kind = part["kind"]
    if kind == "lm_eval":
        return f"lm_eval, rows of its tasks: {', '.join(results['settings']['benchmarks'][name]['tasks'])}"
    left = ", ".join(f"{count:,} {reason}" for reason, count in part["left_out"].items())
    notes = [f"{kind}, {'generated rows' if part['generated'] else 'rows of files'}"]
    notes += [f"lengths in tokens of {results['tokenizer']['name']}"]
    notes[-1] += ", where the published bins count o200k_base's" if kind == "mrcr" else ""
    notes += [f"left out: {left}"] if left else []
    notes += [f"{part['corrected_truths']} truths without the node itself"] if part["corrected_truths"] else []
    return "; ".join(notes)


def headline_first(benchmark: dict[str, Any]) -> Callable[[str], tuple[bool, str]]:
    """The key that sorts a benchmark's metrics: the one it is known by, then the others by name."""
    return lambda metric: (metric != HEADLINE.get(benchmark["kind"]), metric)


def _group_table(
    group: str, values: Sequence[str], metric: str, summaries: Sequence[tuple[Shown, dict[str, Any]]]
) -> str:
    header = (f"{metric} by {group}", *(one.label for one, _ in summaries))
    rows = []
    for value in values:
        found = [summary["groups"].get(group, {}).get(value) for _, summary in summaries]
        rows.append((value, *(f"{percent(part, metric)} (n {part['num_items']})" if part else NONE for part in found)))
    return table(header, rows, numbers=set(range(1, len(header))))


def _bins_figure(values: Sequence[str], metric: str, summaries: Sequence[tuple[Shown, dict[str, Any]]]) -> str:
    import matplotlib.figure

    drawing = matplotlib.figure.Figure(figsize=(9, 3.4), layout="constrained")
    axes = drawing.subplots()
    for number, (one, summary) in enumerate(summaries):
        bins = summary["groups"].get("bin_tokens", {})
        found = [(place, bins[value]) for place, value in enumerate(values) if value in bins]
        places = [place + 0.06 * (number - (len(summaries) - 1) / 2) for place, _ in found]
        means = [100 * part["means"][metric] for _, part in found]
        bounds = [part["intervals"][metric] or [part["means"][metric]] * 2 for _, part in found]
        spread = [
            [max(0.0, mean - 100 * low) for mean, (low, _) in zip(means, bounds, strict=True)],
            [max(0.0, 100 * high - mean) for mean, (_, high) in zip(means, bounds, strict=True)],
        ]
        colour = _COLOURS[number % len(_COLOURS)]
        axes.errorbar(places, means, yerr=spread, marker="o", capsize=3, color=colour, label=as_drawn(one.label))
    axes.set_xticks(range(len(values)), values, fontsize=8)
    axes.set_ylim(-2, 102)
    axes.set_ylabel(f"{metric}, percent")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return svg(drawing)


def _differences_table(name: str, shown: Sequence[Shown], metrics: Sequence[str], settings: dict[str, Any]) -> str:
    # what this page is of minus what stands beside it; within a run the later model minus the earlier
    ordered = sorted(shown, key=lambda one: one.results is shown[0].results)
    items = {
        one.label: [item for item in one.results["items"] if item["benchmark"] == name and item["model"] == one.model]
        for one in ordered
    }
    found = differences(items, samples=settings["bootstrap_samples"], seed=settings["seed"])
    if not found:
        return ""
    rows = [
        (f"{one['model']} minus {one['minus']}", f"{one['num_items']:,}", *(percent(one, metric) for metric in metrics))
        for one in found
    ]
    header = ("difference on the questions that both answered", "items", *metrics)
    return table(header, rows, numbers=set(range(1, len(metrics) + 2)))
