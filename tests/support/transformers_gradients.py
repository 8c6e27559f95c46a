"""Loss, gradients and training of a recipe by transformers in float64: no code of ours but the loader of the rows."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Balancing:
    """Coefficients of the balancing loss and of the z-loss."""

    loss: float = 0.0
    z_loss: float = 0.0
    last_layer_supervised: bool = False  # the last layer's losses are those of its supervised tokens


NONE = Balancing()


def float64_gradients(
    recipe: Path,
    wrap: Callable[[Any], Any] | None = None,
    *,
    balancing: Balancing = NONE,
    overrides: Sequence[str] = (),
) -> tuple[float, dict[str, torch.Tensor]]:
    """Return the mean loss of a supervised token in the first batch, and gradients by name, balancing included.

    `wrap` can add an adapter to the model.
    """
    reference = Reference(recipe, overrides)
    if wrap is not None:
        reference.model = wrap(reference.model)
    return reference.backward(0, balancing)


def float64_training(
    recipe: Path, overrides: Sequence[str], num_steps: int, out: Path, balancing: Balancing
) -> list[float]:
    """Train with torch's AdamW, write the weights to the Hugging Face folder `out`, and return the loss of each step.

    Matrices get weight decay, vectors do not; the rate rises linearly and then falls along half a cosine.
    """
    reference = Reference(recipe, overrides)
    settings, model = reference.config.optimizer, reference.model
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
        betas=(settings.adam_beta1, settings.adam_beta2),
        eps=settings.adam_eps,
    )
    train = reference.config.train
    last = math.ceil(train.epochs * len(reference.loader.rows) / train.global_batch_rows) - 1
    warmup = math.ceil(settings.warmup_fraction * (last + 1))
    losses = []
    for step in range(num_steps):
        optimizer.zero_grad()
        losses.append(reference.backward(step, balancing)[0])
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_grad_norm)
        high, low = settings.learning_rate, settings.min_learning_rate
        fall = (1 + math.cos(math.pi * (step - warmup) / (last - warmup))) / 2
        for group in optimizer.param_groups:
            group["lr"] = high * (step + 1) / warmup if step < warmup else low + (high - low) * fall
        optimizer.step()
    model.float().save_pretrained(out)
    return losses


class Reference:
    """The model in the folder `hf` of a recipe, and the packed rows of the recipe."""

    def __init__(self, recipe: Path, overrides: Sequence[str] = ()) -> None:
        from transformers import AutoModelForCausalLM

        from acc_megatron.config import load_config
        from acc_megatron.data.loader import Loader
        from acc_megatron.data_tools.convert.dataset_folder import open_dataset
        from acc_megatron.mesh.layout import Layout

        self.config = load_config(recipe, overrides)
        self._data = open_dataset(Path(self.config.data.path))
        self.loader = Loader(self._data, self.config.data, self.config.model, Layout(), self.config.train.seed)
        options = {"experts_implementation": "eager"} if self.config.model.num_experts else {}
        self.model: Any = AutoModelForCausalLM.from_pretrained(recipe.parent / "hf", **options).double()

    def backward(self, step: int, balancing: Balancing) -> tuple[float, dict[str, torch.Tensor]]:
        """Return the mean loss of a supervised token in a batch, and the gradients by name.

        The gradients are those of the loss plus the balancing losses of all layers, each the mean over the tokens of
        the documents: of each packed row's balancing loss (arXiv 2101.03961), and of the squared log-sum-exp. A last
        layer with the losses of its supervised tokens gives each of them the weight of a token of another layer.
        """
        config, routes = self.config, {"output_router_logits": True} if balancing != NONE else {}
        loss_sum, count, balance, num_tokens = torch.zeros((), dtype=torch.float64), 0, torch.zeros(()), 0
        for number in self.loader.batch(step, config.train.global_batch_rows, config.train.epochs):
            routed, is_supervised = [], []
            for document in self.loader.rows[number] if number >= 0 else ():
                ids, mask = (torch.from_numpy(array.astype("int64")) for array in self._data.document(document))
                before = (mask[1:] == 1).nonzero()[:, 0]  # places of the tokens before supervised ones
                output = self.model(ids[None], logits_to_keep=before, **routes)
                log_probability = output.logits[0].log_softmax(-1)
                loss_sum = loss_sum - log_probability.gather(1, ids[before + 1, None]).sum()
                count += len(before)
                num_tokens += len(ids)
                if routes:
                    routed.append(torch.stack(output.router_logits))
                    is_supervised.append(torch.zeros(len(ids), dtype=torch.bool).index_fill(0, before, True))
            layers = list(torch.cat(routed, 1)) if routed else []  # [tokens, experts] each
            if routed and balancing.last_layer_supervised:
                layers[-1] = layers[-1][torch.cat(is_supervised)]
            for logits in layers:
                row = balancing.loss * _switch_loss(logits, config.model.num_experts_per_tok)
                row = row + balancing.z_loss * logits.logsumexp(-1).square().mean()
                balance = balance + len(logits) * row
        (loss_sum / count + balance / max(1, num_tokens)).backward()
        gradients = {name: p.grad for name, p in self.model.named_parameters() if p.grad is not None}
        return float(loss_sum) / count, gradients


def _switch_loss(logits: torch.Tensor, topk: int) -> torch.Tensor:
    """Experts x sum over experts of (share of all choices) x (mean probability)."""
    probability = logits.softmax(-1)
    choices = torch.zeros_like(probability).scatter(1, probability.topk(topk, -1).indices, 1.0)
    return logits.shape[1] * (choices.mean(0) / topk * probability.mean(0)).sum()
