"""Number of parameters of a full model by formula."""

from acc_megatron.config import ModelConfig
from acc_megatron.mesh.layout import Layout
from acc_megatron.model.families import FAMILIES


def num_parameters(model: ModelConfig) -> int:
    """Count all parameters: layers, embedding, output head (unless it is the embedding) and the last norm."""
    layer = FAMILIES[model.family].layer_parameters(model, Layout())
    num_matrices = 1 if model.tie_word_embeddings else 2
    return (
        model.num_hidden_layers * (layer.dense + layer.experts)
        + num_matrices * model.vocab_size * model.hidden_size
        + model.hidden_size
    )


def short_count(number: float) -> str:
    """Write a count with three digits and a unit: 9.86 M, 30.5 B."""
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.0f}"
