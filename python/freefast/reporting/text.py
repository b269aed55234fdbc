"""Names in pictures and on pages."""

from collections.abc import Sequence


def shorten(name: str, longest: int) -> str:
    """The name on one line, its end replaced by an ellipsis where it has more than `longest` characters."""
    name = " ".join(name.split())
    return name if len(name) <= longest else name[: longest - 1] + "\N{HORIZONTAL ELLIPSIS}"


def told_apart(names: Sequence[str]) -> list[str]:
    """The names, each once: those that are there several times get numbers that make no other's name."""
    taken = {name for name in names if names.count(name) == 1}
    result = []
    for name in names:
        own, number = name, 0
        while names.count(name) > 1 and (number == 0 or own in taken):
            number += 1
            own = f"{name}-{number}"
        taken.add(own)
        result.append(own)
    return result
