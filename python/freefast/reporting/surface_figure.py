"""Loss surfaces of several models side by side, as one PNG."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from freefast.reporting.drawing import save
from freefast.reporting.loss_surface import LossSurface
from freefast.reporting.text import shorten

COLOURS, LINES = "viridis", "#FFFFFF"
COLUMNS = 4
PANEL, HEAD = 2.4, 0.5  # inches: a panel's side, the room of its title and labels
LEVELS = [first * 10.0**decade for decade in range(-1, 4) for first in (1, 2, 5)]  # nats, of the contour lines


def plot(surfaces: Mapping[str, LossSurface], path: Path | str) -> None:
    """Write the figure of `figure` as a PNG."""
    save(figure(surfaces), path)


def figure(surfaces: Mapping[str, LossSurface]) -> Figure:
    """A panel a model by its name: the loss averaged over the samples, all on one colour scale.

    A cross marks the clean images; dashed: no pixel is moved by more than epsilon inside.

    Raises: ValueError where there is no model.
    """
    if not surfaces:
        raise ValueError("surface_figure: surfaces: wanted at least one")
    columns = min(COLUMNS, len(surfaces))
    lines = -(-len(surfaces) // columns)
    fig = Figure(figsize=(PANEL * columns + 1.2, (PANEL + HEAD) * lines), layout="constrained")
    panels = fig.subplots(lines, columns, squeeze=False)
    means = {name: surface.mean.numpy() for name, surface in surfaces.items()}
    scale = Normalize(min(mean.min() for mean in means.values()), max(mean.max() for mean in means.values()))
    for axes, (name, surface) in zip(panels.flat, surfaces.items(), strict=False):
        _panel(axes, name, surface, scale)
    for axes in panels.flat[len(surfaces) :]:
        axes.set_axis_off()
    for axes in panels[:, 0]:
        axes.set_ylabel("b, along random signs")
    bar = fig.colorbar(ScalarMappable(scale, COLOURS), ax=panels, shrink=0.8, aspect=25)
    bar.set_label("Cross-entropy, nats")
    return fig


def _panel(axes: Axes, name: str, surface: LossSurface, scale: Normalize) -> None:
    offsets, mean = surface.offsets.numpy(), surface.mean.T.numpy()  # down is b, across is a
    axes.pcolormesh(offsets, offsets, mean, cmap=COLOURS, norm=scale, shading="gouraud", rasterized=True)
    levels = [level for level in LEVELS if mean.min() < level < mean.max()]
    if levels:
        lines = axes.contour(offsets, offsets, mean, levels=levels, colors=LINES, linewidths=0.7)
        axes.clabel(lines, fmt="%g", fontsize=8)
    epsilon = offsets[-1]
    corners = (epsilon, 0, -epsilon, 0, epsilon)
    axes.plot(corners, (0, epsilon, 0, -epsilon, 0), color=LINES, linewidth=1, linestyle=(0, (4, 3)))
    axes.plot(0, 0, marker="+", color=LINES, markersize=9, markeredgewidth=1.6)
    axes.set_title(f"{shorten(name, 24)}\nnonlinearity {surface.nonlinearity:.3g}", fontsize=10, parse_math=False)
    axes.set_xlabel("a, along sign(gradient)")
    axes.set(aspect="equal", xticks=(-epsilon, 0, epsilon), yticks=(-epsilon, 0, epsilon))
