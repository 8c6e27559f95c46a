"""Runs that must end: non-finite numbers, spikes, signals, hangs and changed data, with real processes and signals.

Promises T8 to T12 of docs/promises.md.
"""

import json
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.make_inputs import make_one_row_documents
from support.run_processes import Run, start
from support.survivors import (
    arguments,
    blocked_main_thread,
    make_loader,
    make_small_dataset,
    own_token,
    steps_of,
    train_and_hash,
    with_bad_embedding,
    with_bad_gradient,
    with_counted_experts,
    with_jumping_clock,
    with_sleeping_rank,
    with_spike,
    write_recipe,
)

from acc_megatron.data_tools.convert.dataset_folder import open_dataset
from acc_megatron.observe.metrics import STEPS_FILE, read_steps
from acc_megatron.observe.usage import from_ranges

pytestmark = pytest.mark.distributed
NUM_DOCUMENTS = 48
UNUSUAL_REASONING = {
    7: "quartz zebra violin harbour lantern meadow copper thistle anchor walnut saddle pepper",
    20: "glacier trumpet orchard velvet magnet falcon ribbon cactus marble puzzle jacket comet",
    33: "dolphin basket chimney tunnel feather garlic helmet island jungle kettle ladder mirror",
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_small_dataset(tmp_path_factory.mktemp("documents"), NUM_DOCUMENTS)


@pytest.fixture(scope="module")
def text_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents of one row each; the reasoning of three of them has words that no other document has."""
    return make_one_row_documents(tmp_path_factory.mktemp("texts"), NUM_DOCUMENTS, reasoning=UNUSUAL_REASONING)


def first_seed(accept: Callable[[int], bool]) -> int:
    """The first seed whose order of documents a test accepts."""
    return next(seed for seed in range(5000) if accept(seed))


def num_lines(run_dir: Path) -> int:
    path = run_dir / STEPS_FILE
    return path.read_text().count("\n") if path.is_file() else 0


def saved_steps(run_dir: Path) -> list[str]:
    return sorted(folder.name for folder in (run_dir / "checkpoints").glob("step_*"))


@pytest.mark.parametrize(
    "bad, message, num_other_samples",
    [
        pytest.param("loss", "the loss is not finite on rank 1. Samples: '7' (document 7). ", 0, id="loss"),
        pytest.param(
            "gradient",
            "non-finite gradients (first in decoder.final_layernorm.weight) on ranks 0, 1. ",
            1,
            id="gradient",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_non_finite_step_ends_the_run_with_the_weights_of_the_step_before(
    bad: str, message: str, num_other_samples: int, dataset: Path, tmp_path: Path
) -> None:
    """T8: exit code 21; the message names step, rank, samples and the losses of the steps before."""
    recipe = write_recipe(tmp_path / "recipe.toml", dataset, batch_rows=2, epochs=1)

    def is_on_rank_1_in_step_5(seed: int) -> bool:
        loader = make_loader(recipe, seed)
        batch = loader.batch(4, 2, 1)
        return loader.documents([batch[1]]) == [7]

    seed = first_seed(is_on_rank_1_in_step_5)
    body = with_bad_embedding if bad == "loss" else with_bad_gradient
    environment = {"BAD_TOKEN": str(own_token(dataset, 7)), "BAD_VALUE": "inf"}
    command = arguments(recipe, tmp_path / "run", f"train.seed={seed}")
    run = start(tmp_path, command, world=2, body=body, **environment)
    assert run.wait() == [21, 21], run.error_output()
    error = next(line for line in run.error_output().splitlines() if line.startswith("error:"))
    losses = ", ".join(f"{row['loss']:.4f}" for row in read_steps(tmp_path / "run"))
    assert error.startswith("error: step 5: ") and message in error and f"Previous losses: {losses}." in error
    assert losses.count(",") == 3, "the four steps before"
    assert "'7' (document 7)" in error and error.count("(document ") == 1 + num_other_samples
    # the weights equal those of a run that was told to end after step 4
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


def test_a_spike_is_skipped_without_changing_the_weights_and_too_many_end_the_run(
    dataset: Path, tmp_path: Path
) -> None:
    """T9 in its smallest form: step 2 counts as a spike, and the limit is one."""
    recipe = write_recipe(tmp_path / "recipe.toml", dataset, batch_rows=1, epochs=1)
    overrides = ("resilience.spike_limit=1", "train.save_every_steps=1")
    run = start(tmp_path, arguments(recipe, tmp_path / "run", *overrides), body=with_spike, SPIKE_IN_STEP="2")
    assert run.wait() == [22], run.error_output()
    steps = read_steps(tmp_path / "run")
    assert [(row["skipped"], row["updated"]) for row in steps] == [(False, True), (True, False)]
    before, after = (json.loads((tmp_path / "run" / f"hashes_{step}_0.json").read_text()) for step in (1, 2))
    assert before["weights"] == after["weights"] and before["optimizer"] == after["optimizer"]
    assert "Skipped steps: 2. This step is saved" in run.error_output()
    assert saved_steps(tmp_path / "run")[-1] == "step_00000002"


@pytest.mark.slow
def test_spikes_of_unusual_documents_are_skipped_and_the_third_ends_the_run(text_dataset: Path, tmp_path: Path) -> None:
    """T9: the rule finds the unusual documents itself, and its state survives a restart."""
    recipe = write_recipe(tmp_path / "recipe.toml", text_dataset, batch_rows=1, epochs=1)
    first_possible = 36  # the losses are flat by then

    def come_late_and_apart(seed: int) -> bool:
        steps = steps_of(recipe, seed, list(UNUSUAL_REASONING))
        return steps[0] >= first_possible and steps[-1] < NUM_DOCUMENTS

    seed = first_seed(come_late_and_apart)
    unusual = steps_of(recipe, seed, list(UNUSUAL_REASONING))
    overrides = (f"train.seed={seed}", "resilience.spike_window_steps=24")
    run = start(tmp_path, arguments(recipe, tmp_path / "run", *overrides), body=train_and_hash)
    assert run.wait() == [22], run.error_output()
    steps = read_steps(tmp_path / "run")
    assert [row["step"] for row in steps if row["skipped"]] == unusual
    assert [row["step"] for row in steps if not row["updated"]] == unusual
    assert steps[-1]["step"] == unusual[-1] and steps[-1]["skipped_steps"] == 3
    error = next(line for line in run.error_output().splitlines() if line.startswith("error:"))
    assert f"Skipped steps: {', '.join(map(str, unusual))}. This step is saved" in error
    assert saved_steps(tmp_path / "run") == [f"step_{unusual[-1]:08d}"]
    # a run that is stopped right after the first spike and resumed ends in the same way
    parts = tmp_path / "parts"
    half = arguments(recipe, parts / "run", *overrides, f"train.max_steps={unusual[0]}")
    assert start(parts / "a", half, body=train_and_hash).wait() == [0]
    assert start(parts / "b", arguments(recipe, parts / "run", *overrides), body=train_and_hash).wait() == [22]
    resumed = read_steps(parts / "run")
    assert [(row["loss"].hex(), row["skipped"]) for row in resumed] == [
        (row["loss"].hex(), row["skipped"]) for row in steps
    ]
    one, other = ((folder / "run" / f"hashes_{unusual[-1]}_0.json").read_text() for folder in (tmp_path, parts))
    assert json.loads(one)["weights"] == json.loads(other)["weights"]


def start_two_ranks(tmp_path: Path, dataset: Path, name: str, *overrides: str) -> Run:
    """Start a run on two ranks and wait until it is in the middle of an epoch."""
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


SLOW_CAUSES = [pytest.param(cause, marks=pytest.mark.slow) for cause in ("SIGUSR1", "stop file")]


@pytest.mark.parametrize("cause", ["SIGTERM", *SLOW_CAUSES])
def test_a_signal_to_one_rank_saves_the_same_step_on_all_and_ends_the_run(
    cause: str, dataset: Path, tmp_path: Path
) -> None:
    """T10: exit code 0 within two steps."""
    run, run_dir = start_two_ranks(tmp_path, dataset, "run"), tmp_path / "run"
    before = num_lines(run_dir)
    if cause == "stop file":
        (run_dir / "stop").touch()
    else:
        run.send(1, signal.Signals[cause])
        time.sleep(0.1)
        run.send(
            1, signal.Signals[cause]
        )  # a launcher forwards the signal that its process group got: it does not count as a second one
    assert run.wait() == [0, 0], run.error_output(1)
    steps = read_steps(run_dir)
    assert before <= len(steps) <= before + 2
    assert saved_steps(run_dir) == [f"step_{len(steps):08d}"]
    for rank in (0, 1):
        assert (run_dir / f"hashes_{len(steps)}_{rank}.json").is_file(), "both ranks save that step"
    result = json.loads(run.output().splitlines()[-1])
    by = "the stop file on rank 0" if cause == "stop file" else f"{cause} on rank 1"
    assert result["stopped_by"] == by and result["steps"] == len(steps)
    assert not (run_dir / "stop").exists(), "the file is removed"


def test_a_second_signal_ends_a_process_whose_main_thread_is_blocked(tmp_path: Path) -> None:
    """T10 in its smallest form: one process, without training."""
    run = start(tmp_path, tmp_path, body=blocked_main_thread)
    run.wait_for((tmp_path / "ready").exists, "the thread that listens for signals")
    run.send(0, signal.SIGTERM)
    time.sleep(2.5)
    assert run.processes[0].exitcode is None
    run.send(0, signal.SIGTERM)
    assert run.wait(30) == [128 + signal.SIGTERM]
    assert "SIGTERM again: ending at once, without saving" in run.error_output()


@pytest.mark.slow
def test_a_second_signal_ends_a_rank_inside_a_collective(dataset: Path, tmp_path: Path) -> None:
    """T10: the other rank sleeps, so the collective does not return."""
    recipe = write_recipe(tmp_path / "recipe.toml", dataset, batch_rows=2, epochs=20)
    run_dir = tmp_path / "run"
    sleeping = {"SLEEPER": "0", "SLEEP_IN_STEP": "4"}
    run = start(tmp_path, arguments(recipe, run_dir), world=2, body=with_sleeping_rank, **sleeping)
    run.wait_for(lambda: num_lines(run_dir) >= 3, "step 3")
    run.send(1, signal.SIGTERM)  # its main thread is inside a collective and cannot run a handler
    time.sleep(2.5)
    assert run.processes[1].exitcode is None
    run.send(1, signal.SIGTERM)
    run.processes[1].join(30)
    assert run.processes[1].exitcode == 128 + signal.SIGTERM
    run.kill()
    assert "SIGTERM again: ending at once, without saving" in run.error_output(1)


def test_a_hang_ends_the_run_with_stacks_of_all_ranks_and_the_name_of_the_blocking_rank(
    dataset: Path, tmp_path: Path
) -> None:
    """T11: exit code 23."""
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
    assert "rank 1 stopped in 'data' of step 9; the others wait in 'forward and backward' of step 9" in errors
    stacks = [(run_dir / "stacks" / f"rank_0000{rank}.txt").read_text() for rank in (0, 1)]
    assert "in rank_rows" in stacks[1] and "outside any collective" in stacks[1]
    assert "/torch/distributed/" in stacks[0] and "waiting inside a collective" in stacks[0]
    assert saved_steps(run_dir) == ["step_00000008"]


@pytest.mark.slow
def test_a_run_with_another_dataset_tokenizer_or_packing_is_refused(text_dataset: Path, tmp_path: Path) -> None:
    """T12: the error names the setting; train.allow_data_change turns it into a warning."""
    mine = tmp_path / "dataset"
    shutil.copytree(text_dataset, mine)
    recipe = write_recipe(tmp_path / "recipe.toml", mine, batch_rows=2, epochs=1)
    run_dir = tmp_path / "run"

    def rerun(name: str, *overrides: str) -> tuple[int | None, str]:
        run = start(tmp_path / name, arguments(recipe, run_dir, "train.max_steps=2", *overrides))
        return run.wait()[0], run.error_output()

    assert rerun("first", "train.max_steps=1")[0] == 0
    code, error = rerun("packing", "data.seq_length_tokens=512")
    assert code == 2 and "seq_length_tokens = 256, this run has 512" in error
    shutil.rmtree(mine)
    make_one_row_documents(tmp_path, NUM_DOCUMENTS, reasoning={0: "Another reason."})
    code, error = rerun("dataset")
    assert code == 2 and "was trained with dataset_fingerprint = " in error
    change_tokenizer(mine)
    code, error = rerun("tokenizer")
    assert code == 2 and "was trained with tokenizer." in error
    code, error = rerun("allowed", "train.allow_data_change=true")
    assert code == 0
    assert "train.allow_data_change: " in error and "some samples may be skipped and others repeated" in error
    assert "changed since step_00000001: train.allow_data_change = true (was false)" in error


def change_tokenizer(dataset: Path) -> None:
    """Change the manifest as if another tokenizer had made the dataset."""
    from acc_megatron.data_tools.convert.manifest import fingerprint

    path = dataset / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["tokenizer"]["sha256"] = "0" * 64
    manifest["fingerprint"] = fingerprint(manifest)
    path.write_text(json.dumps(manifest))


SLOW_CHANGES = [pytest.param(change, marks=pytest.mark.slow) for change in ("rewritten", "removed")]


@pytest.mark.parametrize("change", ["truncated", *SLOW_CHANGES])
def test_a_dataset_that_changes_during_training_ends_the_run_after_saving(
    change: str, dataset: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "dataset"
    shutil.copytree(dataset, mine)
    run, run_dir = start_two_ranks(tmp_path, mine, "run"), tmp_path / "run"
    victim = mine / "shards" / "00000" / "tokens.bin"
    data = victim.read_bytes()
    if change == "truncated":
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


@pytest.mark.slow
def test_a_jumping_system_clock_changes_neither_times_nor_checkpoints(dataset: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe.toml", dataset, batch_rows=4, epochs=1)
    command = arguments(recipe, tmp_path / "run", "resilience.hang_timeout_seconds=60", "train.save_every_steps=4")
    run = start(tmp_path, command, body=with_jumping_clock)
    assert run.wait() == [0], run.error_output()
    steps = read_steps(tmp_path / "run")
    assert len(steps) == NUM_DOCUMENTS // 4 and all(0 < row["seconds"] < 60 for row in steps)
    assert saved_steps(tmp_path / "run") == ["step_00000008", "step_00000012"]


EXPERT_LAYOUTS = {
    "one process": (1, ()),
    "recomputed": (1, ("memory.recompute=full",)),
    "EP2": (2, ("parallel.expert=2",)),
    "PP2": (2, ("parallel.pipeline=2",)),
}
SLOW_LAYOUTS = [pytest.param(name, marks=pytest.mark.slow) for name in ("one process", "EP2", "PP2")]


@pytest.mark.parametrize("name", ["recomputed", *SLOW_LAYOUTS])
def test_every_routed_token_is_counted_once(name: str, dataset: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe.toml", dataset, batch_rows=2, epochs=1)
    world, overrides = EXPERT_LAYOUTS[name]
    command = arguments(recipe, tmp_path / "run", "train.max_steps=2", *overrides)
    run = start(tmp_path, command, world=world, body=with_counted_experts)
    assert run.wait() == [0] * world, run.error_output()
    counts = json.loads((tmp_path / "run" / "counts_0.json").read_text())
    data, experts_per_token, num_layers = open_dataset(dataset), 2, 2
    steps = read_steps(tmp_path / "run")
    tokens = [sum(len(data.document(number)[0]) for number in from_ranges(row["documents"])) for row in steps]
    # padding at the end of a row is not counted
    assert [[sum(layer) for layer in step] for step in counts] == [[n * experts_per_token] * num_layers for n in tokens]
    row = steps[0]
    assert row["expert_load_max_over_mean"] == [round(max(layer) / (sum(layer) / 4), 4) for layer in counts[0]]
    assert row["dead_experts"] == [layer.count(0) for layer in counts[0]]
