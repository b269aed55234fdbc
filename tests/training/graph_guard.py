"""What a CUDA graph would not survive, found on any device by watching every operation of a step."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
WAITING = {
    aten._local_scalar_dense, aten.is_nonzero, aten.equal, aten.nonzero, aten.masked_select, aten.unique_dim,
    aten._unique, aten._unique2, aten.unique_consecutive, aten.repeat_interleave, aten.bincount,
}  # fmt: skip
"""Operations whose result, or its size, the host waits for."""
MASKED = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}


class GraphUnsafeError(AssertionError):
    """The step waits for the device, copies from or to the host, or works on tensors that a graph would not find."""


class GraphGuard(TorchDispatchMode):
    """Fails on what a graph cannot hold.

    The host may not wait for a value, nor may tensors of several elements travel between host and device. Every tensor
    that an operation reads or writes is one of the static ones or was made inside; behind the step the static ones are
    the same objects at the same addresses.

    static: gives the tensors whose address the graph may rely on
    """

    def __init__(self, static: Any) -> None:
        super().__init__()
        self._static = static

    def __enter__(self) -> "GraphGuard":
        self._before = [(tensor, address(tensor)) for tensor in self._static()]
        self._on_host = all(tensor.is_cpu for tensor, _ in self._before)
        self._known = {storage(tensor) for tensor, _ in self._before}
        self._made: list[Tensor] = []  # alive, so that no storage takes another's place
        return super().__enter__()

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        super().__exit__(kind, error, trace)
        if error is not None:
            return
        after = [(tensor, address(tensor)) for tensor in self._static()]
        pairs = zip(self._before, after, strict=False)
        if len(after) != len(self._before) or any(a[0] is not b[0] or a[1] != b[1] for a, b in pairs):
            raise GraphUnsafeError("a static tensor was replaced, moved, added or dropped")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        inputs = tensors([args, kwargs])
        if not self._on_host and all(tensor.is_cpu for tensor in inputs) and (inputs or on_host(kwargs)):
            result = func(*args, **kwargs)  # the host may compute with numbers of its own
            if not all(tensor.is_cpu for tensor in tensors(result)):
                raise GraphUnsafeError(f"{func}: a copy from the host")
            return result
        self._check(func, args, inputs)
        result = func(*args, **kwargs)
        outputs = tensors(result)
        if any(tensor.is_cpu != self._on_host for tensor in outputs):
            raise GraphUnsafeError(f"{func}: a copy to the host")
        self._made += outputs
        self._known |= set(map(storage, outputs))
        return result

    def _check(self, func: Any, args: Any, inputs: list[Tensor]) -> None:
        if func.overloadpacket in WAITING:
            raise GraphUnsafeError(f"{func}: the host waits for the device")
        if func.overloadpacket in MASKED and any(index.dtype == torch.bool for index in tensors(args[1])):
            raise GraphUnsafeError(f"{func}: the host waits for the size of what a mask selects")
        if func.overloadpacket is aten.lift_fresh and any(tensor.dim() for tensor in inputs):
            raise GraphUnsafeError(f"{func}: a tensor of numbers from the host")
        if any(tensor.is_cpu != self._on_host and tensor.dim() for tensor in inputs):
            raise GraphUnsafeError(f"{func}: a tensor of the host")
        for tensor in inputs:
            if storage(tensor) not in self._known and not (tensor.dim() == 0 and tensor.is_cpu):
                raise GraphUnsafeError(
                    f"{func}: {tuple(tensor.shape)} {tensor.dtype} is neither static nor made inside"
                )


def tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def on_host(kwargs: dict[str, Any]) -> bool:
    """Whether what is made from nothing is made on the host."""
    return torch.device(kwargs.get("device") or "cpu").type == "cpu"


def storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def address(tensor: Tensor) -> Iterable[int]:
    """On the meta device storages stand for memory."""
    return storage(tensor), tensor.storage_offset(), tensor.untyped_storage().data_ptr()
