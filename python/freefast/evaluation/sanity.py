"""Signs that an evaluation cannot be trusted."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from freefast.errors import UserError
from freefast.evaluation.job import Job
from freefast.evaluation.verdicts import Verdicts
from freefast.evaluation.warning import warn
from freefast.threat import ThreatModel

_SAMPLES = 8
_TOLERANCE = 1e-2
"""Of logits, relative to the largest: kernels of other batch sizes round otherwise, in half precision by so much."""


def check(job: Job) -> bool:
    """Warn of what can be seen before any attack: a ball as large as the box, a model that does not keep still.

    Returns: whether the model answers the same image the same each time, in any batch
    Raises: UserError where a label is below 0, or the model does not give a logit for every class.
    """
    if job.split.labels.min() < 0:
        raise UserError(f"evaluate: labels: wanted at least 0, got {int(job.split.labels.min())}")
    _check_threat(job.threat, job.split.images[0].numel())
    return _check_model(job)


def check_verdicts(verdicts: Verdicts, black_box: Sequence[str]) -> None:
    """Warn where accuracy rises with more steps, or an attack without gradients fools what PGD does not.

    black_box: names of the attacks that do without gradients
    """
    samples = len(verdicts.label)
    for fewer, more in itertools.pairwise(verdicts.steps):
        right = [int(verdicts.robust(count).sum()) for count in (fewer, more)]
        if right[1] - right[0] > 1:
            shares = f"PGD-{more} leaves {right[1] / samples:.2%} right, PGD-{fewer} {right[0] / samples:.2%}"
            warn(f"{shares}: more steps should fool no fewer")
    unknown = int((verdicts.clean < 0).sum()), int((verdicts.adversarial < 0).any(1).sum())
    if any(unknown):
        warn(f"logits with NaN for {unknown[0]} clean images and {unknown[1]} adversarial ones, which count as wrong")
    others = [verdicts.robust(name) for name in verdicts.attacks if name not in black_box]
    white = [verdicts.robust(count) for count in verdicts.steps[-1:]] + others
    for name in black_box if white else ():
        withstood, robust = torch.stack(white).all(0), verdicts.robust(name)
        gained, lost = int((withstood & ~robust).sum()), int((~withstood & robust).sum())
        if gained > lost + 1:
            warn(
                f"{name} fools {gained} samples that no attack with gradients does, and misses {lost} that one does: "
                "without gradients it should be the weaker; the model may hide its gradients"
            )


def _check_threat(threat: ThreatModel, numbers: int) -> None:
    """numbers: that an image has."""
    middle = 0.5 * (numbers**0.5 if threat.norm == "l2" else 1)
    if threat.epsilon >= middle:
        warn(f"epsilon {threat.epsilon:g} in {threat.norm}: any image can be made grey, no classifier withstands that")


@torch.no_grad()
def _check_model(job: Job) -> bool:
    x = job.threat.normalize(job.pixels(slice(_SAMPLES)))
    first, second = (_logits(job, x) for _ in range(2))
    if _differ(first, second):
        warn("the model's logits change from call to call, as with dropout left on: no attack averages over that")
        return False
    if len(x) > 1 and _differ(first[:1], _logits(job, x[:1])):
        warn("a sample's logits depend on the batch it is in, as with BatchNorm that normalises by the batch")
        return False
    return True


def _logits(job: Job, x: Tensor) -> Tensor:
    """Raises: UserError where the model does not take such images, or does not give a logit for every class."""
    classes = int(job.split.labels.max()) + 1
    wanted = f"logits ({len(x)}, at least {classes}) of images {tuple(x.shape)}"
    try:
        logits = job.precision.logits(job.model, x)
    except (RuntimeError, TypeError, ValueError, AttributeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"evaluate: model: wanted {wanted}, got {type(error).__name__}: {reason}") from error
    if logits.dim() != 2 or len(logits) != len(x) or logits.shape[1] < classes:
        raise UserError(f"evaluate: model: wanted {wanted}, got shape {tuple(logits.shape)}")
    return logits


def _differ(one: Tensor, other: Tensor) -> bool:
    finite = one.isfinite()
    if not torch.equal(finite, other.isfinite()):
        return True
    one, other = one[finite], other[finite]
    return len(one) > 0 and bool((one - other).abs().max() > _TOLERANCE * one.abs().max())
