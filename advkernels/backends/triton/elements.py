"""Element arithmetic of every kernel: widening, rounding once, and products that are never fused into a sum."""

import triton
import triton.language as tl

from advkernels.backends.triton.launch import INTERPRETED


@triton.jit
def multiply(a, b):
    """a * b, of two float64 or of float32, rounded on its own whatever the compiler may fuse."""
    if INTERPRETED:
        return a * b
    elif a.dtype == tl.float64:
        return tl.inline_asm_elementwise(
            "mul.rn.f64 $0, $1, $2;", "=d,d,d", [a, b], dtype=tl.float64, is_pure=True, pack=1
        )
    else:
        return tl.inline_asm_elementwise(
            "mul.rn.f32 $0, $1, $2;", "=f,f,f", [a, b], dtype=tl.float32, is_pure=True, pack=1
        )


@triton.jit
def divide(a, b):
    """a / b of float32, rounded exactly: `/` would be an approximation."""
    return tl.div_rn(a, tl.zeros_like(a) + b)


@triton.jit
def float64(VALUE: tl.constexpr):
    """A constant: as a float among float64 arguments it would be rounded to float32."""
    return tl.full((), VALUE, tl.float64)


@triton.jit
def minimum(a, b):
    return tl.minimum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def maximum(a, b):
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def project(d, x, lower, upper):
    return maximum(minimum(d, upper - x), lower - x)


@triton.jit
def widen(value):
    """float32 of any element type; bfloat16 by its bits, exact in the interpreter too."""
    if value.dtype == tl.bfloat16:
        bits = value.to(tl.uint16, bitcast=True).to(tl.uint32) << 16
        return bits.to(tl.float32, bitcast=True)
    else:
        return value.to(tl.float32)


@triton.jit
def narrow(value, dtype: tl.constexpr):
    """float32 rounded to nearest even; by its bits in the interpreter, whose own conversion to bfloat16 does not."""
    if INTERPRETED and dtype == tl.bfloat16:
        bits = value.to(tl.uint32, bitcast=True)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        bits = tl.where(value == value, rounded, 0x7FC0)
        return bits.to(tl.uint16).to(tl.bfloat16, bitcast=True)
    else:
        return value.to(dtype)


@triton.jit
def load(pointer, offset, inside):
    return widen(tl.load(pointer + offset, inside))


@triton.jit
def store(pointer, offset, value, inside):
    """Round once, store, and give back what was stored."""
    stored = narrow(value, pointer.dtype.element_ty)
    tl.store(pointer + offset, stored, inside)
    return widen(stored)
