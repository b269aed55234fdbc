"""The documented, validated facade of data augmentation."""

import torch
from torch import Tensor

from advkernels import checks
from advkernels.bounds import Bound, prepare_named
from advkernels.dispatch import choose, pick
from advkernels.rng import PhiloxState


def augment(
    images: Tensor,
    index: Tensor,
    mean: Bound,
    std: Bound,
    *,
    rng: PhiloxState | None,
    padding: int = 4,
    flip: bool = True,
    dtype: torch.dtype = torch.float32,
    out: Tensor | None = None,
) -> Tensor:
    """A batch of training images out of a data set in memory: random crop, flip, normalisation and cast in one pass.

    Image index[n] gets a border of black pixels, loses it again but for a random shift, is mirrored left to right with
    probability 1/2, and becomes ((pixel / 255) - mean) / std, every operation rounded in float32, rounded once into
    out's dtype. Shift and flip hang on (seed, draw, index[n]) alone: the draw, which is not advanced, is the epoch, and
    neither batch size nor order changes what a sample gets. With padding=0 and flip=False nothing is random.

    images: (M, C, H, W) uint8, the whole data set, best contiguous
    index: (N,) int64 in [0, M), which images, in any order, on images' device; values of a CUDA tensor are not
        checked, and one out of range is undefined behaviour
    mean, std: pixel units, of images in [0, 1]: a float; C floats, one a channel; a tensor (C,) on images' device
    rng: the random state, on images' device, read there, of a seed that no random start uses; None where nothing is
        random
    padding: width of the border, pixels, in [0, 2**30]; the shift is uniform in [-padding, padding] both ways
    flip: whether to mirror images at random
    dtype: float32, bfloat16 or float16, of a new channels_last tensor where `out` is not given
    out: (N, C, H, W) of these dtypes in any memory format, written

    Returns: out
    Raises: TypeError or ValueError where an argument's type, shape, device, value or memory is wrong; nothing is
        written then. `BackendUnavailable` where the backend asked for by name cannot run.
    Source: He et al. 2016, "Deep residual learning for image recognition", section 4.2; Salmon et al. 2011 for the
        numbers.
    """
    if rng is not None and not isinstance(rng, PhiloxState):
        raise TypeError(checks.wrong("augment", "rng", "a PhiloxState", type(rng).__name__))
    state = None if rng is None else rng.tensor
    compiling = torch.compiler.is_compiling()

    def check() -> None:
        checks.augmentation("augment", images, index, state, padding, flip, out)
        if out is not None:
            checks.apart("augment", {"images": images, "index": index, "out": out}, {"out": out})

    try:
        backend = choose(images.device)
        if out is None or compiling or backend != "native" or out.requires_grad or out.is_neg():
            check()
        overload, scales = prepare_named("augment", images[:1], {"mean": mean, "std": std})
        target = _batch(images, index, dtype) if out is None else out
        pick(backend, "augment_", overload)(target, images, index, state, scales, padding, flip)
    except (AttributeError, IndexError, RuntimeError):
        check()
        if images.device.type == "cpu":
            checks.within("augment", "index", index, images.shape[0])
        raise
    if out is not None and not compiling:  # so that autograd notices a saved tensor that was overwritten
        torch.autograd.graph.increment_version(out)
    return target


def _batch(images: Tensor, index: Tensor, dtype: torch.dtype) -> Tensor:
    if dtype not in checks.DTYPES:
        raise TypeError(checks.wrong("augment", "dtype", "float32, bfloat16 or float16", dtype))
    shape = (index.shape[0], *images.shape[1:])
    return torch.empty(shape, dtype=dtype, device=images.device, memory_format=torch.channels_last)
