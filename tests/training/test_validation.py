"""The held-out loss: equal to that of transformers, in every layout, without changing the training."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.make_inputs import convert_triples, write_triples
from support.run_processes import start

from acc_megatron.compatibility.held_out import check_held_out
from acc_megatron.config import load_config
from acc_megatron.data.held_out import is_held_out, split_documents
from acc_megatron.errors import ConfigError, DataError
from acc_megatron.observe.metrics import LoggedStep, read_steps

STILL = ("optimizer.learning_rate=0.0", "optimizer.min_learning_rate=0.0")  # the weights of the import
ONE_ROW = "train.global_batch_rows=1"


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of five documents of three agent kinds."""
    folder = tmp_path_factory.mktemp("held_out")
    triples = write_triples(folder / "triples.jsonl", [50, 240, 90, 30, 130], seed=9, answer_words=7)
    return convert_triples(triples, folder / "dataset")


@pytest.fixture
def hf_folder(imported: Path) -> Path:
    """The folder from which the weights of the recipe were imported."""
    return imported.parent / "hf"


@pytest.fixture
def go(recipe: Path, tmp_path: Path) -> Callable[..., list[LoggedStep]]:
    """Train in this process; returns the logged steps."""

    def run(name: str, *overrides: str) -> list[LoggedStep]:
        from acc_megatron.training.train import train

        train(load_config(recipe, [f"train.run_dir={tmp_path / name}", *overrides]))
        return read_steps(tmp_path / name)

    return run


def of_transformers(hf: Path, dataset: Path) -> dict[str, float]:
    """The loss per supervised token by agent kind and in total, one document at a time."""
    import torch
    from transformers import Qwen3MoeForCausalLM

    from acc_megatron.data_tools.convert.dataset_folder import open_dataset

    model, opened = Qwen3MoeForCausalLM.from_pretrained(hf), open_dataset(dataset)
    sums: dict[str, list[float]] = {}
    for number, agent in enumerate(opened.samples["agent"].to_pylist()):
        ids, mask = (torch.from_numpy(array.astype("int64")) for array in opened.document(number))
        with torch.no_grad():
            log_probabilities = model(ids[None]).logits[0, :-1].log_softmax(-1)
        losses = -log_probabilities.gather(1, ids[1:, None])[:, 0][mask[1:] > 0]
        for name in (agent, "all"):
            loss, count = sums.setdefault(name, [0.0, 0.0])
            sums[name] = [loss + float(losses.double().sum()), count + len(losses)]
    return {name: loss / count for name, (loss, count) in sums.items()}


def check_loss(row: LoggedStep, expected: dict[str, float]) -> None:
    by_agent = {"all": row["validation_loss"], **row["validation_loss_by_agent"]}
    assert by_agent == pytest.approx(expected, rel=1e-5) and len(by_agent) == 4


def test_the_held_out_loss_is_that_of_transformers_in_total_and_by_agent(
    go: Callable[..., list[LoggedStep]], hf_folder: Path, held_out: Path
) -> None:
    steps = go("run", *STILL, f"validation.path={held_out}", "validation.every_steps=2", "train.max_steps=3")
    assert steps[0]["validation_loss"] is None and steps[0]["validation_loss_by_agent"] == {}
    expected = of_transformers(hf_folder, held_out)
    for row in steps[1:]:  # after two steps, and after the last one
        check_loss(row, expected)


LAYOUTS = {
    "CP2 EP2": ("parallel.context=2", "parallel.expert=2"),
    "DP2": ("parallel.distributed_optimizer=true", "parallel.overlap_grad_reduce=true",
            "parallel.overlap_param_gather=true", "optimizer.kind=adamw"),
    "PP2": ("parallel.pipeline=2",),
    "TP2": ("parallel.tensor=2",),
}  # fmt: skip


@pytest.mark.distributed
@pytest.mark.parametrize(
    "name", [name if name == "CP2 EP2" else pytest.param(name, marks=pytest.mark.slow) for name in LAYOUTS]
)
def test_every_layout_has_the_same_held_out_loss(
    name: str, recipe: Path, hf_folder: Path, held_out: Path, tmp_path: Path
) -> None:
    settings = [*STILL, f"validation.path={held_out}", "validation.every_steps=1", "train.max_steps=1"]
    command = ["train", str(recipe), f"train.run_dir={tmp_path / 'run'}", *settings, *LAYOUTS[name]]
    run = start(tmp_path / "output", command, world=2)
    assert run.wait() == [0, 0], run.error_output()
    check_loss(read_steps(tmp_path / "run")[0], of_transformers(hf_folder, held_out))


