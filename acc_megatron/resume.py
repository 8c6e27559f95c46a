"""A run's own checkpoints: what is saved beside the weights, resuming, and refusing to go on over other data."""

from pathlib import Path
from typing import Any

from acc_megatron import __version__
from acc_megatron.checkpoint import locate, store
from acc_megatron.config import to_dict
from acc_megatron.errors import CheckpointError
from acc_megatron.ranks import say
from acc_megatron.resilience.identity import changes, packing_sha256, refuse_change
from acc_megatron.trainer import Trainer


def restore(trainer: Trainer) -> Path | None:
    """Resume from this run's latest checkpoint, else take the initial weights that the config names."""
    settings = trainer.config.train
    folder = _newest(trainer)
    if folder is not None:
        state = store.read_state(folder)
        refuse_change(state, _identity(trainer), str(folder), allow_data_change=settings.allow_data_change)
        for line in changes(state["config"], to_dict(trainer.config)):
            say(f"changed since {folder.name}: {line}")
        store.load(folder, trainer.models, trainer.optimizer)
        trainer.step = state["step"]
        trainer.rule.load(state["spikes"])
        trainer.carried = folder / locate.CARRIED_FOLDER
        say(f"resumed from {folder} at step {trainer.step} of {trainer.num_steps}")
    elif settings.init_from is not None:
        source = locate.find(Path(settings.init_from))
        store.verify(source)
        saved = store.read_state(source)["model"]
        if saved != to_dict(trainer.config)["model"]:
            names = [key for key, value in to_dict(trainer.config)["model"].items() if saved.get(key) != value]
            raise CheckpointError(f"{source} holds another model: {', '.join(names)} differ from [model]")
        store.load(source, trainer.models, None)
        trainer.carried = source / locate.CARRIED_FOLDER
        trainer.optimizer.reload_model_params()
        say(f"initial weights from {source}")
    return folder


def _newest(trainer: Trainer) -> Path | None:
    """The verified checkpoint to go on from; with train.fallback the newest good one, saying what others lack."""
    if trainer.config.train.fallback:
        folder, reasons = store.newest_good(trainer.checkpoints)
        for reason in reasons:
            say(f"train.fallback: {reason}")
        if reasons and folder is None:
            raise CheckpointError(f"train.fallback: no checkpoint in {trainer.checkpoints} is good")
        if reasons:
            say(f"train.fallback: going on from {folder}, newer ones are set aside as *.damaged")
        return folder
    try:
        folder = locate.latest(trainer.checkpoints)
        if folder is not None:
            store.verify(folder)
    except CheckpointError as error:
        raise CheckpointError(f"{error}, or set train.fallback=true to go on from the last good one") from None
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
    """Save a checkpoint of the step the trainer is at; collective.

    Returns when it is published; with train.async_save as soon as everything is copied, and `settle` publishes it.
    Raises CheckpointError on every rank when this or the save before failed.
    """
    settle(trainer, wait=True)
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
    is_async = trainer.config.train.async_save
    trainer.saving = store.Save(folder, trainer.models, trainer.optimizer, state, trainer.carried, stage=is_async)
    for chunk in trainer.chunks if gathers_late else ():
        chunk.enable_forward_pre_hook()  # type: ignore[operator]
    if not is_async:
        settle(trainer, wait=True)
    return folder


def settle(trainer: Trainer, *, wait: bool = False) -> None:
    """Publish the save under way once every rank has written, and forget those too old to keep; collective.

    Call it after every step, and with `wait` before the run ends: a save that failed raises CheckpointError here.
    """
    saving = trainer.saving
    if saving is None or not (wait or saving.is_written()):
        return
    trainer.saving = None
    saving.finish()
    trainer.carried = saving.folder / locate.CARRIED_FOLDER
    store.on_rank_zero(
        lambda: store.prune(trainer.checkpoints, trainer.config.train.keep_checkpoints),
        f"cannot remove old checkpoints of {trainer.checkpoints}",
    )
    say(f"saved {saving.folder}")
