"""AdamW in torch operations with a state layout that Megatron's distributed optimizer can save."""

from typing import Any

import torch
from torch.optim._functional import adamw


class FusedLayoutAdamW(torch.optim.Optimizer):
    """AdamW with the state layout of the FusedAdam of Transformer Engine and apex.

    The step number is stored in the parameter group, and each parameter has only exp_avg and exp_avg_sq.
    torch.optim.AdamW stores the step per parameter, which Megatron's distributed optimizer cannot save.
    """

    def __init__(self, params: Any, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 0.0, adam_w_mode: bool = True, **_: Any) -> None:  # fmt: skip
        assert adam_w_mode
        # Transformer Engine's FusedAdam reads bias_correction from the group of a checkpoint that it resumes
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "bias_correction": True}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            group["step"] = group.get("step", 0) + 1
            params = [p for p in group["params"] if p.grad is not None]
            for p in params:
                if not self.state[p]:
                    self.state[p].update(exp_avg=torch.zeros_like(p), exp_avg_sq=torch.zeros_like(p))
            if not params:
                continue
            first, second = ([self.state[p][name] for p in params] for name in ("exp_avg", "exp_avg_sq"))
            update(params, [p.grad for p in params], first, second, group)


def update(
    weights: list[torch.Tensor],
    gradients: list[torch.Tensor],
    first_moments: list[torch.Tensor],
    second_moments: list[torch.Tensor],
    group: dict[str, Any],
) -> None:
    """Update weights and moments in place with torch's AdamW and the settings of their group."""
    adamw(
        weights,
        gradients,
        first_moments,
        second_moments,
        [],
        [torch.tensor(float(group["step"] - 1)) for _ in weights],
        foreach=False,
        amsgrad=False,
        beta1=group["betas"][0],
        beta2=group["betas"][1],
        lr=group["lr"],
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        maximize=False,
    )


def install_cpu_adamw(kind: type[FusedLayoutAdamW] = FusedLayoutAdamW) -> None:
    """Make Megatron build `kind` and treat it as FusedAdam in the distributed optimizer; norms become float32 sums."""
    import megatron.core.optimizer as optimizer
    import megatron.core.optimizer.clip_grads as clip_grads
    import megatron.core.optimizer.distrib_optimizer as distributed

    modules: tuple[Any, Any] = (optimizer, distributed)
    modules[0].Adam = kind
    modules[0].USING_PYTORCH_OPTIMIZER = False
    modules[1].HAVE_APEX_OR_TE = True
    modules[1].USING_APEX_OPTIMIZER = True
    modules[1].USING_TE_OPTIMIZER = False
    clip_grads.l2_norm_impl = _norm


def _norm(
    chunk_size: int, noop_flag: Any, tensor_lists: list[list[torch.Tensor]], *_: Any
) -> tuple[torch.Tensor, None]:
    """The norm of all tensors of the first list, `[1]`; Megatron's own form rounds that of bfloat16 to bfloat16."""
    norms = [torch.norm(tensor.float()) for tensor in tensor_lists[0]]
    return torch.norm(torch.tensor(norms)).view(1), None
