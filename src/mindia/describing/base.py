"""The port of describers."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO, Protocol, runtime_checkable

from mindia.domain.media import Media


@runtime_checkable
class Describer(Protocol):
    """Puts a media item into words, which are then embedded. Thread-safe."""

    def describe(self, media: Media, *, text: str, open_media: Callable[[], BinaryIO]) -> str:
        """Return the words for an item.

        Args:
            media: The item.
            text: What a person or the host said about it, and the text of a document; may be empty.
            open_media: Opens its bytes for reading.
        """
        ...
