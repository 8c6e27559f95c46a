"""The plan of a run: memory on each pipeline stage, traffic of each collective, and time of a step."""

from dataclasses import dataclass
from functools import cached_property

from acc_megatron.compatibility import check_job
from acc_megatron.config import Config
from acc_megatron.mesh.gpu_specs import GPUS_PER_NODE, Machine
from acc_megatron.mesh.layout import Layout
from acc_megatron.plan.assumed_efficiency import FIT_SHARE, RECIPE_SHARE
from acc_megatron.plan.communication import Collective, collectives
from acc_megatron.plan.memory import StageMemory, saved_by_layer, stage_memory
from acc_megatron.plan.parameters import Parameters, stage_parameters
from acc_megatron.plan.rank_sizes import RankSizes, rank_sizes
from acc_megatron.plan.saving import SavingCost, saving_cost
from acc_megatron.plan.speeds import Speeds
from acc_megatron.plan.step_time import StepTime, model_flops_per_step, step_time
from acc_megatron.plan.trained import saved_bytes, trained_parameters
from acc_megatron.plan.workload import Workload

# tokens of a rank's experts over the mean; even with a balancing loss the router is not perfectly balanced
EXPERT_LOAD = 1.2


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """Parameters and memory on one rank of a pipeline stage."""

    parameters: Parameters
    trained: Parameters  # with the factors of an adapter
    memory: StageMemory
    saving: SavingCost


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The result of `acc-megatron plan` for one layout."""

    config: Config
    layout: Layout
    speeds: Speeds
    workload: Workload
    sizes: RankSizes
    stages: tuple[StagePlan, ...]
    collectives: tuple[Collective, ...]
    expert_load: float

    @cached_property
    def time(self) -> StepTime:
        """The time of a step; a search does not need it of plans that do not fit."""
        trained = self.stages[-1].trained
        return step_time(
            self.config, self.layout, self.sizes, trained, self.workload, list(self.collectives), self.speeds
        )

    @property
    def machine(self) -> Machine:
        """The device that the plan is for."""
        return self.speeds.machine

    @cached_property
    def peak_bytes(self) -> float:
        """Memory of the stage that needs most."""
        return max(stage.memory.total for stage in self.stages)

    @property
    def host_bytes(self) -> float:
        """Host memory of the rank that needs most, for offloaded activations and optimizer state."""
        return max(stage.memory.host for stage in self.stages)

    @property
    def missing_bytes(self) -> float:
        """What the fullest device has too little, 0 if every stage fits into the usable share of its memory."""
        return max(0.0, self.peak_bytes - FIT_SHARE * self.machine.memory_bytes)

    @property
    def fits(self) -> bool:
        """Whether every stage fits into the usable share of the device memory and of a node's host memory."""
        return not self.missing_bytes and self.host_bytes <= FIT_SHARE * self.machine.host_memory_bytes

    @property
    def has_room(self) -> bool:
        """Whether the share of memory is free that a recipe leaves."""
        return self.fits and self.peak_bytes <= RECIPE_SHARE * self.machine.memory_bytes

    @property
    def tokens_per_second_per_gpu(self) -> float:
        """Tokens of full packed rows, including padding, as training logs them."""
        tokens = self.config.train.global_batch_rows * self.workload.row_tokens
        return tokens / self.time.total / self.layout.world

    @property
    def flops_per_step(self) -> float:
        """Model FLOPs of a step on all GPUs."""
        return model_flops_per_step(self.config, self.workload)

    @property
    def flops_per_second_per_gpu(self) -> float:
        """Model FLOPs per second of one GPU."""
        return self.flops_per_step / self.time.total / self.layout.world

    @property
    def run_seconds(self) -> float:
        """Seconds of all steps, without start-up, checkpoints and restarts."""
        return self.workload.num_steps * self.time.total

    @property
    def checkpoint_bytes(self) -> float:
        """Weights, moments, and float32 weights where the optimizer stores them; of an adapter only what it trains."""
        return saved_bytes(self.config)

    @property
    def saved_bytes_per_gpu(self) -> float:
        """What the rank with the largest part of a checkpoint writes."""
        return max(stage.saving.written for stage in self.stages)

    @property
    def saving_host_bytes_per_node(self) -> float:
        """Host memory of a node while a checkpoint is saved, without the file system's cache."""
        return min(self.layout.world, GPUS_PER_NODE) * max(stage.saving.host for stage in self.stages)


def check_plan(config: Config, num_ranks: int, speeds: Speeds) -> Layout:
    """Make all checks that training makes for this number of ranks; returns the layout or raises ConfigError."""
    if not speeds.on_gpu:
        return check_job(config, num_ranks)
    return check_job(config, num_ranks, has_gpu=True, capability=speeds.machine.capability)


def make_plan(
    config: Config,
    layout: Layout,
    speeds: Speeds,
    workload: Workload,
    parameters: list[Parameters] | None = None,
    *,
    expert_load: float = EXPERT_LOAD,
) -> Plan:
    """Plan a run on the devices that `speeds` describes.

    `parameters` are those of each stage as counted in the real model; by default a formula computes them.
    `expert_load` is the number of tokens of the busiest rank's experts over the mean, for expert sizes above 1.
    """
    if parameters is None:
        parameters = [stage_parameters(config.model, layout, stage) for stage in range(layout.pipeline)]
    load = expert_load if layout.expert > 1 else 1.0
    sizes = rank_sizes(config, layout, on_gpu=speeds.on_gpu, expert_load=load)
    row = workload.fullest
    layer = saved_by_layer(config, sizes, row)
    stages = tuple(
        StagePlan(
            parameters=own,
            trained=(trained := trained_parameters(config, layout, own, number)),
            memory=stage_memory(config, layout, sizes, own, stage=number, row=row, layer=layer),
            # a checkpoint of an adapter has nothing else
            saving=saving_cost(config, layout, trained if config.adapter.rank else own),
        )
        for number, own in enumerate(parameters)
    )
    return Plan(
        config=config,
        layout=layout,
        speeds=speeds,
        workload=workload,
        sizes=sizes,
        stages=stages,
        # now, because a group whose speed is not known is refused here
        collectives=tuple(collectives(config, layout, sizes, stages[-1].trained, speeds)),
        expert_load=load,
    )
