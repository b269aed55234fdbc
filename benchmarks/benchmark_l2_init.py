"""l2_init on a CIFAR-10 batch against the eager lines of a random start in an l2 ball."""

import torch
from comparison import Comparison

import advkernels as ak

EPSILON = 128 / 255


def eager(delta: torch.Tensor, x: torch.Tensor) -> None:
    delta.normal_()
    radius = EPSILON * torch.rand(len(x), 1, 1, 1)
    delta.mul_(radius / delta.flatten(1).norm(dim=1).view(-1, 1, 1, 1))
    delta.copy_(torch.max(torch.min(delta, 1 - x), 0 - x))


def benchmark_l2_init(compare: Comparison) -> None:
    x = torch.rand(128, 3, 32, 32)
    rng = ak.PhiloxState(0)
    with ak.backend("reference"):
        expected = ak.l2_init(x, EPSILON, rng=ak.PhiloxState(0))
    assert torch.equal(ak.l2_init(x, EPSILON, rng=rng), expected)
    delta = torch.empty_like(x)
    contenders = {
        "advkernels": lambda: ak.l2_init_(delta, x, EPSILON, rng=rng),
        "eager": lambda: eager(delta, x),
    }
    compare(contenders, {"eager": 2.0}, rounds=100, calls=3)
