"""MP4 and QuickTime that mean harm. Their pictures are JPEG, which every container takes."""

from __future__ import annotations

import struct

from tests.corpus.containers import (
    box,
    full,
    large_box,
    movie_header,
    mp4,
)
from tests.corpus.formats import zeros
from tests.corpus.hostile import CORRUPT, UNREADABLE, HostileFile, either, refused

from mindia.testing import samples

_PICTURE = samples.image()
_FIVE = [_PICTURE] * 5
_BRAND = box(b"ftyp", b"isom", bytes(4), b"isom")
_MOST = 2**32 - 1


def _picture(width: int, height: int) -> bytes:
    """A JPEG that says that it is so large."""
    at = _PICTURE.index(b"\xff\xc0") + 5
    return _PICTURE[:at] + struct.pack(">HH", height, width) + _PICTURE[at + 4 :]


def _table(kind: bytes, *numbers: int) -> dict[bytes, bytes]:
    """In place of the table of that name."""
    return {kind: full(kind, struct.pack(f">{len(numbers)}I", *numbers))}


def _movie(*boxes: bytes) -> bytes:
    return _BRAND + b"".join(boxes)


def _nested(kind: bytes, depth: int) -> bytes:
    """Boxes in boxes, of which each says truly how large it is."""
    return b"".join(struct.pack(">I4s", 8 * (depth - level), kind) for level in range(depth))


def _reference(kind: bytes, content: bytes) -> bytes:
    """Pictures that are said to be in another file."""
    return mp4(_FIVE, brand=b"qt  ", data_reference=full(kind, content))


def _alias(path: str) -> bytes:
    """A record of macOS that names a file by its path, as QuickTime writes it."""
    name = path.rpartition("/")[2].encode()[:63]
    volume = b"\4root"
    record = bytearray(150)
    record[10 : 10 + len(volume)] = volume
    record[50 : 51 + len(name)] = bytes([len(name)]) + name
    encoded = path.encode()
    tail = b"".join(
        struct.pack(">HH", kind, len(value)) + value + bytes(len(value) & 1)
        for kind, value in ((2, encoded), (18, encoded), (19, b"/"))
    )
    record[4:6] = struct.pack(">H", len(record) + len(tail) + 4)
    return bytes(record) + tail + b"\xff\xff\0\0"


def _elsewhere(url: str) -> bytes:
    """A movie that is said to be at that address (QuickTime File Format, reference movies)."""
    encoded = url.encode() + b"\0"
    reference = box(b"rdrf", bytes(4), b"url ", struct.pack(">I", len(encoded)), encoded)
    return box(b"moov", box(b"rmra", box(b"rmda", reference)))


