"""`freefast bench`."""

import sys
from dataclasses import dataclass
from typing import Any

from freefast.bench import BenchConfig, bench
from freefast.bench.table import columns, limits, readable
from freefast.commands.shared import show
from freefast.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Bench(BenchConfig):
    """Time training steps, ours and those of the loop in plain PyTorch, against the device's limits.

    Writes a table, results.json and a roofline figure. The plain loop is autocast to float16 on CUDA, float32 on the
    CPU, with a DataLoader, in PyTorch's default memory format, without and with torch.compile.
    """

    def run(self) -> None:
        """Measure, print the table; a variant that failed is an error."""
        rows = bench(self, _announce)
        show([readable(row) for row in rows], self.out, "results.json, roofline.png, roofline.svg", columns(rows))
        for line in limits(rows):
            print(line)
        failed = [row for row in rows if "error" in row and "seconds" in row]
        if failed:
            raise UserError(f"{len(failed)} failed, first {failed[0]['variant']}: {failed[0]['error']}")


def _announce(row: dict[str, Any]) -> None:
    """Progress on standard error."""
    said = f"{row['step_ms']:.2f} ms a step" if "step_ms" in row else row["error"]
    print(f"{row['variant']}: {said}", file=sys.stderr, flush=True)
