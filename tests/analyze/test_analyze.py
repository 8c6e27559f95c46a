"""`analyze attention` and `analyze routing` of real checkpoints: independent references, layouts and pages."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.in_process import acc_in_process
from support.run_processes import start

from acc_megatron.analyze.task_documents import open_tasks
from acc_megatron.config import load_parallel
from acc_megatron.errors import ConfigError

ALL_AXES = ("parallel.context=2", "parallel.tensor=2", "parallel.expert=2")


def run(folder: Path, *arguments: object, world: int = 1) -> None:
    """Run `acc-megatron` with these arguments in `world` processes that must succeed."""
    started = start(folder / "logs", [str(argument) for argument in arguments], world=world)
    assert started.wait() == [0] * world, started.error_output()[-3000:]


@pytest.fixture(scope="module")
def after(make_hf_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Another random model of the same shape: (its Hugging Face folder, its checkpoint)."""
    folder = tmp_path_factory.mktemp("after")
    hf = make_hf_folder(folder / "hf", seed=7)
    run(folder, "import", hf, "--out", folder / "checkpoint", "--precision", "float32")
    return hf, folder / "checkpoint"


@pytest.fixture(scope="module")
def found(imported: Path, after: tuple[Path, Path], dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both analyses by one process."""
    out = tmp_path_factory.mktemp("one")
    for verb in ("attention", "routing"):
        run(out / verb, "analyze", verb, "--before", imported, "--after", after[1], "--task", f"all={dataset}",
            "--task", f"few={dataset}", "--documents", "3", "--out", out)  # fmt: skip
    return out


def test_expert_frequencies_are_those_of_transformers(found: Path, after: tuple[Path, Path], dataset: Path) -> None:
    from transformers import AutoModelForCausalLM

    from acc_megatron.data_tools.convert.dataset_folder import open_dataset

    result = json.loads((found / "routing.json").read_text())
    model = AutoModelForCausalLM.from_pretrained(after[0], dtype=torch.float32).eval()
    counts: list[torch.Tensor] = []
    opened = open_dataset(dataset)
    for number in result["tasks"]["all"]["documents"]:
        ids = torch.from_numpy(np.array(opened.document(number)[0], np.int64))[None]
        with torch.no_grad():
            logits = model(ids, output_router_logits=True).router_logits
        top = [layer.topk(model.config.num_experts_per_tok, -1).indices.flatten() for layer in logits]
        by_layer = torch.stack([torch.bincount(t, minlength=model.config.num_experts) for t in top])
        counts.append(by_layer)
    want = torch.stack(counts).sum(0).double()
    for layer, row in enumerate(result["routing"]["after"]["all"]):
        assert row["routed_tokens"] == int(want[layer].sum())
        # float32 noise may decide ties differently
        np.testing.assert_allclose(
            row["frequency"], (want[layer] / want[layer].sum()).numpy(), atol=2.1 / row["routed_tokens"]
        )


def test_attention_statistics_are_those_of_transformers_matrices(
    found: Path, after: tuple[Path, Path], dataset: Path
) -> None:
    from transformers import AutoModelForCausalLM

    from acc_megatron.data_tools.convert.dataset_folder import open_dataset

    result = json.loads((found / "attention.json").read_text())
    model = AutoModelForCausalLM.from_pretrained(after[0], dtype=torch.float32, attn_implementation="eager").eval()
    opened = open_dataset(dataset)
    task = result["tasks"]["all"]
    sums: dict[str, Any] = dict.fromkeys(
        ("distance_tokens", "histogram", "long_range_mass", "long_range_entropy_nats"), 0
    )
    num_queries = num_long = 0
    for number in task["documents"]:
        ids = torch.from_numpy(np.array(opened.document(number)[0], np.int64))[None]
        with torch.no_grad():
            attentions = model(ids, output_attentions=True).attentions
        maps = torch.stack(attentions)[:, 0].double().numpy()  # [layers, heads, i, j]
        i = np.arange(ids.shape[1])
        far = i[:, None] - i[None, :]
        sums["distance_tokens"] += (maps * far).sum((-1, -2))
        edges, below = np.arange(33) * task["span_tokens"] / 32, far >= 0
        shares = [[np.histogram(far[below], edges, weights=head[below])[0] for head in layer] for layer in maps]
        sums["histogram"] += np.array(shares)
        # queries from the first one with a key at this distance
        part = np.where(far >= task["long_range_tokens"], maps, 0)[:, :, task["long_range_tokens"] :]
        sums["long_range_mass"] += part.sum((-1, -2))
        p = part / part.sum(-1, keepdims=True)
        sums["long_range_entropy_nats"] -= (p * np.log(np.where(p > 0, p, 1))).sum((-1, -2))
        num_queries += ids.shape[1]
        num_long += part.shape[2]
    layers = result["attention"]["after"]["all"]
    assert all((layer["num_queries"], layer["num_long"]) == (num_queries, num_long) for layer in layers)
    for name, total in sums.items():
        want = total / (num_long if name.startswith("long") else num_queries)
        np.testing.assert_allclose([layer[name] for layer in layers], want, rtol=1e-4, atol=1e-7, err_msg=name)


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("verb", "world", "layout"),
    [
        ("attention", 2, ("parallel.context=2",)),
        ("attention", 2, ("parallel.tensor=2", "parallel.expert=2")),
        ("routing", 2, ("parallel.tensor=2", "parallel.expert=2")),
        pytest.param("routing", 2, ("parallel.context=2",), marks=pytest.mark.slow),
        pytest.param("attention", 4, ALL_AXES, marks=pytest.mark.slow),
        pytest.param("routing", 4, ALL_AXES, marks=pytest.mark.slow),
    ],
)
def test_context_tensor_and_expert_parallel_ranks_get_the_result_of_one_process(
    found: Path, imported: Path, dataset: Path, tmp_path: Path, verb: str, world: int, layout: tuple[str, ...]
) -> None:
    run(tmp_path, "analyze", verb, "--before", imported, "--task", f"all={dataset}", "--documents", "3",
        "--out", tmp_path, *layout, world=world)  # fmt: skip
    expected, got = (json.loads((folder / f"{verb}.json").read_text()) for folder in (found, tmp_path))
    for one, several in zip(expected[verb]["before"]["all"], got[verb]["before"]["all"], strict=True):
        assert one.keys() == several.keys()
        for key in one:
            tolerance = 3 / one["routed_tokens"] if verb == "routing" else 1e-6
            np.testing.assert_allclose(several[key], one[key], rtol=1e-4, atol=tolerance, err_msg=key)


def test_changes_and_divergence_follow_their_definitions(found: Path) -> None:
    from acc_megatron.analyze.routing import change, divergence

    assert divergence([0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]) == pytest.approx(1.0)
    # H(3/4, 1/4) - H(1/2, 1/2) / 2 = 2 - log2(3) 3/4 - 1/2
    assert divergence([1, 0], [0.5, 0.5]) == pytest.approx(1.5 - 0.75 * math.log2(3))
    assert divergence([0.25] * 4, [0.25] * 4) == 0
    assert change([1.0, 0.0], [0.25, 0.75]) == pytest.approx(0.75)
    result = json.loads((found / "routing.json").read_text())
    assert max(result["task_divergence_bits"]["before"]["all / few"]) == pytest.approx(0, abs=1e-12)
    changes = result["changes"]["after"]["all"]
    assert changes["by_layer"][changes["most_changed_layers"][0]] == max(changes["by_layer"]) > 0.05


def test_a_task_has_bins_over_its_own_longest_document_and_changes_are_means_over_heads(
    found: Path, dataset: Path
) -> None:
    from acc_megatron.data_tools.convert.dataset_folder import open_dataset

    result = json.loads((found / "attention.json").read_text())
    lengths = open_dataset(dataset).lengths
    for task in result["tasks"].values():
        assert task["span_tokens"] == max(lengths[number] for number in task["documents"])
        assert task["long_range_tokens"] == task["span_tokens"] // 4
    before, after = (
        np.array([layer["distance_tokens"] for layer in result["attention"][name]["all"]])
        for name in ("before", "after")
    )
    change = result["changes"]["after"]["all"]
    np.testing.assert_allclose(change["by_layer_tokens"], np.abs(after - before).mean(1))
    assert change["most_changed_layers"] == np.argsort(-np.abs(after - before).mean(1))[:3].tolist()


def test_trained_tokens_are_steps_times_rows_times_length(imported: Path, tmp_path: Path) -> None:
    from acc_megatron.analyze.checkpoint_forward import source_of

    assert source_of(imported)["trained_tokens"] is None  # not trained by this program
    (tmp_path / "manifest.json").write_text("{}")
    state = {"step": 38, "global_batch_rows": 4, "seq_length_tokens": 8192}
    (tmp_path / "state.json").write_text(json.dumps(state))
    assert source_of(tmp_path) == {"path": str(tmp_path), "trained_tokens": 38 * 4 * 8192}


def test_the_pages_are_self_contained(found: Path) -> None:
    for verb in ("attention", "routing"):
        page = (found / f"{verb}.html").read_text()
        assert page.count("<svg") >= 4 and "src=" not in page and "all" in page


def test_a_task_is_divided_by_agent_with_only_the_documents_of_each(dataset: Path) -> None:
    tasks = open_tasks([f"all={dataset}"], num_documents=9, max_tokens=350, seed=0, by_agent=True)
    assert [task.name for task in tasks] == ["all/search", "all/sql", "all/swe"]
    for task, agent in zip(tasks, ("search", "sql", "swe"), strict=True):
        own = [n for n, name in enumerate(task.dataset.samples["agent"].to_pylist()) if name == agent]
        fitting = [number for number in own if task.dataset.lengths[number] <= 350]
        assert sorted(task.documents) == fitting
        summary = task.summary()
        assert (summary["num_documents"], summary["left_out_for_length"]) == (2, 2 - len(fitting))


def test_checkpoints_of_other_shapes_and_tasks_with_unknown_tokens_are_rejected(
    imported: Path, dataset: Path, tmp_path: Path, make_hf_folder: Callable[..., Path]
) -> None:
    from acc_megatron.analyze.attention import analyze_attention
    from acc_megatron.analyze.routing import analyze_routing

    hf = make_hf_folder(tmp_path / "hf", num_hidden_layers=1, vocab_size=256)
    run(tmp_path, "import", hf, "--out", tmp_path / "small")
    tasks = open_tasks([f"a={dataset}"], num_documents=1, max_tokens=1000, seed=0)
    parallel = load_parallel(None, [])
    pair = {"before": imported, "after": tmp_path / "small"}
    shapes = "after has model.num_hidden_layers 1 and before has 2"
    with pytest.raises(ConfigError, match=shapes):
        analyze_attention(pair, tasks, parallel, long_range_tokens=None)
    with pytest.raises(ConfigError, match=shapes):
        analyze_routing(pair, tasks, parallel)
    with pytest.raises(
        ConfigError, match="256 token embeddings, but task a was converted with tokenizer tokenizer of "
    ):
        analyze_routing({"before": tmp_path / "small"}, tasks, parallel)


def test_a_dense_model_has_attention_to_analyze_but_no_routing(
    dataset: Path, tmp_path: Path, make_hf_folder: Callable[..., Path]
) -> None:
    hf = make_hf_folder(tmp_path / "hf", family="qwen3")
    run(tmp_path, "import", hf, "--out", tmp_path / "dense")
    task = ("--task", f"a={dataset}", "--documents", "1")
    run(tmp_path, "analyze", "attention", "--before", tmp_path / "dense", *task, "--out", tmp_path)
    assert len(json.loads((tmp_path / "attention.json").read_text())["attention"]["before"]["a"]) == 2
    done = acc_in_process("analyze", "routing", "--before", tmp_path / "dense", *task, "--out", tmp_path)
    assert done.returncode == 2 and "a dense model: it has no router to analyze" in done.stderr


def test_each_user_error_is_one_line(imported: Path, dataset: Path, tmp_path: Path) -> None:
    def error(verb: str, *arguments: object) -> str:
        done = acc_in_process("analyze", verb, "--before", imported, "--out", tmp_path, *arguments)
        assert done.returncode == 2
        return done.stderr

    task = ("--task", f"a={dataset}")
    for message, words in {
        "is not NAME=DATASET_DIR": ("--task", dataset),
        "no document of at most 3 tokens": (*task, "--max-tokens", "3"),
        "only parallel.KEY=VALUE": (*task, "train.seed=1"),
        "parallel.pipeline is 2": (*task, "parallel.pipeline=2"),
    }.items():
        text = error("routing", *words)
        assert message in text and text.startswith("error: ") and text.count("\n") == 1
    assert "--long-range-tokens" in error("attention", *task, "--long-range-tokens", "0")
