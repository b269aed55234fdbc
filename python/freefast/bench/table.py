"""The table of a benchmark."""

from collections.abc import Sequence
from typing import Any

from freefast.reporting.results import Row
from freefast.reporting.table import Column

_FIGURES = (
    Column("Step (ms)", "step_ms", 2),
    Column("Host (ms)", "host_ms", 2),
    Column("Epoch (s)", "epoch_s", 2),
    Column("x plain", "times", 2),
    Column("% of limit", "percent", 1),
    Column("Launches", "launches", 0),
    Column("Memory (MiB)", "memory_mib", 0),
)
_ERROR = Column("Note", "note", None)


def columns(rows: Sequence[Row]) -> list[Column]:
    """Those of which some row has a value, and notes where there are any."""
    shown = [readable(row) for row in rows]
    figures = [column for column in _FIGURES if any(row.get(column.key) is not None for row in shown)]
    notes = [_ERROR] if any(row["note"] for row in shown) else []
    return [Column("Variant", "variant", None), *figures, *notes]


def limits(rows: Sequence[Row]) -> list[str]:
    """What 100% is of, a line a precision, and where the figure comes from."""
    found = {row["precision"]: row for row in rows if "share" in row}
    return [
        f"limit of {name}: {row['limit_flops_per_second'] / 1e12:.3g} TFLOP/s, {row['limit_source']}"
        for name, row in found.items()
    ]


def readable(row: Row) -> dict[str, Any]:
    """A row as the table shows it: the share of the limit in percent, what went wrong as a note."""
    percent = 100 * row["share"] if "share" in row else None
    note = row.get("error", "" if row.get("finite", True) else "loss not finite")
    return {**row, "percent": percent, "note": note}
