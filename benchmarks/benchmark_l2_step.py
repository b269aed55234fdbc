"""l2_step_ on a CIFAR-10 batch against the eager lines of an l2 attack and torch.compile of them."""

import torch
from comparison import Comparison

import advkernels as ak

ALPHA, EPSILON = 15 / 255, 128 / 255


def norms(v: torch.Tensor) -> torch.Tensor:
    return v.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


def formula(delta: torch.Tensor, grad: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    d = delta + ALPHA * grad / norms(grad)
    d = d * (EPSILON / norms(d).clamp(min=EPSILON))
    return torch.max(torch.min(d, 1 - x), 0 - x)


def benchmark_l2_step(compare: Comparison) -> None:
    x, grad = torch.rand(128, 3, 32, 32), torch.randn(128, 3, 32, 32)
    delta = ak.l2_init(x, EPSILON, rng=ak.PhiloxState(0))
    torch.testing.assert_close(
        ak.l2_step(delta, grad, x, ALPHA, EPSILON), formula(delta, grad, x), rtol=1e-5, atol=1e-7
    )
    compiled = torch.compile(formula, fullgraph=True)
    contenders = {
        "advkernels": lambda: ak.l2_step_(delta, grad, x, ALPHA, EPSILON),
        "torch.compile": lambda: compiled(delta, grad, x),
        "eager": lambda: formula(delta, grad, x),
        "copies of the same bytes": lambda: (delta.copy_(x), delta.copy_(grad)),
    }
    compare(contenders, {"eager": 4.0}, rounds=200, calls=5)
