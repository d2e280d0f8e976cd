"""JPEG without what is not needed to display it (ITU-T T.81, annex B)."""

from __future__ import annotations

import re

import attrs

from mindia.media._structure import MalformedError, exactly
from mindia.media.exif import PREFIX, Exif, only_orientation

_START = b"\xff\xd8"
_END_MARKER, _SCAN_MARKER = 0xD9, 0xDA
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")
"""A marker that something follows: neither one of a restart nor a byte of the picture that looks like one."""
_PICTURE = {*range(0xC0, 0xD0), *range(0xDA, 0xE0)} - {0xC8}
"""Tables, frames and scans; not the markers of applications and of comments, nor those that are reserved."""
_APP0, _APP1, _APP2, _APP14 = 0xE0, 0xE1, 0xE2, 0xEE

_JFIF, _JFIF_SIZE = b"JFIF\0", 14
"""Of its segment, without the thumbnail (ITU-T T.871, 10.1): its size stands in the last two bytes."""
_ADOBE, _ADOBE_SIZE = b"Adobe", 12
"""Of its segment, which tells how colours are stored (ITU-T T.872, 6.5.3)."""
_ICC = b"ICC_PROFILE\0"
_SEGMENT = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")
"""A marker that decoders go on after; over those that are reserved they do not, or read on right behind them."""
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
"""Those of the frames whose picture gets better with each scan (table B.1)."""


@attrs.frozen
class Work:
    """What there is to be done until all of a picture is decoded.

    Attributes:
        pixels: Its width times its height, which each scan may go over.
        scans: How many scans there are, or one more than was to be counted.
        kept_bytes: How much is kept from scan to scan: coefficients of two bytes.
    """

    pixels: int
    scans: int
    kept_bytes: int


def may_have_scans(content: bytes) -> bool:
    """Tell whether a picture may have more than one scan: quickly, and sometimes in vain."""
    return content.count(bytes((0xFF, _SCAN_MARKER))) > 1


def is_one_scan(head: bytes) -> bool:
    """Tell whether the beginning of a file shows that a decoder goes over the picture once and keeps nothing.

    That is so where the first scan has all of the components, and the frame is not one that gets better with each
    (ITU-T T.81, 4.5): what follows that scan is not read.
    """
    at, components = len(_START), 0
    while (found := _SEGMENT.search(head, at)) is not None:
        marker = found[0][1]
        at = found.end() + max(2, int.from_bytes(head[found.end() : found.end() + 2]))
        if at > len(head) or marker in _PROGRESSIVE or marker in (_START[1], _END_MARKER):
            return False
        if marker in _FRAMES:
            if components:
                return False
            components = head[found.end() + 7] if found.end() + 7 < at else 0
        elif marker == _SCAN_MARKER:
            return components > 0 and head[found.end() + 2 : at][:1] == bytes((components,))
    return False


def work(content: bytes, *, most_scans: int) -> Work:
    """Return what decoding takes, as far as the file can be understood. Counts no further than one more than told."""
    frame, progressive = b"", False
    scans = 0
    at = len(_START)
    while (found := _SEGMENT.search(content, at)) is not None and found[0][1] != _END_MARKER:
        marker = found[0][1]
        at = found.end() + max(2, int.from_bytes(content[found.end() : found.end() + 2]))
        if marker in _FRAMES:
            frame, progressive = content[found.end() + 2 : at], marker in _PROGRESSIVE
        elif marker == _SCAN_MARKER:
            scans += 1
            if scans > most_scans:
                break
    if len(frame) < 6:
        return Work(pixels=0, scans=scans, kept_bytes=0)
    pixels = int.from_bytes(frame[1:3]) * int.from_bytes(frame[3:5])
    factors = frame[7 : 6 + 3 * frame[5] : 3]  # of sampling, across and down (B.2.2)
    across, down = [factor >> 4 for factor in factors], [factor & 15 for factor in factors]
    blocks = sum(width * height for width, height in zip(across, down, strict=True))
    whole = max(across, default=0) * max(down, default=0)
    kept = 2 * pixels * blocks // whole if whole and (progressive or scans > 1) else 0
    return Work(pixels=pixels, scans=scans, kept_bytes=kept)


def stripped(content: bytes) -> bytes:
    """Return the same picture with its tables, its profile and, where it is turned, its orientation.

    Raises:
        MalformedError: Segments are cut off, or there is no picture.
    """
    if not content.startswith(_START):
        raise MalformedError("it has no beginning")
    jfif: list[bytes] = []
    parts: list[bytes] = []
    exif = b""
    has_scan = False
    at = len(_START)
    while (found := _MARKER.search(content, at)) is not None and found[0][1] != _END_MARKER:
        marker = found[0][1]
        start = found.end()
        size = int.from_bytes(exactly(content, start, 2))
        if size < 2:
            raise MalformedError(f"a segment at {start} is shorter than its own size")
        payload = exactly(content, start, size)[2:]
        at = start + size
        if marker == _SCAN_MARKER:
            has_scan = True
            following = _MARKER.search(content, at)
            at = len(content) if following is None else following.start()
        if marker in _PICTURE:
            parts.append(content[found.start() : at])
        elif marker == _APP1 and payload.startswith(PREFIX):
            exif += payload[len(PREFIX) :]
        elif marker == _APP0 and payload.startswith(_JFIF) and len(payload) >= _JFIF_SIZE:
            jfif.append(_segment(_APP0, payload[: _JFIF_SIZE - 2] + b"\0\0"))
        elif marker == _APP2 and payload.startswith(_ICC):
            parts.append(_segment(_APP2, payload))
        elif marker == _APP14 and payload.startswith(_ADOBE) and len(payload) >= _ADOBE_SIZE:
            parts.append(_segment(_APP14, payload[:_ADOBE_SIZE]))
    if not has_scan:
        raise MalformedError("it has no picture")
    orientation = Exif(exif).orientation
    turned = [_segment(_APP1, PREFIX + only_orientation(orientation))] if orientation != 1 else []
    # Without an end it gets none: decoders would take a picture that is cut off for a whole one.
    return b"".join([_START, *jfif, *turned, *parts, b"" if found is None else bytes([0xFF, _END_MARKER])])


def _segment(marker: int, payload: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(payload) + 2).to_bytes(2) + payload
