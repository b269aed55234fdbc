"""Time, memory and launches of steps."""

import math
import statistics
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from freefast.bench.limits import wait

_WARM_UP = {"cuda": 6, "cpu": 2}
"""Steps: on CUDA three op by op, the capture, replays."""
_ROUNDS = 3
"""Parts that the timed steps are split into."""
_ALONE = 5
"""Steps of which the host's part is timed."""
_PROFILED = 3
_LONGEST = 14
"""Kernels that a row names."""
_LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch")
"""And their variants, such as cudaLaunchKernelExC."""


def needed(count: int, device: torch.device) -> int:
    """Steps that `measure` takes."""
    return _WARM_UP[device.type] + count + 1 + (_ALONE + _PROFILED if device.type == "cuda" else 0)


def measure(steps: Iterator[Tensor], count: int, device: torch.device, seconds: float = math.inf) -> dict[str, Any]:
    """What a row says of the steps.

    count: steps to time, fewer where they would take longer than so many seconds

    steps: how many were timed
    step_ms: milliseconds of a step, the feeding of its batch included: the median of `rounds_ms`, each the mean over a
        part of the `count` steps that follow each other without waiting
    host_ms: milliseconds until the host has a step behind it that starts on an idle device, median; it waits for
        nothing but what the step itself asks the device for (a loss scale's overflow) and, past 1024 launches, for
        room in the queue. None on the CPU, where the host does all of the work
    finite: whether the losses are
    memory_mib: most memory that PyTorch has reserved on the device so far; None on the CPU
    launches: kernels, and graphs, that the host launches in a step
    kernels_ms: the device's work in a step; kernels: those that take longest
    """
    for _ in range(_WARM_UP[device.type] - 1):
        next(steps)
    count = max(int(min(seconds / _mean_time(steps, 1, device), count)), 1)
    rounds = min(_ROUNDS, count)
    sizes = [count // rounds + (number < count % rounds) for number in range(rounds)]
    times = [_mean_time(steps, size, device) for size in sizes]
    row: dict[str, Any] = {
        "steps": count,
        "step_ms": statistics.median(times) * 1e3,
        "rounds_ms": [seconds * 1e3 for seconds in times],
    }
    if device.type != "cuda":
        return row | {"host_ms": None, "finite": bool(next(steps).isfinite()), "memory_mib": None, "launches": None}
    row["host_ms"] = statistics.median(_host_time(steps, device) for _ in range(_ALONE)) * 1e3
    row["finite"] = bool(next(steps).isfinite())
    row["memory_mib"] = torch.cuda.max_memory_reserved(device) / 2**20
    return row | profile(steps, device)


def _mean_time(steps: Iterator[Tensor], count: int, device: torch.device) -> float:
    """Seconds of a step, of several that are queued behind each other."""
    wait(device)
    start = time.perf_counter()
    for _ in range(count):
        next(steps)
    wait(device)
    return (time.perf_counter() - start) / count


def _host_time(steps: Iterator[Tensor], device: torch.device) -> float:
    """Seconds until a step with nothing queued before it is launched."""
    wait(device)
    start = time.perf_counter()
    next(steps)
    return time.perf_counter() - start


def profile(steps: Iterator[Tensor], device: torch.device) -> dict[str, Any]:
    """Launches of a step, and the kernels that take most of the device's time."""
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profiler:
        for _ in range(_PROFILED):
            next(steps)
        wait(device)
    events = profiler.key_averages()
    kernels = sorted((event for event in events if event.self_device_time_total > 0), key=_device_time, reverse=True)
    return {
        "launches": sum(event.count for event in events if event.key.startswith(_LAUNCHES)) / _PROFILED,
        "kernels_ms": sum(map(_device_time, kernels)) / _PROFILED / 1e3,
        "kernels": [
            {"name": event.key[:90], "ms": _device_time(event) / _PROFILED / 1e3, "calls": event.count / _PROFILED}
            for event in kernels[:_LONGEST]
        ],
    }


def _device_time(event: Any) -> float:
    """Microseconds of an event's own work on the device."""
    return float(event.self_device_time_total)
