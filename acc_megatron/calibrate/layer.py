"""One layer of the model that training builds, whose parts are measured."""

from dataclasses import replace
from typing import Any

import torch
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.transformer.enums import AttnMaskType

from acc_megatron.config import Config, MemoryConfig, ParallelConfig
from acc_megatron.mesh.layout import Layout
from acc_megatron.model.build import build_chunks
from acc_megatron.model.transformer_config import training_config


class Layer:
    """A layer with all experts on this rank, in the layer spec of this machine."""

    def __init__(self, config: Config) -> None:
        model = replace(config.model, num_hidden_layers=1, vocab_size=256)
        config = replace(config, model=model, parallel=ParallelConfig(), memory=MemoryConfig())
        transformer = training_config(config, Layout())
        transformer.gradient_accumulation_fusion = False  # the measured layer has no gradient buffers
        chunk: Any = build_chunks(model, transformer)[0].to(torch.cuda.current_device())
        self._rotary = chunk.rotary_pos_emb
        self._layer = chunk.decoder.layers[0].to(transformer.params_dtype)
        self.experts: Any = getattr(self._layer.mlp, "experts", None)
        self.weights = [weight for weight in self._layer.parameters() if weight.requires_grad]

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Attention of one document: `[tokens, heads, head_dim]`, keys and values `[tokens, key_heads, head_dim]`."""
        result = self._layer.self_attention.core_attention(
            query,
            key,
            value,
            None,
            attn_mask_type=AttnMaskType.padding_causal,
            packed_seq_params=_one(len(query), query),
        )
        assert isinstance(result, torch.Tensor)
        return result

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """The complete layer on one document: `[tokens, 1, hidden]`."""
        rotary = self._rotary(len(hidden), packed_seq=True)
        return self._layer(hidden, None, rotary_pos_emb=rotary, packed_seq_params=_one(len(hidden), hidden))[0]


def _one(tokens: int, like: torch.Tensor) -> PackedSeqParams:
    bounds = torch.tensor([0, tokens], dtype=torch.int32, device=like.device)
    return PackedSeqParams(
        qkv_format="thd", cu_seqlens_q=bounds, cu_seqlens_kv=bounds, max_seqlen_q=tokens, max_seqlen_kv=tokens
    )


def both_passes(output: torch.Tensor, inputs: list[torch.Tensor]) -> None:
    """Run the backward pass of `output` without keeping gradients."""
    torch.autograd.grad(output, inputs, torch.ones_like(output), allow_unused=True)
