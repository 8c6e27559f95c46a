"""The training loop on megatron-core, read top to bottom: set up, resume, step, log, save."""

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from acc_megatron.distributed import process_groups  # first: it makes megatron run without CUDA

# isort: split
import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig, finalize_model_grads
from megatron.core.optimizer import MegatronOptimizer
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.pipeline_parallel import get_forward_backward_func
from megatron.core.transformer.module import Float16Module
from megatron.core.transformer.transformer_config import TransformerConfig

from acc_megatron import __version__
from acc_megatron.checkpoint import store
from acc_megatron.config import Config, LossConfig, to_dict
from acc_megatron.data.loader import Loader, PackedRow
from acc_megatron.data_tools.atomic import write_json
from acc_megatron.data_tools.dataset_folder import open_dataset
from acc_megatron.errors import CheckpointError
from acc_megatron.layout import Layout
from acc_megatron.loss import masked_head, reduce_loss
from acc_megatron.model.qwen3_moe import build_chunks
from acc_megatron.model.transformer_config import training_config
from acc_megatron.observe.metrics import MetricsLog
from acc_megatron.optimizer import build_optimizer, set_learning_rate
from acc_megatron.schedule import learning_rate


@dataclass
class Trainer:
    """One rank's share of a run: what a step needs, and the step it is at."""

    config: Config
    layout: Layout
    loader: Loader
    transformer: TransformerConfig
    chunks: list[torch.nn.Module]  # as wrapped for data parallelism
    optimizer: MegatronOptimizer
    num_steps: int  # of the whole schedule
    step: int = 0  # steps done
    carried: Path | None = None  # files that came with the initial weights and go into every checkpoint

    @property
    def models(self) -> list[torch.nn.Module]:
        """The model chunks under their data-parallel wrapper."""
        return [chunk.module for chunk in self.chunks]  # type: ignore[misc]

    @property
    def checkpoints(self) -> Path:
        """Where this run's checkpoints are."""
        return Path(self.config.train.run_dir) / "checkpoints"


def train(config: Config) -> dict[str, Any]:
    """Train to the end, or to `train.max_steps`; resumes from the run folder's latest checkpoint by itself.

    Runs under torchrun or alone. Returns steps, first and last loss and the checkpoint's path. Raises
    ConfigError, DataError or CheckpointError before the first step.
    """
    parallel, settings = config.parallel, config.train
    with process_groups(parallel, seed=settings.seed, timeout_seconds=settings.process_timeout_seconds) as layout:
        trainer = build_trainer(config, layout)
        last_step = min(trainer.num_steps, settings.max_steps or trainer.num_steps)
        losses: list[float] = []
        folder = restore(trainer)
        if dist.get_rank() == 0:
            Path(settings.run_dir).mkdir(parents=True, exist_ok=True)
            write_json(Path(settings.run_dir) / "config.json", to_dict(config))
        with MetricsLog(Path(settings.run_dir), active=dist.get_rank() == 0) as log:
            while trainer.step < last_step:
                values = train_step(trainer)
                losses.append(values["loss"])
                log.step(trainer.step, **values)
                _print_step(trainer, values, last_step)
                if trainer.step == last_step or _is_time_to_save(trainer):
                    folder = save(trainer)
    return {
        "steps": trainer.step,
        "loss_first": losses[0] if losses else None,
        "loss_last": losses[-1] if losses else None,
        "world_size": layout.world,
        "layout": str(layout),
        "checkpoint": str(folder),
    }


def build_trainer(config: Config, layout: Layout) -> Trainer:
    """Dataset, model, optimizer; collective over the world."""
    loader = Loader(open_dataset(Path(config.data.path)), config.data, config.model, layout, config.train.seed)
    transformer = training_config(config, layout)
    models: list[torch.nn.Module] = [
        model.to(torch.cuda.current_device()) for model in build_chunks(config.model, transformer)
    ]
    if config.train.precision != "float32":
        models = [Float16Module(transformer, model) for model in models]
    chunks = _wrap(config, transformer, models)
    optimizer = build_optimizer(config, chunks)
    transformer.finalize_model_grads_func = finalize_model_grads
    transformer.grad_scale_func = optimizer.scale_loss
    num_steps = loader.num_steps(config.train.epochs, config.train.global_batch_rows)
    return Trainer(config, layout, loader, transformer, chunks, optimizer, num_steps)


