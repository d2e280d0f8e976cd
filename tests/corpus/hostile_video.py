"""Videos other than MP4 that mean harm. Their pictures are JPEG, which every container takes."""

from __future__ import annotations

import random
import struct
from functools import cache

from tests.corpus.containers import (
    UNKNOWN,
    avi,
    avi_stream_header,
    element,
    h264,
    matroska,
    matroska_head,
    number_of,
    ts_packet,
    ts_table,
)
from tests.corpus.formats import chunk, zeros
from tests.corpus.hostile import CORRUPT, UNREADABLE, UNSUPPORTED, HostileFile, either, harmless, refused

from mindia.testing import samples

_PICTURE = samples.image()
_FIVE = [_PICTURE] * 5
_MOST = 2**32 - 1


def _picture(width: int, height: int) -> bytes:
    """A JPEG that says that it is so large."""
    at = _PICTURE.index(b"\xff\xc0") + 5
    return _PICTURE[:at] + struct.pack(">HH", height, width) + _PICTURE[at + 4 :]


def _nested_elements(number: int, depth: int) -> bytes:
    """Elements in elements, none of which says how large it is."""
    return element(number, size=UNKNOWN) * depth


def _playlist(source: str) -> bytes:
    return b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n%b\n#EXT-X-ENDLIST\n" % source.encode()


def _subtitles(source: str) -> bytes:
    """Subtitles within an AVI are a file of their own: here a playlist, of which some players opened each entry."""
    playlist = _playlist(source)
    name = "x".encode("utf-16le") + b"\0\0"
    packed = b"GAB2\0" + struct.pack("<HI", 2, len(name)) + name + struct.pack("<HI", 4, len(playlist)) + playlist
    stream = chunk(b"LIST", b"strl" + avi_stream_header(b"txts", bytes(4)) + chunk(b"strf", b""))
    return avi(_FIVE, streams=[stream], in_movie=chunk(b"01sb", packed))


def _index(of: int, *, entries: int = _MOST, at: int = 0) -> bytes:
    """An index of OpenDML whose entry points at `at` (OpenDML AVI File Format Extensions, 3.0)."""
    kind = 0 if of else 1  # an index of indexes, or of frames
    head = struct.pack("<HBBI4s12x", 4 if of else 2, 0, kind, entries, b"00dc")
    return chunk(b"indx", head + struct.pack("<QII", at, 24, 1) * 4)


@cache
def _vp8(width: int, height: int) -> bytes:
    """The beginning of a picture says how large it is (RFC 6386, 9.1)."""
    content = samples.video("webm", codec="libvpx", audio_codec=None, seconds=0.2)
    at = content.index(b"\x9d\x01\x2a") + 3
    return content[:at] + struct.pack("<HH", width, height) + content[at + 4 :]


def _packed(content: bytes) -> bytes:
    """Contents that are compressed with zlib (RFC 9559, 5.1.4.1.31)."""
    compression = element(0x5034, element(0x4254, b"\0"), content and element(0x4255, content))
    return element(0x6D80, element(0x6240, element(0x5032, b"\1"), element(0x5033, b"\0"), compression))


@cache
def _transport() -> bytes:
    return samples.video("mpegts", audio_codec=None, seconds=0.5)


def _clock(content: bytes, which: int, ticks: int) -> bytes:
    """Change when a picture is shown (ISO/IEC 13818-1, 2.4.3.7)."""
    at = -1
    for _ in range(which):
        at = content.index(b"\0\0\1\xe0", at + 1)
    only_shown = content[at + 7] >> 6 == 2
    place = at + 9
    stamp = struct.pack(
        ">BHH", (2 if only_shown else 3) << 4 | ticks >> 29 & 0xE | 1, ticks >> 14 & 0xFFFE | 1, ticks << 1 & 0xFFFE | 1
    )
    return content[:place] + stamp + content[place + 5 :]


def _programs(count: int) -> bytes:
    """So many programs, each with forty streams of which there is nothing."""
    listed = b"".join(struct.pack(">HH", number, 0xE000 | 0x100 + number) for number in range(1, count + 1))
    streams = b"".join(struct.pack(">BHH", 0x1B, 0xE000 | 0x1000 + number, 0xF000) for number in range(34))
    tables = [
        ts_packet(0x100 + number, ts_table(2, struct.pack(">HH", 0xFFFF, 0xF000) + streams))
        for number in range(1, count + 1)
    ]
    return ts_packet(0, ts_table(0, listed)) + b"".join(tables)


