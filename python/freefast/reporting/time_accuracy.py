"""Time of training against robust accuracy, as PNG and SVG."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from freefast.reporting.curves import MARKERS, PALETTE
from freefast.reporting.drawing import save
from freefast.reporting.results import Run
from freefast.reporting.section import Picture, Section
from freefast.reporting.table import pgd_steps
from freefast.reporting.text import shorten

SIZE = (5.2, 3.6)  # inches, without the names
_LINE = 0.19  # inches: a name
_MARKER = 9  # points


def plot(runs: Sequence[Run], folder: Path | str) -> list[Path]:
    """Write the figure of `figure` as `time_accuracy.png` and `time_accuracy.svg`. Returns: their paths."""
    paths = [Path(folder) / f"time_accuracy.{suffix}" for suffix in ("png", "svg")]
    save(figure(runs), *paths)
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
    """A point a run, minutes of training across and accuracy under PGD up; below, their names.

    Raises: ValueError where `can_plot` is not so.
    """
    if not can_plot(runs):
        raise ValueError("time_accuracy: runs: wanted several, with minutes of training and PGD steps in common")
    steps = shared_steps(runs)
    points = [(run, run.row["train_minutes"], run.row[f"pgd{steps}"]) for run in runs]
    fig = Figure(figsize=(SIZE[0], SIZE[1] + _LINE * len(runs)), layout="constrained")
    axes = fig.add_subplot()
    axes.set(xlabel="Training time, minutes", ylabel=f"Accuracy under PGD-{steps}")
    axes.grid(color="#DDDDDD", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    for index, (run, x, y) in enumerate(points):
        colour, marker, name = PALETTE[index % len(PALETTE)], MARKERS[index % len(MARKERS)], shorten(run.name, 50)
        axes.plot(x, y, color=colour, marker=marker, ms=_MARKER, ls="", label=name, clip_on=False, zorder=3)
    axes.margins(0.15)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=max(axes.get_ylim()[0], -0.05), top=min(axes.get_ylim()[1], 1.05))
    legend = fig.legend(loc="outside lower left", frameon=False, fontsize=9, labelspacing=0.35)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return fig
