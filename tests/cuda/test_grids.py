"""The CUDA kernels' code, walked on the host over whole grids: every element once, the reference's bits."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from cases import Case, bound, cases, images, place, same
from simulation import check_accesses, doors, given, given_bounds
from torch import Tensor

import advkernels as ak
from advkernels.backends import reference
from advkernels.bounds import pack, prepare

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
GRIDS = [(1, 32), (7, 64), (2, 256), (40, 32)]


def whole(grid: tuple[int, int]) -> object:
    blocks, threads = grid
    return doors().Grid(blocks, threads, 0, blocks)


def like(tensor: Tensor, fill: float = math.nan, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor of the same strides and offset in a buffer of its own."""
    span = sum(stride * (size - 1) for stride, size in zip(tensor.stride(), tensor.shape, strict=True))
    buffer = torch.full((tensor.storage_offset() + max(span, 0) + 1,), fill, dtype=dtype or tensor.dtype)
    return buffer.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())


Grid = tuple[int, int]
STEPS, INITS = ("sign_step_", "l2_step_"), ("uniform_init_", "l2_init_")


def simulated(operator: str) -> Callable[..., tuple]:
    return getattr(doors(), f"simulate_{operator.rstrip('_')}")


def check_step(
    name: str, delta: Tensor, grad: Tensor, x: Tensor, out: Tensor | None, bounds: list, mask: Tensor | None, grid: Grid
) -> str:
    """The path that a step takes, after its results and accesses were looked at."""
    expected, expected_out = delta.clone(), None if out is None else torch.empty_like(out)
    getattr(reference, name)(expected, grad, x, bounds, mask, expected_out)
    mask_place = (0, 0) if mask is None else (mask.data_ptr(), mask.stride(0))
    result = simulated(name)(
        given(delta), given(grad), given(x), given(out), *given_bounds(bounds), *mask_place, whole(grid)
    )
    stepped = delta if mask is None else delta[mask]
    shown = [delta[n] for n in range(len(delta)) if mask[n]] if mask is not None else [stepped]
    check_accesses(result, [*shown, *([] if out is None else [out])], [delta, grad, x])
    assert same(delta, expected)
    assert out is None or same(out, expected_out)
    return result[0]


def without_alpha(bounds: list) -> list:
    return bounds[len(bounds) // 4 :]


def check_init(
    name: str, delta: Tensor, x: Tensor, out: Tensor | None, bounds: list, index: Tensor | None, grid: Grid
) -> str:
    """As check_step, of a random start."""
    states = [torch.tensor([2**62 + 17, 2**40 + 5]) for _ in range(2)]
    expected, expected_out = delta.clone(), None if out is None else torch.empty_like(out)
    getattr(reference, name)(expected, x, states[0], without_alpha(bounds), index, expected_out)
    index_place = (0, 0) if index is None else (index.data_ptr(), index.stride(0))
    result = simulated(name)(
        given(delta), given(x), given(out), states[1].data_ptr(), *given_bounds(bounds), *index_place, whole(grid)
    )
    check_accesses(result, [delta, *([] if out is None else [out])], [x])
    assert same(delta, expected)
    assert out is None or same(out, expected_out)
    assert torch.equal(*states)
    return result[0]


@pytest.mark.parametrize("case", cases(), ids=str)
def test_case_table(case: Case) -> None:
    generator = torch.Generator().manual_seed(0)
    delta, grad, x = images(case, "cpu", generator)
    given_by_user = {n: bound(case.bounds, s, x, generator)[0] for n, s in (("alpha", 0.03), ("epsilon", 0.1))}
    given_by_user |= {n: bound(case.bounds, s, x, generator)[0] for n, s in (("lower", 0.05), ("upper", 1.0))}
    _, bounds = prepare("sign_step_", x, list(given_by_user.values()))
    mask = (torch.rand(2 * case.shape[0], generator=generator) > 0.3)[::2]
    index = (torch.randperm(2 * case.shape[0], generator=generator) + 2**40)[::2]
    grid = GRIDS[sum(case.shape) % len(GRIDS)]
    out = place(torch.full_like(x, math.nan), case.layout, 3)
    for name in STEPS:
        check_step(name, like(delta).copy_(delta), grad, x, None, bounds, None, grid)
        check_step(name, like(delta).copy_(delta), grad, x, out, bounds, mask, grid)
    for name in INITS:
        check_init(name, like(delta), x, None, bounds, None, grid)
        check_init(name, like(delta), x, out, bounds, index, grid)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtypes", list(itertools.product(DTYPES, DTYPES, DTYPES)), ids=lambda d: "-".join(map(str, d)))
def test_mixed_dtypes_take_vectors(dtypes: tuple[torch.dtype, ...], layout: str) -> None:
    generator = torch.Generator().manual_seed(1)
    parts = [torch.randn(3, 3, 8, 12, generator=generator).to(dtype) for dtype in dtypes]
    delta, grad, x = (place(part, layout, 0) for part in parts)
    out = like(grad)
    bounds = pack([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6], [-1.0], [1.0]])
    expected = {1: "floats" if dtypes[0] == torch.float32 else "halves"}
    mask = torch.tensor([True, False, True])
    kinds = {dtype == torch.float32 for dtype in dtypes}
    path = "mixed" if len(kinds) > 1 else expected[1]
    assert check_step("sign_step_", delta, grad, x, out, bounds, mask, (3, 32)) == path
    l2_path = "strided" if layout == "channels_last" else "floats" if kinds == {True} else "mixed"
    assert check_step("l2_step_", delta, grad, x, out, bounds, mask, (3, 32)) == l2_path
    assert check_init("l2_init_", delta, x, out, bounds, torch.tensor([5, 0, 9]), (3, 32)) in (l2_path, "floats")
    path = check_init("uniform_init_", delta, x, out, bounds, torch.tensor([5, 0, 9]), (3, 32))
    assert path == "tiles" if layout == "channels_last" else path in ("floats", "halves", "mixed")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("offset", range(9))
