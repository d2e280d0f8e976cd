"""WebP without what is not needed to display it (RFC 9649)."""

from __future__ import annotations

from collections.abc import Iterator

from mindia.media._structure import MalformedError, exactly
from mindia.media.exif import Exif, only_orientation

_PICTURE = {b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF", b"ICCP"}
_HEADER_SIZE = 12
_FRAME_HEADER_SIZE = 16
"""Of `ANMF`, before the chunks of the frame (2.7.1.1)."""
_HAS_EXIF, _HAS_XMP = 0x08, 0x04
"""Flags in the first byte of `VP8X` (2.7.1)."""


def stripped(content: bytes) -> bytes:
    """Return the same picture with its profile, its animation and, where it is turned, its orientation.

    Raises:
        MalformedError: Chunks are cut off, or there is no picture.
    """
    if content[:4] != b"RIFF" or content[8:_HEADER_SIZE] != b"WEBP":
        raise MalformedError("it has no header")
    body = exactly(content, 8, int.from_bytes(content[4:8], "little"))[4:]
    parts: list[tuple[bytes, bytes]] = []
    exif: bytes | None = None
    for kind, payload in _chunks(body):
        if kind == b"EXIF" and exif is None:
            exif = payload
        elif kind == b"ANMF":
            frame = b"".join(_chunk(*chunk) for chunk in _chunks(payload[_FRAME_HEADER_SIZE:]) if chunk[0] in _PICTURE)
            parts.append((kind, payload[:_FRAME_HEADER_SIZE] + frame))
        elif kind in _PICTURE:
            parts.append((kind, payload))
    if not parts:
        raise MalformedError("it has no picture")
    orientation = 1
    if parts[0][0] == b"VP8X" and parts[0][1]:  # of the simple form, nothing that follows the picture counts
        orientation = Exif(exif or b"").orientation
        flags = parts[0][1][0] & ~(_HAS_EXIF | _HAS_XMP) | (_HAS_EXIF if orientation != 1 else 0)
        parts[0] = (b"VP8X", bytes([flags]) + parts[0][1][1:])
    if orientation != 1:
        parts.append((b"EXIF", only_orientation(orientation)))
    body = b"WEBP" + b"".join(_chunk(*part) for part in parts)
    return b"RIFF" + len(body).to_bytes(4, "little") + body


def canvas(head: bytes) -> tuple[int, int]:
    """Return width and height as the first 30 bytes tell them, or zeros."""
    kind, content = head[12:16], head[20:30]
    match kind:
        case b"VP8X":  # 2.7.1
            return 1 + int.from_bytes(content[4:7], "little"), 1 + int.from_bytes(content[7:10], "little")
        case b"VP8L":  # 3.4
            bits = int.from_bytes(content[1:5], "little")
            return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        case b"VP8 ":  # RFC 6386, 9.1
            sides = int.from_bytes(content[6:8], "little"), int.from_bytes(content[8:10], "little")
            return sides[0] & 0x3FFF, sides[1] & 0x3FFF
    return 0, 0


def _chunks(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at < len(body):
        kind, size = exactly(body, at, 4), int.from_bytes(exactly(body, at + 4, 4), "little")
        yield kind, exactly(body, at + 8, size)
        at += 8 + size + size % 2


def _chunk(kind: bytes, payload: bytes) -> bytes:
    return kind + len(payload).to_bytes(4, "little") + payload + bytes(len(payload) % 2)
