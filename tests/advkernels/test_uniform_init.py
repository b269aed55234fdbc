"""uniform_init on every backend: the specified numbers, their distribution, and what they do not depend on."""

import math

import numpy as np
import pytest
import torch
from cases import Case, bound, cases, images, place, same
from plain import uniform_number

import advkernels as ak


def plain_noise(x: torch.Tensor, seed: int, draw: int, epsilon: torch.Tensor, sample_index: list[int]) -> torch.Tensor:
    """U(-epsilon, epsilon) by the specification, an element at a time."""
    radius = epsilon.cpu().expand(x.shape).flatten().tolist()
    features = math.prod(x.shape[1:])
    indices = [n * features + within for n in sample_index for within in range(features)]
    numbers = [uniform_number(i, seed, draw, r) for i, r in zip(indices, radius, strict=True)]
    return torch.tensor(np.array(numbers, np.float32)).view(x.shape).to(x.device)


@pytest.mark.parametrize("case", [case for case in cases() if math.prod(case.shape) < 1000], ids=str)
def test_uniform_init(case: Case, device: str, backend: str) -> None:
    generator = torch.Generator().manual_seed(0)
    _, _, x = images(case, device, generator)
    epsilon, table = bound(case.bounds, 0.1, x, generator)
    lower, upper = (bound(case.bounds, scale, x, generator) for scale in (0.05, 1.0))
    seed, draw = 2**62 + 17, 2**33 + 5
    rng = ak.PhiloxState(seed, device)
    rng.tensor[1] = draw
    out = place(torch.full_like(x, float("nan")), case.layout, 1)

    noise = plain_noise(x, seed, draw, table.to(device), list(range(case.shape[0])))
    low, high = lower[1].to(device) - x.float(), upper[1].to(device) - x.float()
    expected = torch.clamp(noise, low, high).to(case.dtype)
    delta = ak.uniform_init(x, epsilon, lower[0], upper[0], rng=rng, out=out)

    assert same(delta, expected)
    assert same(out, (x.float() + expected.float()).to(case.dtype))
    assert (rng.seed, rng.draw) == (seed, draw + 1)


def test_sample_index(device: str, backend: str) -> None:
    x = torch.full((3, 3, 3, 3), 0.5, device=device)
    index = [7, 0, 2**40]
    delta = ak.uniform_init(x, 0.1, rng=ak.PhiloxState(3, device), sample_index=torch.tensor(index, device=device))
    assert torch.equal(delta, plain_noise(x, 3, 0, torch.tensor(0.1), index))


def test_same_noise_in_every_batch_order_and_layout(device: str, backend: str) -> None:
    x = torch.rand(10, 3, 6, 6, device=device)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(4)).to(device)
    whole = ak.uniform_init(x, 0.1, rng=ak.PhiloxState(5, device))
    shuffled = x[order].contiguous(memory_format=torch.channels_last)
    permuted = ak.uniform_init(shuffled, 0.1, rng=ak.PhiloxState(5, device), sample_index=order)
    assert permuted.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(permuted, whole[order])


def test_large_tensor_equals_plain_at_random_places(device: str, backend: str) -> None:
    x = torch.full((17, 3, 65, 67), 0.5, device=device)
    delta = ak.uniform_init(x, 0.25, rng=ak.PhiloxState(6, device)).flatten().cpu()
    for i in np.random.default_rng(0).integers(0, delta.numel(), 300):
        assert delta[i].item() == uniform_number(int(i), 6, 0, 0.25)


def test_distribution(device: str, backend: str) -> None:
    x = torch.full((100000,), 0.5, device=device)
    rng = ak.PhiloxState(8, device)
    first, second = (ak.uniform_init(x, 0.25, rng=rng).double().cpu() for _ in range(2))
    for delta in (first, second):
        assert -0.25 <= delta.min() < -0.2499
        assert 0.2499 < delta.max() < 0.25
        quantiles = torch.linspace(0, 1, 101, dtype=torch.float64)
        # Kolmogorov-Smirnov: 1.95 / sqrt(n) is exceeded once in 1,000 times; the seed is fixed.
        distance = (torch.quantile(delta, quantiles) - (quantiles - 0.5) / 2).abs().max() * 2
        assert distance < 1.95 / math.sqrt(delta.numel())
    assert abs(torch.corrcoef(torch.stack([first, second]))[0, 1]) < 0.02


def test_state_resumes(device: str, backend: str) -> None:
    x = torch.rand(2, 3, 4, 4, device=device)
    rng = ak.PhiloxState(9, device)
    ak.uniform_init(x, 0.1, rng=rng)
    saved = rng.state_dict()
    expected = ak.uniform_init(x, 0.1, rng=rng)
    other = ak.PhiloxState(0, device)
    other.load_state_dict(saved)
    assert torch.equal(ak.uniform_init(x, 0.1, rng=other), expected)


def test_seed_out_of_range() -> None:
    for seed in (-1, 2**63):
        with pytest.raises(ValueError, match="PhiloxState: seed"):
            ak.PhiloxState(seed)
