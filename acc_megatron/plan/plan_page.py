"""A plan as a page: memory of each pipeline stage as a stacked bar, the step as a bar, and the assumptions."""

from pathlib import Path

from acc_megatron.common.html_page import Part, Strip, Table, write_page
from acc_megatron.plan.assumed_efficiency import FIT_SHARE
from acc_megatron.plan.planner import Plan, StagePlan
from acc_megatron.plan.speed_figures import describe_speeds
from acc_megatron.plan.switches import describe_recompute, describe_storage

_MEMORY = {
    "weights": "question",
    "gradients": "reasoning",
    "optimizer": "evidence",
    "activations": "answer",
    "loss": "",
    "buffers": "distractor",
}
_TIME_COLOURS = ("question", "reasoning", "answer", "evidence", "distractor", "", "teal", "rose")


def write_plan_page(path: Path, plan: Plan) -> None:
    """Write the plan of one layout to `path`."""
    limit = FIT_SHARE * plan.machine.memory_bytes
    verb = "fits" if plan.fits else "does not fit"
    write_page(
        path,
        Path(__file__).with_name("plan_page.html.jinja"),
        title=f"{plan.config.name} on {plan.layout.world} {plan.machine.name}",
        sentence=(
            f"The layout {verb}: {plan.peak_bytes / 1e9:.1f} of {limit / 1e9:.1f} GB on the fullest GPU. Predicted are "
            f"{plan.time.total:.2f} s a step, {_duration(plan.run_seconds)} and "
            f"{plan.run_seconds * plan.layout.world / 3_600:,.0f} GPU-hours for the run."
        ),
        facts=_facts(plan),
        memory=[_memory(number, stage, limit) for number, stage in _different_stages(plan)],
        time=_time(plan),
        collectives=_collectives(plan),
        speeds=[figure.text for figure in describe_speeds(plan)],
        source=plan.workload.source,
    )


def _duration(seconds: float) -> str:
    return f"{seconds / 86_400:.1f} days" if seconds > 2 * 86_400 else f"{seconds / 3_600:.1f} hours"


def _facts(plan: Plan) -> Table:
    config, work = plan.config, plan.workload
    rows = [
        ("Layout", f"{plan.layout}, expert DP{plan.layout.expert_data}"),
        ("Recompute", describe_recompute(config)),
        *([("Storage", describe_storage(config))] if describe_storage(config) else []),
        ("Precision", config.train.precision),
        ("Step", f"{config.train.global_batch_rows} rows of {work.row_tokens:,} tokens"),
        ("Run", f"{work.num_rows:,} rows x {config.train.epochs} epochs = {work.num_steps:,} steps"),
        ("Throughput", f"{plan.tokens_per_second_per_gpu:,.0f} tokens/s on a GPU"),
        ("Checkpoint", f"{plan.checkpoint_bytes / 1e9:.1f} GB, {plan.saved_bytes_per_gpu / 1e9:.2f} GB from a GPU"),
    ]
    return Table(("", ""), rows)


def _different_stages(plan: Plan) -> list[tuple[int, StagePlan]]:
    """The stages without those that equal the one before."""
    stages = list(enumerate(plan.stages))
    return [one for one in stages if not one[0] or one[1].memory != stages[one[0] - 1][1].memory]


def _memory(number: int, stage: StagePlan, limit: float) -> Strip:
    sizes = {name: float(getattr(stage.memory, name)) for name in _MEMORY}
    parts = [Part(name, size, f"{size / 1e9:.2f} GB", _MEMORY[name]) for name, size in sizes.items() if size > 0]
    caption = (
        f"Pipeline stage {number}: {stage.memory.total / 1e9:.2f} GB at the peak of a step; the bar ends at the "
        f"{limit / 1e9:.1f} GB that a plan may use, or at the sum if that is larger."
    )
    return Strip(parts, caption, total=limit)


def _time(plan: Plan) -> Strip:
    seconds = [(name.replace("_", " "), value) for name, value in plan.time.by_part().items() if value > 0]
    parts = [
        Part(name, value, f"{value:.3g} s", _TIME_COLOURS[number % len(_TIME_COLOURS)])
        for number, (name, value) in enumerate(seconds)
    ]
    return Strip(parts, f"Predicted parts of a step of {plan.time.total:.3f} s; not confirmed on any GPU.")


def _collectives(plan: Plan) -> Table | None:
    rows = [
        (
            item.name,
            str(item.group_size),
            str(item.num_nodes),
            f"{item.step_bytes / 1e9:,.2f}",
            f"{item.step_seconds:.3g}",
        )
        for item in plan.collectives
    ]
    header = ("sent by each GPU", "ranks", "nodes", "GB a step", "s a step")
    return Table(header, rows, {1, 2, 3, 4}) if rows else None
