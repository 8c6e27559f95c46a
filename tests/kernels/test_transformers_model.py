"""`apply_to` on a small model of transformers, compared with the same model without it."""

import copy
from typing import Any

import pytest
import torch

from acc_megatron.errors import ArgumentError
from acc_megatron.kernels.masked_linear_cross_entropy import reference
from acc_megatron.kernels.masked_linear_cross_entropy.transformers_model import apply_to


@pytest.fixture(scope="module")
def stock() -> Any:
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    torch.manual_seed(0)
    config = Qwen3MoeConfig(
        vocab_size=101,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=16,
        output_router_logits=True,
    )
    return Qwen3MoeForCausalLM(config)


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 101, (2, 24), generator=generator)
    labels = tokens.clone()
    labels[0, :20] = -100
    labels[1, :15] = -100
    return {"input_ids": tokens, "labels": labels}


@pytest.mark.parametrize("num_items_in_batch", [None, 40, torch.tensor(40)])
def test_loss_and_gradients_are_those_of_the_model_and_only_supervised_rows_reach_the_head(
    stock: Any, batch: dict[str, torch.Tensor], num_items_in_batch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    num_rows = []
    statistics = reference.head_statistics

    def counted(rows: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        num_rows.append(len(rows))
        return statistics(rows, *args, **kwargs)

    monkeypatch.setattr(reference, "head_statistics", counted)
    options = {} if num_items_in_batch is None else {"num_items_in_batch": num_items_in_batch}
    plain, masked = copy.deepcopy(stock), copy.deepcopy(stock)
    apply_to(masked)
    want, got = plain(**batch, **options), masked(**batch, **options)
    want.loss.backward()
    got.loss.backward()
    assert num_rows == [4 + 9] and got.logits is None
    torch.testing.assert_close(got.loss, want.loss, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(got.aux_loss, want.aux_loss)
    for (name, own), other in zip(masked.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad, rtol=1e-5, atol=1e-6, msg=name)


def test_labels_that_are_already_shifted_and_calls_without_labels_work(
    stock: Any, batch: dict[str, torch.Tensor]
) -> None:
    masked = copy.deepcopy(stock)
    apply_to(masked)
    shifted = torch.nn.functional.pad(batch["labels"], (0, 1), value=-100)[:, 1:]
    want = masked(**batch).loss
    got = masked(input_ids=batch["input_ids"], labels=shifted, shift_labels=shifted).loss
    torch.testing.assert_close(got, want)
    inputs = {"input_ids": batch["input_ids"]}
    assert torch.equal(masked(**inputs).logits, stock(**inputs).logits)


def test_a_model_that_changes_its_logits_and_a_head_with_bias_are_refused(
    stock: Any, batch: dict[str, torch.Tensor]
) -> None:
    capped = copy.deepcopy(stock)
    capped.lm_head.register_forward_hook(lambda module, args, output: 30 * torch.tanh(output / 30))
    apply_to(capped)
    with pytest.raises(ArgumentError, match="changes its logits before the loss"):
        capped(**batch)
    biased = copy.deepcopy(stock)
    biased.lm_head = torch.nn.Linear(32, 101)
    with pytest.raises(ArgumentError, match=r"output layer of Qwen3MoeForCausalLM is Linear\(.*bias=True\)"):
        apply_to(biased)
