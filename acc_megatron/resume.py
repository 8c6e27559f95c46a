"""A run's own checkpoints: what is saved beside the weights, resuming, and refusing to go on over other data."""

from pathlib import Path
from typing import Any

import torch.distributed as dist

from acc_megatron import __version__
from acc_megatron.checkpoint import store
from acc_megatron.config import to_dict
from acc_megatron.errors import CheckpointError
from acc_megatron.ranks import say
from acc_megatron.resilience.identity import changes, packing_sha256, refuse_change
from acc_megatron.trainer import Trainer


def restore(trainer: Trainer) -> Path | None:
    """Resume from this run's latest checkpoint, else take the initial weights that the config names."""
    settings = trainer.config.train
    folder = store.latest(trainer.checkpoints)
    if folder is not None:
        state = store.read_state(folder)
        refuse_change(state, _identity(trainer), str(folder), allow_data_change=settings.allow_data_change)
        for line in changes(state["config"], to_dict(trainer.config)):
            say(f"changed since {folder.name}: {line}")
        store.load(folder, trainer.models, trainer.optimizer)
        trainer.step = state["step"]
        trainer.rule.load(state["spikes"])
        trainer.carried = folder / store.CARRIED_FOLDER
        say(f"resumed from {folder} at step {trainer.step} of {trainer.num_steps}")
    elif settings.init_from is not None:
        source = store.find(Path(settings.init_from))
        saved = store.read_state(source)["model"]
        if saved != to_dict(trainer.config)["model"]:
            names = [key for key, value in to_dict(trainer.config)["model"].items() if saved.get(key) != value]
            raise CheckpointError(f"{source} holds another model: {', '.join(names)} differ from [model]")
        store.load(source, trainer.models, None)
        trainer.carried = source / store.CARRIED_FOLDER
        trainer.optimizer.reload_model_params()
        say(f"initial weights from {source}")
    return folder


def _identity(trainer: Trainer) -> dict[str, Any]:
    """What must not change between the parts of one run; the most telling difference first."""
    config, loader = trainer.config, trainer.loader
    return {
        "model": to_dict(config)["model"],
        "tokenizer": loader.dataset.manifest["tokenizer"],
        "seq_length_tokens": config.data.seq_length_tokens,
        "document_multiple_tokens": config.data.document_multiple_tokens,
        "dataset_fingerprint": loader.dataset.fingerprint,
        "packing_sha256": packing_sha256(loader.rows),
        "global_batch_rows": config.train.global_batch_rows,
        "epochs": config.train.epochs,
        "seed": config.train.seed,
    }


def save(trainer: Trainer) -> Path:
    """Save a checkpoint of the step the trainer is at, and forget those too old to keep; collective."""
    folder = trainer.checkpoints / f"step_{trainer.step:08d}"
    gathers_late = trainer.config.parallel.overlap_param_gather
    for chunk in trainer.chunks if gathers_late else ():
        chunk.disable_forward_pre_hook(param_sync=True)  # type: ignore[operator]
    state = _identity(trainer) | {
        "step": trainer.step,
        "num_steps": trainer.num_steps,
        "code_version": __version__,
        "spikes": trainer.rule.state(),
        "config": to_dict(trainer.config),
    }
    store.save(folder, trainer.models, trainer.optimizer, state, trainer.carried)
    trainer.carried = folder / store.CARRIED_FOLDER
    for chunk in trainer.chunks if gathers_late else ():
        chunk.enable_forward_pre_hook()  # type: ignore[operator]
    if dist.get_rank() == 0:
        store.prune(trainer.checkpoints, trainer.config.train.keep_checkpoints)
    say(f"saved {folder}")
    return folder
