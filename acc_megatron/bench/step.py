"""`bench step`: one training step of ours, of a bare megatron-core loop and of transformers, interleaved in one run."""

import dataclasses
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from acc_megatron.distributed import process_groups  # first: it makes megatron run without CUDA

# isort: split
import torch
from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig, finalize_model_grads
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.pipeline_parallel import get_forward_backward_func
from megatron.core.transformer.module import Float16Module

from acc_megatron.bench.measure import append_csv, machine
from acc_megatron.config import Config, ParallelConfig
from acc_megatron.data.loader import EMPTY_ROW, Loader, PackedRow
from acc_megatron.loss import masked_head, reduce_loss
from acc_megatron.model.qwen3_moe import build_chunks
from acc_megatron.model.transformer_config import training_config
from acc_megatron.observe.metrics import MetricsLog
from acc_megatron.optimizer import build_optimizer
from acc_megatron.step import train_step
from acc_megatron.trainer import Trainer, build_trainer

NUM_WARMUP_STEPS = 2


def bench_step(config: Config, *, rounds: int, csv_file: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Median time of a step of each over the same rows, and medians of the ratios inside a round; one process.

    The bare loop has the same model, masked head included, its rows ready in memory, and neither log, checks nor
    schedule; `bare_megatron_own_head` computes Megatron's full logits and cross entropy instead. transformers takes the
    documents of a row one by one. On CPU the clock is this process's CPU time, on GPU wall time after a
    synchronisation. Rows are appended to `csv_file`.
    """
    num_steps = NUM_WARMUP_STEPS + rounds
    with process_groups(ParallelConfig()) as layout, tempfile.TemporaryDirectory() as folder:
        config = _alone(config, Path(folder), num_steps)
        trainer = build_trainer(config, layout)
        log = MetricsLog(Path(folder), active=True).__enter__()
        ours = _ours(trainer, log)
        steps = _all_rows(trainer.loader, config, num_steps)
        bare = _bare(trainer, steps, has_masked_head=True)
        own_head = _bare(trainer, steps, has_masked_head=False)
        runs = {
            "ours": ours,
            "bare_megatron": bare,
            "bare_megatron_own_head": own_head,
            "transformers": _transformers(config, steps),
        }
        for name in ("bare_megatron", "bare_megatron_own_head"):
            next(runs[name])  # built before ours has moved
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        losses: dict[str, float] = {}
        for number in range(num_steps):
            # in another order each round: whoever follows the largest pays for the memory that it gave back
            for name in random.Random(number).sample(list(runs), len(runs)):
                started = _now()
                loss = next(runs[name])
                taken = _now() - started
                losses.setdefault(name, loss)
                if number >= NUM_WARMUP_STEPS:
                    seconds[name].append(taken)
            say(f"round {number + 1} of {num_steps}")
        log.__exit__(None, None, None)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    tokens = config.train.global_batch_rows * config.data.seq_length_tokens
    common = {"tokens": tokens, "rounds": rounds, "clock": "wall" if torch.cuda.is_available() else "cpu"}
    append_csv(csv_file, [{"config": config.name, "loop": name, "seconds": medians[name], **common} for name in runs])
    return {
        "time_ratio_vs_bare_megatron": _ratio(seconds, "bare_megatron"),
        "time_ratio_vs_bare_megatron_own_head": _ratio(seconds, "bare_megatron_own_head"),
        "time_ratio_vs_transformers": _ratio(seconds, "transformers"),
        "seconds": medians,
        "first_loss": losses,  # of the loops that start from the same weights equal
        **common,
        **machine(),
    }


def _ratio(seconds: dict[str, list[float]], other: str) -> float:
    return statistics.median(ours / theirs for ours, theirs in zip(seconds["ours"], seconds[other], strict=True))


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def _alone(config: Config, run_dir: Path, num_steps: int) -> Config:
    """The recipe in one process, with epochs enough for every step to be full."""
    train = dataclasses.replace(
        config.train, run_dir=str(run_dir), init_from=None, epochs=num_steps * config.train.global_batch_rows
    )
    return dataclasses.replace(config, parallel=ParallelConfig(), train=train)


def _all_rows(loader: Loader, config: Config, num_steps: int) -> list[list[PackedRow]]:
    batches = [loader.batch(n, config.train.global_batch_rows, config.train.epochs) for n in range(num_steps)]
    assert not any(EMPTY_ROW in batch for batch in batches)
    return [loader.rank_rows(batch, 0, 0) for batch in batches]


def _ours(trainer: Trainer, log: MetricsLog) -> Iterator[float]:
    """What the training loop does in a step without a checkpoint."""
    while True:
        values = train_step(trainer)
        log.step(trainer.step, **values)
        trainer.rule.check(trainer.step)
        yield values["loss"]


def _bare(trainer: Trainer, steps: list[list[PackedRow]], *, has_masked_head: bool) -> Iterator[float]:
    """A loop on megatron-core alone, from the weights of ours: schedule, optimizer, and one number out."""
    config = trainer.config
    transformer = training_config(config, trainer.layout)
    models: list[torch.nn.Module] = list(build_chunks(config.model, transformer))
    if config.train.precision != "float32":
        models = [Float16Module(transformer, model) for model in models]
    for model, same in zip(models, trainer.models, strict=True):
        model.to(torch.cuda.current_device()).load_state_dict(same.state_dict())
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


def _transformers(config: Config, steps: list[list[PackedRow]]) -> Iterator[float]:
    """Qwen3MoeForCausalLM and torch's AdamW on the same documents."""
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
                    continue  # padding at the end of a row
                labels = row.labels[start:end].where(mask, -100).to(device)
                logits = model(row.tokens[None, start:end].to(device)).logits[0]
                loss = torch.nn.functional.cross_entropy(logits.float(), labels, reduction="sum") / count
                loss.backward()
                total += float(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_grad_norm or float("inf"))
        optimizer.step()
        yield total
