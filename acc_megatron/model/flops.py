"""FLOPs of training in closed form, from the model's config only: no torch, no machine, no layout.

Counts matrix products only, a multiplication and an addition each as one, as in PaLM (arXiv 2204.02311, appendix B)
and in Megatron-LM's `num_floating_point_operations`. Attention is causal within each document: half of the square.
"""

from acc_megatron.config import ModelConfig
from acc_megatron.model.families import FAMILIES

BACKWARD_AND_FORWARD = 3  # the backward pass computes two products for each one forward: for the input and the weight


def attention_flops_per_squared_token(model: ModelConfig) -> int:
    """Return forward FLOPs of one layer's core attention, divided by the squared length of the document."""
    return FAMILIES[model.family].attention_flops_per_squared_token(model)


def forward_flops(model: ModelConfig, *, tokens: float, squared_tokens: float, head_tokens: float = 0) -> float:
    """Return forward FLOPs of documents with `tokens` in total; `squared_tokens` sums the square of each length.

    `head_tokens` is the number of tokens for which logits are computed: only the supervised ones with the masked
    head, all of them without.
    """
    layer = 2 * FAMILIES[model.family].active_layer_weights(model) * tokens
    layer += attention_flops_per_squared_token(model) * squared_tokens
    return model.num_hidden_layers * layer + 2 * model.hidden_size * model.vocab_size * head_tokens


def training_flops(model: ModelConfig, *, tokens: float, squared_tokens: float, head_tokens: float) -> float:
    """Return model FLOPs of a forward and a backward pass; recomputation to save memory is not counted."""
    forward = forward_flops(model, tokens=tokens, squared_tokens=squared_tokens, head_tokens=head_tokens)
    return BACKWARD_AND_FORWARD * forward
