"""The checks of the selftest, in the order in which they run; a check imports torch when it is imported."""

from acc_megatron.common.registry import Registry
from acc_megatron.selftest.check import Check
from acc_megatron.selftest.checks.attention import Attention
from acc_megatron.selftest.checks.doctor import Doctor
from acc_megatron.selftest.checks.fp8_drift import Fp8Drift
from acc_megatron.selftest.checks.kernels import Kernels
from acc_megatron.selftest.checks.layouts import Layouts
from acc_megatron.selftest.checks.parity import Parity
from acc_megatron.selftest.checks.real_step import RealStep
from acc_megatron.selftest.checks.resume import Resume
from acc_megatron.selftest.checks.ring import Ring

_ALL: tuple[Check, ...] = (
    Doctor(), Ring(), Kernels(), Attention(), Layouts(), Fp8Drift(), Parity(), Resume(), RealStep(),
)  # fmt: skip
CHECKS: Registry[Check] = Registry("--only", {check.name: check for check in _ALL})
