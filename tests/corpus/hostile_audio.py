"""Sound that means harm."""

from __future__ import annotations

import struct
from functools import cache

from tests.corpus import formats
from tests.corpus.formats import chunk, id3, id3_frame, ogg_page, riff, wave_format, zeros
from tests.corpus.hostile import CORRUPT, TOO_LARGE, UNREADABLE, HostileFile, either, refused

from mindia.testing import samples

_SOUND = chunk(b"data", bytes(range(256)) * 40)
_SMALLEST = b"\xff\xf3\x14\xc4" + bytes(20)
"""A frame of MP3 of 8 kilobits a second and 24,000 samples."""
_MOST = 2**32 - 1


@cache
def _mp3() -> bytes:
    return samples.audio(seconds=0.5)[45:]


@cache
def _flac() -> bytes:
    return samples.audio("flac", codec="flac", seconds=0.2)


@cache
def _opus() -> bytes:
    return samples.audio("ogg", codec="libopus", seconds=0.2)


def _mp3_behind(tag: bytes) -> bytes:
    """The tag, and frames from the first whole one on."""
    sound = samples.audio(seconds=0.5)
    return tag + sound[sound.index(b"\xff\xfb") :]


def _picture(size: int, content: bytes) -> bytes:
    """A picture in FLAC (RFC 9639, 8.8) that is said to be so large."""
    kind = b"image/jpeg"
    return struct.pack(">II", 3, len(kind)) + kind + bytes(20) + struct.pack(">I", size) + content


def _flac_with(*blocks: tuple[int, int, bytes]) -> bytes:
    """Blocks of metadata behind the first: kind, size as it says, content."""
    content = _flac()
    written = b"".join(bytes([kind]) + size.to_bytes(3) + body for kind, size, body in blocks)
    return content[:4] + b"\0" + content[5:42] + written + content[42:]


def _flac_of(count: int, *, rate: int = 44_100) -> bytes:
    """It says that it has so many samples, 36 bits of them (RFC 9639, 8.2)."""
    content = bytearray(_flac())
    channels_and_depth = int.from_bytes(content[18:26]) >> 36 & 0xFF
    bits = rate << 44 | channels_and_depth << 36 | count
    content[18:26] = bits.to_bytes(8)
    return bytes(content)


def _pages() -> list[bytes]:
    content = _opus()
    return [b"OggS" + page for page in content.split(b"OggS")[1:]]


def _opus_ending_at(position: int) -> bytes:
    """Its last page is said to end at this sample."""
    *before, last = _pages()
    table = last[27 : 27 + last[26]]
    packets, length = [], 0
    for value in table:
        length += value
        if value < 255:
            packets.append(length)
            length = 0
    first = last[27 + len(table) :][: packets[0]]
    number = struct.unpack_from("<I", last, 18)[0]
    serial = struct.unpack_from("<I", last, 14)[0]
    return b"".join(before) + ogg_page(first, position=position, serial=serial, number=number, flags=4)


def _opus_head(*, channels: int = 1, family: int = 0, skip: int = 0) -> bytes:
    return ogg_page(b"OpusHead\1" + struct.pack("<BHIhB", channels, skip, 48_000, 0, family), position=0, flags=2)


def _opus_tags(count: int, size: int) -> bytes:
    return ogg_page(b"OpusTags" + struct.pack("<I4sII", 4, b"evil", count, size) + b"a=b" * 100, position=0, number=1)


def _many_streams(count: int) -> bytes:
    """So many streams that begin together, of which none goes on."""
    head = b"OpusHead\1" + struct.pack("<BHIhB", 1, 0, 48_000, 0, 0)
    one = ogg_page(head, position=0, serial=7, flags=2)
    return b"".join([one] * count) + b"".join(_pages())


