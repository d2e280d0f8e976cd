"""The boxes of MP4, QuickTime and HEIF (ISO/IEC 14496-12, 4.2), and which of them do not serve to play the file."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import BinaryIO

import attrs

from mindia.media._structure import MalformedError

MAX_BOXES = 500_000
"""More than many hours of fragments have; to look at one takes some microseconds."""

_PLAYED: dict[bytes, frozenset[bytes]] = {
    b"": frozenset({b"ftyp", b"styp", b"moov", b"mdat", b"imda", b"moof", b"mfra", b"sidx", b"ssix", b"pdin"}),
    b"moov": frozenset({b"mvhd", b"trak", b"mvex", b"iods", b"pssh", b"cmov", b"ctab", b"clip", b"prfl"}),
    b"trak": frozenset(
        {b"tkhd", b"edts", b"mdia", b"tref", b"trgr", b"load", b"imap", b"clip", b"matt", b"tapt", b"prfl"}
    ),
    b"mdia": frozenset({b"mdhd", b"hdlr", b"minf", b"elng"}),
    b"moof": frozenset({b"mfhd", b"traf", b"pssh"}),
}
"""What is kept of a file and of the boxes that are looked into, in ISO/IEC 14496-12 and the QuickTime File Format."""

_TIMED = {b"mvhd", b"tkhd", b"mdhd"}
"""Boxes that begin with version, flags, and the times of creation and of the last change (8.2.2, 8.3.2, 8.4.2)."""

_SPHERICAL = bytes.fromhex("ffcc8263f8554a938814587a02521fdd")
"""The `uuid` of a track which tells that the video goes all round (Spherical Video V1)."""


@attrs.frozen
class Box:
    """A box.

    Attributes:
        kind: Its four letters.
        start: Where it begins.
        body: Where its content begins, behind size and kind.
        end: Where it ends.
    """

    kind: bytes
    start: int
    body: int
    end: int

    @property
    def size(self) -> int:
        """How much content it has, in bytes."""
        return self.end - self.body


@attrs.frozen
class Patch:
    """Bytes that take the place of others.

    Attributes:
        start: Where they begin.
        content: The first of them.
        zeros: How many zeros follow.
    """

    start: int
    content: bytes
    zeros: int = 0

    @property
    def end(self) -> int:
        """Where they end."""
        return self.start + len(self.content) + self.zeros


class BoxReader:
    """Reads the boxes of a file.

    Args:
        file: Seekable.
        size: In bytes.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._left = MAX_BOXES
        self.whole = Box(b"", 0, 0, size)

    def content(self, box: Box, skip: int, size: int) -> bytes:
        """Return some of the content of a box.

        Raises:
            MalformedError: It has less.
        """
        self._file.seek(box.body + skip)
        content = self._file.read(max(0, min(size, box.size - skip)))
        if len(content) < size:
            raise MalformedError(f"the box {box.kind!r} at {box.start} has not the {size} bytes that it should have")
        return content

    def children(self, box: Box, *, skip: int = 0) -> Iterator[Box]:
        """Yield the boxes within a box. Of the file itself the last one may be cut off, as a recording that broke off.

        Args:
            box: Of a kind that holds boxes, or `whole`.
            skip: The size of what precedes them.

        Raises:
            MalformedError: One is smaller than its header, or goes on behind the end, or there are far too many.
        """
        start = box.body + skip
        while start + 8 <= box.end:
            header = self.content(box, start - box.body, 8)
            size, kind, body = int.from_bytes(header[:4]), header[4:], start + 8
            if size == 1:
                size, body = int.from_bytes(self.content(box, body - box.body, 8)), body + 8
            elif size == 0:
                size = box.end - start
            end = start + size
            if end < body or (end > box.end and box is not self.whole):
                raise MalformedError(f"the box {kind!r} at {start} cannot have {size} bytes")
            self._left -= 1
            if self._left < 0:
                raise MalformedError(f"it has more than {MAX_BOXES} boxes")
            yield Box(kind, start, body, min(end, box.end))
            start = end

    def find(self, box: Box, *path: bytes) -> Box | None:
        """Return the first box of a kind within the first one of another, and so on, or None."""
        for kind in path:
            found = next((child for child in self.children(box) if child.kind == kind), None)
            if found is None:
                return None
            box = found
        return box


def unplayed(
    reader: BoxReader,
    parent: Box,
    *,
    keep: frozenset[bytes] = frozenset(),
    played: Collection[Box] = (),
    measured: Collection[Box] = (),
) -> Iterator[Patch]:
    """Yield what takes everything out of a file that does not serve to play it, and the times of its making.

    Nothing moves: boxes become free space.

    Args:
        reader: Of the file.
        parent: What is looked into: the whole.
        keep: Kinds of boxes in it that stay, beside those that are played.
        played: Boxes that stay whatever they are called.
        measured: Boxes that go whatever they are called.

    Raises:
        MalformedError: The boxes contradict each other.
    """
    kept = _PLAYED[parent.kind] | keep
    end = parent.body
    for box in reader.children(parent):
        end = box.end
        if box in measured or (
            box.kind not in kept and box not in played and not (parent.kind == b"trak" and _is_spherical(reader, box))
        ):
            yield Patch(box.start + 4, b"free")
            yield Patch(box.body, b"", box.size)
        elif box.kind in _PLAYED:
            yield from unplayed(reader, box, measured=measured)
        elif box.kind in _TIMED:
            times = 16 if reader.content(box, 0, 1) == b"\1" else 8
            reader.content(box, 4, times)
            yield Patch(box.body + 4, b"", times)
    yield Patch(end, b"", parent.end - end)  # too little for a box


def _is_spherical(reader: BoxReader, box: Box) -> bool:
    return box.kind == b"uuid" and reader.content(box, 0, 16) == _SPHERICAL
