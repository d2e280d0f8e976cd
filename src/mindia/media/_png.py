"""PNG without what is not needed to display it (Portable Network Graphics, Third Edition)."""

from __future__ import annotations

import zlib

from mindia.media._structure import MalformedError, exactly
from mindia.media.exif import Exif, only_orientation

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PICTURE = {
    b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"cHRM", b"gAMA", b"iCCP", b"sBIT", b"sRGB", b"cICP", b"mDCV", b"mDCv",
    b"cLLI", b"cLLi", b"bKGD", b"hIST", b"pHYs", b"sPLT", b"acTL", b"fcTL", b"fdAT",
}  # fmt: skip
"""The chunks of pixels, of their colours, and of animation (clause 11)."""


def stripped(content: bytes) -> bytes:
    """Return the same picture with its colours, its animation and, where it is turned, its orientation.

    Raises:
        MalformedError: Chunks are cut off, or there is no end.
    """
    if not content.startswith(_SIGNATURE):
        raise MalformedError("it has no signature")
    parts = [_SIGNATURE]
    pixels_at = 0
    exif = b""
    at = len(_SIGNATURE)
    kind = b""
    while kind != b"IEND":
        size, kind = int.from_bytes(exactly(content, at, 4)), exactly(content, at + 4, 4)
        chunk = exactly(content, at, size + 12)
        at += len(chunk)
        if kind == b"eXIf":
            exif = chunk[8:-4]
        if kind == b"IDAT" and not pixels_at:
            pixels_at = len(parts)
        if kind in _PICTURE:
            parts.append(chunk)
    if not pixels_at:
        raise MalformedError("it has no picture")
    orientation = Exif(exif).orientation
    if orientation != 1:
        parts.insert(pixels_at, _chunk(b"eXIf", only_orientation(orientation)))
    return b"".join(parts)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return len(content).to_bytes(4) + kind + content + zlib.crc32(kind + content).to_bytes(4)
