"""Plans and search results as text of at most 80 columns, with the assumptions they depend on."""

import shlex
import textwrap
from collections.abc import Sequence
from pathlib import Path

from acc_megatron.model.parameter_count import num_parameters
from acc_megatron.plan.assumed_efficiency import EFFICIENCY, FIT_SHARE
from acc_megatron.plan.planner import Plan
from acc_megatron.plan.search import compare_plans
from acc_megatron.plan.shortage import Remedy
from acc_megatron.plan.speed_figures import describe_speeds
from acc_megatron.plan.switches import describe_switches
from acc_megatron.plan.trained import describe_trained, trained_in_all

COLUMNS = 79
PARTS = ("weights", "gradients", "optimizer", "activations", "loss", "buffers", "total")


def render_plan(plan: Plan) -> str:
    """Format the plan of one layout."""
    head = [line for long in _head(plan) for line in textwrap.wrap(long, COLUMNS, subsequent_indent=" " * 11)]
    return "\n".join([*head, "", *_memory(plan), "", *_traffic(plan), "", *_time(plan), "", *_assumptions(plan)])


def _grid(header: list[str], rows: list[list[str]]) -> list[str]:
    """Align columns: the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]

    def line(row: list[str]) -> str:
        first = row[0].ljust(widths[0])
        return "  ".join([first, *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))])

    return [line(header), *map(line, rows)]


def _head(plan: Plan) -> list[str]:
    layout, config = plan.layout, plan.config
    model, work = config.model, plan.workload
    nodes = -(-layout.world // 8)
    chunks = config.parallel.virtual_pipeline
    virtual = f" of {chunks} chunks" if chunks > 1 else ""
    return [
        f"{config.name} on {layout.world} {plan.machine.name} ({nodes} nodes)",
        f"layout     {layout}{virtual}, ETP{layout.expert_tensor}, expert DP{layout.expert_data}; "
        f"{describe_switches(config)}; {config.train.precision}",
        f"model      {num_parameters(model):,} parameters; checkpoint {plan.checkpoint_bytes / 1e9:.1f} GB",
        *trained_line(plan),
        f"step       {config.train.global_batch_rows} rows of {work.row_tokens:,} tokens, "
        f"{work.supervised_tokens:,.0f} supervised in each; {plan.flops_per_step:.3g} FLOPs",
        f"run        {work.num_rows:,} rows x {config.train.epochs} epochs = {work.num_steps:,} steps",
    ]


def trained_line(plan: Plan) -> list[str]:
    """Return what is trained, if that is not everything."""
    config = plan.config
    described = describe_trained(config)
    if not described:
        return []
    number = trained_in_all(config)
    share = number / num_parameters(config.model)
    return [
        f"trained    {described}: {number:,} parameters ({share:.2%}); the others have no gradients, no optimizer "
        "state and no products for gradients"
    ]


def _memory(plan: Plan) -> list[str]:
    rows = []
    numbers = range(len(plan.stages))
    for number in numbers:
        stage = plan.stages[number]
        # of equal consecutive stages the first and the last are shown
        if number and stage == plan.stages[number - 1] and number + 1 in numbers and plan.stages[number + 1] == stage:
            continue
        sizes = [f"{getattr(stage.memory, part) / 1e9:.2f}" for part in PARTS]
        rows.append([str(number), f"{stage.parameters.total / 1e9:.3f}", *sizes])
    limit = FIT_SHARE * plan.machine.memory_bytes
    verdict = "fits" if plan.fits else "DOES NOT FIT"
    return [
        "peak memory of a GPU in GB, and billions of parameters, by pipeline stage",
        *_grid(["stage", "params", *(part.replace("gradients", "grads") for part in PARTS)], rows),
        f"{verdict}: {plan.peak_bytes / 1e9:.1f} GB of {limit / 1e9:.1f} GB "
        f"({FIT_SHARE:.0%} of {plan.machine.memory_bytes / 1e9:.0f} GB)"
        + (f"; {plan.missing_bytes / 1e9:.1f} GB are missing" if plan.missing_bytes else ""),
        *_host(plan),
        f"a save writes {plan.saved_bytes_per_gpu / 1e9:.2f} GB per GPU and needs "
        f"{plan.saving_host_bytes_per_node / 1e9:.1f} GB of a node's host memory",
    ]


def _host(plan: Plan) -> list[str]:
    """Host memory of offloaded tensors; nothing if there are none."""
    if not plan.host_bytes:
        return []
    limit = FIT_SHARE * plan.machine.host_memory_bytes
    return [f"offloaded: {plan.host_bytes / 1e9:.1f} GB of host memory per GPU, of {limit / 1e9:.0f} GB (assumed)"]


def _traffic(plan: Plan) -> list[str]:
    if not plan.collectives:
        return ["no collectives"]
    rows = [
        [
            item.name, str(item.group_size), str(item.num_nodes), f"{item.calls:,.0f}",
            f"{item.call_bytes / 1e6:,.1f}", f"{item.step_bytes / 1e9:,.1f}", f"{item.step_seconds:.2f}",
        ]
        for item in plan.collectives
    ]  # fmt: skip
    header = ["sent by each GPU", "ranks", "nodes", "calls", "MB/call", "GB/step", "s"]
    return _grid(header, rows)


def _time(plan: Plan) -> list[str]:
    seconds = plan.time.by_part()
    parts = [f"{name.replace('_', ' ')} {value:.2f}" for name, value in seconds.items() if value >= 0.005]
    lines, line = [], "           "
    for part in parts:
        if len(line) + len(part) + 2 > COLUMNS:
            lines.append(line.rstrip())
            line = "           "
        line += part + ", "
    lines.append(line.rstrip(", "))
    share = plan.flops_per_second_per_gpu / plan.machine.flops_per_second
    days, hours = plan.run_seconds / 86_400, plan.run_seconds * plan.layout.world / 3_600
    return [
        f"predicted  {plan.time.total:.2f} s per step, {plan.tokens_per_second_per_gpu:,.0f} tokens/s/GPU, "
        f"{plan.flops_per_second_per_gpu / 1e12:.0f} TFLOP/s/GPU ({share:.0%} of peak)",
        *lines,
        f"full run   {days:.2f} days, {hours:,.0f} GPU-hours, without start-up and checkpoints",
    ]


def _assumptions(plan: Plan) -> list[str]:
    figures = describe_speeds(plan)
    load = f"- the experts of the busiest rank get {plan.expert_load} x the mean number of tokens"
    measured = [f"- {figure.text}" for figure in figures if figure.is_measured]
    lines = [
        *([f"Measured ({plan.speeds.source}):", *measured] if measured else []),
        "The step is not confirmed on any GPU. It assumes:",
        f"- lengths: {plan.workload.source}",
        *([load] if plan.config.model.num_experts else []),
        *(f"- {figure.text}" for figure in figures if not figure.is_measured),
        *([_host_speeds(plan)] if plan.host_bytes else []),
    ]
    return [part for line in lines for part in textwrap.wrap(line, COLUMNS, subsequent_indent="  ")]


def _host_speeds(plan: Plan) -> str:
    machine, share = plan.machine, EFFICIENCY
    return (
        f"- copies to host memory {machine.host_link_bytes_per_second * share.link / 1e9:.3g} GB/s, the update there "
        f"{machine.host_memory_bytes_per_second * share.host_memory / 1e9:.3g} GB/s per GPU"
    )


def render_shortage(plan: Plan, remedies: Sequence[Remedy]) -> str:
    """Say how much memory `plan`, which does not fit, is missing, and what would give it."""
    lines = [f"{plan.missing_bytes / 1e9:.1f} GB are missing on the fullest GPU. What would give them:"]
    for remedy in remedies:
        verdict = "then it fits" if remedy.fits else "still too little"
        lines.append(f"- {remedy.change}: {remedy.saved_bytes / 1e9:+.1f} GB free, {verdict}")
    if not remedies:
        lines.append("- no setting of this package")
    return "\n".join(part for line in lines for part in textwrap.wrap(line, COLUMNS, subsequent_indent="  "))


def render_search(plans: list[Plan], num_gpus: int, *, num_shown: int = 10) -> str:
    """Format the best plans of a search, each with its difference to the one before."""
    first = plans[0]
    fitting = sum(plan.fits for plan in plans)
    title = (
        f"{first.config.name} on {num_gpus} {first.machine.name}: {len(plans):,} legal combinations of "
        f"layout, recompute and storage, {fitting:,} fit"
    )
    if not fitting:
        title += "; ranked by memory"
    lines = []
    for number, plan in enumerate(plans[:num_shown], 1):
        name = textwrap.wrap(f"{number:>3}  {_layout(plan)}", COLUMNS, subsequent_indent="     ")
        lines += name
        lines.append(
            f"     {plan.time.total:.2f} s, {plan.tokens_per_second_per_gpu:,.0f} tokens/s/GPU, "
            f"{plan.peak_bytes / 1e9:.1f} GB{'' if plan.fits else ' DOES NOT FIT'}"
        )
        if number > 1:
            compared = f"     compared with {number - 1}: {compare_plans(plans[number - 2], plan)}"
            lines += textwrap.wrap(compared, COLUMNS, subsequent_indent="     ")
    return "\n".join([*textwrap.wrap(title, COLUMNS), *lines, "", *_assumptions(first)])


def _layout(plan: Plan) -> str:
    parallel, layout = plan.config.parallel, plan.layout
    virtual = f"x{parallel.virtual_pipeline}" if parallel.virtual_pipeline > 1 else ""
    return (
        f"TP{layout.tensor} CP{layout.context} PP{layout.pipeline}{virtual} EP{layout.expert} "
        f"ETP{layout.expert_tensor} DP{layout.data}, {describe_switches(plan.config)}"
    )


def render_faster(plan: Plan, faster: Plan, recipe: Path, overrides: Sequence[str] = ()) -> str:
    """Say which layout is faster, and the command that writes its recipe."""
    arguments = shlex.join([str(recipe), *overrides])
    saved = f", {1 - faster.time.total / plan.time.total:.0%} less" if plan.fits else ""
    return (
        f"{_wrapped(('A faster layout fits' if plan.fits else 'This layout fits') + ': ' + _layout(faster))}\n"
        f"  {faster.time.total:.2f} s per step{saved}, {faster.peak_bytes / 1e9:.1f} GB. Write its recipe with\n"
        f"  acc-megatron plan {arguments} --gpus {plan.layout.world} --search --write 1 FILE"
    )


def _wrapped(text: str) -> str:
    return textwrap.fill(text, COLUMNS, subsequent_indent="  ")
