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
    The arithmetic is float32, rounded once into delta's dtype; sign(NaN) = 0; NaN in delta or x stays NaN. Not
    differentiable: no gradient reaches x, grad or the bounds through it.

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

    return _step("sign_step_", delta, grad, x, (alpha, epsilon, lower, upper), mask, out)


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
    """`sign_step_` out of place: delta stays as it is, the stepped perturbation is returned, in no graph."""
    checks.dense("sign_step", "delta", delta)
    return sign_step_(delta.detach().clone(), grad, x, alpha, epsilon, lower, upper, mask=mask, out=out)


def l2_step_(
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
    """One step of an l2 attack, in place: the step along the gradient, the projection on the ball and on the valid box.

    d1 = delta + |alpha| (alpha grad) / norm(alpha grad), d2 = d1 / max(norm(d1 / epsilon), 1),
    delta = max(min(d2, upper - x), lower - x), the norms taken over each sample. Images are float32, rounded once into
    delta's dtype; norms and their factors are float64, so that no gradient under- or overflows, and summed in one
    order on every device. A sample does not step where its gradient is zero everywhere or not finite somewhere. NaN in
    delta or x stays NaN. Not differentiable, as `sign_step_`.

    alpha: length of the step, in x's units; negative steps down
    epsilon: radius of the ball, in x's units; per channel, alpha and epsilon are the semi-axes of an ellipsoid: a ball
        in pixels is one where the channels of x are normalised differently
    delta, grad, x, lower, upper, mask, out: as for `sign_step_`

    Returns: delta
    Raises: as `sign_step_`
    Source: Madry et al. 2017, section 2.1, for the steepest ascent of other norms; Rice et al. 2020, "Overfitting in
        adversarially robust deep learning", section 3, for l2.
    """
    return _step("l2_step_", delta, grad, x, (alpha, epsilon, lower, upper), mask, out)


def l2_step(
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
    """`l2_step_` out of place: delta stays as it is, the stepped perturbation is returned, in no graph."""
    checks.dense("l2_step", "delta", delta)
    return l2_step_(delta.detach().clone(), grad, x, alpha, epsilon, lower, upper, mask=mask, out=out)


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
    Not differentiable: no gradient reaches x or the bounds through it.

    delta: (N, C, ...) float32, bfloat16 or float16, written
    x: like delta, the clean images; its dtype and memory format may differ
    epsilon, lower, upper, out: as for `sign_step_`
    rng: the random state, on x's device
    sample_index: (N,) int64, at least 0; the number of the sample in the place of its position in the batch, so that a
        sample's noise does not depend on the batch it is in. Values are not checked, which would stall the device:
        below 0 there is noise too, but of the native operators on CUDA devices another than of all others

    Returns: delta
    Raises: as `sign_step_`
    Source: Wong et al. 2020, "Fast is better than free", algorithm 3; Salmon et al. 2011 for the numbers.
    """
    return _init("uniform_init_", delta, x, (epsilon, lower, upper), rng, sample_index, out)


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
    """`uniform_init_` into a new tensor of x's dtype and memory format, detached from x."""
    checks.dense("uniform_init", "x", x)
    delta = torch.empty_like(x, requires_grad=False)
    return uniform_init_(delta, x, epsilon, lower, upper, rng=rng, sample_index=sample_index, out=out)


def l2_init_(
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
    """A random start in the l2 ball, in place: a direction uniform on the sphere, a length uniform in [0, epsilon).

    delta = epsilon r z / norm(z), projected on the valid box, with z normal, of the random bits of `uniform_init_`, and
    r uniform in [0, 1), of the sample's own bits. rng's draw counter advances by one. Not differentiable, as
    `uniform_init_`.

    epsilon: as for `l2_step_`
    delta, x, lower, upper, rng, sample_index, out: as for `uniform_init_`

    Returns: delta
    Raises: as `sign_step_`
    Source: Rice et al. 2020, "Overfitting in adversarially robust deep learning", for the start; Giles 2012,
        "Approximating the erfinv function", for the normal numbers.
    """
    return _init("l2_init_", delta, x, (epsilon, lower, upper), rng, sample_index, out)


def l2_init(
    x: Tensor,
    epsilon: Bound,
    lower: Bound = 0.0,
    upper: Bound = 1.0,
    *,
    rng: PhiloxState,
    sample_index: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """`l2_init_` into a new tensor of x's dtype and memory format, detached from x."""
    checks.dense("l2_init", "x", x)
    delta = torch.empty_like(x, requires_grad=False)
    return l2_init_(delta, x, epsilon, lower, upper, rng=rng, sample_index=sample_index, out=out)


def _step(
    name: str,
    delta: Tensor,
    grad: Tensor,
    x: Tensor,
    bounds: Sequence[Bound],
    mask: Tensor | None,
    out: Tensor | None,
) -> Tensor:
    def check() -> None:
        checks.images(name, x, {"grad": grad}, delta, out)
        checks.per_sample(name, "mask", mask, x, torch.bool)

    _run(name, check, x, delta, out, (delta, grad, x), bounds, mask)
    return delta


def _init(
    name: str,
    delta: Tensor,
    x: Tensor,
    bounds: Sequence[Bound],
    rng: PhiloxState,
    sample_index: Tensor | None,
    out: Tensor | None,
) -> Tensor:
    if not isinstance(rng, PhiloxState):
        raise TypeError(checks.wrong(name, "rng", "a PhiloxState", type(rng).__name__))

    def check() -> None:
        checks.images(name, x, {}, delta, out)
        checks.per_sample(name, "sample_index", sample_index, x, torch.int64)
        if rng.tensor.device != x.device:
            raise ValueError(checks.wrong(name, "rng", f"device {x.device}", rng.tensor.device))

    _run(name, check, x, delta, out, (delta, x, rng.tensor), bounds, sample_index)
    return delta


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

    A native operator refuses what is wrong by itself, but does not see recorded gradients and negative bits.
    """
    compiling = torch.compiler.is_compiling()
    try:
        backend = choose(x.device)
        if compiling or backend != "native" or _is_special(delta) or (out is not None and _is_special(out)):
            check()
        overload, rows = prepare(name, x, bounds)
        pick(backend, name, overload)(*tensors, rows, per_sample, out)
    except (AttributeError, RuntimeError):
        check()
        raise
    if not compiling:  # so that autograd notices a saved tensor that was overwritten
        torch.autograd.graph.increment_version(delta if out is None else (delta, out))


def _is_special(written: Tensor) -> bool:
    return written.requires_grad or written.is_neg()
