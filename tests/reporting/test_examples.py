import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from freefast.reporting import examples

CLASSES = ["cat", "dog", "ship"]


@pytest.fixture(params=[1, 3], ids=["grey", "rgb"])
def pictures(request, device):
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(4, request.param, 6, 5, generator=generator)
    step = torch.randn(clean.shape, generator=generator).sign() * 0.03
    labels = torch.tensor([0, 1, 2, 0])
    adv_pred = torch.tensor([0, 2, 2, 1])
    return [t.to(device) for t in (clean, (clean + step).clamp(0, 1), labels, labels.clone(), adv_pred)]


def panels(fig):
    return np.array(fig.axes).reshape(3, -1)


def shown(axes):
    return np.asarray(axes.get_images()[0].get_array(), dtype=np.float64)


def test_rows_are_clean_magnified_difference_and_adversarial(pictures):
    clean, adversarial = (t.cpu().double().numpy().transpose(0, 2, 3, 1) for t in pictures[:2])
    difference = adversarial - clean
    magnified = 0.5 + 0.5 * difference / np.abs(difference).max()
    grid = panels(examples.figure(*pictures, CLASSES))
    assert grid.shape == (3, 4)
    for sample in range(4):
        for axes, wanted in zip(grid[:, sample], (clean, magnified, adversarial), strict=True):
            picture = shown(axes)
            assert picture.shape == (6, 5, 3)
            np.testing.assert_allclose(picture, np.broadcast_to(wanted[sample], (6, 5, 3)), atol=1e-5)


def test_predictions_carry_mark_name_and_colour(pictures):
    grid = panels(examples.figure(*pictures, CLASSES))
    labels = [[axes.get_xlabel() for axes in line] for line in grid]
    assert labels[0] == ["✓ cat", "✓ dog", "✓ ship", "✓ cat"]
    assert labels[1] == [""] * 4
    assert labels[2] == ["✓ cat", "✗ ship", "✓ ship", "✗ dog"]
    for axes in (*grid[0], *grid[2]):
        right = axes.get_xlabel().startswith("✓")
        assert axes.xaxis.label.get_color() == (examples.CORRECT if right else examples.WRONG)
    assert [axes.get_title() for axes in grid[0]] == ["true: cat", "true: dog", "true: ship", "true: cat"]


@pytest.mark.parametrize("colour", [examples.CORRECT, examples.WRONG])
def test_colours_read_well_on_white(colour):
    """Contrast of at least 4.5, as WCAG 2.2 (1.4.3) wants."""
    rgb = np.array(matplotlib.colors.to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    assert 1.05 / (linear @ [0.2126, 0.7152, 0.0722] + 0.05) >= 4.5


def test_the_magnification_is_written(device):
    clean = torch.full((1, 1, 2, 2), 0.5, device=device)
    index = torch.zeros(1, dtype=torch.int64, device=device)
    assert (
        "\N{MULTIPLICATION SIGN}2"
        in panels(examples.figure(clean, clean + 0.25, index, index, index, CLASSES))[1, 0].get_ylabel()
    )
    still = examples.figure(clean, clean, index, index, index, CLASSES)
    np.testing.assert_array_equal(shown(panels(still)[1, 0]), 0.5)


def test_png(pictures, tmp_path):
    examples.plot(*pictures, CLASSES, tmp_path / "examples.png")
    with Image.open(tmp_path / "examples.png") as image:
        assert image.format == "PNG"
        assert image.size == (int((0.8 + 1.05 * 4) * 150), int((1.0 + 3 * 1.05 * 6 / 5) * 150))
        assert len(image.convert("RGB").getcolors(maxcolors=1 << 24)) > 100


@pytest.mark.parametrize("samples", [1, 8])
def test_no_text_is_clipped_or_overlaps(samples, device):
    images = torch.rand(samples, 1, 8, 8, device=device)
    index = torch.zeros(samples, dtype=torch.int64, device=device)
    fig = examples.figure(images, images, index, index, index, ["$\\frac{$ a name far too long"])
    canvas = FigureCanvasAgg(fig)
    canvas.draw()
    renderer = canvas.get_renderer()
    grid = panels(fig)
    texts = [text for axes in grid.flat for text in (axes.title, axes.xaxis.label, axes.yaxis.label)]
    boxes = [text.get_window_extent(renderer) for text in texts if text.get_text()]
    assert len(boxes) == 3 * samples + 3
    for place, box in enumerate(boxes):
        assert fig.bbox.x0 <= box.x0
        assert box.x1 <= fig.bbox.x1
        assert fig.bbox.y0 <= box.y0
        assert box.y1 <= fig.bbox.y1
        assert not any(box.overlaps(other) for other in boxes[place + 1 :])


@pytest.mark.parametrize(
    ("place", "shape", "name"),
    [
        (0, (4, 2, 6, 5), "clean"),
        (0, (6, 5), "clean"),
        (0, (0, 1, 6, 5), "clean"),
        (1, (3, 1, 6, 5), "adversarial"),
        (2, (3,), "labels"),
        (3, (4, 1), "clean_pred"),
        (4, (5,), "adv_pred"),
    ],
)
def test_wrong_shapes_are_named(place, shape, name, device):
    arguments = [torch.zeros(4, 1, 6, 5), torch.zeros(4, 1, 6, 5), *(torch.zeros(4, dtype=torch.int64),) * 3]
    arguments[place] = torch.zeros(shape, dtype=arguments[place].dtype)
    with pytest.raises(ValueError, match=f"examples: {name}: wanted"):
        examples.figure(*(t.to(device) for t in arguments), CLASSES)


def test_an_output_that_is_no_class_has_its_number() -> None:
    """torchvision's ResNet50 has 1000 outputs, whatever the data."""
    images = torch.rand(1, 3, 4, 4)
    fig = examples.figure(images, images, torch.tensor([1]), torch.tensor([999]), torch.tensor([0]), ["cat", "dog"])
    assert [axes.get_xlabel() for axes in fig.axes] == ["\N{BALLOT X} output 999", "", "\N{BALLOT X} cat"]
