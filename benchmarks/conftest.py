"""Fixtures of the benchmarks."""

from typing import Any

import pytest
import torch
from comparison import Comparison


@pytest.fixture
def compare(benchmark: Any, request: pytest.FixtureRequest) -> Comparison:
    """A comparison named after the benchmark function."""
    return Comparison(benchmark, request.node.name.removeprefix("benchmark_"))


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
