"""Accuracy, robust accuracy and loss by epoch, as one PNG."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from freefast.reporting.results import Run
from freefast.reporting.table import pgd_steps
from freefast.reporting.text import shorten

# Okabe and Ito's colour-blind-safe palette without yellow, which is too pale on white
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
TRAINING, NATURAL = (0, (4, 2)), "-"
PGD = ((0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)), (0, (8, 2)), (0, (5, 1.5, 1, 1.5, 1, 1.5)))
DPI = 150

Style = Any
"""A matplotlib line style: a name, or (offset, on-off lengths in points)."""


def plot(runs: Sequence[Run], path: Path | str) -> None:
    """Write the figure of `figure` as a PNG of 1650 x 1200 pixels."""
    figure(runs).savefig(path, dpi=DPI, format="png")


def figure(runs: Sequence[Run]) -> Figure:
    """Three panels by epoch: training and natural accuracy, robust accuracy, training loss; and their legend.

    A run has one colour and marker, a kind of line one style in every panel. The evaluation after training,
    in the run's row, counts as its last epoch's.
    """
    fig = Figure(figsize=(11, 8), layout="constrained")
    (accuracy, robust), (loss, legend) = fig.subplots(2, 2)
    steps = pgd_steps([entry for run in runs for entry in (*run.metrics, run.row)])
    attacks = {f"pgd{n}": PGD[i % len(PGD)] for i, n in enumerate(steps)}
    _panel(accuracy, "Accuracy", runs, {"train_accuracy": TRAINING, "natural": NATURAL})
    _panel(robust, "Robust accuracy", runs, attacks)
    _panel(loss, "Training loss", runs, {"train_loss": TRAINING})
    for panel in (accuracy, robust):
        panel.set_ylim(-0.02, 1.02)
    for panel in (robust, loss):
        panel.sharex(accuracy)
    accuracy.xaxis.set_major_locator(MaxNLocator(integer=True))
    names = {f"PGD-{n} accuracy": attacks[f"pgd{n}"] for n in steps}
    _legends(legend, runs, {"Training": TRAINING, "Natural accuracy": NATURAL, **names})
    return fig


def series(run: Run, key: str) -> tuple[list[int], list[float]]:
    """The epochs at which a run has a value of `key`, and the values."""
    points = {entry["epoch"]: entry[key] for entry in run.metrics if entry.get(key) is not None}
    if run.metrics and run.row.get(key) is not None:
        points.setdefault(run.metrics[-1]["epoch"], run.row[key])
    return list(points), list(points.values())


def _panel(axes: Axes, title: str, runs: Sequence[Run], kinds: Mapping[str, Style]) -> None:
    axes.set_title(title)
    axes.set_xlabel("Epoch")
    axes.grid(color="#DDDDDD", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    for index, run in enumerate(runs):
        for key, style in kinds.items():
            epochs, values = series(run, key)
            if epochs:
                every = max(1, len(epochs) // 10)
                axes.plot(epochs, values, linestyle=style, markevery=every, **_look(index))
    if not axes.lines:
        axes.text(0.5, 0.5, "not evaluated", transform=axes.transAxes, ha="center", color="#555555")


def _legends(axes: Axes, runs: Sequence[Run], kinds: Mapping[str, Style]) -> None:
    axes.set_axis_off()
    colours = [Line2D([], [], **_look(index)) for index in range(len(runs))]
    names = [shorten(run.name, 50) for run in runs]
    fitting = min(9.0, 112 / (len(runs) + 1))
    _legend(axes, colours, names, title="Run", loc="upper left", fontsize=fitting)
    styles = [Line2D([], [], color="#333333", linestyle=style, linewidth=1.6) for style in kinds.values()]
    _legend(axes, styles, list(kinds), title="Line", loc="lower left", fontsize=9, ncols=2)


def _legend(axes: Axes, handles: Sequence[Line2D], labels: Sequence[str], **place: Any) -> None:
    look: dict[str, Any] = {
        "frameon": False,
        "labelspacing": 0.35,
        "handlelength": 4,
        "alignment": "left",
        "borderaxespad": 0,
    }
    legend = Legend(axes, handles, labels, **look, **place)
    for text in legend.get_texts():
        text.set_parse_math(False)
    axes.add_artist(legend)


def _look(index: int) -> dict[str, Any]:
    colour, marker = PALETTE[index % len(PALETTE)], MARKERS[index % len(MARKERS)]
    return {"color": colour, "marker": marker, "markersize": 4, "linewidth": 1.6}
