"""A file that exceeds a limit is refused by the name of the setting, as soon as its header or its packets tell."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from typing import Any

import pytest

from mindia import Settings
from mindia.domain.media import Facts
from mindia.errors import MediaError, TooLargeError
from mindia.media.probe import Unprobed, probe
from mindia.testing import samples

VIDEOS: dict[str, dict[str, Any]] = {
    "mp4": {"container_format": "mp4"},
    "mov": {"container_format": "mov"},
    "mkv": {"container_format": "matroska"},
    "webm": {"container_format": "webm", "codec": "libvpx", "audio_codec": "libopus"},
    "avi": {"container_format": "avi", "codec": "mpeg4", "audio_codec": "libmp3lame"},
    "ts": {"container_format": "mpegts"},
    "mpeg-2": {"container_format": "mpegts", "codec": "mpeg2video", "audio_codec": "mp2", "frame_rate": 25},
}
SOUNDS: dict[str, dict[str, Any]] = {
    "mp3": {},
    "m4a": {"container_format": "ipod", "codec": "aac"},
    "flac": {"container_format": "flac", "codec": "flac"},
    "ogg": {"container_format": "ogg", "codec": "libopus"},
    "wav": {"container_format": "wav", "codec": "pcm_s16le"},
    "weba": {"container_format": "webm", "codec": "libopus"},
    "sound in mp4": {"container_format": "mp4", "codec": "aac"},
}


def facts(content: bytes, **settings: Any) -> Facts:
    unprobed = Unprobed(file=io.BytesIO(content), size=len(content), filename="x")
    return probe(unprobed, settings=Settings(**settings)).facts


@pytest.mark.parametrize("name", VIDEOS)
def test_a_video_of_large_frames_is_refused(name: str) -> None:
    content = samples.video(**VIDEOS[name], width=320, height=240, seconds=0.5)

    facts(content, max_video_pixels=320 * 240)
    with pytest.raises(TooLargeError, match=r"frames of 320 x 240 pixels; the limit is 76799 .*max_video_pixels\)"):
        facts(content, max_video_pixels=320 * 240 - 1)


@pytest.mark.parametrize(
    ("name", "told", "lie"),
    [
        ("mp4", struct.pack(">HH", 640, 480), struct.pack(">HH", 32, 24)),
        ("mkv", b"\xb0\x82\x02\x80\xba\x82\x01\xe0", b"\xb0\x82\x00\x20\xba\x82\x00\x18"),
        ("avi", struct.pack("<II", 640, 480), struct.pack("<II", 32, 24)),
    ],
)
def test_a_header_that_makes_the_frames_of_a_video_small_does_not_help(name: str, told: bytes, lie: bytes) -> None:
    content = samples.video(**VIDEOS[name], width=640, height=480, seconds=0.5)
    assert told in content

    for limit in (10_000, 640 * 480 - 1):
        with pytest.raises(TooLargeError, match=r"frames of 640 x 480 pixels.*max_video_pixels\)"):
            facts(content.replace(told, lie), max_video_pixels=limit)


@pytest.mark.parametrize("name", VIDEOS)
def test_a_video_that_plays_for_too_long_is_refused(name: str) -> None:
    content = samples.video(**VIDEOS[name], seconds=3)

    facts(content, max_video_seconds=3.2, max_audio_seconds=1)
    with pytest.raises(TooLargeError, match=r"plays for [23]\.\d+ seconds; the limit for video is 2.5 .*video_seconds"):
        facts(content, max_video_seconds=2.5)


@pytest.mark.parametrize("name", SOUNDS)
def test_sound_that_plays_for_too_long_is_refused(name: str) -> None:
    content = samples.audio(**SOUNDS[name], seconds=3)

    facts(content, max_audio_seconds=3.2, max_video_seconds=1)
    with pytest.raises(TooLargeError, match=r"plays for [23]\.\d+ seconds; the limit for audio is 2.5 .*audio_seconds"):
        facts(content, max_audio_seconds=2.5)


def shortened_mp4(content: bytes) -> bytes:
    """Write a tenth of a second into the headers of movie and tracks (ISO/IEC 14496-12, 8.2.2 and 8.4.2)."""
    for kind in (b"mvhd", b"mdhd"):
        at = content.find(kind)
        while at >= 0:
            time_scale = int.from_bytes(content[at + 16 : at + 20])
            content = content[: at + 20] + struct.pack(">I", time_scale // 10) + content[at + 24 :]
            at = content.find(kind, at + 1)
    return content


def shortened_matroska(content: bytes) -> bytes:
    """Write a tenth of a second into the header (RFC 9559, 5.1.2.10): milliseconds, as a double."""
    at = content.index(b"\x44\x89\x88") + 3
    return content[:at] + struct.pack(">d", 100.0) + content[at + 8 :]


def shortened_flac(content: bytes) -> bytes:
    """Write a tenth of a second into the number of samples (RFC 9639, 8.2), the last 36 bits before the MD5."""
    return content[:21] + bytes([content[21] & 0xF0]) + struct.pack(">I", 4_410) + content[26:]


def shortened_mp3(content: bytes) -> bytes:
    """Write few frames into the header that encoders put into the first frame."""
    at = content.index(b"Info") + 8
    return content[:at] + struct.pack(">I", 4) + content[at + 4 :]


@pytest.mark.parametrize(
    ("make", "shortened"),
    [
        (lambda: samples.video(seconds=3), shortened_mp4),
        (lambda: samples.video("mov", seconds=3, audio_codec=None), shortened_mp4),
        (lambda: samples.video("matroska", seconds=3), shortened_matroska),
        (lambda: samples.audio("ipod", codec="aac", seconds=3), shortened_mp4),
        (lambda: samples.audio("flac", codec="flac", seconds=3), shortened_flac),
        (lambda: samples.audio(seconds=3), shortened_mp3),
    ],
    ids=["mp4", "mov", "mkv", "m4a", "flac", "mp3"],
)
def test_a_header_that_makes_a_file_short_does_not_help(
    make: Callable[[], bytes], shortened: Callable[[bytes], bytes]
) -> None:
    content = make()
    lying = shortened(content)
    assert lying != content

    with pytest.raises(TooLargeError, match=r"plays for 3\.\d+ seconds"):
        facts(lying, max_video_seconds=2, max_audio_seconds=2)
    assert getattr(facts(lying), "duration", 0) == pytest.approx(3, abs=0.1)


def test_a_document_of_too_many_pages_is_refused() -> None:
    content = samples.pdf(["text"] * 5)

    facts(content, max_document_pages=5)
    with pytest.raises(TooLargeError, match=r"'x' has 5 pages; the limit is 4 \(Settings.max_document_pages\)"):
        facts(content, max_document_pages=4)


def test_what_no_decoder_is_known_for_is_refused_and_the_error_says_so() -> None:
    content = samples.video(audio_codec=None).replace(b"avc1", b"zzzz").replace(b"avcC", b"free")

    with pytest.raises(MediaError, match="not known"):
        facts(content)
