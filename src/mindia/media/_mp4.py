"""MP4 and QuickTime without what is not needed to play them (ISO/IEC 14496-12)."""

from __future__ import annotations

import struct
import sys
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import BinaryIO

from mindia.media._isobmff import Box, BoxReader, Patch, unplayed
from mindia.media._structure import MalformedError

_PLAYED_HANDLERS = {
    b"vide", b"soun", b"auxv", b"pict", b"text", b"sbtl", b"subt", b"subp", b"clcp", b"tmcd", b"hint", b"odsm", b"sdsm",
}  # fmt: skip
"""Of tracks that are seen, heard or read, and of those that tell how; others hold what sensors measured, and where."""
_MAX_ENTRIES = 4_000_000
"""Of a table: many hours of samples, each in a chunk of its own."""


def patches(file: BinaryIO, size: int) -> Iterator[Patch]:
    """Yield what takes metadata out of a file, without moving anything.

    Raises:
        MalformedError: The boxes contradict each other.
    """
    reader = BoxReader(file, size)
    top = list(reader.children(reader.whole))
    media = [box for box in top if box.kind in (b"mdat", b"imda")]
    is_fragmented = any(box.kind == b"moof" for box in top)
    tracks = [
        track for movie in top if movie.kind == b"moov" for track in reader.children(movie) if track.kind == b"trak"
    ]
    played: set[Box] = set()
    measured: set[Box] = set()
    for track in tracks:
        table = reader.find(track, b"mdia", b"minf", b"stbl")
        handler = reader.find(track, b"mdia", b"hdlr")
        if table is None:
            continue
        if handler is None or reader.content(handler, 8, 4) in _PLAYED_HANDLERS:
            # Players go by the places of the chunks, not by the name of the box that they are in.
            played.update(_holders(_offsets(reader, table), top))
        elif not is_fragmented:  # else it goes on in fragments, which name it
            measured.add(track)
            yield from _emptied(reader, table, media)
    yield from unplayed(reader, reader.whole, played=played, measured=measured)


def _holders(offsets: Sequence[int], top: Sequence[Box]) -> Iterator[Box]:
    """Yield the boxes that hold what begins at the offsets."""
    box = None
    for offset in offsets:
        if box is None or not box.body <= offset < box.end:
            before = bisect_right(top, offset, key=attrgetter("body"))
            box = top[before - 1] if before else None
            if box is not None:
                yield box


def _emptied(reader: BoxReader, table: Box, media: Sequence[Box]) -> Iterator[Patch]:
    """Yield what makes zeros of the chunks of a track (8.7)."""
    runs = _entries(reader, table, b"stsc", "I", columns=3)
    same, sizes = _sizes(reader, table)
    sample = run = 0
    for number, start in enumerate(_offsets(reader, table), start=1):
        while run + 3 < len(runs) and runs[run + 3] <= number:
            run += 3
        count = runs[run + 1] if runs else 0
        size = same * count or sum(sizes[sample : sample + count])
        sample += count
        holder = bisect_right(media, start, key=attrgetter("body"))
        if not holder or start + size > media[holder - 1].end:
            raise MalformedError(f"a track has {size} bytes at {start}, which are none of the media")
        yield Patch(start, b"", size)


def _offsets(reader: BoxReader, table: Box) -> Sequence[int]:
    """Return where the chunks of a track begin (8.7.5)."""
    return _entries(reader, table, b"stco", "I") or _entries(reader, table, b"co64", "Q")


def _sizes(reader: BoxReader, table: Box) -> tuple[int, Sequence[int]]:
    """Return the size of each sample where it is always the same, else 0, and the sizes (8.7.3)."""
    box = reader.find(table, b"stsz")
    if box is None:
        raise MalformedError("a track does not tell the sizes of its samples")
    same, count = struct.unpack(">II", reader.content(box, 4, 8))
    return same, () if same else _numbers(reader, box, 12, "I", count)


def _entries(reader: BoxReader, table: Box, kind: bytes, unit: str, *, columns: int = 1) -> Sequence[int]:
    box = reader.find(table, kind)
    if box is None:
        return ()
    return _numbers(reader, box, 8, unit, int.from_bytes(reader.content(box, 4, 4)) * columns)


def _numbers(reader: BoxReader, box: Box, skip: int, unit: str, count: int) -> Sequence[int]:
    if count > _MAX_ENTRIES:
        raise MalformedError(f"the box {box.kind!r} at {box.start} has {count} entries")
    numbers = array(unit)
    numbers.frombytes(reader.content(box, skip, count * numbers.itemsize))
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers
