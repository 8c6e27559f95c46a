"""The optimizer's state in a checkpoint: every rank writes what it owns, without communication or copies.

With the distributed optimizer a rank owns ranges of flattened parameters. Each range is stored as boxes of its
parameter, so a rank of any other layout reads the boxes that overlap with its own. One parameter of one layer and
expert has one key: Megatron's stacked keys would compare every expert of every layer with every other.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import torch
from megatron.core.dist_checkpointing.dict_utils import nested_values
from megatron.core.dist_checkpointing.mapping import ShardedStateDict, ShardedTensor, ShardedTensorFactory
from megatron.core.optimizer import MegatronOptimizer
from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer
from megatron.core.optimizer.optimizer import Float16OptimizerWithFloat16Params

from acc_megatron.checkpoint.boxes import Index, boxes

PREFIX, SCALES = "optimizer_shards", "optimizer_scales"
# names of the weights that the optimizer updates, by how they are stored
WEIGHTS = {torch.float32: "fp32_param", torch.int16: "param_remainder", torch.float16: "fp16_param"}


@dataclass(frozen=True)
class OwnedRange:
    """The part of a parameter's optimizer state that this rank has; changing `tensors` changes the optimizer."""

    parameter: torch.nn.Parameter
    start: int  # first element of the flattened parameter
    is_sharded: bool  # the other replicas have other ranges, not the same one
    # flat [elements], by name: exp_avg, exp_avg_sq, and the weights in one of WEIGHTS
    tensors: dict[str, torch.Tensor]
    scales: dict[str, torch.Tensor]  # [1], of tensors in fp8 or float16


@dataclass(frozen=True)
class PlacedTensor:
    """One tensor of the state of one range: its values, their scale if they have one, and its boxes in a checkpoint."""

    flat: torch.Tensor
    scale: torch.Tensor | None
    boxes: list[ShardedTensor]


def placed_tensors(optimizer: MegatronOptimizer, weights: ShardedStateDict) -> Iterator[PlacedTensor]:
    """Yield this rank's optimizer state, placed in the parameters whose places in the checkpoint are in `weights`.

    The boxes are views: loading into them changes the optimizer. State that does not exist yet becomes zero.
    """
    places = {entry.data: entry for entry in nested_values(weights) if isinstance(entry.data, torch.Tensor)}
    for owned in _owned_ranges(optimizer):
        for name, flat in owned.tensors.items():
            boxes_of_name = list(_place(owned, name, flat, places[owned.parameter]))
            yield PlacedTensor(flat, owned.scales.get(name), boxes_of_name)


def get_step(optimizer: MegatronOptimizer) -> int:
    """Return the number of updates, which the bias correction of AdamW needs; 0 if the optimizer does not count."""
    counts = [holder["step"] for part in _parts(optimizer) for holder in _step_holders(part) if "step" in holder]
    return max((int(count) for count in counts), default=0)


def set_step(optimizer: MegatronOptimizer, step: int) -> None:
    """Set the number of updates of every parameter group."""
    for part in _parts(optimizer):
        for group in _groups(part) if step else ():
            group["step"] = step
        for state in part.optimizer.state.values():
            if "step" in state:  # torch's AdamW counts by parameter
                state["step"] = torch.full_like(state["step"], step)


def _parts(optimizer: MegatronOptimizer) -> list[Any]:
    """Return the optimizers of dense and expert parameters that have parameters on this rank."""
    parts = getattr(optimizer, "chained_optimizers", [optimizer])
    return [part for part in parts if not getattr(part, "is_stub_optimizer", False)]


def _step_holders(part: Any) -> Iterator[dict[str, Any]]:
    yield from (group for group in _groups(part) if group["params"])
    yield from part.optimizer.state.values()


def _groups(part: Any) -> list[dict[str, Any]]:
    """Return the groups that count updates. Megatron's hybrid optimizer copies its own groups over those of its parts
    before every update, so a count in them would never move on.
    """
    inner = getattr(part.optimizer, "sub_optimizers", [part.optimizer])
    return [group for each in inner for group in each.param_groups]


def _owned_ranges(optimizer: MegatronOptimizer) -> Iterator[OwnedRange]:
    for part in _parts(optimizer):
        is_sharded = isinstance(part, DistributedOptimizer)
        if not part.optimizer.state:
            _allocate(part)
        for parameter, main, start in _sharded_parameters(part) if is_sharded else _whole_parameters(part):
            state = part.optimizer.state.get(main, {})
            tensors = {name: value for name, value in state.items() if torch.is_tensor(value) and value.ndim}
            scales = {name: scale for name, value in tensors.items() if (scale := _scale(part, main, name)) is not None}
            if parameter.dtype is not torch.float32 and "master_param" not in tensors:
                tensors["master_param"] = main.detach()
            # Transformer Engine's tensor in fp8 has its bytes in _data
            flat = {name: getattr(value, "_data", value).view(-1) for name, value in tensors.items()}
            if "master_param" in flat:
                weights = flat.pop("master_param")
                name = WEIGHTS[weights.dtype]
                flat[name] = weights
                scales |= {name: scales.pop("master_param")} if "master_param" in scales else {}
            yield OwnedRange(parameter, start, is_sharded, flat, scales)


