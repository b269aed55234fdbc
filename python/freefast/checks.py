"""Settings held against the types they are declared with."""

import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from freefast.errors import UserError

_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"}


def apply_types(settings: Any) -> None:
    """Make paths of text and tuples of lists, where such are declared, and check the type of every setting.

    settings: a frozen dataclass

    Raises: UserError naming the first setting that is of another type.
    """
    for name, hint in get_type_hints(type(settings)).items():
        value = _converted(getattr(settings, name), hint)
        if not _is_a(value, hint):
            raise UserError(f"{name}: wanted {_named(hint)}, got {value!r}")
        object.__setattr__(settings, name, value)


def _converted(value: Any, hint: Any) -> Any:
    if isinstance(value, str) and Path in (hint, *get_args(hint)):
        return Path(value)
    return tuple(value) if isinstance(value, list) and get_origin(hint) is tuple else value


def _is_a(value: Any, hint: Any) -> bool:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return any(_is_a(value, member) for member in get_args(hint))
    if origin is tuple:
        return isinstance(value, tuple) and all(_is_a(item, get_args(hint)[0]) for item in value)
    if origin is Literal:
        return isinstance(value, str)  # which ones is checked with the settings' ranges
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, (int, float) if hint is float else hint)


def _named(hint: Any) -> str:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_named(member) for member in get_args(hint) if member is not types.NoneType)
    if origin is tuple:
        return f"a list, each {_named(get_args(hint)[0])}"
    return "text" if origin is Literal else _WORDS[hint]
