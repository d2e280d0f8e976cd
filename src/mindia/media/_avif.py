"""AVIF without what is not needed to display it: its items of metadata (ISO/IEC 14496-12, 8.11; ISO/IEC 23008-12)."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, chain
from typing import BinaryIO

from mindia.media._isobmff import Box, BoxReader, Patch, unplayed
from mindia.media._structure import MalformedError

_METADATA = {b"Exif", b"mime", b"uri "}
"""Items beside the picture; XMP is of the type `mime`."""
_EMPTY_EXIF = b"\0\0\0\0MM\0*\0\0\0\x08"
"""An offset, and a directory which is empty where zeros follow: decoders refuse zeros alone."""
_EMPTY_XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>'
_DATA = {b"mdat", b"imda"}
"""Boxes with the content of items that is not in `idat`."""
_DESCRIPTIONS = {b"udes", b"crtt", b"mdft"}
"""Properties that hold a text of the user, and times (ISO/IEC 23008-12, 6.5)."""
_MAX_EXTENTS = 10_000

Extents = list[tuple[int, int]]
"""Where each part begins, and its size."""


def patches(file: BinaryIO, size: int) -> Iterator[Patch]:
    """Yield what takes metadata out of a file, without moving anything. How it is turned is of the picture, and stays.

    Raises:
        MalformedError: The boxes contradict each other.
    """
    reader = BoxReader(file, size)
    boxes = list(reader.children(reader.whole))
    data = [box for box in boxes if box.kind in _DATA]
    for box in boxes:
        if box.kind == b"meta":
            yield from _patches_of_meta(reader, box, data)
        elif box.kind == b"moov":
            for track in reader.children(box):
                meta = reader.find(track, b"meta") if track.kind == b"trak" else None
                if meta is not None:
                    yield from _patches_of_meta(reader, meta, data)
    yield from unplayed(reader, reader.whole, keep=frozenset({b"meta"}))


def _patches_of_meta(reader: BoxReader, meta: Box, beside: Sequence[Box]) -> Iterator[Patch]:
    children = {box.kind: box for box in reader.children(meta, skip=4)}
    if b"iinf" in children and b"iloc" in children:
        kinds = _kinds(reader, children[b"iinf"])
        data = children.get(b"idat", Box(b"idat", 0, 0, 0))
        places = _places(reader.content(children[b"iloc"], 0, children[b"iloc"].size), data)
        metadata = {item: extents for item, extents in places.items() if kinds.get(item) in _METADATA}
        picture = _Picture(chain(*(extents for item, extents in places.items() if item not in metadata)))
        for item, extents in metadata.items():
            for start, length in extents:
                end = start + length
                # Elsewhere something else would be overwritten, or this is taken out with what is not displayed.
                if length and not any(box.body <= start and end <= box.end for box in (data, *beside)):
                    raise MalformedError(f"metadata of {length} bytes cannot be at {start}")
                if picture.uses(start, end):
                    raise MalformedError("the picture and its metadata share bytes")
            yield from _emptied(kinds[item], extents)
    properties = reader.find(children[b"iprp"], b"ipco") if b"iprp" in children else None
    for box in () if properties is None else reader.children(properties):
        if box.kind in _DESCRIPTIONS and box.size > 4:
            yield Patch(box.body + 4, b"", box.size - 4)


class _Picture:
    """The bytes of the picture."""

    def __init__(self, extents: Iterable[tuple[int, int]]) -> None:
        self._extents = sorted((start, start + length) for start, length in extents if length)
        self._ends = list(accumulate((end for _, end in self._extents), max))

    def uses(self, start: int, end: int) -> bool:
        """Tell whether some byte between two places is of the picture."""
        before = bisect_left(self._extents, (end, 0))
        return before > 0 and self._ends[before - 1] > start


def _kinds(reader: BoxReader, box: Box) -> dict[int, bytes]:
    """Return the types of the items by their numbers (8.11.6)."""
    kinds: dict[int, bytes] = {}
    for entry in reader.children(box, skip=6 if reader.content(box, 0, 1) == b"\0" else 8):
        version = reader.content(entry, 0, 1)[0]
        if version < 2:
            raise MalformedError(f"the entry of an item has the version {version}, which tells no type")
        width = 2 if version == 2 else 4
        content = reader.content(entry, 4, width + 6)
        kinds[int.from_bytes(content[:width])] = content[width + 2 :]
    return kinds


def _places(content: bytes, data: Box) -> dict[int, Extents]:
    """Return where the items are by their numbers (8.11.3)."""
    at = 4

    def number(width: int) -> int:
        nonlocal at
        if at + width > len(content):
            raise MalformedError("the places of the items are cut off")
        at += width
        return int.from_bytes(content[at - width : at])

    if not content:
        raise MalformedError("the places of the items are missing")
    version = content[0]
    widths = number(2)
    offset_width, length_width, base_width = widths >> 12, widths >> 8 & 15, widths >> 4 & 15
    index_width = widths & 15 if version else 0
    places: dict[int, Extents] = {}
    seen = 0
    for _ in range(number(2 if version < 2 else 4)):
        item = number(2 if version < 2 else 4)
        method = number(2) & 15 if version else 0
        number(2)  # which file, always this one
        base = number(base_width)
        if method == 1:  # within `idat`
            base += data.body
        extents: Extents = []
        for _ in range(number(2)):
            number(index_width)
            start = base + number(offset_width)
            extents.append((start, number(length_width)))
        seen += 1 + len(extents)
        if seen > _MAX_EXTENTS or method > 1:
            raise MalformedError("the places of the items are not understood")
        places[item] = extents
    return places


def _emptied(kind: bytes, extents: Extents) -> Iterator[Patch]:
    total = sum(length for _, length in extents)
    xmp = _EMPTY_XMP if total >= len(_EMPTY_XMP) else b""
    content = _EMPTY_EXIF[:total] if kind == b"Exif" else xmp.ljust(total)
    for start, length in extents:
        yield Patch(start, content[:length], length - len(content[:length]))
        content = content[length:]
