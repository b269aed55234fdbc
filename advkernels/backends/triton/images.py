"""How every operation of images is launched."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.library import wrap_triton

from advkernels.backends.triton.geometry import Geometry
from advkernels.backends.triton.launch import launch, traced


def launch_images(
    kernel: Any,
    shape: Geometry,
    tensors: Sequence[Tensor | None],
    others: Sequence[Any],
    values: Sequence[float | Tensor],
    forms: Sequence[int],
) -> None:
    """Launch a kernel whose arguments are the tensors, the others, sizes, bounds, strides and the bounds' forms.

    tensors: delta first, out last: those are written
    """
    walked = shape.walkable(tensors)
    arguments = [*walked, *others, shape.groups, shape.places, *values, *shape.strides(walked), *forms]
    delta = tensors[0]
    assert delta is not None
    wrapped = wrap_triton(kernel) if traced(delta) else kernel
    launch(wrapped, (shape.programs,), delta.device, arguments, shape.constants)
    for target, source in ((tensors[0], walked[0]), (tensors[-1], walked[-1])):
        if target is not None and source is not None and source is not target:  # a copy was written
            target.copy_(source)
