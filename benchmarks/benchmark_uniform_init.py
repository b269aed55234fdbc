"""uniform_init on a CIFAR-10 batch against the report's eager lines."""

import torch
from comparison import Comparison

import advkernels as ak

EPSILON = 8 / 255


def eager(delta: torch.Tensor, x: torch.Tensor) -> None:
    delta.uniform_(-EPSILON, EPSILON)
    delta.copy_(torch.max(torch.min(delta, 1 - x), 0 - x))


def benchmark_uniform_init(compare: Comparison) -> None:
    x = torch.rand(128, 3, 32, 32)
    rng = ak.PhiloxState(0)
    with ak.backend("reference"):
        expected = ak.uniform_init(x, EPSILON, rng=ak.PhiloxState(0))
    assert torch.equal(ak.uniform_init(x, EPSILON, rng=rng), expected)
    delta = torch.empty_like(x)
    contenders = {
        "advkernels": lambda: ak.uniform_init_(delta, x, EPSILON, rng=rng),
        "eager": lambda: eager(delta, x),
    }
    compare(contenders, {"eager": 5.0}, rounds=100, calls=3)
