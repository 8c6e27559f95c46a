"""The base below an adapter: loading it, its hash, and refusing a checkpoint of another base or adapter."""

from pathlib import Path
from typing import Any

from acc_megatron.adapter.fingerprint import fingerprint
from acc_megatron.adapter.parts import targets, trained_parts
from acc_megatron.checkpoint import integrity, locate, store
from acc_megatron.config import Config
from acc_megatron.errors import CheckpointError
from acc_megatron.mesh.process_groups import own_ranks
from acc_megatron.mesh.torchrun_environment import say
from acc_megatron.training.trainer import Trainer


def adapter_entries(trainer: Trainer) -> dict[str, Any]:
    """Return what a checkpoint says of its adapter and of the base; nothing without an adapter."""
    if not trainer.config.adapter.rank:
        return {}
    base = {"sha256": trainer.base_sha256, "checkpoint": trainer.config.train.init_from}
    return {"adapter": _description(trainer.config), "base": base}


def hash_base(trainer: Trainer) -> None:
    """Compute the hash of the base's weights; collective, call it before an adapter's own weights are loaded."""
    trainer.base_sha256 = fingerprint(trainer.config.model, trainer.layout, own_ranks(), trainer.models)


def load_initial_factors(trainer: Trainer) -> None:
    """Load the factors that adapter.init_from names, if there are some; collective."""
    if trainer.config.adapter.init_from is None:
        return
    source = locate.find(Path(trainer.config.adapter.init_from))
    integrity.verify(source)
    state = locate.read_state(source)
    if "adapter" not in state:
        raise CheckpointError(
            f"adapter.init_from: {source} is not the checkpoint of an adapter: make one from a PEFT folder with "
            "acc-megatron import, or name the weights of a model in train.init_from"
        )
    refuse_other_adapter(state, trainer, source)
    store.load(source, trainer.models, None)
    trainer.optimizer.reload_model_params()
    say(f"initial factors from {source}")


def refuse_other_adapter(state: dict[str, Any], trainer: Trainer, folder: Path) -> None:
    """Raise CheckpointError if a checkpoint's adapter or base is not this run's; the base may be unknown."""
    now, saved = _description(trainer.config), state.get("adapter")
    if not trainer.config.adapter.rank or saved is None:
        if trainer.config.adapter.rank or saved is not None:
            with_or_not = "with" if saved else "without"
            raise CheckpointError(
                f"{folder} was trained {with_or_not} an adapter, this run has adapter.rank = "
                f"{trainer.config.adapter.rank}: restore it, or choose a new train.run_dir"
            )
        return
    for key, value in now.items():
        if saved[key] != value:
            raise CheckpointError(
                f"{folder} was trained with adapter.{key} = {saved[key]!r}, this run has {value!r}: restore it, or "
                "choose a new train.run_dir"
            )
    base = state.get("base") or {}
    if base.get("sha256") not in (None, trainer.base_sha256):
        raise CheckpointError(
            f"{folder} is an adapter of the base {base['checkpoint']} with hash {base['sha256']}, but train.init_from "
            f"= {trainer.config.train.init_from} has hash {trainer.base_sha256}: name the base that it was trained on"
        )


def _description(config: Config) -> dict[str, Any]:
    return {
        "rank": config.adapter.rank,
        "alpha": config.adapter.alpha,
        "targets": sorted(targets(config)),
        "trained": sorted(trained_parts(config)) if config.adapter.rank else [],
    }
