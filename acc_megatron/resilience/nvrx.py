"""Optional use of nvidia-resiliency-ext: heartbeats for its launcher, and reports of slow GPUs.

Under `ft_launcher` each rank sends a heartbeat after every step, and the launcher restarts the job when a heartbeat is
missing. On GPUs a report every few minutes names ranks whose kernels are slower than those of other ranks. Written
against the sources of version 0.7, and not yet run on a GPU with that package.
"""

import contextlib
import importlib.util
import os
from types import TracebackType
from typing import Any, Self

import torch

from acc_megatron.mesh.torchrun_environment import say

MONITOR_SOCKET = "FT_RANK_MONITOR_IPC_SOCKET"  # ft_launcher sets it for its ranks
REPORT_SECONDS, SLOW_BELOW = 300.0, 0.7  # a rank below this share of the fastest GPU's speed is a straggler


class ResiliencyExtension:
    """A context around the training loop, without effect outside ft_launcher and without the package."""

    def __enter__(self) -> Self:
        self._monitor: Any = None
        self._detector: Any = None
        if MONITOR_SOCKET in os.environ:
            from nvidia_resiliency_ext.fault_tolerance import RankMonitorClient

            self._monitor = RankMonitorClient()
            self._monitor.init_workload_monitoring()
        if torch.cuda.is_available() and importlib.util.find_spec("nvidia_resiliency_ext"):
            from nvidia_resiliency_ext.attribution import straggler

            self._detector = straggler.Detector
            self._detector.initialize(
                scores_to_compute=["relative_perf_scores"], gather_on_rank0=True, report_time_interval=REPORT_SECONDS
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._monitor is not None:
            self._monitor.shutdown_workload_monitoring()
        if self._detector is not None:
            self._detector.shutdown()

    def section(self) -> contextlib.AbstractContextManager[Any]:
        """A context around a step, in which kernels are timed."""
        if self._detector is None:
            return contextlib.nullcontext()
        return self._detector.detection_section("step", profile_cuda=True)

    def after_step(self) -> None:
        """Send a heartbeat; after the interval report stragglers, which is collective."""
        if self._monitor is not None:
            self._monitor.send_heartbeat()
        if self._detector is None or (report := self._detector.generate_report_if_interval_elapsed()) is None:
            return
        slow = report.identify_stragglers(gpu_rel_threshold=SLOW_BELOW)["straggler_gpus_relative"]
        if slow:
            say(f"ranks below {SLOW_BELOW:.0%} of the speed of the fastest GPU: {', '.join(map(str, slow))}")
