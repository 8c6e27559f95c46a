"""The shares of a machine's peak speeds and of its memory that a plan assumes where nothing was measured.

Attention: FlashAttention-3 (arXiv 2407.08608v2, figures 5 and 6: H100 SXM5, head dim 128, bfloat16), divided by 989
TFLOP/s. Forward is the causal kernel: 423, 521, 579, 602 and 616 TFLOP/s for documents of 1K, 2K, 4K, 8K and 16K. The
paper gives backward without a mask only (424, 501, 542, 559, 561), so the causal one is assumed to lose the same share
as forward does. Above 16K the mask costs less and less: at 128K both are 0.6 % below the speed without a mask (648
forward). The 75 % of the paper's abstract belong to head dim 256. The other shares are estimates.
"""

from dataclasses import dataclass, field

from acc_megatron.plan.curve import Curve

# the rest is for fragmentation of the allocator and for memory that the plan does not count
FIT_SHARE = 0.92
# of the memory that a recipe may use: plans are not confirmed on a GPU
RECIPE_SHARE = 0.85


def _by_length(*shares: float) -> Curve:
    return Curve((1024, 2048, 4096, 8192, 16_384, 131_072), shares)


@dataclass(frozen=True, slots=True)
class Efficiency:
    """Assumed shares of the peak speeds, the same for every machine; docs/plan.md explains how they were set."""

    dense_gemm: float = 0.65
    expert_gemm: float = 0.5  # grouped GEMM with narrow experts, as in the recipe
    # by tokens of a document
    attention_forward: Curve = field(default_factory=lambda: _by_length(0.428, 0.527, 0.585, 0.609, 0.623, 0.651))
    # backward has 2.5 times the FLOPs of forward
    attention_backward: Curve = field(default_factory=lambda: _by_length(0.321, 0.422, 0.497, 0.527, 0.539, 0.564))
    memory: float = 0.8
    link: float = 0.75
    host_memory: float = 0.5  # of an update by the CPUs, which all GPUs of a node wait for at the same time
    host_seconds_per_layer: float = 1.5e-3  # to launch the kernels of a forward pass


EFFICIENCY = Efficiency()