def _wrap(config: Config, transformer: TransformerConfig, models: list[torch.nn.Module]) -> list[torch.nn.Module]:
    """Wrap model chunks for data parallelism, with the overlaps that the config asks for."""
    parallel = config.parallel
    ddp = DistributedDataParallelConfig(
        use_distributed_optimizer=parallel.distributed_optimizer,
        overlap_grad_reduce=parallel.overlap_grad_reduce,
        overlap_param_gather=parallel.overlap_param_gather,
        grad_reduce_in_fp32=True,
        average_in_collective=False,
    )
    # only the first chunk of a virtual pipeline overlaps by buckets: the others' backward comes late
    chunks = [
        DistributedDataParallel(transformer, ddp, model, disable_bucketing=i > 0) for i, model in enumerate(models)
    ]
    if parallel.overlap_grad_reduce:
        no_sync = [chunk.no_sync for chunk in chunks]
        transformer.no_sync_func = no_sync if len(chunks) > 1 else no_sync[0]
    return list(chunks)


def restore(trainer: Trainer) -> Path | None:
    """Resume from this run's latest checkpoint, else take the initial weights that the config names."""
    settings = trainer.config.train
    folder = store.latest(trainer.checkpoints)
    if folder is not None:
        state = store.read_state(folder)
        _refuse_other_data(trainer, state, folder)
        store.load(folder, trainer.models, trainer.optimizer)
        trainer.step = state["step"]
        trainer.carried = folder / store.CARRIED_FOLDER
        _say(f"resumed from {folder} at step {trainer.step} of {trainer.num_steps}")
    elif settings.init_from is not None:
        source = store.find(Path(settings.init_from))
        saved = store.read_state(source)["model"]
        if saved != to_dict(trainer.config)["model"]:
            names = [key for key, value in to_dict(trainer.config)["model"].items() if saved.get(key) != value]
            raise CheckpointError(f"{source} holds another model: {', '.join(names)} differ from [model]")
        store.load(source, trainer.models, None)
        trainer.carried = source / store.CARRIED_FOLDER
        trainer.optimizer.reload_model_params()
        _say(f"initial weights from {source}")
    return folder


def _refuse_other_data(trainer: Trainer, state: dict[str, Any], folder: Path) -> None:
    """A run goes on over the same rows in the same order, or not at all."""
    for key, value in _identity(trainer).items():
        if state[key] != value:
            raise CheckpointError(
                f"{folder} was trained with {key} = {state[key]!r}, this run has {value!r}: "
                "restore it, or start a new train.run_dir with train.init_from"
            )


def _identity(trainer: Trainer) -> dict[str, Any]:
    """What must not change between the parts of one run."""
    config = trainer.config
    return {
        "model": to_dict(config)["model"],
        "dataset_fingerprint": trainer.loader.dataset.fingerprint,
        "seq_length_tokens": config.data.seq_length_tokens,
        "document_multiple_tokens": config.data.document_multiple_tokens,
        "global_batch_rows": config.train.global_batch_rows,
        "epochs": config.train.epochs,
        "seed": config.train.seed,
    }


def save(trainer: Trainer) -> Path:
    """Save a checkpoint of the step the trainer is at, and forget those too old to keep; collective."""
    folder = trainer.checkpoints / f"step_{trainer.step:08d}"
    gathers_late = trainer.config.parallel.overlap_param_gather
    for chunk in trainer.chunks if gathers_late else ():
        chunk.disable_forward_pre_hook(param_sync=True)  # type: ignore[operator]
    state = _identity(trainer) | {
        "step": trainer.step,
        "num_steps": trainer.num_steps,
        "code_version": __version__,
        "tokenizer": trainer.loader.dataset.manifest["tokenizer"],
        "config": to_dict(trainer.config),
    }
    store.save(folder, trainer.models, trainer.optimizer, state, trainer.carried)
    trainer.carried = folder / store.CARRIED_FOLDER
    for chunk in trainer.chunks if gathers_late else ():
        chunk.enable_forward_pre_hook()  # type: ignore[operator]
    if dist.get_rank() == 0:
        store.prune(trainer.checkpoints, trainer.config.train.keep_checkpoints)
    _say(f"saved {folder}")
    return folder


