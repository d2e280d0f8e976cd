"""How long MPEG audio plays: its frames, counted without decoding them (ISO/IEC 11172-3 and 13818-3, 2.4)."""

from __future__ import annotations

import re
from functools import cache
from itertools import product
from typing import BinaryIO

import attrs

from mindia.media._structure import MalformedError

_CHUNK = 1 << 20
_MARGIN = 4096
"""More than the longest frame and the header of the next one have."""
_MAX_DOUBTS = 1_000_000
"""Tags, and places that look like a frame and are none: in 100 MB of noise there are some 20,000."""

_MPEG_1, _MPEG_2, _MPEG_2_5 = 3, 2, 0
_LAYER_1, _LAYER_2, _LAYER_3 = 3, 2, 1
"""As the header has them."""
_RATES = {
    _MPEG_1: (44_100, 48_000, 32_000),
    _MPEG_2: (22_050, 24_000, 16_000),
    _MPEG_2_5: (11_025, 12_000, 8_000),
}
_LOW_KILOBITS = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_KILOBITS = {
    (_MPEG_1, _LAYER_1): tuple(range(32, 449, 32)),
    (_MPEG_1, _LAYER_2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (_MPEG_1, _LAYER_3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (_MPEG_2, _LAYER_1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (_MPEG_2, _LAYER_2): _LOW_KILOBITS,
    (_MPEG_2, _LAYER_3): _LOW_KILOBITS,
}

_HEADER = re.compile(rb"\xff[\xe2-\xff][\x10-\xef]")
_INDEXES = ((b"Xing", (13, 21, 36)), (b"Info", (13, 21, 36)), (b"VBRI", (36,)))
"""What a frame that holds an index instead of sound begins with, behind the header and an empty side information."""
_ID3 = re.compile(rb"ID3[\x02-\x04].[\x00\x10-\xf0][\x00-\x7f]{4}", re.DOTALL)
"""The header of ID3v2, whose size has seven bits a byte (ID3v2.4, 3.1)."""
_ID3_SIZE, _OLD_TAG_SIZE, _APE_SIZE = 10, 128, 32
"""Of the headers of ID3v2 and APEv2, and of the whole of ID3v1."""


@attrs.frozen
class Sound:
    """What the frames of a file are together.

    Attributes:
        seconds: How long they play.
        size: In bytes, without tags and junk.
    """

    seconds: float
    size: int


@attrs.frozen(eq=False)
class _Kind:
    """Frames that can follow each other.

    Attributes:
        seconds: How long one plays.
        lengths: In bytes, by the first three bytes.
    """

    seconds: float
    lengths: dict[bytes, int] = attrs.field(factory=dict)


@cache
def _kinds() -> dict[bytes, _Kind]:
    """Return the kinds of frames by the first three bytes that a header may have."""
    kinds: dict[bytes, _Kind] = {}
    for (version, rates), layer in product(_RATES.items(), (_LAYER_1, _LAYER_2, _LAYER_3)):
        kilobits = _KILOBITS[_MPEG_1 if version == _MPEG_1 else _MPEG_2, layer]
        low = version != _MPEG_1 and layer == _LAYER_3
        samples = 384 if layer == _LAYER_1 else 576 if low else 1_152
        unit = 4 if layer == _LAYER_1 else 1
        for rate_index, rate in enumerate(rates):
            kind = _Kind(samples / rate)
            for (index, value), flags in product(enumerate(kilobits, 1), range(8)):
                unprotected, padding, private = flags >> 2, flags >> 1 & 1, flags & 1
                header = bytes([
                    0xFF,
                    0xE0 | version << 3 | layer << 1 | unprotected,
                    index << 4 | rate_index << 2 | padding << 1 | private,
                ])  # fmt: skip
                kind.lengths[header] = (samples // 8 // unit * value * 1_000 // rate + padding) * unit
                kinds[header] = kind
    return kinds


def sound(file: BinaryIO, *, most_seconds: float) -> Sound:
    """Count the frames of a file, over tags and junk, until they play for longer than told.

    No index is believed: it may be of another file, or lie.

    Raises:
        MalformedError: Far too much looks like a frame and is none.
    """
    return _Counter(file, most_seconds).counted()


class _Counter:
    def __init__(self, file: BinaryIO, most_seconds: float) -> None:
        self._file = file
        file.seek(0, 2)
        self._file_size = file.tell()
        self._most_seconds = most_seconds
        self._start = self._at = 0
        self._buffer = b""
        self._seconds = 0.0
        self._size = 0
        self._doubts = 0

    def counted(self) -> Sound:
        kinds = _kinds()
        while self._fill() and self._seconds <= self._most_seconds:
            kind = kinds.get(self._buffer[self._at : self._at + 3])
            if kind is not None and self._goes_on(kind):
                self._count(kind)
            else:
                self._pass_over()
        return Sound(self._seconds, self._size)

    def _fill(self) -> bool:
        """See to it that the next frame is in the buffer; tell whether there is anything left."""
        if self._at + _MARGIN > len(self._buffer) and self._start + len(self._buffer) < self._file_size:
            self._start += self._at
            self._at = 0
            self._file.seek(self._start)
            self._buffer = self._file.read(_CHUNK)
            if len(self._buffer) < _CHUNK:
                self._file_size = self._start + len(self._buffer)
        return self._at < len(self._buffer)

    def _ends(self) -> bool:
        return self._start + len(self._buffer) >= self._file_size

    def _goes_on(self, kind: _Kind) -> bool:
        """Tell whether what looks like a frame is followed by one, by a tag or by nothing."""
        buffer = self._buffer
        behind = self._at + kind.lengths[buffer[self._at : self._at + 3]]
        following = buffer[behind : behind + 3]
        # One that is cut off is taken for a frame where there is no other.
        ends = behind == len(buffer) or (behind > len(buffer) and not self._size)
        return following in kind.lengths or following in (b"ID3", b"TAG", b"APE") or (ends and self._ends())

    def _count(self, kind: _Kind) -> None:
        buffer, at, lengths = self._buffer, self._at, kind.lengths
        first = not self._size
        end = len(buffer) if self._ends() else len(buffer) - _MARGIN
        count = 0
        while at <= end:
            length = lengths.get(buffer[at : at + 3])
            if length is None:
                break
            at += length
            count += 1
        size = min(at, len(buffer)) - self._at
        if first and count > 1 and self._is_index():
            count -= 1
            size -= lengths[buffer[self._at : self._at + 3]]
        self._at = at
        self._seconds += count * kind.seconds
        self._size += size

    def _is_index(self) -> bool:
        return any(self._buffer.startswith(name, self._at + place) for name, places in _INDEXES for place in places)

    def _pass_over(self) -> None:
        """Go on behind a tag, or to the next place that looks like a frame."""
        self._doubts += 1
        if self._doubts > _MAX_DOUBTS:
            raise MalformedError("it is more junk than sound")
        head = self._buffer[self._at : self._at + _APE_SIZE]
        if _ID3.match(head):
            size = sum(byte << 7 * place for place, byte in enumerate(reversed(head[6:10])))
            self._at += _ID3_SIZE + size + (_ID3_SIZE if head[5] & 0x10 else 0)
        elif head.startswith(b"APETAGEX") and len(head) == _APE_SIZE:
            is_header = int.from_bytes(head[20:24], "little") >> 29 & 1
            self._at += _APE_SIZE + (int.from_bytes(head[12:16], "little") if is_header else 0)
        elif head.startswith(b"TAG") and self._start + self._at + _OLD_TAG_SIZE == self._file_size:
            self._at += _OLD_TAG_SIZE
        else:
            found = _HEADER.search(self._buffer, self._at + 1)
            # A header may be cut apart by the end of what has been read.
            self._at = found.start() if found else max(self._at + 1, len(self._buffer) - 2)
