"""A run's own checkpoints: saving them, resuming from them, and refusing to resume on different data."""

import dataclasses
from pathlib import Path
from typing import Any

from acc_megatron import __version__
from acc_megatron.checkpoint import integrity, locate, store
from acc_megatron.checkpoint.rank_zero import on_rank_zero
from acc_megatron.config import model_config_from_dict, to_dict
from acc_megatron.errors import CheckpointError
from acc_megatron.mesh.torchrun_environment import say
from acc_megatron.resilience.resume_check import changes, packing_sha256, refuse_change, refuse_other_optimizer
from acc_megatron.training.adapter_resume import (
    adapter_entries,
    hash_base,
    load_initial_factors,
    refuse_other_adapter,
)
from acc_megatron.training.new_length import new_length
from acc_megatron.training.trainer import BestStep, Trainer


def restore(trainer: Trainer) -> Path | None:
    """Resume from this run's latest checkpoint; if there is none, load the initial weights named in the settings.

    Returns the checkpoint of this run, or None. Raises CheckpointError if a checkpoint is damaged or does not match.
    """
    settings = trainer.config.train
    folder = _latest_checkpoint(trainer)
    has_adapter = trainer.config.adapter.rank > 0
    if settings.init_from is not None and (folder is None or has_adapter):
        _load_initial_weights(trainer, locate.find(Path(settings.init_from)))
    if has_adapter:
        hash_base(trainer)
    if folder is not None:
        state = _read_state(folder)
        refuse_other_adapter(state, trainer, folder)
        refuse_change(state, _identity(trainer), str(folder), allow_data_change=settings.allow_data_change)
        refuse_other_optimizer(state["config"], to_dict(trainer.config), str(folder))
        for line in [*changes(state["config"], to_dict(trainer.config)), *new_length(trainer, state)]:
            say(f"changed since {folder.name}: {line}")
        store.load(folder, trainer.models, trainer.optimizer)
        trainer.step = state["step"]
        trainer.best = BestStep(**state["best"]) if state.get("best") else None
        trainer.rule.load(state["spikes"])
        trainer.carried = folder / locate.CARRIED_FOLDER
        say(f"resumed from {folder} at step {trainer.step} of {trainer.num_steps}")
    elif has_adapter:
        load_initial_factors(trainer)
    return folder


def _load_initial_weights(trainer: Trainer, source: Path) -> None:
    integrity.verify(source)
    state = _read_state(source)
    if "adapter" in state:
        raise CheckpointError(
            f"train.init_from: {source} is the checkpoint of an adapter, without the weights of its base: name the "
            "base there and this one in adapter.init_from, or add them with acc-megatron export --merge"
        )
    saved, model = state["model"], dataclasses.asdict(trainer.config.model)
    names = [key for key, value in model.items() if saved.get(key) != value]
    if "rope_scaling" in names:  # it changes no weight, so a model can be trained on in a longer window
        names.remove("rope_scaling")
        say(f"model.rope_scaling = {model['rope_scaling']} (initial weights: {saved['rope_scaling']})")
    if names:
        raise CheckpointError(f"{source} contains a different model: [model] differs in {', '.join(names)}")
    store.load(source, trainer.models, None)
    trainer.carried = source / locate.CARRIED_FOLDER
    trainer.optimizer.reload_model_params()
    say(f"initial weights from {source}")


def _read_state(folder: Path) -> dict[str, Any]:
    """Read a checkpoint's state, with defaults for model settings that did not exist when it was saved."""
    state = locate.read_state(folder)
    model = dataclasses.asdict(model_config_from_dict(state["model"], str(folder / locate.STATE)))
    if "config" in state:
        state["config"] |= {"model": model}
    return state | {"model": model}


