"""`freefast info`."""

from dataclasses import dataclass

from advkernels import info


@dataclass(frozen=True, kw_only=True)
class Info:
    """Say which backends of the fused operations are there, and why one is not."""

    def run(self) -> None:
        """Print it."""
        print(info.describe())
