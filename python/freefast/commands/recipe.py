"""`--recipe`: where the options of a command get their natural values from."""

import dataclasses
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import tyro

from freefast import recipes
from freefast.commands.speedrun import Speedrun
from freefast.commands.train import Train
from freefast.config import METHODS, OWNERS

_OPTION = "--recipe"
_COMMANDS: dict[str, type[Train] | type[Speedrun]] = {"train": Train, "speedrun": Speedrun}


def recipe_settings(words: Sequence[str]) -> Any:
    """A command with a recipe's settings in the place of its defaults, as tyro takes it; tyro.MISSING without one.

    words: of the command line

    Raises: UserError where the recipe is none.
    """
    kind = _COMMANDS.get(words[0] if words else "")
    if kind is None:
        return tyro.MISSING
    given = _given(words)
    recipe = kind.recipe if given is None else given
    return tyro.MISSING if recipe is None else _unchecked(kind, _of_method(recipes.read(recipe), words))


def _of_method(settings: dict[str, Any], words: Sequence[str]) -> dict[str, Any]:
    """Without what is not of the method that the command line names in the place of the recipe's."""
    named = [word for before, word in pairwise(words) if not before.startswith("--")]
    method = next((word for word in named if word in METHODS), settings["method"])
    return {name: value for name, value in settings.items() if method in OWNERS.get(name, METHODS)}


def _given(words: Sequence[str]) -> str | None:
    """The last --recipe; one without a name is tyro's to refuse."""
    given = None
    for word, following in zip(words, [*words[1:], None], strict=True):
        if word == _OPTION:
            given = following
        elif word.startswith(f"{_OPTION}="):
            given = word.partition("=")[2]
    return given


def _unchecked(kind: type[Any], settings: dict[str, Any]) -> Any:
    """The command before its checks: what is left to the method or the data set stays so until options are known."""
    command = object.__new__(kind)
    for field in dataclasses.fields(kind):
        object.__setattr__(command, field.name, settings.get(field.name, field.default))
    return command
