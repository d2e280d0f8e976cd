"""HTML for notebooks: galleries, cards and tables. All that comes from outside is escaped here.

Colours are those of the notebook, so that dark and light themes both fit.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape

import attrs

MAX_BYTES = 1_500_000
"""How long one output becomes, at most, but for the line that says how much more there is."""

_BORDER = "1px solid rgba(128,128,128,.35)"
_CELL = f"border:{_BORDER};border-radius:6px;padding:8px;width:200px;overflow-wrap:anywhere;font-size:12px"
_BOX = "display:flex;align-items:center;justify-content:center;height:150px;background:rgba(128,128,128,.12)"
_PICTURES = {b"\x89PNG": "image/png", b"RIFF": "image/webp", b"GIF8": "image/gif", b"\0\0\0": "image/avif"}
"""By how a file begins."""

_TRACK = "height:6px;border-radius:3px;background:rgba(128,128,128,.3);margin-top:4px"


@attrs.frozen(kw_only=True)
class Tile:
    """One item of a gallery, as plain text.

    Attributes:
        title: Its name.
        kind: What it is, where there is no picture.
        facts: A line for each.
        picture: A file of JPEG, PNG, WebP, GIF or AVIF, or None.
        share: How long its bar is, from 0 to 1, or None for no bar.
        score: What the bar means.
    """

    title: str
    kind: str
    facts: Sequence[str] = ()
    picture: bytes | None = None
    share: float | None = None
    score: str = ""


@attrs.frozen(repr=False)
class Card:
    """One item, as `library.show` returns it.

    Attributes:
        text: What is shown where there is no HTML.
        html: What notebooks show.
    """

    text: str
    html: str

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return self.html


def gallery(heading: str, tiles: Iterable[Tile], *, count: int, notes: Sequence[str] = ()) -> str:
    """Return a gallery of as many tiles as there is room for.

    Args:
        heading: What is shown.
        tiles: Made one by one, as long as there is room.
        count: How many there are.
        notes: Lines below the heading.
    """
    parts = [f"<div><p><strong>{escape(heading)}</strong></p>", *(f"<p>{escape(note)}</p>" for note in notes)]
    parts.append('<div style="display:flex;flex-wrap:wrap;gap:10px" role="list">')
    length = sum(map(len, parts))
    shown = 0
    for tile in tiles:
        part = _tile(tile)
        length += len(part.encode())
        if length > MAX_BYTES:
            break
        parts.append(part)
        shown += 1
    parts.append("</div>")
    if shown < count:
        parts.append(f"<p>+{count - shown} more</p>")
    return "".join([*parts, "</div>"])


def table(heading: str, facts: Iterable[tuple[str, str]]) -> str:
    """Return facts by their names."""
    rows = "".join(
        f'<tr><th scope="row" style="text-align:left">{escape(name)}</th>'
        f'<td style="text-align:left;overflow-wrap:anywhere">{escape(value)}</td></tr>'
        for name, value in facts
    )
    return f'<table><caption style="text-align:left"><strong>{escape(heading)}</strong></caption>{rows}</table>'


def picture(content: bytes, alt: str, *, style: str = "max-width:100%;max-height:100%") -> str:
    """Return a picture in the page itself."""
    return f'<img src="{_data(_picture_type(content), content)}" alt="{escape(alt)}" style="{style}">'


def _picture_type(content: bytes) -> str:
    return next((kind for start, kind in _PICTURES.items() if content.startswith(start)), "image/jpeg")


def player(content: bytes, content_type: str, label: str) -> str:
    """Return what plays a recording that is in the page itself."""
    tag = "video" if content_type.startswith("video/") else "audio"
    return (
        f'<{tag} controls preload="metadata" style="max-width:480px" aria-label="{escape(label)}" '
        f'src="{_data(content_type, content)}"></{tag}>'
    )


def fits(size: int) -> bool:
    """Tell whether so many bytes fit into an output."""
    return size * 4 // 3 < MAX_BYTES


def _tile(tile: Tile) -> str:
    shown = escape(tile.kind) if tile.picture is None else picture(tile.picture, tile.title)
    parts = [f'<div role="listitem" style="{_CELL}"><div style="{_BOX}">{shown}</div>']
    parts.append(f"<div><strong>{escape(tile.title)}</strong></div>")
    parts += (f"<div>{escape(fact)}</div>" for fact in tile.facts)
    if tile.share is not None:
        width = round(100 * min(max(tile.share, 0.0), 1.0))
        parts.append(
            f'<div role="meter" aria-valuemin="0" aria-valuemax="100" aria-valuenow="{width}" '
            f'aria-label="{escape(tile.score)}" style="{_TRACK}">'
            f'<div style="width:{width}%;height:6px;border-radius:3px;background:#4c8bd6"></div></div>'
            f"<div>{escape(tile.score)}</div>"
        )
    return "".join([*parts, "</div>"])


def _data(content_type: str, content: bytes) -> str:
    return f"data:{escape(content_type)};base64,{b64encode(content).decode()}"
