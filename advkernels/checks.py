"""What the operations refuse: errors that name operation, argument, wanted and got, before anything is written."""

import torch
from torch import Tensor
from torch._subclasses import FakeTensor

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
MAX_DIMS = 8  # of the native loops
MAX_PADDING = 2**30  # twice as much and one more is an int32


def wrong(operation: str, argument: str, wanted: str, got: object) -> str:
    """The one form of every message."""
    return f"{operation}: {argument}: wanted {wanted}, got {got}"


def images(operation: str, x: Tensor, read: dict[str, Tensor], delta: Tensor, out: Tensor | None) -> None:
    """Tensors of a supported dtype, of x's shape and device; delta and out writable, in memory of their own."""
    written = {"delta": delta} if out is None else {"delta": delta, "out": out}
    given = {"x": x, **read, **written}
    dense(operation, "x", x)
    if x.dim() > MAX_DIMS:
        raise ValueError(wrong(operation, "x", f"at most {MAX_DIMS} dimensions", x.dim()))
    for argument, tensor in given.items():
        dense(operation, argument, tensor)
        like(operation, argument, tensor, x)
    apart(operation, given, written)


def apart(operation: str, given: dict[str, Tensor], written: dict[str, Tensor]) -> None:
    """The written ones of the given tensors are writable, each in memory of its own."""
    for argument, tensor in written.items():
        writable(operation, argument, tensor)
    if not torch.compiler.is_compiling():
        _disjoint(operation, given, written)


def dense(operation: str, argument: str, tensor: Tensor) -> None:
    """A dense floating-point tensor of a supported dtype."""
    if not isinstance(tensor, Tensor):
        raise TypeError(wrong(operation, argument, "a tensor", type(tensor).__name__))
    if tensor.dtype not in DTYPES:
        raise TypeError(wrong(operation, argument, "float32, bfloat16 or float16", tensor.dtype))
    if tensor.layout is not torch.strided:
        raise TypeError(wrong(operation, argument, "a dense (strided) tensor", tensor.layout))


def floating(operation: str, argument: str, tensor: Tensor) -> None:
    """A dense floating-point tensor."""
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point() or tensor.layout is not torch.strided:
        got = f"{tensor.layout} {tensor.dtype}" if isinstance(tensor, Tensor) else type(tensor).__name__
        raise TypeError(wrong(operation, argument, "a dense floating-point tensor", got))


def like(operation: str, argument: str, tensor: Tensor, other: Tensor) -> None:
    """A tensor of the other's shape and device."""
    if tensor.shape != other.shape:
        raise ValueError(wrong(operation, argument, f"shape {tuple(other.shape)}", tuple(tensor.shape)))
    on_device(operation, argument, tensor, other)


def per_sample(operation: str, argument: str, tensor: Tensor | None, x: Tensor, dtype: torch.dtype) -> None:
    """A tensor (N,) of the given dtype on x's device, or None."""
    if tensor is None:
        return
    of_dtype(operation, argument, tensor, dtype)
    if x.dim() == 0 or tensor.shape != x.shape[:1]:
        raise ValueError(wrong(operation, argument, f"shape {tuple(x.shape[:1])}, one a sample", tuple(tensor.shape)))
    on_device(operation, argument, tensor, x)


def of_dtype(operation: str, argument: str, tensor: Tensor, dtype: torch.dtype) -> None:
    """A dense tensor of one dtype."""
    if not isinstance(tensor, Tensor) or tensor.dtype != dtype or tensor.layout is not torch.strided:
        got = f"{tensor.layout} {tensor.dtype}" if isinstance(tensor, Tensor) else type(tensor).__name__
        raise TypeError(wrong(operation, argument, f"a dense {dtype} tensor", got))


def on_device(operation: str, argument: str, tensor: Tensor, other: Tensor) -> None:
    """A tensor on the other's device."""
    if tensor.device != other.device:
        raise ValueError(wrong(operation, argument, f"device {other.device}", tensor.device))


def augmentation(
    operation: str,
    images: Tensor,
    index: Tensor,
    state: Tensor | None,
    padding: int,
    flip: bool,
    out: Tensor | None,
) -> None:
    """A data set (M, C, H, W) of bytes, the numbers (N,) of some of its images, and where they go, if that is given."""
    of_dtype(operation, "images", images, torch.uint8)
    if images.dim() != 4:
        raise ValueError(wrong(operation, "images", "shape (M, C, H, W)", tuple(images.shape)))
    of_dtype(operation, "index", index, torch.int64)
    if index.dim() != 1:
        raise ValueError(wrong(operation, "index", "shape (N,)", tuple(index.shape)))
    on_device(operation, "index", index, images)
    if not isinstance(flip, bool):
        raise TypeError(wrong(operation, "flip", "a bool", flip))
    if not isinstance(padding, int) or not 0 <= padding <= MAX_PADDING:
        raise ValueError(wrong(operation, "padding", f"an int in [0, {MAX_PADDING}]", padding))
    if state is not None:
        on_device(operation, "rng", state, images)
    elif padding or flip:
        raise ValueError(wrong(operation, "rng", "a PhiloxState for crops and flips", None))
    if out is not None:
        dense(operation, "out", out)
        shape = (index.shape[0], *images.shape[1:])
        if tuple(out.shape) != shape:
            raise ValueError(wrong(operation, "out", f"shape {shape}", tuple(out.shape)))
        on_device(operation, "out", out, images)


