"""l2_step_ on every backend: the float64 formula within float32's roundings, the reference's bits, the geometry."""

import math

import pytest
import torch
from cases import Case, bound, cases, images, place, same
from hypothesis import given, settings, strategies
from plain import l2_step, sample_norm
from torch import Tensor

import advkernels as ak

ROUNDING = 2.0**-24  # of float32


def close(got: Tensor, exact: Tensor, size: Tensor) -> bool:
    """Within 8 float32 roundings of numbers of this size, and one rounding into got's dtype; NaN in the same places.

    The roundings: step, sum, projection, both sides of the box, and what those before it do to the length.
    """
    info = torch.finfo(got.dtype)
    stored = exact.to(got.dtype).double()
    allowed = 8 * ROUNDING * size + info.eps * exact.abs() + info.smallest_normal * info.eps
    near = (got.double() - exact).abs() <= allowed
    return bool((near | (got.double() == stored) | (got.isnan() & exact.isnan())).all())


@pytest.mark.parametrize("case", cases()[::7], ids=str)  # a Triton kernel takes seconds to compile
def test_l2_step_(case: Case, device: str, backend: str) -> None:
    generator = torch.Generator().manual_seed(0)
    delta, grad, x = images(case, device, generator)
    bounds, tables = zip(*(bound(case.bounds, scale, x, generator) for scale in (0.3, 0.8, 0.05, 1.0)), strict=True)
    tables = tuple(table.to(device) for table in tables)
    mask = torch.rand(case.shape[0], generator=generator).to(device) > 0.3
    out = place(torch.full_like(x, float("nan")), case.layout, 3)
    before, expected, expected_out = delta.clone(), delta.clone(), torch.empty_like(out)

    result = ak.l2_step_(delta, grad, x, *bounds, mask=mask, out=out)
    with ak.backend("reference"):
        ak.l2_step_(expected, grad, x, *bounds, mask=mask, out=expected_out)

    assert result is delta
    assert same(delta, expected)
    assert same(out, expected_out)
    chosen = mask.view(-1, *[1] * (x.dim() - 1))
    exact = torch.where(chosen, l2_step(before, grad, x, *tables), before.double())
    assert close(delta, exact, 2 + before.double().abs() + x.double().abs())
    assert same(out, (x.float() + delta.float()).to(case.dtype))


def good(device: str, shape: tuple[int, ...] = (4, 3, 8, 8)) -> tuple[Tensor, Tensor, Tensor]:
    """A zero delta, a gradient, and images in the middle of the box."""
    generator = torch.Generator().manual_seed(3)
    grad = torch.randn(shape, generator=generator).to(device)
    return torch.zeros(shape, device=device), grad, torch.full(shape, 0.5, device=device)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_any_gradient_has_a_direction(scale: float, device: str, backend: str) -> None:
    """In float32 the squares of 1e-30 are zeros and those of 1e30 are infinite."""
    delta, grad, x = good(device)
    ak.l2_step_(delta, grad * scale, x, 0.25, 1.0)
    torch.testing.assert_close(sample_norm(delta.double()).flatten(), torch.full((4,), 0.25, device=device).double())
    torch.testing.assert_close(delta, 0.25 * grad / sample_norm(grad), rtol=1e-5, atol=0)


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf"), -float("inf")])
def test_no_direction_no_step(value: float, device: str, backend: str) -> None:
    delta, grad, x = good(device)
    delta += 0.01
    grad[0] = 0.0
    grad[0, 0, 0, 0] = value
    expected = ak.l2_step(delta, grad, x, 0.25, 1.0)
    assert torch.equal(expected[0], delta[0])
    assert not torch.isclose(expected[1:], delta[1:], rtol=0, atol=1e-4).all()


def test_epsilon_of_zero_keeps_nothing(device: str, backend: str) -> None:
    delta, grad, x = good(device)
    ak.l2_step_(delta, grad, x, 0.25, 0.0)
    assert torch.equal(delta, torch.zeros_like(delta))
    ak.l2_step_(delta, grad, x, 0.25, (0.5, 0.0, 0.5))
    assert torch.equal(delta[:, 1], torch.zeros_like(delta[:, 1]))
    assert (delta[:, 0] != 0).all()


def test_negative_alpha_steps_down(device: str, backend: str) -> None:
    delta, grad, x = good(device)
    assert torch.equal(ak.l2_step(delta, grad, x, -0.25, 1.0), -ak.l2_step(delta, grad, x, 0.25, 1.0))


def test_full_mask_keeps_every_bit(device: str, backend: str) -> None:
    delta, grad, x = good(device)
    delta += 5.0
    out, mask = torch.empty_like(x), torch.zeros(4, dtype=torch.bool, device=device)
    ak.l2_step_(delta, grad, x, 0.25, 0.5, mask=mask, out=out)
    assert torch.equal(delta, torch.full_like(x, 5.0))
    assert torch.equal(out, x + 5.0)


def test_l2_step_leaves_delta(device: str, backend: str) -> None:
    delta, grad, x = good(device)
    stepped = ak.l2_step(delta, grad, x, 0.25, 1.0)
    assert torch.equal(delta, torch.zeros_like(delta))
    assert (stepped != 0).all()


def test_semi_axes_per_channel_are_a_ball_in_pixels(device: str, backend: str) -> None:
    """Steps on normalised images with alpha / std and epsilon / std are the steps on the pixels."""
    std = torch.tensor([0.2, 0.5, 0.9], device=device).view(3, 1, 1)
    pixels, scaled = good(device), good(device)
    for _ in range(4):
        ak.l2_step_(*pixels, 0.25, 0.6)
        gradient_of_scaled = scaled[1] * std  # by the chain rule: pixels = scaled std
        ak.l2_step_(scaled[0], gradient_of_scaled, scaled[2] / std, 0.25 / std, 0.6 / std, 0.0 / std, 1.0 / std)
        torch.testing.assert_close(scaled[0] * std, pixels[0], rtol=1e-5, atol=1e-7)


@strategies.composite
def steps(draw: strategies.DrawFn) -> tuple[Tensor, Tensor, Tensor, float, float]:
    shape = draw(strategies.tuples(*[strategies.integers(1, 6)] * 3))
    generator = torch.Generator().manual_seed(draw(strategies.integers(0, 99)))
    scale = 10.0 ** draw(strategies.integers(-30, 20))
    delta, grad = (torch.randn(shape, generator=generator) for _ in range(2))
    size = strategies.floats(0, 4, width=32)
    return delta, grad * scale, torch.rand(shape, generator=generator), draw(size), draw(size)


@settings(max_examples=100, deadline=None)
@given(steps())
@pytest.mark.parametrize("name", ["reference", "native"])
def test_in_ball_and_box(name: str, given_arguments: tuple) -> None:
    """To one float32 rounding an element: of the ball's factor, and of x + delta."""
    delta, grad, x, alpha, epsilon = given_arguments
    with ak.backend(name):
        ak.l2_step_(delta, grad, x, alpha, epsilon)
    assert (sample_norm(delta.double()) <= epsilon * (1 + ROUNDING) + 1e-44 * math.sqrt(delta[0].numel())).all()
    assert (x.double() + delta.double()).min() >= -ROUNDING
    assert (x.double() + delta.double()).max() <= 1 + ROUNDING
