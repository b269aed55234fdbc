import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from freefast.reporting import surface_figure
from freefast.reporting.loss_surface import LossSurface


def surface(scale=1.0, points=5, epsilon=0.2):
    random = torch.Generator().manual_seed(0)
    return LossSurface(
        offsets=torch.linspace(-epsilon, epsilon, points),
        losses=scale * torch.rand(3, points, points, generator=random),
        wrong=torch.zeros(3, points, points, dtype=torch.bool),
        slopes=torch.zeros(3, 2),
    )


def test_every_model_has_a_panel_with_its_losses_on_one_scale():
    surfaces = {
        "standard": surface(9.0),
        "free": surface(0.1),
        "fast": surface(0.5),
        "pgd": surface(),
        "more": surface(),
    }
    fig = surface_figure.figure(surfaces)
    *panels, bar = fig.axes
    assert bar.get_ylabel() == "Cross-entropy, nats"
    shown = [axes for axes in panels if axes.axison]
    assert len(shown) == 5
    means = {name: found.losses.double().mean(0).numpy() for name, found in surfaces.items()}
    limits = min(mean.min() for mean in means.values()), max(mean.max() for mean in means.values())
    for axes, (name, mean) in zip(shown, means.items(), strict=True):
        assert axes.get_title().splitlines() == [name, f"nonlinearity {surfaces[name].nonlinearity:.3g}"]
        (mesh,) = [
            drawn for drawn in axes.collections if drawn.get_array() is not None and drawn.get_array().size == 25
        ]
        np.testing.assert_allclose(np.asarray(mesh.get_array()).reshape(5, 5), mean.T, rtol=1e-5)  # across is a
        np.testing.assert_allclose(mesh.get_clim(), limits, rtol=1e-5)
        assert axes.get_xlabel() == "a, along sign(gradient)"
    assert shown[0].get_ylabel() == "b, along random signs"


@pytest.mark.parametrize("number", [1, 4, 6])
def test_no_text_is_clipped_or_overlaps(number):
    fig = surface_figure.figure({f"$\\frac{{$ a name far too long {n}": surface(n + 1.0) for n in range(number)})
    canvas = FigureCanvasAgg(fig)
    canvas.draw()
    panels = [axes for axes in fig.axes if axes.axison]
    boxes = [
        text.get_window_extent(canvas.get_renderer())
        for axes in panels
        for text in (axes.title, axes.xaxis.label, axes.yaxis.label)
        if text.get_text()
    ]
    for place, box in enumerate(boxes):
        assert fig.bbox.x0 <= box.x0
        assert box.x1 <= fig.bbox.x1
        assert fig.bbox.y0 <= box.y0
        assert box.y1 <= fig.bbox.y1
        assert not any(box.overlaps(other) for other in boxes[place + 1 :])


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_a_loss_that_is_the_same_everywhere_or_no_number_is_drawn(value, epsilon, tmp_path, recwarn):
    flat = surface(0.0, epsilon=epsilon)
    flat.losses.fill_(value)
    surface_figure.plot({"flat": flat}, tmp_path / "surface.png")
    with Image.open(tmp_path / "surface.png") as image:
        assert image.format == "PNG"
    assert [str(warning.message) for warning in recwarn] == []


def test_no_model_is_refused():
    with pytest.raises(ValueError, match="surface_figure: surfaces: wanted at least one"):
        surface_figure.figure({})