def _latest_checkpoint(trainer: Trainer) -> Path | None:
    """Return the verified checkpoint to resume from; with train.fallback, the newest intact one."""
    if trainer.config.train.fallback:
        folder, reasons = integrity.newest_intact(trainer.checkpoints)
        for reason in reasons:
            say(f"train.fallback: {reason}")
        if reasons and folder is None:
            raise CheckpointError(f"train.fallback: no checkpoint in {trainer.checkpoints} is intact")
        if reasons:
            say(f"train.fallback: resuming from {folder}; newer checkpoints were renamed to *.damaged")
        return folder
    try:
        folder = locate.latest(trainer.checkpoints)
        if folder is not None:
            integrity.verify(folder)
    except CheckpointError as error:
        raise CheckpointError(
            f"{error}, or set train.fallback=true to resume from the newest intact checkpoint"
        ) from None
    return folder


def _identity(trainer: Trainer) -> dict[str, Any]:
    """Return what must not change when a run resumes, in the order in which differences are reported."""
    config, loader = trainer.config, trainer.loader
    return {
        "model": dataclasses.asdict(config.model),
        "tokenizer": loader.dataset.manifest["tokenizer"],
        "seq_length_tokens": config.data.seq_length_tokens,
        "document_multiple_tokens": config.data.document_multiple_tokens,
        "dataset_fingerprint": loader.dataset.fingerprint,
        "packing_sha256": packing_sha256(loader.rows),
        "global_batch_rows": config.train.global_batch_rows,
        "seed": config.train.seed,
    }


def save(trainer: Trainer) -> Path:
    """Save a checkpoint of the current step and return its folder; collective.

    Returns after the checkpoint is published; with train.async_save, after everything is copied to host memory, and
    `settle` publishes it. Raises CheckpointError on every rank if this save or the previous one failed.
    """
    settle(trainer, wait=True)
    folder = _folder_of(trainer, trainer.step)
    gathers_late = trainer.config.parallel.overlap_param_gather
    for chunk in trainer.chunks if gathers_late else ():
        chunk.disable_forward_pre_hook(param_sync=True)  # type: ignore[operator]
    state = _identity(trainer) | {
        "step": trainer.step,
        "num_steps": trainer.num_steps,
        "best": dataclasses.asdict(trainer.best) if trainer.best else None,
        "code_version": __version__,
        "spikes": trainer.rule.state(),
        "config": to_dict(trainer.config),
        **adapter_entries(trainer),
    }
    is_async = trainer.config.train.async_save
    trainer.saving = store.Save(
        folder,
        trainer.models,
        trainer.optimizer,
        state,
        trainer.carried,
        is_staged=is_async,
        last_plan=trainer.last_plan,
    )
    for chunk in trainer.chunks if gathers_late else ():
        chunk.enable_forward_pre_hook()  # type: ignore[operator]
    if not is_async:
        settle(trainer, wait=True)
    return folder


def settle(trainer: Trainer, *, wait: bool = False) -> None:
    """Publish the current save if every rank has written its part, then remove old checkpoints; collective.

    Call it after every step, and with `wait` before the run ends. Raises CheckpointError if the save failed.
    """
    saving = trainer.saving
    if saving is None or not (wait or saving.is_written()):
        return
    trainer.saving = None
    saving.finish()
    trainer.carried = saving.folder / locate.CARRIED_FOLDER
    on_rank_zero(lambda: _tidy(trainer), f"cannot remove old checkpoints of {trainer.checkpoints}")
    say(f"saved {saving.folder}")


def _tidy(trainer: Trainer) -> None:
    """Make `best` name the checkpoint with the lowest held-out loss, and remove old checkpoints."""
    if trainer.best is not None:
        folder = _folder_of(trainer, trainer.best.step)
        if (folder / locate.MANIFEST).is_file():
            locate.point(folder, locate.BEST)
    locate.prune(trainer.checkpoints, trainer.config.train.keep_checkpoints)


def _folder_of(trainer: Trainer, step: int) -> Path:
    return trainer.checkpoints / f"step_{step:08d}"
