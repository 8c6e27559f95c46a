"""Saving and loading checkpoints: written to a temporary folder, hashed, read back, and renamed when complete."""

import shutil
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import dist_checkpointing, parallel_state
from megatron.core.dist_checkpointing.core import CheckpointingConfig, save_config
from megatron.core.dist_checkpointing.mapping import ShardedStateDict
from megatron.core.optimizer import MegatronOptimizer

from acc_megatron.adapter.state import adapter_state, has_adapter, without_adapter
from acc_megatron.checkpoint.integrity import write_manifest
from acc_megatron.checkpoint.locate import CARRIED_FOLDER, STATE, point_latest, read_state
from acc_megatron.checkpoint.optimizer_state import SCALES, PlacedTensor, get_step, placed_tensors, set_step
from acc_megatron.checkpoint.rank_zero import on_rank_zero
from acc_megatron.checkpoint.replicas import share_out
from acc_megatron.checkpoint.save_plan import LastPlan, PlanOnly
from acc_megatron.checkpoint.scaled_state import load_scales, scale_tensors
from acc_megatron.checkpoint.writer import RankWriter
from acc_megatron.common.atomic_files import publish_folder, write_json
from acc_megatron.errors import CheckpointError

OPTIMIZER_STEP = "optimizer_step"


class Save:
    """A checkpoint that is being saved; `folder` appears complete, or not at all.

    Every method is collective over the world. `state` is stored as state.json; files in `carried` are copied to hf/.
    With `is_staged`, the tensors are copied first, so that training can continue until `finish`. Of chunks with an
    adapter only what the adapter trains is saved; `weights` replaces the weights of chunks. `last_plan` is used again
    if every rank has the same tensors, and is replaced otherwise.
    """

    def __init__(
        self,
        folder: Path,
        chunks: list[torch.nn.Module],
        optimizer: MegatronOptimizer | None,
        state: dict[str, Any],
        carried: Path | None = None,
        *,
        is_staged: bool = False,
        weights: ShardedStateDict | None = None,
        last_plan: LastPlan | None = None,
    ) -> None:
        self.folder, self.state, self.carried = folder, state, carried
        self._temporary = folder.with_name(f".{folder.name}.tmp")
        on_rank_zero(self._prepare, f"cannot prepare {self._temporary}")
        self._writer = RankWriter(self._temporary, is_staged=is_staged)
        tensors = weights or _sharded_state(chunks, optimizer, of_adapter=has_adapter(chunks))
        last_plan = last_plan or LastPlan()
        is_known = last_plan.holds_for(tensors)
        dist_checkpointing.save(
            tensors,
            str(self._temporary),
            PlanOnly(self._writer, last_plan, is_known=is_known),
            validate_access_integrity=not is_known,
            async_sharded_save=True,
            async_strategy="mcore",
        )
        self._writer.start()

    def is_written(self) -> bool:
        """Return whether every rank has written its part, or failed."""
        ended = torch.tensor([int(self._writer.has_ended())], device=torch.cuda.current_device())
        dist.all_reduce(ended, op=dist.ReduceOp.MIN)
        return bool(ended.item())

    def finish(self) -> None:
        """Wait for every rank, verify, publish, and update `latest`; CheckpointError on every rank if one failed.

        After a failure, nothing of this checkpoint remains, and `latest` names the previous one.
        """
        self._writer.wait()
        own = (self._writer.failure, self._writer.results, self._writer.files)
        gathered: list[Any] | None = [None] * dist.get_world_size() if dist.get_rank() == 0 else None
        dist.gather_object(own, gathered)
        on_rank_zero(lambda: self._publish(gathered or []), f"cannot save {self.folder}")

    def _prepare(self) -> None:
        shutil.rmtree(self._temporary, ignore_errors=True)
        self._temporary.mkdir(parents=True)

    def _publish(self, parts: list[Any]) -> None:
        try:
            failures = [f"rank {rank}: {failure}" for rank, (failure, _, _) in enumerate(parts) if failure]
            if failures:
                raise CheckpointError(f"cannot save {self.folder}: {failures[0]} ({len(failures)} ranks failed)")
            assert self._writer.metadata is not None
            self._writer.finish(self._writer.metadata, [results for _, results, _ in parts])
            save_config(CheckpointingConfig("torch_dist", 1), str(self._temporary))
            write_json(self._temporary / STATE, self.state)
            if self.carried is not None and self.carried.is_dir():
                shutil.copytree(self.carried, self._temporary / CARRIED_FOLDER)
            write_manifest(self._temporary, {name: entry for _, _, files in parts for name, entry in files.items()})
            publish_folder(self._temporary, self.folder)
        except (OSError, CheckpointError):
            shutil.rmtree(self._temporary, ignore_errors=True)
            raise
        point_latest(self.folder)


