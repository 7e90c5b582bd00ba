"""Processor seconds, memory, and the speed of matrix products."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import resource
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch


def matrix_peak() -> float:
    """Floating-point operations per second of a large matrix product: the best of ten measurements."""
    a = torch.randn(1024, 1024)
    return 2 * 1024**3 / min(seconds(lambda: a @ a) for _ in range(10))


def seconds(action: Callable[[], Any]) -> float:
    """Processor seconds of one call."""
    gc.collect()
    start = time.process_time()
    action()
    return time.process_time() - start


def median_seconds(action: Callable[[int], Any], repeats: int) -> float:
    """Median of the seconds of an action that is given 1, 2, ..., after a call to warm up."""
    action(0)
    return statistics.median(seconds(partial(action, seed)) for seed in range(1, repeats + 1))


class PeakMemory:
    """How much the resident memory grew within the block, at its peak, in MiB; 0 where the system does not tell."""

    mib = 0.0

    def __enter__(self) -> PeakMemory:
        gc.collect()
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)  # return freed memory to the system
            Path("/proc/self/clear_refs").write_text("5")  # reset the peak
        self._start = self._mark()
        return self

    def __exit__(self, *_: object) -> None:
        self.mib = self._mark() - self._start

    @staticmethod
    def _mark() -> float:
        try:
            lines = Path("/proc/self/status").read_text().splitlines()
        except OSError:
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return next(float(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