@pytest.mark.slow
def test_validation_changes_neither_losses_nor_gradients_of_the_training(
    go: Callable[..., list[LoggedStep]], held_out: Path
) -> None:
    adamw = ["optimizer.kind=adamw", "optimizer.learning_rate=3e-3", "train.max_steps=3", "moe.load_balancing=aux_loss"]
    without = go("without", *adamw)
    steps = go("with", *adamw, f"validation.path={held_out}", "validation.every_steps=1")
    for key in ("loss", "grad_norm", "expert_load_max_over_mean"):
        assert [dict(row)[key] for row in steps] == [dict(row)[key] for row in without], key
    losses = [row["validation_loss"] for row in steps]
    assert len(set(losses)) == 3, "the weights change"


def test_the_checkpoint_with_the_lowest_held_out_loss_is_kept_as_best(
    go: Callable[..., list[LoggedStep]], held_out: Path, tmp_path: Path
) -> None:
    """The learning rate of the second part destroys the model, so the first step stays the best one."""
    from acc_megatron.checkpoint.locate import find

    settings = [f"validation.path={held_out}", "validation.every_steps=1", "train.keep_checkpoints=1"]
    go("run", *settings, "train.max_steps=1")
    steps = go("run", *settings, "train.max_steps=4", "train.save_every_steps=1", "optimizer.learning_rate=30.0",
               "optimizer.min_learning_rate=30.0", "resilience.spike_sigmas=0")  # fmt: skip
    losses = [row["validation_loss"] or 0.0 for row in steps]
    assert min(losses) == losses[0] and {row["validation_best_step"] for row in steps} == {1}
    folder = tmp_path / "run" / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["best", "latest", "step_00000001", "step_00000004"]
    assert find(folder / "best").name == "step_00000001" and find(folder).name == "step_00000004"
    assert json.loads((folder / "step_00000004" / "state.json").read_text())["best"]["step"] == 1


def test_held_out_documents_are_never_trained_on_and_no_seed_changes_them(
    go: Callable[..., list[LoggedStep]], recipe: Path
) -> None:
    from acc_megatron.data_tools.convert.dataset_folder import open_dataset
    from acc_megatron.observe.usage import from_ranges

    ids = open_dataset(Path(load_config(recipe).data.path)).samples["id"].to_pylist()
    trained, held = split_documents(ids, 0.65)
    assert sorted(trained + held) == list(range(len(ids))) and trained and held
    for seed in (0, 1):
        steps = go(f"run {seed}", ONE_ROW, "validation.share=0.65", "validation.every_steps=9", f"train.seed={seed}")
        assert sorted({n for row in steps for n in from_ranges(row["documents"])}) == trained


def test_the_share_of_held_out_documents_follows_from_their_hashes() -> None:
    ids = [f"document-{number}" for number in range(4000)]
    assert len(split_documents(ids, 0.1)[1]) == pytest.approx(400, abs=60)
    small, large = set(split_documents(ids, 0.1)[1]), set(split_documents(ids, 0.2)[1])
    assert small < large, "a larger share holds out the same documents and more"
    first = int(hashlib.sha256(b"a").hexdigest()[:16], 16) / 2**64
    assert not is_held_out("a", first - 1e-6) and is_held_out("a", first + 1e-6)


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["validation.share=0.1"], "need validation.every_steps"),
        (["validation.every_steps=5"], "needs either validation.path or validation.share"),
        (["validation.every_steps=5", "validation.share=0.1", "validation.path=x"], "not both"),
        (["validation.every_steps=0", "validation.share=0.1"], "every_steps = 0 must be at least 1"),
        (["validation.every_steps=5", "validation.share=1.0"], "share = 1.0 must be at least 0 and less than 1"),
        (["validation.every_steps=5", "validation.share=0.1", "train.precision=fp8_delayed"], "history of scales"),
    ],
)
def test_settings_that_do_not_belong_together_are_refused(recipe: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_held_out(load_config(recipe, overrides))


def test_a_share_that_holds_out_nothing_is_refused_with_the_numbers(go: Callable[..., Any]) -> None:
    with pytest.raises(DataError, match=r"validation\.share = 1e-06 holds out 0 of the 6 documents"):
        go("run", "validation.share=1e-6", "validation.every_steps=5")


def test_trackers_and_the_report_get_the_loss_of_each_agent_kind() -> None:
    from acc_megatron.observe.metrics import _scalars
    from acc_megatron.observe.run_section import _held_out

    rows: list[LoggedStep] = [
        {"step": step, "validation_loss": loss, "validation_loss_by_agent": {"sql": loss, "swe": 2 * loss}}
        for step, loss in ((2, 3.0), (4, 1.0), (6, 2.0))
    ]
    assert dict(_scalars(dict(rows[0]))) == {
        "step": 2.0, "validation_loss": 3.0, "validation_loss_by_agent/sql": 3.0, "validation_loss_by_agent/swe": 6.0,
    }  # fmt: skip
    text = "3.000 at step 2, lowest 1.000 at step 4, 2.000 at step 6 (sql 2.000, swe 4.000)"
    assert _held_out(rows) == text
    assert list(_scalars({"validation_loss": None, "validation_loss_by_agent": {}, "validation_best_step": None})) == []
    assert list(_scalars({"validation_best_step": 2})) == [("validation_best_step", 2.0)]
