"""The speeds that a plan uses, in words, and whether each was measured or is assumed."""

from dataclasses import dataclass

from acc_megatron.plan.communication import groups
from acc_megatron.plan.curve import Curve
from acc_megatron.plan.planner import Plan


@dataclass(frozen=True, slots=True)
class SpeedFigure:
    """One speed of the time model."""

    name: str
    is_measured: bool
    text: str


def describe_speeds(plan: Plan) -> list[SpeedFigure]:
    """Return every speed that the plan uses."""
    speeds, tokens = plan.speeds, plan.workload.row_tokens // plan.layout.context
    longest, has_experts = plan.workload.lengths[-1].tokens, plan.config.model.num_experts > 0

    def rate(name: str, curve: Curve, size: float) -> SpeedFigure:
        return figure(name, f"{curve.at(size) / 1e12:.4g} TFLOP/s at {size:,.0f} tokens")

    def figure(name: str, value: str) -> SpeedFigure:
        return SpeedFigure(name, speeds.is_measured, f"{name} {value}")

    return [
        rate("GEMM", speeds.gemm, tokens),
        *([rate("grouped GEMM", speeds.expert_gemm, tokens * _share_of_an_expert(plan))] if has_experts else []),
        rate("attention forward", speeds.attention_forward, longest),
        rate("attention backward", speeds.attention_backward, longest),
        figure("memory", f"{speeds.memory_bytes_per_second / 1e9:,.4g} GB/s"),
        figure("permutation", f"{speeds.permutation_bytes_per_second / 1e9:,.4g} GB/s"),
        figure("optimizer", f"{speeds.update_bytes_per_second / 1e9:,.4g} GB/s"),
        figure("launches", f"{1e3 * speeds.host_seconds_per_layer:.3g} ms for a layer's forward pass"),
        *_links(plan),
    ]


def _share_of_an_expert(plan: Plan) -> float:
    model = plan.config.model
    return plan.expert_load * model.num_experts_per_tok / max(1, model.num_experts) * plan.layout.expert


def _links(plan: Plan) -> list[SpeedFigure]:
    """Each group of more than one rank, by the ring collective of its size."""
    figures = []
    for name, group in groups(plan.layout).items():
        if group.size == 1:
            continue
        link = plan.speeds.link("ring", group.size, group.num_nodes)
        where = f"{group.size} ranks on {group.num_nodes} {'node' if group.num_nodes == 1 else 'nodes'}"
        rate = 1e9 / group.ring_seconds(1e9, plan.speeds) / 1e9
        figures.append(SpeedFigure(f"links, {name}", link is not None, f"links of {where} ({name}) {rate:.4g} GB/s"))
    return figures
