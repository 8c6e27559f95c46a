"""What one rank of a run holds: data, model, optimizer and the step it is at, built from the config."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig, finalize_model_grads
from megatron.core.optimizer import MegatronOptimizer
from megatron.core.transformer.module import Float16Module
from megatron.core.transformer.transformer_config import TransformerConfig

from acc_megatron.checkpoint.store import Save
from acc_megatron.config import Config
from acc_megatron.data.loader import Loader
from acc_megatron.data_tools.dataset_folder import open_dataset
from acc_megatron.layout import Layout
from acc_megatron.model.fp8_linear import emulation, finalize_gradients
from acc_megatron.model.precision import ddp_fields
from acc_megatron.model.qwen3_moe import build_chunks
from acc_megatron.model.transformer_config import training_config
from acc_megatron.observe.expert_load import ExpertLoads
from acc_megatron.optimizer import build_optimizer
from acc_megatron.resilience.progress import Progress
from acc_megatron.resilience.spikes import SpikeRule
from acc_megatron.resilience.stop import StopRequest


@dataclass
class Trainer:
    """One rank's share of a run: what a step needs, and the step it is at."""

    config: Config
    layout: Layout
    loader: Loader
    transformer: TransformerConfig
    chunks: list[torch.nn.Module]  # as wrapped for data parallelism
    optimizer: MegatronOptimizer
    loads: ExpertLoads
    rule: SpikeRule
    num_steps: int  # of the whole schedule
    step: int = 0  # steps done
    carried: Path | None = None  # files that came with the initial weights and go into every checkpoint
    saving: Save | None = None  # a checkpoint that is being written while training goes on
    progress: Progress = field(default_factory=Progress)
    stop: StopRequest | None = None  # where somebody may ask for a stop
    stopped_by: tuple[int, int] | None = None  # the rank that was asked to stop, and the cause's number

    @property
    def models(self) -> list[torch.nn.Module]:
        """The model chunks under their data-parallel wrapper."""
        return [chunk.module for chunk in self.chunks]  # type: ignore[misc]

    @property
    def checkpoints(self) -> Path:
        """Where this run's checkpoints are."""
        return Path(self.config.train.run_dir) / "checkpoints"


def build_trainer(config: Config, layout: Layout) -> Trainer:
    """Dataset, model, optimizer; collective over the world."""
    loader = Loader(open_dataset(Path(config.data.path)), config.data, config.model, layout, config.train.seed)
    transformer = training_config(config, layout)
    emulated = emulation(config.train.precision, config.fp8)
    models: list[torch.nn.Module] = [
        model.to(torch.cuda.current_device()) for model in build_chunks(config.model, transformer, emulated)
    ]
    if transformer.bf16:
        models = [Float16Module(transformer, model) for model in models]
    chunks = _wrap(config, transformer, models)
    optimizer = build_optimizer(config, chunks)
    is_delayed = emulated is not None and emulated.recipe == "delayed"
    transformer.finalize_model_grads_func = finalize_gradients if is_delayed else finalize_model_grads
    transformer.grad_scale_func = optimizer.scale_loss
    num_steps = loader.num_steps(config.train.epochs, config.train.global_batch_rows)
    loads = ExpertLoads(models, config.model.num_hidden_layers, config.model.num_experts)
    rule = SpikeRule(config.resilience)
    return Trainer(config, layout, loader, transformer, chunks, optimizer, loads, rule, num_steps)


def _wrap(config: Config, transformer: TransformerConfig, models: list[torch.nn.Module]) -> list[torch.nn.Module]:
    """Wrap model chunks for data parallelism, with the overlaps that the config asks for."""
    parallel = config.parallel
    ddp = DistributedDataParallelConfig(
        use_distributed_optimizer=parallel.distributed_optimizer,
        overlap_grad_reduce=parallel.overlap_grad_reduce,
        overlap_param_gather=parallel.overlap_param_gather,
        grad_reduce_in_fp32=True,
        average_in_collective=False,
        **ddp_fields(config.train.precision, config.fp8),
    )
    # only the first chunk of a virtual pipeline overlaps by buckets: the others' backward comes late
    chunks = [
        DistributedDataParallel(transformer, ddp, model, disable_bucketing=i > 0) for i, model in enumerate(models)
    ]
    if parallel.overlap_grad_reduce:
        no_sync = [chunk.no_sync for chunk in chunks]
        transformer.no_sync_func = no_sync if len(chunks) > 1 else no_sync[0]
    return list(chunks)
