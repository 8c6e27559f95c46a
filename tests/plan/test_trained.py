"""What an adapter or frozen parts leave to train: counted in the built model; a step is planned without the rest."""

import dataclasses

import pytest
from support.commands import ROOT
from support.make_inputs import TINY_MODELS

from acc_megatron.config import Config, ModelConfig, ParallelConfig, load_config
from acc_megatron.mesh.layout import build_layout
from acc_megatron.plan.parameters import Parameters, stage_parameters
from acc_megatron.plan.planner import Plan, make_plan
from acc_megatron.plan.trained import factor_parameters, trained_parameters

TINY = ROOT / "examples" / "tiny_cpu.toml"
LORA_30B = ROOT / "examples" / "qwen3_30b_a3b_lora_128k_h100.toml"
LORA = ("adapter.rank=4", "train.init_from=unset")
ALL = "adapter.targets=['attention', 'experts', 'router', 'embeddings', 'head']"


def config_of(family: str, *overrides: str, tied: bool = False) -> Config:
    config = load_config(TINY, overrides)
    sizes = {"family": family, **TINY_MODELS[family], "vocab_size": 512, "tie_word_embeddings": tied}
    return dataclasses.replace(config, model=ModelConfig(**sizes), moe=dataclasses.replace(config.moe))


@pytest.mark.parametrize(
    ("family", "overrides", "sizes", "tied"),
    [
        ("qwen3_moe", (*LORA, ALL, "adapter.trained=['norms']"), {}, False),
        ("qwen3_moe", (*LORA, ALL, "adapter.trained=['norms']"), {"tensor": 2, "expert": 2, "expert_tensor": 2}, False),
        ("qwen3_moe", (*LORA, "adapter.targets=['q', 'o']", "adapter.trained=['router']"), {"pipeline": 2}, False),
        ("qwen3", (*LORA, "adapter.targets=['mlp']", "adapter.trained=['embeddings']"), {"pipeline": 2}, True),
        ("qwen3_moe", ("freeze.parts=['experts', 'embeddings']",), {"tensor": 2, "expert": 2}, False),
    ],
)
def test_the_trained_parameters_are_those_of_the_built_model(
    family: str, overrides: tuple[str, ...], sizes: dict[str, int], tied: bool
) -> None:
    from acc_megatron.adapter.attach import factors_of, prepare_parameters
    from acc_megatron.model.build import build_chunks
    from acc_megatron.model.transformer_config import transformer_config
    from acc_megatron.plan.real_model import _fake_rank

    parallel = ParallelConfig(**sizes)
    world = 4 if sizes.get("expert_tensor") else max(sizes.values(), default=1)
    config = dataclasses.replace(config_of(family, *overrides, tied=tied), parallel=parallel)
    layout = build_layout(parallel, world)
    for stage in range(layout.pipeline):
        with _fake_rank(config, layout, stage * (layout.world // layout.pipeline)):
            import torch

            torch.cuda.current_device = lambda: torch.device("cpu")  # type: ignore[assignment,return-value]
            transformer = transformer_config(config.model, layout, precision="float32", parallel=parallel)
            chunks = build_chunks(config.model, transformer)
            prepare_parameters(config, layout, chunks)
        named = [(name, p) for chunk in chunks for name, p in chunk.named_parameters() if p.requires_grad]
        experts = sum(p.numel() for name, p in named if "experts" in name)
        total = sum(p.numel() for _, p in named)
        expected = Parameters(total - experts, experts, max(p.numel() for _, p in named))
        base = stage_parameters(config.model, layout, stage)
        counted = trained_parameters(config, layout, base, stage)
        assert (counted.dense, counted.experts) == (expected.dense, expected.experts), stage
        factors = sum(p.numel() for chunk in chunks for each in factors_of(chunk).values() for p in each.parameters())
        assert factor_parameters(config, layout, stage) == factors, stage


def plan_of(*overrides: str, gpus: int = 2) -> Plan:
    from acc_megatron.plan.machine_file import read_machine
    from acc_megatron.plan.workload import read_workload

    config = load_config(LORA_30B, overrides)
    return make_plan(config, build_layout(config.parallel, gpus), read_machine("h100"), read_workload(config))


def test_the_public_rerun_of_acc_fits_on_two_gpus_of_80_gb_and_says_why() -> None:
    from acc_megatron.plan.text_table import render_plan

    plan = plan_of()
    assert plan.fits and plan.machine.memory_bytes == 80e9
    per_layer = 16 * ((2048 + 4096) + 2 * (2048 + 512) + (4096 + 2048)) + 128 * 2048
    text = " ".join(render_plan(plan).split())
    assert f"factors of rank 16 of attention and all weights of router: {48 * per_layer:,} parameters (0.08%)" in text
    assert "the others have no gradients, no optimizer state and no products for gradients" in text
    full = plan_of("adapter.rank=0", "adapter.alpha=32", "adapter.targets=['attention']", "adapter.trained=[]")
    assert not full.fits and full.stages[0].memory.gradients + full.stages[0].memory.optimizer > 150e9
    assert plan.checkpoint_bytes == pytest.approx(14 * 48 * per_layer)


def test_a_step_of_frozen_weights_has_no_products_for_their_gradients() -> None:
    full = plan_of("adapter.rank=0", "adapter.trained=[]").time
    lora = plan_of("adapter.targets=['q']", "adapter.trained=[]").time
    # forward and input gradients instead of three products; factors of one matrix are below 1 %
    assert lora.arithmetic == pytest.approx(2 / 3 * full.arithmetic, rel=0.02)
    experts = plan_of("adapter.targets=['experts']", "adapter.trained=[]").time
    assert lora.arithmetic < experts.arithmetic < full.arithmetic
