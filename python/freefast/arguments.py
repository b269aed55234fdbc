"""The command line: `freefast train|evaluate|compare|speedrun|reproduce|report|bench|info`.

Exit codes: 0 done, 2 bad input (one line on standard error), 130 interrupted.
"""

import contextlib
import io
import re
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated

import tyro

from advkernels import BackendUnavailable
from freefast.commands import Bench, Compare, Evaluate, Info, Report, Reproduce, Speedrun, Train
from freefast.commands.recipe import recipe_settings
from freefast.errors import UserError

Command = (
    Annotated[Train, tyro.conf.subcommand("train", prefix_name=False)]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate", prefix_name=False)]
    | Annotated[Compare, tyro.conf.subcommand("compare", prefix_name=False)]
    | Annotated[Speedrun, tyro.conf.subcommand("speedrun", prefix_name=False)]
    | Annotated[Reproduce, tyro.conf.subcommand("reproduce", prefix_name=False)]
    | Annotated[Report, tyro.conf.subcommand("report", prefix_name=False)]
    | Annotated[Bench, tyro.conf.subcommand("bench", prefix_name=False)]
    | Annotated[Info, tyro.conf.subcommand("info", prefix_name=False)]
)


def run(argv: Sequence[str] | None) -> None:
    """Run one command.

    argv: arguments without the program's name; None takes the process's own

    Raises: UserError where the arguments are wrong or the backend cannot run; SystemExit after help.
    """
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            _parse(argv).run()
    except BackendUnavailable as error:
        raise UserError(str(error)) from error


def _show_warning(message: Warning | str, *where: object, **rest: object) -> None:
    """One line, without the place in the sources."""
    print(f"freefast: warning: {' '.join(str(message).split())}", file=sys.stderr)


def _parse(argv: Sequence[str] | None) -> Train | Evaluate | Compare | Speedrun | Reproduce | Report | Bench | Info:
    said = io.StringIO()
    words = sys.argv[1:] if argv is None else argv
    natural = recipe_settings(words)
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(Command, prog="freefast", description=__doc__, args=words, default=natural)
    except SystemExit as stop:
        if stop.code:
            raise UserError(_message(said.getvalue())) from None
        raise


def _message(box: str) -> str:
    """The first part of what tyro says in a box of several lines, without its title, in one line."""
    words: list[str] = []
    for line in box.splitlines()[1:]:
        text = line.strip("│ ")
        if not set(text) <= set("-─"):
            words.append(text)
        elif words:
            break
    return re.sub(r"^Error parsing [A-Z]\w*: ", "", " ".join(words))
