"""Time of training against robust accuracy, as PNG and SVG."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from freefast.reporting.curves import DPI, MARKERS, PALETTE
from freefast.reporting.results import Run
from freefast.reporting.section import Picture, Section
from freefast.reporting.table import pgd_steps
from freefast.reporting.text import shorten

SIZE = (5.2, 3.6)  # inches
_MARKER = 9  # points
_SIDES = ((8, 0), (-8, 0), (0, 12), (0, -12), (7, 9), (7, -9), (-7, 9), (-7, -9))
_PLACES = [(far * x, far * y) for far in (1, 2, 3, 4) for x, y in _SIDES]
"""Where a label may stand, points to the right of and above its marker, the nearest first."""

_LEADER: dict[str, Any] = {"arrowstyle": "-", "color": "#777777", "linewidth": 0.7, "shrinkA": 0, "shrinkB": 5}


def plot(runs: Sequence[Run], folder: Path | str) -> list[Path]:
    """Write the figure of `figure` as `time_accuracy.png` and `time_accuracy.svg`. Returns: their paths."""
    drawn = figure(runs)
    paths = [Path(folder) / f"time_accuracy.{suffix}" for suffix in ("png", "svg")]
    for path in paths:
        drawn.savefig(path, dpi=DPI)
    return paths


def section(runs: Sequence[Run], folder: Path | str) -> Section:
    """The figure, written as `plot` does, with its caption."""
    caption = (
        f"A point a run: time of training alone, and the share of test images that are right under "
        f"PGD-{shared_steps(runs)}. Times compare only where each run had the same machine to itself."
    )
    picture = Picture(path=plot(runs, folder)[0], caption=caption)
    return Section(heading="Time and robustness", pictures=[picture])


def shared_steps(runs: Sequence[Run]) -> int | None:
    """The largest number of PGD steps that every run was evaluated with; None where there is none."""
    known = [{n for n in pgd_steps([run.row]) if run.row[f"pgd{n}"] is not None} for run in runs]
    return max(set.intersection(*known), default=None) if known else None


def can_plot(runs: Sequence[Run]) -> bool:
    """Whether there are several runs, with a time of training and a number of PGD steps in common."""
    return len(runs) > 1 and shared_steps(runs) is not None and all(run.row.get("train_minutes") for run in runs)


def figure(runs: Sequence[Run]) -> Figure:
    """A point a run, with its name: minutes of training across, accuracy under PGD up.

    Raises: ValueError where `can_plot` is not so.
    """
    if not can_plot(runs):
        raise ValueError("time_accuracy: runs: wanted several, with minutes of training and PGD steps in common")
    steps = shared_steps(runs)
    points = [(run.row["train_minutes"], run.row[f"pgd{steps}"]) for run in runs]
    fig = Figure(figsize=SIZE, layout="constrained")
    axes = fig.add_subplot()
    axes.set(xlabel="Training time, minutes", ylabel=f"Accuracy under PGD-{steps}")
    axes.grid(color="#DDDDDD", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    for index, (x, y) in enumerate(points):
        colour, marker = PALETTE[index % len(PALETTE)], MARKERS[index % len(MARKERS)]
        axes.plot(x, y, linestyle="", color=colour, marker=marker, markersize=_MARKER, clip_on=False, zorder=3)
    axes.margins(0.15)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=max(axes.get_ylim()[0], -0.05), top=min(axes.get_ylim()[1], 1.05))
    _label(axes, points, [shorten(run.name, 28) for run in runs])
    return fig


def _label(axes: Axes, points: Sequence[tuple[float, float]], names: Sequence[str]) -> None:
    """Write each name at the first place where it overlaps no marker and no other name, else at the first of all."""
    fig = cast(Figure, axes.figure)
    canvas = FigureCanvasAgg(fig)
    canvas.draw()
    room = axes.get_window_extent()
    half = _MARKER / 72 * fig.dpi / 2
    taken = [Bbox.from_extents(x - half, y - half, x + half, y + half) for x, y in axes.transData.transform(points)]
    for point, name in zip(points, names, strict=True):
        text = axes.annotate(name, point, _PLACES[0], textcoords="offset points", va="center", arrowprops=_LEADER)
        text.set_parse_math(False)
        text.set_in_layout(False)
        for place in (*_PLACES, _PLACES[0]):
            text.set_position(place)
            text.set_horizontalalignment("center" if place[0] == 0 else "left" if place[0] > 0 else "right")
            text.update_positions(canvas.get_renderer())
            box = Text.get_window_extent(text)  # without the leader
            if np.array_equal(Bbox.union([box, room]), room) and not box.count_overlaps(taken):
                break
        taken.append(box)