def normalization(
    operation: str,
    x: Tensor,
    statistics: tuple[Tensor | None, Tensor | None, Tensor | None],
    weight: Tensor,
    bias: Tensor,
    training: bool,
    momentum: float,
    eps: float,
) -> None:
    """Images (N, C, ...), columns (C,) and a count of batches, all apart; in training not one row."""
    floating(operation, "x", x)
    if x.dim() < 2:
        raise ValueError(wrong(operation, "x", "shape (N, C, ...)", tuple(x.shape)))
    channels = x.shape[1]
    if channels == 0:
        raise ValueError(wrong(operation, "x", "a channel or more", tuple(x.shape)))
    for argument, number in (("momentum", momentum), ("eps", eps)):
        if not isinstance(number, (int, float)):
            raise TypeError(wrong(operation, argument, "a number", number))
    running_mean, running_var, batches = statistics
    columns = {"weight": weight, "bias": bias}
    if running_mean is not None:
        columns["running_mean"] = running_mean
    if running_var is not None:
        columns["running_var"] = running_var
    for argument, column in columns.items():
        floating(operation, argument, column)
        if column.dtype != weight.dtype:
            raise TypeError(wrong(operation, argument, f"{weight.dtype}, as weight", column.dtype))
        if column.shape != (channels,):
            raise ValueError(wrong(operation, argument, f"shape ({channels},)", tuple(column.shape)))
        on_device(operation, argument, column, x)
    if (running_mean is None) != (running_var is None):
        raise ValueError(wrong(operation, "running_mean, running_var", "both or none", "one"))
    if running_mean is not None and running_mean is running_var:
        raise ValueError(wrong(operation, "running_var", "memory of its own", "running_mean"))
    if batches is not None:
        of_dtype(operation, "batches", batches, torch.int64)
        on_device(operation, "batches", batches, x)
        if batches.numel() != 1:
            raise ValueError(wrong(operation, "batches", "one element", tuple(batches.shape)))
    if training and x.numel() == channels:
        raise ValueError(wrong(operation, "x", "more than one value a channel in training", tuple(x.shape)))


def within(operation: str, argument: str, index: Tensor, count: int) -> None:
    """Numbers in [0, count); reads them, and so is not for CUDA tensors."""
    for number in index.tolist():
        if not 0 <= number < count:
            raise ValueError(wrong(operation, argument, f"numbers in [0, {count})", number))


def writable(operation: str, argument: str, tensor: Tensor) -> None:
    """A tensor that may be written in place: no gradient recorded, no negative bit, no two elements in one place."""
    if tensor.requires_grad and torch.is_grad_enabled():
        kind = "a leaf that requires grad" if tensor.is_leaf else "a tensor that requires grad"
        raise ValueError(wrong(operation, argument, "a tensor written under torch.no_grad() or detached", kind))
    if torch.compiler.is_compiling():
        return
    if tensor.is_neg():
        raise ValueError(
            wrong(operation, argument, "a tensor that is not negated (call .resolve_neg())", "negative bit")
        )
    if not tensor.is_contiguous() and tensor.numel() and _overlaps_itself(tensor):
        raise ValueError(wrong(operation, argument, "one place in memory an element", "a tensor that overlaps itself"))


def _disjoint(operation: str, given: dict[str, Tensor], written: dict[str, Tensor]) -> None:
    """No written tensor shares memory with one before it."""
    earlier: dict[str, tuple[int, int]] = {}
    for argument, tensor in given.items():
        start, end = _span(tensor)
        for other, (other_start, other_end) in earlier.items() if argument in written else ():
            if start < other_end and other_start < end and _overlap(tensor, given[other]):
                raise ValueError(wrong(operation, argument, "memory of its own", f"memory shared with {other}"))
        earlier[argument] = start, end


def _span(tensor: Tensor) -> tuple[int, int]:
    """First byte and the one behind the last, as addresses; nothing where there is no memory (meta, fake)."""
    if type(tensor) is not Tensor and isinstance(tensor, FakeTensor):
        return 0, 0
    start = tensor.data_ptr()
    if start == 0 or tensor.is_contiguous():
        return start, start + tensor.nbytes if start else 0
    last = sum(stride * (size - 1) for stride, size in zip(tensor.stride(), tensor.shape, strict=True))
    return start, start + (last + 1) * tensor.element_size()


def _runs(tensor: Tensor) -> tuple[Tensor, int]:
    """The memory of a tensor with elements: the starts of its runs, as addresses in order, and their bytes."""
    length = tensor.element_size()
    starts = torch.tensor([tensor.data_ptr()], device="cpu")
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        step = stride * tensor.element_size()
        if step == length and len(starts) == 1:
            length *= size
        elif size != 1:
            starts = (starts + step * torch.arange(size, device="cpu").unsqueeze(1)).flatten()
    return starts.sort().values, length


def _overlap(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors whose spans meet have a byte in common."""
    (starts, length), (others, other_length) = _runs(one), _runs(other)
    after = torch.searchsorted(starts, others, right=True)
    in_last = (after > 0) & (starts[(after - 1).clamp(min=0)] + length > others)
    in_next = (after < len(starts)) & (starts[after.clamp(max=len(starts) - 1)] < others + other_length)
    return bool((in_last | in_next).any())


def _overlaps_itself(tensor: Tensor) -> bool:
    starts, length = _runs(tensor)
    return bool((starts.diff() < length).any())
