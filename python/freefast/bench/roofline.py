"""Work a second against work a byte, under the device's limits.

Source: Williams et al. 2009, "Roofline: an insightful visual performance model for multicore architectures".
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from freefast.reporting.curves import MARKERS, PALETTE
from freefast.reporting.drawing import save
from freefast.reporting.results import Row

_PANEL, _LINE, _LEGEND = 3.6, 0.2, 3.0  # inches: a panel's side, a legend's line, a legend's width
_DECADES = 1.5  # of intensity to the left and right of the points and of the ridge


def plot(rows: Sequence[Row], folder: Path) -> None:
    """Write the figure of `figure` as `roofline.png` and `roofline.svg`."""
    save(figure(rows), folder / "roofline.png", folder / "roofline.svg")


def figure(rows: Sequence[Row]) -> Figure:
    """A panel a method, a point a variant: its precision a colour, how it runs a marker.

    Sloped: the bytes that a copy moves in a second; level: the arithmetic limit of each precision.
    """
    measured = [row for row in rows if "flops_per_second" in row]
    methods = list(dict.fromkeys(row["method"] for row in measured))
    precisions, ways = (list(dict.fromkeys(map(key, measured))) for key in (_precision, _way))
    colours = dict(zip(precisions, PALETTE * len(precisions), strict=False))
    markers = dict(zip(ways, MARKERS * len(ways), strict=False))
    height = max(_PANEL, _LINE * (len(precisions) + len(ways) + 6))
    fig = Figure(figsize=(_PANEL * max(len(methods), 1) + _LEGEND, height), layout="constrained")
    panels = fig.subplots(1, max(len(methods), 1), sharex=True, sharey=True, squeeze=False)[0]
    for axes, method in zip(panels, methods, strict=False):
        _panel(axes, method, measured, colours, markers)
    if measured:
        panels[0].set_ylabel("FLOP/s that the method needs")
        _legend(fig, colours, markers)
    else:
        panels[0].text(0.5, 0.5, "nothing measured", transform=panels[0].transAxes, ha="center", color="#555555")
    return fig


def _panel(axes: Axes, method: str, measured: Sequence[Row], colours: dict[str, str], markers: dict[str, str]) -> None:
    axes.set(title=method, xlabel="FLOP a byte moved, op by op", xscale="log", yscale="log")
    axes.grid(color="#DDDDDD", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    _roofs(axes, measured, colours)
    for row in measured:
        if row["method"] == method:
            look: dict[str, Any] = {"color": colours[_precision(row)], "marker": markers[_way(row)]}
            axes.plot(row["flops_per_byte"], row["flops_per_second"], linestyle="", markersize=7, alpha=0.85, **look)


def _roofs(axes: Axes, measured: Sequence[Row], colours: dict[str, str]) -> None:
    copied = measured[0]["limit_bytes_per_second"]
    limits = {_precision(row): row["limit_flops_per_second"] for row in measured}
    places = [row["flops_per_byte"] for row in measured] + [limit / copied for limit in limits.values()]
    left, right = min(places) / 10**_DECADES, max(places) * 10**_DECADES
    top = max(limits.values())
    axes.plot([left, top / copied], [left * copied, top], color="#333333", linewidth=1.2)
    for precision, limit in limits.items():
        axes.plot([limit / copied, right], [limit, limit], color=colours[precision], linewidth=1.2)


def _legend(fig: Figure, colours: dict[str, str], markers: dict[str, str]) -> None:
    handles = [Line2D([], [], color="#333333", linewidth=1.2)]
    handles += [Line2D([], [], color=colour, linewidth=2) for colour in colours.values()]
    handles += [Line2D([], [], color="#333333", marker=marker, linestyle="") for marker in markers.values()]
    labels = ["Bytes of a copy", *(f"{name}, and its limit" for name in colours), *markers]
    fig.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=9, alignment="left")


def _precision(row: Row) -> str:
    return str(row["precision"])


def _way(row: Row) -> str:
    return f"{row['who']}, {row['how']}"
