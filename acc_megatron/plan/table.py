"""A plan and a search as text of at most 80 columns; every figure beside what it rests on."""

import textwrap

from acc_megatron.plan.efficiency import EFFICIENCY, FIT_SHARE
from acc_megatron.plan.parameters import model_parameters
from acc_megatron.plan.planner import Plan, describe_recompute
from acc_megatron.plan.search import why_behind
from acc_megatron.plan.step_time import StepTime

COLUMNS = 79
PARTS = ("weights", "gradients", "optimizer", "activations", "loss", "buffers", "total")


def render_plan(plan: Plan) -> str:
    """The plan of one layout."""
    head = [line for long in _head(plan) for line in textwrap.wrap(long, COLUMNS, subsequent_indent=" " * 11)]
    return "\n".join([*head, "", *_memory(plan), "", *_traffic(plan), "", *_time(plan), "", *_assumptions(plan)])


def _grid(header: list[str], rows: list[list[str]]) -> list[str]:
    """Columns as wide as they need to be, numbers to the right."""
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
        f"recompute {describe_recompute(config)}; {config.train.precision}",
        f"model      {model_parameters(model):,} parameters; checkpoint {plan.checkpoint_bytes / 1e9:.1f} GB",
        f"step       {config.train.global_batch_rows} rows of {work.row_tokens:,} tokens, "
        f"{work.supervised_tokens:,.0f} of each supervised; {plan.flops_per_step:.3g} FLOPs",
        f"run        {work.num_rows:,} rows x {config.train.epochs} epochs = {work.num_steps:,} steps",
    ]


def _memory(plan: Plan) -> list[str]:
    rows = []
    numbers = range(len(plan.stages))
    for number in numbers:
        stage = plan.stages[number]
        # stages alike are one line
        if number and stage == plan.stages[number - 1] and number + 1 in numbers and plan.stages[number + 1] == stage:
            continue
        sizes = [f"{getattr(stage.memory, part) / 1e9:.2f}" for part in PARTS]
        rows.append([str(number), f"{stage.parameters.total / 1e9:.3f}", *sizes])
    limit = FIT_SHARE * plan.machine.memory_bytes
    verdict = "fits" if plan.fits else "DOES NOT FIT"
    return [
        "memory of a GPU at its peak in GB, parameters in thousand millions, by stage",
        *_grid(["stage", "params", *(part.replace("gradients", "grads") for part in PARTS)], rows),
        f"{verdict}: {plan.peak_bytes / 1e9:.1f} GB of {limit / 1e9:.1f} GB "
        f"({FIT_SHARE:.0%} of {plan.machine.memory_bytes / 1e9:.0f} GB)",
    ]


def _traffic(plan: Plan) -> list[str]:
    if not plan.collectives:
        return ["no collectives"]
    rows = [
        [
            item.name, str(item.group_size), str(item.nodes), f"{item.calls:,.0f}",
            f"{item.call_bytes / 1e6:,.1f}", f"{item.step_bytes / 1e9:,.1f}", f"{item.step_seconds:.2f}",
        ]
        for item in plan.collectives
    ]  # fmt: skip
    header = ["sent by a GPU", "ranks", "nodes", "calls", "MB a call", "GB a step", "s"]
    return _grid(header, rows)


def _time(plan: Plan) -> list[str]:
    seconds = {name: getattr(plan.time, name) for name in StepTime.__slots__}
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
        f"predicted  {plan.time.total:.2f} s a step, {plan.tokens_per_second_per_gpu:,.0f} tokens/s/GPU, "
        f"{plan.flops_per_second_per_gpu / 1e12:.0f} TFLOP/s/GPU ({share:.0%} of peak)",
        *lines,
        f"whole run  {days:.2f} days, {hours:,.0f} GPU-hours, without start-up and checkpoints",
    ]


def _assumptions(plan: Plan) -> list[str]:
    e = EFFICIENCY
    return [
        "No GPU has confirmed these figures. They rest on:",
        *textwrap.wrap(f"- lengths: {plan.workload.source}", COLUMNS, subsequent_indent="  "),
        f"- the busiest rank's experts take {plan.expert_load} x the mean number of tokens",
        f"- shares of peak: GEMM {e.dense_gemm}, grouped {e.expert_gemm}, attention {e.attention_forward} forward, "
        f"{e.attention_backward} backward,",
        f"  memory {e.memory}, links {e.link}; launches {1e3 * e.host_seconds_per_layer} ms a layer's forward pass",
    ]


def render_search(plans: list[Plan], num_gpus: int, *, num_shown: int = 10) -> str:
    """The best of a search, each with what sets it behind the one before."""
    first = plans[0]
    fitting = sum(plan.fits for plan in plans)
    title = (
        f"{first.config.name} on {num_gpus} {first.machine.name}: {len(plans):,} legal layouts x recompute, "
        f"{fitting:,} fit"
    )
    lines = []
    for number, plan in enumerate(plans[:num_shown], 1):
        parallel, layout = plan.config.parallel, plan.layout
        virtual = f"x{parallel.virtual_pipeline}" if parallel.virtual_pipeline > 1 else ""
        sizes = (
            f"TP{layout.tensor} CP{layout.context} PP{layout.pipeline}{virtual} EP{layout.expert} "
            f"ETP{layout.expert_tensor} DP{layout.data}"
        )
        lines.append(
            f"{number:>3}  {sizes}, recompute {describe_recompute(plan.config)}\n"
            f"     {plan.time.total:.2f} s, {plan.tokens_per_second_per_gpu:,.0f} tokens/s/GPU, "
            f"{plan.peak_bytes / 1e9:.1f} GB{'' if plan.fits else ' DOES NOT FIT'}"
        )
        if number > 1:
            lines.append(f"     behind {number - 1}: {why_behind(plans[number - 2], plan)}")
    return "\n".join([*textwrap.wrap(title, COLUMNS), *lines, "", *_assumptions(first)])
