"""Parameters of a pipeline stage on one rank, from the config; `real_model.py` holds them to the model that runs."""

from dataclasses import dataclass

from acc_megatron.config import ModelConfig
from acc_megatron.layout import Layout


@dataclass(frozen=True, slots=True)
class Parameters:
    """Numbers of one rank's parameters: `experts` are replicated over other ranks than `dense`."""

    dense: int
    experts: int
    largest: int  # of a single tensor

    @property
    def total(self) -> int:
        """All of them."""
        return self.dense + self.experts


def stage_parameters(model: ModelConfig, layout: Layout, stage: int) -> Parameters:
    """Of a rank in pipeline stage `stage`: its layers, and embedding or head where they are."""
    layers = model.num_hidden_layers // layout.pipeline
    vocabulary = model.vocab_size // layout.tensor * model.hidden_size
    dense, largest = layers * _layer_dense(model, layout.tensor), 0
    if stage == 0:
        dense, largest = dense + vocabulary, vocabulary
    if stage == layout.pipeline - 1:
        is_second = stage == 0 and model.tie_word_embeddings
        dense, largest = dense + model.hidden_size + (0 if is_second else vocabulary), vocabulary
    expert = 3 * model.hidden_size * model.moe_intermediate_size // layout.expert_tensor
    queries = (model.num_attention_heads + 2 * model.num_key_value_heads) * model.head_dim // layout.tensor
    return Parameters(
        dense,
        layers * (model.num_experts // layout.expert) * expert,
        max(largest, 2 * expert // 3, queries * model.hidden_size),
    )


def _layer_dense(model: ModelConfig, tensor: int) -> int:
    """Attention, router, and the two norms of the stream and two of the heads."""
    queries, keys = model.num_attention_heads * model.head_dim, model.num_key_value_heads * model.head_dim
    attention = model.hidden_size * (2 * queries + 2 * keys) // tensor
    return attention + model.hidden_size * model.num_experts + 2 * model.hidden_size + 2 * model.head_dim


def model_parameters(model: ModelConfig) -> int:
    """Of the whole model, once."""
    return stage_parameters(model, Layout(1, 1, 1, 1, 1, 1), 0).total