def test_common_misalignment_takes_vectors(dtype: torch.dtype, offset: int) -> None:
    """A head of single elements, vectors, a tail: for every size around the vectors' width."""
    bounds = [0.1, 0.2, -1.0, 1.0]
    for size in (*range(1, 20), 63, 64, 65):
        parts = [torch.randn(offset + size).to(dtype)[offset:] for _ in range(3)]
        addresses = {tensor.data_ptr() % 16 for tensor in parts}
        path = check_step("sign_step_", *parts, None, bounds, None, (2, 4))
        if len(addresses) == 1 and size >= 16:
            assert path == ("floats" if dtype == torch.float32 else "halves")
        check_init("uniform_init_", parts[0], parts[2], None, bounds, None, (2, 4))


@pytest.mark.parametrize(
    "shape", [(2, 3, 32, 32), (3, 1, 6, 6), (3, 7, 12, 12), (2, 250, 2, 2), (1, 257, 2, 2), (9, 2, 2, 2)]
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_channels_last_noise_in_tiles(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x = torch.rand(shape).to(dtype).contiguous(memory_format=torch.channels_last)
    epsilon = torch.rand(1, shape[1])
    bounds = [epsilon, epsilon, -torch.ones(1, 1), torch.ones(1, 1)]
    for grid in GRIDS:
        path = check_init("uniform_init_", like(x), x, like(x), bounds, None, grid)
        assert path == "tiles" if shape[1] <= 256 and shape[1] > 1 else path != "tiles"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 3, 4, 255, 257, 1020, 1023, 1024, 1025, 1028, 2049, 5000])
def test_lanes_of_a_sample(size: int, dtype: torch.dtype) -> None:
    """Less than a round of the lanes, whole rounds, and some more; vectors where every sample is aligned."""
    for offset in (0, 1):
        parts = [torch.randn(offset + 3 * size).to(dtype)[offset:].view(3, size) for _ in range(3)]
        bounds = [0.5, 0.25, -1.0, 1.0]
        aligned = size % 4 == 0 and not offset
        path = ("floats" if dtype == torch.float32 else "mixed") if aligned else "strided"
        assert check_step("l2_step_", *parts, None, bounds, None, (2, 256)) == path
        assert check_init("l2_init_", parts[0], parts[2], None, bounds, None, (2, 256)) == path


@pytest.mark.parametrize("name", INITS)
def test_no_samples_advance_the_draw_counter(name: str) -> None:
    x = torch.empty(0, 3, 4, 4)
    check_init(name, x, x.clone(), None, [0.0, 0.1, 0.0, 1.0], None, (1, 32))


def check_augment(
    images: Tensor, index: Tensor, out: Tensor, scales: list, padding: int, flip: bool, grid: Grid
) -> str:
    """The path that an augmentation takes, after its result and accesses were looked at."""
    state, expected = torch.tensor([2**62 + 17, 2**40 + 5]), like(out)
    reference.augment_(expected, images, index, state, scales, padding, flip)
    tables = [(row.data_ptr(), row.stride(1) * (row.shape[1] > 1)) for row in scales if isinstance(row, Tensor)]
    places = (index.data_ptr(), index.stride(0), state.data_ptr())
    result = simulated("augment_")(
        given(out), given(images), *places, [] if tables else scales, tables, padding, flip, whole(grid)
    )
    check_accesses(result, [out], [images[number] for number in index])
    assert same(out, expected)
    assert state.tolist() == [2**62 + 17, 2**40 + 5]
    return result[0]


