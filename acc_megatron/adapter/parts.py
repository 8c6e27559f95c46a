"""The parts of a model that [adapter] and [freeze] can name; does not import torch."""

from acc_megatron.config import Config, ModelConfig
from acc_megatron.errors import ConfigError

ATTENTION = ("q", "k", "v", "o")
PARTS = (*ATTENTION, "experts", "mlp", "router", "embeddings", "head", "norms")
IN_FULL = ("router", "embeddings", "head", "norms")  # parts that an adapter can contain in full
# the last name of a Hugging Face module, by its part; experts and the MLP of a dense model have equal names
LEAVES = {
    "q_proj": "q",
    "k_proj": "k",
    "v_proj": "v",
    "o_proj": "o",
    "gate": "router",
    "embed_tokens": "embeddings",
    "lm_head": "head",
}
MLP_LEAVES = ("gate_proj", "up_proj", "down_proj")


def part_of(hf_name: str) -> str:
    """Return the part of a Hugging Face tensor, for example "q" of `model.layers.0.self_attn.q_proj.weight`."""
    module = hf_name.removesuffix(".weight")
    leaf = module.rpartition(".")[2]
    if leaf in MLP_LEAVES:
        return "experts" if ".experts." in module else "mlp"
    if leaf in LEAVES:
        return LEAVES[leaf]
    assert "norm" in leaf, hf_name
    return "norms"


def leaves_of(part: str) -> tuple[str, ...]:
    """Return the last names of the Hugging Face modules of a part, as a PEFT folder's target_modules has them."""
    if part in ("experts", "mlp"):
        return MLP_LEAVES
    return tuple(leaf for leaf, own in LEAVES.items() if own == part)


def parts_of_model(model: ModelConfig) -> frozenset[str]:
    """Return the parts that a model has; a head that shares the embedding's weight is none."""
    absent = {"mlp"} if model.num_experts else {"experts", "router"}
    return frozenset(PARTS) - absent - ({"head"} if model.tie_word_embeddings else set())


def expand(names: list[str], key: str, model: ModelConfig) -> frozenset[str]:
    """Return the parts that a list of names means; raises ConfigError for a part that the model does not have."""
    found: set[str] = set()
    for name in names:
        if name != "attention" and name not in PARTS:
            raise ConfigError(f"{key}: unknown part {name!r}; known parts: attention, {', '.join(PARTS)}")
        found.update(ATTENTION if name == "attention" else (name,))
    if model.tie_word_embeddings and "head" in found:
        raise ConfigError(
            f"{key}: with model.tie_word_embeddings = true the head is the embedding; name 'embeddings' instead"
        )
    if missing := sorted(found - parts_of_model(model)):
        raise ConfigError(f"{key}: model.family = {model.family!r} has no {missing[0]}; remove the name")
    return frozenset(found)


def targets(config: Config) -> frozenset[str]:
    """Return the parts that get factors; none without an adapter."""
    if not config.adapter.rank:
        return frozenset()
    return expand(config.adapter.targets, "adapter.targets", config.model)


def trained_parts(config: Config) -> frozenset[str]:
    """Return the parts whose own weights are trained: all but [freeze], or adapter.trained if there is an adapter."""
    if config.adapter.rank:
        return expand(config.adapter.trained, "adapter.trained", config.model)
    return parts_of_model(config.model) - expand(config.freeze.parts, "freeze.parts", config.model)


def part_names(parts: frozenset[str]) -> list[str]:
    """Return the parts as a recipe names them: attention for all of q, k, v and o."""
    whole = set(ATTENTION) <= parts
    return (["attention"] if whole else []) + sorted(parts - (set(ATTENTION) if whole else set()))
