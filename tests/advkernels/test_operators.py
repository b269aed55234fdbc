"""The operators as PyTorch sees them: opcheck, torch.compile, versions, meta tensors."""

from collections.abc import Callable

import pytest
import torch

import advkernels as ak
from advkernels.schemas import SCHEMAS

SHAPE = (3, 3, 5, 5)


def arguments(name: str, device: str) -> tuple:
    """Example arguments of an operator."""
    x = torch.rand(SHAPE, device=device)
    delta, grad, out = torch.zeros_like(x), torch.randn_like(x), torch.empty_like(x)
    bound = {"values": float, "tensors": lambda v: torch.full((1, 3), v, device=device)}
    operator, _, overload = name.partition(".")
    if operator in ("sign_step_", "l2_step_"):
        mask = torch.tensor([True, False, True], device=device)
        return delta, grad, x, [bound[overload](v) for v in (0.1, 0.2, 0.0, 1.0)], mask, out
    if operator in ("uniform_init_", "l2_init_"):
        index = torch.arange(3, device=device)
        return delta, x, ak.PhiloxState(0, device).tensor, [bound[overload](v) for v in (0.2, 0.0, 1.0)], index, out
    if operator == "augment_":
        images = torch.randint(0, 256, (7, *SHAPE[1:]), dtype=torch.uint8, device=device)
        index = torch.tensor([6, 0, 3], device=device)
        return out, images, index, ak.PhiloxState(0, device).tensor, [bound[overload](v) for v in (0.5, 0.2)], 4, True
    if operator in ROW_OPERATORS:
        return row_arguments(operator, device)
    params = [torch.randn(7, device=device, dtype=torch.bfloat16), torch.randn(3, 2, device=device)]
    return (
        params,
        [torch.randn_like(p) for p in params],
        [params[0].float(), torch.empty(0, device=device)],
        [torch.zeros_like(p, dtype=torch.float32) for p in params],
        [torch.zeros((), dtype=torch.int64, device=device) for _ in params],
        torch.tensor(0.1, device=device),
        torch.tensor(0.5, device=device),
        torch.tensor(0.0, device=device),
        0.9, 0.0, 5e-4, True, False,
    )  # fmt: skip


ROW_OPERATORS = ("batch_moments_", "normalize_relu_", "normalize_relu_sums_", "normalize_relu_backward_")


def row_arguments(operator: str, device: str) -> tuple:
    out, x, other = (torch.randn(7, 3, device=device) for _ in range(3))
    mean, variance, weight, bias = columns = [torch.rand(3, device=device) for _ in range(4)]
    match operator:
        case "batch_moments_":
            return mean, variance, out, weight, bias, torch.tensor(0, device=device), x, other, 0.1
        case "normalize_relu_":
            return out, torch.empty_like(x), x, other, *columns, 1e-5
        case "normalize_relu_sums_":
            return torch.empty(2, 3, device=device), other, x, *columns, 1e-5
    return out, other, torch.randn_like(x), x, *columns, torch.randn(2, 3, device=device), 1e-5


@pytest.mark.parametrize("name", SCHEMAS)
def test_opcheck(name: str, device: str) -> None:
    packet, _, overload = name.partition(".")
    operator = getattr(getattr(torch.ops.advkernels, packet), overload or "default")
    torch.library.opcheck(operator, arguments(name, device))


Pair = tuple[torch.Tensor, torch.Tensor]


def linf_attack(grad: torch.Tensor, x: torch.Tensor, rng: ak.PhiloxState) -> Pair:
    adversarial = torch.empty_like(x)
    delta = ak.uniform_init(x, (0.1, 0.2, 0.3), rng=rng)
    ak.sign_step_(delta, grad, x, 0.1, 0.2, out=adversarial)
    return delta, adversarial * 2


def l2_attack(grad: torch.Tensor, x: torch.Tensor, rng: ak.PhiloxState) -> Pair:
    adversarial = torch.empty_like(x)
    delta = ak.l2_init(x, (0.1, 0.2, 0.3), rng=rng)
    ak.l2_step_(delta, grad, x, 0.1, 0.2, out=adversarial)
    return delta, adversarial * 2


