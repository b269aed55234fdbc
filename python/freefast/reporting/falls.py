"""What a page says of runs whose robust accuracy fell while they trained."""

from collections.abc import Sequence
from typing import Any

from freefast.reporting.results import Run
from freefast.reporting.section import Section
from freefast.reporting.table import Column

_COLUMNS = (
    Column("Run", "run", None),
    Column("Fell in epoch", "epoch", 0),
    Column("Best epoch before", "best_epoch", 0),
    Column("Accuracy then", "best", 3),
    Column("Accuracy now", "now", 3),
    Column("In training", "trained", 3),
    Column("What followed", "then", None),
)
_TEXT = (
    "Accuracy under PGD fell by more than 20 points below the best so far, or, where that was never above 20%, lay "
    "more than 40 points below accuracy under the attack of training: by the guard's held-out samples, where the run "
    "had a guard, else by the evaluations on the test set."
)
_AGAIN = "An epoch that was trained again after a rollback is drawn as it was trained last; training time is of all."


def falls(run: Run) -> list[dict[str, Any]]:
    """A line a fall: its epoch, the best epoch before with its accuracy, the accuracy now, what followed."""
    found = [(entry["epoch"], entry["collapse"]) for entry in run.metrics if "collapse" in entry]
    if "collapse" in run.row:
        found.append((run.row["epochs"], run.row["collapse"]))
    return [{"run": run.name, "epoch": epoch, **fall} for epoch, fall in found]


def section(runs: Sequence[Run], remark: str = "") -> list[Section]:
    """The table of all falls; nothing where there was none."""
    rows = [fall for run in runs for fall in falls(run)]
    again = _AGAIN if any(row["then"] == "rollback" for row in rows) else ""
    text = " ".join(part for part in (_TEXT, again, remark) if part)
    return [Section(heading="Catastrophic overfitting", text=text, rows=rows, columns=_COLUMNS)] if rows else []