AUGMENTED = [(6, 3, 8, 12), (6, 3, 7, 5), (6, 1, 5, 3), (6, 4, 3, 3), (6, 70, 2, 3), (6, 3, 0, 4), (6, 3, 1, 1)]


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "mixed", "offset", "strided"])
@pytest.mark.parametrize("shape", AUGMENTED, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_augment(dtype: torch.dtype, shape: tuple[int, ...], layout: str) -> None:
    generator = torch.Generator().manual_seed(4)
    values = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    mean, std = torch.rand(2, 1, shape[1], generator=generator) + 0.1
    by_value = [[0.5, 0.25], pack([mean.flatten().tolist(), std.flatten().tolist()])] if shape[1] <= 4 else []
    for place_number, scales in enumerate([*by_value, [mean, std], [mean.repeat(1, 2)[:, ::2], std[:, :1]]]):
        index = torch.tensor([5, 0, 0, 0, 3, 0, 5, 0])[::2]
        images = place(values, layout, 1)
        for padding, flip in ((4, True), (0, False), (0, True), (30, False)):
            out = place(torch.full((4, *shape[1:]), math.nan, dtype=dtype), layout, place_number % 2)
            grid = GRIDS[(padding + place_number) % len(GRIDS)]
            path = check_augment(images, index, out, scales, padding, flip, grid)
            dense = shape[1] == 3 and images.is_contiguous() and out.is_contiguous(memory_format=torch.channels_last)
            assert path == ("dense" if dense else "strided") or out.numel() == 0


def sgd_parameters(shapes: list[tuple[int, ...]], layout: str) -> dict[str, list[Tensor]]:
    generator = torch.Generator().manual_seed(3)
    params = [torch.randn(s, generator=generator).to(DTYPES[i % 3]) for i, s in enumerate(shapes)]
    if layout == "mixed":
        params = [p.contiguous(memory_format=torch.channels_last) if p.dim() == 4 else p for p in params]
    grads = [torch.randn(s, generator=generator).to(DTYPES[i // 3 % 3]) for i, s in enumerate(shapes)]
    if layout == "offset":
        params, grads = ([place(t, "offset", i % 8) for i, t in enumerate(ts)] for ts in (params, grads))
    return {
        "params": params,
        "grads": grads,
        "masters": [like(p, dtype=torch.float32).copy_(p) if i % 2 else torch.empty(0) for i, p in enumerate(params)],
        "momentum_buffers": [like(p, 0.5, torch.float32 if i % 4 else p.dtype) for i, p in enumerate(params)],
        "steps": [torch.tensor(i % 3) for i in range(len(params))],
    }


SGD_SHAPES = [(1,), (0,), (3,), (5, 3, 3, 3), (4, 4), (4095,), (4096,), (4097,), (2, 3, 5, 5), (9000,), (7, 1)]


@pytest.mark.parametrize("layout", ["contiguous", "offset", "mixed"])
@pytest.mark.parametrize(
    ("momentum", "nesterov", "maximize", "scaled", "found"),
    [
        (0.0, False, False, False, None),
        (0.9, False, True, True, 0.0),
        (0.9, True, False, False, 0.0),
        (0.9, True, True, True, 1.0),
    ],
)
def test_sgd_step(
    layout: str, momentum: float, nesterov: bool, maximize: bool, scaled: bool, found: float | None
) -> None:
    ours, theirs = (sgd_parameters(SGD_SHAPES, layout) for _ in range(2))
    lr, inv_scale = torch.tensor(0.1), torch.tensor(1 / 3) if scaled else None
    found_inf = None if found is None else torch.tensor(found)
    dampening, weight_decay = 0.25, 5e-4
    reference.sgd_step_(
        *theirs.values(), lr, inv_scale, found_inf, momentum, dampening, weight_decay, nesterov, maximize
    )

    scalars = [0 if t is None else t.data_ptr() for t in (lr, inv_scale, found_inf)]
    numbers = [0.0, momentum, 1 - dampening, weight_decay]
    shared = doors().SgdShared(numbers, maximize, nesterov, momentum != 0, scalars)
    listed, rest = [], []
    for p, g, w, b, step in zip(*ours.values(), strict=True):
        master, buffer = (t if used and t.numel() else None for t, used in ((w, True), (b, momentum != 0)))
        parameter = (given(p), given(g), given(master), given(buffer), step.data_ptr())
        tensors = [t for t in (p, master, buffer) if t is not None], [g]
        (listed if doors().shares_order(parameter) else rest).append((parameter, tensors))
    assert bool(rest) == (layout == "mixed")
    grid = doors().Grid(0, 64, 0, -1)
    runs = [(doors().simulate_sgd_list([p for p, _ in listed], shared, grid), [t for _, t in listed])]
    runs += [(doors().simulate_sgd_strided(p, shared, whole((3, 64))), [t]) for p, t in rest]
    for result, tensors in runs:
        written = [t for ts, _ in tensors for t in ts] if not found else [torch.empty(0)]
        check_accesses(result, written, [g for _, grads in tensors for g in grads])
    for name in ours:
        for one, other in zip(ours[name], theirs[name], strict=True):
            assert same(one, other), name


@pytest.mark.parametrize("name", INITS)
def test_draw_counter_advances_once_a_launch(name: str) -> None:
    x = torch.rand(100)
    state = torch.tensor([3, 0])
    for draw in range(3):
        delta = torch.empty(100)
        bounds = given_bounds([0.0, 0.1, 0.0, 1.0])
        simulated(name)(given(delta), given(x), None, state.data_ptr(), *bounds, 0, 0, whole((draw + 1, 32)))
        rng = ak.PhiloxState(3)
        rng.tensor[1] = draw
        assert torch.equal(delta, getattr(ak, name[:-1])(x, 0.1, rng=rng))
        assert state.tolist() == [3, draw + 1]
