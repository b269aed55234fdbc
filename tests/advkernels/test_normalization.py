"""BatchNorm and ReLU on every backend: elements with the reference's bits, sums as float64's; beside PyTorch's own."""

import copy
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from rows import DTYPES, EPS, SHAPES, check_moments, check_sums, gradient, images, moments, normalized, sums
from torch import Tensor
from torch.autograd import forward_ad

import advkernels as ak
from advkernels.dispatch import pick

REFERENCE = partial(pick, "reference")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_moments(shape: tuple[int, int], dtype: torch.dtype, device: str, backend: str) -> None:
    given = images(shape, dtype, device)
    for with_residual, running in ((False, True), (True, True), (True, False)):
        found = moments(partial(pick, backend), given, with_residual, running)
        check_moments(found, given, with_residual, running)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_elements_have_the_references_bits(
    shape: tuple[int, int], dtype: torch.dtype, device: str, backend: str
) -> None:
    operators = partial(pick, backend)
    for offset in (0, 1):
        given = images(shape, dtype, device, offset)
        given.x[0, 0] = given.grad[-1, -1] = float("nan")
        given.x[-1, 0] = float("inf")
        found = moments(REFERENCE, images(shape, dtype, device), False, False)
        statistics = found["mean"], found["variance"]
        for with_residual in (False, True):
            expected = normalized(REFERENCE, given, *statistics, with_residual)
            for one, other in zip(normalized(operators, given, *statistics, with_residual), expected, strict=True):
                torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
        for summed in (None, torch.randn(2, shape[1], device=device)):
            for with_total in (False, True):
                expected_gradient = gradient(REFERENCE, given, *statistics, summed, with_total)
                found_gradient = gradient(operators, given, *statistics, summed, with_total)
                torch.testing.assert_close(found_gradient, expected_gradient, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_gradient_sums(shape: tuple[int, int], dtype: torch.dtype, device: str, backend: str) -> None:
    given = images(shape, dtype, device)
    found = moments(REFERENCE, given, False, False)
    statistics = found["mean"], found["variance"]
    check_sums(sums(partial(pick, backend), given, *statistics), given, *statistics)


@pytest.mark.parametrize("shift", [1000.0, -3e4])
def test_a_large_mean_leaves_the_variance(shift: float, device: str, backend: str) -> None:
    given = images((5000, 12), torch.float32, device)
    given.x.add_(shift)
    given.x[0] += 50.0  # an outlier, 50 deviations from the rows behind it: their squares, if taken from it, are large
    check_moments(moments(partial(pick, backend), given, False, False), given, False, False, roundings=16)


def test_constant_columns_have_no_variance(device: str, backend: str) -> None:
    given = images((777, 5), torch.float32, device)
    given.x.copy_(torch.tensor([0.0, 0.1, -3.7, 1e4, 1e-20], device=device).expand(777, 5))
    found = moments(partial(pick, backend), given, False, False)
    assert (found["variance"] >= 0).all()
    assert (found["variance"] <= 1e-7 * given.x[0] ** 2).all()


def test_the_same_sums_again(device: str, backend: str) -> None:
    """No two threads race for a sum."""
    given = images((5000, 40), torch.float16, device)
    operators = partial(pick, backend)
    once, twice = (moments(operators, given, True, True) for _ in range(2))
    assert all(torch.equal(once[name], twice[name]) for name in once)
    statistics = once["mean"], once["variance"]
    assert torch.equal(sums(operators, given, *statistics), sums(operators, given, *statistics))


class Parameters:
    """Of one BatchNorm, in a dtype."""

    def __init__(self, channels: int, device: str, dtype: torch.dtype) -> None:
        generator = torch.Generator().manual_seed(channels)

        def column(low: float) -> Tensor:
            return (torch.rand(channels, generator=generator) + low).to(device, dtype)

        self.running = [column(-0.5), column(0.5)]
        self.batches = torch.tensor(0, device=device)
        self.weight, self.bias = column(0.5).requires_grad_(), column(-0.5).requires_grad_()


def run(
    x: Tensor, residual: Tensor | None, training: bool, dtype: torch.dtype, plain: bool = False
) -> dict[str, Tensor]:
    """Output, gradients and running statistics of a loss that sees output and sum."""
    p = Parameters(x.shape[1], str(x.device), dtype)
    x = x.detach().clone().requires_grad_()
    residual = None if residual is None else residual.detach().clone().requires_grad_()
    shared: tuple[Any, ...] = (*p.running, p.weight, p.bias, training, 0.1, EPS)
    if plain:
        total = x if residual is None else x + residual
        out = F.relu(F.batch_norm(total, *shared))
    elif residual is None:
        total, out = x, ak.batch_norm_relu(x, *shared, batches=p.batches)
    else:
        out, total = ak.add_batch_norm_relu(x, residual, *shared, batches=p.batches)
    weights = torch.linspace(-1, 1, out.numel(), device=x.device, dtype=torch.float64).view(out.shape)
    ((out.double() + (0 if residual is None else total.double() / 2)) * weights).sum().backward()
    found = {
        "out": out,
        "running_mean": p.running[0],
        "running_var": p.running[1],
        "x": x.grad,
        "weight": p.weight.grad,
    }
    return found | {"bias": p.bias.grad} | ({} if residual is None else {"residual": residual.grad, "total": total})


def last(x: Tensor) -> Tensor:
    """In channels_last memory, of which the kernels make rows without a copy."""
    return x.movedim(1, -1).contiguous().movedim(-1, 1)


def distance(found: Tensor, exact: Tensor) -> float:
    return float((found.detach().double() - exact.detach()).norm() / exact.detach().norm())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("with_residual", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_no_further_from_float64_than_pytorch(
    dtype: torch.dtype, with_residual: bool, training: bool, device: str, backend: str
) -> None:
    generator = torch.Generator().manual_seed(0)
    x, residual = (last(torch.randn(6, 24, 9, 7, generator=generator)).to(device, dtype) for _ in range(2))
    added = residual if with_residual else None
    exact = run(x.double(), None if added is None else added.double(), training, torch.float64, plain=True)
    plain = run(x, added, training, torch.float32, plain=True)
    found = run(x, added, training, torch.float32)
    for name in exact:
        assert found[name].dtype == plain[name].dtype
        rounding = 8 * torch.finfo(found[name].dtype).eps
        assert distance(found[name], exact[name]) <= 2 * distance(plain[name], exact[name]) + rounding, name


def laid(shape: tuple[int, ...], layout: str, device: str) -> Tensor:
    if layout == "slice":
        return torch.randn(shape, device=device).repeat_interleave(2, 0)[::2]
    if layout == "last slice":
        return last(torch.randn(shape, device=device).repeat_interleave(2, 0))[::2]
    if layout == "reversed":
        return torch.randn(shape[::-1], device=device).movedim(tuple(range(len(shape))), tuple(range(len(shape)))[::-1])
    x = torch.randn(shape, device=device)
    return last(x) if layout == "last" else x


SIZES = [(5, 3), (4, 3, 7), (2, 3, 5, 4), (2, 3, 1, 1), (2, 1, 5, 4), (2, 3, 2, 3, 4), (2, 3, 2, 2, 3, 2)]
LAYOUTS = ("contiguous", "last", "slice", "last slice", "reversed")


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_shapes_and_layouts(shape: tuple[int, ...], layout: str, device: str, backend: str) -> None:
    x = laid(shape, layout, device)
    found, exact = run(x, x + 1, True, torch.float32), run(x.double(), x.double() + 1, True, torch.float64, plain=True)
    for name in exact:
        torch.testing.assert_close(found[name].double(), exact[name], rtol=1e-4, atol=1e-5)
        assert found[name].shape == exact[name].shape


def formats(x: Tensor) -> list[bool]:
    """Whether it is contiguous, and channels_last."""
    return [x.is_contiguous(), x.movedim(1, -1).is_contiguous()]


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("training", [True, False])
def test_memory_formats_are_pytorchs(
    shape: tuple[int, ...], layout: str, training: bool, device: str, backend: str
) -> None:
    p, x = Parameters(shape[1], device, torch.float32), laid(shape, layout, device).requires_grad_()
    shared: tuple[Any, ...] = (*((None, None) if training else p.running), p.weight, p.bias, training)
    pairs = [((ak.batch_norm_relu(x, *shared),), (F.relu(F.batch_norm(x, *shared)),))]
    for residual in (laid(shape, residual_layout, device) for residual_layout in LAYOUTS):
        total = x + residual
        exact = F.relu(F.batch_norm(total, *shared)), total
        pairs.append((ak.add_batch_norm_relu(x, residual, *shared), exact))
    for pair in pairs:
        outs, grads = zip(*((outs, torch.autograd.grad(outs, [x], outs)) for outs in pair), strict=True)
        assert [formats(out) for out in outs[0]] == [formats(out) for out in outs[1]]
        assert formats(grads[0][0]) == formats(grads[1][0])


def test_batches_are_counted_in_training_only(device: str, backend: str) -> None:
    p, x = Parameters(3, device, torch.float32), last(torch.randn(4, 3, 5, 5, device=device))
    for training, count in ((True, 1), (False, 1), (True, 2)):
        ak.batch_norm_relu(x, *p.running, p.weight, p.bias, training, batches=p.batches)
        assert p.batches == count


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("with_residual", [True, False])
def test_second_derivative(training: bool, with_residual: bool, device: str, backend: str) -> None:
    generator = torch.Generator().manual_seed(1)
    x, residual = (last(torch.randn(3, 4, 5, 5, generator=generator)).to(device).requires_grad_() for _ in range(2))
    found = []
    for plain in (False, True):
        p = Parameters(4, device, torch.float32)
        shared: tuple[Any, ...] = (*p.running, p.weight, p.bias, training)
        total = x + residual if with_residual else x
        if plain:
            out = F.relu(F.batch_norm(total, *shared))
        elif with_residual:
            out, total = ak.add_batch_norm_relu(x, residual, *shared)
        else:
            out = ak.batch_norm_relu(x, *shared)
        (first,) = torch.autograd.grad((out * total).sin().sum(), [x], create_graph=True)
        found.append(torch.autograd.grad((first**2).sum(), [x, p.weight, p.bias]))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def norms(device: str) -> list[Any]:
    """Functions of x alone: ours and PyTorch's own, in training, without running statistics."""
    weight, bias = torch.tensor([0.5, -2.0, 3.0], device=device), torch.tensor([0.1, 0.0, -0.2], device=device)
    shared: tuple[Any, ...] = (None, None, weight, bias, True)
    return [lambda x: ak.batch_norm_relu(x, *shared), lambda x: F.relu(F.batch_norm(x, *shared))]


@pytest.mark.parametrize("create_graph", [False, True])
def test_batches_of_gradients(create_graph: bool, device: str, backend: str) -> None:
    x = last(torch.randn(4, 3, 5, 5, device=device)).requires_grad_()
    grads = torch.randn(2, *x.shape, device=device)
    options: dict[str, bool] = {"is_grads_batched": True, "create_graph": create_graph}
    found, exact = (torch.autograd.grad(norm(x), x, grads, **options)[0] for norm in norms(device))
    torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-5)
    assert found.requires_grad == create_graph


def test_jacobians_by_batches(device: str, backend: str) -> None:
    x = last(torch.randn(2, 3, 4, 4, device=device))
    found, exact = (
        torch.autograd.functional.jacobian(lambda x, norm=norm: norm(x).sum((2, 3)), x, vectorize=True)
        for norm in norms(device)
    )
    torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-5)


