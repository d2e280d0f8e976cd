"""Type and facts of a file, confirmed by the parser of its format."""

from __future__ import annotations

from typing import BinaryIO, Protocol

import attrs

from mindia.config import Settings
from mindia.domain.media import Facts, MediaKind
from mindia.errors import EmptyFileError, TooLargeError
from mindia.media import sniff
from mindia.media.documents import probe_pdf
from mindia.media.images import probe_image
from mindia.media.video import probe_av


@attrs.frozen(kw_only=True)
class Probed:
    """What was found out about a file.

    Attributes:
        content_type: MIME type.
        facts: What the parser says.
    """

    content_type: str
    facts: Facts


class Prober(Protocol):
    """Finds out type and facts of files. Thread-safe."""

    def probe(self, file: BinaryIO, *, size: int, filename: str, declared: str | None) -> Probed:
        """Find out type and facts of a file: see the function `probe`."""
        ...

    def close(self) -> None:
        """Give up what it holds. Calling it again does nothing."""
        ...


class InProcessProber:
    """Parses in the process itself: for input that is trusted."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def probe(self, file: BinaryIO, *, size: int, filename: str, declared: str | None) -> Probed:
        """Find out type and facts of a file: see the function `probe`."""
        return probe(file, size=size, filename=filename, declared=declared, settings=self._settings)

    def close(self) -> None:
        """Do nothing: it holds nothing."""


def max_bytes(kind: MediaKind, settings: Settings) -> int:
    """Return the size limit of a kind."""
    return {
        MediaKind.IMAGE: settings.max_image_bytes,
        MediaKind.VIDEO: settings.max_video_bytes,
        MediaKind.AUDIO: settings.max_audio_bytes,
        MediaKind.DOCUMENT: settings.max_document_bytes,
    }[kind]


def probe(file: BinaryIO, *, size: int, filename: str, declared: str | None, settings: Settings) -> Probed:
    """Find out type and facts of a file.

    Args:
        file: Seekable.
        size: Its size in bytes.
        filename: For its extension and for messages.
        declared: The type that the client says, or None.
        settings: Limits.

    Raises:
        EmptyFileError: There are no bytes.
        UnsupportedTypeError: The type is none of the allowed ones.
        TypeMismatchError: The extension or the declared type contradicts the bytes.
        TooLargeError: A limit of its kind is exceeded.
        CorruptMediaError: The parser refuses it.
    """
    if size == 0:
        raise EmptyFileError(f"{filename!r} is empty")
    file.seek(0)
    kind = sniff.require(file.read(sniff.HEAD_BYTES), filename=filename)
    check_size(size, kind.kind, filename=filename, settings=settings)
    file.seek(0)
    facts: Facts
    match kind.kind:
        case MediaKind.IMAGE:
            facts = probe_image(file, kind, filename=filename, max_pixels=settings.max_image_pixels)
        case MediaKind.VIDEO | MediaKind.AUDIO:
            facts = probe_av(file, kind, filename=filename)
        case MediaKind.DOCUMENT:
            facts = probe_pdf(file, filename=filename, max_text_chars=settings.max_text_chars)
    if facts.kind is not kind.kind:
        kind = sniff.SOUND_ONLY[kind]
        check_size(size, kind.kind, filename=filename, settings=settings)
    sniff.check_name(kind, filename=filename, declared=declared)
    return Probed(content_type=kind.content_type, facts=facts)


def check_size(size: int, kind: MediaKind, *, filename: str, settings: Settings) -> None:
    """Refuse more bytes than the kind may have.

    Raises:
        TooLargeError: There are more.
    """
    limit = max_bytes(kind, settings)
    if size > limit:
        raise TooLargeError(
            f"{filename!r} has {size} bytes or more; the limit for {kind} is {limit} (Settings.max_{kind}_bytes)"
        )
