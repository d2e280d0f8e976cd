"""Writers of file formats that write whatever they are told, right or wrong."""

from __future__ import annotations

import struct
import zlib
from functools import cache

PNG = b"\x89PNG\r\n\x1a\n"


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """Return a chunk with its checksum (PNG, 5.3)."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(
    width: int,
    height: int,
    *chunks: bytes,
    depth: int = 8,
    colors: int = 2,
    data: bytes | None = None,
    interlaced: bool = False,
) -> bytes:
    """Return a PNG with other chunks before its pixels.

    Args:
        width: As the header says.
        height: As the header says.
        chunks: Whole chunks.
        depth: Bits of a sample.
        colors: 0 is grey, 2 RGB, 3 a palette, 6 RGBA.
        data: Its pixels before compression; by default black ones for an image of RGB and 8 bits.
        interlaced: Whether they come in seven passes.
    """
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colors, 0, 0, interlaced))
    pixels = (b"\0" + bytes(3 * width)) * height if data is None else data
    return PNG + header + b"".join(chunks) + png_chunk(b"IDAT", zlib.compress(pixels)) + png_chunk(b"IEND", b"")


def packed(block: bytes, times: int) -> bytes:
    """Return a block so many times, compressed: it stands alone, again and again (RFC 1950, RFC 1951)."""
    packer = zlib.compressobj(9, wbits=-15)
    one = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    checksum = 1
    for _ in range(times):
        checksum = zlib.adler32(block, checksum)
    return b"\x78\xda" + one * times + b"\3\0" + checksum.to_bytes(4)


@cache
def zeros(size: int) -> bytes:
    """Return so many zeros, compressed; whole millions of them."""
    return packed(bytes(1_000_000), size // 1_000_000)


def chunk(kind: bytes, content: bytes, *, size: int | None = None) -> bytes:
    """Return a chunk of RIFF, padded to an even length; `size` is what it says of itself."""
    return kind + struct.pack("<I", len(content) if size is None else size) + content + bytes(len(content) & 1)


def riff(form: bytes, *chunks: bytes, size: int | None = None) -> bytes:
    """Return a RIFF file of chunks."""
    return chunk(b"RIFF", form + b"".join(chunks), size=size)


def wave_format(
    *, channels: int = 1, rate: int = 8_000, bits: int = 16, byte_rate: int | None = None, align: int | None = None
) -> bytes:
    """Return the `fmt ` chunk of PCM."""
    align = channels * bits // 8 & 0xFFFF if align is None else align
    byte_rate = rate * align & 0xFFFFFFFF if byte_rate is None else byte_rate
    return chunk(b"fmt ", struct.pack("<HHIIHH", 1, channels, rate, byte_rate, align, bits))


def ogg_page(content: bytes, *, position: int, serial: int = 1, number: int = 0, flags: int = 0) -> bytes:
    """Return a page of Ogg with one packet (RFC 3533)."""
    lacing = bytes([255] * (len(content) // 255) + [len(content) % 255])
    head = struct.pack("<4sBBQIII", b"OggS", 0, flags, position & (1 << 64) - 1, serial, number, 0)
    page = head + bytes([len(lacing)]) + lacing + content
    return page[:22] + struct.pack("<I", checksum32(page)) + page[26:]


def checksum32(content: bytes, register: int = 0) -> int:
    """Return the checksum of 32 bits that Ogg and the transport stream share, which `zlib` has not."""
    for byte in content:
        register ^= byte << 24
        for _ in range(8):
            register = (register << 1 ^ 0x04C11DB7 if register & 1 << 31 else register << 1) & 0xFFFFFFFF
    return register


def syncsafe(value: int) -> bytes:
    """Return a number as ID3 keeps it: four times seven bits."""
    return bytes(value >> shift & 0x7F for shift in (21, 14, 7, 0))


def id3(*frames: bytes, size: int | None = None, flags: int = 0) -> bytes:
    """Return a tag of ID3v2.4; `size` is what it says of itself."""
    body = b"".join(frames)
    return b"ID3\4\0" + bytes([flags]) + syncsafe(len(body) if size is None else size) + body


def id3_frame(kind: bytes, content: bytes, *, size: int | None = None, flags: int = 0) -> bytes:
    """Return a frame of such a tag."""
    return kind + syncsafe(len(content) if size is None else size) + struct.pack(">H", flags) + content


def tiff(*entries: tuple[int, int, int, bytes], following: int = 0, count: int | None = None) -> bytes:
    """Return the metadata of a camera, as TIFF keeps it: one directory at 8.

    Args:
        entries: Tag, type, count and four bytes of value or offset.
        following: Where the next directory is.
        count: How many entries there are, as it says.
    """
    head = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries) if count is None else count)
    return (
        head + b"".join(struct.pack("<HHI", *entry[:3]) + entry[3] for entry in entries) + struct.pack("<I", following)
    )


def directory(at: int, *entries: tuple[int, int, int, bytes]) -> bytes:
    """Return a directory of TIFF that begins at an offset, its values behind it: tag, type, count and value."""
    behind = at + 2 + 12 * len(entries) + 4
    head, values = struct.pack("<H", len(entries)), b""
    for tag, kind, count, value in entries:
        short = len(value) <= 4
        head += struct.pack("<HHI", tag, kind, count)
        head += value.ljust(4, b"\0") if short else struct.pack("<I", behind + len(values))
        values += b"" if short else value
    return head + bytes(4) + values


def jpeg_segment(marker: int, content: bytes) -> bytes:
    """Return a segment of JPEG."""
    return struct.pack(">BBH", 0xFF, marker, 2 + len(content)) + content


def in_jpeg(content: bytes, *segments: bytes) -> bytes:
    """Put segments behind the beginning of a JPEG."""
    return content[:2] + b"".join(segments) + content[2:]
