"""`freefast reproduce`."""

from dataclasses import dataclass

from freefast.commands.shared import console, hint
from freefast.errors import UserError
from freefast.progress import bars
from freefast.reporting import table
from freefast.reproduce import tables
from freefast.reproduce.config import ReproduceConfig
from freefast.reproduce.reproduce import Reproduction, reproduce


@dataclass(frozen=True, kw_only=True)
class Reproduce(ReproduceConfig):
    """Run the report "Free vs Fast adversarial training" again: its runs, tables and figures beside the report's own.

    Finished runs that the folder holds are kept, interrupted ones gone on with, so that the same command goes on after
    any end. A run that several tables and figures need is run once.
    """

    def run(self) -> None:
        """Run what is left and print the tables; a run that failed is an error."""
        with hint("the same command", self.out, "reproduce.json"), bars() as progress:
            outcome = reproduce(self, progress)
        _show(outcome)
        print(f"in {self.out}: report.html, tables/, figures/, runs/")
        if outcome.left:
            print(f"left: {', '.join(outcome.left)}: go on with the same command")
        if outcome.failures:
            name, reason = next(iter(outcome.failures.items()))
            raise UserError(f"failed: {len(outcome.failures)} of the runs, first {name}: {reason}")


def _show(outcome: Reproduction) -> None:
    screen = console()
    for name, rows in outcome.tables.items():
        screen.print(f"\n{tables.title(name)}", highlight=False)
        screen.print(table.render(tables.narrow(rows), tables.NARROW))
        for note in tables.notes(name):
            screen.print(note, highlight=False)
    if any(row["whose"] == tables.PEEKED for rows in outcome.tables.values() for row in rows):
        screen.print(tables.PEEKING, highlight=False)
    screen.print(outcome.note, highlight=False)
