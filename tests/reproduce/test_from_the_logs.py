"""The tables, made of the report's own logs as if they were our runs, are the report's tables."""

import csv
import dataclasses
import math
import re
from pathlib import Path

import pytest
from matplotlib.axes import Axes

from freefast.reporting import time_accuracy
from freefast.reporting.curves import PALETTE
from freefast.reproduce import figures, published, tables
from freefast.reproduce.contents import FIGURES, LOGS, TABLES, chosen, recipes_of

LINES = {name: tables.rows(name, published.runs(), {}) for name in TABLES}
ROWS = [(table, number) for table, rows in published.table_rows().items() for number in range(len(rows))]

NOT_IN_THE_LOGS = {
    # the published log of this run has no PGD-10 or PGD-20, and ends at a PGD-50 of 0.480
    ("table-5.1", 2): {"pgd10": None, "pgd20": None, "pgd50": 0.480},
    # natural accuracy and PGD-50 are epoch 44 of the run with curves; PGD-10 and PGD-20 of the other run of these
    # settings, see test_a_row_of_two_runs
    ("table-6.1", 0): {"pgd10": None, "pgd20": None},
    # 0.877 in the log; the report writes 0.87, with two digits
    ("table-6.1", 3): {"natural": 0.877},
}
COPIED = ("table-7.2", 0)
"""Its 176 minutes and 117 seconds are those of PreActResNet18 in the table above it; the log of ResNet50 has what
section 5.1 says, 118 minutes and 78.6 seconds."""
EPOCHS_OF_OTHER_LENGTH = {
    ("table-5.1", 1): (0.97, 0.98),  # minutes, the report's and the mean of the log: 58.2 s is its shortest epoch
    ("table-6.1", 1): (0.43, 0.44),  # 25.8 s is its last epoch, rounded down
}


def test_every_row_has_its_run() -> None:
    """Method, model, setting, batch and epochs of the tables are those of the logs that are taken for them."""
    runs = published.runs()
    for table, rows in published.table_rows().items():
        for row, recipe in zip(rows, TABLES[table], strict=True):
            run = runs[recipe].row
            assert row["setting"] == run["setting"].removesuffix(" (curves)")
            for key in ("method", "model", "batch_size", "epochs"):
                assert row[key] == run[key]


@pytest.mark.parametrize(("table", "number"), ROWS)
def test_accuracies(table: str, number: int) -> None:
    """To the report's thousandths, at the epoch with the best PGD-50 where there was one an epoch, else at the last."""
    theirs = published.table_rows()[table][number]
    ours = reported(table, number)
    wanted = {key: theirs[key] for key in tables.ACCURACIES} | NOT_IN_THE_LOGS.get((table, number), {})
    assert {key: ours.get(key) for key in tables.ACCURACIES} == wanted


@pytest.mark.parametrize(("table", "number"), ROWS)
def test_times(table: str, number: int) -> None:
    """Minutes rounded up or down; seconds of an epoch are hundredths of a minute or seconds, rounded up or down."""
    theirs, ours = published.table_rows()[table][number], reported(table, number)
    if (table, number) == COPIED:
        above, section = published.table_rows()["table-7.1"][0], published.table_rows()["table-5.1"][4]
        for key in ("train_minutes", "epoch_seconds"):
            assert theirs[key] == above[key]
            assert theirs[key] != section[key]
        return
    assert abs(theirs["train_minutes"] - ours["train_minutes"]) < 1
    if (table, number) in EPOCHS_OF_OTHER_LENGTH:
        said, mean = EPOCHS_OF_OTHER_LENGTH[table, number]
        assert theirs["epoch_seconds"] == pytest.approx(60 * said)
        assert math.floor(ours["epoch_seconds"] / 0.6) / 100 == mean
    else:
        unit = 1 if theirs["epoch_seconds"] == int(theirs["epoch_seconds"]) else 0.6
        assert abs(theirs["epoch_seconds"] - ours["epoch_seconds"]) < unit


def test_the_hidden_collapse() -> None:
    """The report's choice is epoch 85; the run ended at 0.903 and 0.003."""
    last, chosen = ours_of("table-7.1", 1)
    assert (chosen["whose"], chosen["epoch"], chosen["natural"], chosen["pgd50"]) == (tables.PEEKED, 85, 0.836, 0.434)
    assert (last["whose"], last["epoch"], last["natural"], last["pgd50"]) == ("ours, last epoch", 90, 0.903, 0.003)
    robust = [entry["pgd50"] for entry in published.runs()["fast-preactresnet18-128-a10-e90"].metrics]
    assert robust[84:] == [0.434, 0.103, 0.001, 0.001, 0.002, 0.003]


