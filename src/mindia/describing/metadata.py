"""A describer that needs no model."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

from mindia.domain.media import Facts, Media, Metadata
from mindia.media.names import words_of

_MAX_CHARS = 8_000
"""The beginning of a long text tells what it is about; more would drown the name."""


class MetadataDescriber:
    """Describes an item by its kind, its filename, its metadata and its text. It does not look at pictures."""

    def describe(self, media: Media, *, text: str, open_media: Callable[[], BinaryIO]) -> str:  # noqa: ARG002 - of the port
        """Return the words for an item."""
        parts = [words_of(media.filename), file_words(media), metadata_words(media.metadata), text]
        return ". ".join(part.strip() for part in [*parts, str(media.kind)] if part.strip())[:_MAX_CHARS]


def file_words(facts: Media | Facts) -> str:
    """Return what a file says in words of what it holds: title, artist, album, camera."""
    said = (getattr(facts, name, None) for name in ("title", "artist", "album", "camera"))
    return " ".join(filter(None, said))


def metadata_words(metadata: Metadata) -> str:
    """Return the texts and numbers of the metadata, without its keys."""
    found: list[str] = []
    rest: list[object] = [metadata]
    while rest:
        match rest.pop():
            case str(text):
                found.append(text)
            case bool() | None:
                pass
            case int() | float() as number:
                found.append(str(number))
            case dict() as mapping:
                rest.extend(reversed(mapping.values()))
            case list() | tuple() as values:
                rest.extend(reversed(values))
    return " ".join(found)
