"""Qwen3-MoE on megatron-core: this rank's chunks of the model."""

from megatron.core import parallel_state
from megatron.core.models.gpt import GPTModel
from megatron.core.transformer.transformer_config import TransformerConfig

from acc_megatron.config import ModelConfig
from acc_megatron.model.fp8_linear import Emulation
from acc_megatron.model.spec import block_spec


def build_chunks(
    model: ModelConfig, transformer: TransformerConfig, emulated: Emulation | None = None
) -> list[GPTModel]:
    """The model chunks of this pipeline rank, one unless the pipeline is virtual; FP8 is emulated where TE is not."""
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
) -> GPTModel:
    """This rank's part of the model, with megatron-core's initial weights.

    Expert parameters are marked `allreduce = False` in every layout, also where one process holds them all, so
    that the optimizer is always a (dense, expert) chain and checkpoints have one structure.
    """
    built = GPTModel(
        transformer,
        block_spec(transformer, vp_stage, emulated),
        vocab_size=model.vocab_size,
        max_sequence_length=model.max_position_embeddings,
        pre_process=first_stage,
        post_process=last_stage,
        position_embedding_type="rope",
        rotary_base=model.rope_theta,
        share_embeddings_and_output_weights=model.tie_word_embeddings,
        parallel_output=True,
        vp_stage=vp_stage,
    )
    for name, parameter in built.named_parameters():
        if ".experts." in name:
            parameter.allreduce = False
    return built
