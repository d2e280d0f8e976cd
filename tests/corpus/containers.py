"""Writers of containers of video that write whatever they are told, right or wrong."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from tests.corpus.formats import checksum32, chunk, riff


def avi(
    frames: Sequence[bytes],
    *,
    codec: bytes = b"MJPG",
    width: int = 64,
    height: int = 48,
    scale: int = 1,
    rate: int = 10,
    streams: Sequence[bytes] = (),
    in_stream: bytes = b"",
    in_movie: bytes = b"",
    behind: bytes = b"",
) -> bytes:
    """Return an AVI of one video stream.

    Args:
        frames: Coded pictures.
        codec: Its four characters.
        width: Of the picture.
        height: Of the picture.
        scale: Of the time.
        rate: Frames in `scale` seconds.
        streams: Further lists `strl`.
        in_stream: Chunks behind the format of the stream.
        in_movie: Chunks before the frames.
        behind: Chunks at the end.
    """
    main = struct.pack("<8Iii16x", 100_000, 0, 0, 16, len(frames), 0, 1 + len(streams), 1 << 20, width, height)
    head = avi_stream_header(b"vids", codec, scale=scale, rate=rate, length=len(frames))
    bitmap = struct.pack("<IiiHH4sIiiII", 40, width, height, 1, 24, codec, 3 * width * height & 0xFFFFFFFF, 0, 0, 0, 0)
    video = chunk(b"LIST", b"strl" + head + chunk(b"strf", bitmap) + in_stream)
    headers = chunk(b"LIST", b"hdrl" + chunk(b"avih", main) + video + b"".join(streams))
    movie = chunk(b"LIST", b"movi" + in_movie + b"".join(chunk(b"00dc", frame) for frame in frames))
    return riff(b"AVI ", headers, movie, behind)


def avi_stream_header(kind: bytes, codec: bytes, *, scale: int = 1, rate: int = 10, length: int = 1) -> bytes:
    """Return the chunk `strh`."""
    return chunk(b"strh", struct.pack("<4s4sIHHIIIIIIiI8x", kind, codec, 0, 0, 0, 0, scale, rate, 0, length, 0, -1, 0))


def box(kind: bytes, *content: bytes, size: int | None = None) -> bytes:
    """Return a box of ISO media (ISO/IEC 14496-12, 4.2); `size` is what it says of itself."""
    body = b"".join(content)
    return struct.pack(">I", 8 + len(body) if size is None else size) + kind + body


def large_box(kind: bytes, *content: bytes, size: int) -> bytes:
    """Return a box whose size, as it says of itself, has 64 bits."""
    return struct.pack(">I4sQ", 1, kind, size) + b"".join(content)


def full(kind: bytes, *content: bytes, version: int = 0, flags: int = 0) -> bytes:
    """Return a box that has version and flags."""
    return box(kind, struct.pack(">I", version << 24 | flags), *content)


SELF_CONTAINED = full(b"url ", flags=1)

UNITY = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)


def movie_header(*, timescale: int = 10, duration: int = 5) -> bytes:
    """Return the box `mvhd`, with room for 64 bits."""
    times = struct.pack(">QQIQ", 0, 0, timescale & 0xFFFFFFFF, duration)
    return full(b"mvhd", times, struct.pack(">IH10x", 1 << 16, 1 << 8), UNITY, bytes(24), b"\0\0\0\2", version=1)


def track(
    *,
    offset: int,
    sizes: Sequence[int],
    codec: bytes = b"jpeg",
    width: int = 64,
    height: int = 48,
    timescale: int = 10,
    duration: int | None = None,
    data_reference: bytes = SELF_CONTAINED,
    tables: dict[bytes, bytes] | None = None,
    edits: bytes = b"",
    in_entry: bytes = b"",
    matrix: bytes = UNITY,
) -> bytes:
    """Return a box `trak` of pictures that stand one after the other.

    Args:
        offset: Where the first one begins.
        sizes: Of the pictures in bytes.
        codec: Its four characters.
        width: Of the picture.
        height: Of the picture.
        timescale: Units in a second; a picture lasts one unit.
        duration: In units; by default as many as there are pictures.
        data_reference: Where the bytes are.
        tables: In place of the boxes of the same name, such as `stsz`.
        edits: A box `edts`.
        in_entry: Boxes behind the description of the codec.
        matrix: How the pictures are turned.
    """
    duration = len(sizes) if duration is None else duration
    size = struct.pack(">II", width << 16 & 0xFFFFFFFF, height << 16 & 0xFFFFFFFF)
    header = full(b"tkhd", struct.pack(">QQIIQ16x", 0, 0, 1, 0, duration), matrix, size, version=1, flags=7)
    entry = box(
        codec,
        struct.pack(">6xH16xHH", 1, width & 0xFFFF, height & 0xFFFF),
        struct.pack(">IIIH32xHh", 72 << 16, 72 << 16, 0, 1, 24, -1),
        in_entry,
    )
    made = {
        b"stsd": full(b"stsd", struct.pack(">I", 1), entry),
        b"stts": full(b"stts", struct.pack(">III", 1, len(sizes), 1)),
        b"stsc": full(b"stsc", struct.pack(">IIII", 1, 1, len(sizes), 1)),
        b"stsz": full(b"stsz", struct.pack(f">II{len(sizes)}I", 0, len(sizes), *sizes)),
        b"stco": full(b"stco", struct.pack(">II", 1, offset)),
    } | (tables or {})
    data = box(b"dinf", full(b"dref", struct.pack(">I", 1), data_reference))
    information = box(b"minf", full(b"vmhd", bytes(8), flags=1), data, box(b"stbl", *made.values()))
    media = box(
        b"mdia",
        full(b"mdhd", struct.pack(">QQIQI", 0, 0, timescale & 0xFFFFFFFF, duration, 0), version=1),
        full(b"hdlr", b"\0\0\0\0vide", bytes(13)),
        information,
    )
    return box(b"trak", header, edits, media)


def mp4(
    frames: Sequence[bytes],
    *,
    brand: bytes = b"isom",
    front: bytes = b"",
    tracks: int = 1,
    header: bytes = b"",
    **of: Any,
) -> bytes:
    """Return a movie whose pictures stand before its index.

    Args:
        frames: Coded pictures.
        brand: Of the file.
        front: Boxes before the pictures.
        tracks: How many there are, all alike.
        header: In place of the box `mvhd`.
        of: For `track`.
    """
    beginning = box(b"ftyp", brand, bytes(4), brand) + front
    offset = len(beginning) + 8
    one = track(offset=offset, sizes=[len(frame) for frame in frames], **of)
    return beginning + box(b"mdat", *frames) + box(b"moov", header or movie_header(), *[one] * tracks)


def element(number: int, *content: bytes, size: int | None = None) -> bytes:
    """Return an element of EBML (RFC 8794) with a size of eight bytes; `size` is what it says of itself."""
    body = b"".join(content)
    name = number.to_bytes((number.bit_length() + 7) // 8)
    return name + (1 << 56 | (len(body) if size is None else size)).to_bytes(8) + body


UNKNOWN = (1 << 56) - 1
"""The size of an element that says not how long it is."""


def number_of(value: int) -> bytes:
    """Return a number as EBML keeps it."""
    return value.to_bytes(8)


def matroska_head(kind: bytes = b"matroska") -> bytes:
    """Return what stands before the segment."""
    doc = b"\x42\x82" + bytes([0x80 | len(kind)]) + kind  # writers give its length one byte
    return element(0x1A45DFA3, element(0x4286, b"\1"), doc, element(0x4287, b"\4"), element(0x4285, b"\2"))


def matroska(
    frames: Sequence[bytes],
    *,
    kind: bytes = b"matroska",
    codec: bytes = b"V_MJPEG",
    width: int = 64,
    height: int = 48,
    scale: int = 1_000_000,
    duration: float = 500.0,
    in_information: bytes = b"",
    in_track: bytes = b"",
    before: bytes = b"",
    behind: bytes = b"",
    tracks: int = 1,
    size: int | None = None,
) -> bytes:
    """Return a Matroska file of one video track and one cluster (RFC 9559).

    Args:
        frames: Coded pictures, 100 units of time apart.
        kind: matroska or webm.
        codec: As Matroska names it.
        width: Of the picture.
        height: Of the picture.
        scale: Nanoseconds of a unit of time.
        duration: In these units.
        in_information: Further elements of `Info`.
        in_track: Further elements of `TrackEntry`.
        before: Elements before `Info`.
        behind: Elements behind the cluster.
        tracks: How many there are, all alike.
        size: Of the segment and of the cluster, as they say of themselves.
    """
    information = element(
        0x1549A966, element(0x2AD7B1, number_of(scale)), element(0x4489, struct.pack(">d", duration)), in_information
    )
    video = element(0xE0, element(0xB0, number_of(width)), element(0xBA, number_of(height)))
    entries = [
        element(
            0xAE,
            *(element(0xD7, number_of(which)), element(0x73C5, number_of(which)), element(0x83, b"\1")),
            *(element(0x86, codec), video, in_track),
        )
        for which in range(1, tracks + 1)
    ]
    blocks = [
        element(0xA3, b"\x81" + struct.pack(">hB", at * 100 % 30_000, 0x80) + frame) for at, frame in enumerate(frames)
    ]
    cluster = element(0x1F43B675, element(0xE7, number_of(0)), *blocks, size=size)
    return matroska_head(kind) + element(
        0x18538067, before, information, element(0x1654AE6B, *entries), cluster, behind, size=size
    )


def ts_packet(kind: int, content: bytes, *, first: bool = True, number: int = 0) -> bytes:
    """Return a packet of a transport stream (ISO/IEC 13818-1, 2.4.3.2), filled up to its 188 bytes."""
    head = struct.pack(">BHB", 0x47, first << 14 | kind, 0x10 | number & 0xF)
    return head + content[:184].ljust(184, b"\xff")


def ts_table(table: int, content: bytes) -> bytes:
    """Return a table of a transport stream (2.4.4), as it stands in a packet."""
    body = struct.pack(">BHHBBB", table, 0xB000 | 9 + len(content), 1, 0xC1, 0, 0) + content
    return b"\0" + body + struct.pack(">I", checksum32(body, 0xFFFFFFFF))


class Bits:
    """Writes bits, and numbers in the code of Golomb as video has them (ITU-T H.264, 9.1)."""

    def __init__(self) -> None:
        self._bits = ""

    def put(self, value: int, width: int) -> Bits:
        """Write a number in so many bits."""
        self._bits += f"{value:0{width}b}"
        return self

    def golomb(self, *values: int) -> Bits:
        """Write numbers, small ones in few bits."""
        for value in values:
            self.put(value + 1, 2 * (value + 1).bit_length() - 1)
        return self

    def content(self) -> bytes:
        """Return them, with the bit that ends them."""
        bits = self._bits + "1"
        bits += "0" * (-len(bits) % 8)
        return int(bits, 2).to_bytes(len(bits) // 8)


def h264(width: int, height: int) -> bytes:
    """Return the beginning of a picture of so many pixels, multiples of 16 (ITU-T H.264, 7.3)."""
    sequence = (
        b"\x67\x42\0\x3e"
        + Bits().golomb(0, 0, 2, 1).put(0, 1).golomb(width // 16 - 1, height // 16 - 1).put(0b1100, 4).content()
    )
    picture = b"\x68" + Bits().golomb(0, 0).put(0, 2).golomb(0, 0, 0).put(0, 3).golomb(0, 0, 0).put(0, 3).content()
    part = b"\x65" + Bits().golomb(0, 7, 0).put(0, 4).golomb(0).put(0, 2).golomb(0).content() + bytes(range(1, 200))
    return b"".join(b"\0\0\0\1" + unit for unit in (sequence, picture, part))
