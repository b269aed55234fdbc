"""The report's figures: our curves, and behind them the report's as thin lines."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from freefast.reporting import Run
from freefast.reporting.curves import MARKERS, PALETTE, epoch_ticks, series
from freefast.reporting.drawing import save
from freefast.reporting.section import Picture, Section
from freefast.reproduce import collapses, published
from freefast.reproduce.contents import FIGURES

_SIZE = (11, 4.6)  # inches
_OURS, _THEIRS = 2.2, 0.9  # points: widths of lines
_APART = 0.055  # of the panel's height, between two labels
_LETTERS = 150  # a line of the note
_READING = (
    "Thick lines are ours, thin ones the report's published log. Left accuracy on the test set and, where named, in "
    "training, right accuracy on the test set under PGD-50."
)
_GREY = "#333333"


class _Line(NamedTuple):
    """One kind of value of one run, in a colour of its own."""

    label: str
    recipe: str
    key: str


def write(name: str, ours: Mapping[str, Run], note: str, folder: Path) -> Path:
    """Write NAME.png, 1650 pixels wide, and NAME.svg. Returns: the PNG's path.

    ours: finished runs by their recipes
    note: what stands below the figure
    """
    path = folder / f"{name}.png"
    save(figure(name, ours, note), path, path.with_suffix(".svg"))
    return path


def section(name: str, path: Path) -> Section:
    """The figure on the page.

    path: of the PNG
    """
    content = FIGURES[name]
    caption = " ".join([f"{content.title}. {_READING}", *collapses.remarks(content.runs.values())])
    picture = Picture(path=path, caption=caption)
    return Section(heading=_heading(name), pictures=(picture,))


def figure(name: str, ours: Mapping[str, Run], note: str = "") -> Figure:
    """Two panels, accuracy and accuracy under PGD-50; what has a colour is named at the end of its line.

    Below stand the note, and what the logs show of collapses.

    Where a run of ours has other epochs than the report's, the axis is the share of the epochs, else the epoch.
    """
    content, theirs = FIGURES[name], published.runs()
    recipes = content.runs.values()
    lengths = {run[recipe].row["epochs"] for run in (ours, theirs) for recipe in recipes if recipe in run}
    epochs = lengths.pop() if len(lengths) == 1 else None
    accuracy = [_Line(f"{label}, test", recipe, "natural") for label, recipe in content.runs.items()]
    if content.training:
        accuracy += [_Line(f"{label}, training", recipe, "train_accuracy") for label, recipe in content.runs.items()]
    robust = [_Line(label, recipe, "pgd50") for label, recipe in content.runs.items()]
    fig = Figure(figsize=_SIZE, layout="constrained")
    fig.suptitle(f"{_heading(name)}: {content.title}")
    panels = fig.subplots(1, 2, sharex=True, sharey=True)
    for axes, heading, lines in zip(panels, ("Accuracy", "Accuracy under PGD-50"), (accuracy, robust), strict=True):
        _panel(axes, heading, lines, ours, theirs, epochs)
    panels[0].set_ylim(-0.02, 1.02)
    _legend(fig, [note, *collapses.remarks(recipes)])
    return fig


def _heading(name: str) -> str:
    return name.capitalize().replace("-", " ")


def _panel(
    axes: Axes, heading: str, lines: Sequence[_Line], ours: Mapping[str, Run], theirs: Mapping[str, Run],
    epochs: int | None,
) -> None:  # fmt: skip
    axes.set_title(f"{heading}, test set" if len(lines) == 1 else heading, fontsize=11)
    axes.grid(color="#DDDDDD", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelleft=True)
    axes.set_xlabel("Share of the epochs" if epochs is None else "Epoch")
    if epochs is not None:
        axes.set_xticks(epoch_ticks(epochs))
    ends = []
    for index, line in enumerate(lines):
        colour = PALETTE[index]
        for runs in (theirs, ours):
            if line.recipe not in runs:
                continue
            x, y = series(runs[line.recipe], line.key)
            places = [epoch / runs[line.recipe].row["epochs"] for epoch in x] if epochs is None else x
            look = _ours(index, len(x)) if runs is ours else {"linewidth": _THEIRS, "alpha": 0.8}
            axes.plot(places, y, color=colour, **look)
            end = (y[-1], line.label, colour)
        ends.append(end)
    _label(axes, ends, 1.0 if epochs is None else epochs)


def _ours(index: int, points: int) -> dict:
    return {"linewidth": _OURS, "marker": MARKERS[index], "markersize": 5, "markevery": max(1, points // 10)}


def _label(axes: Axes, ends: Sequence[tuple[float, str, str]], x: float) -> None:
    """Names at the right ends of the lines, moved apart where they would lie on each other."""
    place = -1.0
    for height, label, colour in sorted(ends):
        place = max(height, place + _APART)
        axes.annotate(
            label, (x, place), xytext=(6, 0), textcoords="offset points", va="center", color=colour, fontsize=9,
            fontweight="bold", annotation_clip=False,
        )  # fmt: skip


def _legend(fig: Figure, notes: Sequence[str]) -> None:
    handles = [
        Line2D([], [], color=_GREY, label="ours", **_ours(0, 1)),
        Line2D([], [], color=_GREY, label="the report's log", linewidth=_THEIRS),
    ]
    legend = fig.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    legend.set_title("\n".join(line for note in notes for line in textwrap.wrap(note, _LETTERS)))
    legend.get_title().set(fontsize=9, color="#555555", parse_math=False)