def test_a_row_of_two_runs() -> None:
    """Fast with 128, 10/255 and 45 epochs: two runs of the same settings, and a row with figures of both."""
    row = published.table_rows()["table-6.1"][0]
    curves = published.runs()["fast-preactresnet18-128-a10-e45-charts"]
    attacked = published.runs()["fast-preactresnet18-128-a10-e45"].row
    assert (row["pgd10"], row["pgd20"]) == (attacked["pgd10"], attacked["pgd20"])
    assert row["natural"] == curves.metrics[43]["natural"]
    assert row["pgd50"] == curves.metrics[43]["pgd50"] == max(entry["pgd50"] for entry in curves.metrics)
    assert row["natural"] not in (attacked["natural"], curves.row["natural"])
    assert attacked["pgd50"] == 0.457


def test_differences_are_ours_less_the_reports() -> None:
    lines = LINES["table-7.1"]
    ours = next(index for index, line in enumerate(lines) if line.get("pgd50") == 0.003)
    difference = lines[ours + 1]
    assert difference["whose"] == "difference"
    assert (difference["natural"], difference["pgd50"]) == (round(0.903 - 0.836, 3), round(0.003 - 0.434, 3))
    assert "train_minutes" not in difference


def test_a_run_that_is_not_there_says_so() -> None:
    lines = tables.rows("table-7.2", {}, dict.fromkeys(LOGS, "waiting"))
    assert [line["whose"] for line in lines] == ["report", "ours: waiting"] * 2


def test_narrow_lines_say_what_is_not_the_reports() -> None:
    """Nothing of the report's own runs; of others model, setting and batch."""
    ours = [line["run"] for line in tables.narrow(LINES["table-7.2"]) if line["whose"].startswith("ours")]
    assert ours == ["ours, last epoch", tables.PEEKED] * 2
    runs = published.runs()
    recipe = TABLES["table-7.2"][1]
    other = {"model": "resnet50_cifar", "setting": "alpha=0.25", "batch_size": 32}
    runs[recipe] = dataclasses.replace(runs[recipe], row={**runs[recipe].row, **other})
    lines = tables.narrow(tables.rows("table-7.2", runs, {}))
    assert [line["run"] for line in lines[5:]] == [
        "fast resnet50, alpha=10/255, batch 128: report",
        "ours, last epoch: resnet50_cifar, alpha=0.25, batch 32",
        "difference",
        "ours, best (peeks): resnet50_cifar, alpha=0.25, batch 32",
        "difference",
    ]


def test_files_of_a_table(tmp_path: Path) -> None:
    tables.write("table-7.1", LINES["table-7.1"], "Scale full", tmp_path)
    text = (tmp_path / "table-7.1.md").read_text(encoding="utf-8")
    assert "Scale full" in text
    assert "peeks" in text
    assert "| fast | preactresnet18 | alpha=10/255 | 128 | ours, last epoch | 0.903 | — | — | 0.003 | 90 | 90 |" in text
    with open(tmp_path / "table-7.1.csv", encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["whose"] for line in lines] == [line["whose"] for line in LINES["table-7.1"]]
    assert {line["note"] for line in lines} == {"Scale full"}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_has_ours_in_front_of_the_logs(name: str) -> None:
    """The same values twice, a thin line and before it a thick one, in the same colour."""
    runs = published.runs()
    content = FIGURES[name]
    accuracy, robust = figures.figure(name, runs).axes
    recipes = list(content.runs.values())
    kinds = [(recipe, "natural") for recipe in recipes]
    if content.training:
        kinds += [(recipe, "train_accuracy") for recipe in recipes]
    check_lines(accuracy, kinds)
    check_lines(robust, [(recipe, "pgd50") for recipe in recipes])


def check_lines(axes: Axes, kinds: list[tuple[str, str]]) -> None:
    lines = axes.get_lines()
    assert len(lines) == 2 * len(kinds)
    for (recipe, key), thin, thick, colour in zip(kinds, lines[::2], lines[1::2], PALETTE, strict=False):
        values = [entry[key] for entry in published.runs()[recipe].metrics]
        for line in (thin, thick):
            assert list(line.get_ydata()) == values
            assert list(line.get_xdata()) == list(range(1, len(values) + 1))
            assert line.get_color() == colour
        assert thin.get_linewidth() < thick.get_linewidth()


