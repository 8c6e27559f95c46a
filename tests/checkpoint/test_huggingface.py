"""Import and export: logits equal transformers', tensors come back bitwise, foreign folders are refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import acc, good
from make_inputs import TINY_MODEL
from safetensors.torch import load_file, save_file

VARIANTS: dict[str, dict[str, Any]] = {
    "top-k normalised": {},
    "top-k not normalised": {"norm_topk_prob": False},
    "tied embeddings": {"tie_word_embeddings": True},
    "one key-value head": {"num_key_value_heads": 1, "head_dim": 16},
}


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_of_an_imported_model_equal_those_of_transformers(
    variant: str, make_hf_folder: Callable[..., Path], tmp_path: Path
) -> None:
    from acc_megatron.distributed import own_ranks, process_groups  # isort: split
    from megatron.core.packed_seq_params import PackedSeqParams
    from transformers import Qwen3MoeForCausalLM

    from acc_megatron.checkpoint.huggingface import HuggingFaceFolder, load_weights
    from acc_megatron.config import ParallelConfig
    from acc_megatron.model.qwen3_moe import build_model
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
    reference = Qwen3MoeForCausalLM.from_pretrained(path)
    with torch.no_grad():
        expected = torch.cat([reference(document[None]).logits[0] for document in ids.split(lengths)])
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("tied", [False, True])
def test_an_import_exports_every_tensor_bitwise_and_the_export_imports_again(
    tied: bool, make_hf_folder: Callable[..., Path], tmp_path: Path
) -> None:
    source = make_hf_folder(tmp_path / "hf", seed=1, tie_word_embeddings=tied)
    carried = {"generation_config.json": '{"temperature": 0.6}', "tokenizer.json": "{}"}
    for name, text in carried.items():
        (source / name).write_text(text)
    good(acc("import", source, "--out", tmp_path / "one", "--precision", "float32", "--json"))
    good(acc("export", tmp_path / "one", "--out", tmp_path / "export", "--json"))
    original, exported = tensors(source), tensors(tmp_path / "export")
    assert set(original) == set(exported)
    assert all(torch.equal(original[name], exported[name]) for name in original)
    for name, text in carried.items():
        assert (tmp_path / "export" / name).read_text() == text
    good(acc("import", tmp_path / "export", "--out", tmp_path / "two", "--precision", "float32", "--json"))
    good(acc("export", tmp_path / "two", "--out", tmp_path / "again", "--json"))
    again = tensors(tmp_path / "again")
    assert all(torch.equal(original[name], again[name]) for name in original)


def test_fused_experts_are_read_as_the_experts_one_by_one(make_hf_folder: Callable[..., Path], tmp_path: Path) -> None:
    from acc_megatron import cpu_backend

    cpu_backend.install()
    from acc_megatron.checkpoint.huggingface import HuggingFaceFolder
    from acc_megatron.checkpoint.weight_map import all_hf_names

    single = make_hf_folder(tmp_path / "single", vocab_size=64)
    state = tensors(single)
    fused = {name: tensor for name, tensor in state.items() if ".experts." not in name}
    for layer in range(TINY_MODEL["num_hidden_layers"]):  # type: ignore[call-overload]
        at = f"model.layers.{layer}.mlp.experts."
        experts = range(TINY_MODEL["num_experts"])  # type: ignore[call-overload]
        both = [torch.cat([state[f"{at}{e}.gate_proj.weight"], state[f"{at}{e}.up_proj.weight"]]) for e in experts]
        fused[f"{at}gate_up_proj"] = torch.stack(both)
        fused[f"{at}down_proj"] = torch.stack([state[f"{at}{e}.down_proj.weight"] for e in experts])
    (tmp_path / "fused").mkdir()
    save_file(fused, tmp_path / "fused" / "model.safetensors")
    (tmp_path / "fused" / "config.json").write_text((single / "config.json").read_text())
    folder = HuggingFaceFolder(tmp_path / "fused")
    for name in all_hf_names(folder.model):
        assert torch.equal(folder.tensor(name), state[name]), name


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


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "another architecture": (
        lambda f: _with(f, model_type="llama"),
        "model_type is 'llama'; only 'qwen3_moe' is built",
    ),
    "dense layers": (lambda f: _with(f, mlp_only_layers=[0]), "mlp_only_layers = [0] is not supported"),
    "scaled rope": (lambda f: _with(f, rope_parameters={"rope_type": "yarn"}), "rope_type = 'yarn' is not supported"),
    "a missing tensor": (_remove_tensor, "lacks 1 tensors, the first is model.layers.1.mlp.gate.weight"),
    "a wrong shape": (_shrink, "model.norm.weight give (7,), the model has (32,)"),
    "a cut file": (_cut, "model.safetensors is damaged"),
    "pickled weights": (_pickle, "model.safetensors is missing; only safetensors are read, never pickled weights"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_folder_that_cannot_be_imported_is_refused_by_one_line_naming_what_is_wrong(
    what: str, make_hf_folder: Callable[..., Path], tmp_path: Path
) -> None:
    from acc_megatron.checkpoint.exchange import import_folder
    from acc_megatron.errors import CheckpointError

    damage, message = DAMAGE[what]
    source = make_hf_folder(tmp_path / "hf", vocab_size=64)
    damage(source)
    with pytest.raises(CheckpointError) as caught:
        import_folder(source, tmp_path / "out", "float32")
    assert message in str(caught.value)
    assert not list(tmp_path.glob("out/step_*"))
