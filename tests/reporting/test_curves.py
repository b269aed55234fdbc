import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from freefast.reporting import Run, curves


def make_run(name, epochs=12, **row):
    metrics = []
    for epoch in range(1, epochs + 1):
        entry = {"epoch": epoch, "train_loss": 2.0 / epoch, "train_accuracy": 1 - 0.9 / epoch}
        if epoch % 4 == 0:
            entry |= {"natural": 0.9 - 0.1 / epoch, "pgd10": 0.4 + 0.01 * epoch}
        metrics.append(entry)
    return Run(name=name, method="free", metrics=metrics, row=row)


RUNS = [make_run("standard"), make_run("free m=8", pgd50=0.3), make_run("fast", epochs=9, natural=0.8)]


def drawn(axes):
    return [(line.get_xdata().tolist(), line.get_ydata().tolist()) for line in axes.lines]


def of(run, key):
    with_key = [entry for entry in run.metrics if key in entry]
    return [entry["epoch"] for entry in with_key], [entry[key] for entry in with_key]


def dashes(line):
    return str(line._dash_pattern)


def test_panels_hold_the_metrics():
    accuracy, robust, loss, _ = curves.figure(RUNS).axes
    assert [axes.get_title() for axes in (accuracy, robust, loss)] == [
        "Accuracy",
        "Robust accuracy",
        "Training loss",
    ]
    assert drawn(loss) == [of(run, "train_loss") for run in RUNS]
    assert drawn(accuracy)[:4] == [of(run, key) for run in RUNS[:2] for key in ("train_accuracy", "natural")]
    assert drawn(robust)[:2] == [of(RUNS[0], "pgd10"), of(RUNS[1], "pgd10")]


def test_the_evaluation_after_training_is_the_last_epochs():
    accuracy, robust, _, _ = curves.figure(RUNS).axes
    assert drawn(robust)[2] == ([12], [0.3])
    assert drawn(accuracy)[-1] == ([4, 8, 9], [0.9 - 0.1 / 4, 0.9 - 0.1 / 8, 0.8])
    evaluated_again = make_run("x", natural=0.1)
    assert curves.series(evaluated_again, "natural") == of(evaluated_again, "natural")


def test_the_evaluation_of_an_earlier_epochs_weights_is_that_epochs():
    run = make_run("x", epochs=9, natural=0.8, pgd50=0.3, selected_epoch=6)
    assert curves.series(run, "pgd50") == ([6], [0.3])
    assert curves.series(run, "natural") == ([4, 6, 8], [0.9 - 0.1 / 4, 0.8, 0.9 - 0.1 / 8])


def test_of_an_epoch_that_was_trained_again_the_last_values_count():
    run = make_run("x", epochs=3)
    run.metrics[2:2] = [{"epoch": 3, "train_loss": 9.0, "train_accuracy": 0.1}]
    run.metrics[1]["train_loss"] = 5.0
    assert curves.series(run, "train_loss") == ([1, 2, 3], [2.0, 5.0, 2.0 / 3])


def test_a_run_keeps_its_colour_and_a_kind_its_style():
    accuracy, robust, loss, _ = curves.figure(RUNS).axes
    colours = [line.get_color() for line in loss.lines]
    assert len(set(colours)) == len({line.get_marker() for line in loss.lines}) == 3
    assert [line.get_color() for line in accuracy.lines] == [colour for colour in colours for _ in range(2)]
    training, natural = ({dashes(line) for line in lines} for lines in (accuracy.lines[::2], accuracy.lines[1::2]))
    assert len(training) == len(natural) == 1
    assert {dashes(line) for line in loss.lines} == training
    pgd10, pgd50 = {dashes(line) for line in robust.lines[:2]}, {dashes(robust.lines[2])}
    assert len(training | natural | pgd10 | pgd50) == 4


def test_single_points_of_different_attacks_differ_in_filling():
    run = make_run("fast", pgd20=0.3, pgd50=0.3)
    fig = curves.figure([run])
    _, robust, _, corner = fig.axes
    assert [drawn(robust)[i] for i in (1, 2)] == [([12], [0.3])] * 2
    looks = [(line.get_fillstyle(), line.get_markersize()) for line in robust.lines]
    assert len({fill for fill, _ in looks}) == len({size for _, size in looks}) == 3
    keys = corner.artists[1].get_lines()[2:]
    assert [(line.get_fillstyle(), line.get_markersize()) for line in keys] == looks


