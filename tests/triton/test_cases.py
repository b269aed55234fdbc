"""The Triton kernels against the reference, bit for bit: on the GPU, or on the CPU where TRITON_INTERPRET=1."""

import itertools
import os
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import advkernels as ak
from advkernels.backends import reference
from advkernels.bounds import pack
from advkernels.schemas import SCHEMAS

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"

pytestmark = (
    []
    if INTERPRETED
    else [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
)

F32, BF16, F16 = torch.float32, torch.bfloat16, torch.float16
BAND = 64  # elements around every tensor, which nobody may write
PROGRAM = 1024  # elements of one program

CONTIGUOUS_TO_MEMORY: dict[str, Callable[[int], list[int]]] = {
    "contiguous": lambda dims: list(range(dims)),
    "misaligned": lambda dims: list(range(dims)),
    "channel_gap": lambda dims: list(range(dims)),
    "every_gap": lambda dims: list(range(dims)),
    "channels_last": lambda dims: [0, *range(2, dims), 1][:dims],
    "transposed": lambda dims: [*range(dims - 2), dims - 1, dims - 2] if dims > 1 else [0],
}


def place(values: Tensor, layout: str, dtype: torch.dtype, device: str) -> tuple[Tensor, Tensor]:
    """A buffer of sevens, and the values inside it in the layout."""
    order = CONTIGUOUS_TO_MEMORY[layout](values.dim())
    gaps = {"channel_gap": [1], "every_gap": list(range(values.dim()))}.get(layout, [])
    sizes = [values.shape[dim] + (dim in gaps) for dim in order]
    room = int(torch.Size(sizes).numel())
    start = BAND + (layout == "misaligned")
    buffer = torch.full((room + 2 * BAND + 1,), 7.0, dtype=dtype, device=device)
    inner = buffer[start : start + room].view(sizes)
    for place_in_memory, dim in enumerate(order):
        inner = inner.narrow(place_in_memory, 0, values.shape[dim])
    view = inner.permute([order.index(dim) for dim in range(values.dim())])
    view.copy_(values)
    return buffer, view


def operator(name: str) -> Callable[..., None]:
    """The Triton operator of a schema's name."""
    import advkernels.backends.triton  # noqa: F401

    packet, _, overload = name.partition(".")
    return getattr(getattr(torch.ops.advkernels_triton, packet), overload or "default")


def assert_same(got: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(got.cpu(), wanted, rtol=0, atol=0, equal_nan=True)


def moved(argument: Any, device: str) -> Any:
    if isinstance(argument, list):
        return [moved(item, device) for item in argument]
    return argument.to(device) if isinstance(argument, Tensor) else argument


def rows(bounds: list[Any], device: str) -> list[Any]:
    """Bounds as an operator takes them."""
    return moved(bounds, device) if isinstance(bounds[0], Tensor) else pack(bounds)


SPECIAL = [float("nan"), float("inf"), -float("inf"), -0.0, 0.0, 1e-42, -1e-42, 65519.9, 65520.0, 3.4e38, 0.999999, 1.0]


def values(shape: tuple[int, ...], seed: int, scale: float, special: bool = False) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    result = torch.randn(shape, generator=generator) * scale
    if special and result.numel():
        flat = result.view(-1)
        places = torch.randperm(flat.numel(), generator=generator)[: max(flat.numel() // 2, 1)]
        flat[places] = torch.tensor(SPECIAL).repeat(len(places) // len(SPECIAL) + 1)[: len(places)]
    return result


def table(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(9)) * 0.1


SHAPES: list[tuple[int, ...]] = [
    (0, 3, 4, 4),
    (),
    (1,),
    (PROGRAM - 1,),
    (PROGRAM,),
    (1, 1, PROGRAM + 1),
    (5, 3),
    (3, 3, 7, 5),
    (2, 3, 16, 16),
    (2, 3, 2, 3, 4),
    (2, 2, 2, 2, 2, 2),
]
DTYPES = [F32, BF16, F16]
MIXED_DTYPES = [(F32, F16, BF16, F16), (BF16, F32, F32, F32), (F16, BF16, F32, BF16)]
MIXED_LAYOUTS = [
    ("contiguous", "channels_last", "contiguous", "channels_last"),
    ("channels_last", "contiguous", "channels_last", "contiguous"),
    ("channel_gap", "contiguous", "transposed", "channel_gap"),
    ("every_gap", "every_gap", "channels_last", "every_gap"),
    ("transposed", "transposed", "transposed", "transposed"),
    ("misaligned", "contiguous", "misaligned", "misaligned"),
]
IMAGE = (2, 3, 6, 4)
WIDE_IMAGE = (3, 5, 4, 4)

# name -> (shape, dtypes of delta, grad, x, out, their layouts, bounds alpha, epsilon, lower, upper, special values)
Case = tuple[tuple[int, ...], tuple[torch.dtype, ...], tuple[str, ...], list[Any], bool]
PLAIN = [[0.03], [0.05], [0.0], [1.0]]
CHANNELS = [[0.03, 0.02, 0.01], [0.05, 0.04, 0.06], [-0.1], [1.0, 0.5, 0.25]]
CASES: dict[str, Case] = {
    **{
        f"{shape}-{dtype}": (shape, (dtype,) * 4, ("contiguous",) * 4, PLAIN, False)
        for shape, dtype in itertools.product(SHAPES, DTYPES)
    },
    **{f"special-{dtype}": ((2, 3, 8, 8), (dtype,) * 4, ("contiguous",) * 4, CHANNELS, True) for dtype in DTYPES},
    **{f"mixed-{i}": (IMAGE, dtypes, ("contiguous",) * 4, CHANNELS, True) for i, dtypes in enumerate(MIXED_DTYPES)},
    **{
        f"{'-'.join(layouts)}-{dtype}": (IMAGE, (dtype,) * 4, layouts, CHANNELS, False)
        for layouts, dtype in itertools.product([*MIXED_LAYOUTS, ("channels_last",) * 4], [F32, BF16])
    },
    **{f"channels_last-plain-{dtype}": (IMAGE, (dtype,) * 4, ("channels_last",) * 4, PLAIN, False) for dtype in DTYPES},
    "two-channels": ((2, 2, 3, 3), (F32,) * 4, ("contiguous",) * 4, [[0.1], [0.2, 0.1], [0.0, 0.1], [1.0]], False),
    "four-channels": ((2, 4, 4, 4), (F16,) * 4, ("contiguous",) * 4, [[0.1, 0.2, 0.3, 0.4], *PLAIN[1:]], False),
    "five-channels": (WIDE_IMAGE, (F32,) * 4, ("contiguous",) * 4, [[0.1, 0.2, 0.3, 0.4, 0.5], *PLAIN[1:]], False),
    **{
        f"tables-{layout}-{shape}": (
            shape,
            (F32, BF16, F32, F32),
            (layout,) * 4,
            [table(1, 1), table(shape[0], 1), table(1, shape[1]), table(shape[0], shape[1]) + 0.5],
            False,
        )
        for layout, shape in itertools.product(
            ["contiguous", "channels_last", "channel_gap"], [WIDE_IMAGE, (2, 3, 5, 5)]
        )
    },
    "table-of-one": ((3, 7), (F32,) * 4, ("contiguous",) * 4, [table(1, 1)] * 3 + [table(1, 1) + 1], False),
}


# Samples of several rounds of 1024 elements, the last one of 1021, 1024 or 4; no batch of a thousand samples, each of
# which is a program.
SEVERAL_ROUNDS: dict[str, Case] = {
    f"{shape}-{layout}-{dtype}": (shape, (dtype,) * 4, (layout,) * 4, CHANNELS, False)
    for shape, layout, dtype in [
        ((2, 3, 33, 31), "contiguous", F32),
        ((1, 3, 64, 32), "contiguous", BF16),
        ((2, 3, 4, 257), "misaligned", F32),
        ((1, 3, 64, 32), "channels_last", F32),
        ((2, 3, 33, 31), "channels_last", F16),
        ((2, 3, 4, 257), "channel_gap", F32),
    ]
}
L2_CASES = {
    name: case for name, case in (CASES | SEVERAL_ROUNDS).items() if case[0] not in [(PROGRAM - 1,), (PROGRAM,)]
}
# A dtype and the next of one shape take turns: without and with the optional arguments.
IN_TURN = pytest.mark.parametrize(
    ("case", "optional"), [(case, i % 2 == 1) for i, case in enumerate(L2_CASES.values())], ids=L2_CASES.keys()
)


def steps(
    name: str, case: Case, filled: list[Tensor], mask: Tensor | None, with_out: bool
) -> tuple[list[Tensor], list[Tensor]]:
    """The buffers that a step leaves behind, written by the Triton operator and by the reference."""
    _, dtypes, layouts, bounds, _ = case
    results = []
    for device in ("cpu", DEVICE):
        placed = [place(*argument, device) for argument in zip(filled, layouts, dtypes, strict=True)]
        delta, grad, x, out = (view for _, view in placed)
        overload = "tensors" if isinstance(bounds[0], Tensor) else "values"
        run = operator(f"{name}.{overload}") if results else getattr(reference, name)
        run(delta, grad, x, rows(bounds, device), moved(mask, device), out if with_out else None)
        results.append([buffer for buffer, _ in placed])
    return results[1], results[0]


def check_step(name: str, case: Case, with_out: bool, masked: bool) -> None:
    shape, _, _, _, special = case
    if masked and not shape:
        pytest.skip("a scalar has no samples")
    mask = (torch.arange(shape[0] * 2) % 3 > 0)[::2] if masked else None
    filled = [values(shape, seed, scale, special) for seed, scale in ((1, 0.05), (2, 1.0), (3, 0.5), (4, 1.0))]
    for got, wanted in zip(*steps(name, case, filled, mask, with_out), strict=True):
        assert_same(got, wanted)


@pytest.mark.parametrize(("with_out", "masked"), [(False, False), (True, True)], ids=["plain", "out-masked"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_sign_step(case: Case, with_out: bool, masked: bool) -> None:
    check_step("sign_step_", case, with_out, masked)


@IN_TURN
def test_l2_step(case: Case, optional: bool) -> None:
    check_step("l2_step_", case, optional, optional and bool(case[0]))


# bounds alpha, epsilon, lower, upper; a ball that holds every delta, one that holds none, none at all, an ellipsoid
L2_BOUNDS: dict[str, list[Any]] = {
    "wide": [[0.5], [1e3], [-9.0], [9.0]],
    "narrow": [[-0.5], [0.01], [-9.0], [9.0]],
    "no ball": [[0.5], [0.0], [-9.0], [9.0]],
    "no step": [[0.0], [0.3], [-9.0], [9.0]],
    "flat": [[0.5, 0.0, 0.2], [0.3, 1e-30, 0.0], [-9.0], [9.0]],
    "samples": [table(6, 1), table(6, 1), table(1, 1) - 9, table(1, 1) + 9],
}


def gradients() -> Tensor:
    """A sample each: plain, zero, tiny, huge, with one NaN, with one infinity."""
    grad = values((6, 3, 20, 24), 2, 1.0)
    grad *= torch.tensor([1.0, 0.0, 1e-30, 1e37, 1.0, 1.0]).view(-1, 1, 1, 1)
    grad[4, 1, 2, 3], grad[5, 2, 3, 4] = float("nan"), -float("inf")
    return grad


@pytest.mark.parametrize("bounds", L2_BOUNDS.values(), ids=L2_BOUNDS.keys())
def test_l2_step_of_every_kind_of_gradient(bounds: list[Any]) -> None:
    grad = gradients()
    case = (tuple(grad.shape), (F32,) * 4, ("contiguous",) * 4, bounds, False)
    filled = [values(case[0], 1, 0.02), grad, values(case[0], 3, 0.5), torch.zeros(case[0])]
    for got, wanted in zip(*steps("l2_step_", case, filled, None, True), strict=True):
        assert_same(got, wanted)


def test_l2_step_leaves_the_bits_of_masked_samples() -> None:
    delta = torch.tensor([[-0.0, 1e-42, float("inf")], [0.1, -0.2, 0.0]]).to(DEVICE)
    delta.view(torch.int32)[0, 2] = 0x7F812345  # a NaN that arithmetic would change
    before, grad, x = delta.view(torch.int32).clone(), torch.ones_like(delta), torch.full_like(delta, 0.5)
    operator("l2_step_.values")(delta, grad, x, pack(PLAIN), torch.tensor([False, True], device=DEVICE), None)
    assert torch.equal(delta.view(torch.int32)[0], before[0])
    assert not torch.equal(delta[1], before.view(F32)[1])


@pytest.mark.parametrize("name", ["sign_step_", "l2_step_"])
def test_step_of_an_expanded_image(name: str) -> None:
    delta, grad, x = values(IMAGE, 1, 0.05), values(IMAGE, 2, 1.0), values((1, *IMAGE[1:]), 3, 0.5)
    wanted, got = delta.clone(), delta.to(DEVICE)
    getattr(reference, name)(wanted, grad, x.expand(IMAGE), pack(PLAIN))
    operator(f"{name}.values")(got, grad.to(DEVICE), x.to(DEVICE).expand(IMAGE), pack(PLAIN), None, None)
    assert_same(got, wanted)


def check_init(name: str, case: Case, with_out: bool, indexed: bool) -> None:
    shape, dtypes, layouts, bounds, special = case
    if indexed and not shape:
        pytest.skip("a scalar has no samples")
    index = (torch.arange(shape[0] * 2) * 2**33 + 5)[::2] if indexed else None
    filled = [values(shape, seed, 0.5, special) for seed in (1, 3, 4)]
    results = []
    for device in ("cpu", DEVICE):
        placed = [
            place(argument, layouts[which], dtypes[which], device)
            for argument, which in zip(filled, (0, 2, 3), strict=True)
        ]
        delta, x, out = (view for _, view in placed)
        state = torch.tensor([2**62 + 2**35 + 3, 2**32 + 7], device=device)
        overload = "tensors" if isinstance(bounds[0], Tensor) else "values"
        run = operator(f"{name}.{overload}") if results else getattr(reference, name)
        run(delta, x, state, rows(bounds[1:], device), moved(index, device), out if with_out else None)
        results.append([*(buffer for buffer, _ in placed), state])
    for got, wanted in zip(results[1], results[0], strict=True):
        assert_same(got, wanted)


@pytest.mark.parametrize(("with_out", "indexed"), [(False, False), (True, True)], ids=["plain", "out-indexed"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_uniform_init(case: Case, with_out: bool, indexed: bool) -> None:
    check_init("uniform_init_", case, with_out, indexed)


@IN_TURN
def test_l2_init(case: Case, optional: bool) -> None:
    check_init("l2_init_", case, optional, optional and bool(case[0]))


AUGMENTED: dict[str, tuple[tuple[int, ...], list[Any]]] = {
    "one": ((5, 1, 6, 5), [[0.5], [0.25]]),
    "three": ((5, 3, 16, 16), [[0.1, 0.2, 0.3], [0.5, 0.25, 0.75]]),
    "odd": ((5, 3, 19, 21), [[0.1, 0.2, 0.3], [0.5]]),
    "four": ((5, 4, 8, 8), [[0.1, 0.2, 0.3, 0.4], [0.5, 0.6, 0.7, 0.8]]),
    "five": ((5, 5, 7, 1), [[0.1, 0.2, 0.3, 0.4, 0.5], [0.5]]),
    "a line": ((5, 3, 1, 8), [[0.1], [0.5]]),
    "tables": ((5, 3, 9, 9), [table(1, 3), table(1, 1) + 0.1]),
    "no channel": ((5, 0, 9, 9), [[0.1], [0.5]]),
}


AUGMENTED_LAYOUTS = [  # of out and images
    ("channels_last", "contiguous"),
    ("contiguous", "channels_last"),
    ("every_gap", "every_gap"),
    ("misaligned", "misaligned"),
]


@pytest.mark.parametrize("layouts", range(len(AUGMENTED_LAYOUTS)), ids=["-".join(pair) for pair in AUGMENTED_LAYOUTS])
@pytest.mark.parametrize("case", range(len(AUGMENTED)), ids=AUGMENTED.keys())
def test_augment(case: int, layouts: int) -> None:
    """Dtypes, and borders but for the usual one and none, take turns."""
    layout, images_layout = AUGMENTED_LAYOUTS[layouts]
    shape, scales = [*AUGMENTED.values()][case]
    dtype = DTYPES[(case + layouts) % 3]
    pixels = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(5))
    index = torch.tensor([4, 9, 0, 9, 4, 9])[::2]
    for padding, flip in ((4, True), (0, False), ((1, False), (0, True), (30, True))[(case + layouts) // 3 % 3]):
        results = []
        for device in ("cpu", DEVICE):
            _, images = place(pixels, images_layout, torch.uint8, device)
            buffer, out = place(torch.full((3, *shape[1:]), float("nan")), layout, dtype, device)
            state = torch.tensor([2**62 + 2**35 + 3, 2**32 + 7], device=device)
            overload = "tensors" if isinstance(scales[0], Tensor) else "values"
            run = operator(f"augment_.{overload}") if results else reference.augment_
            run(out, images, index.to(device), state if padding or flip else None, rows(scales, device), padding, flip)
            results.append([buffer, state])
        for got, wanted in zip(results[1], results[0], strict=True):
            assert_same(got, wanted)


# dtypes of parameter, gradient, master (None: the parameter is its own), momentum buffer
SGD_DTYPES = [
    (F32, F32, None, F32),
    (BF16, BF16, F32, F32),
    (F16, F16, F32, F32),
    (F16, F32, F32, F32),
    (BF16, BF16, None, BF16),
    (F16, F16, None, F16),
]
SGD_SHAPES: list[tuple[tuple[int, ...], str, str]] = [  # the layout of all but the gradient, the gradient's
    ((8, 4, 3, 3), "contiguous", "contiguous"),
    ((8, 4, 3, 3), "channels_last", "contiguous"),
    ((8, 4, 3, 3), "contiguous", "channels_last"),
    ((5,), "misaligned", "contiguous"),
    ((PROGRAM + 8,), "contiguous", "misaligned"),
    ((6, 5), "transposed", "contiguous"),
    ((6, 5), "transposed", "transposed"),
    ((), "contiguous", "contiguous"),
    ((0, 3), "contiguous", "contiguous"),
]
SGD_SETTINGS = [  # momentum, dampening, weight_decay, nesterov, maximize
    (0.0, 0.0, 0.0, False, False),
    (0.9, 0.0, 5e-4, False, False),
    (0.9, 0.3, 1e-2, False, True),
    (0.8, 0.0, 1e-3, True, False),
]


def sgd_lists(dtypes: tuple[Any, ...], device: str, special: bool) -> tuple[list[list[Tensor]], list[Tensor]]:
    """The four lists of tensors, and the buffers that they lie in."""
    lists: list[list[Tensor]] = [[], [], [], []]
    buffers = []
    for number, (shape, layout, gradient_layout) in enumerate(SGD_SHAPES):
        weight = values(shape, number, 0.1, special)
        filled = (weight, values(shape, 50 + number, 1.0, special), weight, values(shape, 70 + number, 0.01))
        for which, (dtype, argument) in enumerate(zip(dtypes, filled, strict=True)):
            if dtype is None:
                lists[which].append(torch.empty(0, device=device))
                continue
            buffer, view = place(argument, gradient_layout if which == 1 else layout, dtype, device)
            lists[which].append(view)
            buffers.append(buffer)
    return lists, buffers


SCALINGS = (None, (0.125, 0.0), (0.125, 1.0))


@pytest.mark.parametrize(
    ("settings", "dtypes", "scaling"),
    [
        (settings, dtypes, SCALINGS[(i + j + turn) % 3])
        for (i, settings), (j, dtypes) in itertools.product(enumerate(SGD_SETTINGS), enumerate(SGD_DTYPES))
        for turn in range(2)
    ],
    ids=str,
)
def test_sgd_step(dtypes: tuple[Any, ...], settings: tuple[Any, ...], scaling: tuple[float, float] | None) -> None:
    results = []
    for device in ("cpu", DEVICE):
        lists, buffers = sgd_lists(dtypes, device, special=scaling is not None)
        steps = [torch.tensor(number % 2, device=device) for number in range(len(SGD_SHAPES))]
        scalars = [None, None] if scaling is None else [torch.tensor(value, device=device) for value in scaling]
        run = reference.sgd_step_ if not results else operator("sgd_step_")
        for rate in (0.1, 0.01):
            run(*lists, steps, torch.tensor(rate, device=device), *scalars, *settings)
        results.append([*buffers, *steps])
    for got, wanted in zip(results[1], results[0], strict=True):
        assert_same(got, wanted)


# Rows and columns: programs of one column and of many, full ones and others.
ROWS = [(1, 1), (4097, 1), (2, 3), (1001, 3), (7, 16), (1, 64), (70, 64), (2, 100), (130, 100)]
ROW_CASES = [
    *[
        (shape, DTYPES[(number + turn) % 3], (number + turn) % 2 == 1)
        for (number, shape), turn in itertools.product(enumerate(ROWS), range(2))
    ],
    ((7, 257), BF16, True),
]
SUMMED_CASES = [*ROW_CASES[::2], ((4100, 64), F32, False), ((4100, 64), BF16, True)]
SUMMED = pytest.mark.parametrize(("shape", "dtype", "optional"), SUMMED_CASES, ids=str)
NORMALIZED = pytest.mark.parametrize(("shape", "dtype", "optional"), ROW_CASES, ids=str)
MOMENTUM, EPS = 0.3, 1e-3


def column(count: int, seed: int, lowest: float = -1.0) -> Tensor:
    """(count,) in [lowest, lowest + 2)."""
    return torch.rand(count, generator=torch.Generator().manual_seed(seed)) * 2 + lowest


def normal_columns(count: int) -> list[Tensor]:
    """Mean, variance, weight, bias."""
    return [column(count, 11), column(count, 12, 0.1), column(count, 13), column(count, 14)]


def same_or_rounded(got: Tensor, exact: Tensor, units: int = 2) -> None:
    """float32 within some units in the last place of float64."""
    nearest = exact.float().abs()
    unit = torch.nextafter(nearest, torch.tensor(float("inf"))).double() - nearest.double()
    assert bool(((got.cpu().double() - exact).abs() <= units * unit).all()), (got, exact)


def written(run: Callable[..., None], outputs: list[Tensor | None], inputs: list[Any], device: str) -> list[Tensor]:
    """The buffers that an operation leaves behind, which has its outputs first."""
    placed = [
        (None, None) if output is None else place(output, "contiguous", output.dtype, device) for output in outputs
    ]
    run(*(view for _, view in placed), *(moved(argument, device) for argument in inputs))
    return [buffer for buffer, _ in placed if buffer is not None]


def check_rows(name: str, outputs: list[Tensor | None], inputs: list[Any]) -> None:
    got = written(operator(name), outputs, inputs, DEVICE)
    for one, other in zip(got, written(getattr(reference, name), outputs, inputs, "cpu"), strict=True):
        assert_same(one, other)


@NORMALIZED
@pytest.mark.parametrize("special", [False, True], ids=["", "special"])
def test_normalize_relu(shape: tuple[int, int], dtype: torch.dtype, optional: bool, special: bool) -> None:
    x, residual = (values(shape, seed, 1.0, special).to(dtype) for seed in (1, 2))
    total = torch.zeros_like(x) if optional else None
    added = residual if optional or special else None
    check_rows("normalize_relu_", [torch.zeros_like(x), total], [x, added, *normal_columns(shape[1]), EPS])


@NORMALIZED
@pytest.mark.parametrize("special", [False, True], ids=["", "special"])
def test_normalize_relu_backward(shape: tuple[int, int], dtype: torch.dtype, optional: bool, special: bool) -> None:
    x, grad, grad_total = (values(shape, seed, 1.0, special).to(dtype) for seed in (1, 2, 3))
    sums = torch.stack([column(shape[1], 15), column(shape[1], 16)]) * shape[0] if optional or special else None
    inputs = [grad, grad_total if optional else None, x, *normal_columns(shape[1]), sums, EPS]
    check_rows("normalize_relu_backward_", [torch.zeros_like(x)], inputs)


def moments(x: Tensor, residual: Tensor | None, total: Tensor | None, running: bool) -> list[Tensor]:
    """Mean, variance, total where there is one, running statistics, count of batches; nothing written around them."""
    count = x.shape[1]
    columns = [torch.zeros(count), torch.zeros(count)]
    statistics = [column(count, 17), column(count, 18), torch.tensor([4])] if running else [None] * 3
    buffers = written(operator("batch_moments_"), [*columns, total, *statistics], [x, residual, MOMENTUM], DEVICE)
    for buffer in buffers:
        assert bool((torch.cat([buffer[:BAND], buffer[-BAND - 1 :]]) == 7).all())
    return [buffer[BAND : -BAND - 1].cpu() for buffer in buffers]


@SUMMED
def test_batch_moments(shape: tuple[int, int], dtype: torch.dtype, optional: bool) -> None:
    """Means around 2, deviations around 1."""
    x = (values(shape, 1, 1.0) + 2).to(dtype)
    residual = values(shape, 2, 0.3).to(dtype) if optional else None
    total = torch.zeros_like(x) if optional else None
    mean, variance, *rest = moments(x, residual, total, optional)
    summed = x if residual is None else (x.float() + residual.float()).to(dtype)
    same_or_rounded(mean, summed.double().mean(0))
    same_or_rounded(variance, summed.double().var(0, correction=0))
    if optional:
        stored, running_mean, running_var, batches = rest
        assert torch.equal(stored.view(shape), summed)
        unbiased = (variance.double() * shape[0] / (shape[0] - 1 or float("nan"))).float()
        old = [column(shape[1], 17), column(shape[1], 18)]
        for got, before, value in zip((running_mean, running_var), old, (mean, unbiased), strict=True):
            assert_same(got, before.mul(1 - MOMENTUM).add(value * MOMENTUM))
        assert batches.item() == 5


@pytest.mark.parametrize("special", [float("nan"), float("inf")])
def test_batch_moments_of_hard_columns(special: float) -> None:
    """A mean a thousand deviations large, something that is not finite in the first row or a later one, constants."""
    x = values((1001, 6), 1, 1.0)
    x[:, 0] += 1000.0
    x[0, 1], x[777, 2], x[:, 4], x[:, 5] = special, special, 1e6, 0.1
    mean, variance = moments(x, None, None, False)
    exact = x.double()
    assert_same(mean[1:3], exact.mean(0)[1:3].float())
    assert bool(variance[1:3].isnan().all())
    same_or_rounded(mean[[0, 4, 5]], exact.mean(0)[[0, 4, 5]])
    same_or_rounded(variance[0], exact.var(0, correction=0)[0])
    # What float64's rounding leaves of squares, and never less than nothing.
    assert bool((variance[4:] >= 0).all() and (variance[4:] <= mean[4:] ** 2 * 2.0**-50).all())


@SUMMED
def test_normalize_relu_sums(shape: tuple[int, int], dtype: torch.dtype, optional: bool) -> None:
    """Gradients around 2, and images above a mean that is given, so that no sum is small against its terms."""
    x, grad = (values(shape, 1, 0.3) + 3).to(dtype), (values(shape, 2, 0.3) + 2).to(dtype)
    mean, variance, weight, bias = normal_columns(shape[1])
    if optional:
        weight = -weight  # others are blocked
    inputs = [grad, x, mean, variance, weight, bias, EPS]
    (buffer,) = written(operator("normalize_relu_sums_"), [torch.zeros(2, shape[1])], inputs, DEVICE)
    assert bool((torch.cat([buffer[:BAND], buffer[-BAND - 1 :]]) == 7).all())
    centred = x.float() - mean
    inverse = torch.ones_like(variance) / (variance + EPS).double().sqrt().float()
    g = torch.where(centred * (inverse * weight) + bias <= 0, 0.0, grad.double())
    exact = torch.stack([g.sum(0), (g * centred.double()).sum(0) * inverse.double()])
    same_or_rounded(buffer[BAND : -BAND - 1].view(2, -1), exact)


def test_sums_in_several_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    from advkernels.backends.triton import rows

    monkeypatch.setattr(rows, "PROGRAMS", 16)
    test_batch_moments((4100, 70), F16, optional=True)
    test_normalize_relu_sums((4100, 70), F32, optional=False)


def test_no_rows() -> None:
    x, sums = torch.empty((0, 5), device=DEVICE), torch.full((2, 5), 7.0, device=DEVICE)
    columns = [argument.to(DEVICE) for argument in normal_columns(5)]
    operator("normalize_relu_")(x, None, x, None, *columns, EPS)
    operator("normalize_relu_backward_")(x, x, None, x, *columns, sums, EPS)
    operator("normalize_relu_sums_")(sums, x, x, *columns, EPS)
    assert not sums.any()


def calls() -> dict[str, list[Any]]:
    """Arguments of every operator."""
    delta, grad, x = (values(IMAGE, seed, 0.1).to(DEVICE) for seed in (1, 2, 3))
    state, out = torch.tensor([7, 0], device=DEVICE), torch.empty_like(x)
    limits = table(1, 3).to(DEVICE)
    lists, _ = sgd_lists(SGD_DTYPES[1], DEVICE, special=False)
    steps = [torch.tensor(0, device=DEVICE) for _ in SGD_SHAPES]
    step_values = [delta, grad, x, pack(PLAIN), torch.tensor([True, False], device=DEVICE), out]
    init_values = [delta, x, state, pack(PLAIN[1:]), torch.tensor([9, 4], device=DEVICE), out]
    step_tensors = [delta, grad, x, [limits] * 4, None, None]
    init_tensors = [delta, x, state, [limits] * 3, None, None]
    images, index = torch.zeros((9, 3, 6, 4), dtype=torch.uint8, device=DEVICE), torch.tensor([8, 0], device=DEVICE)
    a, b, c, d = (values((7, 3), seed, 1.0).to(DEVICE) for seed in (1, 2, 3, 4))
    mean, variance, *_ = normal = [argument.to(DEVICE) for argument in normal_columns(3)]
    running, sums = [column(3, 17).to(DEVICE), column(3, 18).to(DEVICE)], torch.zeros((2, 3), device=DEVICE)
    return {
        "batch_moments_": [mean, variance, a, *running, torch.tensor(4, device=DEVICE), b, c, MOMENTUM],
        "normalize_relu_": [a, None, b, c, *normal, EPS],
        "normalize_relu_sums_": [sums, a, b, *normal, EPS],
        "normalize_relu_backward_": [a, b, c, d, *normal, sums, EPS],
        "augment_.values": [out, images, index, state, [0.5, 0.2], 4, True],
        "augment_.tensors": [out, images, index, None, [limits, limits], 0, False],
        **{f"{name}.values": step_values for name in ("sign_step_", "l2_step_")},
        **{f"{name}.tensors": step_tensors for name in ("sign_step_", "l2_step_")},
        **{f"{name}.values": init_values for name in ("uniform_init_", "l2_init_")},
        **{f"{name}.tensors": init_tensors for name in ("uniform_init_", "l2_init_")},
        "sgd_step_": [*lists, steps, torch.tensor(0.1, device=DEVICE), None, None, *SGD_SETTINGS[1]],
    }


@pytest.mark.parametrize("name", SCHEMAS)
def test_opcheck(name: str) -> None:
    checks = ["test_schema", "test_autograd_registration", "test_faketensor"]
    compiled = [] if INTERPRETED else ["test_aot_dispatch_dynamic"]  # the interpreter's kernels cannot be traced
    torch.library.opcheck(operator(name), tuple(calls()[name]), test_utils=[*checks, *compiled])


def test_every_operator_has_a_triton_kernel() -> None:
    assert all(operator(name) for name in SCHEMAS)


def test_backend_triton_is_chosen() -> None:
    x, rng = torch.rand(IMAGE, device=DEVICE), ak.PhiloxState(seed=3, device=DEVICE)
    with ak.backend("triton"):
        delta = ak.uniform_init(x, 0.1, rng=rng)
    wanted = torch.empty_like(x, device="cpu")
    reference.uniform_init_(wanted, x.cpu(), torch.tensor([3, 0]), [0.1, 0.0, 1.0])
    assert_same(delta, wanted)
    assert rng.draw == 1


def test_table_is_kept_as_long_as_its_owner() -> None:
    from advkernels.backends.triton.addresses import RECENT, kept_table

    owner = torch.zeros(3, device=DEVICE)
    first = kept_table([2**40 + 1, 7], owner)
    assert first.tolist() == [2**40 + 1, 7]
    assert kept_table([2**40 + 1, 7], owner) is first
    assert kept_table([2**40 + 1, 7], torch.zeros(3, device=DEVICE)) is not first
    gone = weakref.ref(first)
    del first
    assert gone() is not None
    for number in range(RECENT):
        kept_table([number], owner)
    assert gone() is None