def test_the_collapse_is_in_figures_5_and_8() -> None:
    for name in ("figure-5", "figure-8"):
        _, robust = figures.figure(name, {}).axes
        assert any(line.get_ydata()[-1] == 0.003 for line in robust.get_lines())


SHOWING_THE_COLLAPSE = {"table-7.1", "figure-5", "figure-8"}
COLLAPSE = (
    r"fast preactresnet18, alpha=10/255, 90 epochs, collapsed.* 0\.836 / 0\.434 .* epoch 85, .* 0\.103 in epoch 86 and "
    r"0\.001 in epoch 87, .* 0\.903 / 0\.003 in epoch 90"
)


@pytest.mark.parametrize("name", TABLES)
def test_a_table_with_the_collapse_says_so(name: str, tmp_path: Path) -> None:
    """In its file, on the page, on the terminal; also before any run of ours is there."""
    lines = tables.rows(name, {}, dict.fromkeys(LOGS, "waiting"))
    tables.write(name, lines, "note", tmp_path)
    for text in ((tmp_path / f"{name}.md").read_text(), tables.section(name, lines).text, " ".join(tables.notes(name))):
        assert bool(re.search(COLLAPSE, text)) == (name in SHOWING_THE_COLLAPSE)


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_with_the_collapse_says_so(name: str) -> None:
    """In the picture, within its width, and in its caption on the page."""
    drawn = figures.figure(name, {}, "note")
    (legend,) = drawn.legends
    (picture,) = figures.section(name, Path("figure.png")).pictures
    for text in (legend.get_title().get_text().replace("\n", " "), picture.caption):
        assert bool(re.search(COLLAPSE, text)) == (name in SHOWING_THE_COLLAPSE)
    drawn.draw_without_rendering()
    assert legend.get_window_extent().x0 >= 0
    assert legend.get_window_extent().x1 <= drawn.bbox.width


def test_the_row_is_of_the_epoch_before_the_collapse() -> None:
    row = published.table_rows()["table-7.1"][1]
    assert (row["natural"], row["pgd50"]) == (0.836, 0.434)


def test_a_figure_without_ours_has_the_logs_alone(tmp_path: Path) -> None:
    path = figures.write("figure-6", {}, "nothing yet", tmp_path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "figure-6.svg").read_text(encoding="utf-8")
    assert [len(axes.get_lines()) for axes in figures.figure("figure-6", {}).axes] == [2, 2]


def test_equal_figures_are_equal_files(tmp_path: Path) -> None:
    """Also made at another time, which an SVG else names."""
    folders = [tmp_path / "first", tmp_path / "second"]
    with pytest.MonkeyPatch.context() as patch:
        for day, folder in enumerate(folders):
            folder.mkdir()
            patch.setenv("SOURCE_DATE_EPOCH", str(86400 * day))
            figures.write("figure-6", {}, "nothing yet", folder)
            time_accuracy.plot(list(published.runs().values()), folder)
    for name in ("figure-6.svg", "figure-6.png", "time_accuracy.svg", "time_accuracy.png"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


def test_what_is_asked_for() -> None:
    assert chosen(()) == (*TABLES, *FIGURES)
    assert chosen(("figure-3", "table-6.1")) == ("table-6.1", "figure-3")
    with pytest.raises(ValueError, match=r"only: wanted some of table-5\.1, .*, got 'table-9'"):
        chosen(("table-9",))
    assert set(recipes_of(chosen(()))) == set(LOGS) - {"fast-preactresnet18-128-a10-e45"}
    assert recipes_of(("table-7.2", "figure-6")) == ("free-resnet50-m8-e90", "fast-resnet50-128-a10-e90")


def test_the_numbers_name_their_source() -> None:
    text = (published.FOLDER / "README.md").read_text(encoding="utf-8")
    assert re.search(r"Capaldi.*Capozzi.*2020", text)


def ours_of(table: str, number: int) -> list[dict]:
    """Our lines of the report's row of this number."""
    starts = [index for index, line in enumerate(LINES[table]) if line["whose"] == "report"] + [len(LINES[table])]
    lines = LINES[table][starts[number] : starts[number + 1]]
    return [line for line in lines if line["whose"].startswith("ours")]


def reported(table: str, number: int) -> dict:
    """Our line by the report's choice."""
    return ours_of(table, number)[-1]
