"""What the installed version of Transformer Engine supports; does not import it."""

from importlib import metadata

from acc_megatron.config import Config
from acc_megatron.errors import ConfigError
from acc_megatron.mesh.layout import Layout

# first version of Transformer Engine that supports a kind of context communication, and what happens before it
CONTEXT_COMMUNICATION = {
    "all_gather": ("2.18", "an assertion fails on packed rows"),
    "a2a+p2p": ("2.19", "packed rows lose fused attention, which is many times slower"),
}
DELAYED_CANNOT_RESUME = "2.18"  # refuses the pickled scales that a checkpoint contains


def check_engine(config: Config, layout: Layout, engine: str) -> None:
    """Raise ConfigError for settings that version `engine` of Transformer Engine does not support."""
    from packaging.version import Version  # the doctor imports this module and runs without it

    kind = config.parallel.context_communication
    first, problem = CONTEXT_COMMUNICATION.get(kind, (None, ""))
    if layout.context > 1 and first is not None and Version(engine) < Version(first):
        raise ConfigError(
            f"parallel.context_communication = {kind!r} needs Transformer Engine {first} or newer, {engine} is "
            f"installed: {problem}; use 'p2p'"
        )
    if config.train.precision == "fp8_delayed" and Version(engine) >= Version(DELAYED_CANNOT_RESUME):
        raise ConfigError(
            f"train.precision = 'fp8_delayed' needs a Transformer Engine older than {DELAYED_CANNOT_RESUME}, {engine} "
            "is installed: it refuses the scales in a checkpoint, so the run could not resume; use 'fp8_current'"
        )


def installed_engine() -> str | None:
    """Return the version of Transformer Engine in this environment, None without one."""
    try:
        return metadata.version("transformer_engine")
    except metadata.PackageNotFoundError:
        return None
