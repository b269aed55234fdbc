"""`freefast compare`."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

from freefast.commands.shared import changes, fields_of, hint, show
from freefast.compare import PRESETS, CompareConfig, compare, require_settings
from freefast.progress import bars


@dataclass(frozen=True, kw_only=True)
class Compare(CompareConfig):
    """Train several methods for the same number of epochs and write one table, figures and a report.

    Runs of the same settings that the folder holds are kept, interrupted ones gone on with.
    """

    preset: Literal["demo"] | None = None
    """demo: the four methods on digits, anew, into runs/demo; of the others only --seed, --out and --device may be
    given."""

    overwrite: bool = False
    """Train every method anew, whatever the folder holds."""

    def run(self) -> None:
        """Compare and print the table."""
        config = CompareConfig(**fields_of(CompareConfig, self))
        if self.preset is not None:
            given_too = changes("--preset", config, CompareConfig(), ("seed", "out", "device"))
            config = dataclasses.replace(PRESETS[self.preset], **given_too)
            if not self.overwrite:
                require_settings(config)
        with hint("the same command without --overwrite", config.out), bars() as progress:
            rows = compare(config, overwrite=self.overwrite or self.preset is not None, progress=progress)
        show(rows, config.out)
