"""Catastrophic overfitting in the report's published logs, which its rows, being of the best epoch, do not show."""

from collections.abc import Iterable, Mapping
from typing import Any

from freefast.reporting import Run
from freefast.reproduce import published
from freefast.training.guard import DROP

_ROBUST = "pgd50"


def remarks(recipes: Iterable[str]) -> list[str]:
    """A text for each recipe in whose published log PGD-50 falls by more than 20 points below the best epoch's."""
    theirs = published.runs()
    return [text for recipe in recipes if (text := _remark(theirs[recipe]))]


def _remark(run: Run) -> str:
    attacked = [entry for entry in run.metrics if _ROBUST in entry]
    top = max(attacked, key=lambda entry: entry[_ROBUST])
    later = [entry for entry in attacked if entry["epoch"] > top["epoch"]]
    fallen = [entry for entry in later if round(top[_ROBUST] - entry[_ROBUST], 9) > DROP]
    if not fallen:
        return ""
    lowest = min(fallen, key=lambda entry: entry[_ROBUST])
    falls = dict.fromkeys(f"{entry[_ROBUST]:.3f} in epoch {entry['epoch']}" for entry in (fallen[0], lowest))
    end, row = run.metrics[-1], run.row
    return (
        f"The report's own run of {row['method']} {row['model']}, {row['setting']}, {row['epochs']} epochs, collapsed "
        f"(catastrophic overfitting), which its row does not show: by its published log {_both(top)} (natural, PGD-50) "
        f"is of epoch {top['epoch']}, its best; PGD-50 fell to {' and '.join(falls)}, and the run ended with "
        f"{_both(end)} in epoch {end['epoch']}."
    )


def _both(entry: Mapping[str, Any]) -> str:
    return f"{entry['natural']:.3f} / {entry[_ROBUST]:.3f}"
