"""The Triton normal numbers against the reference, on the GPU, or on the CPU where TRITON_INTERPRET=1."""

import os

import pytest
import torch

triton = pytest.importorskip("triton")

import triton.language as tl  # noqa: E402

from advkernels.backends.reference.normal import normal as reference  # noqa: E402
from advkernels.backends.triton.normal import normal  # noqa: E402

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"

pytestmark = [] if INTERPRETED else pytest.mark.gpu


@triton.jit
def _normal_kernel(bits, out, SIZE: tl.constexpr):  # noqa: N803
    i = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    tl.store(out + i, normal(tl.load(bits + i).to(tl.uint32)))


def test_normal_numbers_of_every_kind_of_bits() -> None:
    """Both tails, the middle, and 2^17 words from all over."""
    ends = torch.arange(2**17)
    bits = torch.cat([ends << 8, 2**31 + ((ends - 2**16) << 8), 2**32 - 1 - (ends << 8), ends * 32749])
    got = torch.zeros(len(bits), device=DEVICE)
    size = 2**16 if INTERPRETED else 1024  # the interpreter takes its time for a program, however large
    _normal_kernel[(len(bits) // size,)](bits.to(DEVICE), got, size)
    assert torch.equal(got.cpu(), reference(bits))