def save(
    folder: Path,
    chunks: list[torch.nn.Module],
    optimizer: MegatronOptimizer | None,
    state: dict[str, Any],
    carried: Path | None = None,
) -> None:
    """Save and wait; collective. Raises CheckpointError on every rank if writing fails on one."""
    Save(folder, chunks, optimizer, state, carried).finish()


def load(folder: Path, chunks: list[torch.nn.Module], optimizer: MegatronOptimizer | None) -> None:
    """Load weights, and the state of `optimizer` if it is given, saved in any layout; collective.

    A rank reads what it owns, and from files of another layout also what is stored next to it. Chunks with an adapter
    load it from a checkpoint of an adapter, and their base from any other one. Does not check the files: call `verify`
    first. Raises CheckpointError if `optimizer` is given and its state was not saved, or if the chunks have no adapter
    and the checkpoint is one.
    """
    if optimizer is not None and OPTIMIZER_STEP not in dist_checkpointing.load_common_state_dict(str(folder)):
        raise CheckpointError(
            f"{folder} has no optimizer state, or that of an older version: start a new run from its weights with "
            f"train.init_from={folder} and another train.run_dir"
        )
    of_adapter = "adapter" in read_state(folder)
    if of_adapter and not has_adapter(chunks):
        raise CheckpointError(
            f"{folder} is the checkpoint of an adapter, without the weights of its base: add them with "
            f"acc-megatron export {folder} --merge, and import the result"
        )
    state = _weights(chunks, of_adapter=of_adapter)
    placed = list(placed_tensors(optimizer, dict(state))) if optimizer is not None else []
    loaded = dist_checkpointing.load(state | _optimizer_part(optimizer, placed), str(folder))
    for number, chunk in enumerate(chunks):
        chunk.load_state_dict(loaded[f"model{number}"], strict=not has_adapter([chunk]))
    if optimizer is not None:  # its tensors were loaded in place
        load_scales(folder, placed)
        set_step(optimizer, loaded[OPTIMIZER_STEP])


def _sharded_state(
    chunks: list[torch.nn.Module], optimizer: MegatronOptimizer | None, *, of_adapter: bool
) -> dict[str, Any]:
    state = _weights(chunks, of_adapter=of_adapter)
    if optimizer is None:
        return state
    placed = list(placed_tensors(optimizer, dict(state)))
    # keys of scales depend on the layout, so only a save contains them here
    return state | _optimizer_part(optimizer, placed) | {SCALES: scale_tensors(placed)}


def _optimizer_part(optimizer: MegatronOptimizer | None, placed: list[PlacedTensor]) -> dict[str, Any]:
    if optimizer is None:
        return {}
    return {"optimizer": [box for entry in placed for box in entry.boxes], OPTIMIZER_STEP: get_step(optimizer)}


def _weights(chunks: list[torch.nn.Module], *, of_adapter: bool) -> dict[str, Any]:
    metadata = {"dp_cp_group": parallel_state.get_data_parallel_group(with_context_parallel=True)}
    # nested by chunk, because the chunks of a virtual pipeline have equal keys
    state: dict[str, Any] = {
        f"model{number}": adapter_state(chunk)
        if of_adapter
        else without_adapter(chunk.sharded_state_dict(metadata=metadata))  # type: ignore[operator]
        for number, chunk in enumerate(chunks)
    }
    share_out(state)
    return state
