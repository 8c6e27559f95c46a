"""AdamW on megatron-core, with a state layout that its distributed optimizer can save."""

from typing import Any

import torch
from megatron.core.optimizer import MegatronOptimizer, get_megatron_optimizer
from megatron.core.optimizer import OptimizerConfig as MegatronOptimizerConfig
from torch.optim._functional import adamw

from acc_megatron.config import Config
from acc_megatron.model.precision import optimizer_fields
from acc_megatron.model.transformer_config import DTYPES


def build_optimizer(config: Config, chunks: list[torch.nn.Module]) -> MegatronOptimizer:
    """Megatron's optimizer for the model chunks; norms and one-dimensional parameters have no weight decay."""
    settings = config.optimizer
    if not torch.cuda.is_available():
        install_cpu_adamw()
    dtype = DTYPES[config.train.precision]
    optimizer = get_megatron_optimizer(
        MegatronOptimizerConfig(
            optimizer="adam" if settings.kind == "adamw" else "sgd",
            lr=settings.learning_rate,
            min_lr=settings.min_learning_rate,
            weight_decay=settings.weight_decay,
            adam_beta1=settings.adam_beta1,
            adam_beta2=settings.adam_beta2,
            adam_eps=settings.adam_eps,
            sgd_momentum=0.0,
            clip_grad=settings.clip_grad_norm,
            use_distributed_optimizer=config.parallel.distributed_optimizer,
            params_dtype=dtype,
            bf16=dtype is torch.bfloat16,
            **optimizer_fields(config.train.precision, config.fp8),
        ),
        chunks,
        use_gloo_process_groups=False,
    )
    if settings.kind == "sgd":  # has no state to make room for before a checkpoint is read, and Megatron calls None
        for part in optimizer.chained_optimizers:
            part.init_state_fn = lambda *_: None
    return optimizer


def set_learning_rate(optimizer: MegatronOptimizer, rate: float) -> None:
    """Give every parameter group the rate of this step."""
    for group in optimizer.param_groups:
        group["lr"] = rate


class FusedLayoutAdamW(torch.optim.Optimizer):
    """AdamW in torch operations with the state layout of TE's and apex's FusedAdam.

    'step' stands in the parameter group and each parameter has exp_avg and exp_avg_sq alone: the layout that
    Megatron's distributed optimizer can save and load, which torch.optim.AdamW's is not.
    """

    def __init__(self, params: Any, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 0.0, adam_w_mode: bool = True, **_: Any) -> None:  # fmt: skip
        assert adam_w_mode
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            group["step"] = group.get("step", 0) + 1
            params = [p for p in group["params"] if p.grad is not None]
            for p in params:
                if not self.state[p]:
                    self.state[p].update(exp_avg=torch.zeros_like(p), exp_avg_sq=torch.zeros_like(p))
            if not params:
                continue
            adamw(
                params,
                [p.grad for p in params],
                [self.state[p]["exp_avg"] for p in params],
                [self.state[p]["exp_avg_sq"] for p in params],
                [],
                [torch.tensor(float(group["step"] - 1)) for _ in params],
                foreach=False,
                amsgrad=False,
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                lr=group["lr"],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                maximize=False,
            )


def install_cpu_adamw() -> None:
    """Make Megatron use FusedLayoutAdamW and take its FusedAdam path in the distributed optimizer."""
    import megatron.core.optimizer as optimizer
    import megatron.core.optimizer.distrib_optimizer as distributed

    modules: tuple[Any, Any] = (optimizer, distributed)
    modules[0].Adam = FusedLayoutAdamW
    modules[0].USING_PYTORCH_OPTIMIZER = False
    modules[1].HAVE_APEX_OR_TE = True
    modules[1].USING_APEX_OPTIMIZER = True
    modules[1].USING_TE_OPTIMIZER = False
