"""PEFT folders: import and export are inverse, peft reads them, vLLM's loader knows their names, merging adds them."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.in_process import acc_in_process
from support.peft_folders import ATTENTION, MLP, with_peft, write_peft_folder

ALL = (*ATTENTION, *MLP, "gate", "embed_tokens", "lm_head")
NORMS = ("input_layernorm", "post_attention_layernorm", "q_norm", "k_norm", "norm")


def shapes_of(hf: Path) -> dict[str, tuple[int, ...]]:
    from acc_megatron.checkpoint.huggingface import HuggingFaceFolder

    return HuggingFaceFolder(hf).weights.shapes()


@pytest.fixture(scope="module")
def hf(tmp_path_factory: pytest.TempPathFactory, make_hf_folder: Callable[..., Path]) -> Path:
    return make_hf_folder(tmp_path_factory.mktemp("base") / "hf", vocab_size=512)


def import_adapter(peft: Path, out: Path, base: Path) -> dict[str, Any]:
    done = acc_in_process("import", peft, "--out", out, "--base", base, "--precision", "float32", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_export_writes_the_bytes_of_the_imported_peft_folder(hf: Path, tmp_path: Path) -> None:
    peft = write_peft_folder(tmp_path / "peft", shapes_of(hf), ALL, trained=NORMS)
    made = import_adapter(peft, tmp_path / "adapter", hf)
    assert made["targets"] == ["attention", "embeddings", "experts", "head", "router"] and made["trained"] == ["norms"]
    done = acc_in_process("export", tmp_path / "adapter", "--out", tmp_path / "out", "--adapter", "--json")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "adapter_model.safetensors").read_bytes() == (
        peft / "adapter_model.safetensors"
    ).read_bytes()
    was, now = (json.loads((folder / "adapter_config.json").read_text()) for folder in (peft, tmp_path / "out"))
    assert (now["r"], now["lora_alpha"]) == (was["r"], was["lora_alpha"])
    assert sorted(now["target_modules"]) == sorted(was["target_modules"])
    assert sorted(now["modules_to_save"]) == sorted(was["modules_to_save"])
    assert json.loads(done.stdout)["vllm"] == "no: it has norms in full; serve the result of export --merge"


def test_a_merged_model_has_the_logits_that_peft_computes_with_the_exported_adapter(hf: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    pytest.importorskip("peft")
    trained = (*NORMS, "gate")
    targets = (*ATTENTION, *MLP, "embed_tokens", "lm_head")
    peft = write_peft_folder(tmp_path / "peft", shapes_of(hf), targets, trained=trained)
    import_adapter(peft, tmp_path / "adapter", hf)
    done = acc_in_process("import", hf, "--out", tmp_path / "base", "--precision", "float32")
    assert done.returncode == 0, done.stderr
    done = acc_in_process("export", tmp_path / "adapter", "--out", tmp_path / "out", "--adapter")
    assert done.returncode == 0, done.stderr
    merge = ("export", tmp_path / "adapter", "--out", tmp_path / "merged", "--merge")
    assert "has the base None, which is not here: give its checkpoint with --base" in acc_in_process(*merge).stderr
    done = acc_in_process(*merge, "--base", tmp_path / "base")
    assert done.returncode == 0, done.stderr
    options = {"experts_implementation": "eager"}
    ids = torch.arange(40)[None] * 11 % 512
    with torch.no_grad():
        base = AutoModelForCausalLM.from_pretrained(hf, **options)
        plain = base(ids).logits
        adapted = with_peft(base, tmp_path / "out").eval()(ids).logits
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", **options)(ids).logits
    assert float((adapted - plain).abs().max()) > 0.1
    assert float((merged - adapted).abs().max()) <= 1e-5 * float(adapted.abs().max())


def test_the_names_of_an_exported_adapter_are_those_that_vllm_reads(hf: Path, tmp_path: Path) -> None:
    """vLLM strips `base_model.model.` and `.lora_A.weight`, and looks for the rest among the modules of its model.

    vllm/lora/utils.py (parse_fine_tuned_lora_name), lora_model.py (check_unexpected_modules) and peft_helper.py.
    """
    peft = write_peft_folder(tmp_path / "peft", shapes_of(hf), (*ATTENTION, *MLP))
    import_adapter(peft, tmp_path / "adapter", hf)
    done = acc_in_process("export", tmp_path / "adapter", "--out", tmp_path / "out", "--adapter", "--json")
    assert json.loads(done.stdout)["vllm"] == "yes"
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert {"r", "lora_alpha", "target_modules"} <= config.keys() and not config["modules_to_save"]
    assert config["bias"] == "none" and not config["use_dora"] and isinstance(config["lora_alpha"], int)
    modules = set()
    for name in load_file(tmp_path / "out" / "adapter_model.safetensors"):
        match = re.fullmatch(r"base_model\.model\.(.+)\.lora_[AB]\.weight", name)
        assert match, name
        modules.add(match[1])
    # what vLLM's Qwen3-MoE packs into qkv_proj, o_proj and the experts' w1, w2 and w3
    layers = {re.sub(r"\.\d+", ".N", name) for name in modules}
    assert layers == {
        *(f"model.layers.N.self_attn.{matrix}" for matrix in ATTENTION),
        *(f"model.layers.N.mlp.experts.N.{matrix}" for matrix in MLP),
    }
    assert {name.rpartition(".")[2] for name in modules} == set(config["target_modules"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_rslora": True}, "use_rslora = True is not supported, only False is"),
        ({"rank_pattern": {"q_proj": 8}}, "rank_pattern = {'q_proj': 8} is not supported"),
        ({"peft_type": "IA3"}, "peft_type = 'IA3' is not supported, only 'LORA' is"),
        ({"r": 0}, "r = 0 must be a number greater than 0"),
        ({"r": 8}, r"has shape \(4, 32\), rank and base require \(8, 32\)"),
    ],
)
def test_a_peft_folder_that_is_not_plain_lora_is_refused_with_its_key(
    changes: dict[str, Any], message: str, hf: Path, tmp_path: Path
) -> None:
    from acc_megatron.checkpoint.peft_folder import PeftFolder
    from acc_megatron.errors import CheckpointError

    peft = write_peft_folder(tmp_path / "peft", shapes_of(hf), ATTENTION)
    config = json.loads((peft / "adapter_config.json").read_text())
    (peft / "adapter_config.json").write_text(json.dumps(config | changes))
    with pytest.raises(CheckpointError, match=message):
        PeftFolder(peft, shapes_of(hf))


def test_a_peft_folder_with_missing_unknown_or_infinite_tensors_is_refused_with_the_tensor(
    hf: Path, tmp_path: Path
) -> None:
    from acc_megatron.checkpoint.peft_folder import PeftFolder
    from acc_megatron.errors import CheckpointError

    peft = write_peft_folder(tmp_path / "peft", shapes_of(hf), ATTENTION)
    file = peft / "adapter_model.safetensors"
    tensors = load_file(file)
    name = "base_model.model.model.layers.1.self_attn.o_proj.lora_B.weight"
    save_file({key: value for key, value in tensors.items() if key != name}, file)
    with pytest.raises(CheckpointError, match=f"lacks {re.escape(name)}"):
        PeftFolder(peft, shapes_of(hf))
    save_file(tensors | {"base_model.model.model.layers.0.mlp.experts.lora_A.weight": torch.zeros(2, 2)}, file)
    with pytest.raises(CheckpointError, match=r"1 unknown tensors.*experts need one matrix each"):
        PeftFolder(peft, shapes_of(hf))
    save_file(tensors | {name: torch.full_like(tensors[name], float("nan"))}, file)
    with pytest.raises(CheckpointError, match=f"{re.escape(name)} has values that are NaN"):
        PeftFolder(peft, shapes_of(hf)).read(name)
