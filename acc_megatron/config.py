"""All settings of a training run: a typed tree that is read from a TOML recipe plus `section.key=value` overrides."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from acc_megatron.common.settings_help import describe, find
from acc_megatron.common.typed_settings import UnknownKey, apply_override, flatten, from_dict, read_tree
from acc_megatron.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """YaRN (arXiv 2309.00071), which gives a model a longer window; keys have the meaning they have in config.json."""

    rope_type: Literal["yarn"] = "yarn"
    factor: float  # new window / original_max_position_embeddings
    original_max_position_embeddings: int  # the window before scaling
    attention_factor: float | None = None  # scales rotated queries and keys; None: from factor and mscale
    beta_fast: float = 32.0  # dims that turn more often than this in the original window are not changed
    beta_slow: float = 1.0  # dims that turn less often than this are interpolated
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True  # round the limits between dims to whole dims


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The decoder's architecture; all keys except `family` have the name and meaning they have in config.json."""

    family: str = "qwen3_moe"  # model_type in config.json; one of the families in model/families/
    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    intermediate_size: int = 0  # width of the MLP, required by families without experts
    num_experts: int = 0  # this and the next two are required by families with experts
    num_experts_per_tok: int = 0
    moe_intermediate_size: int = 0
    rms_norm_eps: float = 1e-6
    rope_theta: float = 1e6
    rope_scaling: RopeScaling | None = None
    norm_topk_prob: bool = True
    tie_word_embeddings: bool = False
    initializer_range: float = 0.02

    @property
    def window_tokens(self) -> int:
        """The longest document that positions are defined for; some releases give the length before scaling."""
        scaling = self.rope_scaling
        scaled = round(scaling.factor * scaling.original_max_position_embeddings) if scaling else 0
        return max(self.max_position_embeddings, scaled)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The dataset folder, and how its documents are packed; a packed row contains complete documents only."""

    path: str
    seq_length_tokens: int  # length of a packed row
    document_multiple_tokens: int = 64  # each document is padded to a multiple, so that packing ignores the layout


@dataclass(frozen=True, kw_only=True)
class ParallelConfig:
    """Sizes of the mesh axes; the data-parallel size is the world size divided by the others."""

    tensor: int = 1  # a size above 1 also turns on sequence parallelism
    context: int = 1
    # how context-parallel ranks exchange keys and values on GPU; on CPU they always use all_gather
    context_communication: Literal["p2p", "all_gather", "a2a", "a2a+p2p"] = "p2p"
    hierarchical_context: list[int] = field(default_factory=list)  # inner and outer sizes, for a2a+p2p only
    pipeline: int = 1
    virtual_pipeline: int = 1  # model chunks per pipeline rank
    expert: int = 1
    expert_tensor: int = 1
    distributed_optimizer: bool = False  # shards the optimizer state over the data-parallel ranks
    overlap_grad_reduce: bool = False  # reduces gradients while the backward pass runs
    overlap_param_gather: bool = False  # gathers updated parameters while the next forward pass runs


@dataclass(frozen=True, kw_only=True)
class MoEConfig:
    """Routing and dispatch of tokens to experts; coefficients do not depend on the share of supervised tokens."""

    load_balancing: Literal["none", "aux_loss", "global_aux_loss"] = "none"
    load_balancing_coefficient: float = 1e-3
    z_loss_coefficient: float = 0.0
    dispatcher: Literal["alltoall", "allgather", "deepep", "hybridep"] = "alltoall"
    grouped_gemm: bool = True  # one grouped matrix product for all experts on GPU; on CPU experts run one by one


@dataclass(frozen=True, kw_only=True)
class MemoryConfig:
    """Which activations are recomputed in the backward pass or offloaded to host memory."""

    recompute: Literal["none", "full", "selective"] = "none"
    # for "selective" only; core_attn is not among them, because fused attention saves little and costs the most
    recompute_modules: list[str] = field(default_factory=lambda: ["moe_act", "layernorm"])
    # modules whose inputs are offloaded to host memory: qkv_linear, core_attn, attn_proj, mlp_norm, expert_fc1, moe_act
    offload_modules: list[str] = field(default_factory=list)  # GPU only


@dataclass(frozen=True, kw_only=True)
class Fp8Config:
    """How the linear layers use FP8; only for `train.precision` = 'fp8_...'. The output head never uses FP8."""

    format: Literal["auto", "e4m3", "hybrid"] = "auto"  # hybrid: e5m2 for output gradients; auto: the recipe's default
    bf16_layers_at_start: int = 0  # number of first layers that stay in bfloat16
    bf16_layers_at_end: int = 0  # number of last layers that stay in bfloat16
    param_gather: bool = False  # stores and gathers parameters in FP8; GPU only
    amax_history_steps: int = 1024  # length of the history of largest values; recipe "delayed" only
    amax_choice: Literal["max", "most_recent"] = "max"  # which value of the history sets the scale; "delayed" only


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """LoRA (arXiv 2106.09685): weights of the base are frozen, and two narrow factors of each target are trained.

    Parts of a model: attention or each of q, k, v, o; experts, mlp (of a dense model), router, embeddings, head, norms.
    """

    rank: int = 0  # width of the factors; 0: no adapter
    alpha: float = 32.0  # the product of the factors is multiplied by alpha / rank
    targets: list[str] = field(default_factory=lambda: ["attention"])  # parts that get factors; any but norms
    # parts trained in full and saved with the factors; one of router, embeddings, head, norms
    trained: list[str] = field(default_factory=list)
    dropout: float = 0.0  # of the input of the factors
    init_from: str | None = (
        None  # checkpoint of an adapter with the initial factors; import makes it from a PEFT folder
    )


@dataclass(frozen=True, kw_only=True)
class FreezeConfig:
    """Parts that are not trained in a run without an adapter."""

    parts: list[str] = field(default_factory=list)  # names as in [adapter]; q, k and v only together


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """The masked output head, its cross entropy, and the last layer before it."""

    implementation: Literal["auto", "triton", "torch"] = "auto"  # auto: triton on GPU, torch on CPU
    # keep or recompute the logits of supervised tokens in the backward pass; auto: keep them if they are small enough
    plan: Literal["auto", "keep", "recompute"] = "auto"
    # rows for which the last layer computes more than keys and values; supervised: those from a document's first target
    # on, and its balancing loss counts supervised tokens only
    last_layer_rows: Literal["all", "supervised"] = "all"


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The optimizer and its learning-rate schedule."""

    kind: str = "adamw"  # one of OPTIMIZERS in training/optimizers.py
    schedule: str = "cosine"  # one of SCHEDULES in training/schedules.py
    learning_rate: float  # the highest rate, reached at the end of the warm-up
    min_learning_rate: float  # the rate of the last step
    warmup_fraction: float = 0.05  # share of all steps in which the rate rises linearly from 0
    decay_fraction: float = 0.2  # share of the steps after the warm-up in which the rate falls; schedule "wsd" only
    decay_shape: Literal["minus_sqrt", "linear", "cosine", "exponential"] = "minus_sqrt"  # how it falls; "wsd" only
    weight_decay: float = 0.1
    adam_beta1: float = 0.9
    adam_beta2: float = 0.95
    adam_eps: float = 1e-8
    clip_grad_norm: float = 1.0  # largest global gradient norm; 0 turns clipping off
    # AdamW's moments: 8, 4 or 3 bytes a parameter; fp8 is the first moment only, the second one is then bfloat16
    moments: Literal["float32", "bfloat16", "fp8"] = "float32"
    gradients: Literal["float32", "bfloat16"] = "float32"  # how they are summed over microbatches and ranks
    # weights that are updated: remainders stores the 16 bits that a bfloat16 weight lacks, with float32's arithmetic
    master_weights: Literal["float32", "remainders", "float16"] = "float32"
    offload_fraction: float = 0.0  # share of the optimizer's state that host memory stores and its CPUs update


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Length of the run, its precision, its checkpoints, and the folder it writes."""

    run_dir: str
    global_batch_rows: int  # packed rows per optimizer step
    epochs: int = 1
    max_steps: int | None = None  # stop after this step; the schedule still covers all epochs
    seed: int = 0
    precision: str = "float32"  # one of PRECISIONS in model/precision.py
    deterministic: bool = False  # sums in a fixed order: the same bits in every run on the same machines and layout
    init_from: str | None = None  # checkpoint with the initial weights
    save_every_steps: int | None = None  # a checkpoint is always saved at the end of the run
    keep_checkpoints: int = 2  # number of newest checkpoints to keep
    async_save: bool = False  # copy the state to host memory and write it while training continues
    fallback: bool = False  # if the latest checkpoint is damaged, resume from the newest intact one
    process_timeout_seconds: int = 600  # a collective that takes longer ends the run
    allow_data_change: bool = False  # resume even if dataset, tokenizer, packing or order have changed


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """Held-out loss: which documents are held out, and how often it is measured."""

    path: str | None = None  # a dataset folder; all of its documents are held out
    share: float = 0.0  # without a path: this share of the training documents, chosen by a hash of their ids
    every_steps: int | None = None  # measure after this many steps, and after the last one


@dataclass(frozen=True, kw_only=True)
class ResilienceConfig:
    """When a step is skipped, when a run ends itself, and when it counts as hung."""

    spike_sigmas: float = 6.0  # a loss or gradient norm this far above the window's mean is a spike; 0: never
    spike_window_steps: int = 128
    spike_limit: int = 3  # this many spikes within spike_limit_steps end the run
    spike_limit_steps: int = 100
    hang_timeout_seconds: float | None = None  # None: five times the slowest section so far, at least 120 s


@dataclass(frozen=True, kw_only=True)
class ObserveConfig:
    """What is printed, and where metrics are sent in addition to steps.jsonl and TensorBoard."""

    print_every_steps: int = 10  # without a terminal; on a terminal one line is rewritten at every step
    peak_flops_per_second: float | None = None  # of one device, for the share of peak; None: from the GPU's name
    wandb: str | None = None  # name of a Weights & Biases project
    mlflow: str | None = None  # tracking URI, such as sqlite:///mlflow.db


@dataclass(frozen=True, kw_only=True)
class ProfileConfig:
    """Which steps are recorded on which ranks, into RUN/profile; without steps nothing is recorded, at no cost."""

    steps: list[int] = field(default_factory=list)  # numbers of the steps to record, such as [10, 11]
    ranks: list[int] = field(default_factory=lambda: [0])  # ranks that record them
    trace: bool = True  # a torch profiler trace, for ui.perfetto.dev
    nvtx: bool = False  # NVTX ranges and the start of a capture, for nsys --capture-range=cudaProfilerApi; GPU only
    memory: bool = False  # a snapshot of the CUDA memory, for pytorch.org/memory_viz; GPU only


@dataclass(frozen=True, kw_only=True)
class Config:
    """All settings of a training run."""

    name: str
    model: ModelConfig
    data: DataConfig
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    moe: MoEConfig = field(default_factory=MoEConfig)
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    fp8: Fp8Config = field(default_factory=Fp8Config)
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    freeze: FreezeConfig = field(default_factory=FreezeConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig
    train: TrainConfig
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    resilience: ResilienceConfig = field(default_factory=ResilienceConfig)
    observe: ObserveConfig = field(default_factory=ObserveConfig)
    profile: ProfileConfig = field(default_factory=ProfileConfig)


# what other trainers call a setting
SYNONYMS = {
    "lr": "optimizer.learning_rate",
    "min lr": "optimizer.min_learning_rate",
    "warmup": "optimizer.warmup_fraction",
    "warmup ratio": "optimizer.warmup_fraction",
    "lr scheduler type": "optimizer.schedule",
    "max grad norm": "optimizer.clip_grad_norm",
    "gradient clipping": "optimizer.clip_grad_norm",
    "bf16": "train.precision",
    "fp8": "train.precision",
    "dtype": "train.precision",
    "batch size": "train.global_batch_rows",
    "global batch size": "train.global_batch_rows",
    "num train epochs": "train.epochs",
    "num epochs": "train.epochs",
    "output dir": "train.run_dir",
    "save steps": "train.save_every_steps",
    "save interval": "train.save_every_steps",
    "save total limit": "train.keep_checkpoints",
    "model name or path": "train.init_from",
    "sequence length": "data.seq_length_tokens",
    "seq len": "data.seq_length_tokens",
    "max length": "data.seq_length_tokens",
    "context length": "data.seq_length_tokens",
    "dataset": "data.path",
    "tp": "parallel.tensor",
    "cp": "parallel.context",
    "pp": "parallel.pipeline",
    "vpp": "parallel.virtual_pipeline",
    "ep": "parallel.expert",
    "etp": "parallel.expert_tensor",
    "zero": "parallel.distributed_optimizer",
    "fsdp": "parallel.distributed_optimizer",
    "lora rank": "adapter.rank",
    "lora r": "adapter.rank",
    "lora alpha": "adapter.alpha",
    "lora dropout": "adapter.dropout",
    "target modules": "adapter.targets",
    "modules to save": "adapter.trained",
    "exp avg dtype": "optimizer.moments",
    "main grads dtype": "optimizer.gradients",
    "main params dtype": "optimizer.master_weights",
    "optimizer cpu offload": "optimizer.offload_fraction",
    "optimizer offload fraction": "optimizer.offload_fraction",
    "gradient checkpointing": "memory.recompute",
    "activation checkpointing": "memory.recompute",
    "activation offloading": "memory.offload_modules",
    "logging steps": "observe.print_every_steps",
    "log interval": "observe.print_every_steps",
}


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a TOML recipe and apply `section.key=value` overrides; raises ConfigError."""
    try:
        return _with_home(from_dict(Config, read_tree(path, overrides), str(path)))
    except UnknownKey as error:
        settings = describe(Config)
        name = error.key.rpartition(".")[2]
        known = name.replace("_", " ")
        # the same name in another section, or another trainer's name, is more likely than a similar name here
        near = [one for one in settings if one.key.rpartition(".")[2] == name or one.key == SYNONYMS.get(known)]
        if near or (error.suggestion is None and (near := find(settings, error.key, SYNONYMS))):
            raise ConfigError(
                f"{path}: unknown key {error.key}; did you mean {near[0].key}? "
                f"'acc-megatron config {near[0].key}' explains it"
            ) from None
        raise


