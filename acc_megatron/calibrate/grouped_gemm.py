"""The products of all experts: one grouped product on GPU, one product for each expert on CPU."""

from collections.abc import Callable, Mapping, Sequence

import torch

from acc_megatron.calibrate.layer import Layer, both_passes
from acc_megatron.calibrate.measurement import Sample
from acc_megatron.calibrate.shapes import Shapes
from acc_megatron.plan.curve import constant, curve
from acc_megatron.plan.machine_file import MeasuredSpeeds


class GroupedGemm:
    """Both linear layers of the experts that training builds, forward and backward, without the activation."""

    name = "grouped GEMM"

    def samples(self, shapes: Shapes) -> Sequence[Sample]:
        """One sample for each number of tokens; none for a model without experts."""
        experts = Layer(shapes.config).experts
        if experts is None:
            return []
        apply = _one_by_one if hasattr(experts, "local_experts") else _grouped
        return [Sample(f"experts {tokens}", _passes(shapes, tokens, experts, apply)) for tokens in shapes.tokens]

    def speeds(self, shapes: Shapes, seconds: Mapping[str, float], found: MeasuredSpeeds) -> None:
        """Enter FLOP/s by tokens of one expert."""
        if not shapes.expert_ffn:
            assert found.gemm is not None
            found.expert_gemm = constant(found.gemm.values[-1])
            return
        flops = 3 * 2 * 3 * shapes.hidden * shapes.expert_ffn * shapes.experts
        rates = {shapes.expert_tokens(tokens): flops / seconds[f"experts {tokens}"] for tokens in shapes.tokens}
        found.expert_gemm = curve([(tokens, rate * tokens) for tokens, rate in rates.items()])


def _passes(
    shapes: Shapes, tokens: int, experts: torch.nn.Module, apply: Callable[..., torch.Tensor]
) -> Callable[[], None]:
    each = shapes.expert_tokens(tokens)
    stream = shapes.random(each * shapes.experts, shapes.hidden, requires_grad=True)
    inner = shapes.random(each * shapes.experts, shapes.expert_ffn, requires_grad=True)
    weights = [weight for weight in experts.parameters() if weight.requires_grad]

    def run() -> None:
        for name, inputs in (("linear_fc1", stream), ("linear_fc2", inner)):
            both_passes(apply(experts, name, inputs, [each] * shapes.experts), [inputs, *weights])

    return run


def _one_by_one(experts: torch.nn.Module, name: str, inputs: torch.Tensor, splits: list[int]) -> torch.Tensor:
    locals_ = list(experts.local_experts)  # type: ignore[arg-type]
    parts = zip(locals_, inputs.split(splits), strict=True)
    return torch.cat([getattr(expert, name)(part)[0] for expert, part in parts])


def _grouped(experts: torch.nn.Module, name: str, inputs: torch.Tensor, splits: list[int]) -> torch.Tensor:
    result = getattr(experts, name)(inputs, splits)[0]
    assert isinstance(result, torch.Tensor)
    return result