def _scale(part: Any, main: torch.Tensor, name: str) -> torch.Tensor | None:
    """Return the factor that the values of a tensor in fp8 or float16 are stored without."""
    value = part.optimizer.state[main][name]
    if hasattr(value, "_scale_inv"):
        return value._scale_inv
    if value.dtype in (torch.uint8, torch.float16):
        return part.optimizer._scales[main][name]
    return None


def _allocate(part: Any) -> None:
    """Create the state, which the optimizer itself creates in its first update."""
    if hasattr(part.optimizer, "sub_optimizers"):
        _allocate_offloaded(part.optimizer)
        return
    if hasattr(part.optimizer, "initialize_state") and part.config.use_precision_aware_optimizer:
        for group in part.optimizer.param_groups:
            for main in group["params"]:
                part.optimizer.initialize_state(main, part.optimizer.store_param_remainders)
        return
    if isinstance(part, DistributedOptimizer):
        part.load_state_dict(part.state_dict())
    else:
        part.init_state_fn(part.optimizer, part.config)
    for state in part.optimizer.state.values():
        for value in state.values():
            if torch.is_tensor(value):
                value.zero_()


def _allocate_offloaded(optimizer: Any) -> None:
    """Create the state of Megatron's hybrid optimizer, whose parts on GPU and CPU share it with the whole."""
    for inner in optimizer.sub_optimizers:
        is_torch = isinstance(inner, torch.optim.AdamW)  # counts updates by parameter
        for group in inner.param_groups:
            for main in group["params"]:
                moments = {name: torch.zeros_like(main) for name in ("exp_avg", "exp_avg_sq")}
                inner.state[main] = {"step": torch.zeros(())} | moments if is_torch else moments
    optimizer._sync_sub_optimizers_state_to_hdo()


def _sharded_parameters(part: DistributedOptimizer) -> Iterator[tuple[torch.nn.Parameter, torch.Tensor, int]]:
    """Yield each parameter with the float32 weights of this rank's range, and the start of the range."""
    for parameter in part.model_param_gbuf_map:
        group, order = part.model_param_group_index_map[parameter]
        main = part.optimizer.param_groups[group]["params"][order]
        yield parameter, main, part._get_model_param_range_map(parameter)["param"].start


def _whole_parameters(part: Any) -> Iterator[tuple[torch.nn.Parameter, torch.Tensor, int]]:
    """Yield each parameter with its float32 weights, which are the parameter itself if it is float32."""
    if isinstance(part, Float16OptimizerWithFloat16Params):
        mains = chain(*part.fp32_from_float16_groups, *part.fp32_from_fp32_groups)
        for parameter, main in zip(chain(*part.float16_groups, *part.fp32_from_fp32_groups), mains, strict=True):
            yield parameter, main, 0
    else:
        yield from ((parameter, parameter, 0) for parameter in part.get_parameters())


def _place(
    owned: OwnedRange, name: str, flat: torch.Tensor, whole: ShardedTensor | ShardedTensorFactory
) -> Iterator[ShardedTensor]:
    """Yield the boxes of a tensor of a range; a factory stores a parameter in several parts, such as gate and up."""
    shape = torch.empty(owned.parameter.shape, device="meta")
    if isinstance(whole, ShardedTensorFactory):
        parts = [(part, part.data.storage_offset()) for part in nested_values([replace(whole, data=shape).build()])]
    else:
        parts = [(whole, 0)]
    for part, first in parts:  # `first` is the part's first element in the flattened parameter
        start = max(owned.start - first, 0)
        stop = min(owned.start + flat.numel() - first, math.prod(part.local_shape))
        taken = first + start - owned.start
        for offset, size in boxes(tuple(part.local_shape), start, stop):
            data = flat[taken : taken + math.prod(size)].view(size)
            taken += data.numel()
            yield _box(part, name, data, offset, is_sharded=owned.is_sharded)


def _box(part: ShardedTensor, name: str, data: torch.Tensor, offset: Index, *, is_sharded: bool) -> ShardedTensor:
    stacked = part.prepend_axis_num  # layer and expert, which become part of the key
    place = part.global_offset[stacked:]
    return ShardedTensor(
        key=".".join([PREFIX, name, part.key, *map(str, part.global_offset[:stacked])]),
        data=data,
        dtype=data.dtype,
        local_shape=tuple(data.shape),
        global_shape=part.global_shape[stacked:],
        global_offset=tuple(first + inside for first, inside in zip(place, offset, strict=True)),
        axis_fragmentations=None,
        replica_id=(*part.replica_id[:2], 0) if is_sharded else part.replica_id,
    )
