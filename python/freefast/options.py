"""Types of settings that may be left open, as the command line reads and prints them."""

import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from tyro.constructors import PrimitiveConstructorSpec

Value = TypeVar("Value", int, float, str, bool, Path)

AUTO: Any = None
"""Left to the method or the data set; a checked config holds the value."""


def pixels(text: str) -> float:
    """A size in pixel units from a number or a fraction: "0.2", "8/255"."""
    try:
        return float(Fraction(text))
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"wanted a number or a fraction such as 8/255, got {text!r}") from None


def show_pixels(size: float) -> str:
    """A length in pixel units as people write it: "8/255", else a decimal."""
    levels = round(size * 255)
    return f"{levels}/255" if 0 < levels <= 32 and math.isclose(levels / 255, size) else f"{size:.4g}"


def switch(text: str) -> bool:
    """True for "on", False for "off"."""
    if text not in ("on", "off"):
        raise ValueError(f"wanted on or off, got {text!r}")
    return text == "on"


def open_option(parse: Callable[[str], Value], form: str, left_open: str) -> Any:
    """How tyro reads one word: `left_open` is None, any other goes through `parse`.

    form: what the help calls the value
    """
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=f"{left_open}|{form}",
        instance_from_str=lambda words: None if words[0] == left_open else parse(words[0]),
        is_instance=lambda value: value is None or isinstance(value, (int, float, str, Path)),
        str_from_instance=lambda value: [left_open if value is None else _text(value)],
    )


def _text(value: int | float | str | bool | Path) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


if TYPE_CHECKING:  # a checked config holds no AUTO: to its readers the types are plain
    AutoPixels = float
    AutoFloat = float
    AutoInt = int
    AutoStr = str
    AutoBool = bool
    AutoPath = Path
else:
    AutoPixels = Annotated[float | None, open_option(pixels, "FLOAT|N/255", "auto")]
    AutoFloat = Annotated[float | None, open_option(float, "FLOAT", "auto")]
    AutoInt = Annotated[int | None, open_option(int, "INT", "auto")]
    AutoStr = Annotated[str | None, open_option(str, "NAME", "auto")]
    AutoBool = Annotated[bool | None, open_option(switch, "on|off", "auto")]
    AutoPath = Annotated[Path | None, open_option(Path, "PATH", "auto")]

Limit = Annotated[int | None, open_option(int, "INT", "all")]
OwnSize = Annotated[int | None, open_option(int, "INT", "own")]
