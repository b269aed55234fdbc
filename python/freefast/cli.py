"""The entry point: every end of a command has its exit code, every error one line."""

import sys
from collections.abc import Sequence

from freefast.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns: the exit code.

    argv: arguments without the program's name; None takes the process's own
    """
    try:
        _run(argv)
    except (UserError, OSError) as error:
        print(f"freefast: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        print(f"freefast: interrupted {interrupt}".strip(), file=sys.stderr)
        return 130
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def _run(argv: Sequence[str] | None) -> None:
    try:
        from freefast import arguments  # takes seconds, which an interrupt may end
    except ValueError as error:  # ADVKERNELS_BACKEND
        raise UserError(str(error)) from error
    arguments.run(argv)
