"""sign_step_ on every backend against the formula in plain PyTorch, bit for bit."""

import pytest
import torch
from cases import Case, bound, cases, images, place, same
from plain import sign_step

import advkernels as ak


@pytest.mark.parametrize("case", cases(), ids=str)
def test_sign_step_(case: Case, device: str, backend: str) -> None:
    generator = torch.Generator().manual_seed(0)
    delta, grad, x = images(case, device, generator)
    given, tables = zip(*(bound(case.bounds, scale, x, generator) for scale in (0.03, 0.1)), strict=True)
    lower, upper = (bound(case.bounds, scale, x, generator) for scale in (0.05, 1.0))
    mask = torch.rand(case.shape[0], generator=generator).to(device) > 0.3
    out = place(torch.full_like(x, float("nan")), case.layout, 3)

    stepped = sign_step(delta, grad, x, *(t.to(device) for t in (*tables, lower[1], upper[1]))).to(case.dtype)
    expected = torch.where(mask.view(-1, *[1] * (x.dim() - 1)), stepped, delta)
    result = ak.sign_step_(delta, grad, x, *given, lower[0], upper[0], mask=mask, out=out)

    assert result is delta
    assert same(delta, expected)
    assert same(out, (x.float() + expected.float()).to(case.dtype))


@pytest.mark.parametrize("delta_dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("other_dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_mixed_dtypes(delta_dtype: torch.dtype, other_dtype: torch.dtype, device: str, backend: str) -> None:
    generator = torch.Generator().manual_seed(1)
    delta = (0.1 * torch.randn(3, 3, 9, 9, generator=generator)).to(device, delta_dtype)
    grad = torch.randn(3, 3, 9, 9, generator=generator).to(device, other_dtype)
    x = torch.rand(3, 3, 9, 9, generator=generator).to(device)
    out = torch.empty(3, 3, 9, 9, dtype=other_dtype, device=device).to(memory_format=torch.channels_last)
    numbers = [torch.tensor(v, device=device) for v in (0.02, 0.1, 0.0, 1.0)]
    expected = sign_step(delta, grad, x, *numbers).to(delta_dtype)
    ak.sign_step_(delta, grad, x, 0.02, 0.1, out=out)
    assert same(delta, expected)
    assert same(out, (x + expected.float()).to(other_dtype))


def test_sign_step_leaves_delta(device: str, backend: str) -> None:
    delta, x = torch.zeros(2, 3, 4, 4, device=device), torch.full((2, 3, 4, 4), 0.5, device=device)
    stepped = ak.sign_step(delta, torch.ones_like(x), x, 0.1, 0.3)
    assert torch.equal(delta, torch.zeros_like(delta))
    assert torch.equal(stepped, torch.full_like(x, 0.1))


def test_full_mask_and_empty_mask(device: str, backend: str) -> None:
    x = torch.rand(3, 3, 5, 5, device=device)
    delta = torch.full_like(x, 5.0)  # outside of the ball: a masked sample is not even projected
    out = torch.empty_like(x)
    ak.sign_step_(delta, x.clone(), x, 0.1, 0.2, mask=torch.zeros(3, dtype=torch.bool, device=device), out=out)
    assert torch.equal(delta, torch.full_like(x, 5.0))
    assert torch.equal(out, x + 5.0)


def test_repeated_steps_stay_in_ball_and_box(device: str, backend: str) -> None:
    generator = torch.Generator().manual_seed(2)
    x = torch.rand(4, 3, 16, 16, generator=generator).to(device)
    delta = torch.zeros_like(x)
    for _ in range(20):
        ak.sign_step_(delta, torch.randn(x.shape, generator=generator).to(device), x, 2 / 255, 8 / 255)
    assert delta.abs().max() <= torch.tensor(8 / 255)
    assert (x.double() + delta.double()).min() >= -(2.0**-24)
    assert (x.double() + delta.double()).max() <= 1 + 2.0**-24
    assert delta.std() > 0.01


CUTS = {
    "halves of the channels": lambda buffer, role: buffer[:, 3 * (role % 2) : 3 * (role % 2) + 3, :20, :20],
    "every other sample": lambda buffer, role: buffer.view(6, 6, 20, 20)[role % 2 :: 2, :3],
    "rows cut short": lambda buffer, role: buffer[:, :3, :, role : role + 13],
}


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_parts_of_larger_tensors(cut: str, dtype: torch.dtype, device: str, backend: str) -> None:
    """Rows of memory as long as a plane, a sample or a line of pixels, of other lengths in every tensor."""
    generator = torch.Generator().manual_seed(0)
    results = []
    for name in ("reference", backend):
        generator.manual_seed(0)
        buffers = [torch.randn(3 if "sample" not in cut else 6, 6, 20, 20, generator=generator) for _ in range(4)]
        buffers = [buffer.to(device, dtype) for buffer in buffers]
        delta, grad, x, out = (CUTS[cut](buffer, role) for role, buffer in enumerate(buffers))
        mask = torch.tensor([True, False, True], device=device)
        rng = ak.PhiloxState(5, device)
        with ak.backend(name):
            ak.sign_step_(delta, grad, x, (0.1, 0.2, 0.3), 0.25, -1.0, 1.0, mask=mask, out=out)
            ak.sign_step_(delta, grad.contiguous(), x, 0.1, 0.25, -1.0, 1.0)
            ak.l2_step_(delta, grad, x, (0.1, 0.2, 0.3), 0.25, -1.0, 1.0, mask=mask, out=out)
            ak.uniform_init_(grad, x, (0.1, 0.2, 0.3), rng=rng)
            ak.l2_init_(grad[1:], x[1:], (0.1, 0.2, 0.3), rng=rng)
        results.append(buffers)
    for wanted, got in zip(*results, strict=True):
        assert torch.equal(wanted, got)
