"""Parts that cannot be trained or frozen are refused with their key, and names of parts mean the right tensors."""

import pytest
from support.commands import ROOT

from acc_megatron.adapter.parts import part_of, targets, trained_parts
from acc_megatron.adapter.saved import SavedAdapter
from acc_megatron.compatibility import check_job
from acc_megatron.config import load_config
from acc_megatron.errors import ConfigError
from acc_megatron.model.families import FAMILIES

TINY = ROOT / "examples" / "tiny_cpu.toml"
BASE = ["parallel.context=1", "parallel.expert=1", "train.global_batch_rows=4"]
LORA = ["adapter.rank=4", "train.init_from=/base"]
DENSE = ["model.family=qwen3", "model.intermediate_size=128"]
DENSE += [f"model.{key}=0" for key in ("num_experts", "num_experts_per_tok", "moe_intermediate_size")]
DENSE += ["moe.load_balancing=none", "moe.load_balancing_coefficient=1e-3"]

REFUSED = [
    (["adapter.rank=-1"], "adapter.rank = -1 must be at least 1, or 0 for no adapter"),
    (["adapter.alpha=16", "adapter.dropout=0.1"], "adapter.alpha, adapter.dropout: needs adapter.rank of at least 1"),
    (["adapter.rank=4"], "adapter.rank needs train.init_from, the base"),
    ([*LORA, "adapter.alpha=0"], "adapter.alpha = 0.0 must be greater than 0"),
    ([*LORA, "adapter.dropout=1"], "adapter.dropout = 1.0 must be at least 0 and less than 1"),
    ([*LORA, "adapter.targets=[]"], "adapter.targets is empty"),
    ([*LORA, "adapter.targets=['qkv']"], "adapter.targets: unknown part 'qkv'; known parts: attention, q, k, v, o"),
    ([*LORA, "adapter.targets=['norms']"], "'norms' are vectors, which have no factors; name them in adapter.trained"),
    ([*LORA, "adapter.targets=['mlp']"], "adapter.targets: model.family = 'qwen3_moe' has no mlp; remove the name"),
    ([*LORA, "adapter.targets=['router']", "adapter.trained=['router']"], "'router' is in adapter.targets and in"),
    ([*LORA, "adapter.trained=['experts']"], "'experts' cannot be part of an adapter in full, only router, embeddings"),
    ([*LORA, "freeze.parts=['experts']"], "freeze.parts = ['experts'] has no effect with adapter.rank = 4"),
    ([*LORA, "adapter.targets=['head']", "adapter.dropout=0.1"], "adapter.dropout does not work with 'head'"),
    (
        [*LORA, "model.tie_word_embeddings=true", "adapter.targets=['embeddings']"],
        "'embeddings' with model.tie_word_embeddings = true would change the embedding but not the head",
    ),
    ([*LORA, "model.tie_word_embeddings=true", "adapter.trained=['head']"], "the head is the embedding; name 'embedd"),
    ([*LORA, "train.precision=fp8_delayed"], "train.precision = 'fp8_delayed' does not work with adapter.rank"),
    (["freeze.parts=['q']"], "freeze.parts: q cannot be frozen alone, because Megatron stores q, k and v in one"),
    (
        ["freeze.parts=['attention', 'experts', 'router', 'embeddings', 'head', 'norms']"],
        "freeze.parts names every part of the model: nothing would be trained",
    ),
    ([*DENSE, *LORA, "adapter.targets=['experts']"], "model.family = 'qwen3' has no experts; remove the name"),
]
REFUSED_ON_2 = [
    (
        [*LORA, "adapter.targets=['embeddings']", "parallel.pipeline=2"],
        "adapter.targets: with parallel.pipeline = 2 every stage must train something, but only embeddings would",
    ),
    (
        [*LORA, "adapter.targets=['experts']", "adapter.dropout=0.1", "parallel.tensor=2", "parallel.expert_tensor=2"],
        "adapter.dropout does not work with 'experts' in adapter.targets and parallel.expert_tensor = 2",
    ),
]


@pytest.mark.parametrize(
    ("overrides", "message", "world"), [(*row, 1) for row in REFUSED] + [(*row, 2) for row in REFUSED_ON_2]
)
def test_a_part_that_cannot_be_trained_or_frozen_is_refused_with_its_key(
    overrides: list[str], message: str, world: int
) -> None:
    with pytest.raises(ConfigError) as caught:
        check_job(load_config(TINY, [*BASE, *overrides]), world, has_gpu=False)
    assert message in str(caught.value)


def test_parameters_in_fp8_are_refused_with_frozen_parts() -> None:
    fp8 = ["train.precision=fp8_current", "fp8.param_gather=true", "parallel.distributed_optimizer=true"]
    fp8 += ["optimizer.kind=adamw", "freeze.parts=['experts']"]
    with pytest.raises(ConfigError, match=r"fp8\.param_gather does not work with freeze\.parts"):
        check_job(load_config(TINY, [*BASE, *fp8]), 1, has_gpu=True, capability=9.0)


@pytest.mark.parametrize("extra", [[], DENSE], ids=["MoE", "dense"])
def test_every_tensor_of_a_model_belongs_to_one_part_that_the_model_has(extra: list[str]) -> None:
    from acc_megatron.adapter.parts import parts_of_model

    config = load_config(TINY, extra)
    shapes = FAMILIES[config.model.family].weight_map(config.model).shapes()
    assert {part_of(name) for name in shapes} == parts_of_model(config.model)
    assert trained_parts(config) == parts_of_model(config.model) and not targets(config)


def test_attention_names_q_k_v_and_o_and_an_adapter_freezes_everything_else() -> None:
    config = load_config(TINY, [*LORA, "adapter.trained=['router']"])
    assert targets(config) == {"q", "k", "v", "o"} and trained_parts(config) == {"router"}
    shapes = FAMILIES[config.model.family].weight_map(config.model).shapes()
    saved = list(SavedAdapter(shapes, 4, targets(config), trained_parts(config)).tensors())
    assert len(saved) == config.model.num_hidden_layers * (4 * 2 + 1)
