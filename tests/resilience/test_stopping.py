"""How a run ends that must not go on: bad numbers, spikes, signals, hangs, other data; real processes and signals."""

import json
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from make_inputs import make_one_row_documents
from run_processes import Run, start
from survivors import (
    arguments,
    own_token,
    steps_of,
    train_and_hash,
    with_bad_embedding,
    with_bad_gradient,
    with_counted_experts,
    with_jumping_clock,
    with_sleeping_rank,
    write_recipe,
)

from acc_megatron.data_tools.dataset_folder import open_dataset
from acc_megatron.observe.metrics import STEPS_FILE, read_steps

pytestmark = [pytest.mark.slow, pytest.mark.distributed]
NUM_DOCUMENTS = 48
STRANGE = {
    7: "quartz zebra violin harbour lantern meadow copper thistle anchor walnut saddle pepper",
    20: "glacier trumpet orchard velvet magnet falcon ribbon cactus marble puzzle jacket comet",
    33: "dolphin basket chimney tunnel feather garlic helmet island jungle kettle ladder mirror",
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One-row documents, three of which reason in words that no other has."""
    return make_one_row_documents(tmp_path_factory.mktemp("documents"), NUM_DOCUMENTS, reasoning=STRANGE)


def seed_with(recipe: Path, accept: Any) -> int:
    """The first seed whose order of documents is as a test needs it."""
    return next(seed for seed in range(5000) if accept(seed))


def num_lines(run_dir: Path) -> int:
    path = run_dir / STEPS_FILE
    return path.read_text().count("\n") if path.is_file() else 0


def saved_steps(run_dir: Path) -> list[str]:
    return sorted(folder.name for folder in (run_dir / "checkpoints").glob("step_*"))


@pytest.mark.parametrize(
    "bad, says, others",
    [
        ("loss", "the loss is not a number on rank 1. Samples: 'doc-7' (document 7). ", 0),
        ("gradient", "bad gradients (first in decoder.final_layernorm.weight) on ranks 0, 1. ", 1),
    ],
)
def test_nan_never_reaches_the_weights(bad: str, says: str, others: int, dataset: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe.toml", dataset, batch_rows=2, epochs=1)

    def is_on_rank_1_in_step_5(seed: int) -> bool:
        from survivors import make_loader

        loader = make_loader(recipe, seed)
        batch = loader.batch(4, 2, 1)
        return loader.documents([batch[1]]) == [7]

    seed = seed_with(recipe, is_on_rank_1_in_step_5)
    body = with_bad_embedding if bad == "loss" else with_bad_gradient
    environment = {"BAD_TOKEN": str(own_token(dataset, 7)), "BAD_VALUE": "inf"}
    command = arguments(recipe, tmp_path / "run", f"train.seed={seed}")
    run = start(tmp_path, command, world=2, body=body, **environment)
    assert run.wait() == [21, 21], run.error_output()
    error = next(line for line in run.error_output().splitlines() if line.startswith("error:"))
    losses = ", ".join(f"{row['loss']:.4f}" for row in read_steps(tmp_path / "run"))
    assert error.startswith("error: step 5: ") and says in error and f"Losses before: {losses}." in error
    assert losses.count(",") == 3, "the four steps before"
    assert "'doc-7' (document 7)" in error and error.count("(document ") == 1 + others
    # the weights are those of a run that was told to end with step 4
    assert saved_steps(tmp_path / "run") == ["step_00000004"]
    short = arguments(recipe, tmp_path / "short" / "run", f"train.seed={seed}", "train.max_steps=4")
    reference = start(tmp_path / "short", short, world=2, body=body, **environment)
    assert reference.wait() == [0, 0], reference.error_output()
    for rank in (0, 1):
        one, other = (
            json.loads((folder / "run" / f"hashes_4_{rank}.json").read_text())
            for folder in (tmp_path, tmp_path / "short")
        )
        assert {**one, "masks": 0} == {**other, "masks": 0}


def test_spikes_are_handled_by_rule(dataset: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe.toml", dataset, batch_rows=1, epochs=1)
    first_possible = 36  # the losses are flat by then

    def come_late_and_apart(seed: int) -> bool:
        steps = steps_of(recipe, seed, list(STRANGE))
        return steps[0] >= first_possible and steps[-1] < NUM_DOCUMENTS

    seed = seed_with(recipe, come_late_and_apart)
    strange = steps_of(recipe, seed, list(STRANGE))
    overrides = (f"train.seed={seed}", "resilience.spike_window_steps=24")
    run = start(tmp_path, arguments(recipe, tmp_path / "run", *overrides), body=train_and_hash)
    assert run.wait() == [22], run.error_output()
    steps = read_steps(tmp_path / "run")
    assert [row["step"] for row in steps if row["skipped"]] == strange
    assert [row["step"] for row in steps if not row["updated"]] == strange
    assert steps[-1]["step"] == strange[-1] and steps[-1]["skipped_steps"] == 3
    error = next(line for line in run.error_output().splitlines() if line.startswith("error:"))
    assert f"skipped were {', '.join(map(str, strange))}. This step is saved" in error
    assert saved_steps(tmp_path / "run") == [f"step_{strange[-1]:08d}"]
    # the rule's state is part of the run: stopped right after the first spike it ends as the whole run did
    parts = tmp_path / "parts"
    half = arguments(recipe, parts / "run", *overrides, f"train.max_steps={strange[0]}")
    assert start(parts / "a", half, body=train_and_hash).wait() == [0]
    assert start(parts / "b", arguments(recipe, parts / "run", *overrides), body=train_and_hash).wait() == [22]
    resumed = read_steps(parts / "run")
    assert [(row["loss"].hex(), row["skipped"]) for row in resumed] == [
        (row["loss"].hex(), row["skipped"]) for row in steps
    ]
    one, other = ((folder / "run" / f"hashes_{strange[-1]}_0.json").read_text() for folder in (tmp_path, parts))
    assert json.loads(one)["weights"] == json.loads(other)["weights"]


def stoppable(tmp_path: Path, dataset: Path, name: str, *overrides: str) -> Run:
    """Two ranks that are in the middle of an epoch."""
    recipe = write_recipe(tmp_path / "recipe.toml", dataset, batch_rows=2, epochs=20)
    run_dir = tmp_path / name
    run = start(
        tmp_path / f"{name}_output",
        arguments(recipe, run_dir, "parallel.expert=2", *overrides),
        world=2,
        body=train_and_hash,
    )
    run.wait_for(lambda: num_lines(run_dir) >= 3, "step 3")
    return run


@pytest.mark.parametrize("cause", ["SIGTERM", "SIGUSR1", "stop file"])
def test_a_signal_to_one_rank_stops_all(cause: str, dataset: Path, tmp_path: Path) -> None:
    run, run_dir = stoppable(tmp_path, dataset, "run"), tmp_path / "run"
    before = num_lines(run_dir)
    if cause == "stop file":
        (run_dir / "stop").touch()
    else:
        run.send(1, signal.Signals[cause])
        time.sleep(0.1)
        run.send(1, signal.Signals[cause])  # as a launcher forwards what came to its whole group: still the first one
    assert run.wait() == [0, 0], run.error_output(1)
    steps = read_steps(run_dir)
    assert before <= len(steps) <= before + 2
    assert saved_steps(run_dir) == [f"step_{len(steps):08d}"]
    for rank in (0, 1):
        assert (run_dir / f"hashes_{len(steps)}_{rank}.json").is_file(), "both ranks saved that step"
    result = json.loads(run.output().splitlines()[-1])
    by = "the stop file on rank 0" if cause == "stop file" else f"{cause} on rank 1"
    assert result["stopped_by"] == by and result["steps"] == len(steps)
    assert not (run_dir / "stop").exists(), "it is obeyed once"


def test_a_second_signal_ends_at_once(dataset: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe.toml", dataset, batch_rows=2, epochs=20)
    run_dir = tmp_path / "run"
    sleeping = {"SLEEPER": "0", "SLEEP_IN_STEP": "4"}
    run = start(tmp_path, arguments(recipe, run_dir), world=2, body=with_sleeping_rank, **sleeping)
    run.wait_for(lambda: num_lines(run_dir) >= 3, "step 3")
    run.send(1, signal.SIGTERM)  # its main thread is inside a collective and cannot run a handler
    time.sleep(2.5)
    assert run.processes[1].exitcode is None
    run.send(1, signal.SIGTERM)
    run.processes[1].join(10)
    assert run.processes[1].exitcode == 128 + signal.SIGTERM
    run.kill()
    assert "SIGTERM again: ending at once, nothing saved" in run.error_output(1)


def test_a_hang_is_named(dataset: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe.toml", dataset, batch_rows=2, epochs=20)
    run_dir, timeout = tmp_path / "run", 5
    sleeping = {"SLEEPER": "1", "SLEEP_IN_STEP": "9"}
    command = arguments(recipe, run_dir, f"resilience.hang_timeout_seconds={timeout}", "train.save_every_steps=8")
    run = start(tmp_path, command, world=2, body=with_sleeping_rank, **sleeping)
    run.wait_for(lambda: num_lines(run_dir) >= 8, "step 8")
    started = time.monotonic()
    assert run.wait() == [23, 23]
    assert time.monotonic() - started >= timeout
    errors = run.error_output() + run.error_output(1)
    assert errors.count("error: no progress for 5 s") == 1
    assert "rank 1 stopped in 'data' of step 9, the others wait in 'forward and backward' of step 9" in errors
    stacks = [(run_dir / "stacks" / f"rank_0000{rank}.txt").read_text() for rank in (0, 1)]
    assert "in rank_rows" in stacks[1] and "outside any collective" in stacks[1]
    assert "/torch/distributed/" in stacks[0] and "waiting inside a collective" in stacks[0]
    assert saved_steps(run_dir) == ["step_00000008"]


def test_wrong_data_is_refused(dataset: Path, tmp_path: Path) -> None:
    mine = tmp_path / "dataset"
    shutil.copytree(dataset, mine)
    recipe = write_recipe(tmp_path / "recipe.toml", mine, batch_rows=2, epochs=1)
    run_dir = tmp_path / "run"

    def again(name: str, *overrides: str) -> tuple[int | None, str]:
        run = start(tmp_path / name, arguments(recipe, run_dir, "train.max_steps=2", *overrides))
        return run.wait()[0], run.error_output()

    assert again("first", "train.max_steps=1")[0] == 0
    code, error = again("packing", "data.seq_length_tokens=512")
    assert code == 2 and "seq_length_tokens = 256, this run has 512" in error
    shutil.rmtree(mine)
    make_one_row_documents(tmp_path, NUM_DOCUMENTS)
    code, error = again("dataset")
    assert code == 2 and "was trained with dataset_fingerprint = " in error
    change_tokenizer(mine)
    code, error = again("tokenizer")
    assert code == 2 and "was trained with tokenizer." in error
    code, error = again("allowed", "train.allow_data_change=true")
    assert code == 0
    assert "train.allow_data_change: " in error and "samples may be missed or come twice" in error
    assert "changed since step_00000001: train.allow_data_change = true (was false)" in error


def change_tokenizer(dataset: Path) -> None:
    """Make a dataset say that another tokenizer made it, as a conversion with that tokenizer would."""
    from acc_megatron.data_tools.dataset_folder import fingerprint

    path = dataset / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["tokenizer"]["sha256"] = "0" * 64
    manifest["fingerprint"] = fingerprint(manifest)
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize("change", ["cut", "rewritten", "removed"])
def test_a_dataset_changed_under_the_run_is_refused_and_what_was_learned_is_saved(
    change: str, dataset: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "dataset"
    shutil.copytree(dataset, mine)
    run, run_dir = stoppable(tmp_path, mine, "run"), tmp_path / "run"
    victim = mine / "shards" / "00000" / "tokens.bin"
    data = victim.read_bytes()
    if change == "cut":
        with victim.open("r+b") as file:
            file.truncate(0)
    elif change == "rewritten":
        with victim.open("r+b") as file:
            file.write(bytes(len(data)))
    else:
        victim.unlink()
    assert run.wait() == [2, 2], run.error_output()
    steps = read_steps(run_dir)
    errors = [line for rank in (0, 1) for line in run.error_output(rank).splitlines() if line.startswith("error:")]
    assert len(errors) == 1 and f"{victim} was " in errors[0] and f"step {len(steps) + 1}, rank" in errors[0]
    assert saved_steps(run_dir) == [f"step_{len(steps):08d}"]
    victim.unlink(missing_ok=True)
    victim.write_bytes(data)
    last = len(steps) + 1
    more = start(tmp_path / "more", arguments(tmp_path / "recipe.toml", run_dir, f"train.max_steps={last}"))
    assert more.wait() == [0], more.error_output()
    assert open_dataset(mine).fingerprint and len(read_steps(run_dir)) == last


def test_a_clock_that_jumps_loses_nothing(dataset: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe.toml", dataset, batch_rows=4, epochs=1)
    command = arguments(recipe, tmp_path / "run", "resilience.hang_timeout_seconds=60", "train.save_every_steps=4")
    run = start(tmp_path, command, body=with_jumping_clock)
    assert run.wait() == [0], run.error_output()
    steps = read_steps(tmp_path / "run")
    assert len(steps) == NUM_DOCUMENTS // 4 and all(0 < row["seconds"] < 60 for row in steps)
    assert saved_steps(tmp_path / "run") == ["step_00000008", "step_00000012"]


def test_every_routed_token_is_counted_once_in_every_layout(dataset: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe.toml", dataset, batch_rows=2, epochs=1)
    loads = {}
    layouts = {
        "one": (1, ()),
        "recomputed": (1, ("memory.recompute=full",)),
        "EP2": (2, ("parallel.expert=2",)),
        "PP2": (2, ("parallel.pipeline=2",)),
    }
    for name, (world, overrides) in layouts.items():
        folder = tmp_path / name
        command = arguments(recipe, folder / "run", "train.max_steps=2", *overrides)
        assert start(folder, command, world=world, body=with_counted_experts).wait() == [0] * world
        counts = json.loads((folder / "run" / "counts_0.json").read_text())
        assert [[sum(layer) for layer in step] for step in counts] == [[2 * 256 * 2] * 2] * 2, "tokens x top-k, exactly"
        row = read_steps(folder / "run")[0]
        assert row["expert_load_max_over_mean"] == [round(max(layer) / (sum(layer) / 4), 4) for layer in counts[0]]
        assert row["dead_experts"] == [layer.count(0) for layer in counts[0]]
        loads[name] = counts[0]
    assert loads["recomputed"] == loads["one"]