def test_tangents_of_gradients(device: str, backend: str) -> None:
    x = last(torch.randn(4, 3, 5, 5, device=device)).requires_grad_()
    outs = [norm(x) for norm in norms(device)]
    grad, tangent = torch.randn_like(x), torch.randn_like(x)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(grad, tangent)
        found, exact = (forward_ad.unpack_dual(torch.autograd.grad(out, x, dual)[0]).tangent for out in outs)
        torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("create_graph", [False, True])
def test_arguments_that_depend_on_each_other(create_graph: bool, device: str, backend: str) -> None:
    x = last(torch.randn(4, 3, 5, 5, device=device)).requires_grad_()

    def loss(norm: Any) -> Tensor:
        weight = 1 + x.mean((0, 2, 3))
        return (
            norm(x, None, None, weight, 2 * weight, True).square().sum()
            + norm(x, None, None, weight, weight, True).sum()
        )

    found = [
        torch.autograd.grad(loss(norm), [x], create_graph=create_graph)[0]
        for norm in (ak.batch_norm_relu, lambda *arguments: F.relu(F.batch_norm(*arguments)))
    ]
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)


def test_statistics_that_moved_are_noticed(device: str, backend: str) -> None:
    if backend == "reference":
        pytest.skip("PyTorch's own batch_norm does not notice")
    p, x = Parameters(3, device, torch.float32), last(torch.randn(4, 3, 5, 5, device=device))
    out = ak.batch_norm_relu(x, *p.running, p.weight, p.bias)
    ak.batch_norm_relu(x, *p.running, p.weight, p.bias, True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_strided_columns(device: str, backend: str) -> None:
    x, columns = last(torch.randn(4, 3, 5, 5, device=device)), torch.rand(3, 4, device=device) + 0.5
    given = columns.unbind(1)
    torch.testing.assert_close(ak.batch_norm_relu(x, *given), F.relu(F.batch_norm(x, *given)), rtol=1e-5, atol=1e-6)


def test_negated_columns(device: str, backend: str) -> None:
    x = last(torch.randn(4, 3, 5, 5, device=device))
    columns = [torch.ones(3, device=device) for _ in range(3)]
    given = [torch.zeros(3, dtype=torch.complex64, device=device).conj().imag for _ in range(2)]
    found = ak.batch_norm_relu(x, given[0], *columns, True)
    torch.testing.assert_close(found, F.relu(F.batch_norm(x, given[1], *columns, True)), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(*given, rtol=1e-5, atol=1e-6)


def test_gradients_are_made_where_they_are_wanted(device: str, backend: str) -> None:
    p, x = Parameters(3, device, torch.float32), last(torch.randn(4, 3, 5, 5, device=device))
    p.weight.requires_grad_(False)
    (grad,) = torch.autograd.grad(ak.batch_norm_relu(x, *p.running, p.weight, p.bias).sum(), [p.bias])
    assert (grad > 0).all()
    residual = torch.randn_like(x).requires_grad_()
    out, total = ak.add_batch_norm_relu(x, residual, *p.running, p.weight, p.bias, True)
    (grad,) = torch.autograd.grad(total.sum(), [residual], retain_graph=True)
    assert torch.equal(grad, torch.ones_like(x))
    assert out.requires_grad


def test_compile_fullgraph_and_functional_transforms(device: str, backend: str) -> None:
    p, x = Parameters(3, device, torch.float32), last(torch.randn(4, 3, 5, 5, device=device))
    torch.compiler.reset()

    def norm(x: Tensor) -> Tensor:
        return ak.batch_norm_relu(x, *p.running, p.weight, p.bias)

    expected = norm(x)
    torch.testing.assert_close(torch.compile(norm, fullgraph=True)(x), expected)
    torch.testing.assert_close(torch.func.vmap(norm)(x.unsqueeze(0)).squeeze(0), expected)


def test_other_dtypes_are_pytorchs(device: str, backend: str) -> None:
    x = last(torch.randn(4, 3, 5, 5, device=device, dtype=torch.float64))
    p = Parameters(3, device, torch.float64)
    found = ak.batch_norm_relu(x, *p.running, p.weight, p.bias)
    assert torch.equal(found, F.relu(F.batch_norm(x, *p.running, p.weight, p.bias)))


@pytest.mark.parametrize("shape", [(0, 3), (0, 3, 4, 4), (2, 3, 0, 4)])
@pytest.mark.parametrize("training", [True, False])
def test_empty_batches_are_pytorchs(shape: tuple[int, ...], training: bool, device: str, backend: str) -> None:
    x = torch.zeros(shape, device=device)
    found, exact = (run(x, None, training, torch.float32, plain=plain) for plain in (False, True))
    for name in exact:
        assert torch.equal(found[name], exact[name]), name


def test_without_running_statistics_the_batch_normalises(device: str, backend: str) -> None:
    x, p = last(torch.randn(4, 3, 5, 5, device=device)), Parameters(3, device, torch.float32)
    for training in (True, False):
        found = ak.batch_norm_relu(x, None, None, p.weight, p.bias, training)
        torch.testing.assert_close(found, F.relu(F.batch_norm(x, None, None, p.weight, p.bias, True)))


SHARED = torch.ones(3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(3)}, r"x: wanted shape \(N, C, ...\)"),
        ({"x": torch.zeros(2, 3, dtype=torch.int64)}, "x: wanted a dense floating-point tensor"),
        ({"weight": torch.ones(4)}, r"weight: wanted shape \(3,\), got \(4,\)"),
        ({"bias": None}, "bias: wanted a dense floating-point tensor, got NoneType"),
        ({"running_mean": torch.zeros(3, dtype=torch.float64)}, "running_mean: wanted torch.float32, as weight"),
        ({"running_var": None}, "running_mean, running_var: wanted both or none"),
        ({"batches": torch.zeros(1)}, "batches: wanted a dense torch.int64 tensor"),
        ({"batches": torch.zeros(2, dtype=torch.int64)}, "batches: wanted one element"),
        ({"momentum": None}, "momentum: wanted a number, got None"),
        ({"x": torch.zeros(2, 0, 4, 4)}, r"x: wanted a channel or more"),
        ({"running_mean": SHARED, "running_var": SHARED}, "running_var: wanted memory of its own, got running_mean"),
        ({"x": torch.zeros(1, 3, 1, 1), "training": True}, "x: wanted more than one value a channel in training"),
    ],
)
def test_wrong_arguments_are_refused(change: dict[str, Any], message: str, backend: str) -> None:
    given = {"x": torch.zeros(2, 3, 4, 4), "running_mean": torch.zeros(3), "running_var": torch.ones(3)}
    given |= {"weight": torch.ones(3), "bias": torch.zeros(3)}
    untouched = copy.deepcopy(given)
    with pytest.raises((TypeError, ValueError), match=message):
        ak.batch_norm_relu(**{**given, **change})
    assert all(torch.equal(given[name], untouched[name]) for name in given)


def test_wrong_residuals_are_refused(backend: str) -> None:
    p, x = Parameters(3, "cpu", torch.float32), torch.zeros(2, 3, 4, 4)
    for residual, message in (
        (torch.zeros(2, 3, 4, 5), r"residual: wanted shape \(2, 3, 4, 4\)"),
        (x.half(), "residual: wanted torch.float32, got torch.float16"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            ak.add_batch_norm_relu(x, residual, *p.running, p.weight, p.bias)
