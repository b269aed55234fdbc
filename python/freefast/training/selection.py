"""Which epoch's weights a run is evaluated by and leaves in `model.safetensors`."""

import warnings

from freefast.config import TrainConfig
from freefast.evaluation import EvaluationWarning
from freefast.training import guard
from freefast.training.guard import Entry, History

_WORSE = 0.2


def rule(config: TrainConfig, history: History) -> str:
    """best, last or report; unless told, best where there is a guard."""
    return config.select or ("last" if guard.best(history) is None else "best")


def selected(config: TrainConfig, history: History) -> Entry | None:
    """The metrics of the epoch whose weights count; None where there is none yet."""
    match rule(config, history):
        case "best":
            return guard.best(history)
        case "report":
            return guard.best(history, f"pgd{max(config.curve_steps)}")
    return history[-1] if history else None


def until_selected(config: TrainConfig, history: History) -> History:
    """The epochs that the weights which count have gone through."""
    entry = selected(config, history)
    return history[: history.index(entry) + 1] if entry is not None else history


def warn(config: TrainConfig, history: History) -> None:
    """Emit an EvaluationWarning where the test set chooses, or the guard takes weights far worse without an attack."""
    entry = selected(config, history)
    if config.select == "report":
        text = "select: report takes the epoch that is best on the test set: its accuracies there are too good"
        warnings.warn(text, EvaluationWarning, stacklevel=2)
    elif entry is not None and history[-1].get("guard_natural", 0) - entry.get("guard_natural", 0) > _WORSE:
        text = (
            f"select: best takes epoch {entry['epoch']}, natural accuracy {entry['guard_natural']:.1%} and "
            f"{entry[guard.ROBUST]:.1%} under PGD on held-out samples; the last epoch has "
            f"{history[-1]['guard_natural']:.1%} and {history[-1][guard.ROBUST]:.1%}: select last takes that"
        )
        warnings.warn(text, EvaluationWarning, stacklevel=2)


def summary(config: TrainConfig, history: History) -> Entry:
    """A run's part of its row of `results.json`."""
    entry = selected(config, history)
    return {"selected": rule(config, history), "selected_epoch": None if entry is None else entry["epoch"]}
