"""The masked head inside of Megatron's DistributedDataParallel."""

import pytest
import torch
from support.gloo import run_on_ranks
from torch.profiler import ProfilerActivity, profile

VOCAB, HIDDEN, TOKENS = 40_000, 16, 24


def _check_overlapped_reduction(rank: int, is_tied: bool) -> None:
    from acc_megatron.mesh import cpu_backend

    cpu_backend.install()
    from megatron.core import parallel_state
    from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig
    from megatron.core.tensor_parallel import ColumnParallelLinear
    from megatron.core.transformer.transformer_config import TransformerConfig

    from acc_megatron.config import LossConfig
    from acc_megatron.training.loss import masked_head

    parallel_state.initialize_model_parallel(create_gloo_process_groups=False)
    config = TransformerConfig(
        num_layers=1,
        hidden_size=HIDDEN,
        num_attention_heads=1,
        use_cpu_initialization=True,
        params_dtype=torch.bfloat16,
    )
    torch.manual_seed(0)
    layer = ColumnParallelLinear(
        HIDDEN, VOCAB, config=config, init_method=torch.nn.init.normal_, bias=False, skip_bias_add=True
    )
    ddp_config = DistributedDataParallelConfig(overlap_grad_reduce=True, grad_reduce_in_fp32=True)
    model = DistributedDataParallel(config, ddp_config, layer)
    model.zero_grad_buffer()
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(2, TOKENS, HIDDEN, generator=generator).bfloat16()
    labels = torch.randint(0, VOCAB, (2, TOKENS), generator=generator)
    mask = torch.rand(2, TOKENS, generator=generator) < 0.2

    def run(weight: torch.Tensor, own: int) -> torch.Tensor:
        sums = masked_head(
            hidden_states=hidden[own][:, None],
            output_layer=layer,
            output_weight=weight,
            labels=labels[own][None],
            loss_mask=mask[own][None].float(),
            context=LossConfig(),
        )
        embedded = torch.nn.functional.embedding(labels[own], weight).float() if is_tied else torch.zeros(1)
        return sums[0] + embedded.sum()

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run(layer.weight, rank).backward()
        model.finish_grad_sync()
    events = profiler.profiler.kineto_results.events()
    largest_bytes = max(event.nbytes() for event in events if event.name() == "[memory]")
    weight_bytes = layer.weight.numel() * layer.weight.element_size()
    assert is_tied or largest_bytes < weight_bytes, f"{largest_bytes} bytes in one allocation"
    # torch's mean over the two ranks, from a leaf that no hook watches
    wide = layer.weight.detach().double().requires_grad_()
    for own in range(2):
        logits = hidden[own][mask[own]].double() @ wide.T
        loss = torch.nn.functional.cross_entropy(logits, labels[own][mask[own]], reduction="sum")
        embedded = torch.nn.functional.embedding(labels[own], wide).sum() if is_tied else 0.0
        (0.5 * (loss + embedded)).backward()
    assert wide.grad is not None and layer.weight.grad is None
    difference = (layer.weight.main_grad.double() - wide.grad).norm() / wide.grad.norm()
    assert difference < 2e-3
    parallel_state.destroy_model_parallel()


@pytest.mark.distributed
@pytest.mark.parametrize("is_tied", [False, True])
def test_overlapped_reductions_get_the_gradient_without_a_dense_copy_of_it(is_tied: bool) -> None:
    run_on_ranks(_check_overlapped_reduction, 2, is_tied)
