"""What a step computes and moves, counted operator by operator while it runs."""

from collections.abc import Callable, Generator, Iterable
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

_NOT_READ = ("copy_", "fill_", "zero_", "uniform_", "random_")
"""Operators that overwrite their first argument without a look at it."""
_NOT_WRITTEN = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided")
"""Operators whose result is memory with nothing in it."""


class Work(NamedTuple):
    """What one call did."""

    flops: int
    """Additions and multiplications in matrix products and convolutions, which are nearly all of them, by the formulas
    of torch.utils.flop_counter: two a multiply-add, and of a convolution's backward pass the gradients asked for."""
    moved: int
    """Bytes: each operator reads each of its tensors once and writes its results once; views move nothing. Caches,
    and compilers that make one kernel of several operators, move fewer."""


def count(call: Callable[[], object]) -> Work:
    """What a call does on any device; it must run operator by operator: nothing in a CUDA graph is seen."""
    with _Counter() as counter:
        call()
    return Work(counter.flops, counter.moved)


class _Counter(TorchDispatchMode):
    """FlopCounterMode's sum without its module hooks, which refuse torch.autograd.grad with respect to an input."""

    def __init__(self) -> None:
        super().__init__()
        self.flops, self.moved = 0, 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        results = func(*args, **kwargs)
        formula = flop_registry.get(func._overloadpacket)
        self.flops += formula(*args, **kwargs, out_val=results) if formula else 0
        self.moved += _moved(func, args, kwargs, results)
        return results


def _moved(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], results: Any) -> int:
    """Bytes that an operator reads and writes."""
    name = func._schema.name.rpartition("::")[2]
    read = _tensors((args[1:] if name in _NOT_READ else args, kwargs))
    written = _written_arguments(func, args, kwargs)
    given = {_place(tensor) for tensor in (*read, *written)}
    made = [tensor for tensor in _tensors(results) if _place(tensor) not in given]
    if name in _NOT_WRITTEN or not (made or written):
        return 0
    return sum(map(_size, (*read, *written, *made)))


def _written_arguments(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    values = {argument.name: value for argument, value in zip(func._schema.arguments, args, strict=False)} | kwargs
    return [
        tensor
        for argument in func._schema.arguments
        if argument.alias_info is not None and argument.alias_info.is_write
        for tensor in _tensors(values.get(argument.name))
    ]


def _tensors(values: Any) -> list[Tensor]:
    leaves: Iterable[Any] = tree_leaves(values)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _size(tensor: Tensor) -> int:
    """Bytes, of an expanded tensor those that are there."""
    return min(tensor.nbytes, tensor.untyped_storage().nbytes())


def count_step(steps: Generator[Tensor, None, None]) -> Work:
    """The second of some steps, op by op; the first makes what is made once."""
    next(steps)
    work = count(lambda: next(steps))
    steps.close()
    return work
