"""Accuracy, robust accuracy and loss by epoch, as one PNG."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from freefast.reporting.drawing import save
from freefast.reporting.results import Run
from freefast.reporting.section import Picture, Section
from freefast.reporting.table import pgd_steps
from freefast.reporting.text import shorten

# Okabe and Ito's colour-blind-safe palette without yellow, which is too pale on white
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
GUARD = "guard_pgd10"
TRAINING, NATURAL = (0, (4, 2)), "-"
PGD = ((0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)), (0, (8, 2)), (0, (5, 1.5, 1, 1.5, 1, 1.5)))
FILLS = (("full", 4), ("none", 9), ("left", 6), ("bottom", 6))  # with sizes in points: equal points show both
WIDTH, PANELS, LINE = 11, 4, 0.2  # inches: the figure, the height of the panels, the height of a legend's line

Look = Mapping[str, Any]
"""matplotlib's settings of a kind of line: its style and how its markers are filled."""


def plot(runs: Sequence[Run], path: Path | str) -> None:
    """Write the figure of `figure` as a PNG, 1650 pixels wide and as high as its legend asks."""
    save(figure(runs), path)


def section(path: Path) -> Section:
    """The figure, written to a file, with its caption."""
    caption = (
        "By epoch: accuracy on the images trained on, which are attacked ones but for standard training; natural "
        "accuracy and accuracy under PGD on test images, and the guard's on held-out training images; mean loss of "
        "training. The evaluation after training counts as that of the epoch whose weights it took."
    )
    return Section(heading="Training", pictures=[Picture(path=path, caption=caption)])


def figure(runs: Sequence[Run]) -> Figure:
    """Three panels by epoch: training and natural accuracy, robust accuracy, training loss; below, their legend.

    A run has one colour and marker, a kind of line one style and filling in every panel. The evaluation after
    training, in the run's row, counts as that of the epoch whose weights it took. Of an epoch that was trained again
    after a rollback the last values count.
    """
    steps = pgd_steps([entry for run in runs for entry in (*run.metrics, run.row)])
    training, natural = _kind(TRAINING, 0), _kind(NATURAL, 0)
    attacks = {f"pgd{n}": f"PGD-{n} accuracy" for n in steps}
    if any(GUARD in entry for run in runs for entry in run.metrics):
        attacks[GUARD] = "Guard: PGD-10, held-out"
    robustness = {key: _kind(PGD[i % len(PGD)], i) for i, key in enumerate(attacks)}
    kinds = {"Training": training, "Natural accuracy": natural}
    kinds |= {label: robustness[key] for key, label in attacks.items()}
    below = LINE * (max(len(runs), (len(kinds) + 1) // 2) + 2)
    fig = Figure(figsize=(WIDTH, PANELS + below), layout="constrained")
    grid = fig.add_gridspec(2, 3, height_ratios=(PANELS, below))
    accuracy, robust, loss = (fig.add_subplot(grid[0, column]) for column in range(3))
    _panel(accuracy, "Accuracy", runs, {"train_accuracy": training, "natural": natural})
    _panel(robust, "Robust accuracy", runs, robustness)
    _panel(loss, "Training loss", runs, {"train_loss": training})
    for panel in (accuracy, robust):
        panel.set_ylim(-0.02, 1.02)
    for panel in (robust, loss):
        panel.sharex(accuracy)
    accuracy.set_xticks(epoch_ticks(max((entry["epoch"] for run in runs for entry in run.metrics), default=1)))
    _legends(fig.add_subplot(grid[1, :]), runs, kinds)
    return fig


def epoch_ticks(last: int) -> list[int]:
    """Round epochs, and the last one."""
    values = MaxNLocator(5, integer=True).tick_values(0, last)
    apart = (values[1] - values[0]) / 2
    return [int(value) for value in values if 1 <= value <= last - apart] + [last]


def series(run: Run, key: str) -> tuple[list[int], list[float]]:
    """The epochs at which a run has a value of `key`, and the values."""
    points = {entry["epoch"]: entry[key] for entry in run.metrics if entry.get(key) is not None}
    if run.metrics and run.row.get(key) is not None:
        points.setdefault(run.row.get("selected_epoch") or run.metrics[-1]["epoch"], run.row[key])
    points = dict(sorted(points.items()))
    return list(points), list(points.values())


def _panel(axes: Axes, title: str, runs: Sequence[Run], kinds: Mapping[str, Look]) -> None:
    axes.set_title(title)
    axes.set_xlabel("Epoch")
    axes.grid(color="#DDDDDD", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    for index, run in enumerate(runs):
        for key, look in kinds.items():
            epochs, values = series(run, key)
            if epochs:
                every = max(1, len(epochs) // 10)
                axes.plot(epochs, values, markevery=every, **_look(index), **look)
    if not axes.lines:
        axes.text(0.5, 0.5, "not evaluated", transform=axes.transAxes, ha="center", color="#555555")


def _legends(axes: Axes, runs: Sequence[Run], kinds: Mapping[str, Look]) -> None:
    axes.set_axis_off()
    colours = [Line2D([], [], markersize=4, **_look(index)) for index in range(len(runs))]
    _legend(axes, colours, [shorten(run.name, 50) for run in runs], title="Run", loc="upper left")
    lines = [Line2D([], [], color="#333333", marker="o", linewidth=1.6, **look) for look in kinds.values()]
    _legend(axes, lines, list(kinds), title="Line", loc="upper right", ncols=2)


def _legend(axes: Axes, handles: Sequence[Line2D], labels: Sequence[str], **place: Any) -> None:
    look: dict[str, Any] = {
        "frameon": False,
        "fontsize": 9,
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
    return {"color": colour, "marker": marker, "linewidth": 1.6}


def _kind(style: Any, index: int) -> Look:
    fill, size = FILLS[index % len(FILLS)]
    return {"linestyle": style, "fillstyle": fill, "markersize": size}
