"""Index arithmetic of the Triton kernels beyond 2^31, on the GPU, or on the CPU where TRITON_INTERPRET=1."""

import os

import pytest
import torch

triton = pytest.importorskip("triton")

import triton.language as tl  # noqa: E402

from advkernels.backends.triton.geometry import CHANNELS_LAST, CONTIGUOUS, STRIDED, coordinates, offset  # noqa: E402

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"

pytestmark = [] if INTERPRETED else pytest.mark.gpu

STRIDES = (2**33, 5, 7)  # of sample, channel, place


@triton.jit
def _locate_kernel(group, out, places, sample_stride, ORDER: tl.constexpr, WIDE: tl.constexpr):  # noqa: N803
    i = tl.arange(0, 4)
    n, c, s = coordinates(tl.load(group + i), places, ORDER, WIDE, 3)
    tl.store(out + i, n)
    tl.store(out + 4 + i, c)
    tl.store(out + 8 + i, s)
    tl.store(out + 12 + i, offset(i, n, c, s, sample_stride, 5, 7, STRIDED))


@pytest.mark.parametrize("order", [CONTIGUOUS.value, CHANNELS_LAST.value], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize(
    ("places", "first", "wide"), [(50000, 2**31 - 4, False), (50000, 2**35 + 11, True), (1, 2**40, True)]
)
def test_coordinates(places: int, first: int, wide: bool, order: int) -> None:
    group = torch.arange(first, first + 4)
    n = group // (3 * places)
    if order == CHANNELS_LAST.value:
        c, s = group % 3, group // 3 % places
    else:
        c, s = group // places % 3, group % places
    got = torch.zeros(16, dtype=torch.int64, device=DEVICE)
    _locate_kernel[(1,)](group.to(DEVICE), got, places, STRIDES[0], ORDER=order, WIDE=wide)
    wanted = torch.cat([n, c, s, n * STRIDES[0] + c * STRIDES[1] + s * STRIDES[2]])
    assert torch.equal(got.cpu(), wanted)