AUDIO: dict[str, HostileFile] = {
    "WAV whose sound has 4 GB": either(
        "x.wav", "audio/wav", lambda _: riff(b"WAVE", wave_format(), chunk(b"data", bytes(8_000), size=_MOST))
    ),
    "WAV whose sound has no bytes": either(
        "x.wav", "audio/wav", lambda _: riff(b"WAVE", wave_format(), chunk(b"data", b""))
    ),
    "WAV whose sound is said to have no bytes": either(
        "x.wav", "audio/wav", lambda _: riff(b"WAVE", wave_format(), chunk(b"data", bytes(8_000), size=0))
    ),
    "WAV without channels": refused("x.wav", lambda _: riff(b"WAVE", wave_format(channels=0), _SOUND), CORRUPT),
    "WAV of 65,535 channels": refused("x.wav", lambda _: riff(b"WAVE", wave_format(channels=65_535), _SOUND), CORRUPT),
    "WAV of 512 channels": either("x.wav", "audio/wav", lambda _: riff(b"WAVE", wave_format(channels=512), _SOUND)),
    "WAV without a rate": refused("x.wav", lambda _: riff(b"WAVE", wave_format(rate=0), _SOUND), CORRUPT),
    "WAV of 2^31 samples a second": either(
        "x.wav", "audio/wav", lambda _: riff(b"WAVE", wave_format(rate=2**31 - 1), _SOUND)
    ),
    "WAV of 2^32 samples a second": refused("x.wav", lambda _: riff(b"WAVE", wave_format(rate=_MOST), _SOUND), CORRUPT),
    "WAV of 500 channels and 2^31 samples a second": either(
        "x.wav", "audio/wav", lambda _: riff(b"WAVE", wave_format(channels=500, rate=2**31 - 1), _SOUND)
    ),
    "WAV of 2^32 bytes a second": either(
        "x.wav", "audio/wav", lambda _: riff(b"WAVE", wave_format(byte_rate=_MOST), _SOUND)
    ),
    "WAV of no bytes a second": either("x.wav", "audio/wav", lambda _: riff(b"WAVE", wave_format(byte_rate=0), _SOUND)),
    "WAV without bits": either("x.wav", "audio/wav", lambda _: riff(b"WAVE", wave_format(bits=0), _SOUND)),
    "WAV of 65,535 bits": refused("x.wav", lambda _: riff(b"WAVE", wave_format(bits=65_535), _SOUND), CORRUPT),
    "WAV of samples without a size": either(
        "x.wav", "audio/wav", lambda _: riff(b"WAVE", wave_format(align=0), _SOUND)
    ),
    "WAV whose format has 4 GB": refused(
        "x.wav", lambda _: riff(b"WAVE", b"fmt \xff\xff\xff\xff" + bytes(99)), CORRUPT
    ),
    "WAV of twenty thousand empty chunks": refused(
        "x.wav", lambda _: riff(b"WAVE", chunk(b"junk", b"") * 20_000), CORRUPT
    ),
    "WAV without a chunk": refused("x.wav", lambda _: riff(b"WAVE"), CORRUPT),
    "WAV whose chunks hold themselves": either(
        "x.wav", "audio/wav", lambda _: riff(b"WAVE", b"LIST\xff\xff\xff\xffINFO" * 10_000, wave_format(), _SOUND)
    ),
    "RF64 of 2^64 bytes": either(
        "x.wav",
        "audio/wav",
        lambda _: (
            b"RF64\xff\xff\xff\xffWAVE"
            + chunk(b"ds64", struct.pack("<QQQI", 2**64 - 1, 2**63 - 2, 2**63 - 1, 0))
            + wave_format()
            + b"data\xff\xff\xff\xff"
            + bytes(8_000)
        ),
    ),
    "MP3 whose tag has 256 MB": refused("x.mp3", lambda _: id3(bytes(99), size=2**28 - 1) + _mp3(), CORRUPT),
    "MP3 with a hundred thousand tags": either("x.mp3", "audio/mpeg", lambda _: _mp3_behind(id3() * 100_000)),
    "MP3 with a picture of 256 MB": either(
        "x.mp3",
        "audio/mpeg",
        lambda _: _mp3_behind(id3(id3_frame(b"APIC", b"\0image/jpeg\0\3\0" + bytes(99), size=2**28 - 1))),
    ),
    "MP3 with a compressed picture of 200 MB": either(
        "x.mp3",
        "audio/mpeg",
        lambda _: _mp3_behind(
            id3(id3_frame(b"APIC", formats.syncsafe(200_000_000) + zeros(200_000_000), flags=0x0009))
        ),
    ),
    "MP3 with a hundred thousand frames of text": either(
        "x.mp3", "audio/mpeg", lambda _: _mp3_behind(id3(id3_frame(b"TXXX", b"\0a\0b") * 100_000))
    ),
    "MP3 with a title of 5 MB": either(
        "x.mp3", "audio/mpeg", lambda _: _mp3_behind(id3(id3_frame(b"TIT2", b"\3" + b"\xf0\x9f\x90\x88" * 1_250_000)))
    ),
    "MP3 with a title of control characters": either(
        "x.mp3", "audio/mpeg", lambda _: _mp3_behind(id3(id3_frame(b"TIT2", b"\1\xff\xfe\0\xd8\0\0\x1b\0\x2e\x20")))
    ),
    "MP3 whose header says 2^32 frames": either(
        "x.mp3",
        "audio/mpeg",
        lambda _: samples.audio(seconds=0.5).replace(b"Info\0\0\0\x0f", b"Info\0\0\0\x0f\xff\xff\xff\xff", 1),
    ),
    "MP3 of nothing but a tag": refused("x.mp3", lambda _: id3(id3_frame(b"TIT2", b"\3a")), CORRUPT),
    "MP3 of one header again and again": either("x.mp3", "audio/mpeg", lambda _: b"\xff\xfb\x90\xc0" * 200_000),
    "MP3 of the smallest frames": either("x.mp3", "audio/mpeg", lambda _: _SMALLEST * 100_000),
    "FLAC whose picture has 4 GB": either(
        "x.flac", "audio/flac", lambda _: _flac_with((6, 142, _picture(_MOST, bytes(100))))
    ),
    "FLAC whose picture has 16 MB that are not there": refused(
        "x.flac", lambda _: _flac()[:4] + b"\0" + _flac()[5:42] + b"\x86\xff\xff\xff" + bytes(99), CORRUPT
    ),
    "FLAC with 16 MB of picture": either(
        "x.flac", "audio/flac", lambda _: _flac_with((6, 2**24 - 1, _picture(2**24 - 1 - 42, bytes(2**24 - 1 - 42))))
    ),
    "FLAC of a hundred thousand blocks of metadata": either(
        "x.flac", "audio/flac", lambda _: _flac_with(*[(2, 4, b"evil")] * 100_000)
    ),
    "FLAC with 2^32 comments": either(
        "x.flac", "audio/flac", lambda _: _flac_with((4, 100, bytes(4) + b"\xff" * 4 + bytes(92)))
    ),
    "FLAC without a header": refused("x.flac", lambda _: b"fLaC\x80\0\0\x22" + bytes(34) + bytes(500), CORRUPT),
    "FLAC of 2^36 samples": either("x.flac", "audio/flac", lambda _: _flac_of(2**36 - 1)),
    "FLAC of 2^36 samples, one a second": either("x.flac", "audio/flac", lambda _: _flac_of(2**36 - 1, rate=1)),
    "OGG that ends at sample 2^63": either("x.ogg", "audio/ogg", lambda _: _opus_ending_at(2**63 - 1)),
    "OGG that ends before it begins": either("x.ogg", "audio/ogg", lambda _: _opus_ending_at(-(2**63))),
    "OGG that ends at sample -2": either("x.ogg", "audio/ogg", lambda _: _opus_ending_at(-2)),
    "OGG of ten thousand streams": either("x.ogg", "audio/ogg", lambda _: _many_streams(10_000)),
    "OGG without channels": refused("x.ogg", lambda _: _opus_head(channels=0) + b"".join(_pages()[1:]), CORRUPT),
    "OGG of 255 channels": refused(
        "x.ogg", lambda _: _opus_head(channels=255, family=1) + b"".join(_pages()[1:]), CORRUPT
    ),
    "OGG with 2^32 comments": refused("x.ogg", lambda _: _opus_head() + _opus_tags(_MOST, _MOST), CORRUPT),
    "OGG of pages without end": refused("x.ogg", lambda _: b"OggS" * 250_000, CORRUPT),
    "OGG of one packet that goes on for ever": refused(
        "x.ogg",
        lambda _: _opus_head() + ogg_page(bytes(255 * 254), position=-1, number=1)[:26] + b"\xff" * 200_000,
        CORRUPT,
    ),
    "M4A whose tags have 4 GB": either(
        "x.m4a",
        "audio/mp4",
        lambda _: (
            samples.audio("ipod", codec="aac", seconds=0.2)
            .replace(b"\xa9too", b"covr")
            .replace(b"data\0\0\0\1", b"data\0\0\0\x0d")
        ),
    ),
}


BUSY_AUDIO: dict[str, HostileFile] = {
    "WAV of a million empty chunks": refused(
        "x.wav", lambda _: riff(b"WAVE", chunk(b"junk", b"") * 1_000_000), UNREADABLE
    ),
    "MP3 of four million frames": refused("x.mp3", lambda _: _SMALLEST * 4_000_000, TOO_LARGE),
}
"""What would keep a parser at it for long."""
