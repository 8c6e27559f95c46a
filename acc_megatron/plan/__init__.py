"""Memory, time and cost of a run, predicted without a GPU; `acc_megatron.plan(...)` plans one recipe."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from acc_megatron.config import Config
    from acc_megatron.plan.planner import Plan
    from acc_megatron.plan.speeds import Speeds


def plan_recipe(
    config: "Config | str | os.PathLike[str]",
    overrides: Sequence[str] = (),
    *,
    gpus: int | None = None,
    machine: "str | Speeds" = "h100",
) -> "Plan":
    """Plan the layout of a recipe on `gpus` ranks, by default the smallest number that the layout allows.

    `config` is a recipe's path or a loaded one, to which no overrides can be given; `machine` is h100, h200, b200, or a
    file that `acc-megatron calibrate` wrote. Needs megatron-core, but no GPU. Raises ConfigError for settings that
    cannot work together.
    """
    from acc_megatron.config import Config, load_config
    from acc_megatron.errors import ConfigError
    from acc_megatron.mesh.layout import smallest_world
    from acc_megatron.plan.machine_file import read_machine
    from acc_megatron.plan.planner import check_plan, make_plan
    from acc_megatron.plan.workload import read_workload

    if isinstance(config, Config) and overrides:
        raise ConfigError("overrides need the path of a recipe: a loaded recipe has its overrides already")
    resolved = config if isinstance(config, Config) else load_config(Path(config).expanduser(), overrides)
    speeds = read_machine(machine) if isinstance(machine, str) else machine
    layout = check_plan(resolved, gpus or smallest_world(resolved.parallel), speeds)
    workload = read_workload(resolved)
    from acc_megatron.plan.real_model import built_parameters

    return make_plan(resolved, layout, speeds, workload, built_parameters(resolved, layout))


class _PlanPackage(ModuleType):
    """This package, which can also be called: its name is that of the public function."""

    def __call__(
        self,
        config: "Config | str | os.PathLike[str]",
        overrides: Sequence[str] = (),
        *,
        gpus: int | None = None,
        machine: str = "h100",
    ) -> "Plan":
        return plan_recipe(config, overrides, gpus=gpus, machine=machine)


sys.modules[__name__].__class__ = _PlanPackage