MOVIES: dict[str, HostileFile] = {
    "MP4 of ten thousand boxes in each other": refused("x.mp4", lambda _: _movie(_nested(b"moov", 10_000)), UNREADABLE),
    "MP4 of ten thousand tracks in each other": refused(
        "x.mp4", lambda _: _movie(box(b"moov", _nested(b"trak", 10_000))), UNREADABLE
    ),
    "MP4 of a million empty boxes": either(
        "x.mp4", "video/mp4", lambda _: _movie(box(b"free") * 1_000_000) + mp4(_FIVE)[len(_BRAND) :]
    ),
    "MP4 whose index is said to be empty": refused("x.mp4", lambda _: _movie(box(b"moov", size=8)), CORRUPT),
    "MP4 whose index goes on to the end": refused("x.mp4", lambda _: _movie(box(b"moov", bytes(99), size=0)), CORRUPT),
    "MP4 whose index is shorter than its head": refused(
        "x.mp4", lambda _: _movie(box(b"moov", bytes(99), size=4)), CORRUPT
    ),
    "MP4 whose index has a size of 64 bits that is nothing": refused(
        "x.mp4", lambda _: _movie(large_box(b"moov", bytes(99), size=0)), CORRUPT
    ),
    "MP4 whose index has 2^63 bytes": refused(
        "x.mp4", lambda _: _movie(large_box(b"moov", bytes(99), size=1 << 63)), CORRUPT
    ),
    "MP4 whose index has 2^64 bytes": refused(
        "x.mp4", lambda _: _movie(large_box(b"moov", bytes(99), size=2**64 - 1)), CORRUPT
    ),
    "MP4 whose brands have 4 GB": refused("x.mp4", lambda _: box(b"ftyp", b"isom", bytes(99), size=_MOST), CORRUPT),
    "MP4 of nothing but its brand": refused("x.mp4", lambda _: _BRAND, CORRUPT),
    "MP4 without a track": refused("x.mp4", lambda _: _movie(box(b"moov", movie_header())), CORRUPT),
    "MP4 of 2^32 sizes that are not there": either(
        "x.mp4", "video/mp4", lambda _: mp4(_FIVE, tables=_table(b"stsz", 0, _MOST, 700))
    ),
    "MP4 of 2^32 pictures of one size": either(
        "x.mp4", "video/mp4", lambda _: mp4(_FIVE, tables=_table(b"stsz", 1, _MOST))
    ),
    "MP4 of fifty million pictures of one size": either(
        "x.mp4",
        "video/mp4",
        lambda _: mp4(
            _FIVE,
            tables=_table(b"stsz", 1, 50_000_000)
            | _table(b"stts", 1, 50_000_000, 1)
            | _table(b"stsc", 1, 1, 50_000_000, 1),
        ),
    ),
    "MP4 of ten million pictures of one size": either(
        "x.mp4",
        "video/mp4",
        lambda _: mp4(
            _FIVE,
            tables=_table(b"stsz", 1, 10_000_000)
            | _table(b"stts", 1, 10_000_000, 1)
            | _table(b"stsc", 1, 1, 10_000_000, 1),
        ),
    ),
    "MP4 of 2^32 times that are not there": either(
        "x.mp4", "video/mp4", lambda _: mp4(_FIVE, tables=_table(b"stts", _MOST, 5, 1))
    ),
    "MP4 of one time for 2^32 pictures": either(
        "x.mp4", "video/mp4", lambda _: mp4(_FIVE, tables=_table(b"stts", 1, _MOST, _MOST))
    ),
    "MP4 of 2^32 chunks": either("x.mp4", "video/mp4", lambda _: mp4(_FIVE, tables=_table(b"stco", _MOST, 28))),
    "MP4 of 2^32 pictures in a chunk": either(
        "x.mp4", "video/mp4", lambda _: mp4(_FIVE, tables=_table(b"stsc", 1, 1, _MOST, 1))
    ),
    "MP4 of 2^32 kinds of picture": either(
        "x.mp4", "video/mp4", lambda _: mp4(_FIVE, tables=_table(b"stsd", _MOST, 16, 0x6A706567, 0, 1))
    ),
    "MP4 of 2^32 offsets in time": either(
        "x.mp4", "video/mp4", lambda _: mp4(_FIVE, tables=_table(b"ctts", _MOST, _MOST, 0x80000000))
    ),
    "MP4 of 2^32 edits": either(
        "x.mp4",
        "video/mp4",
        lambda _: mp4(_FIVE, edits=box(b"edts", full(b"elst", struct.pack(">I", _MOST), bytes(60)))),
    ),
    "MP4 of two hundred thousand edits": either(
        "x.mp4",
        "video/mp4",
        lambda _: mp4(
            _FIVE,
            edits=box(b"edts", full(b"elst", struct.pack(">I", 200_000), struct.pack(">IiI", 1, 0, 65536) * 200_000)),
        ),
    ),
    "MP4 without a picture": refused("x.mp4", lambda _: mp4([]), CORRUPT),
    "MP4 of pictures without a byte": refused("x.mp4", lambda _: mp4([b""] * 5), CORRUPT),
    "MP4 whose pictures are behind its end": refused(
        "x.mp4", lambda _: mp4(_FIVE, tables=_table(b"stco", 1, 0x7FFFFFFF)), CORRUPT
    ),
    "MP4 of no duration": either(
        "x.mp4", "video/mp4", lambda _: mp4(_FIVE, header=movie_header(duration=0), duration=0)
    ),
    "MP4 without a timescale": either(
        "x.mp4", "video/mp4", lambda _: mp4(_FIVE, header=movie_header(timescale=0), timescale=0)
    ),
    "MP4 of a negative timescale": either(
        "x.mp4", "video/mp4", lambda _: mp4(_FIVE, header=movie_header(timescale=-1), timescale=-1)
    ),
    "MP4 of an enormous timescale": either(
        "x.mp4", "video/mp4", lambda _: mp4(_FIVE, header=movie_header(timescale=0x7FFFFFFF), timescale=0x7FFFFFFF)
    ),
    "MP4 that says that it lasts for 31 years": refused(
        "x.mp4",
        lambda _: mp4(
            _FIVE,
            header=movie_header(timescale=1, duration=10**9),
            timescale=1,
            duration=10**9,
            tables=_table(b"stts", 1, 5, 200_000_000),
        ),
        UNREADABLE,
    ),
    "MP4 whose header alone says that it lasts for 31 years": either(
        "x.mp4", "video/mp4", lambda _: mp4(_FIVE, header=movie_header(timescale=1, duration=10**9))
    ),
    "MP4 that says that it lasts for 2^63 units": either(
        "x.mp4", "video/mp4", lambda _: mp4(_FIVE, header=movie_header(duration=2**63), duration=2**63 - 1)
    ),
    "MP4 that says that it lasts for -1 units": either(
        "x.mp4", "video/mp4", lambda _: mp4(_FIVE, header=movie_header(duration=2**64 - 1), duration=2**64 - 1)
    ),
    "MP4 of forty tracks": either("x.mp4", "video/mp4", lambda _: mp4(_FIVE, tracks=40)),
    "MP4 of ten thousand tracks": either("x.mp4", "video/mp4", lambda _: mp4(_FIVE, tracks=10_000)),
    "MP4 of pictures of 256 megapixels": refused("x.mp4", lambda _: mp4([_picture(16_000, 16_000)] * 2), UNREADABLE),
    "MP4 of pictures of 4 gigapixels": refused("x.mp4", lambda _: mp4([_picture(65_500, 65_500)] * 2), UNREADABLE),
    "MP4 whose pictures are smaller than it says": either(
        "x.mp4", "video/mp4", lambda _: mp4(_FIVE, width=65_535, height=65_535)
    ),
    "MP4 of pictures without compression, 4 gigapixels": refused(
        "x.mov", lambda _: mp4(_FIVE, brand=b"qt  ", codec=b"raw ", width=65_535, height=65_535), UNREADABLE
    ),
    "MP4 of pixels that are absurdly wide": either(
        "x.mp4", "video/mp4", lambda _: mp4(_FIVE, in_entry=box(b"pasp", struct.pack(">II", 2**31 - 1, 1)))
    ),
    "MP4 of pixels that are absurdly narrow": either(
        "x.mp4", "video/mp4", lambda _: mp4(_FIVE, in_entry=box(b"pasp", struct.pack(">II", 1, 2**31 - 1)))
    ),
    "MP4 of pixels without a size": either("x.mp4", "video/mp4", lambda _: mp4(_FIVE, in_entry=box(b"pasp", bytes(8)))),
    "MP4 that is turned by nothing": either("x.mp4", "video/mp4", lambda _: mp4(_FIVE, matrix=bytes(36))),
    "MP4 that is turned by an absurd matrix": either(
        "x.mp4", "video/mp4", lambda _: mp4(_FIVE, matrix=b"\x80\0\0\0\x7f\xff\xff\xff\0" * 4)
    ),
    "MP4 with a compressed index of a gigabyte": refused(
        "x.mov",
        lambda _: (
            box(b"ftyp", b"qt  ", bytes(4))
            + box(
                b"moov",
                box(b"cmov", box(b"dcom", b"zlib"), box(b"cmvd", struct.pack(">I", 10**9) + zeros(10**9))),
            )
        ),
        UNREADABLE,
    ),
    "MP4 of fragments that are fifty million pictures": either(
        "x.mp4",
        "video/mp4",
        lambda _: (
            mp4(_FIVE)
            + box(
                b"moof",
                full(b"mfhd", struct.pack(">I", 1)),
                box(b"traf", full(b"tfhd", struct.pack(">II", 1, 1)), full(b"trun", struct.pack(">I", 50_000_000))),
            )
        ),
    ),
    "MP4 whose tracks refer to one another": either(
        "x.mp4",
        "video/mp4",
        lambda _: mp4(_FIVE, tracks=2).replace(b"mdhd", b"tref").replace(b"vmhd", b"chap"),
    ),
    "MOV whose bytes are in another file, by address": either(
        "x.mov", "video/quicktime", lambda c: _reference(b"url ", f"file://{c.path}".encode() + b"\0")
    ),
    "MOV whose bytes are on another machine": either(
        "x.mov", "video/quicktime", lambda c: _reference(b"url ", c.url.encode() + b"\0")
    ),
    "MOV whose bytes are in another file, by alias": refused(
        "x.mov", lambda c: _reference(b"alis", _alias(str(c.path))), CORRUPT
    ),
    "MOV that is on another machine": refused("x.mov", lambda c: _elsewhere(c.url), CORRUPT),
    "MOV that is in another file": refused("x.mov", lambda c: _elsewhere(f"file://{c.path}"), CORRUPT),
}
