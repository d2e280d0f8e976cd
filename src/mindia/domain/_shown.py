"""What pages and results show of themselves in notebooks."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Protocol, Self

import attrs

if TYPE_CHECKING:
    from mindia.domain.media import Media, _Media


class Previews(Protocol):
    """Gives small pictures of items."""

    def of(self, media: Media) -> bytes | None:
        """Return a file of JPEG, or None where there is none. Raises nothing."""


class Shown:
    """Something that can show previews of its items.

    Who gives them is no part of the value: it is neither compared nor printed nor pickled.
    """

    __slots__ = ("_previews",)

    _previews: Previews | None

    def shown_with(self, previews: Previews) -> Self:
        """Return the same, which gets its previews there from now on."""
        object.__setattr__(self, "_previews", previews)
        return self

    def _preview(self, media: Media) -> bytes | None:
        previews: Previews | None = getattr(self, "_previews", None)
        return None if previews is None else previews.of(media)


def facts(media: _Media) -> Iterator[tuple[str, str]]:
    """Yield what is known of an item, by name, but for what is not given."""
    yield "kind", type(media).__name__.lower()
    for field in attrs.fields(type(media)):
        value = getattr(media, field.name)
        if field.name in ("perceptual_hash", "s3_key") or value is None or value == "" or value == {}:
            continue
        if isinstance(value, datetime):
            value = value.isoformat(sep=" ", timespec="seconds")
        elif field.name == "file_size":
            value = f"{value:,} bytes"
        elif field.name == "duration":
            value = f"{value:.2f} s"
        yield field.name, str(value)


def size_of(media: Media) -> str:
    """Return in a few words how large an item is."""
    names = dict(facts(media))
    parts = [f"{names['width']} x {names['height']}"] if "width" in names else []
    parts += [names["duration"]] if "duration" in names else []
    parts += [f"{names['page_count']} page(s)"] if "page_count" in names else []
    return ", ".join(parts)
