"""Arithmetic of training in closed form, from the model's config alone: no torch, no machine, no layout.

Matrix products only, a multiplication and an addition each counted, as in PaLM (arXiv 2204.02311, appendix B) and in
Megatron-LM's `num_floating_point_operations`. Attention is causal inside each document: half of its square.
"""

from acc_megatron.config import ModelConfig

BACKWARD_AND_FORWARD = 3  # the backward pass multiplies every product twice: by the weight and by the input


def active_layer_weights(model: ModelConfig) -> int:
    """Weights of one layer that a token is multiplied by: attention, router, and its `num_experts_per_tok` experts."""
    queries = model.num_attention_heads * model.head_dim
    keys = model.num_key_value_heads * model.head_dim
    attention = model.hidden_size * (2 * queries + 2 * keys)
    experts = 3 * model.hidden_size * model.moe_intermediate_size * model.num_experts_per_tok
    return attention + experts + model.hidden_size * model.num_experts


def attention_flops_per_squared_token(model: ModelConfig) -> int:
    """Forward FLOPs of one layer's core attention for each l^2 of a document of l tokens: 4 x heads x head_dim / 2."""
    return 2 * model.num_attention_heads * model.head_dim


def forward_flops(model: ModelConfig, *, tokens: float, squared_tokens: float, head_tokens: float = 0) -> float:
    """Forward FLOPs of documents with `tokens` in all, `squared_tokens` the sum of each one's square.

    `head_tokens` reach the vocabulary: the supervised ones with the masked head, all in a plain model.
    """
    layer = 2 * active_layer_weights(model) * tokens + attention_flops_per_squared_token(model) * squared_tokens
    return model.num_hidden_layers * layer + 2 * model.hidden_size * model.vocab_size * head_tokens


def training_flops(model: ModelConfig, *, tokens: float, squared_tokens: float, head_tokens: float) -> float:
    """Model FLOPs of a forward and a backward pass; what is computed again to save memory is not counted."""
    forward = forward_flops(model, tokens=tokens, squared_tokens=squared_tokens, head_tokens=head_tokens)
    return BACKWARD_AND_FORWARD * forward
