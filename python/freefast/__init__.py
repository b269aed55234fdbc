"""Robust image classifiers: Free, Fast, PGD and standard training, and their evaluation under attack."""

from freefast import attacks, data, models
from freefast.config import TrainConfig
from freefast.errors import UserError
from freefast.evaluation import Evaluation, evaluate
from freefast.threat import ThreatModel
from freefast.training.loop import TrainResult, train

__all__ = [
    "Evaluation",
    "ThreatModel",
    "TrainConfig",
    "TrainResult",
    "UserError",
    "attacks",
    "data",
    "evaluate",
    "models",
    "train",
]
