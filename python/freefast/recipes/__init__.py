"""Settings of a run by a name, each with its source: TOML files of TrainConfig's fields."""

import dataclasses
import sys
from pathlib import Path
from typing import Any, get_args, get_type_hints

from freefast.config import TrainConfig
from freefast.errors import UserError
from freefast.options import pixels

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_FOLDER = Path(__file__).parent
_HINTS = get_type_hints(TrainConfig)


def names() -> list[str]:
    """The recipes that come with freefast; those below report/ are of the report's runs."""
    return sorted(path.relative_to(_FOLDER).with_suffix("").as_posix() for path in _FOLDER.rglob("*.toml"))


def read(recipe: str) -> dict[str, Any]:
    """The settings of a recipe, checked; what it leaves out is TrainConfig's default.

    recipe: one of `names`, or the path of a file that ends in .toml; sizes in pixel units may be fractions as text,
        "8/255"

    Raises: UserError naming file and field where there is none, or it is not a recipe.
    """
    is_file = recipe.endswith(".toml")
    if not is_file and recipe not in names():
        raise UserError(f"recipe: wanted a file that ends in .toml, or one of {', '.join(names())}, got {recipe!r}")
    path = Path(recipe) if is_file else _FOLDER / f"{recipe}.toml"
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{path}: not TOML: {error}") from error
    try:
        return checked(settings)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def checked(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as TOML gives them, in TrainConfig's types.

    Raises: UserError naming the field where one is unknown or wrong.
    """
    known = {field.name for field in dataclasses.fields(TrainConfig)}
    for name in settings:
        if name not in known:
            raise UserError(f"{name}: is no setting of freefast train")
    if "method" not in settings:
        raise UserError("method: is missing")
    converted = {name: _converted(name, value) for name, value in settings.items()}
    TrainConfig(**converted)
    return converted


def _converted(name: str, value: Any) -> Any:
    """What TOML has no type for: fractions, tuples, paths."""
    kinds = (_HINTS[name], *get_args(_HINTS[name]))
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, str) and float in kinds:
        try:
            return pixels(value)
        except ValueError as error:
            raise UserError(f"{name}: {error}") from error
    return Path(value) if isinstance(value, str) and Path in kinds else value
