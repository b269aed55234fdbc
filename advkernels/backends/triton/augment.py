"""Training images from a data set: crop, flip, normalise and cast."""

from typing import Any

import triton
import triton.language as tl
from torch import Tensor
from torch.library import wrap_triton

from advkernels import checks
from advkernels.backends.triton.bounds import bound, pack
from advkernels.backends.triton.elements import divide, store
from advkernels.backends.triton.geometry import PROGRAM, STRIDED, coordinates, memory_order
from advkernels.backends.triton.launch import launch, traced
from advkernels.backends.triton.philox import philox
from advkernels.bounds import Rows


@triton.jit
def _shift(word, padding):
    """int64, uniform in [-padding, padding], from the upper 24 of 32 random bits."""
    border = tl.cast(padding, tl.int64)
    return (((word >> 8).to(tl.int64) * (2 * border + 1)) >> 24) - border


@triton.jit
def _place(element, height, width, ORDER: tl.constexpr, WIDE: tl.constexpr, CHANNELS: tl.constexpr):
    """int64 channel, row and column of an element of a sample, by 32-bit division where that is enough."""
    kind: tl.constexpr = tl.uint64 if WIDE else tl.uint32
    rows, columns = tl.cast(height, kind), tl.cast(width, kind)
    _, channel, place = coordinates(element, rows * columns, ORDER, WIDE, CHANNELS)
    y = place.to(kind) // columns
    return channel, y.to(tl.int64), (place.to(kind) - y * columns).to(tl.int64)


@triton.jit
def _augment_kernel(
    out,
    images,
    index,
    state,
    programs,
    height,
    width,
    padding,
    mean0,
    mean1,
    mean2,
    mean3,
    std0,
    std1,
    std2,
    std3,
    image_n,
    image_c,
    image_y,
    image_x,
    out_n,
    out_c,
    out_y,
    out_x,
    MEAN: tl.constexpr,
    STD: tl.constexpr,
    FLIP: tl.constexpr,
    ORDER: tl.constexpr,
    WIDE: tl.constexpr,
    CHANNELS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    rows, columns = tl.cast(height, tl.int64), tl.cast(width, tl.int64)
    features = rows * columns * CHANNELS
    n = (tl.program_id(0) // programs).to(tl.int64)
    element = (tl.program_id(0) % programs).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = element < features
    c, y, x = _place(element, height, width, ORDER, WIDE, CHANNELS)

    image = tl.load(index + n)
    row, column = y, x
    if state is not None:
        w0, w1, w2, _ = philox(image, tl.load(state), tl.load(state + 1))
        if FLIP:
            column = tl.where((w2 >> 31) == 1, columns - 1 - x, x)
        row += _shift(w0, padding)
        column += _shift(w1, padding)
    shown = inside & (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
    source = image * image_n + c * image_c + row * image_y + column * image_x
    pixel = tl.load(images + source, shown, other=0).to(tl.float32)
    mean = bound(mean0, mean1, mean2, mean3, n, c, CHANNELS, inside, MEAN)
    std = bound(std0, std1, std2, std3, n, c, CHANNELS, inside, STD)
    value = divide(divide(pixel, 255.0) - mean, std)
    target = n * features + element
    if ORDER == STRIDED:
        target = n * out_n + c * out_c + y * out_y + x * out_x
    store(out, target, value, inside)


def augment_(
    out: Tensor, images: Tensor, index: Tensor, state: Tensor | None, scales: Rows, padding: int, flip: bool
) -> None:
    """One launch; see `reference.augment_`."""
    checks.augmentation("augment_", images, index, state, padding, flip, out)
    if out.numel() == 0:
        return
    values, forms = pack(scales, 2, out)
    samples, channels, height, width = out.shape
    features = channels * height * width
    programs = -(-features // PROGRAM)
    random = state if padding or flip else None
    arguments: list[Any] = [out, images, index.contiguous(), random, programs, height, width, padding]
    arguments += [*values, *images.stride(), *out.stride(), *forms]
    constants = {
        "FLIP": flip,
        "ORDER": memory_order([out]),
        "WIDE": features >= 2**31,
        "CHANNELS": int(channels),
        "BLOCK": PROGRAM,
    }
    kernel = wrap_triton(_augment_kernel) if traced(out) else _augment_kernel
    launch(kernel, (samples * programs,), out.device, arguments, constants)
