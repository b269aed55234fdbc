"""The half-precision conversions against NumPy and PyTorch, every half exhaustively."""

import numpy as np
import pytest
import torch

from advkernels.backends import native

bindings = native.bindings()
pytestmark = pytest.mark.skipif(bindings is None, reason="the compiled bindings are not built")

ALL_BITS = range(2**16)


def test_half_to_float() -> None:
    expected = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)
    np.testing.assert_array_equal(np.array([bindings.half_to_float(b) for b in ALL_BITS], np.float32), expected)


def test_bfloat16_to_float() -> None:
    expected = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(torch.bfloat16).float().numpy()
    np.testing.assert_array_equal(np.array([bindings.bfloat16_to_float(b) for b in ALL_BITS], np.float32), expected)


def hard_floats() -> np.ndarray:
    """Every half, the midpoints between neighbours and their float32 neighbours, and random bit patterns."""
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)
    finite = np.sort(halves[np.isfinite(halves)])
    middle = (finite[1:] + finite[:-1]) / 2
    around = np.concatenate(
        [np.nextafter(middle, np.inf, dtype=np.float32), np.nextafter(middle, -np.inf, dtype=np.float32)]
    )
    random = np.random.default_rng(0).integers(0, 2**32, 50000, dtype=np.uint32).view(np.float32)
    edges = np.array([65504, 65519.996, 65520, 1e30, -1e30, np.inf, -np.inf, np.nan, -0.0, 2.0**-25, 1e-45], np.float32)
    return np.concatenate([middle, around, random, edges]).astype(np.float32)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_float_to_half(dtype: torch.dtype) -> None:
    values = hard_floats()
    convert = bindings.float_to_half if dtype == torch.float16 else bindings.float_to_bfloat16
    bits = np.array([convert(int(b)) for b in values.view(np.uint32)], np.uint16)
    ours = torch.from_numpy(bits.view(np.int16)).view(dtype)
    expected = torch.from_numpy(values).to(dtype)
    assert torch.equal(ours.isnan(), expected.isnan())
    numbers = ~expected.isnan()
    assert torch.equal(ours[numbers].view(torch.int16), expected[numbers].view(torch.int16))
