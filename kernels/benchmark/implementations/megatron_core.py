"""Megatron-core's vocabulary-parallel cross entropy on full logits."""

import importlib

import torch
import torch.distributed as dist
import torch.nn.functional as F

from acc_megatron.kernels.benchmark.costs import Case, Cost, cost_of_full_logits
from acc_megatron.kernels.benchmark.implementation import Loss


class MegatronCore:
    """The unfused loss of megatron-core, in a process group of this process only."""

    name = "Megatron-core"
    package = "megatron-core"
    shards_vocabulary = True
    gradient_in_forward = False

    def load(self, device: str) -> Loss:
        """Needs megatron-core."""
        function = importlib.import_module("megatron.core.tensor_parallel.cross_entropy").vocab_parallel_cross_entropy

        def loss(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            if not dist.is_initialized():
                backend = "nccl" if device == "cuda" else "gloo"
                dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
            is_supervised = targets >= 0
            logits = F.linear(hidden, weight)[:, None]
            losses = function(logits, (targets * is_supervised)[:, None], tp_group=dist.group.WORLD)
            return (losses.squeeze(1) * is_supervised).sum()

        return loss

    def cost(self, case: Case) -> Cost:
        """Read in the source of megatron-core 0.19.2."""
        return cost_of_full_logits(case, bytes_held_per_logit=case.element_bytes + 4, pointwise_bytes_per_logit=40)
