"""l2_init on every backend: the specified numbers, and their distribution in the ball."""

import math

import numpy as np
import pytest
import torch
from cases import Case, bound, cases, images, place, same
from plain import ball_point, sample_norm

import advkernels as ak

GILES = 2.0**-21  # relative: twice the most that a normal number of all tried was off by, for itself and for its norm


@pytest.mark.parametrize("case", cases()[::7], ids=str)  # a Triton kernel takes seconds to compile
def test_l2_init(case: Case, device: str, backend: str) -> None:
    generator = torch.Generator().manual_seed(0)
    _, _, x = images(case, device, generator)
    (epsilon, table), lower, upper = (bound(case.bounds, scale, x, generator) for scale in (0.5, 0.05, 1.0))
    seed, draw = 2**62 + 17, 2**33 + 5
    numbered = torch.arange(case.shape[0], device=device).flip(0) * 2**40
    results = []
    for name in ("reference", backend):
        rng, out = ak.PhiloxState(seed, device), place(torch.full_like(x, math.nan), case.layout, 1)
        rng.tensor[1] = draw
        with ak.backend(name):
            delta = ak.l2_init(x, epsilon, lower[0], upper[0], rng=rng, out=out)
            other = ak.l2_init(x, epsilon, lower[0], upper[0], rng=rng, sample_index=numbered)
        assert (rng.seed, rng.draw) == (seed, draw + 2)
        results.append((delta, out, other))
    assert all(same(one, other) for one, other in zip(*results, strict=True))

    delta, out, _ = results[1]
    assert same(out, (x.float() + delta.float()).to(case.dtype))
    features = math.prod(case.shape[1:])
    if delta.numel() > 1000:
        return
    points = [ball_point(list(range(n * features, (n + 1) * features)), n, seed, draw) for n in range(len(x))]
    exact = torch.tensor(np.array(points)).view(x.shape).to(device) * table.to(device).double()
    exact = torch.clamp(exact, lower[1].to(device).double() - x.double(), upper[1].to(device).double() - x.double())
    info = torch.finfo(case.dtype)
    allowed = (GILES + info.eps) * exact.abs() + 2.0**-22 * (1 + x.double().abs()) * exact.isfinite()
    near = (delta.double() - exact).abs() <= allowed
    assert (near | (delta.double() == exact) | (delta.isnan() & exact.isnan())).all()


def draws(device: str, samples: int, shape: tuple[int, ...], epsilon: float) -> torch.Tensor:
    """(samples, elements) float64 random starts, far from the box."""
    x = torch.zeros(samples, *shape, device=device)
    return ak.l2_init(x, epsilon, -9.0, 9.0, rng=ak.PhiloxState(8, device)).double().cpu().flatten(1)


def distance_from_uniform(values: torch.Tensor) -> float:
    """Kolmogorov-Smirnov distance from U(0, 1), times sqrt(n): above 1.95 once in 1,000 times; the seeds are fixed."""
    ordered, count = values.sort().values, len(values)
    steps = torch.arange(count + 1, dtype=torch.float64) / count
    above, below = (steps[1:] - ordered).max(), (ordered - steps[:-1]).max()
    return float(torch.maximum(above, below)) * math.sqrt(count)


def test_lengths_are_uniform(device: str, backend: str) -> None:
    lengths = sample_norm(draws(device, 4000, (3, 4, 5), 0.5)).flatten() / 0.5
    assert 0 <= lengths.min() < 0.001
    assert 0.999 < lengths.max() < 1
    assert distance_from_uniform(lengths) < 1.95


def test_directions_are_rotation_symmetric(device: str, backend: str) -> None:
    """In three dimensions every coordinate of a direction is uniform (Archimedes), along any axis."""
    delta = draws(device, 4000, (3,), 1.0)
    directions = delta / delta.norm(dim=1, keepdim=True)
    rotations = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64))[0]
    for axis in (*torch.eye(3, dtype=torch.float64), *rotations):
        assert distance_from_uniform((directions @ axis + 1) / 2) < 1.95
    covariance = directions.T @ directions / len(directions)
    # Mean 0 and covariance 1/3; 5 standard deviations of their estimates, or more.
    assert directions.mean(0).abs().max() < 5 / math.sqrt(3 * 4000)
    assert (covariance - torch.eye(3) / 3).abs().max() < 5 / math.sqrt(5 * 4000)


def test_elements_are_not_correlated(device: str, backend: str) -> None:
    delta = draws(device, 2000, (2, 4, 4), 1.0)
    correlation = torch.corrcoef(delta.T) - torch.eye(32)
    assert correlation.abs().max() < 5 / math.sqrt(2000)


def test_same_noise_in_every_batch_order_and_layout(device: str, backend: str) -> None:
    x = torch.rand(10, 3, 6, 6, device=device)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(4)).to(device)
    whole = ak.l2_init(x, 0.1, rng=ak.PhiloxState(5, device))
    shuffled = x[order].contiguous(memory_format=torch.channels_last)
    permuted = ak.l2_init(shuffled, 0.1, rng=ak.PhiloxState(5, device), sample_index=order)
    assert permuted.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(permuted, whole[order])


def test_epsilon_per_channel_is_an_ellipsoid(device: str, backend: str) -> None:
    x = torch.full((50, 3, 4, 4), 0.5, device=device)
    ball = ak.l2_init(x, 0.25, rng=ak.PhiloxState(6, device))
    scale = torch.tensor([0.5, 2.0, 1.0], device=device).view(3, 1, 1)  # powers of two round nothing
    assert torch.equal(ak.l2_init(x, 0.25 * scale, -9.0, 9.0, rng=ak.PhiloxState(6, device)), ball * scale)


def test_epsilon_of_zero(device: str, backend: str) -> None:
    x = torch.rand(3, 3, 4, 4, device=device)
    assert torch.equal(ak.l2_init(x, 0.0, rng=ak.PhiloxState(6, device)), torch.zeros_like(x))