def _with_home(config: Config) -> Config:
    """Expand ~ in every path: the shell does not do it after `key=`."""
    initial = config.train.init_from
    train = dataclasses.replace(
        config.train,
        run_dir=str(Path(config.train.run_dir).expanduser()),
        init_from=str(Path(initial).expanduser()) if initial else None,
    )
    data = dataclasses.replace(config.data, path=str(Path(config.data.path).expanduser()))
    factors = config.adapter.init_from
    adapter = dataclasses.replace(config.adapter, init_from=str(Path(factors).expanduser()) if factors else None)
    return dataclasses.replace(config, train=train, data=data, adapter=adapter)


def load_parallel(recipe: Path | None, overrides: Sequence[str]) -> ParallelConfig:
    """Read [parallel] of a recipe (default: one process) and apply `parallel.key=value`; raises ConfigError."""
    tree: dict[str, Any] = {"parallel": dataclasses.asdict(load_config(recipe).parallel) if recipe else {}}
    for override in overrides:
        apply_override(tree, override)
    if unknown := sorted(tree.keys() - {"parallel"}):
        raise ConfigError(
            f"override {unknown[0]!r}: only parallel.KEY=VALUE can be set here, such as parallel.expert=8"
        )
    return from_dict(ParallelConfig, tree["parallel"], str(recipe or "overrides"), "parallel.")


def model_config_from_dict(tree: dict[str, Any], where: str) -> ModelConfig:
    """Build a ModelConfig from a saved dict; raises ConfigError."""
    return from_dict(ModelConfig, tree, where)


def optimizer_config_from_dict(tree: dict[str, Any], where: str) -> OptimizerConfig:
    """Build an OptimizerConfig from a saved dict; raises ConfigError."""
    return from_dict(OptimizerConfig, tree, where)


def to_dict(config: Config) -> dict[str, Any]:
    """Return the resolved settings as nested dicts, as saved with a run."""
    return dataclasses.asdict(config)


def difference(config: Config, recipe: Config) -> list[str]:
    """Return a line `key = new (recipe: old)` for every setting that differs from the recipe."""
    new, old = flatten(to_dict(config)), flatten(to_dict(recipe))
    keys = [key for key in new if new[key] != old.get(key)]  # the recipe may lack an optional section
    return [f"{key} = {json.dumps(new[key])} (recipe: {json.dumps(old.get(key))})" for key in keys]
