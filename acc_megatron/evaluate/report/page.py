"""report.html: the models of one or more runs next to each other and next to the paper's figures."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from acc_megatron.common.html_page import Interval, Intervals, Table, write_page
from acc_megatron.evaluate.benchmarks.paper import PAPER_MODELS
from acc_megatron.evaluate.benchmarks.registry import BENCHMARKS
from acc_megatron.evaluate.report.means import NONE, percent, points
from acc_megatron.evaluate.report.section import Section, ShownModel, benchmark_section
from acc_megatron.evaluate.results_format import Results


def write_report(runs: Sequence[Results], path: Path) -> None:
    """Write the results of `runs` to one page; its title is the name of the first."""
    shown = list(_shown_models(runs))
    benchmarks = dict.fromkeys((name, part["kind"]) for run in runs for name, part in run["benchmarks"].items())
    paper, paper_notes = _paper_table(shown)
    sections = [
        benchmark_section(name, kind, [one for one in shown if one.has(name, kind)], runs[0]["settings"])
        for name, kind in benchmarks
    ]
    write_page(
        path,
        Path(__file__).with_name("report.html.jinja"),
        title=f"Evaluation: {runs[0]['name']}",
        asked=_asked_table(shown),
        unanswered=[
            f"{model} answered no question of {name}: {why}"
            for run in runs
            for name, by_model in run.get("unanswered", {}).items()
            for model, why in by_model.items()
        ],
        paper=paper,
        paper_notes=paper_notes,
        any_generated=any(part["generated"] for run in runs for part in run["benchmarks"].values()),
        sections=sections,
        sentences=[sentence for section in sections for sentence in _sentences(section)],
        forest=_forest(sections),
        scores=_scores_table(shown, sections),
    )


def _shown_models(runs: Sequence[Results]) -> Iterator[ShownModel]:
    taken: set[str] = set()
    for results in runs:
        for model in results["models"]:
            label, number = model, 1
            while label in taken:
                label, number = f"{model} ({results['name']}{f' {number}' if number > 1 else ''})", number + 1
            taken.add(label)
            yield ShownModel(label, model, results)


def _sentences(section: Section) -> list[str]:
    """What each paired difference says; an interval that contains 0 says nothing."""
    said = []
    for one in section.differences:
        interval = one["intervals"].get(section.headline)
        if interval is None:
            continue
        mean, (low, high) = one["means"][section.headline], interval
        numbers = f"95 % interval {points(low)} to {points(high)}, {one['num_items']:,} questions"
        if low <= 0 <= high:
            said.append(
                f"{section.title}: no difference is shown between {one['model']} and {one['minus']} ({points(mean)} "
                f"points of {section.headline}, {numbers})."
            )
        else:
            said.append(
                f"{section.title}: {one['model']} is {'better' if mean > 0 else 'worse'} than {one['minus']} by "
                f"{points(abs(mean))} points of {section.headline} ({numbers})."
            )
    return said


def _forest(sections: Sequence[Section]) -> Intervals | None:
    """Every paired difference of a headline metric with its interval; None if there is none."""
    rows = [
        Interval(
            f"{section.title}: {one['model']} minus {one['minus']}",
            interval[0],
            one["means"][section.headline],
            interval[1],
            percent(one, section.headline),
        )
        for section in sections
        for one in section.differences
        if (interval := one["intervals"].get(section.headline)) is not None
    ]
    caption = "Differences in points on the questions that both models answered, with 95 % intervals; the line is 0."
    return Intervals(rows, caption) if rows else None


def _scores_table(shown: Sequence[ShownModel], sections: Sequence[Section]) -> Table:
    """The headline metric of every benchmark for every model."""
    rows = []
    for one in shown:
        cells = []
        for section in sections:
            benchmark = one.results["benchmarks"].get(section.title)
            cells.append(percent(benchmark["models"].get(one.model) if benchmark else None, section.headline))
        rows.append((one.label, *cells))
    header = ("headline scores, percent", *(f"{section.title} ({section.headline})" for section in sections))
    return Table(header, rows, number_columns=range(1, len(header)))


def _asked_table(shown: Sequence[ShownModel]) -> Table:
    """What every model was asked, over all benchmarks."""
    rows = []
    for one in shown:
        answered = [part for part in one.results["benchmarks"].values() if one.model in part["models"]]
        asked = [part["models"][one.model]["asked"] for part in answered]
        reasons = sum((Counter(part["without_answer"]) for part in asked), Counter[str]())
        source = one.results["models"][one.model]
        rows.append(
            (
                one.label,
                str(source.get("endpoint") or source.get("folder")),
                _sampling(one),
                f"{sum(part['num_answers'] for part in asked):,}",
                f"{sum(part['num_cut_at_max_new_tokens'] for part in asked):,}",
                ", ".join(f"{count} {reason}" for reason, count in reasons.items()) or "none",
                f"{sum(part['prompt_tokens'] for part in asked):,}",
                f"{sum(part['new_tokens'] for part in asked):,}",
                f"{sum(part['cost'] for part in asked):,.2f}",
            )
        )
    header = (
        "model", "location", "sampling", "answers", "of these cut", "without answer", "tokens in", "tokens out", "cost",
    )  # fmt: skip
    shown_columns = len(header) - all(row[-1] == "0.00" for row in rows)  # a model in a folder costs nothing
    return Table(header[:shown_columns], [row[:shown_columns] for row in rows], number_columns={3, 4, 6, 7, 8})


def _sampling(one: ShownModel) -> str:
    settings = one.results["settings"]
    model = settings["models"][one.model]
    given = [f"{name} {model[name]:g}" for name in ("temperature", "top_p", "top_k") if model[name] is not None]
    return ", ".join([*given, f"avg@{settings['repeats']}", f"seed {settings['seed']}"])


def _paper_table(shown: Sequence[ShownModel]) -> tuple[Table | None, list[str]]:
    """The paper's figures above ours in the columns that we have (None without any), and the notes below them."""
    known = [(kind, column) for kind, benchmark in BENCHMARKS.items() for column in benchmark.paper_columns]
    ours: dict[str, dict[str, str]] = {one.label: {} for one in shown}
    for one in shown:
        for benchmark in one.results["benchmarks"].values():
            for kind, column in known:
                if (
                    kind == benchmark["kind"]
                    and one.model in benchmark["models"]
                    and (mean := column.ours(benchmark["models"][one.model]))
                ):
                    ours[one.label].setdefault(column.title, percent(*mean))
    columns = [column for _, column in known if any(column.title in cells for cells in ours.values())]
    if not columns:
        return None, []
    rows = [
        (name, *(f"{column.figures[i]:.2f}" if i < len(column.figures) else NONE for column in columns))
        for i, name in enumerate(PAPER_MODELS)
    ]
    rows += [(label, *(cells.get(column.title, NONE) for column in columns)) for label, cells in ours.items()]
    header = ("", *(column.title for column in columns))
    table = Table(header, rows, number_columns=range(1, len(header)))
    return table, [column.note for column in columns if column.note]