def _streams(count: int) -> bytes:
    """An AVI that says that it has so many streams, each with a header."""
    one = chunk(b"LIST", b"strl" + avi_stream_header(b"vids", b"MJPG") + chunk(b"strf", bytes(40)))
    return avi(_FIVE, streams=[one] * count)


VIDEOS: dict[str, HostileFile] = {
    "AVI whose subtitles are a playlist of another file": either(
        "x.avi", "video/x-msvideo", lambda c: _subtitles(str(c.path))
    ),
    "AVI whose subtitles are a playlist of another machine": either(
        "x.avi", "video/x-msvideo", lambda c: _subtitles(c.url)
    ),
    "AVI whose index has 2^32 entries": either("x.avi", "video/x-msvideo", lambda _: avi(_FIVE, in_stream=_index(0))),
    "AVI whose index of indexes holds itself": either(
        "x.avi", "video/x-msvideo", lambda _: avi(_FIVE, in_stream=_index(1, entries=4, at=212))
    ),
    "AVI whose index of indexes is behind its end": either(
        "x.avi", "video/x-msvideo", lambda _: avi(_FIVE, in_stream=_index(1, entries=4, at=2**63 - 1))
    ),
    "AVI whose old index is of noise": either(
        "x.avi", "video/x-msvideo", lambda _: avi(_FIVE, behind=chunk(b"idx1", b"00dc" + b"\xff" * 16_000))
    ),
    "AVI of no rate": either("x.avi", "video/x-msvideo", lambda _: avi(_FIVE, rate=0, scale=0)),
    "AVI of a frame in 136 years": either("x.avi", "video/x-msvideo", lambda _: avi(_FIVE, rate=1, scale=_MOST)),
    "AVI of 2^32 frames a second": either("x.avi", "video/x-msvideo", lambda _: avi(_FIVE, rate=_MOST, scale=1)),
    "AVI of a negative size": either("x.avi", "video/x-msvideo", lambda _: avi(_FIVE, width=-64, height=-48)),
    "AVI of pictures without compression, 4 gigapixels": refused(
        "x.avi", lambda _: avi(_FIVE, codec=b"RGB ", width=65_535, height=65_535), UNREADABLE
    ),
    "AVI of H.264 of 256 megapixels": refused(
        "x.avi", lambda _: avi([h264(16_000, 16_000)] * 2, codec=b"H264"), UNREADABLE
    ),
    "AVI of forty streams": either("x.avi", "video/x-msvideo", lambda _: _streams(40)),
    "AVI of a hundred thousand streams": either("x.avi", "video/x-msvideo", lambda _: _streams(100_000)),
    "AVI of lists in each other": refused(
        "x.avi", lambda _: b"RIFF\xff\xff\xff\x7fAVI " + b"LIST\xff\xff\xff\x7fhdrl" * 10_000, CORRUPT
    ),
    "AVI whose chunks are 4 GB": refused(
        "x.avi", lambda _: b"RIFF\xff\xff\xff\xffAVI " + b"strf\xff\xff\xff\xff" * 10, CORRUPT
    ),
    "MKV of segments in each other": refused(
        "x.mkv", lambda _: matroska_head() + _nested_elements(0x18538067, 10_000), UNREADABLE
    ),
    "MKV of chapters in each other": either(
        "x.mkv",
        "video/x-matroska",
        lambda _: matroska(_FIVE, before=element(0x1043A770, element(0x45B9, _nested_elements(0xB6, 5_000)))),
    ),
    "MKV of tags in each other": either(
        "x.mkv",
        "video/x-matroska",
        lambda _: matroska(_FIVE, before=element(0x1254C367, element(0x7373, _nested_elements(0x67C8, 5_000)))),
    ),
    "MKV whose elements have 2^56 bytes": refused(
        "x.mkv", lambda _: matroska_head() + element(0x18538067, element(0x1549A966, size=2**56 - 2)), CORRUPT
    ),
    "MKV whose parts go on before and after it in other files": either(
        "x.mkv",
        "video/x-matroska",
        lambda c: matroska(
            _FIVE,
            in_information=element(0x73A4, bytes(16))
            + element(0x3CB923, bytes(16))
            + element(0x3EB923, bytes(range(16)))
            + element(0x3C83AB, str(c.path).encode())
            + element(0x3E83BB, c.url.encode()),
        ),
    ),
    "MKV with attachments that name other files": either(
        "x.mkv",
        "video/x-matroska",
        lambda c: matroska(
            _FIVE,
            before=element(
                0x1941A469,
                *(
                    element(
                        0x61A7,
                        element(0x466E, source.encode()),
                        element(0x4660, b"text/uri-list"),
                        element(0x465C, source.encode()),
                        element(0x46AE, b"\1"),
                    )
                    for source in c.sources
                ),
            ),
        ),
    ),
    "MKV whose index points at itself": either(
        "x.mkv",
        "video/x-matroska",
        lambda _: matroska(
            _FIVE,
            before=element(
                0x114D9B74, *[element(0x4DBB, element(0x53AB, b"\x11\x4d\x9b\x74"), element(0x53AC, b"\0"))] * 50
            ),
        ),
    ),
    "MKV of compressed pictures of a gigabyte": either(
        "x.mkv", "video/x-matroska", lambda _: matroska([zeros(10**9)] * 5, in_track=_packed(b""))
    ),
    "MKV with a compressed description of its codec": either(
        "x.mkv",
        "video/x-matroska",
        lambda _: matroska(_FIVE, in_track=_packed(b"") + element(0x63A2, zeros(10**9))),
    ),
    "MKV without a timescale": either("x.mkv", "video/x-matroska", lambda _: matroska(_FIVE, scale=0)),
    "MKV of an enormous timescale": either("x.mkv", "video/x-matroska", lambda _: matroska(_FIVE, scale=2**63 - 1)),
    "MKV that lasts for ever": either("x.mkv", "video/x-matroska", lambda _: matroska(_FIVE, duration=float("inf"))),
    "MKV whose duration is no number": either(
        "x.mkv", "video/x-matroska", lambda _: matroska(_FIVE, duration=float("nan"))
    ),
    "MKV of a negative duration": either("x.mkv", "video/x-matroska", lambda _: matroska(_FIVE, duration=-1e12)),
    "MKV of forty tracks": either("x.mkv", "video/x-matroska", lambda _: matroska(_FIVE, tracks=40)),
    "MKV of pictures of 256 megapixels": refused(
        "x.mkv", lambda _: matroska([_picture(16_000, 16_000)] * 2, width=16_000, height=16_000), UNREADABLE
    ),
    "MKV of no pictures": refused("x.mkv", lambda _: matroska([]), CORRUPT),
    "MKV of another kind": refused("x.mkv", lambda _: matroska(_FIVE, kind=b"docs"), UNSUPPORTED),
    "MKV whose size shown is absurd": either(
        "x.mkv",
        "video/x-matroska",
        lambda _: matroska(_FIVE).replace(
            element(0xBA, number_of(48)), element(0xBA, number_of(48)) + element(0x54B0, number_of(2**40))
        ),
    ),
    "WEBM of pictures of 268 megapixels": refused("x.webm", lambda _: _vp8(16_383, 16_383), UNREADABLE),
    "WEBM of pictures of 100 megapixels": either("x.webm", "video/webm", lambda _: _vp8(10_000, 10_000)),
    "WEBM of noise behind its head": refused(
        "x.webm", lambda _: matroska_head(b"webm") + bytes(range(256)) * 100, CORRUPT
    ),
    "TS of nothing but filling": refused("x.ts", lambda _: ts_packet(0x1FFF, b"") * 20_000, CORRUPT),
    "TS of one table again and again": refused(
        "x.ts", lambda _: ts_packet(0, ts_table(0, struct.pack(">HH", 1, 0xE100))) * 20_000, CORRUPT
    ),
    "TS of forty programs of forty streams": refused("x.ts", lambda _: _programs(40) * 20, CORRUPT),
    "TS of noise": refused(
        "x.ts", lambda _: b"".join(b"\x47" + random.Random(at).randbytes(187) for at in range(20_000)), UNREADABLE
    ),
    "TS of a picture that goes on for ever": either(
        "x.ts", "video/mp2t", lambda _: _transport() + ts_packet(0x100, bytes(184), first=False) * 20_000
    ),
    "TS whose clock jumps by a day": refused("x.ts", lambda _: _clock(_transport(), 5, 2**33 - 1), UNREADABLE),
    "TS whose clock runs backwards": either("x.ts", "video/mp2t", lambda _: _clock(_transport(), 5, 1)),
    "MKV that is live": harmless("x.mkv", "video/x-matroska", lambda _: matroska(_FIVE, size=UNKNOWN, duration=0.0)),
}
