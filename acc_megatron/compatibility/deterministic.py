"""Whether a run with `train.deterministic` can repeat its results bit for bit; needs no torch."""

import os
from collections.abc import Mapping

from acc_megatron.config import Config
from acc_megatron.errors import ConfigError
from acc_megatron.mesh.deterministic import VARIABLES


def check_deterministic(config: Config) -> None:
    """Raise ConfigError for settings that let the order of sums change between runs."""
    if config.train.deterministic and config.moe.dispatcher in ("deepep", "hybridep"):
        raise ConfigError(
            f"train.deterministic does not work with moe.dispatcher = {config.moe.dispatcher!r}, whose order of sums "
            "is not documented: use 'alltoall'"
        )


def check_variables(config: Config, environment: Mapping[str, str] = os.environ) -> None:
    """Raise ConfigError for variables of this process that let the order of sums change between runs."""
    for name, accepted in VARIABLES.items() if config.train.deterministic else ():
        values = environment.get(name, accepted[0]).split(",")
        wrong = [value for value in values if value not in accepted]
        if wrong:
            raise ConfigError(
                f"train.deterministic: the environment variable {name} is {environment[name]!r}, but only "
                f"{' or '.join(accepted)} gives the same bits in every run: change it, or run 'unset {name}'"
            )
