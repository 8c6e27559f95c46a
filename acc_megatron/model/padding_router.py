"""Megatron's router with a padding mask whose balancing loss does not depend on the layout."""

from typing import Any

import torch
from megatron.core.transformer.moe.moe_utils import (
    get_tokens_per_expert_and_token_count,
    switch_load_balancing_loss_func,
)
from megatron.core.transformer.moe.router import TopKRouter


class PaddingRouter(TopKRouter):
    """TopKRouter whose balancing losses count the tokens of documents only.

    Megatron 0.19.2 weights each rank's part of the loss by that rank's own tokens without padding. The parts add up to
    the loss of a packed row only if every rank has equally many, so its gradient would depend on the layout. Here the
    weight is the mean over the ranks that share a row, as for rows without padding: the loss of a row weighs as many
    tokens as its documents have. A row without documents has no loss; Megatron would divide by its 0 tokens.
    """

    def forward(
        self, input: torch.Tensor, padding_mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return probabilities and choices `[tokens, experts]`.

        For FP8 the dispatcher writes padding into the choices, which Transformer Engine's fused router has saved for
        its backward pass: it gets a copy.
        """
        probs, routing_map = super().forward(input, padding_mask)
        is_written = self.config.moe_router_fusion and self.config.moe_router_padding_for_quantization
        return probs, routing_map.clone() if is_written else routing_map

    def _apply_aux_loss(
        self,
        probs: torch.Tensor,
        scores_for_aux_loss: torch.Tensor,
        routing_map: torch.Tensor,
        with_padding_mask: bool = False,
    ) -> torch.Tensor:
        coefficient = self.get_aux_loss_coeff("aux_loss")
        if not with_padding_mask or coefficient == 0:
            return super()._apply_aux_loss(probs, scores_for_aux_loss, routing_map, with_padding_mask)
        counts, tokens = self._counts(routing_map, self.tp_cp_group)
        loss = self._loss(scores_for_aux_loss, counts, tokens, coefficient)
        return self._attach(probs, loss, tokens, coefficient, "load_balancing_loss", self.tp_cp_group)

    def _apply_global_aux_loss(
        self,
        probs: torch.Tensor,
        scores_for_aux_loss: torch.Tensor,
        routing_map: torch.Tensor,
        with_padding_mask: bool = False,
    ) -> torch.Tensor:
        coefficient = self.get_aux_loss_coeff("global_aux_loss")
        if not with_padding_mask or coefficient == 0:
            return super()._apply_global_aux_loss(probs, scores_for_aux_loss, routing_map, with_padding_mask)
        counts, tokens = self._counts(routing_map, self.tp_dp_cp_group)
        self.global_tokens_per_expert += counts
        self.ga_steps += 1
        # the share of each expert in all microbatches so far, in units of this microbatch's tokens
        seen = self.global_tokens_per_expert.sum().clamp(min=1) / self.topk
        loss = self._loss(scores_for_aux_loss, self.global_tokens_per_expert * (tokens / seen), tokens, coefficient)
        return self._attach(probs, loss, tokens, coefficient, "global_load_balancing_loss", self.tp_dp_cp_group)

    def _counts(self, routing_map: torch.Tensor, group: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the choices of each expert `[experts]`, and the tokens without padding, over the ranks of a group."""
        counts, _, tokens = get_tokens_per_expert_and_token_count(
            routing_map=routing_map, reduce_group=group, topk=self.topk, with_padding_mask=True
        )
        return counts, tokens

    def _loss(
        self, scores: torch.Tensor, counts: torch.Tensor, tokens: torch.Tensor, coefficient: float
    ) -> torch.Tensor:
        """Return this rank's part of the loss; unfused, because Transformer Engine takes a whole number of tokens."""
        return switch_load_balancing_loss_func(
            probs=scores,
            tokens_per_expert=counts,
            total_num_tokens=tokens.clamp(min=1),
            topk=self.topk,
            num_experts=self.config.num_moe_experts,
            moe_aux_loss_coeff=coefficient,
        )

    def _attach(
        self, probs: torch.Tensor, loss: torch.Tensor, tokens: torch.Tensor, coefficient: float, name: str, group: Any
    ) -> torch.Tensor:
        return self.attach_and_log_load_balancing_loss(
            probs,
            coefficient,
            loss,
            name,
            group,
            needs_dp_avg=group is self.tp_cp_group,
            valid_token_count=tokens / group.size(),
        )
