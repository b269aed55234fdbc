"""The guard against catastrophic overfitting: robust accuracy of held-out training samples, epoch by epoch.

What it knows is the run's metrics alone, so that a run that goes on judges as one that was never interrupted.
"""

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from freefast.attacks.health import GradientWarning
from freefast.config import TrainConfig
from freefast.data import Split
from freefast.errors import UserError
from freefast.evaluation import EvaluationWarning, evaluate
from freefast.options import show_pixels
from freefast.training.state import TrainState

ROBUST = "guard_pgd10"
"""Key of the guard's accuracy in an epoch's metrics."""

_STEPS = 10
DROP = 0.2
"""What accuracy falls by in a collapse, more than this share of the samples."""

_GAP = 0.4
_DOUBT = ", unless it recovers"
_ROLLBACKS, _SHRINK = 3, 0.5
_SHARE, _MOST, _LEAST = 0.1, 1000, 50

Entry = dict[str, Any]
History = Sequence[Entry]
"""Metrics of the epochs so far, in the order that they were trained in."""


class OverfittingWarning(UserWarning):
    """Robust accuracy fell during training, or never was what training's own attack makes believe: catastrophic
    overfitting.

    Source: Wong et al. 2020, "Fast is better than free", section 5.4.
    """


@dataclass(frozen=True, kw_only=True)
class Guard:
    """PGD-10 on the same samples from the same noise after every epoch."""

    held_out: Split
    """Samples that are not trained on."""

    seed: int
    """Of the noise."""

    def check(self, state: TrainState) -> Entry:
        """What the weights that a run would leave now score, as metrics; nothing of the state changes."""
        start = time.perf_counter()
        with warnings.catch_warnings():  # the evaluation after training says what there is to say
            for kind in (EvaluationWarning, GradientWarning):
                warnings.simplefilter("ignore", kind)
            scores = evaluate(
                state.final_model(), self.held_out, state.threat,
                steps=(_STEPS,), seed=self.seed, precision=state.precision,
            )  # fmt: skip
        return {
            "guard_natural": scores.natural,
            ROBUST: scores.pgd[_STEPS],
            "guard_samples": scores.samples,
            "guard_seconds": time.perf_counter() - start,
        }


def hold_out(config: TrainConfig, train: Split) -> tuple[Tensor | None, Guard | None]:
    """Part the guard's samples from those that are trained on.

    Returns: (n,) int64, places of the samples to train on, and the guard; None and None without a guard

    Raises: UserError where as many samples are not there, or none are held out and the best epoch is asked for.
    """
    count = 0 if config.method == "standard" else config.guard_samples
    if count is None:
        natural = min(int(_SHARE * len(train)), _MOST)
        count = natural if natural >= _LEAST else 0
    if count >= len(train):
        raise UserError(f"guard_samples: wanted fewer than the {len(train)} training samples, got {count}")
    if count == 0:
        if config.select == "best":
            raise UserError(f"select: best is by the guard, which is off for {len(train)} samples: give guard_samples")
        return None, None
    rows, held_out = train.hold_out(count, config.seed)
    return rows, Guard(held_out=held_out, seed=config.seed)


def best(history: History, key: str = ROBUST) -> Entry | None:
    """The first epoch of the largest value; None where no epoch has one."""
    return max((entry for entry in history if entry.get(key) is not None), key=lambda entry: entry[key], default=None)


def judge(history: History, config: TrainConfig) -> Mapping[str, Any]:
    """What to add to the newest epoch's metrics: where accuracy has fallen, how far, and what is done about it.

    A fall is told once: again only after a recovery, or a rollback. Without a guard the evaluations during training are
    judged, by the test set, which tell of a fall and decide nothing.

    Warns: OverfittingWarning.
    """
    return _judge_guard(history, config) if ROBUST in history[-1] else _judge_tests(history, config)


def judge_end(history: History, config: TrainConfig, accuracies: Mapping[str, Any]) -> Mapping[str, Any]:
    """What to add to a run's row where no guard watched it and the evaluation after training is of a fall.

    Warns: OverfittingWarning.
    """
    key = _test_key(config)
    if not history or ROBUST in history[-1] or key in history[-1] or accuracies.get(key) is None:
        return {}
    return _judge_tests([*history[:-1], history[-1] | {key: accuracies[key]}], config)


def _test_key(config: TrainConfig) -> str:
    return f"pgd{max(config.curve_steps, default=0)}"


def _judge_tests(history: History, config: TrainConfig) -> Mapping[str, Any]:
    key = _test_key(config)
    if key not in history[-1] or not _falls([entry for entry in history if key in entry], key):
        return {}
    fall = _fall(history, key)
    is_last = history[-1]["epoch"] == config.epochs
    follows = "the run has ended, its last weights are kept" if is_last else "training goes on"
    warnings.warn(
        f"{config.method}, epoch {history[-1]['epoch']}: catastrophic overfitting{'' if is_last else _DOUBT}: "
        f"{_told(fall, f'PGD-{max(config.curve_steps)} on the test set')}: {follows}",
        OverfittingWarning,
        stacklevel=3,
    )
    return {"collapse": {**fall, "then": "continue"}}


