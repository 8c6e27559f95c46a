"""The one owner of rank arithmetic: which axes the world has, and whether model and data fit them."""

from dataclasses import dataclass

from acc_megatron.config import Config, ModelConfig, ParallelConfig
from acc_megatron.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Layout:
    """Sizes of the mesh axes of a world.

    Dense layers:  world = tensor x context x pipeline x data.
    Expert layers: world = expert_tensor x expert x pipeline x expert_data.
    """

    world: int
    tensor: int
    context: int
    pipeline: int
    expert: int
    expert_tensor: int

    @property
    def data(self) -> int:
        """Replicas of the dense layers that read different rows."""
        return self.world // (self.tensor * self.context * self.pipeline)

    @property
    def expert_data(self) -> int:
        """Replicas of each expert."""
        return self.world // (self.expert_tensor * self.expert * self.pipeline)

    @property
    def num_chunks(self) -> int:
        """Zig-zag chunks that each document is cut into."""
        return 2 * self.context if self.context > 1 else 1

    def __str__(self) -> str:
        return f"TP{self.tensor} CP{self.context} PP{self.pipeline} EP{self.expert} DP{self.data}"


def build_layout(parallel: ParallelConfig, world: int) -> Layout:
    """The layout of `world` ranks; raises ConfigError with the sum that does not work out."""
    p = parallel
    for name in ("tensor", "context", "pipeline", "expert", "expert_tensor"):
        if getattr(p, name) < 1:
            raise ConfigError(f"parallel.{name} must be at least 1, got {getattr(p, name)}")
    dense = p.tensor * p.context * p.pipeline
    if world % dense:
        raise ConfigError(
            f"tp {p.tensor} x cp {p.context} x pp {p.pipeline} = {dense} does not divide {world} ranks; "
            f"change parallel.tensor, parallel.context or parallel.pipeline, or start a multiple of {dense} ranks"
        )
    experts = p.expert_tensor * p.expert * p.pipeline
    if world % experts:
        raise ConfigError(
            f"etp {p.expert_tensor} x ep {p.expert} x pp {p.pipeline} = {experts} does not divide {world} ranks; "
            "change parallel.expert, parallel.expert_tensor or parallel.pipeline"
        )
    return Layout(world, p.tensor, p.context, p.pipeline, p.expert, p.expert_tensor)


def check_fit(config: Config, layout: Layout) -> None:
    """Raise ConfigError when model, rows or batch do not divide over the layout; says the division."""
    model, rows, multiple = config.model, config.data.seq_length_tokens, config.data.document_multiple_tokens
    divisions = [
        ("data.document_multiple_tokens", multiple, "2 x parallel.context", layout.num_chunks),
        ("data.seq_length_tokens", rows, "data.document_multiple_tokens", multiple),
        ("data.seq_length_tokens", rows, "parallel.context x parallel.tensor", layout.context * layout.tensor),
        ("train.global_batch_rows", config.train.global_batch_rows, "data-parallel ranks", layout.data),
    ]
    positive = [
        ("data.seq_length_tokens", rows),
        ("data.document_multiple_tokens", multiple),
        ("train.global_batch_rows", config.train.global_batch_rows),
        ("train.epochs", config.train.epochs),
        ("train.keep_checkpoints", config.train.keep_checkpoints),
    ]
    for name, value in positive:
        if value < 1:
            raise ConfigError(f"{name} = {value} must be at least 1")
    check_model_fit(model, config.parallel.virtual_pipeline, layout)
    _check_divisions(divisions)
    if model.num_experts_per_tok > model.num_experts:
        raise ConfigError(
            f"model.num_experts_per_tok = {model.num_experts_per_tok} exceeds model.num_experts = {model.num_experts}"
        )
    if rows > model.max_position_embeddings:
        raise ConfigError(
            f"data.seq_length_tokens = {rows} exceeds model.max_position_embeddings = {model.max_position_embeddings}"
        )


def check_model_fit(model: ModelConfig, virtual_pipeline: int, layout: Layout) -> None:
    """Raise ConfigError when a model does not divide over the layout; says the division."""
    stages = layout.pipeline * virtual_pipeline
    _check_divisions(
        [
            ("model.num_attention_heads", model.num_attention_heads, "parallel.tensor", layout.tensor),
            ("model.num_key_value_heads", model.num_key_value_heads, "parallel.tensor", layout.tensor),
            ("model.vocab_size", model.vocab_size, "parallel.tensor", layout.tensor),
            ("model.num_experts", model.num_experts, "parallel.expert", layout.expert),
            (
                "model.moe_intermediate_size",
                model.moe_intermediate_size,
                "parallel.expert_tensor",
                layout.expert_tensor,
            ),
            ("model.num_hidden_layers", model.num_hidden_layers, "parallel.pipeline x virtual_pipeline", stages),
        ]
    )


def _check_divisions(divisions: list[tuple[str, int, str, int]]) -> None:
    for name, value, divisor_name, divisor in divisions:
        if value % divisor:
            raise ConfigError(f"{name} = {value} does not divide by {divisor_name} = {divisor}")
