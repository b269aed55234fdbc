"""Names fitted into a picture."""


def shorten(name: str, longest: int) -> str:
    """The name on one line, its end replaced by an ellipsis where it has more than `longest` characters."""
    name = " ".join(name.split())
    return name if len(name) <= longest else name[: longest - 1] + "\N{HORIZONTAL ELLIPSIS}"
