"""Import and export against transformers: equal logits, and the same bytes after a round trip."""

import dataclasses
from pathlib import Path
from typing import Any

from acc_megatron.mesh.process_groups import process_groups  # first: makes megatron run without CUDA

# isort: split
import torch
from megatron.core.packed_seq_params import PackedSeqParams
from safetensors import safe_open

from acc_megatron.checkpoint import locate, store
from acc_megatron.checkpoint.export_folder import export_folder
from acc_megatron.checkpoint.import_folder import import_folder
from acc_megatron.config import ModelConfig, ParallelConfig
from acc_megatron.data_tools.tokenizer.qwen_bpe import load_tokenizer
from acc_megatron.errors import AccError
from acc_megatron.model.build import build_model
from acc_megatron.model.transformer_config import DTYPES, transformer_config
from acc_megatron.selftest.accuracy import relative_difference, require
from acc_megatron.selftest.check import CheckFailed, Found, Skipped
from acc_megatron.selftest.place import GROUP_TIMEOUT_SECONDS, Place
from acc_megatron.selftest.tiny_run import NUM_EXPERTS, on_gpu, tiny_model

NUM_TOKENS = 192
FLOAT32_LIMIT = 1e-5
ROUNDING_FACTOR = 2.0  # our error in bfloat16 over that of transformers in bfloat16


class Parity:
    """A random Qwen3-MoE of transformers, imported by all ranks, run on each, and exported by all."""

    name = "parity"
    summary = "logits equal those of transformers, and an export has the bytes of the import"
    limit_seconds = 300.0
    advice = (
        "compare the versions in the JSON with constraints.txt; transformers or Transformer Engine may have changed"
    )

    def run(self, place: Place) -> Found:
        """Import, compare logits with float32 transformers, export, compare every tensor."""
        try:
            tokenizer = load_tokenizer("qwen3")
        except AccError as error:
            raise Skipped(str(error)) from None
        folder = place.folder / "work" / "parity"
        precision = "bfloat16" if on_gpu() else "float32"
        place.on_first_rank(lambda: _save_random(tiny_model(), DTYPES[precision], folder / "hf"))
        place.meet()
        expert = 2 if place.world % 2 == 0 else 1
        checkpoint = import_folder(folder / "hf", folder / "imported", precision, ParallelConfig(expert=expert))
        figures: dict[str, float] = {}
        with place.one_process():
            _compare_logits(folder / "hf", Path(checkpoint["checkpoint"]), precision, figures)
        place.meet()
        export_folder(folder / "imported", folder / "exported", tokenizer)
        num_equal = _count_equal(folder / "hf", folder / "exported")
        return Found(figures | {"tensors equal": num_equal}, f"{precision}, import with EP{expert} of {NUM_EXPERTS}")


def _save_random(model: ModelConfig, dtype: torch.dtype, path: Path) -> None:
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    torch.manual_seed(0)
    built: Any = Qwen3MoeForCausalLM(Qwen3MoeConfig(**{**dataclasses.asdict(model), "intermediate_size": 64}))
    with torch.no_grad():
        for name, parameter in built.named_parameters():
            if name.endswith("mlp.gate.weight"):
                parameter.normal_(0.0, 0.5)  # clear choices of experts
    built.to(dtype).save_pretrained(path)


def _compare_logits(hf: Path, checkpoint: Path, precision: str, figures: dict[str, float]) -> None:
    """Compare with transformers in float32; in bfloat16 the error of transformers itself is the measure."""
    from transformers import AutoModelForCausalLM

    device, model = torch.cuda.current_device(), tiny_model()
    tokens = torch.randint(0, model.vocab_size, (1, NUM_TOKENS), generator=torch.Generator().manual_seed(0)).to(device)
    with torch.no_grad():
        reference: Any = AutoModelForCausalLM.from_pretrained(hf, local_files_only=True, dtype=torch.float32)
        truth = reference.to(device)(tokens).logits[0].float()
        rounded = reference.to(DTYPES[precision])(tokens).logits[0].float()
        ours = _our_logits(checkpoint, model, precision, tokens)
    error = relative_difference(ours, truth)
    limit = FLOAT32_LIMIT
    if precision != "float32":
        limit = ROUNDING_FACTOR * relative_difference(rounded, truth)
    require("logits", error, limit, f"{precision} against transformers in float32", figures)


def _our_logits(checkpoint: Path, model: ModelConfig, precision: str, tokens: torch.Tensor) -> torch.Tensor:
    """Return `[tokens, vocab]` of one process."""
    with process_groups(ParallelConfig(), timeout_seconds=GROUP_TIMEOUT_SECONDS) as layout:
        transformer = transformer_config(model, layout, precision=precision)
        transformer.perform_initialization = False
        built = build_model(model, transformer).to(tokens.device, DTYPES[precision]).eval()
        store.load(locate.find(checkpoint), [built], None)
        bounds = torch.tensor([0, NUM_TOKENS], dtype=torch.int32, device=tokens.device)
        packed = PackedSeqParams(
            qkv_format="thd", cu_seqlens_q=bounds, cu_seqlens_kv=bounds, max_seqlen_q=NUM_TOKENS,
            max_seqlen_kv=NUM_TOKENS,
        )  # fmt: skip
        positions = torch.arange(NUM_TOKENS, device=tokens.device)[None]
        return built(tokens, positions, None, packed_seq_params=packed).reshape(NUM_TOKENS, -1).float()


def _count_equal(imported: Path, exported: Path) -> int:
    """Return the number of tensors if all are equal bit for bit; raises CheckFailed with the first that is not."""
    with safe_open(imported / "model.safetensors", "pt") as one, safe_open(exported / "model.safetensors", "pt") as two:
        names, others = set(one.keys()), set(two.keys())
        if names != others:
            raise CheckFailed(f"the export has {len(others)} tensors, the import {len(names)}: {min(names ^ others)}")
        for name in sorted(names):
            if not torch.equal(one.get_tensor(name), two.get_tensor(name)):
                raise CheckFailed(f"{name} differs after import and export")
    return len(names)
