"""One typed tree of settings, from TOML plus `key=value` overrides; nothing else configures a run."""

import dataclasses
import datetime
import difflib
import json
import tomllib
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from acc_megatron.errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A Qwen3-MoE decoder, in Hugging Face's names and meaning."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    num_experts: int
    num_experts_per_tok: int
    moe_intermediate_size: int
    max_position_embeddings: int
    rms_norm_eps: float = 1e-6
    rope_theta: float = 1e6
    norm_topk_prob: bool = True
    tie_word_embeddings: bool = False
    initializer_range: float = 0.02


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The dataset folder and the rows made of it; a row holds whole documents, never a part of one."""

    path: str
    seq_length_tokens: int
    document_multiple_tokens: int = 64  # documents are padded to it, so that rows are the same for every context size


@dataclass(frozen=True, kw_only=True)
class ParallelConfig:
    """Sizes of the mesh axes; data parallelism is what remains of the world."""

    tensor: int = 1  # sequence parallelism comes with it
    context: int = 1
    context_communication: Literal["p2p", "all_gather", "a2a", "a2a+p2p"] = "p2p"  # on GPU; the CPU path all-gathers
    hierarchical_context: list[int] = field(default_factory=list)  # for a2a+p2p: inner and outer sizes
    pipeline: int = 1
    virtual_pipeline: int = 1  # model chunks a stage holds
    expert: int = 1
    expert_tensor: int = 1
    distributed_optimizer: bool = False
    overlap_grad_reduce: bool = False
    overlap_param_gather: bool = False


@dataclass(frozen=True, kw_only=True)
class MoEConfig:
    """Routing and dispatch; coefficients mean what they say whatever the share of supervised tokens."""

    load_balancing: Literal["none", "aux_loss", "global_aux_loss"] = "none"
    load_balancing_coefficient: float = 1e-3
    z_loss_coefficient: float = 0.0
    dispatcher: Literal["alltoall", "allgather", "deepep", "hybridep"] = "alltoall"
    grouped_gemm: bool = True  # on GPU; the CPU path runs experts one by one


@dataclass(frozen=True, kw_only=True)
class MemoryConfig:
    """What is computed again or parked in host memory instead of kept."""

    recompute: Literal["none", "full", "selective"] = "none"
    recompute_modules: list[str] = field(default_factory=lambda: ["core_attn"])  # for selective
    offload_layers: int = 0  # on GPU: layers whose activations wait in host memory


@dataclass(frozen=True, kw_only=True)
class Fp8Config:
    """How the linear layers use FP8; for `train.precision` = 'fp8_...' alone. The head is never in FP8."""

    format: Literal["auto", "e4m3", "hybrid"] = "auto"  # auto: the recipe's own; hybrid: e5m2 for gradients of outputs
    bf16_layers_at_start: int = 0
    bf16_layers_at_end: int = 0
    param_gather: bool = False  # on GPU: parameters are kept and gathered in FP8
    amax_history_steps: int = 1024  # of the delayed recipe, as is the next
    amax_choice: Literal["max", "most_recent"] = "max"


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """The masked head: which code runs it, and whether compact logits are kept for the backward pass."""

    implementation: Literal["auto", "triton", "torch"] = "auto"  # auto: by device
    plan: Literal["auto", "keep", "recompute"] = "auto"  # auto: by the size of the compact logits


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW (or SGD, for exactness tests) under a cosine schedule with linear warm-up."""

    kind: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float
    min_learning_rate: float
    warmup_fraction: float = 0.05
    weight_decay: float = 0.1
    adam_beta1: float = 0.9
    adam_beta2: float = 0.95
    adam_eps: float = 1e-8
    clip_grad_norm: float = 1.0


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The loop: how long, from where, and where to."""

    run_dir: str
    global_batch_rows: int
    epochs: int = 1
    max_steps: int | None = None  # stop after this step although the schedule runs on
    seed: int = 0
    precision: Literal["float32", "bfloat16", "fp8_delayed", "fp8_current", "fp8_blockwise", "fp8_mxfp8"] = "float32"
    init_from: str | None = None  # a checkpoint whose weights the run starts from
    save_every_steps: int | None = None  # besides the checkpoint at the end
    keep_checkpoints: int = 2
    async_save: bool = False  # copy to host memory, then write while training goes on
    fallback: bool = False  # when the latest checkpoint is damaged, go on from the newest that is not
    process_timeout_seconds: int = 600
    allow_data_change: bool = False  # resume although dataset, tokenizer, packing or order are no longer the same


@dataclass(frozen=True, kw_only=True)
class ResilienceConfig:
    """When a step is skipped, when a run stops by itself, and when silence counts as a hang."""

    spike_sigmas: float = 6.0  # loss or gradient norm so far above its window is a spike; 0 switches the rule off
    spike_window_steps: int = 128
    spike_limit: int = 3  # so many spikes within spike_limit_steps end the run
    spike_limit_steps: int = 100
    hang_timeout_seconds: float | None = None  # none: learned, five times the slowest section and at least 120 s


@dataclass(frozen=True, kw_only=True)
class ObserveConfig:
    """Where a run's numbers go besides steps.jsonl and TensorBoard."""

    peak_flops_per_second: float | None = None  # of one device, for the share of peak; none: by the GPU's name
    wandb: str | None = None  # a project's name; needs the extra [wandb]
    mlflow: str | None = None  # a tracking URI, as sqlite:///mlflow.db; needs the extra [mlflow]


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything a training run is made of."""

    name: str
    model: ModelConfig
    data: DataConfig
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    moe: MoEConfig = field(default_factory=MoEConfig)
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    fp8: Fp8Config = field(default_factory=Fp8Config)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig
    train: TrainConfig
    resilience: ResilienceConfig = field(default_factory=ResilienceConfig)
    observe: ObserveConfig = field(default_factory=ObserveConfig)


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a TOML recipe and apply `section.key=value` overrides; raises ConfigError with the nearest key."""
    return from_dict(Config, read_tree(path, overrides), str(path))


