"""Robust image classifiers: Free, Fast, PGD and standard training, and their evaluation under attack."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from freefast import attacks, data, models, recipes
    from freefast.attacks.health import GradientWarning
    from freefast.config import TrainConfig
    from freefast.errors import UserError
    from freefast.evaluation import Evaluation, EvaluationWarning, Verdicts, evaluate
    from freefast.precision import Precision
    from freefast.threat import ThreatModel
    from freefast.training.guard import OverfittingWarning
    from freefast.training.loop import TrainResult, train

_HOMES = {
    "Evaluation": "freefast.evaluation",
    "EvaluationWarning": "freefast.evaluation",
    "GradientWarning": "freefast.attacks.health",
    "OverfittingWarning": "freefast.training.guard",
    "Precision": "freefast.precision",
    "ThreatModel": "freefast.threat",
    "TrainConfig": "freefast.config",
    "TrainResult": "freefast.training.loop",
    "UserError": "freefast.errors",
    "Verdicts": "freefast.evaluation",
    "evaluate": "freefast.evaluation",
    "train": "freefast.training.loop",
}
_MODULES = ("attacks", "data", "models", "recipes")

__all__ = [
    "Evaluation",
    "EvaluationWarning",
    "GradientWarning",
    "OverfittingWarning",
    "Precision",
    "ThreatModel",
    "TrainConfig",
    "TrainResult",
    "UserError",
    "Verdicts",
    "attacks",
    "data",
    "evaluate",
    "models",
    "recipes",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import on first use: the command line reports what goes wrong in an import, or interrupts it."""
    if name in _MODULES:
        return import_module(f"freefast.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'freefast' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