def train_step(trainer: Trainer) -> dict[str, Any]:
    """One optimizer step over one global batch; returns what is logged, equal on every rank."""
    started = time.perf_counter()
    settings, layout = trainer.config.train, trainer.layout
    rate = learning_rate(trainer.step, trainer.num_steps, trainer.config.optimizer)
    set_learning_rate(trainer.optimizer, rate)
    for chunk in trainer.chunks:
        chunk.zero_grad_buffer()  # type: ignore[operator]
    trainer.optimizer.zero_grad()
    batch = trainer.loader.batch(trainer.step, settings.global_batch_rows, settings.epochs)
    rows = trainer.loader.rank_rows(
        batch, parallel_state.get_data_parallel_rank(), parallel_state.get_context_parallel_rank()
    )
    _scale_balancing_loss(trainer, trainer.loader.num_supervised_tokens(batch))
    sums = forward_backward(trainer, rows)
    updated, grad_norm, _ = trainer.optimizer.step()
    trainer.step += 1
    seconds = time.perf_counter() - started
    tokens = settings.global_batch_rows * trainer.config.data.seq_length_tokens
    loss_sum, count = sums.tolist()
    return {
        "loss": loss_sum / max(1.0, count),
        "supervised_tokens": round(count),
        "tokens": tokens,
        "learning_rate": rate,
        "grad_norm": float(grad_norm),
        "updated": bool(updated),
        "seconds": seconds,
        "tokens_per_second": tokens / seconds,
        "layout": str(layout),
    }


def _scale_balancing_loss(trainer: Trainer, num_supervised_tokens: int) -> None:
    """Let the router's coefficients mean what they say.

    Megatron multiplies balancing and z-loss by the tokens a router sees, and the final division is by supervised
    tokens: without this the coefficient would grow by all tokens / supervised tokens, 25 times on ACC.
    """
    all_tokens = trainer.config.train.global_batch_rows * trainer.config.data.seq_length_tokens
    share = num_supervised_tokens / all_tokens
    optimizer = trainer.optimizer
    trainer.transformer.moe_grad_scale_func = lambda: optimizer.scale_loss(
        torch.tensor(share, device=torch.cuda.current_device())
    )


def forward_backward(trainer: Trainer, rows: list[PackedRow]) -> torch.Tensor:
    """Gradients of the global batch into the buffers; returns `[2]`: loss sum and supervised tokens of all ranks."""
    iterators = [iter(rows) for _ in trainer.chunks]
    parts = get_forward_backward_func()(
        forward_step_func=partial(_forward_step, trainer.config.loss),
        data_iterator=iterators if len(iterators) > 1 else iterators[0],
        model=trainer.chunks,
        num_microbatches=len(rows),
        seq_length=trainer.config.data.seq_length_tokens,
        micro_batch_size=1,
        forward_only=False,
    )
    device = torch.cuda.current_device()
    sums = torch.stack(parts).double().sum(0) if parts else torch.zeros(2, dtype=torch.float64, device=device)
    if parallel_state.is_pipeline_last_stage():
        dist.all_reduce(sums, group=parallel_state.get_data_parallel_group(with_context_parallel=True))
    if trainer.layout.pipeline > 1:
        source = parallel_state.get_pipeline_model_parallel_last_rank()
        dist.broadcast(sums, source, group=parallel_state.get_pipeline_model_parallel_group())
    return sums


def _forward_step(
    loss: LossConfig, rows: Iterator[PackedRow], model: torch.nn.Module
) -> tuple[torch.Tensor, Callable[..., Any]]:
    """One microbatch: a packed row through the model to (loss sum, count)."""
    row = next(rows)
    device = torch.cuda.current_device()
    tokens, labels, loss_mask, positions = (
        tensor[None].to(device, non_blocking=True) for tensor in (row.tokens, row.labels, row.loss_mask, row.positions)
    )
    bounds = torch.tensor(row.cu_seqlens, dtype=torch.int32, device=device)
    packed = PackedSeqParams(
        qkv_format="thd",
        cu_seqlens_q=bounds,
        cu_seqlens_kv=bounds,
        max_seqlen_q=row.cu_seqlens[-1],
        max_seqlen_kv=row.cu_seqlens[-1],
    )
    output = model(
        tokens,
        positions,
        None,
        labels=labels,
        loss_mask=loss_mask,
        packed_seq_params=packed,
        output_processor=masked_head,
        output_processor_context=loss,
    )
    return output, reduce_loss


def _is_time_to_save(trainer: Trainer) -> bool:
    every = trainer.config.train.save_every_steps
    return every is not None and trainer.step % every == 0


def _print_step(trainer: Trainer, values: dict[str, Any], last_step: int) -> None:
    _say(
        f"step {trainer.step:>5} of {last_step}  loss {values['loss']:.4f}  grad norm {values['grad_norm']:.3f}  "
        f"lr {values['learning_rate']:.2e}  {values['tokens_per_second']:,.0f} tokens/s"
    )


def _say(line: str) -> None:
    if dist.get_rank() == 0:
        print(line, file=sys.stderr, flush=True)
