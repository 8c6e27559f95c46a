"""One rank's part of a run: data, model, optimizer and current step, built from the settings."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig, finalize_model_grads
from megatron.core.optimizer import MegatronOptimizer
from megatron.core.transformer.module import Float16Module
from megatron.core.transformer.transformer_config import TransformerConfig

from acc_megatron.adapter.attach import prepare_parameters
from acc_megatron.checkpoint.save_plan import LastPlan
from acc_megatron.checkpoint.store import Save
from acc_megatron.config import Config
from acc_megatron.data.held_out import choose_held_out
from acc_megatron.data.loader import Loader, PackedRow
from acc_megatron.data.read_ahead import ReadAhead
from acc_megatron.data_tools.convert.dataset_folder import open_dataset
from acc_megatron.errors import DataError
from acc_megatron.mesh.layout import Layout
from acc_megatron.model.build import build_chunks
from acc_megatron.model.fp8.emulated_linear import emulation, finalize_gradients
from acc_megatron.model.precision import ddp_fields
from acc_megatron.model.transformer_config import training_config
from acc_megatron.observe.expert_load import ExpertLoads
from acc_megatron.resilience.current_section import Progress
from acc_megatron.resilience.spikes import SpikeRule
from acc_megatron.resilience.stop import StopRequest
from acc_megatron.training.optimizer import build_optimizer
from acc_megatron.training.section_times import SectionTimes


@dataclass(frozen=True)
class RankRows:
    """The packed rows of one step on one rank; empty rows if `problem` says why they could not be read."""

    batch: list[int]  # numbers of the packed rows in the global batch
    rows: list[PackedRow]
    problem: DataError | None = None


@dataclass(frozen=True)
class BestStep:
    """A step and its held-out loss."""

    step: int
    loss: float


@dataclass
class Trainer:
    """What one rank needs for a step, and the number of steps done."""

    config: Config
    layout: Layout
    loader: Loader
    held_out: dict[str, Loader]  # the documents of each agent kind for validation; empty without it
    transformer: TransformerConfig
    chunks: list[torch.nn.Module]  # wrapped for data parallelism
    optimizer: MegatronOptimizer
    loads: ExpertLoads
    rule: SpikeRule
    num_steps: int  # of the whole schedule
    read_ahead: ReadAhead["RankRows"] = field(default_factory=ReadAhead)
    step: int = 0  # steps done
    best: BestStep | None = None  # the step with the lowest held-out loss
    base_sha256: str | None = None  # of the frozen weights below an adapter
    carried: Path | None = None  # folder of files that came with the initial weights; copied to every checkpoint
    saving: Save | None = None  # checkpoint that is being written while training continues
    last_plan: LastPlan = field(default_factory=LastPlan)  # of the last save
    progress: Progress = field(default_factory=Progress)
    times: SectionTimes = field(default_factory=SectionTimes)
    stop: StopRequest | None = None
    stopped_by: tuple[int, int] | None = None  # rank that was asked to stop, and the number of the cause

    @property
    def last_step(self) -> int:
        """The step after which this run ends."""
        return min(self.num_steps, self.config.train.max_steps or self.num_steps)

    @property
    def models(self) -> list[torch.nn.Module]:
        """The model chunks without their data-parallel wrapper."""
        return [chunk.module for chunk in self.chunks]  # type: ignore[misc]

    @property
    def checkpoints(self) -> Path:
        """Folder of this run's checkpoints."""
        return Path(self.config.train.run_dir) / "checkpoints"


def build_trainer(config: Config, layout: Layout) -> Trainer:
    """Open the dataset and build model and optimizer; collective over the world."""
    dataset, seed = open_dataset(Path(config.data.path)), config.train.seed
    chosen = choose_held_out(config, dataset)
    loader = Loader(dataset, config.data, config.model, layout, seed, chosen.trained)
    held_out = {
        agent: Loader(chosen.dataset or dataset, config.data, config.model, layout, seed, documents)
        for agent, documents in (chosen.by_agent or {}).items()
    }
    transformer = training_config(config, layout)
    emulated = emulation(config.train.precision, config.fp8)
    has_suffix_layer = config.loss.last_layer_rows == "supervised"
    built = build_chunks(config.model, transformer, emulated, has_suffix_layer=has_suffix_layer)
    prepare_parameters(config, layout, built)
    models: list[torch.nn.Module] = [model.to(torch.cuda.current_device()) for model in built]
    if transformer.bf16:
        models = [Float16Module(transformer, model) for model in models]
    chunks = _wrap(config, transformer, models)
    optimizer = build_optimizer(config, chunks)
    has_history = emulated is not None and emulated.recipe.has_history
    transformer.finalize_model_grads_func = finalize_gradients if has_history else finalize_model_grads
    transformer.grad_scale_func = optimizer.scale_loss
    num_steps = loader.num_steps(config.train.epochs, config.train.global_batch_rows)
    loads = ExpertLoads(models, config.model.num_hidden_layers, config.model.num_experts)
    rule = SpikeRule(config.resilience)
    times = SectionTimes()
    transformer.timers = times
    return Trainer(
        config=config,
        layout=layout,
        loader=loader,
        held_out=held_out,
        transformer=transformer,
        chunks=chunks,
        optimizer=optimizer,
        loads=loads,
        rule=rule,
        num_steps=num_steps,
        times=times,
    )


def _wrap(config: Config, transformer: TransformerConfig, models: list[torch.nn.Module]) -> list[torch.nn.Module]:
    """Wrap the model chunks for data parallelism, with the configured overlaps."""
    parallel = config.parallel
    ddp = DistributedDataParallelConfig(
        use_distributed_optimizer=parallel.distributed_optimizer,
        overlap_grad_reduce=parallel.overlap_grad_reduce,
        overlap_param_gather=parallel.overlap_param_gather,
        grad_reduce_in_fp32=config.optimizer.gradients == "float32",
        average_in_collective=False,
        **ddp_fields(config.train.precision, config.fp8),
    )
    # in a virtual pipeline only the first chunk reduces by buckets: the backward passes of the others come too late
    chunks = [
        DistributedDataParallel(transformer, ddp, model, disable_bucketing=i > 0) for i, model in enumerate(models)
    ]
    if parallel.overlap_grad_reduce:
        no_sync = [chunk.no_sync for chunk in chunks]
        transformer.no_sync_func = no_sync if len(chunks) > 1 else no_sync[0]
    return list(chunks)
