"""Whether model, data and batch divide over the layout, and which parallel settings work together."""

import math

from acc_megatron.config import Config
from acc_megatron.errors import ConfigError
from acc_megatron.mesh.layout import Layout
from acc_megatron.model.divisibility import check_divisions, check_model_divides
from acc_megatron.model.families.family import Division


def check_divides(config: Config, layout: Layout) -> None:
    """Raise ConfigError if model, packed rows or batch do not divide over the layout, with the division."""
    model, row, multiple = config.model, config.data.seq_length_tokens, config.data.document_multiple_tokens
    positive = [
        ("data.seq_length_tokens", row),
        ("data.document_multiple_tokens", multiple),
        ("train.global_batch_rows", config.train.global_batch_rows),
        ("train.epochs", config.train.epochs),
        ("train.keep_checkpoints", config.train.keep_checkpoints),
        ("observe.print_every_steps", config.observe.print_every_steps),
    ]
    for name, value in positive:
        if value < 1:
            raise ConfigError(f"{name} = {value} must be at least 1")
    check_model_divides(model, config.parallel.virtual_pipeline, layout)
    axes = layout.context * layout.tensor
    check_divisions(
        [
            Division("data.document_multiple_tokens", multiple, "2 x parallel.context", layout.num_chunks),
            Division("data.seq_length_tokens", row, "data.document_multiple_tokens", multiple),
            Division("data.seq_length_tokens", row, "parallel.context x parallel.tensor", axes),
            Division(
                "train.global_batch_rows",
                config.train.global_batch_rows,
                "the number of data-parallel ranks",
                layout.data,
            ),
        ]
    )
    if row > model.window_tokens:
        window, scaling = model.window_tokens, model.rope_scaling
        limit = "model.rope_scaling.factor x original_max_position_embeddings" if scaling else ""
        limit = limit if window > model.max_position_embeddings else "model.max_position_embeddings"
        advice = "" if scaling else "; [model.rope_scaling] can extend it: acc-megatron recipe --yarn writes it"
        raise ConfigError(f"data.seq_length_tokens = {row} exceeds {limit} = {window}{advice}")


def check_parallel(config: Config, layout: Layout) -> None:
    """Raise ConfigError for parallel settings that do not work together."""
    p = config.parallel
    if p.virtual_pipeline > 1 and layout.pipeline == 1:
        raise ConfigError(f"parallel.virtual_pipeline = {p.virtual_pipeline} needs parallel.pipeline > 1")
    microbatches = config.train.global_batch_rows // layout.data
    if p.virtual_pipeline > 1 and microbatches % layout.pipeline:
        raise ConfigError(
            f"parallel.virtual_pipeline needs a number of microbatches that is a multiple of parallel.pipeline = "
            f"{layout.pipeline}; train.global_batch_rows = {config.train.global_batch_rows} over {layout.data} "
            f"data-parallel ranks gives {microbatches} microbatches"
        )
    if p.overlap_param_gather and not (p.distributed_optimizer and p.overlap_grad_reduce):
        raise ConfigError(
            "parallel.overlap_param_gather needs parallel.distributed_optimizer and parallel.overlap_grad_reduce"
        )
    is_hierarchical = p.context_communication == "a2a+p2p"
    if is_hierarchical != bool(p.hierarchical_context):
        raise ConfigError(
            "parallel.context_communication = 'a2a+p2p' and parallel.hierarchical_context must be set together"
        )
    product = math.prod(p.hierarchical_context)
    if is_hierarchical and product != layout.context:
        sizes = " x ".join(map(str, p.hierarchical_context))
        raise ConfigError(
            f"parallel.hierarchical_context {sizes} = {product} must equal parallel.context = {layout.context}"
        )
    heads = config.model.num_key_value_heads // layout.tensor
    if p.context_communication == "a2a" and heads % layout.context:
        raise ConfigError(
            f"parallel.context_communication = 'a2a' splits heads: model.num_key_value_heads "
            f"{config.model.num_key_value_heads} / tp {layout.tensor} = {heads} is not a multiple of "
            f"cp {layout.context}"
        )
