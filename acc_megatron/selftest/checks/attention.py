"""Packed attention in every context-parallel size that the ranks allow, against float64."""

from acc_megatron.mesh.process_groups import process_groups  # first: makes megatron run without CUDA

# isort: split
import torch
from megatron.core import parallel_state
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.transformer.enums import AttnMaskType

from acc_megatron.config import ModelConfig, ParallelConfig
from acc_megatron.mesh.context_shard import shard
from acc_megatron.model.build import build_model
from acc_megatron.model.transformer_config import DTYPES, transformer_config
from acc_megatron.selftest.accuracy import Bounds, require_within
from acc_megatron.selftest.check import Found
from acc_megatron.selftest.layouts import sizes_up_to
from acc_megatron.selftest.place import GROUP_TIMEOUT_SECONDS, Place
from acc_megatron.selftest.tiny_run import on_gpu, tiny_model

NAMES = ("output", "gradient of queries", "gradient of keys", "gradient of values")
# relative to the norm; bfloat16 has 8 bits, and a gradient sums many rounded terms
LIMITS = {"float32": 1e-5, "bfloat16": 1e-2}


class Attention:
    """The core attention of the layer that a run would use, on a packed row of uneven documents."""

    name = "attention"
    summary = "attention and its gradients equal float64, inside documents only, in every context-parallel size"
    limit_seconds = 300.0
    advice = "NVTE_DEBUG=1 NVTE_DEBUG_LEVEL=2 shows the backend; parallel.context_communication=a2a avoids the ring"

    def run(self, place: Place) -> Found:
        """Compare every size with the same float64 reference, computed on this rank."""
        precision = "bfloat16" if on_gpu() else "float32"
        figures: dict[str, float] = {}
        sizes = [1, *sizes_up_to(place.world)]
        for context in sizes[-1:] if place.is_quick else sizes:
            place.meet()
            parallel = ParallelConfig(context=context)
            with process_groups(parallel, timeout_seconds=GROUP_TIMEOUT_SECONDS):
                _compare(parallel, precision, place.world, figures)
        return Found(figures, f"{precision}, context parallel {', '.join(map(str, sizes))}")


def _compare(parallel: ParallelConfig, precision: str, world: int, figures: dict[str, float]) -> None:
    from acc_megatron.mesh.layout import build_layout

    model, context = tiny_model(), parallel.context
    rank, device = parallel_state.get_context_parallel_rank(), torch.cuda.current_device()
    bounds = tuple(64 * number for number in (0, 1, 6, 16, 21)) if not on_gpu() else (0, 64, 1024, 3072, 4096)
    multiple = 2 * world  # of a document, as packing guarantees
    bounds = tuple(-(-bound // multiple) * multiple for bound in bounds)
    inputs = _inputs(model, bounds[-1], DTYPES[precision])
    truth = _float64(inputs, bounds)
    transformer = transformer_config(model, build_layout(parallel, world), precision=precision, parallel=parallel)
    transformer.perform_initialization = False
    core = build_model(model, transformer).to(device).decoder.layers[0].self_attention.core_attention
    query, key, value, gradient = (shard(x, bounds, context, rank).to(device) for x in inputs)
    for tensor in (query, key, value):
        tensor.requires_grad_()
    cu_seqlens = torch.tensor(bounds, dtype=torch.int32, device=device)
    longest = max(end - start for start, end in zip(bounds, bounds[1:], strict=False))
    packed = PackedSeqParams(
        qkv_format="thd", cu_seqlens_q=cu_seqlens, cu_seqlens_kv=cu_seqlens, max_seqlen_q=longest, max_seqlen_kv=longest
    )
    output = core(query, key, value, None, attn_mask_type=AttnMaskType.causal, packed_seq_params=packed)
    output.backward(gradient.flatten(1).view_as(output))
    got = (output.detach().reshape(query.shape), query.grad, key.grad, value.grad)
    pairs = {}
    for name, tensor, reference in zip(NAMES, got, truth, strict=True):
        assert tensor is not None
        pairs[name] = (tensor.cpu(), shard(reference, bounds, context, rank))
    limits = Bounds(dict.fromkeys(NAMES, LIMITS[precision]))
    require_within(limits, pairs, f"context parallel {context}, context rank {rank}", figures)


def _inputs(model: ModelConfig, tokens: int, dtype: torch.dtype) -> list[torch.Tensor]:
    """Queries, keys, values and a gradient of the output `[tokens, heads, head_dim]`, equal on every rank."""
    generator = torch.Generator().manual_seed(0)
    heads = (model.num_attention_heads, model.num_key_value_heads, model.num_key_value_heads, model.num_attention_heads)
    return [torch.randn(tokens, count, model.head_dim, generator=generator).to(dtype) for count in heads]


def _float64(inputs: list[torch.Tensor], bounds: tuple[int, ...]) -> list[torch.Tensor]:
    """Output and gradients of softmax(Q K^T / sqrt(head_dim)) V, causal, one document at a time."""
    device = torch.cuda.current_device()
    query, key, value, gradient = (x.double().to(device) for x in inputs)
    leaves = [x.requires_grad_() for x in (query, key, value)]
    repeats = query.shape[1] // key.shape[1]
    outputs = []
    for start, end in zip(bounds, bounds[1:], strict=False):
        q, k, v = (x[start:end].transpose(0, 1) for x in (query, key, value))
        k, v = k.repeat_interleave(repeats, 0), v.repeat_interleave(repeats, 0)
        scores = q @ k.transpose(1, 2) * query.shape[-1] ** -0.5
        future = torch.ones_like(scores[0], dtype=torch.bool).triu(1)
        outputs.append((scores.masked_fill(future, float("-inf")).softmax(-1) @ v).transpose(0, 1))
    output = torch.cat(outputs)
    output.backward(gradient)
    return [output.detach().cpu(), *(leaf.grad.cpu() for leaf in leaves if leaf.grad is not None)]
