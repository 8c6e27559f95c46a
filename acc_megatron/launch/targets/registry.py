"""The launch targets, by name. To add one, write a class that follows `target.Target` and list an instance here."""

from acc_megatron.launch.targets.kubernetes import KubernetesTarget
from acc_megatron.launch.targets.local import LocalTarget
from acc_megatron.launch.targets.slurm import SlurmTarget
from acc_megatron.launch.targets.target import Target

_ALL: tuple[Target, ...] = (LocalTarget(), SlurmTarget(), KubernetesTarget())
TARGETS: dict[str, Target] = {target.name: target for target in _ALL}
