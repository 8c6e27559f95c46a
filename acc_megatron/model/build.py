"""Building this rank's part of a model on megatron-core."""

from collections.abc import Iterator
from contextlib import contextmanager

from megatron.core import parallel_state
from megatron.core.models.gpt import GPTModel
from megatron.core.tensor_parallel import layers
from megatron.core.transformer.transformer_config import TransformerConfig

from acc_megatron.config import ModelConfig
from acc_megatron.model.families import FAMILIES
from acc_megatron.model.families.rope_scaling import frequencies
from acc_megatron.model.fp8.emulated_linear import Emulation
from acc_megatron.model.last_layer import with_suffix_layer


def build_chunks(
    model: ModelConfig,
    transformer: TransformerConfig,
    emulated: Emulation | None = None,
    *,
    has_suffix_layer: bool = False,
) -> list[GPTModel]:
    """Build the model chunks of this pipeline rank: several for a virtual pipeline, otherwise one.

    `emulated` is the FP8 to emulate where Transformer Engine is not available. With `has_suffix_layer` the last layer
    needs SuffixParams, and computes the rows in them only.
    """
    num_chunks = transformer.virtual_pipeline_model_parallel_size or 1
    stages = range(num_chunks) if num_chunks > 1 else (None,)
    return [
        build_model(
            model,
            transformer,
            first_stage=parallel_state.is_pipeline_first_stage(ignore_virtual=False, vp_stage=stage),
            last_stage=parallel_state.is_pipeline_last_stage(ignore_virtual=False, vp_stage=stage),
            vp_stage=stage,
            emulated=emulated,
            has_suffix_layer=has_suffix_layer,
        )
        for stage in stages
    ]


def build_model(
    model: ModelConfig,
    transformer: TransformerConfig,
    *,
    first_stage: bool = True,
    last_stage: bool = True,
    vp_stage: int | None = None,
    emulated: Emulation | None = None,
    has_suffix_layer: bool = False,
) -> GPTModel:
    """Build one chunk with megatron-core's initial weights.

    Expert parameters are marked `allreduce = False` in every layout, even if one process has all experts, so that the
    optimizer is always a (dense, expert) chain and checkpoints have the same structure.
    """
    block = FAMILIES[model.family].block_spec(transformer, vp_stage, emulated)
    with _output_layer_without_apex():
        built = GPTModel(
            transformer,
            with_suffix_layer(block) if has_suffix_layer and last_stage else block,
            vocab_size=model.vocab_size,
            max_sequence_length=model.window_tokens,
            pre_process=first_stage,
            post_process=last_stage,
            position_embedding_type="rope",
            rotary_base=model.rope_theta,
            share_embeddings_and_output_weights=model.tie_word_embeddings,
            parallel_output=True,
            vp_stage=vp_stage,
        )
    if last_stage:
        built.output_layer.gradient_accumulation_fusion = False  # the head adds the gradient of its weight itself
    if model.rope_scaling is not None:
        rotary = built.rotary_pos_emb
        rotary.inv_freq = frequencies(model).to(rotary.inv_freq.device)
    for name, parameter in built.named_parameters():
        if ".experts." in name:
            parameter.allreduce = False
    return built


@contextmanager
def _output_layer_without_apex() -> Iterator[None]:
    """Let Megatron build its own output layer next to Transformer Engine's layers that add to `main_grad`.

    It would ask for Apex, which none of our layers uses.
    """
    known = layers._grad_accum_fusion_available
    layers._grad_accum_fusion_available = True
    try:
        yield
    finally:
        layers._grad_accum_fusion_available = known