@pytest.mark.parametrize("attack", [linf_attack, l2_attack])
def test_compile_fullgraph(attack: Callable[..., Pair], device: str, backend: str) -> None:
    grad, x = torch.randn(SHAPE, device=device), torch.rand(SHAPE, device=device)
    torch.compiler.reset()
    compiled = torch.compile(attack, fullgraph=True)
    rngs = [ak.PhiloxState(1, device) for _ in range(2)]
    for draw in range(2):
        expected, got = attack(grad, x, rngs[0]), compiled(grad, x, rngs[1])
        # The compiler may contract u * (2 eps) - eps of the reference into a fused multiply-add: one float32 rounding.
        tolerance = 2.0**-24 if backend == "reference" else 0.0
        for one, other in zip(expected, got, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=2 * tolerance)
        assert rngs[1].draw == draw + 1


def test_compile_with_tensor_bounds(device: str, backend: str) -> None:
    def step(delta: torch.Tensor, grad: torch.Tensor, x: torch.Tensor, epsilon: torch.Tensor) -> torch.Tensor:
        return ak.sign_step(delta, grad, x, 0.1, epsilon)

    torch.compiler.reset()
    tensors = [torch.zeros(SHAPE, device=device), torch.randn(SHAPE, device=device), torch.rand(SHAPE, device=device)]
    epsilon = torch.tensor([0.05, 0.1, 0.2], device=device)
    compiled = torch.compile(step, fullgraph=True)
    assert torch.equal(step(*tensors, epsilon), compiled(*tensors, epsilon))


def test_meta_tensors_run_without_data() -> None:
    x = torch.empty(SHAPE, device="meta", dtype=torch.float16)
    delta = ak.uniform_init(x, 0.1, rng=ak.PhiloxState(0, "meta"))
    assert delta.is_meta
    assert ak.sign_step(delta, x.clone(), x, 0.1, 0.2).dtype == torch.float16
    images, index = torch.empty((9, 3, 4, 5), dtype=torch.uint8, device="meta"), torch.zeros(2, dtype=torch.int64)
    batch = ak.augment(images, index.to("meta"), 0.5, 0.2, rng=ak.PhiloxState(0, "meta"), dtype=torch.float16)
    assert batch.shape == (2, 3, 4, 5)
    assert ak.l2_step(ak.l2_init(x, 0.1, rng=ak.PhiloxState(0, "meta")), x.clone(), x, 0.1, 0.2).is_meta


def batch_of_floats(images: torch.Tensor, index: torch.Tensor, rng: ak.PhiloxState) -> torch.Tensor:
    return ak.augment(images, index, (0.1, 0.2, 0.3), 0.5, rng=rng)


def batch_of_tensors(images: torch.Tensor, index: torch.Tensor, rng: ak.PhiloxState) -> torch.Tensor:
    mean = torch.tensor([0.1, 0.2, 0.3], device=images.device)
    out = torch.empty((len(index), *images.shape[1:]), device=images.device)
    return ak.augment(images, index, mean, 0.5, rng=rng, padding=1, flip=False, out=out)


@pytest.mark.parametrize(
    ("batch", "dynamic"), [(batch_of_floats, False), (batch_of_floats, True), (batch_of_tensors, False)]
)
def test_compile_augment_fullgraph(
    batch: Callable[..., torch.Tensor], dynamic: bool, device: str, backend: str
) -> None:
    torch.compiler.reset()
    images = torch.randint(0, 256, (7, *SHAPE[1:]), dtype=torch.uint8, device=device)
    index, rng = torch.tensor([6, 0, 3], device=device), ak.PhiloxState(1, device)
    compiled = torch.compile(batch, fullgraph=True, dynamic=dynamic)
    for epoch in range(2):
        rng.seek(epoch)
        # On a GPU the compiler's divisions are approximations, each 2 units in the last place off.
        tolerance = 2.0**-20 if backend == "reference" and device == "cuda" else 0.0
        torch.testing.assert_close(compiled(images, index, rng), batch(images, index, rng), rtol=0, atol=tolerance)
        assert rng.draw == epoch


@pytest.mark.parametrize("step", [ak.sign_step_, ak.l2_step_])
def test_saved_tensor_that_was_stepped_is_noticed(step: Callable, device: str, backend: str) -> None:
    """autograd's version counter sees the in-place write, as for every in-place operation of PyTorch."""
    weight = torch.ones(SHAPE, device=device, requires_grad=True)
    delta, x = torch.rand(SHAPE, device=device), torch.rand(SHAPE, device=device)
    product = (weight * delta).sum()
    step(delta, x.clone(), x, 0.1, 0.2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()