def read_tree(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The plain tree of a TOML file under `section.key=value` overrides; raises ConfigError."""
    if not path.is_file():
        raise ConfigError(f"no config at {path}")
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    for override in overrides:
        apply_override(tree, override)
    return tree


def load_parallel(recipe: Path | None, overrides: Sequence[str]) -> ParallelConfig:
    """The [parallel] section of a recipe, or one process, with `parallel.key=value` overrides; raises ConfigError."""
    tree: dict[str, Any] = {"parallel": dataclasses.asdict(load_config(recipe).parallel) if recipe else {}}
    for override in overrides:
        apply_override(tree, override)
    if unknown := sorted(tree.keys() - {"parallel"}):
        raise ConfigError(f"override {unknown[0]!r}: only parallel.KEY=VALUE here, such as parallel.expert=8")
    return from_dict(ParallelConfig, tree["parallel"], str(recipe or "overrides"), "parallel.")


def model_config_from_dict(tree: dict[str, Any], where: str) -> ModelConfig:
    """A ModelConfig from a saved dict; raises ConfigError."""
    return from_dict(ModelConfig, tree, where)


def to_dict(config: Config) -> dict[str, Any]:
    """The resolved tree, as saved with a run."""
    return dataclasses.asdict(config)


def difference(config: Config, recipe: Config) -> list[str]:
    """`key = new (recipe: old)` lines for every setting that is not the recipe's."""
    new, old = flatten(to_dict(config)), flatten(to_dict(recipe))
    return [f"{key} = {json.dumps(new[key])} (recipe: {json.dumps(old[key])})" for key in new if new[key] != old[key]]


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested tree as one level of `section.key` names."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def apply_override(tree: dict[str, Any], override: str) -> None:
    """Set one `section.key=value` in a plain tree; raises ConfigError."""
    key, equals, text = override.partition("=")
    if not equals:
        raise ConfigError(f"override {override!r} has no '=': write section.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word is a string
    if isinstance(value, datetime.date | datetime.time):
        value = text  # no setting is a date; 08:00:00 is what a batch system calls eight hours
    *sections, last = key.strip().split(".")
    for section in sections:
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"override {override!r}: {section!r} is a value, not a section")
    tree[last] = value


def from_dict(cls: type[T], tree: dict[str, Any], where: str, prefix: str = "") -> T:
    """Build a settings dataclass from a plain tree; unknown, missing or mistyped keys raise ConfigError."""
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    for key in tree:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1, cutoff=0.5)
            hint = f"; did you mean {prefix}{near[0]}?" if near else f"; known: {', '.join(fields)}"
            raise ConfigError(f"{where}: unknown key {prefix}{key}{hint}")
    values = {}
    for name, f in fields.items():
        if name in tree:
            values[name] = _convert(hints[name], tree[name], where, prefix + name)
        elif f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{where}: {prefix}{name} is missing")
    return cls(**values)


def _convert(hint: Any, value: Any, where: str, key: str) -> Any:
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise ConfigError(f"{where}: {key} must be a section, got {value!r}")
        return from_dict(hint, value, where, f"{key}.")
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType and value is not None and dataclasses.is_dataclass(options[0]):
        return _convert(options[0], value, where, key)
    if origin is dict:
        if not isinstance(value, dict):
            raise ConfigError(f"{where}: {key} must be a section, got {value!r}")
        return {name: _convert(options[1], item, where, f"{key}.{name}") for name, item in value.items()}
    if origin is Literal:
        if value not in options:
            raise ConfigError(f"{where}: {key} must be one of {', '.join(map(repr, options))}, got {value!r}")
        return value
    if origin is list:
        if not isinstance(value, list) or any(type(item) is not options[0] for item in value):
            raise ConfigError(f"{where}: {key} must be a list of {options[0].__name__}, got {value!r}")
        return value
    allowed = options if origin in (typing.Union, types.UnionType) else (hint,)
    if float in allowed and type(value) is int:
        return float(value)
    if type(value) not in allowed and not (value is None and types.NoneType in allowed):
        names = " or ".join(t.__name__ for t in allowed if t is not types.NoneType)
        raise ConfigError(f"{where}: {key} must be {names}, got {value!r}")
    return value
