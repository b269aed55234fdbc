"""The documented, validated facade of the image operations."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from advkernels import checks
from advkernels.bounds import Bound, prepare
from advkernels.dispatch import choose, pick
from advkernels.rng import PhiloxState


def sign_step_(
    delta: Tensor,
    grad: Tensor,
    x: Tensor,
    alpha: Bound,
    epsilon: Bound,
    lower: Bound = 0.0,
    upper: Bound = 1.0,
    *,
    mask: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """One step of an l-inf attack, in place: the sign step, the projection on the ball and on the valid box.

    d1 = clamp(delta + alpha sign(grad), -epsilon, epsilon); delta = max(min(d1, upper - x), lower - x).
    The arithmetic is float32, rounded once into delta's dtype; sign(NaN) = 0; NaN in delta or x stays NaN.

    delta: (N, C, ...) float32, bfloat16 or float16, the perturbation, written
    grad: like delta, the loss's gradient; its dtype and memory format may differ
    x: like delta, the clean images; its dtype and memory format may differ
    alpha: step size, in x's units; negative steps down
    epsilon: radius of the ball, in x's units
    lower, upper: the valid box, in x's units
        each of these four: a float; C floats, one a channel; a tensor (C,) or (C, 1, 1) per channel or
        (N, 1, 1, 1) per sample, on x's device (values of a CUDA tensor are not checked: that would stall the device)
    mask: (N,) bool; samples with False keep their delta
    out: like x in shape, any of the dtypes and memory formats; x + delta is written there too

    Returns: delta
    Raises: TypeError or ValueError where an argument's type, shape, device, value or memory is wrong; nothing is
        written then. `BackendUnavailable` where the backend asked for by name cannot run.
    Source: Madry et al. 2017, "Towards deep learning models resistant to adversarial attacks", section 2.1.
    """

    def check() -> None:
        checks.images("sign_step_", x, {"grad": grad}, delta, out)
        checks.per_sample("sign_step_", "mask", mask, x, torch.bool)

    _run("sign_step_", check, x, delta, out, (delta, grad, x), (alpha, epsilon, lower, upper), mask)
    return delta


def sign_step(
    delta: Tensor,
    grad: Tensor,
    x: Tensor,
    alpha: Bound,
    epsilon: Bound,
    lower: Bound = 0.0,
    upper: Bound = 1.0,
    *,
    mask: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """`sign_step_` out of place: delta stays as it is and the stepped perturbation is returned."""
    checks.dense("sign_step", "delta", delta)
    return sign_step_(delta.detach().clone(), grad, x, alpha, epsilon, lower, upper, mask=mask, out=out)


def uniform_init_(
    delta: Tensor,
    x: Tensor,
    epsilon: Bound,
    lower: Bound = 0.0,
    upper: Bound = 1.0,
    *,
    rng: PhiloxState,
    sample_index: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """A random start, in place: delta ~ U(-epsilon, epsilon), projected on the valid box.

    u = (bits >> 8) 2^-24 with Philox bits of (seed, draw, element), d = u (2 epsilon) - epsilon, then
    delta = max(min(d, upper - x), lower - x). The element is counted in N, C, H, W order whatever the memory format:
    a seed gives the same numbers on every device, in every backend and layout. rng's draw counter advances by one.

    delta: (N, C, ...) float32, bfloat16 or float16, written
    x: like delta, the clean images; its dtype and memory format may differ
    epsilon, lower, upper, out: as for `sign_step_`
    rng: the random state, on x's device
    sample_index: (N,) int64, at least 0; the number of the sample in the place of its position in the batch, so that a
        sample's noise does not depend on the batch it is in

    Returns: delta
    Raises: as `sign_step_`
    Source: Wong et al. 2020, "Fast is better than free", algorithm 3; Salmon et al. 2011 for the numbers.
    """
    if not isinstance(rng, PhiloxState):
        raise TypeError(checks.wrong("uniform_init_", "rng", "a PhiloxState", type(rng).__name__))

    def check() -> None:
        checks.images("uniform_init_", x, {}, delta, out)
        checks.per_sample("uniform_init_", "sample_index", sample_index, x, torch.int64)
        if rng.tensor.device != x.device:
            raise ValueError(checks.wrong("uniform_init_", "rng", f"device {x.device}", rng.tensor.device))

    _run("uniform_init_", check, x, delta, out, (delta, x, rng.tensor), (epsilon, lower, upper), sample_index)
    return delta


def uniform_init(
    x: Tensor,
    epsilon: Bound,
    lower: Bound = 0.0,
    upper: Bound = 1.0,
    *,
    rng: PhiloxState,
    sample_index: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """`uniform_init_` into a new tensor of x's dtype and memory format."""
    checks.dense("uniform_init", "x", x)
    delta = torch.empty_like(x, requires_grad=False)
    return uniform_init_(delta, x, epsilon, lower, upper, rng=rng, sample_index=sample_index, out=out)


def _run(
    name: str,
    check: Callable[[], None],
    x: Tensor,
    delta: Tensor,
    out: Tensor | None,
    tensors: Sequence[Tensor],
    bounds: Sequence[Bound],
    per_sample: Tensor | None,
) -> None:
    """Run an operation, or raise what `check` says is wrong; every call passes here: it is written for speed.

    A native operator refuses what is wrong by itself, but does not see gradients that are recorded.
    """
    compiling = torch.compiler.is_compiling()
    try:
        backend = choose(x.device)
        recorded = delta.requires_grad or (out is not None and out.requires_grad)
        if backend != "native" or recorded or compiling:
            check()
        overload, rows = prepare(name, x, bounds)
        pick(backend, name, overload)(*tensors, rows, per_sample, out)
    except (AttributeError, RuntimeError):
        check()
        raise
    if not compiling:  # so that autograd notices a saved tensor that was overwritten
        torch.autograd.graph.increment_version(delta if out is None else (delta, out))
