"""Figures as files that equal figures make with equal bytes."""

from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

DPI = 150


def save(figure: Figure, *paths: Path | str) -> None:
    """Write a figure as PNG or SVG, as the paths end."""
    for path in map(Path, paths):
        kind = path.suffix.removeprefix(".")
        metadata = {"Date": None} if kind == "svg" else None
        with matplotlib.rc_context({"svg.hashsalt": "freefast"}):  # else the names of an SVG's parts are random
            figure.savefig(path, dpi=DPI, format=kind, metadata=metadata)
