"""Originals without what their makers did not mean to tell: places, names, times, comments."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from itertools import islice, pairwise
from typing import BinaryIO

import attrs

from mindia.errors import CorruptMediaError
from mindia.media import _avif, _gif, _jpeg, _mp4, _png, _webp, sniff
from mindia.media._isobmff import Patch
from mindia.media._structure import MalformedError

_CHUNK = 1 << 20
_MAX_PATCHES = 1_000_000
"""A measurement for each frame of many hours."""

_REWRITTEN: dict[str, Callable[[bytes], bytes]] = {
    sniff.JPEG.content_type: _jpeg.stripped,
    sniff.PNG.content_type: _png.stripped,
    sniff.GIF.content_type: _gif.stripped,
    sniff.WEBP.content_type: _webp.stripped,
}
_PATCHED: dict[str, Callable[[BinaryIO, int], Iterator[Patch]]] = {
    sniff.AVIF.content_type: _avif.patches,
    sniff.MP4.content_type: _mp4.patches,
    sniff.MOV.content_type: _mp4.patches,
    sniff.M4A.content_type: _mp4.patches,
}

SANITIZED = frozenset({*_REWRITTEN, *_PATCHED})
"""The content types from which metadata are removed."""


@attrs.frozen(kw_only=True)
class Sanitized:
    """What a file is after something was removed from it.

    Attributes:
        size: In bytes.
        sha256: Hash of the bytes, as 64 hexadecimal digits.
    """

    size: int
    sha256: str


def sanitize(file: BinaryIO, content_type: str, *, size: int, filename: str) -> Sanitized | None:
    """Remove metadata from a file, in its place, without decoding what is seen and heard.

    What is needed to display a picture rightly stays: its colour profile, its animation, and how it is turned. Of JPEG,
    PNG, GIF and WebP only what displaying needs is kept, and the file is written anew: Exif with the GPS data, XMP,
    IPTC, comments, times, further pictures of MPF and whatever follows the end are gone. AVIF, MP4, QuickTime and M4A
    keep their size, and all offsets stay right: the boxes of users, of tags and of XMP become free space of zeros, the
    times of creation and of change become 0, the items of Exif and XMP become empty, and tracks of what sensors
    measured are emptied as well.

    PDF, AVI, Matroska, WebM, WAV, FLAC, Ogg, MP3 and MPEG transport streams are left as they are, and so is what is
    inside coded pictures and sound, in a compressed `moov`, and in the samples of fragmented MP4. The names that
    writers give to the handlers of tracks (`hdlr` of MP4) and to the items of AVIF stay as well.

    Args:
        file: Seekable, readable and writable; a copy that may be changed, such as what was spooled. Pictures other than
            AVIF are read into memory, everything else in pieces.
        content_type: As `probe` found it.
        size: In bytes.
        filename: For messages.

    Returns:
        Size and hash of what the file holds now, or None where nothing was removed: it holds what it held.

    Raises:
        CorruptMediaError: The structure of the file contradicts itself; nothing was changed.
    """
    try:
        if content_type in _REWRITTEN:
            changed, size = _rewrite(file, _REWRITTEN[content_type], size)
        elif content_type in _PATCHED:
            changed = _apply(file, _few(_PATCHED[content_type](file, size)))
        else:
            return None
    except MalformedError as error:
        raise CorruptMediaError(f"{filename!r} cannot be read as {content_type}: {error}") from error
    return Sanitized(size=size, sha256=_sha256(file)) if changed else None


def _rewrite(file: BinaryIO, stripped: Callable[[bytes], bytes], size: int) -> tuple[bool, int]:
    file.seek(0)
    before = file.read(size)
    after = stripped(before)
    if after == before:
        return False, size
    file.seek(0)
    file.write(after)
    file.truncate()
    return True, len(after)


def _few(patches: Iterator[Patch]) -> list[Patch]:
    """Return what is to be patched as soon as all of it is known to be right."""
    listed = list(islice(patches, _MAX_PATCHES + 1))
    if len(listed) > _MAX_PATCHES:
        raise MalformedError(f"there is metadata in more than {_MAX_PATCHES} places")
    # The tracks of an animation may name the very metadata that its picture names.
    in_order = sorted(set(listed), key=lambda patch: patch.start)
    if any(before.end > after.start for before, after in pairwise(in_order)):
        raise MalformedError("two metadata share bytes")
    return listed


def _apply(file: BinaryIO, patches: list[Patch]) -> bool:
    changed = False
    for patch in patches:
        start = patch.start
        for piece in _pieces(patch):
            file.seek(start)
            if file.read(len(piece)) != piece:
                file.seek(start)
                file.write(piece)
                changed = True
            start += len(piece)
    return changed


def _pieces(patch: Patch) -> Iterator[bytes]:
    yield patch.content
    for start in range(0, patch.zeros, _CHUNK):
        yield bytes(min(_CHUNK, patch.zeros - start))


def _sha256(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    file.seek(0)
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()
