"""Whether [adapter] and [freeze] can work with the other settings; needs no torch."""

from acc_megatron.adapter.parts import ATTENTION, IN_FULL, expand, targets, trained_parts
from acc_megatron.config import AdapterConfig, Config
from acc_megatron.errors import ConfigError
from acc_megatron.mesh.layout import Layout

OUTSIDE = frozenset({"embeddings", "head", "norms"})  # the last norm only is outside of the layers, but has no factors


def check_adapter(config: Config, layout: Layout) -> None:
    """Raise ConfigError for parts that cannot be trained or frozen, or not with the other settings."""
    adapter = config.adapter
    if adapter.rank < 0:
        raise ConfigError(f"adapter.rank = {adapter.rank} must be at least 1, or 0 for no adapter")
    if adapter.rank:
        _check_factors(config)
        trained = targets(config) | trained_parts(config)
    else:
        _check_frozen(config)
        trained = trained_parts(config)
    _check_precision(config)
    if layout.pipeline > 1 and not trained - OUTSIDE:
        where = "adapter.targets" if adapter.rank else "freeze.parts"
        raise ConfigError(
            f"{where}: with parallel.pipeline = {layout.pipeline} every stage must train something, but only "
            f"{', '.join(sorted(trained))} would be trained, which the stages in the middle do not have; train a "
            "part of the layers too"
        )


def _check_factors(config: Config) -> None:
    adapter, model = config.adapter, config.model
    if not adapter.alpha > 0:
        raise ConfigError(f"adapter.alpha = {adapter.alpha} must be greater than 0")
    if not 0 <= adapter.dropout < 1:
        raise ConfigError(f"adapter.dropout = {adapter.dropout} must be at least 0 and less than 1")
    if config.freeze.parts:
        raise ConfigError(
            f"freeze.parts = {config.freeze.parts} has no effect with adapter.rank = {adapter.rank}, which freezes all "
            "parts but those in adapter.trained; remove it"
        )
    if config.train.init_from is None:
        raise ConfigError("adapter.rank needs train.init_from, the base: checkpoints of an adapter do not contain it")
    targeted, trained = targets(config), trained_parts(config)
    if not targeted:
        raise ConfigError("adapter.targets is empty: name a part, such as 'attention', or set adapter.rank = 0")
    if "norms" in targeted:
        raise ConfigError("adapter.targets: 'norms' are vectors, which have no factors; name them in adapter.trained")
    if both := sorted(targeted & trained):
        raise ConfigError(f"{both[0]!r} is in adapter.targets and in adapter.trained: remove it from one of them")
    if wrong := sorted(trained - set(IN_FULL)):
        raise ConfigError(
            f"adapter.trained: {wrong[0]!r} cannot be part of an adapter in full, only {', '.join(IN_FULL)} can; name "
            "it in adapter.targets, or train without an adapter and with freeze.parts"
        )
    if model.tie_word_embeddings and "embeddings" in targeted:
        raise ConfigError(
            "adapter.targets: 'embeddings' with model.tie_word_embeddings = true would change the embedding but not "
            "the head that shares its weight; name it in adapter.trained"
        )
    if adapter.dropout and "experts" in targeted and config.parallel.expert_tensor > 1:
        raise ConfigError(
            f"adapter.dropout does not work with 'experts' in adapter.targets and parallel.expert_tensor = "
            f"{config.parallel.expert_tensor}, whose ranks would drop different inputs of one token; set one of them "
            "to its default"
        )
    if adapter.dropout and "head" in targeted:
        raise ConfigError(
            "adapter.dropout does not work with 'head' in adapter.targets: the masked head takes the sum of weight and "
            "factors; set it to 0, or name 'head' in adapter.trained"
        )


def _check_frozen(config: Config) -> None:
    names = ", ".join(
        f"adapter.{key}" for key, value in vars(config.adapter).items() if value != getattr(AdapterConfig(), key)
    )
    if names:
        raise ConfigError(f"{names}: needs adapter.rank of at least 1")
    frozen = expand(config.freeze.parts, "freeze.parts", config.model)
    fused = frozen & set(ATTENTION[:3])
    if fused and len(fused) < 3:
        raise ConfigError(
            f"freeze.parts: {', '.join(sorted(fused))} cannot be frozen alone, because Megatron stores q, k and v in "
            "one parameter; name all three, or 'attention'"
        )
    if not trained_parts(config):
        raise ConfigError("freeze.parts names every part of the model: nothing would be trained")


def _check_precision(config: Config) -> None:
    key = "adapter.rank" if config.adapter.rank else "freeze.parts" if config.freeze.parts else None
    if key is None:
        return
    if config.fp8.param_gather:
        raise ConfigError(
            f"fp8.param_gather does not work with {key}: it stores only parameters in FP8 that the distributed "
            "optimizer updates, not frozen ones; set it to false"
        )
    if config.adapter.rank and config.train.precision == "fp8_delayed":
        raise ConfigError(
            "train.precision = 'fp8_delayed' does not work with adapter.rank: the history of its scales belongs to the "
            "base, which checkpoints of an adapter do not contain; use another FP8 recipe"
        )
