"""Parameters of a pipeline stage on one rank by formula; a test compares them with `real_model.py`."""

from dataclasses import dataclass

from acc_megatron.config import ModelConfig
from acc_megatron.mesh.layout import Layout
from acc_megatron.model.families import FAMILIES


@dataclass(frozen=True, slots=True)
class Parameters:
    """Numbers of parameters on one rank. Expert and dense parameters are replicated over different groups of ranks."""

    dense: int
    experts: int
    largest: int  # of a single tensor

    @property
    def total(self) -> int:
        """Dense and expert parameters."""
        return self.dense + self.experts


def stage_parameters(model: ModelConfig, layout: Layout, stage: int) -> Parameters:
    """Parameters of a rank in pipeline stage `stage`: its layers, and embedding or head if the stage has them."""
    layers = model.num_hidden_layers // layout.pipeline
    vocabulary = model.vocab_size // layout.tensor * model.hidden_size
    layer = FAMILIES[model.family].layer_parameters(model, layout)
    dense, largest = layers * layer.dense, layer.largest
    if stage == 0:
        dense, largest = dense + vocabulary, max(largest, vocabulary)
    if stage == layout.pipeline - 1:
        is_second = stage == 0 and model.tie_word_embeddings
        dense, largest = dense + model.hidden_size + (0 if is_second else vocabulary), max(largest, vocabulary)
    return Parameters(dense, layers * layer.experts, largest)
