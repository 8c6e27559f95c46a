"""The plan of a save, which says what each rank writes: made over all ranks once, and used again for equal tensors."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from megatron.core.dist_checkpointing.dict_utils import nested_values
from megatron.core.dist_checkpointing.mapping import ShardedStateDict, ShardedTensor, ShardedTensorFactory
from megatron.core.dist_checkpointing.strategies.state_dict_saver import save_state_dict_async_plan
from megatron.core.dist_checkpointing.strategies.torch import (
    MCoreSavePlanner,
    TorchDistSaveShardedStrategy,
    _replace_state_dict_keys_with_sharded_keys,
    mcore_to_pyt_state_dict,
)
from torch.distributed.checkpoint import Metadata, SavePlan
from torch.distributed.checkpoint.default_planner import _validate_global_plan, create_default_global_save_plan

from acc_megatron.checkpoint.optimizer_state import PREFIX
from acc_megatron.checkpoint.writer import RankWriter


@dataclass
class LastPlan:
    """The plan of a run's last save; empty before the first one."""

    tensors: list[object] = field(default_factory=list)  # what this rank had, without values
    own: SavePlan | None = None  # what this rank wrote
    metadata: Metadata | None = None  # of the complete checkpoint, on rank 0

    def holds_for(self, state: ShardedStateDict) -> bool:
        """Return whether every rank has the tensors of the last save, in the same places; collective.

        Otherwise the plan is forgotten, and the next one is that of these tensors.
        """
        tensors = [_without_values(entry) for entry in nested_values(state)]
        is_equal = self.own is not None and tensors == self.tensors
        everywhere = torch.tensor([int(is_equal)], device=torch.cuda.current_device())
        dist.all_reduce(everywhere, op=dist.ReduceOp.MIN)
        if not everywhere.item():
            self.tensors, self.own, self.metadata = tensors, None, None
        return self.own is not None


def _without_values(entry: Any) -> object:
    if isinstance(entry, ShardedTensor):
        return entry.without_data()
    if isinstance(entry, ShardedTensorFactory):
        return entry.key, entry.replica_id, entry.data.shape, entry.data.dtype
    return type(entry)


class _Planner(MCoreSavePlanner):
    """Checks that the chunks of the optimizer's tensors cover them once; Megatron has already checked the weights.

    torch compares every pair of chunks that a key has, which takes minutes for the weights of thousands of experts.
    """

    def create_global_plan(self, all_plans: list[SavePlan]) -> tuple[list[SavePlan], Metadata]:
        """Join the plans of all ranks; only the coordinator calls this."""
        plans, metadata = create_default_global_save_plan(all_plans)
        uneven = {key: entry for key, entry in metadata.state_dict_metadata.items() if key.startswith(PREFIX)}
        problems = _validate_global_plan(plans, Metadata(uneven))
        assert not problems, problems[:3]
        return plans, metadata


class PlanOnly(TorchDistSaveShardedStrategy):
    """Megatron's save strategy up to the plan; a RankWriter does the writing.

    With `is_known` the plan of the last save is used, and no rank waits for another one.
    """

    def __init__(self, writer: RankWriter, last: LastPlan, *, is_known: bool) -> None:
        super().__init__()
        self.writer, self.last, self.is_known = writer, last, is_known

    def async_save(self, sharded_state_dict: Any, checkpoint_dir: Any, async_strategy: str = "mcore") -> Any:
        """Plan, and give this rank's part to the writer."""
        keyed, _, _ = _replace_state_dict_keys_with_sharded_keys(sharded_state_dict, self.keep_only_main_replica)
        planner = _Planner(dedup_replicated_tensors=False, flatten_state_dict=False, flatten_sharded_tensors=False)
        known = (self.last.own, self.last.own, True) if self.is_known else None
        (_, metadata, _), own, *_ = save_state_dict_async_plan(
            mcore_to_pyt_state_dict(keyed, False), self.writer, None, 0, planner, known
        )
        if not self.is_known:
            self.last.own, self.last.metadata = own, metadata
        if metadata is not None:
            metadata.all_local_plans = None  # Megatron hangs the plans of all ranks here, and nobody reads them
        self.writer.metadata = self.last.metadata
        return SimpleNamespace(finalize_fns=[])
