"""Signs that an evaluation cannot be trusted."""

import itertools
import warnings
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from freefast.precision import Precision
from freefast.threat import ThreatModel

_SAMPLES = 8
_TOLERANCE = 1e-2
"""Of logits, relative to the largest: kernels of other batch sizes round otherwise, in half precision by so much."""


class EvaluationWarning(UserWarning):
    """An evaluation under attack cannot be trusted as it is."""


def check_threat(threat: ThreatModel, pixels: int) -> None:
    """Warn where the ball of an image reaches everywhere in the box.

    pixels: numbers an image has
    """
    middle = 0.5 * (pixels**0.5 if threat.norm == "l2" else 1)
    if threat.epsilon >= middle:
        _warn(f"epsilon {threat.epsilon:g} in {threat.norm}: any image can be made grey, no classifier withstands that")


@torch.no_grad()
def check_model(model: nn.Module, x: Tensor, precision: Precision) -> bool:
    """Warn where a model's answers change from call to call or with the batch around a sample.

    model: in eval mode
    x: (N, C, H, W) float32, model units
    Returns: whether they do not
    """
    x = x[:_SAMPLES]
    first, second = (precision.logits(model, x) for _ in range(2))
    if _differ(first, second):
        _warn(
            "the model's logits change from call to call, as with dropout left on: "
            "an attack would have to average over calls"
        )
        return False
    if len(x) > 1 and _differ(first[:1], precision.logits(model, x[:1])):
        _warn("a sample's logits depend on the batch it is in, as with BatchNorm that normalises by the batch")
        return False
    return True


def check_steps(pgd: Mapping[int, float], samples: int) -> None:
    """Warn where accuracy rises with more steps, by more than one sample.

    pgd: accuracy under PGD by number of steps
    """
    counts = sorted(pgd)
    for fewer, more in itertools.pairwise(counts):
        if (pgd[more] - pgd[fewer]) * samples > 1.5:
            shares = f"PGD-{more} leaves {pgd[more]:.2%} right, PGD-{fewer} {pgd[fewer]:.2%}"
            _warn(f"{shares}: more steps should fool no fewer")


def _differ(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().max() > _TOLERANCE * one.abs().max())


def _warn(text: str) -> None:
    warnings.warn(text, EvaluationWarning, stacklevel=4)