@pytest.mark.parametrize("last", [1, 2, 3, 7, 12, 15, 20, 45, 100, 199])
def test_the_last_epoch_has_a_tick(last):
    ticks = curves.epoch_ticks(last)
    assert ticks[-1] == last
    assert ticks[0] >= 1
    steps = np.diff(ticks)
    assert (steps > 0).all()
    assert len(ticks) == 1 or steps[-1] >= steps[0] / 2
    for panel in curves.figure([make_run("a", epochs=last), make_run("b", epochs=1)]).axes[:3]:
        assert panel.get_xticks().tolist() == ticks


def test_colours_differ_for_colour_blind_eyes():
    """Simulated deuteranopia and protanopia (Machado et al. 2009, severity 1): every pair stays distinct."""
    deuteranopia = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    protanopia = [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    rgb = np.array([matplotlib.colors.to_rgb(colour) for colour in curves.PALETTE])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    for matrix in (np.eye(3), np.array(deuteranopia), np.array(protanopia)):
        seen = np.clip(linear @ matrix.T, 0, 1)
        srgb = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
        distance = np.linalg.norm(srgb[:, None] - srgb[None], axis=-1)
        assert distance[~np.eye(len(rgb), dtype=bool)].min() > 0.12


@pytest.mark.parametrize("count", [1, 4, 13, 20])
def test_legend_lies_outside_the_data_and_nothing_is_clipped(count):
    runs = [make_run(f"run {index} with a name of fair length", pgd20=0.2, pgd50=0.1) for index in range(count)]
    fig = curves.figure(runs)
    canvas = FigureCanvasAgg(fig)
    canvas.draw()
    *panels, corner = fig.axes
    assert all(axes.get_legend() is None for axes in panels)
    by_run, by_line = (artist for artist in corner.artists)
    assert [text.get_text() for text in by_run.get_texts()] == [run.name for run in runs]
    assert [text.get_text() for text in by_line.get_texts()] == [
        "Training",
        "Natural accuracy",
        "PGD-10 accuracy",
        "PGD-20 accuracy",
        "PGD-50 accuracy",
    ]
    boxes = [legend.get_window_extent(canvas.get_renderer()) for legend in (by_run, by_line)]
    assert not boxes[0].overlaps(boxes[1])
    for box in boxes:
        assert not any(box.overlaps(axes.get_window_extent()) for axes in panels)
        assert fig.bbox.x0 <= box.x0
        assert box.x1 <= fig.bbox.x1
        assert fig.bbox.y0 <= box.y0
        assert box.y1 <= fig.bbox.y1


def test_names_are_text_not_formulas():
    fig = curves.figure([make_run("$\\frac{$"), make_run("_hidden"), make_run("x" * 200)])
    FigureCanvasAgg(fig).draw()
    names = [text.get_text() for text in fig.axes[-1].artists[0].get_texts()]
    assert names[:2] == ["$\\frac{$", "_hidden"]
    assert len(names[2]) == 50


def test_png(tmp_path):
    curves.plot(RUNS, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as image:
        assert image.format == "PNG"
        assert image.width == 1650
        assert 700 < image.height < 900
        colours = image.convert("RGB").getcolors(maxcolors=1 << 24)
    seen = {colour for count, colour in colours if count > 100}
    assert {(0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00), (0x00, 0x9E, 0x73)} <= seen


@pytest.mark.parametrize("runs", [[], [Run(name="interrupted", method="pgd", metrics=[], row={})]])
def test_nothing_trained_still_draws(runs, tmp_path):
    curves.plot(runs, tmp_path / "curves.png")
    notes = [text.get_text() for axes in curves.figure(runs).axes[:3] for text in axes.texts]
    assert notes == ["not evaluated"] * 3


# dict's own methods: RcParams' would choose a backend and import pyplot
GLOBAL_STATE = """
import sys, matplotlib
def state():
    return {key: dict.__getitem__(matplotlib.rcParams, key) for key in dict.keys(matplotlib.rcParams)}
before = state()
from freefast.reporting import Run, curves
curves.plot([Run(name="a", method="free", metrics=[], row={})], sys.argv[1])
assert state() == before
assert "matplotlib.pyplot" not in sys.modules
"""


def test_matplotlibs_global_state_is_left_alone(tmp_path):
    subprocess.run([sys.executable, "-c", GLOBAL_STATE, str(tmp_path / "curves.png")], check=True)
