"""Signs that an evaluation cannot be trusted."""

import itertools
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from freefast.errors import UserError
from freefast.evaluation.job import Job
from freefast.evaluation.verdicts import Verdicts
from freefast.threat import ThreatModel

_SAMPLES = 8
_TOLERANCE = 1e-2
"""Of logits, relative to the largest: kernels of other batch sizes round otherwise, in half precision by so much."""


class EvaluationWarning(UserWarning):
    """An evaluation under attack cannot be trusted as it is."""


def check(job: Job) -> bool:
    """Warn of what can be seen before any attack: a ball as large as the box, a model that does not keep still.

    Returns: whether the model answers the same image the same each time, in any batch
    Raises: UserError where the model does not give a logit for every class.
    """
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
            _warn(f"{shares}: more steps should fool no fewer")
    if not verdicts.steps:
        return
    white = verdicts.robust(verdicts.steps[-1])
    for name in black_box:
        gained, lost = (int(mask.sum()) for mask in (white & ~verdicts.robust(name), ~white & verdicts.robust(name)))
        if gained > lost + 1:
            _warn(
                f"{name} fools {gained} samples that PGD-{verdicts.steps[-1]} does not, and misses {lost} that it "
                "does: without gradients it should be the weaker; the model may hide its gradients"
            )


def _check_threat(threat: ThreatModel, numbers: int) -> None:
    """numbers: that an image has."""
    middle = 0.5 * (numbers**0.5 if threat.norm == "l2" else 1)
    if threat.epsilon >= middle:
        _warn(f"epsilon {threat.epsilon:g} in {threat.norm}: any image can be made grey, no classifier withstands that")


@torch.no_grad()
def _check_model(job: Job) -> bool:
    x = job.threat.normalize(job.pixels(slice(_SAMPLES)))
    classes = int(job.split.labels.max()) + 1
    first, second = (job.precision.logits(job.model, x) for _ in range(2))
    if first.dim() != 2 or len(first) != len(x) or first.shape[1] < classes:
        wanted = f"logits ({len(x)}, at least {classes}), one for each class"
        raise UserError(f"evaluate: model: wanted {wanted}, got shape {tuple(first.shape)}")
    if not first.isfinite().all():
        _warn("the model's logits are not finite: a sample with NaN among them counts by the first of them")
    elif _differ(first, second):
        _warn("the model's logits change from call to call, as with dropout left on: no attack averages over that")
        return False
    elif len(x) > 1 and _differ(first[:1], job.precision.logits(job.model, x[:1])):
        _warn("a sample's logits depend on the batch it is in, as with BatchNorm that normalises by the batch")
        return False
    return True


def _differ(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().max() > _TOLERANCE * one.abs().max())


def _warn(text: str) -> None:
    warnings.warn(text, EvaluationWarning, stacklevel=4)
