"""The sizes that are measured: those of one layer of a recipe, at three numbers of tokens."""

from dataclasses import dataclass

import torch

from acc_megatron.config import Config
from acc_megatron.model.transformer_config import DTYPES


@dataclass(frozen=True, slots=True, kw_only=True)
class Shapes:
    """Sizes of the model's tensors on one rank without parallelism."""

    config: Config
    tokens: tuple[int, ...]  # increasing; the last is a packed row
    hidden: int
    heads: int
    key_heads: int
    head_dim: int
    experts: int  # 1 for a model without experts
    experts_per_token: int
    expert_ffn: int
    dtype: torch.dtype
    device: torch.device | int

    @property
    def element_bytes(self) -> int:
        """Bytes of one element."""
        return self.dtype.itemsize

    def random(self, *sizes: int, requires_grad: bool = False) -> torch.Tensor:
        """A tensor of random numbers."""
        return torch.randn(*sizes, dtype=self.dtype, device=self.device, requires_grad=requires_grad)

    def expert_tokens(self, tokens: int) -> int:
        """Tokens of one expert for `tokens` of a row."""
        return max(1, tokens * self.experts_per_token // self.experts)


def shapes_of(config: Config) -> Shapes:
    """The sizes of a recipe's layer, at a sixteenth, a quarter and all tokens of a packed row."""
    model, row = config.model, config.data.seq_length_tokens
    experts = max(1, model.num_experts)
    return Shapes(
        config=config,
        tokens=(row // 16, row // 4, row),
        hidden=model.hidden_size,
        heads=model.num_attention_heads,
        key_heads=model.num_key_value_heads,
        head_dim=model.head_dim,
        experts=experts,
        experts_per_token=max(1, model.num_experts_per_tok),
        expert_ffn=model.moe_intermediate_size,
        dtype=DTYPES[config.train.precision],
        device=torch.cuda.current_device(),
    )
