"""Index arithmetic beyond 2^31 elements: the kernels' code on pretended addresses, no such memory needed."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, strategies
from plain import philox4x32_10, uniform_number
from simulation import doors
from simulation import given as describe

from advkernels.bounds import pack

BASE = 2**44
VALUES = [0.0, 0.25, -1.0, 1.0]
HUGE = (5, 3, 2**15, 2**15 + 4)  # 16 * 10^9 elements, more than 2^31 a sample


@given(strategies.integers(0, 2**63 - 1), strategies.integers(1, 2**62))
@example(2**63 - 1, 1)
@example(2**63 - 1, 2**62)
@example(2**63 - 1, 2**62 - 1)
@example(2**62 - 1, 2**31 + 1)
def test_division(n: int, d: int) -> None:
    assert doors().divide(n, d) == n // d
    assert doors().divide(n // d * d, d) == n // d
    assert doors().divide(max(n // d * d - 1, 0), d) == max(n // d * d - 1, 0) // d


def huge(dtype: torch.dtype, memory_format: torch.memory_format, shape: tuple[int, ...] = HUGE) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta", memory_format=memory_format)


def elements(accesses: np.ndarray, base: int, item: int) -> np.ndarray:
    """The elements of a tensor that accesses touch, in order."""
    size = int(accesses[0, 1])
    assert (accesses[:, 1] == size).all()
    return np.sort(((accesses[:, 0, None] - base + np.arange(0, size, item)) // item).reshape(-1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("around", [2**31, 2**32, 2**33, "end"])
def test_sign_step_vectors(dtype: torch.dtype, memory_format: torch.memory_format, around: int | str) -> None:
    x = huge(dtype, memory_format)
    tensors = [describe(x, BASE + k * 2**38) for k in range(4)]
    width, threads = 16 // x.element_size(), 256
    blocks = -(-x.numel() // (width * threads))
    block = blocks - 1 if around == "end" else around // (width * threads)
    grid = doors().Grid(blocks, threads, block, block + 1, dry=True)
    per_channel = pack([[0.0], [0.1, 0.2, 0.3], [-1.0], [1.0]])
    mask = torch.tensor([True, False, True, False, True])  # the blocks above lie in the samples 0, 1, 2 and 4
    first = block * width * threads
    sample = first // (x.numel() // 5)
    path, reads, writes = doors().simulate_sign_step(*tensors, per_channel, [], mask.data_ptr(), 1, grid)
    assert path == ("floats" if dtype == torch.float32 else "halves")
    expected = np.arange(first, min(first + width * threads, x.numel()))
    for k in range(3):
        base = BASE + k * 2**38
        mine = reads[(reads[:, 0] >= base) & (reads[:, 0] < base + 2**38)]
        assert np.array_equal(elements(mine, base, x.element_size()), expected)
    deltas, outs = writes[writes[:, 0] < BASE + 2**38], writes[writes[:, 0] >= BASE + 3 * 2**38]
    assert np.array_equal(elements(outs, BASE + 3 * 2**38, x.element_size()), expected)
    assert len(deltas) + len(outs) == len(writes)
    if mask[sample]:
        assert np.array_equal(elements(deltas, BASE, x.element_size()), expected)
    else:
        assert len(deltas) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_l2_samples(dtype: torch.dtype, memory_format: torch.memory_format) -> None:
    """A block writes its sample, wherever that lies."""
    x = huge(dtype, memory_format, (2**33 // 768 + 3, 3, 16, 16))
    tensors = [describe(x, BASE + k * 2**38) for k in range(4)]
    state = torch.tensor([2**40 + 9, 3])
    for sample in (2**31 // 768, 2**32 // 768, 2**33 // 768, len(x) - 1):
        grid = doors().Grid(len(x), 256, sample, sample + 1, dry=True)
        runs = [doors().simulate_l2_step(*tensors, VALUES, [], 0, 0, grid)]
        runs += [doors().simulate_l2_init(*tensors[:2], tensors[3], state.data_ptr(), VALUES, [], 0, 0, grid)]
        for path, reads, writes in runs:
            strided = memory_format is torch.channels_last
            assert path == ("strided" if strided else "floats" if dtype == torch.float32 else "mixed")
            for accesses, bases in ((writes, (0, 3)), (reads, {int(a - BASE) >> 38 for a in reads[:, 0]})):
                for k in bases:
                    base = BASE + k * 2**38
                    mine = accesses[(accesses[:, 0] >= base) & (accesses[:, 0] < base + 2**38)]
                    touched = np.unique(elements(mine, base, x.element_size()))
                    assert np.array_equal(touched, np.arange(sample * 768, (sample + 1) * 768))
            assert writes[:, 1].sum() == 2 * 768 * x.element_size()


def test_strided_offsets() -> None:
    delta, x = huge(torch.float32, torch.contiguous_format), huge(torch.float16, torch.channels_last)
    blocks, threads = -(-delta.numel() // 64), 64
    for element in (2**31 - 5, 2**32 + 1, delta.numel() - 1):
        block = element // threads
        grid = doors().Grid(blocks, threads, block, block + 1, dry=True)
        tensors = [describe(delta, BASE), describe(x, 2 * BASE), describe(x, 3 * BASE), None]
        path, reads, writes = doors().simulate_sign_step(*tensors, VALUES, [], 0, 0, grid)
        assert path == "strided"
        expected = np.arange(block * threads, min((block + 1) * threads, delta.numel()))
        assert np.array_equal(np.sort(writes[:, 0]), BASE + 4 * expected)
        index = np.stack(np.unravel_index(expected, delta.shape))
        offsets = (index * np.array(x.stride())[:, None]).sum(0)
        for base in (2 * BASE, 3 * BASE):
            mine = reads[(reads[:, 0] >= base) & (reads[:, 0] < base + 2**40), 0]
            assert np.array_equal(np.sort(mine), np.sort(base + 2 * offsets))


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "mixed"])
@pytest.mark.parametrize("numbered", [False, True])
def test_uniform_init_numbers(layout: str, numbered: bool) -> None:
    """The random number of an element hangs on its logical index alone, whatever the order in memory."""
    last = torch.channels_last
    delta = huge(torch.float32, torch.contiguous_format if layout == "contiguous" else last)
    x = huge(torch.float32, last if layout == "channels_last" else torch.contiguous_format)
    state = torch.tensor([2**40 + 9, 3])
    index = torch.tensor([4, 2**33, 0, 7, 2**20])
    place = (index.data_ptr(), 1) if numbered else (0, 0)
    threads = 32
    per_block = {"contiguous": 4 * threads, "channels_last": 170 * 12, "mixed": threads}[layout]
    blocks = -(-delta.numel() // per_block)
    rng = np.random.default_rng(0)
    for element in (2**31 + 3, 2**33 + 9, delta.numel() - 1):
        block = element // per_block
        grid = doors().Grid(blocks, threads, block, block + 1, dry=True)
        state[1] = 3
        path, _, writes = doors().simulate_uniform_init(
            describe(delta, BASE), describe(x, 2 * BASE), None, state.data_ptr(), VALUES, [], *place, grid
        )
        assert path == {"contiguous": "floats", "channels_last": "tiles", "mixed": "strided"}[layout]
        size = int(writes[0, 1]) // 4
        addresses = (writes[:, :1] + 4 * np.arange(size)).reshape(-1)
        words = writes[:, 2 : 2 + size].reshape(-1).astype(np.uint32).view(np.float32)
        positions = (addresses - BASE) // 4
        if layout == "contiguous":
            logical = positions
        else:
            n, h, w, c = np.unravel_index(positions, [delta.shape[dim] for dim in (0, 2, 3, 1)])
            logical = np.ravel_multi_index((n, c, h, w), delta.shape)
        assert element in (logical if layout == "mixed" else positions)
        for i in rng.choice(len(logical), 40):
            where = int(logical[i])
            if numbered:
                sample, within = divmod(where, delta.numel() // 5)
                where = int(index[sample]) * (delta.numel() // 5) + within
            assert words[i] == uniform_number(where, 2**40 + 9, 3, 0.25)


@pytest.mark.parametrize("layout", ["dense", "strided"])
@pytest.mark.parametrize("around", [2**31, 2**32, 2**33, "end"])
def test_augment_offsets(layout: str, around: int | str) -> None:
    """Pixels beyond 2^31 of images beyond 2^31 bytes, out of a data set of 2^60."""
    shape, number, padding, threads = HUGE, 2**29 + 7, 4, 64
    images = torch.empty((2**29 + 9, *shape[1:]), dtype=torch.uint8, device="meta")
    out = huge(torch.bfloat16, torch.channels_last if layout == "dense" else torch.contiguous_format)
    index, state = torch.tensor([4, number, 0, 7, number - 1]), torch.tensor([2**40 + 9, 2**33])
    pixels = out.numel() // 3
    blocks = -(-pixels // threads)
    block = blocks - 1 if around == "end" else around // threads
    grid = doors().Grid(blocks, threads, block, block + 1, dry=True)
    path, reads, writes = doors().simulate_augment(
        describe(out, BASE), describe(images, 2**60), index.data_ptr(), 1, state.data_ptr(), [0.5, 0.25], [], padding,
        True, grid,
    )  # fmt: skip
    assert path == layout
    mine = np.arange(block * threads, min((block + 1) * threads, pixels))
    n, y, x = np.unravel_index(mine, (shape[0], *shape[2:]))
    written = sum(p * s for p, s in zip((n, y, x), (out.stride(d) for d in (0, 2, 3)), strict=True))
    written = (written[:, None] + np.arange(3) * out.stride(1)).reshape(-1)
    assert np.array_equal(np.sort(writes[:, 0]), np.sort(BASE + 2 * written))
    counter = [[int(i) % 2**32, int(i) // 2**32, 0, 2] for i in index[n]]
    words = [philox4x32_10(c, [9, 2**8]) for c in counter]
    top, left = (np.array([(w[k] >> 8) * 9 // 2**24 - padding for w in words]) for k in (0, 1))
    row, column = y + top, np.where([w[2] >= 2**31 for w in words], shape[3] - 1 - x, x) + left
    shown = (row >= 0) & (row < shape[2]) & (column >= 0) & (column < shape[3])
    start = [int(i) * 3 * shape[2] * shape[3] for i in index[n][torch.from_numpy(shown)]]
    source = np.array(start) + row[shown] * shape[3] + column[shown]
    source = (source[:, None] + np.arange(3) * shape[2] * shape[3]).reshape(-1)
    assert np.array_equal(np.sort(reads[:, 0]), np.sort(2**60 + source))


def test_sgd_chunks() -> None:
    param = torch.empty(2**33 + 4099, dtype=torch.bfloat16, device="meta")
    small = torch.empty(100, device="meta")
    steps = torch.zeros(2, dtype=torch.int64)
    shared = doors().SgdShared([0.1, 0.9, 1.0, 0.0], False, False, True, [0, 0, 0])
    master = param.float()
    parameters = [
        (describe(small, BASE), describe(small, 2 * BASE), None, describe(small, 3 * BASE), steps.data_ptr()),
        (*(describe(t, (4 + k) * BASE) for k, t in enumerate((param, param, master, master))), steps.data_ptr() + 8),
    ]
    blocks = 1 + -(-param.numel() // 4096)
    for block in (1 + 2**31 // 4096, 1 + 2**32 // 4096, blocks - 1):
        grid = doors().Grid(blocks, 256, block, block + 1, dry=True)
        _, _, writes = doors().simulate_sgd_list(parameters, shared, grid)
        expected = np.arange((block - 1) * 4096, min(block * 4096, param.numel()))
        for k, item in ((0, 2), (2, 4), (3, 4)):
            base = (4 + k) * BASE
            mine = writes[(writes[:, 0] >= base) & (writes[:, 0] < base + BASE)]
            spread = [elements(mine[mine[:, 1] == size], base, item) for size in np.unique(mine[:, 1])]
            assert np.array_equal(np.sort(np.concatenate(spread)), expected)
    assert steps[1] == 3 << 40  # three tickets: the counter itself stands still until the last one
