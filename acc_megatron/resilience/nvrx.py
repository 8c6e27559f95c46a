"""nvidia-resiliency-ext where it is there: heartbeats to its launcher, and its straggler reports; never required.

Under `ft_launcher` each rank tells its monitor after every step that it lives, so that the launcher restarts the job
when one does not. On GPU ranks whose kernels run slower than the others' are named every few minutes. Written against
the sources of 0.7; with that package nothing here has run on a GPU.
"""

import contextlib
import importlib.util
import os
from types import TracebackType
from typing import Any, Self

import torch

from acc_megatron.ranks import say

MONITOR_SOCKET = "FT_RANK_MONITOR_IPC_SOCKET"  # ft_launcher sets it for its ranks
REPORT_SECONDS, SLOW_BELOW = 300.0, 0.7  # a rank at less than this share of the best GPU's speed is a straggler


class ResiliencyExtension:
    """Around the training loop; inert outside ft_launcher and without the package."""

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
        """Around a step, whose kernels are then timed."""
        if self._detector is None:
            return contextlib.nullcontext()
        return self._detector.detection_section("step", profile_cuda=True)

    def after_step(self) -> None:
        """A heartbeat, and from time to time the stragglers; collective where stragglers are looked for."""
        if self._monitor is not None:
            self._monitor.send_heartbeat()
        if self._detector is None or (report := self._detector.generate_report_if_interval_elapsed()) is None:
            return
        slow = report.identify_stragglers(gpu_rel_threshold=SLOW_BELOW)["straggler_gpus_relative"]
        if slow:
            say(f"slower than {SLOW_BELOW:.0%} of the best GPU: {', '.join(map(str, slow))}")
