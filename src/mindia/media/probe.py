"""Type and facts of a file, confirmed by the parser of its format."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import BinaryIO, Protocol

import attrs

from mindia.config import Settings
from mindia.domain.media import Facts, MediaKind
from mindia.domain.transformations import Transformation
from mindia.errors import CorruptMediaError, EmptyFileError, MindiaError, TooLargeError
from mindia.media import sniff
from mindia.media.deriving import Made, derive
from mindia.media.documents import probe_pdf
from mindia.media.images import probe_image
from mindia.media.pictures import Shot, pictures
from mindia.media.tracks import VideoTracks, tracks
from mindia.media.video import probe_av

MAX_INTEGER = (1 << 31) - 1
"""What an integer of PostgreSQL holds."""
MAX_TOGETHER = 16
"""How many files are probed together, at most."""
MAX_TOGETHER_BYTES = 1 << 16
"""How large each of them may be: what is larger takes longer than asking for it does."""
_READ_AT_ONCE_BYTES = 1 << 20
"""How large a file may be that is read before it is parsed: parsers ask for a few bytes at a time."""
_COUNTS = {"width": 1, "height": 1, "sample_rate": 1, "channels": 1, "page_count": 1, "bitrate": 0}
"""Facts that are whole numbers, and the least that each may be."""


@attrs.frozen(kw_only=True)
class Probed:
    """What was found out about a file.

    Attributes:
        content_type: MIME type.
        facts: What the parser says.
    """

    content_type: str
    facts: Facts


@attrs.frozen(kw_only=True)
class Unprobed:
    """A file of which nothing is known yet.

    Attributes:
        file: Seekable.
        size: In bytes.
        filename: For its extension and for messages.
        declared: The type that the client says, or None.
    """

    file: BinaryIO
    size: int
    filename: str
    declared: str | None = None

    def read(self) -> bytes:
        """Return all of it."""
        self.file.seek(0)
        return self.file.read()


@attrs.frozen
class Source:
    """A file that is read.

    Attributes:
        file: Seekable.
        size: In bytes.
    """

    file: BinaryIO
    size: int


class Pending(Protocol):
    """A file that a parser may be at work on already."""

    def result(self) -> Probed:
        """Wait for the parser, and return or raise what `Prober.probe` does."""
        ...


class Prober(Protocol):
    """Finds out type and facts of files. Thread-safe."""

    def begin(self, file: Unprobed, *, settings: Settings) -> AbstractContextManager[Pending | None]:
        """Begin with what `probe` does: the bytes can be stored meanwhile. Gives None where that is no gain."""
        ...

    def probe_all(self, files: Sequence[Unprobed], *, settings: Settings) -> list[Probed | MindiaError]:
        """Find out type and facts of a few small files: for each what `probe` returns or raises."""
        ...

    def probe(self, file: Unprobed, *, settings: Settings) -> Probed:
        """Find out type and facts of a file: see the function `probe`."""
        ...

    def pictures(
        self,
        file: BinaryIO,
        *,
        size: int,
        filename: str,
        max_side: int,
        times: Sequence[float] | None,
        settings: Settings,
    ) -> list[Shot]:
        """Return small pictures of a file: see `mindia.media.pictures.pictures`."""
        ...

    def derive(
        self,
        source: Source,
        *,
        filename: str,
        transformation: Transformation,
        watermarks: Sequence[Source],
        settings: Settings,
    ) -> Made:
        """Make a picture of a file: see `mindia.media.deriving.derive`."""
        ...

    def tracks(self, file: BinaryIO, *, size: int, filename: str, settings: Settings) -> VideoTracks:
        """Look at the tracks of a video: see `mindia.media.tracks.tracks`."""
        ...

    def close(self) -> None:
        """Give up what it holds. Calling it again does nothing."""
        ...


class InProcessProber:
    """Parses in the process itself: for input that is trusted."""

    @contextmanager
    def begin(self, *_: object, **__: object) -> Iterator[None]:
        """Do nothing: nobody else would be at work on it."""
        yield None

    def probe_all(self, files: Sequence[Unprobed], *, settings: Settings) -> list[Probed | MindiaError]:
        """Find out type and facts of files: for each what `probe` returns or raises."""
        found: list[Probed | MindiaError] = []
        for each in files:
            try:
                found.append(self.probe(each, settings=settings))
            except MindiaError as error:
                found.append(error)
        return found

    def probe(self, file: Unprobed, *, settings: Settings) -> Probed:
        """Find out type and facts of a file: see the function `probe`."""
        try:
            return probe(file, settings=settings)
        except MemoryError as error:
            raise TooLargeError(f"{file.filename!r} needs more memory to be read than this process may have") from error

    def pictures(
        self,
        file: BinaryIO,
        *,
        size: int,  # noqa: ARG002 - of the port
        filename: str,
        max_side: int,
        times: Sequence[float] | None,
        settings: Settings,
    ) -> list[Shot]:
        """Return small pictures of a file: see `mindia.media.pictures.pictures`."""
        try:
            return pictures(file, filename=filename, max_side=max_side, times=times, settings=settings)
        except MemoryError as error:
            raise TooLargeError(f"{filename!r} needs more memory to be read than this process may have") from error

    def derive(
        self,
        source: Source,
        *,
        filename: str,
        transformation: Transformation,
        watermarks: Sequence[Source],
        settings: Settings,
    ) -> Made:
        """Make a picture of a file: see `mindia.media.deriving.derive`."""
        try:
            return derive(
                source.file,
                filename=filename,
                transformation=transformation,
                watermarks=[each.file for each in watermarks],
                settings=settings,
            )
        except MemoryError as error:
            raise TooLargeError(f"{filename!r} needs more memory to be read than this process may have") from error

    def tracks(self, file: BinaryIO, *, size: int, filename: str, settings: Settings) -> VideoTracks:  # noqa: ARG002 - of the port
        """Look at the tracks of a video: see `mindia.media.tracks.tracks`."""
        try:
            return tracks(file, filename=filename, settings=settings)
        except MemoryError as error:
            raise TooLargeError(f"{filename!r} needs more memory to be read than this process may have") from error

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


def probe(unprobed: Unprobed, *, settings: Settings) -> Probed:
    """Find out type and facts of a file.

    Args:
        unprobed: The file.
        settings: Limits, and what is read.

    Raises:
        EmptyFileError: There are no bytes.
        UnsupportedTypeError: The type is none of the allowed ones.
        TypeMismatchError: The extension or the declared type contradicts the bytes.
        TooLargeError: A limit of its kind is exceeded.
        CorruptMediaError: The parser refuses it.
    """
    file, size, filename = unprobed.file, unprobed.size, unprobed.filename
    if size == 0:
        raise EmptyFileError(f"{filename!r} is empty")
    if size <= _READ_AT_ONCE_BYTES:
        file = io.BytesIO(unprobed.read())
    file.seek(0)
    head = file.read(sniff.HEAD_BYTES)
    kind = sniff.require(head, filename=filename)
    check_size(size, kind.kind, filename=filename, settings=settings)
    sniff.check_other_opinion(head, kind, filename=filename)
    file.seek(0)
    facts: Facts
    match kind.kind:
        case MediaKind.IMAGE:
            facts = probe_image(file, kind, filename=filename, settings=settings)
        case MediaKind.VIDEO | MediaKind.AUDIO:
            facts = probe_av(file, kind, filename=filename, settings=settings)
        case MediaKind.DOCUMENT:
            facts = probe_pdf(file, filename=filename, settings=settings)
    if facts.kind is not kind.kind:
        kind = sniff.SOUND_ONLY[kind]
        check_size(size, kind.kind, filename=filename, settings=settings)
    check_facts(facts, filename=filename)
    sniff.check_name(kind, filename=filename, declared=unprobed.declared)
    return Probed(content_type=kind.content_type, facts=facts)


def check_facts(facts: Facts, *, filename: str) -> None:
    """Refuse what no file can have, or no column hold, whatever a parser says.

    Raises:
        CorruptMediaError: There is such a fact.
    """
    for name, least in _COUNTS.items():
        value = getattr(facts, name, least)
        if not least <= value <= MAX_INTEGER:
            raise CorruptMediaError(f"{filename!r} says that its {name} is {value}")
    duration = getattr(facts, "duration", 0.0)
    if not (math.isfinite(duration) and duration >= 0):
        raise CorruptMediaError(f"{filename!r} says that it plays for {duration} seconds")


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
