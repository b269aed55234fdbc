import csv
import io

import pytest
from rich.console import Console

from freefast.reporting import table

# the report's tables 5.1, 6.1 and 7.1, its own digits as text
REPORT = [
    ("free", "m=2", "0.895", "0.324", "0.297", "0.290", "45", "22", "29.4"),
    ("free", "m=8", "0.839", "0.498", "0.486", "0.483", "45", "88", "117"),
    ("fast", "alpha=16", "0.856", "0", "0", "0", "45", "21", "28.2"),
    ("fast", "alpha=10", "0.766", "", "", "0.391", "90", "28.18", "18.78"),
]
KEYS = (
    "method",
    "setting",
    "natural",
    "pgd10",
    "pgd20",
    "pgd50",
    "epochs",
    "train_minutes",
    "epoch_seconds",
)
TITLES = [
    "Method",
    "Setting",
    "Natural",
    "PGD-10",
    "PGD-20",
    "PGD-50",
    "Epochs",
    "Train time (min)",
    "Epoch time (s)",
]


def as_row(line):
    row = dict(zip(KEYS, line, strict=True))
    for key in KEYS[2:]:
        row[key] = None if row[key] == "" else float(row[key])
    return {**row, "epochs": int(row["epochs"]), "model": "preactresnet18", "dataset": "cifar10"}


ROWS = [as_row(line) for line in REPORT]


def as_numbers(cells):
    return [*cells[:2], *(None if cell == table.MISSING else float(cell) for cell in cells[2:])]


def as_report(line):
    return [*line[:2], *(None if cell == "" else float(cell) for cell in line[2:])]


def markdown_cells(text):
    return [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in text.splitlines()]


def rendered(rows, width=80):
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(table.render(rows))
    return console.file.getvalue()


def test_markdown_has_the_reports_columns_and_numbers():
    head, rule, *body = markdown_cells(table.markdown(ROWS))
    assert head == TITLES
    assert rule == ["---"] * 2 + ["---:"] * 7
    assert [as_numbers(cells) for cells in body] == [as_report(line) for line in REPORT]


def test_accuracies_have_three_decimals_and_missing_ones_a_dash():
    body = markdown_cells(table.markdown(ROWS))[2:]
    assert body[0][2:6] == ["0.895", "0.324", "0.297", "0.290"]
    assert body[2][3:6] == ["0.000"] * 3
    assert body[3][2:6] == ["0.766", "—", "—", "0.391"]


@pytest.mark.parametrize("value", [None, float("nan"), "absent"])
def test_every_kind_of_missing_value_looks_the_same(value):
    row = {**ROWS[0], "pgd10": value, "setting": ""}
    if value == "absent":
        del row["pgd10"]
    cells = markdown_cells(table.markdown([row]))[2]
    assert cells[1] == cells[3] == table.MISSING


def test_terminal_table_shows_every_cell_whole_at_80_columns():
    rows = [*ROWS, {**ROWS[0], "method": "standard", "setting": "alpha=0.25", "epoch_seconds": 143.4}]
    text = rendered(rows)
    assert max(map(len, text.splitlines())) <= 80
    lines = [line.split() for line in text.splitlines()[-len(rows) :]]
    assert [as_numbers(cells) for cells in lines[:-1]] == [as_report(line) for line in REPORT]
    assert lines[-1] == [
        "standard",
        "alpha=0.25",
        "0.895",
        "0.324",
        "0.297",
        "0.290",
        "45",
        "22.00",
        "143.40",
    ]


def test_other_numbers_of_steps_get_a_column_in_order():
    head, _, first, second = markdown_cells(table.markdown([{**ROWS[0], "pgd7": 0.4, "pgd100": 0.1}, ROWS[1]]))
    assert head[2:8] == ["Natural", "PGD-7", "PGD-10", "PGD-20", "PGD-50", "PGD-100"]
    assert (first[3], first[7]) == ("0.400", "0.100")
    assert (second[3], second[7]) == (table.MISSING, table.MISSING)


def test_names_cannot_break_the_table():
    row = {**ROWS[0], "method": "[bold]a|b\\|\nc", "setting": "<i>"}
    assert "[bold]" in rendered([row], width=200)
    lines = table.markdown([row]).splitlines()
    assert len(lines) == 3
    assert lines[2].startswith("| [bold]a\\|b\\\\\\| c | &lt;i&gt; |")
    assert "<i>" not in table.html([row])


def test_rows_are_told_apart():
    """By the run's name where method and setting are not enough, by models and batch sizes where these differ."""

    def titles(*rows):
        return [column.title for column in table.columns(rows)]

    row = {**ROWS[0], "batch_size": 128, "run": "first"}
    assert titles(row) == titles(row, {**row, "setting": "m=4", "run": "second"}) == TITLES
    assert titles(row, {**row, "run": "second"}) == ["Run", *TITLES]
    assert titles(ROWS[0], ROWS[0]) == TITLES
    other = {**row, "model": "resnet50", "batch_size": 256, "run": "second"}
    assert titles(row, other) == ["Run", "Method", "Model", "Setting", "Batch", *TITLES[2:]]
    assert table.markdown([row, other]).splitlines()[3].startswith("| second | free | resnet50 | m=2 | 256 | 0.895 |")


def test_no_rows_give_a_head_alone():
    assert len(table.markdown([]).splitlines()) == 2
    assert "Method" in rendered([])


def test_csv_reads_back_equal(tmp_path):
    rows = [
        {**ROWS[0], "natural": 1 / 3, "setting": 'a,"b"\nc', "samples": 360},
        {**ROWS[3], "pgd7": 0.1},
    ]
    table.write(rows, tmp_path)
    with open(tmp_path / "table.csv", encoding="utf-8", newline="") as file:
        back = list(csv.DictReader(file))
    assert list(back[0])[:3] == ["method", "setting", "natural"]
    for row, read in zip(rows, back, strict=True):
        assert {key for key, text in read.items() if text == ""} == {key for key in read if row.get(key) is None}
        for key, value in row.items():
            assert value is None or type(value)(read[key]) == value


def test_a_note_stands_before_the_table(tmp_path):
    table.write(ROWS, tmp_path, note="Tiny <b>\nscale")
    head, empty, *rest = (tmp_path / "table.md").read_text().splitlines(keepends=True)
    assert (head, empty) == ("Tiny &lt;b&gt; scale\n", "\n")
    assert "".join(rest) == table.markdown(ROWS)


def test_write_leaves_the_markdown_beside_it(tmp_path):
    table.write(ROWS, tmp_path)
    assert (tmp_path / "table.md").read_text(encoding="utf-8") == table.markdown(ROWS)
