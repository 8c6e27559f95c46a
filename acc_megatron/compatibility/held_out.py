"""Whether the settings in [validation] belong together."""

from acc_megatron.config import Config
from acc_megatron.errors import ConfigError
from acc_megatron.model.precision import PRECISIONS


def check_held_out(config: Config) -> None:
    """Raise ConfigError for settings that hold out nothing, hold out everything, or are never used."""
    v = config.validation
    if v.every_steps is None:
        if v.path is not None or v.share:
            raise ConfigError("validation.path and validation.share need validation.every_steps, such as 50")
        return
    if v.every_steps < 1:
        raise ConfigError(f"validation.every_steps = {v.every_steps} must be at least 1")
    if (v.path is None) == (v.share == 0.0):
        raise ConfigError("validation.every_steps needs either validation.path or validation.share, not both")
    if not 0.0 <= v.share < 1.0:
        raise ConfigError(f"validation.share = {v.share} must be at least 0 and less than 1")
    recipe = PRECISIONS[config.train.precision].recipe
    if recipe is not None and recipe.has_history:
        raise ConfigError(
            f"validation.every_steps does not work with train.precision = {config.train.precision!r}: a forward pass "
            "would change the history of scales, and with it the training; use 'fp8_current' or 'fp8_blockwise'"
        )
