"""Import and export: logits equal transformers', tensors are unchanged bit by bit, unsupported folders are refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.import_memory import measure, measured_ranks, write_folder
from support.make_inputs import TINY_MODEL

# the longest document has 30 tokens, nearly twice the original window
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 16}
VARIANTS: dict[str, dict[str, Any]] = {
    "top-k normalised": {},
    "top-k not normalised": {"norm_topk_prob": False},
    "tied embeddings": {"tie_word_embeddings": True},
    "one key-value head": {"num_key_value_heads": 1, "head_dim": 16},
    "dense": {"family": "qwen3"},
    "dense, tied, YaRN": {"family": "qwen3", "tie_word_embeddings": True, "rope_parameters": YARN},
    "MoE, YaRN": {"rope_parameters": YARN},
}


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_of_an_imported_model_equal_those_of_transformers(
    variant: str, make_hf_folder: Callable[..., Path], tmp_path: Path
) -> None:
    from acc_megatron.mesh.process_groups import own_ranks, process_groups  # isort: split
    from megatron.core.packed_seq_params import PackedSeqParams
    from transformers import AutoModelForCausalLM

    from acc_megatron.checkpoint.huggingface import HuggingFaceFolder, load_weights
    from acc_megatron.config import ParallelConfig
    from acc_megatron.model.build import build_model
    from acc_megatron.model.transformer_config import transformer_config

    path = make_hf_folder(tmp_path / "hf", seed=3, vocab_size=512, **VARIANTS[variant])
    lengths = [5, 13, 30]
    ids = torch.randint(0, 512, (sum(lengths),), generator=torch.Generator().manual_seed(0))
    bounds = torch.tensor([0, 5, 18, 48], dtype=torch.int32)
    packed = PackedSeqParams(
        qkv_format="thd", cu_seqlens_q=bounds, cu_seqlens_kv=bounds, max_seqlen_q=48, max_seqlen_kv=48
    )
    positions = torch.cat([torch.arange(length) for length in lengths])
    with process_groups(ParallelConfig()) as layout:
        folder = HuggingFaceFolder(path)
        model = build_model(folder.model, transformer_config(folder.model, layout, precision="float32"))
        load_weights(folder, model, layout, own_ranks())
        with torch.no_grad():
            logits = model(ids[None], positions[None], None, packed_seq_params=packed)[0]
    reference = AutoModelForCausalLM.from_pretrained(path)
    with torch.no_grad():
        expected = torch.cat([reference(document[None]).logits[0] for document in ids.split(lengths)])
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)


def split(folder: Path, num_files: int, *, fused: bool = False) -> None:
    """Split a folder's one file into several with an index; `fused` stores experts as transformers 5 can do."""
    state = tensors(folder)
    if fused:
        for layer in range(TINY_MODEL["num_hidden_layers"]):
            at = f"model.layers.{layer}.mlp.experts."
            experts = [
                [state.pop(f"{at}{e}.{name}_proj.weight") for name in ("gate", "up", "down")]
                for e in range(TINY_MODEL["num_experts"])
            ]
            state[f"{at}gate_up_proj"] = torch.stack([torch.cat([gate, up]) for gate, up, _ in experts])
            state[f"{at}down_proj"] = torch.stack([down for _, _, down in experts])
    (folder / "model.safetensors").unlink()
    names, weight_map = sorted(state), {}
    for number in range(num_files):
        file = f"model-{number + 1:05d}-of-{num_files:05d}.safetensors"
        save_file({name: state[name] for name in names[number::num_files]}, folder / file, {"format": "pt"})
        weight_map |= dict.fromkeys(names[number::num_files], file)
    parameters = sum(tensor.numel() for tensor in state.values())
    index = {"metadata": {"total_parameters": parameters, "total_size": 4 * parameters}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")


@pytest.fixture(scope="module")
def qwen3() -> Any:
    from acc_megatron.data_tools.tokenizer.qwen_bpe import load_tokenizer

    return load_tokenizer("qwen3")


@pytest.mark.parametrize(
    ("family", "tied", "fused", "num_files"),
    [
        ("qwen3_moe", False, False, 1),
        ("qwen3_moe", True, False, 3),
        ("qwen3_moe", False, True, 2),
        ("qwen3_moe", True, True, 1),
        ("qwen3", True, False, 2),
    ],
)
def test_an_export_of_an_import_has_the_same_files_byte_for_byte(
    family: str,
    tied: bool,
    fused: bool,
    num_files: int,
    qwen3: Any,
    make_hf_folder: Callable[..., Path],
    tmp_path: Path,
) -> None:
    from acc_megatron.checkpoint.export_folder import export_folder
    from acc_megatron.checkpoint.import_folder import import_folder

    source = make_hf_folder(tmp_path / "hf", family=family, seed=1, vocab_size=64, tie_word_embeddings=tied)
    if num_files > 1 or fused:
        split(source, num_files, fused=fused)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json", "chat_template.jinja"):
        (source / name).write_text(f"[{name!r}]")
    import_folder(source, tmp_path / "checkpoint", "float32")
    export_folder(tmp_path / "checkpoint", tmp_path / "export", qwen3)
    names = {file.name for file in source.iterdir()}
    assert names == {file.name for file in (tmp_path / "export").iterdir()}
    assert len([name for name in names if name.endswith(".safetensors")]) == num_files
    for name in names:
        assert (source / name).read_bytes() == (tmp_path / "export" / name).read_bytes(), name


def test_an_export_replaces_an_earlier_export_but_no_folder_with_other_files(
    qwen3: Any, make_hf_folder: Callable[..., Path], tmp_path: Path
) -> None:
    from acc_megatron.checkpoint.export_folder import export_folder
    from acc_megatron.checkpoint.import_folder import import_folder
    from acc_megatron.errors import DataError

    import_folder(make_hf_folder(tmp_path / "hf", seed=1, vocab_size=64), tmp_path / "checkpoint", "float32")
    export_folder(tmp_path / "checkpoint", tmp_path / "export", qwen3, max_file_bytes=20_000)
    (tmp_path / "link").symlink_to("export")
    export_folder(tmp_path / "checkpoint", tmp_path / "link", qwen3)
    assert (tmp_path / "link").is_symlink() and len(list((tmp_path / "export").glob("*.safetensors"))) == 1
    (tmp_path / "export" / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match=r"export also contains thesis\.txt, which would be removed"):
        export_folder(tmp_path / "checkpoint", tmp_path / "export", qwen3)
    assert (tmp_path / "export" / "thesis.txt").read_text() == "mine"


def test_an_export_has_the_requested_dtype_expert_names_and_file_size(
    qwen3: Any, make_hf_folder: Callable[..., Path], tmp_path: Path
) -> None:
    from acc_megatron.checkpoint.export_folder import export_folder
    from acc_megatron.checkpoint.import_folder import import_folder

    source = make_hf_folder(tmp_path / "hf", seed=2, vocab_size=64)
    original = tensors(source)
    import_folder(source, tmp_path / "checkpoint", "float32")
    cut = tmp_path / "cut"
    export_folder(tmp_path / "checkpoint", cut, qwen3, precision="bfloat16", max_file_bytes=20_000)
    half = tensors(cut)
    assert set(half) == set(original)
    assert all(torch.equal(half[name], original[name].bfloat16()) for name in original)
    assert json.loads((cut / "config.json").read_text())["dtype"] == "bfloat16"
    files = sorted(cut.glob("*.safetensors"))
    index = json.loads((cut / "model.safetensors.index.json").read_text())
    assert len(files) > 2 and all(file.stat().st_size < 30_000 for file in files)
    assert index["metadata"]["total_size"] == sum(2 * tensor.numel() for tensor in original.values())
    assert index["weight_map"] == {name: file.name for file in files for name in load_file(file)}
    fused = tmp_path / "fused"
    export_folder(tmp_path / "checkpoint", fused, qwen3, experts="fused")
    gate_up = tensors(fused)["model.layers.1.mlp.experts.gate_up_proj"]
    at = "model.layers.1.mlp.experts.3."
    assert torch.equal(gate_up[3], torch.cat([original[f"{at}{half}_proj.weight"] for half in ("gate", "up")]))
    # an import of fused experts is the same model as an import of single experts
    import_folder(fused, tmp_path / "again", "float32")
    export_folder(tmp_path / "again", tmp_path / "single", qwen3, experts="single")
    single = tensors(tmp_path / "single")
    assert set(single) == set(original) and all(torch.equal(single[name], original[name]) for name in original)


@pytest.mark.slow
@pytest.mark.distributed
def test_a_rank_needs_no_more_memory_than_its_part_and_two_ranks_export_the_same_bytes(tmp_path: Path) -> None:
    write_folder(tmp_path / "small", gigabytes=0.0, hidden=8, num_files=1)
    base_mb = measured_ranks(1, "import", tmp_path / "small", "--out", tmp_path / "s")[0]
    write_folder(tmp_path / "hf", gigabytes=0.35, hidden=512, num_files=3, fused=True)
    found = measure(tmp_path, tmp_path / "hf", tensor=2, expert=2)
    total_mb = sum(file.stat().st_size for file in (tmp_path / "hf").glob("*.safetensors")) / (1 << 20)
    assert found["own_mb"] < 0.51 * total_mb
    assert found["import_peak_mb"] - base_mb < found["own_mb"] + 64 < total_mb - 64, (
        "reading all weights on a rank must exceed the limit"
    )
    assert not found["differing"]


def _with(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def _shrink(folder: Path) -> None:
    state = tensors(folder)
    state["model.norm.weight"] = torch.ones(7)
    save_file(state, folder / "model.safetensors")


def _remove_tensor(folder: Path) -> None:
    state = tensors(folder)
    del state["model.layers.1.mlp.gate.weight"]
    save_file(state, folder / "model.safetensors")


def _cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def _pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _lose_a_file(folder: Path) -> None:
    split(folder, 3)
    (folder / "model-00002-of-00003.safetensors").unlink()


def _index_of_pickles(folder: Path) -> None:
    index = {"weight_map": {"model.norm.weight": "pytorch_model-00001-of-00002.bin"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _add_a_bias(folder: Path) -> None:
    state = tensors(folder)
    state["model.layers.0.self_attn.q_proj.bias"] = torch.ones(32)
    save_file(state, folder / "model.safetensors")


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "another architecture": (
        lambda f: _with(f, model_type="llama"),
        "model_type 'llama' is not supported; supported: 'qwen3', 'qwen3_moe'",
    ),
    "dense layers": (lambda f: _with(f, mlp_only_layers=[0]), "mlp_only_layers = [0] is not supported"),
    "scaled rope": (
        lambda f: _with(f, rope_parameters={"rope_type": "dynamic"}),
        "rope_type = 'dynamic' is not supported",
    ),
    "an unknown number of experts": (
        lambda f: _with(f, num_experts=None, num_local_experts=None),
        "config.json has no num_experts",
    ),
    "a missing tensor": (_remove_tensor, "lacks 1 tensors, the first is model.layers.1.mlp.gate.weight"),
    "a wrong shape": (_shrink, "model.safetensors: model.norm.weight has shape (7,), config.json requires (32,)"),
    "a tensor too many": (
        _add_a_bias,
        "has 1 tensors that model type 'qwen3_moe' does not have, the first is model.layers.0",
    ),
    "a missing file": (_lose_a_file, "model-00002-of-00003.safetensors is missing"),
    "an index of pickles": (
        _index_of_pickles,
        "names pytorch_model-00001-of-00002.bin: only safetensors files are read",
    ),
    "a broken index": (
        lambda f: (f / "model.safetensors.index.json").write_text("[1"),
        "index.json is damaged: it has no weight_map",
    ),
    "a broken config": (lambda f: (f / "config.json").write_text("{"), "config.json is damaged"),
    "a cut file": (_cut, "model.safetensors is damaged"),
    "pickled weights": (
        _pickle,
        "model.safetensors is missing: only safetensors files are read, not pickled weights (the folder has "
        "pytorch_model.bin)",
    ),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_folder_that_cannot_be_imported_is_refused_with_one_line_that_names_the_problem(
    what: str, make_hf_folder: Callable[..., Path], tmp_path: Path
) -> None:
    from acc_megatron.checkpoint.import_folder import import_folder
    from acc_megatron.errors import CheckpointError

    damage, message = DAMAGE[what]
    source = make_hf_folder(tmp_path / "hf", vocab_size=64)
    damage(source)
    with pytest.raises(CheckpointError) as caught:
        import_folder(source, tmp_path / "out", "float32")
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert not list(tmp_path.glob("out/step_*"))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_refused_by_its_name_on_every_rank(
    value: float, make_hf_folder: Callable[..., Path], tmp_path: Path
) -> None:
    """The weight belongs to an expert that only the second of two ranks reads."""
    from support.run_processes import start

    hf = make_hf_folder(tmp_path / "hf", vocab_size=512)
    name = "model.layers.1.mlp.experts.3.down_proj.weight"
    weights = load_file(hf / "model.safetensors")
    weights[name][5, 7] = value
    save_file(weights, hf / "model.safetensors", {"format": "pt"})
    arguments = ["import", str(hf), "--out", str(tmp_path / "out"), "parallel.expert=2"]
    run = start(tmp_path / "output", arguments, world=2)
    assert run.wait() == [2, 2]
    for rank in range(2):
        assert f"{name} has 1 values that are NaN or infinite" in run.error_output(rank)
    assert not (tmp_path / "out" / "step_00000000").exists()
