"""Reproductions that take seconds: a small network on a few digits in the place of the report's."""

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from freefast.cli import main
from freefast.reproduce.scales import SCALES, Scale

SMALL = Scale(
    epochs=15,
    batch=4,
    changes={"model": "small_cnn", "width": 4, "limit_train": 40, "limit_test": 10, "precision": "fp32", "threads": 1},
)
_CHANGES = ("open", "os.mkdir", "os.remove", "os.rename")
COMMAND = ["reproduce", "--scale", "tiny", "--dataset", "digits"]


def reproduce(*options: str) -> int:
    """Run the command with `SMALL` for tiny. Returns: the exit code."""
    before, SCALES["tiny"] = SCALES["tiny"], SMALL
    try:
        return main([*COMMAND, *options])
    finally:
        SCALES["tiny"] = before


def killed(out: str, changes: Any, last: int, delay: float, *options: str) -> None:
    """The same into the folder `out`, the process killed some seconds behind one of its changes of files there.

    changes: a multiprocessing.Value that counts them
    last: the change that is to be the last, 0 for none
    """

    def heard(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _CHANGES and str(arguments[0]).startswith(out):
            changes.value += 1
            if changes.value == last:
                threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()

    sys.addaudithook(heard)
    raise SystemExit(reproduce(*options, "--out", out))


def numbers(out: Path) -> dict[str, Any]:
    """All that the runs and the tables of a folder say but for times and places, and the weights' bytes."""
    runs = {path.name: path for path in sorted((out / "runs").iterdir())}
    return {
        "metrics": {name: [_timeless(line) for line in _lines(path)] for name, path in runs.items()},
        "rows": {name: [_timeless(row) for row in _rows(path)] for name, path in runs.items()},
        "weights": {name: (path / "model.safetensors").read_bytes() for name, path in runs.items()},
        "all": [_timeless(row) for row in _rows(out)],
        "pages": {name: (path / "report.html").read_text().endswith("</html>\n") for name, path in runs.items()},
        "curves": {name: (path / "curves.png").read_bytes().endswith(b"IEND\xaeB`\x82") for name, path in runs.items()},
    }


def _lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def _rows(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))["rows"]


def _timeless(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if not key.endswith(("seconds", "minutes"))}
