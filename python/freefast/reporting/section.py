"""A part of the HTML report: a heading, and below it text, a table and pictures."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from PIL import Image

from freefast.errors import UserError
from freefast.reporting import table
from freefast.reporting.results import Row

_PNG = b"\x89PNG\r\n\x1a\n"
_SCREEN = 96  # CSS pixels an inch
_SHRUNK = 540  # CSS pixels: where the screen is narrow, a picture up to so wide is shrunk, a wider one scrolls


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A PNG file with what it shows."""

    path: Path | str
    """The file, which the page takes in."""

    caption: str
    """What was measured, and with which settings."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """What stands under one heading, in this order."""

    heading: str
    """Its line."""

    text: str = ""
    """A paragraph."""

    rows: Sequence[Row] = ()
    """Of a table."""

    columns: Sequence[table.Column] | None = None
    """The table's, the report's where None."""

    pictures: Sequence[Picture] = ()
    """Figures with their captions."""

    def html(self) -> str:
        """The section as an HTML element.

        Raises: UserError where a picture is not a PNG file.
        """
        parts = [f"<h2>{escape(self.heading)}</h2>"]
        if self.text:
            parts.append(f"<p>{escape(self.text)}</p>")
        if self.rows:
            parts.append(wide(table.html(self.rows, self.columns), self.heading))
        parts += [figure(picture) for picture in self.pictures]
        return "<section>\n" + "\n".join(parts) + "\n</section>"


def wide(content: str, name: str) -> str:
    """An element that scrolls by itself where the screen is narrower than its content."""
    return f'<div class="wide" tabindex="0" role="region" aria-label="{escape(name)}">\n{content}\n</div>'


def figure(picture: Picture) -> str:
    """The picture as an HTML element, its file inlined.

    Raises: UserError where it is not a PNG file.
    """
    path = Path(picture.path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    if not content.startswith(_PNG):
        raise UserError(f"{path}: wanted a PNG file")
    source = "data:image/png;base64," + base64.b64encode(content).decode("ascii")
    name = path.stem.replace("_", " ").capitalize()
    with Image.open(io.BytesIO(content)) as image:
        scale = _SCREEN / round(image.info.get("dpi", (_SCREEN, _SCREEN))[0])
        width, height = (round(size * scale) for size in image.size)
    kind = "scrolled" if width > _SHRUNK else "shrunk"
    element = f'<img class="{kind}" alt="{escape(name)}" width="{width}" height="{height}" src="{source}">'
    return f"<figure>{wide(element, name)}<figcaption>{escape(picture.caption)}</figcaption></figure>"


def named(path: Path) -> Picture:
    """A picture that its file's name describes."""
    return Picture(path=path, caption=path.stem.replace("_", " ").capitalize())
