"""The frames of MP3 are counted, whatever is before, between and behind them."""

from __future__ import annotations

import io
import random
import struct

import pytest

from mindia import Settings
from mindia.domain.media import AudioFacts
from mindia.errors import CorruptMediaError
from mindia.media.probe import Unprobed, probe


def audio_facts(content: bytes) -> AudioFacts:
    found = probe(Unprobed(file=io.BytesIO(content), size=len(content), filename="x"), settings=Settings()).facts
    assert isinstance(found, AudioFacts)
    return found


def mp3_frame(version: int, layer: int, *, bitrate: int, rate: int, fill: bytes = b"\0") -> bytes:
    """A frame of silence; its fields are those of the header (ISO/IEC 11172-3, 2.4.1.3), its length is reckoned."""
    rates = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}[version]
    kilobits = {3: {3: 48, 9: 128, 14: 320}, 2: {1: 8, 8: 64, 14: 160}, 0: {1: 8, 8: 64, 14: 160}}[version][bitrate]
    length = (144 if version == 3 else 72) * kilobits * 1_000 // rates[rate]
    header = bytes([0xFF, 0xE0 | version << 3 | layer << 1 | 1, bitrate << 4 | rate << 2, 0xC4])
    return header + fill * (length - 4)


LAYER_3 = 1
MPEG_FRAMES = {
    "MPEG-1 of 44.1 kHz": (mp3_frame(3, LAYER_3, bitrate=9, rate=0), 1_152 / 44_100),
    "MPEG-1 of 48 kHz in 320 kbit/s": (mp3_frame(3, LAYER_3, bitrate=14, rate=1), 1_152 / 48_000),
    "MPEG-2 of 24 kHz in 8 kbit/s": (mp3_frame(2, LAYER_3, bitrate=1, rate=1), 576 / 24_000),
    "MPEG-2.5 of 8 kHz in 160 kbit/s": (mp3_frame(0, LAYER_3, bitrate=14, rate=2), 576 / 8_000),
}
ID3 = b"ID3\4\0\0" + bytes([0, 0, 2, 0]) + b"\xff\xfb\x90\xc4" * 64
OLD_TAG = b"TAG" + b"\xff\xfb\x90\xc4" * 31 + b"\0"
APE_TAG = (
    b"APETAGEX" + struct.pack("<IIII8x", 2_000, 64 + 32, 1, 0xA0000000) + b"\xff\xfb\x90\xc4" * 16
    + b"APETAGEX" + struct.pack("<IIII8x", 2_000, 64 + 32, 1, 0x80000000)
)  # fmt: skip


@pytest.mark.parametrize("name", MPEG_FRAMES)
@pytest.mark.parametrize(
    ("before", "between", "behind"),
    [
        (b"", b"", b""),
        (ID3, b"", OLD_TAG),
        (ID3 * 3, b"", APE_TAG + OLD_TAG),
        (ID3, ID3, b""),
        (b"", b"\0\xff\xfb junk " * 100, b"\xff\xff\xfb\x90"),
        (b"", bytes(70_000), bytes(2_000_000)),
    ],
    ids=["bare", "tags", "many tags", "two files in one", "junk", "zeros"],
)
def test_the_frames_of_mp3_are_counted_over_tags_and_junk(
    name: str, before: bytes, between: bytes, behind: bytes
) -> None:
    frame, seconds = MPEG_FRAMES[name]

    content = before + frame * 3_000 + between + frame * 1_000 + behind

    found = audio_facts(content)
    assert found.duration == pytest.approx(4_000 * seconds, abs=1e-6)
    assert found.bitrate == pytest.approx(len(frame) * 8 / seconds, rel=0.02)


def test_all_sizes_of_frames_of_mp3_are_counted_across_what_is_read_at_once() -> None:
    small, large = mp3_frame(3, LAYER_3, bitrate=3, rate=0), mp3_frame(3, LAYER_3, bitrate=14, rate=0)
    chance = random.Random(5)
    frames = [chance.choice([small, large]) for _ in range(10_000)]

    assert audio_facts(b"".join(frames)).duration == pytest.approx(10_000 * 1_152 / 44_100, abs=1e-6)


def test_an_index_of_mp3_is_no_sound_and_is_not_believed() -> None:
    frame, seconds = MPEG_FRAMES["MPEG-1 of 44.1 kHz"]
    index = bytearray(frame)
    index[21:33] = b"Xing" + struct.pack(">II", 1, 500)

    assert audio_facts(bytes(index) + frame * 1_000).duration == pytest.approx(1_000 * seconds, abs=1e-6)


def test_mp3_that_is_more_junk_than_sound_is_refused() -> None:
    frame, _ = MPEG_FRAMES["MPEG-1 of 44.1 kHz"]

    with pytest.raises(CorruptMediaError, match="more junk than sound"):
        audio_facts(frame * 100 + b"\xff\xfb\x90\xc0" * 1_100_000)
