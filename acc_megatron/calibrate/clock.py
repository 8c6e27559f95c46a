"""The clock of measurements."""

import time

import torch


def now() -> float:
    """Seconds: CPU time of this process, or wall time after a synchronisation where there is a GPU.

    CPU time does not grow while other programs use the processor, nor while a process waits for another one.
    """
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()
