"""The training loops that `bench step` compares; each is an iterator that takes one step and yields its loss."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from acc_megatron.mesh.process_groups import process_groups  # noqa: F401 - first: it makes megatron run without CUDA

# isort: split
import torch
from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig, finalize_model_grads
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.pipeline_parallel import get_forward_backward_func
from megatron.core.transformer.module import Float16Module

from acc_megatron.config import Config
from acc_megatron.data.loader import PackedRow
from acc_megatron.model.build import build_chunks
from acc_megatron.model.transformer_config import training_config
from acc_megatron.observe.metrics import MetricsLog
from acc_megatron.training.loss import masked_head, reduce_loss
from acc_megatron.training.optimizer import build_optimizer
from acc_megatron.training.step import train_step
from acc_megatron.training.trainer import Trainer


def our_loop(trainer: Trainer, log: MetricsLog) -> Iterator[float]:
    """What the training loop of this package does in a step without a checkpoint."""
    while True:
        result = train_step(trainer)
        log.step(trainer.step, **result.log_values())
        trainer.rule.check(trainer.step)
        yield result.loss


def bare_megatron_loop(trainer: Trainer, steps: list[list[PackedRow]], *, has_masked_head: bool) -> Iterator[float]:
    """A loop that uses megatron-core only, starting from the weights of `trainer`.

    The first value is 0.0, when the model has been built; each following value is the loss of a step. Without
    `has_masked_head` it computes full logits and Megatron's cross entropy.
    """
    config = trainer.config
    transformer = training_config(config, trainer.layout)
    models: list[torch.nn.Module] = list(build_chunks(config.model, transformer))
    if config.train.precision != "float32":
        models = [Float16Module(transformer, model) for model in models]
    for model, source in zip(models, trainer.models, strict=True):
        model.to(torch.cuda.current_device()).load_state_dict(source.state_dict())
    ddp = DistributedDataParallelConfig(grad_reduce_in_fp32=True, average_in_collective=False)
    chunks: list[torch.nn.Module] = [DistributedDataParallel(transformer, ddp, model) for model in models]
    optimizer = build_optimizer(config, chunks)
    transformer.finalize_model_grads_func = finalize_model_grads
    transformer.grad_scale_func = optimizer.scale_loss

    def forward(rows: Iterator[PackedRow], model: torch.nn.Module) -> tuple[torch.Tensor, Callable[..., Any]]:
        row = next(rows)
        device = torch.cuda.current_device()
        bounds = torch.tensor(row.cu_seqlens, dtype=torch.int32, device=device)
        longest = row.cu_seqlens[-1]
        packed = PackedSeqParams(
            qkv_format="thd", cu_seqlens_q=bounds, cu_seqlens_kv=bounds, max_seqlen_q=longest, max_seqlen_kv=longest
        )
        tokens, labels, mask, positions = (
            t[None].to(device) for t in (row.tokens, row.labels, row.loss_mask, row.positions)
        )
        if has_masked_head:
            extra = {"output_processor": masked_head, "output_processor_context": config.loss, "loss_mask": mask}
            return model(tokens, positions, None, labels=labels, packed_seq_params=packed, **extra), reduce_loss
        losses = model(tokens, positions, None, labels=labels, packed_seq_params=packed)

        def sums(losses: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            total, count = (losses * mask).sum(), mask.sum()
            return total, count.int(), torch.stack([total.detach(), count])

        return losses, sums

    yield 0.0
    for rows in steps:
        for chunk in chunks:
            chunk.zero_grad_buffer()  # type: ignore[operator]
        optimizer.zero_grad()
        parts = get_forward_backward_func()(
            forward_step_func=forward,
            data_iterator=iter(rows),
            model=chunks,
            num_microbatches=len(rows),
            seq_length=config.data.seq_length_tokens,
            micro_batch_size=1,
            forward_only=False,
        )
        optimizer.step()
        loss_sum, count = torch.stack(parts).sum(0).tolist()
        yield loss_sum / count


def transformers_loop(config: Config, steps: list[list[PackedRow]]) -> Iterator[float]:
    """Qwen3MoeForCausalLM and AdamW of torch on the same documents, one document at a time."""
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    settings = config.optimizer
    device = torch.cuda.current_device()
    model: Any = Qwen3MoeForCausalLM(Qwen3MoeConfig(**dataclasses.asdict(config.model)))
    model.to(device)
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=settings.learning_rate,
        betas=(settings.adam_beta1, settings.adam_beta2),
        eps=settings.adam_eps,
        weight_decay=settings.weight_decay,
    )
    for rows in steps:
        optimizer.zero_grad()
        count = sum(float(row.loss_mask.sum()) for row in rows)
        total = 0.0
        for row in rows:
            for start, end in zip(row.cu_seqlens, row.cu_seqlens[1:], strict=False):
                mask = row.loss_mask[start:end] > 0
                if not mask.any():
                    continue  # padding at the end of a packed row
                labels = row.labels[start:end].where(mask, -100).to(device)
                logits = model(row.tokens[None, start:end].to(device)).logits[0]
                loss = torch.nn.functional.cross_entropy(logits.float(), labels, reduction="sum") / count
                loss.backward()
                total += float(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_grad_norm or float("inf"))
        optimizer.step()
        yield total
