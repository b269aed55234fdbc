import random

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from freefast.reporting import Run, time_accuracy


def run(name, minutes, **accuracies):
    return Run(name=name, method="fast", metrics=[], row={"train_minutes": minutes, **accuracies})


RUNS = [run("fast", 12.5, pgd10=0.5, pgd50=0.46), run("free", 80, pgd10=0.51, pgd20=0.5, pgd50=0.475)]


@pytest.mark.parametrize(
    ("runs", "steps"),
    [
        (RUNS, 50),
        ([*RUNS, run("pgd", 200, pgd10=0.5, pgd20=0.4)], 10),
        ([*RUNS, run("pgd", 200, pgd10=0.5, pgd50=None)], 10),
        ([*RUNS, run("pgd", 200, natural=0.5)], None),
        ([], None),
    ],
)
def test_the_steps_are_the_most_that_all_runs_share(runs, steps):
    assert time_accuracy.shared_steps(runs) == steps
    assert time_accuracy.can_plot(runs) == (steps is not None)


@pytest.mark.parametrize("runs", [RUNS[:1], [*RUNS, run("pgd", None, pgd50=0.5)], [*RUNS, run("pgd", 1.0)]])
def test_what_cannot_be_compared_is_refused(runs):
    assert not time_accuracy.can_plot(runs)
    with pytest.raises(ValueError, match="time_accuracy: runs: wanted several"):
        time_accuracy.figure(runs)


def test_points_are_minutes_and_accuracies():
    (axes,) = time_accuracy.figure(RUNS).axes
    points = [(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines]
    assert points == [(12.5, 0.46), (80, 0.475)]
    assert [line.get_label() for line in axes.lines] == ["fast", "free"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Training time, minutes", "Accuracy under PGD-50")
    assert axes.get_xlim()[0] == 0


def crowd(number):
    """Three seeds at each of a few places."""
    rng = random.Random(0)
    places = ((12, 0.45), (80, 0.47), (200, 0.5), (14, 0.0))
    return [
        run(f"run-{n}-of-some-name", places[n // 3][0] + rng.random(), pgd50=places[n // 3][1] + rng.random() / 50)
        for n in range(number)
    ]


@pytest.mark.parametrize("number", [2, 4, 9, 12])
def test_every_run_has_a_look_and_a_name_that_is_inside_and_overlaps_nothing(number):
    fig = time_accuracy.figure(crowd(number))
    canvas = FigureCanvasAgg(fig)
    canvas.draw()
    lines = fig.axes[0].lines
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == number
    (legend,) = fig.legends
    names = [text.get_window_extent(canvas.get_renderer()) for text in legend.get_texts()]
    assert [text.get_text() for text in legend.get_texts()] == [f"run-{n}-of-some-name" for n in range(number)]
    boxes = [fig.axes[0].get_tightbbox(canvas.get_renderer()), *names]
    assert len(boxes) == number + 1
    for place, box in enumerate(boxes):
        assert fig.bbox.x0 <= box.x0
        assert box.x1 <= fig.bbox.x1
        assert fig.bbox.y0 <= box.y0
        assert box.y1 <= fig.bbox.y1
        assert not any(box.overlaps(other) for other in boxes[place + 1 :])


def test_a_name_is_text_and_nothing_else(tmp_path):
    odd = [run("$\\frac{$<b>&", 1.0, pgd50=0.5), run("b", 2.0, pgd50=0.6)]
    png, svg = time_accuracy.plot(odd, tmp_path)
    with Image.open(png) as image:
        assert image.format == "PNG"
    assert svg.read_text(encoding="utf-8").lstrip().startswith("<?xml")
    assert {path.name for path in tmp_path.iterdir()} == {"time_accuracy.png", "time_accuracy.svg"}


def test_the_section_says_which_attack(tmp_path):
    section = time_accuracy.section(RUNS, tmp_path)
    (picture,) = section.pictures
    assert "PGD-50" in picture.caption
    assert picture.path == tmp_path / "time_accuracy.png"