def _judge_guard(history: History, config: TrainConfig) -> Mapping[str, Any]:
    if not _falls(history, ROBUST):
        return {}
    top, now, fall = best(history), history[-1], _fall(history, ROBUST)
    assert top is not None
    attack = f"PGD-{_STEPS} on {now['guard_samples']} held-out samples"
    done = rollbacks(history)
    then = "stop" if config.on_collapse == "rollback" and done == _ROLLBACKS else config.on_collapse
    next_alpha = f", alpha {show_pixels(alpha(config, done + 1))}" if then == "rollback" else ""
    follows = {
        "continue": f"training goes on, the weights of epoch {top['epoch']} are kept",
        "stop": f"the run ends, the weights of epoch {top['epoch']} are kept",
        "rollback": f"back to epoch {top['epoch']}{next_alpha}",
    }[then]
    warnings.warn(
        f"{config.method}, epoch {now['epoch']}: catastrophic overfitting{_DOUBT if then == 'continue' else ''}: "
        f"{_told(fall, attack)}, natural accuracy went from {top['guard_natural']:.1%} to {now['guard_natural']:.1%}: "
        f"{follows}",
        OverfittingWarning,
        stacklevel=3,
    )
    return {"collapse": {**fall, "then": then}}


def _told(fall: Entry, attack: str) -> str:
    if "trained" in fall:
        return (
            f"{attack} leaves {fall['now']:.1%}, {fall['best']:.1%} in the best epoch, the attack of training "
            f"{fall['trained']:.1%} of what is trained on"
        )
    return f"{attack} fell from {fall['best']:.1%} in epoch {fall['best_epoch']} to {fall['now']:.1%}"


def rolls_back(entry: Entry) -> bool:
    """Whether training goes back to the best epoch behind this one."""
    return bool(entry.get("collapse", {}).get("then") == "rollback")


def has_stopped(history: History) -> bool:
    """Whether the run ended with its newest epoch because of a fall."""
    return bool(history) and history[-1].get("collapse", {}).get("then") == "stop"


def rollbacks(history: History) -> int:
    """How often training went back."""
    return sum(map(rolls_back, history))


def alpha(config: TrainConfig, rollbacks: int) -> float:
    """Step size of the attack, pixel units, after so many rollbacks: half of the last.

    The same bits would fall again. Smaller steps delay or prevent the fall: Andriushchenko and Flammarion 2020,
    "Understanding and improving fast adversarial training", section 3.
    """
    return config.alpha * _SHRINK**rollbacks


def setting(config: TrainConfig, history: History) -> str:
    """What a table says of the method, rollbacks included: "alpha=10/255, 5/255 after 1 rollback".

    history: until the epoch whose weights count
    """
    count = rollbacks(history)
    behind = f", {show_pixels(alpha(config, count))} after {count} rollback{'s' * (count > 1)}" if count else ""
    return config.setting + behind


def summary(history: History) -> Entry:
    """A run's part of its row of `results.json`; nothing without a guard."""
    top = best(history)
    if top is None:
        return {}
    return {
        "guard_samples": top["guard_samples"],
        "guard_seconds": sum(entry.get("guard_seconds", 0.0) for entry in history),
        "best_epoch": top["epoch"],
        f"best_{ROBUST}": top[ROBUST],
        "collapsed_epochs": [entry["epoch"] for entry in history if "collapse" in entry],
        "rollbacks": rollbacks(history),
    }


def _fall(history: History, key: str) -> Entry:
    """Of a run that never rose, accuracy under the attack of training too."""
    top = best(history, key)
    assert top is not None
    fall = {"best_epoch": top["epoch"], "best": top[key], "now": history[-1][key]}
    return fall if top[key] > DROP else {**fall, "trained": history[-1]["train_accuracy"]}


def _falls(history: History, key: str) -> bool:
    """Whether the newest epoch is the first that is down since the start, a recovery or a rollback."""
    was, down = False, False
    for i in range(len(history)):
        was = down and not (i > 0 and rolls_back(history[i - 1]))
        down = _is_down(history[: i + 1], key, 0.5 if was else 1.0)
    return down and not was


def _is_down(history: History, key: str, share: float) -> bool:
    """Whether the newest accuracy lies by more than a share of the drop under the best, or, where none was above the
    drop, of the gap under accuracy in training; shares of samples, but for rounding.

    share: 1 for a fall, less for a recovery from one
    """
    top, now = best(history, key), history[-1]
    if top is None or now.get(key) is None:
        return False
    if top[key] > DROP:
        return round(top[key] - now[key], 9) > share * DROP
    return round(now.get("train_accuracy", 0.0) - now[key], 9) > share * _GAP
