"""Where the last layer can compute supervised rows only."""

from acc_megatron.config import Config
from acc_megatron.errors import ConfigError
from acc_megatron.mesh.layout import Layout

EQUAL_ROWS = ("allgather", "hybridep")  # dispatchers that exchange the same number of rows on every rank


def check_last_layer(config: Config, layout: Layout) -> None:
    """Raise ConfigError for a dispatcher that cannot exchange as many rows as each rank's documents have."""
    if config.loss.last_layer_rows == "all":
        return
    dispatcher = config.moe.dispatcher
    if dispatcher in EQUAL_ROWS and layout.expert > 1 and layout.data > 1:
        raise ConfigError(
            f"loss.last_layer_rows = 'supervised' does not work with moe.dispatcher = {dispatcher!r} over parallel."
            f"expert = {layout.expert}: it exchanges equally many rows of each rank, and {layout.data} data-parallel "
            "ranks have different numbers of supervised rows; use moe.dispatcher = 'alltoall' or 'deepep'"
        )
