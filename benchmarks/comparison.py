"""Ratios of contenders timed in turn in one process, checked against goals and written to benchmarks/results."""

import json
import math
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from freefast.reporting import environment

RESULTS = Path(__file__).parent / "results"
Contenders = dict[str, Callable[[], object]]


def measure(contenders: Contenders, *, rounds: int, calls: int) -> dict[str, list[float]]:
    """Seconds a call, one number a round; the contenders take turns, so that they meet the same noise."""
    for call in contenders.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, call in contenders.items():
            start = time.perf_counter()
            for _ in range(calls):
                call()
            seconds[name].append((time.perf_counter() - start) / calls)
    return seconds


def summary(seconds: list[float]) -> dict[str, float]:
    """Median and percentiles in microseconds."""
    deciles = statistics.quantiles(seconds, n=10, method="inclusive")
    return {"median_us": statistics.median(seconds) * 1e6, "p10_us": deciles[0] * 1e6, "p90_us": deciles[-1] * 1e6}


class Comparison:
    """The contenders of one benchmark; the first one is ours."""

    def __init__(self, benchmark: Any, subject: str) -> None:
        self.benchmark, self.subject = benchmark, subject

    def __call__(self, contenders: Contenders, goals: dict[str, float], *, rounds: int, calls: int = 1) -> None:
        """Time all, write the result, and fail where a ratio to a baseline is under its goal."""
        ours, *baselines = contenders
        seconds = measure(contenders, rounds=rounds, calls=calls)
        medians = {name: statistics.median(values) for name, values in seconds.items()}
        ratios = {name: medians[name] / medians[ours] for name in baselines}
        self.benchmark.extra_info.update(ratios)
        self.benchmark.pedantic(contenders[ours], rounds=rounds, iterations=calls)
        times = {name: summary(values) for name, values in seconds.items()}
        write(self.subject, {"times": times, "ratios": ratios, "goals": goals, "rounds": rounds, "calls": calls})
        for name, goal in goals.items():
            assert ratios[name] >= goal, f"{self.subject}: {ratios[name]:.2f}x of {name}, wanted {goal}x"


def write(subject: str, result: dict[str, Any]) -> Path:
    """One file a subject, device and day; its path."""
    facts = environment.describe("cpu")
    device = re.sub(r"[^a-z0-9]+", "-", facts["cpu"].lower()).strip("-")
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{subject}_{device}_{facts['date'][:10]}.json"
    path.write_text(json.dumps({"subject": subject, **result, "environment": facts}, indent=2) + "\n")
    return path


def half_robust_epsilon(robust: Callable[[float], float], rounds: int = 10) -> float:
    """The epsilon, pixel units, that half of the samples withstand, to a point or in so many rounds of bisection.

    robust: robust accuracy at an epsilon
    """
    low, high = 1e-4, 0.5
    for _ in range(rounds):
        middle = math.sqrt(low * high)
        share = robust(middle)
        if abs(share - 0.5) < 0.01:
            break
        low, high = (middle, high) if share > 0.5 else (low, middle)
    return middle
