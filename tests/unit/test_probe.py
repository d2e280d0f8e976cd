"""Facts come from the parser, and are those that the file was made with; what it cannot read is a typed error."""

from __future__ import annotations

import errno
import hashlib
import io
import random
import socket
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from mindia import Settings
from mindia.domain.media import AudioFacts, DocumentFacts, Facts, ImageFacts, MediaKind, VideoFacts
from mindia.errors import (
    CorruptMediaError,
    EmptyFileError,
    MediaError,
    TooLargeError,
    TypeMismatchError,
    UnsupportedTypeError,
)
from mindia.media.probe import Probed, Unprobed, check_facts, probe
from mindia.media.sniff import ALLOWED, MediaType
from mindia.media.video import probe_av
from mindia.testing import samples


def probed(content: bytes, filename: str = "x", *, declared: str | None = None, **settings: Any) -> Probed:
    unprobed = Unprobed(file=io.BytesIO(content), size=len(content), filename=filename, declared=declared)
    return probe(unprobed, settings=Settings(**settings))


def facts(content: bytes, filename: str = "x", **settings: Any) -> Facts:
    return probed(content, filename, **settings).facts


IMAGES = {"JPEG": "image/jpeg", "PNG": "image/png", "GIF": "image/gif", "WEBP": "image/webp", "AVIF": "image/avif"}


@pytest.mark.parametrize("image_format", IMAGES)
def test_an_image_has_its_size(image_format: str) -> None:
    found = probed(samples.image(image_format, width=61, height=35))

    assert found == Probed(content_type=IMAGES[image_format], facts=ImageFacts(width=61, height=35))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_an_image_has_its_size_as_displayed(image_format: str, orientation: int) -> None:
    turned = orientation >= 5

    found = facts(samples.image(image_format, width=64, height=48, orientation=orientation))

    assert found == (ImageFacts(width=48, height=64) if turned else ImageFacts(width=64, height=48))


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_turns_nothing(orientation: int) -> None:
    assert facts(samples.image(orientation=orientation)) == ImageFacts(width=64, height=48)


@pytest.mark.parametrize(
    ("mode", "image_format", "options"),
    [
        ("1", "PNG", {}),
        ("L", "JPEG", {}),
        ("LA", "PNG", {}),
        ("P", "PNG", {}),
        ("RGBA", "PNG", {}),
        ("RGBA", "WEBP", {"lossless": True}),
        ("I;16", "PNG", {}),
        ("CMYK", "JPEG", {}),
        ("RGB", "JPEG", {"progressive": True}),
        ("RGB", "JPEG", {"quality": 100, "subsampling": 0}),
        ("RGB", "PNG", {"compress_level": 0}),
        ("RGB", "GIF", {"save_all": True, "append_images": [Image.new("RGB", (3, 2), "red")]}),
        ("RGB", "WEBP", {"save_all": True, "append_images": [Image.new("RGB", (3, 2), "red")]}),
        ("RGB", "PNG", {"save_all": True, "append_images": [Image.new("RGB", (3, 2), "red")]}),
    ],
)
def test_an_image_may_have_any_mode(mode: str, image_format: str, options: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    Image.new(mode, (3, 2)).save(buffer, image_format, **options)

    assert facts(buffer.getvalue()) == ImageFacts(width=3, height=2)


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (2000, 7)])
def test_an_image_may_have_any_shape(size: tuple[int, int]) -> None:
    assert facts(samples.image(width=size[0], height=size[1])) == ImageFacts(width=size[0], height=size[1])


def audio_facts(content: bytes, **settings: Any) -> AudioFacts:
    found = facts(content, **settings)
    assert isinstance(found, AudioFacts)
    return found


@pytest.mark.parametrize(
    ("container_format", "codec", "content_type", "sample_rate"),
    [
        ("mp3", "libmp3lame", "audio/mpeg", 44_100),
        ("ipod", "aac", "audio/mp4", 44_100),
        ("flac", "flac", "audio/flac", 44_100),
        ("ogg", "libopus", "audio/ogg", 48_000),
        ("mp4", "aac", "audio/mp4", 44_100),
        ("mov", "aac", "audio/mp4", 44_100),
        ("webm", "libopus", "audio/webm", 48_000),
        ("matroska", "aac", "audio/x-matroska", 44_100),
    ],
)
@pytest.mark.parametrize("seconds", [0.5, 2.0])
def test_sound_has_its_duration_rate_and_channels(
    container_format: str, codec: str, content_type: str, sample_rate: int, seconds: float
) -> None:
    content = samples.audio(container_format, codec=codec, seconds=seconds)

    found = probed(content)

    assert found.content_type == content_type
    assert isinstance(found.facts, AudioFacts)
    assert found.facts.duration == pytest.approx(seconds, abs=0.06)  # encoders fill up their last frame
    assert found.facts.sample_rate == sample_rate
    assert found.facts.channels == 1
    assert 8_000 < found.facts.bitrate < 400_000


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("seconds", [0.01, 0.5, 3.0])
def test_uncompressed_sound_has_exact_facts(channels: int, seconds: float) -> None:
    content = samples.wav(seconds=seconds, sample_rate=8_000, channels=channels)

    assert facts(content) == AudioFacts(
        duration=seconds, bitrate=8_000 * 16 * channels, sample_rate=8_000, channels=channels
    )


def vbr_mp3(seconds: float) -> bytes:
    """Silence, then noise, of variable bitrate, without the header that would tell how long it is."""
    rate = 44_100
    buffer = io.BytesIO()
    noise = np.random.default_rng(1).integers(-20_000, 20_000, round(rate * seconds / 2), dtype=np.int16)
    samples_ = np.concatenate([np.zeros(round(rate * seconds / 2), dtype=np.int16), noise])
    with av.open(buffer, "w", format="mp3", options={"write_xing": "0", "id3v2_version": "0"}) as container:
        stream: Any = container.add_stream("libmp3lame", rate=rate, layout="mono", options={"q": "0"})
        stream.codec_context.qscale = True
        stream.codec_context.global_quality = 0
        frame = av.AudioFrame.from_ndarray(samples_.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        resampler = av.AudioResampler(
            format=stream.codec_context.format, layout="mono", rate=rate, frame_size=stream.codec_context.frame_size
        )
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def test_sound_of_variable_bitrate_without_a_header_has_its_true_duration() -> None:
    content = vbr_mp3(8.0)
    with av.open(io.BytesIO(content), "r", format="mp3") as container:
        assert container.duration is not None
        guessed = container.duration / 1_000_000
    assert abs(guessed - 8.0) > 1.0, "the header alone tells it: this would test nothing"

    assert audio_facts(content).duration == pytest.approx(8.0, abs=0.1)


def flac_with_cover(size: int) -> bytes:
    """Behind its first block of metadata there is one of a picture (RFC 9639, 8.8)."""
    content = samples.audio("flac", codec="flac", seconds=0.5)
    kind = b"image/jpeg"
    picture = struct.pack(">II", 3, len(kind)) + kind + bytes(20) + struct.pack(">I", size) + bytes(size)
    return content[:42] + b"\6" + len(picture).to_bytes(3) + picture + content[42:]


def opus_with_cover(size: int) -> bytes:
    buffer = io.BytesIO(samples.audio("ogg", codec="libopus", seconds=0.5))
    covered = io.BytesIO()
    with av.open(buffer, "r") as source, av.open(covered, "w", format="ogg") as target:
        stream = target.add_stream_from_template(source.streams.audio[0])
        stream.metadata["METADATA_BLOCK_PICTURE"] = "A" * size
        for packet in source.demux(source.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    return covered.getvalue()


def m4a_with_cover(size: int) -> bytes:
    """A movie without bitrates of its own, whose tags have a cover before its sound."""
    content = samples.audio("mp4", codec="aac", seconds=0.5, title="a")
    cover = struct.pack(">I", 8 + size) + b"free" + bytes(size)
    return content + cover


@pytest.mark.parametrize("make", [flac_with_cover, opus_with_cover, m4a_with_cover])
def test_the_bitrate_of_sound_is_that_of_the_sound_and_not_of_its_cover(make: Callable[[int], bytes]) -> None:
    small, large = make(100), make(500_000)
    assert len(large) > len(small) + 400_000

    assert audio_facts(large).bitrate == pytest.approx(audio_facts(small).bitrate, rel=0.02)


@pytest.mark.parametrize(
    "found",
    [
        ImageFacts(width=0, height=1),
        ImageFacts(width=1, height=2**31),
        VideoFacts(width=2**31, height=1, duration=1.0),
        VideoFacts(width=1, height=1, duration=float("nan")),
        VideoFacts(width=1, height=1, duration=-0.5),
    ],
    ids=repr,
)
def test_facts_that_no_file_can_have_are_refused(found: Facts) -> None:
    with pytest.raises(CorruptMediaError, match="'x' says that it"):
        check_facts(found, filename="x")


def video_facts(content: bytes) -> VideoFacts:
    found = facts(content)
    assert isinstance(found, VideoFacts)
    return found


VIDEOS: dict[str, tuple[dict[str, Any], str]] = {
    "mp4": ({"container_format": "mp4"}, "video/mp4"),
    "mov": ({"container_format": "mov"}, "video/quicktime"),
    "avi": ({"container_format": "avi", "codec": "mpeg4", "audio_codec": "libmp3lame"}, "video/x-msvideo"),
    "webm": ({"container_format": "webm", "codec": "libvpx", "audio_codec": "libopus"}, "video/webm"),
    "mkv": ({"container_format": "matroska"}, "video/x-matroska"),
    "ts": ({"container_format": "mpegts"}, "video/mp2t"),
    "m2ts": ({"container_format": "mpegts", "options": {"mpegts_m2ts_mode": "1"}}, "video/mp2t"),
}


@pytest.mark.parametrize("sound", [True, False], ids=["with sound", "silent"])
@pytest.mark.parametrize("name", VIDEOS)
def test_a_video_has_its_duration_and_size(name: str, sound: bool) -> None:
    options, content_type = VIDEOS[name]
    if not sound:
        options = options | {"audio_codec": None}

    found = probed(samples.video(**options, width=96, height=64, seconds=2.0))

    assert found.content_type == content_type
    assert isinstance(found.facts, VideoFacts)
    assert (found.facts.width, found.facts.height) == (96, 64)
    assert found.facts.duration == pytest.approx(2.0, abs=0.15)  # a frame of ten a second more or less


def test_a_video_may_be_one_frame_long() -> None:
    found = video_facts(samples.video(seconds=0.1, audio_codec=None))

    assert (found.width, found.height) == (128, 96)
    assert found.duration == pytest.approx(0.1, abs=0.05)


def rotated(content: bytes, degrees: int) -> bytes:
    """Write a turn into the track header of an MP4 (ISO/IEC 14496-12, 8.3.2): its matrix, in 16.16."""
    cos, sin = {0: (1, 0), 90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    upright = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    turned = struct.pack(">9i", cos << 16, sin << 16, 0, -sin << 16, cos << 16, 0, 0, 0, 1 << 30)
    at = content.index(upright, content.index(b"tkhd"))
    return content[:at] + turned + content[at + len(upright) :]


@pytest.mark.parametrize(("degrees", "size"), [(0, (128, 96)), (90, (96, 128)), (180, (128, 96)), (270, (96, 128))])
def test_a_video_has_its_size_as_displayed(degrees: int, size: tuple[int, int]) -> None:
    found = video_facts(rotated(samples.video(), degrees))

    assert (found.width, found.height) == size


def test_a_video_of_pixels_that_are_not_square_has_its_size_as_displayed() -> None:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream: Any = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 72, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 72, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode(None))

    found = video_facts(buffer.getvalue())

    assert (found.width, found.height) == (96, 48)


@pytest.mark.parametrize("aspect", [Fraction(1, 10_000), Fraction(10_000, 1)])
def test_a_video_of_pixels_of_an_absurd_shape_has_the_size_that_it_is_stored_in(aspect: Fraction) -> None:
    """The shape stands in a box of the sample entry (ISO/IEC 14496-12, 12.1.4)."""
    content = samples.video(audio_codec=None)
    at = content.index(b"btrt")  # of a bitrate, which nobody needs

    def shaped(aspect: Fraction) -> VideoFacts:
        box = b"pasp" + struct.pack(">II", aspect.numerator, aspect.denominator)
        return video_facts(content[:at] + box + content[at + len(box) :])

    assert shaped(Fraction(2)).width == 256, "the box is not looked at: this would test nothing"
    assert (shaped(aspect).width, shaped(aspect).height) == (128, 96)


@pytest.mark.parametrize("rate", [0, 100_000_001, 2**31 - 1])
def test_sound_of_an_absurd_number_of_samples_is_refused(rate: int) -> None:
    content = bytearray(samples.wav())
    content[24:28] = struct.pack("<I", rate)

    with pytest.raises(CorruptMediaError, match=r"'x'"):
        probed(bytes(content))


def test_sound_of_an_absurd_number_of_bits_is_taken_in_with_a_number_that_can_be_stored() -> None:
    content = bytearray(samples.wav())
    content[28:32] = b"\xff\xff\xff\xff"

    assert 0 <= audio_facts(bytes(content)).bitrate < 2**31


def with_cover(container_format: str, codec: str) -> bytes:
    """Sound with a picture of its cover, which containers keep as a video stream."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container_format) as container:
        sound: Any = container.add_stream(codec, rate=44_100, layout="mono")
        cover: Any = container.add_stream("mjpeg")
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        packet = av.Packet(samples.image())
        packet.stream, packet.pts, packet.dts, packet.time_base, packet.is_keyframe = cover, 0, 0, Fraction(1, 10), True
        container.mux(packet)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 44_100), np.int16), format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 44_100, 0, Fraction(1, 44_100)
        resampler = av.AudioResampler(
            format=sound.codec_context.format, layout="mono", rate=44_100, frame_size=sound.codec_context.frame_size
        )
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(sound.encode(piece))
        container.mux(sound.encode(None))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("container_format", "codec", "brand", "content_type"),
    [
        ("mp3", "libmp3lame", b"", "audio/mpeg"),
        ("mp4", "aac", b"ftypisom", "audio/mp4"),
        ("mp4", "aac", b"ftypM4A ", "audio/mp4"),
    ],
)
def test_sound_with_a_cover_is_sound(container_format: str, codec: str, brand: bytes, content_type: str) -> None:
    content = with_cover(container_format, codec).replace(b"ftypisom", brand)
    with av.open(io.BytesIO(content)) as container:
        assert container.streams.video

    found = probed(content)

    assert found.content_type == content_type
    assert found.facts.kind is MediaKind.AUDIO


@pytest.mark.parametrize("filename", ["x.m4a", "x.mp4", "x.m4b", "x.mov", "x"])
def test_a_container_of_video_with_nothing_but_sound_is_sound_whatever_it_is_called(filename: str) -> None:
    content = samples.audio("mp4", codec="aac")

    for declared in (None, "audio/mp4", "video/mp4", "audio/x-m4a"):
        assert probed(content, filename, declared=declared).content_type == "audio/mp4"
    with pytest.raises(TooLargeError, match="limit for audio is 100"):
        probed(content, filename, max_audio_bytes=100)


@pytest.mark.parametrize(("filename", "declared"), [("x.m4a", None), ("x.mp4", "audio/mp4"), ("x.m4b", "video/mp4")])
def test_a_video_that_claims_to_be_sound_is_refused(filename: str, declared: str | None) -> None:
    with pytest.raises(TypeMismatchError, match="video/mp4"):
        probed(samples.video(), filename, declared=declared)


@pytest.mark.parametrize(("container_format", "filename"), [("avi", "x.avi"), ("mpegts", "x.ts")])
def test_nothing_but_sound_in_a_container_that_has_no_name_for_it_is_refused(
    container_format: str, filename: str
) -> None:
    with pytest.raises(CorruptMediaError, match="has no video stream"):
        probed(samples.audio(container_format), filename)


def document_facts(content: bytes, **settings: Any) -> DocumentFacts:
    found = facts(content, **settings)
    assert isinstance(found, DocumentFacts)
    return found


@pytest.mark.parametrize("pages", [1, 2, 17])
def test_a_document_has_its_pages_and_their_text(pages: int) -> None:
    texts = [f"Page {number} of (all) \\ {pages}" for number in range(1, pages + 1)]

    found = document_facts(samples.pdf(texts))

    assert found == DocumentFacts(page_count=pages, text="\f".join(texts))


def test_a_document_without_text_has_none() -> None:
    assert document_facts(samples.pdf(["", ""])) == DocumentFacts(page_count=2, text="")


def test_the_text_of_a_document_is_cut_at_the_limit() -> None:
    content = samples.pdf(["one two three", "four five six", "seven"])

    for limit in (1, 5, 13, 14, 20, 30):
        found = document_facts(content, max_text_chars=limit)

        assert found.page_count == 3
        assert len(found.text) <= limit
        assert "one two three\ffour five six\fseven".startswith(found.text)
        assert len(found.text) >= limit - 1


def test_the_text_of_a_document_that_takes_too_long_is_that_of_its_first_pages() -> None:
    content = samples.pdf([f"Page {number}" for number in range(100)])

    found = document_facts(content, parser_timeout=timedelta(microseconds=1))

    assert found.page_count == 100
    assert found.text == "Page 0"


def rc4(key: bytes, content: bytes) -> bytes:
    box = list(range(256))
    other = 0
    for at in range(256):
        other = (other + box[at] + key[at % len(key)]) % 256
        box[at], box[other] = box[other], box[at]
    out = bytearray()
    at = other = 0
    for byte in content:
        at = (at + 1) % 256
        other = (other + box[at]) % 256
        box[at], box[other] = box[other], box[at]
        out.append(byte ^ box[(box[at] + box[other]) % 256])
    return bytes(out)


def encrypted_pdf(password: bytes) -> bytes:
    """A document that opens with a password only: security handler of revision 2 (ISO 32000-1, 7.6.3)."""
    padding = bytes.fromhex("28bf4e5e4e758a4164004e56fffa01082e2e00b6d0683e802f0ca9fe6453697a")
    padded = (password + padding)[:32]
    owner = rc4(hashlib.md5(padded).digest()[:5], padded)
    identifier = bytes(16)
    key = hashlib.md5(padded + owner + struct.pack("<i", -4) + identifier).digest()[:5]
    user = rc4(key, padding)
    encryption = f"/Filter /Standard /V 1 /R 2 /P -4 /O <{owner.hex()}> /U <{user.hex()}>"
    trailer = f"/Encrypt << {encryption} >> /ID [<{identifier.hex()}> <{identifier.hex()}>]"
    return samples.pdf().replace(b"/Root 1 0 R", f"/Root 1 0 R {trailer}".encode())


def test_a_document_that_needs_a_password_is_refused_and_the_error_says_so() -> None:
    with pytest.raises(CorruptMediaError, match=r"'x\.pdf'.*encrypted"):
        probed(encrypted_pdf(b"secret"), "x.pdf")


def test_a_document_that_is_encrypted_without_a_password_is_read() -> None:
    assert document_facts(encrypted_pdf(b"")).page_count == 1


def zeroed(content: bytes, begin: bytes, end: bytes) -> bytes:
    """Overwrite what stands between two marks."""
    start = content.index(begin)
    stop = content.index(end, start)
    return content[:start] + bytes(stop - start) + content[stop:]


@pytest.mark.parametrize(
    "content",
    [
        b"%PDF-1.4\n",
        b"%PDF-1.4\n" + random.Random(1).randbytes(5_000),
        b"%PDF-1.4\n" + b"garbage " * 1_000,
        b"%PDF-" + bytes(5_000),
        samples.pdf()[:200],
        samples.pdf([]),
        samples.pdf().replace(b"/Type /Catalog", b"/Type /Nothing").replace(b"/Pages 2 0 R", b"/Pages 9 0 R"),
        samples.pdf().replace(b"/Kids [4 0 R]", b"/Kids [2 0 R]"),
    ],
    ids=["header", "noise", "text", "zeros", "cut off", "no page", "no catalog", "pages that hold themselves"],
)
def test_a_document_that_cannot_be_read_is_refused(content: bytes) -> None:
    with pytest.raises(CorruptMediaError, match=r"'x\.pdf'"):
        probed(content, "x.pdf")


def png_header(width: int, height: int) -> bytes:
    """A PNG that says how large it is, and has next to no pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def gif_header(width: int, height: int) -> bytes:
    return b"GIF89a" + struct.pack("<HH", width, height) + samples.image("GIF")[10:]


@pytest.mark.parametrize(
    "content",
    [
        png_header(30_000, 30_000),
        png_header(2**31 - 1, 2**31 - 1),
        png_header(1, 100_000_001),
        png_header(10_001, 10_000),
        gif_header(65_535, 65_535),
    ],
    ids=["900 megapixels", "largest", "a line", "one row more than allowed", "gif"],
)
def test_an_image_of_too_many_pixels_is_refused_by_its_header(content: bytes) -> None:
    with pytest.raises(TooLargeError, match=r"'x' has .*pixels"):
        probed(content)


def test_an_image_of_many_pixels_is_fine_where_the_settings_allow_it() -> None:
    content = samples.image("PNG", width=100, height=100)

    assert facts(content, max_image_pixels=10_000) == ImageFacts(width=100, height=100)
    with pytest.raises(TooLargeError, match=r"100 x 100 pixels; the limit is 9999 \(Settings.max_image_pixels\)"):
        facts(content, max_image_pixels=9_999)


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (samples.image, "image"),
        (samples.video, "video"),
        (samples.wav, "audio"),
        (samples.pdf, "document"),
    ],
)
def test_a_file_may_have_as_many_bytes_as_its_kind_allows(make: Callable[[], bytes], kind: str) -> None:
    content = make()

    enough: dict[str, Any] = {f"max_{kind}_bytes": len(content)}
    too_few: dict[str, Any] = {f"max_{kind}_bytes": len(content) - 1}

    probed(content, **enough)
    with pytest.raises(TooLargeError, match=rf"limit for {kind} is {len(content) - 1} \(Settings.max_{kind}_bytes\)"):
        probed(content, **too_few)


def test_an_empty_file_is_an_error_of_its_own() -> None:
    with pytest.raises(EmptyFileError, match=r"'x\.jpg' is empty"):
        probed(b"", "x.jpg")


SAMPLES: dict[str, Callable[[], bytes]] = {
    "x.jpg": samples.image,
    "x.png": lambda: samples.image("PNG"),
    "x.gif": lambda: samples.image("GIF"),
    "x.webp": lambda: samples.image("WEBP"),
    "x.avif": lambda: samples.image("AVIF"),
    "x.mp4": samples.video,
    "x.avi": lambda: samples.video(**VIDEOS["avi"][0]),
    "x.webm": lambda: samples.video(**VIDEOS["webm"][0]),
    "x.ts": lambda: samples.video(**VIDEOS["ts"][0]),
    "x.mp3": samples.audio,
    "x.m4a": lambda: samples.audio("ipod", codec="aac"),
    "x.wav": samples.wav,
    "x.flac": lambda: samples.audio("flac", codec="flac"),
    "x.ogg": lambda: samples.audio("ogg", codec="libopus"),
    "x.pdf": lambda: samples.pdf(["a", "b", "c"]),
}

TELL = ("x.jpg", "x.png", "x.gif", "x.webp", "x.avif", "x.mp4", "x.m4a", "x.pdf")
"""Types whose parser tells that something is missing; of the others what is there is played."""


@pytest.mark.parametrize("filename", SAMPLES)
def test_a_file_that_is_cut_off_is_refused_or_has_the_facts_of_what_is_there(filename: str) -> None:
    content = SAMPLES[filename]()
    whole = facts(content, filename)

    for tenth in range(1, 10):
        cut = content[: len(content) * tenth // 10]
        try:
            found = facts(cut, filename)
        except (CorruptMediaError, UnsupportedTypeError):
            continue
        assert filename not in TELL or tenth == 9
        assert found.kind is whole.kind
        if isinstance(found, AudioFacts) and isinstance(whole, AudioFacts):
            assert 0 < found.duration <= whole.duration


@pytest.mark.parametrize("filename", TELL)
def test_half_a_file_is_refused(filename: str) -> None:
    content = SAMPLES[filename]()

    with pytest.raises(CorruptMediaError, match=f"'{filename}' cannot be read as"):
        probed(content[: len(content) // 2], filename)


@pytest.mark.parametrize("filename", SAMPLES)
def test_a_damaged_file_is_a_typed_error_or_has_facts(filename: str) -> None:
    content = SAMPLES[filename]()
    chance = random.Random(filename)

    for _ in range(25):
        damaged = bytearray(content)
        for _ in range(chance.choice([1, 3, 20])):
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        with suppress(MediaError):
            assert isinstance(facts(bytes(damaged)), Facts)


def jpeg_of_scans(scans: int, *, hidden_by: bytes = b"") -> bytes:
    """A progressive picture whose last scan comes again and again (ITU-T T.81, G.1.1)."""
    buffer = io.BytesIO()
    Image.new("L", (64, 48), "gray").save(buffer, "JPEG", progressive=True)
    content = buffer.getvalue()
    last = content.rindex(b"\xff\xda")
    already = content.count(b"\xff\xda")
    return content[:last] + hidden_by + content[last:-2] * (1 + scans - already) + b"\xff\xd9"


@pytest.mark.parametrize("hidden_by", [b"", b"\xff\x02\xff\xff", b"\xff\xd0", b"\xff\xff\xff\x01\xff\xbf\x7f\xff"])
def test_an_image_of_more_scans_than_an_encoder_makes_is_refused_before_it_is_decoded(hidden_by: bytes) -> None:
    assert facts(jpeg_of_scans(500)) == ImageFacts(width=64, height=48)
    with pytest.raises(TooLargeError, match=r"'x' has 501 scans or more of 3072 pixels"):
        facts(jpeg_of_scans(501, hidden_by=hidden_by))
    with pytest.raises(TooLargeError, match=r"'x' has 501 scans or more of 3072 pixels"):
        facts(jpeg_of_scans(20_000, hidden_by=hidden_by))


def test_scans_of_what_is_no_part_of_the_picture_do_not_count() -> None:
    thumbnail = b"\xff\xe1" + (2 + 20_000).to_bytes(2) + b"\xff\xda\0\2" * 5_000
    content = samples.image()

    assert facts(content[:2] + thumbnail + content[2:] + b"\xff\xda\0\2" * 5_000) == ImageFacts(width=64, height=48)


@contextmanager
def nothing_is_read_but(folder: Path) -> Iterator[list[str]]:
    """Listen on loopback and keep a file that must not be read; yields sources that would lead there."""
    secret = folder / "secret.mp4"
    secret.write_bytes(samples.video())
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        port = server.getsockname()[1]
        yield [f"file://{secret}", str(secret), f"http://127.0.0.1:{port}/secret.mp4", f"tcp://127.0.0.1:{port}"]
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.mark.parametrize("filename", ["x.mp4", "x.m3u8", "x.webm", "x.mp3", "x.jpg", "x"])
def test_a_playlist_is_refused_and_not_followed(tmp_path: Path, filename: str) -> None:
    with nothing_is_read_but(tmp_path) as sources:
        for source in sources:
            playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{source}\n#EXT-X-ENDLIST\n".encode()
            concat = f"ffconcat version 1.0\nfile '{source}'\n".encode()
            for content in (playlist, concat):
                with pytest.raises(UnsupportedTypeError):
                    probed(content, filename)


def test_a_playlist_behind_the_beginning_of_a_video_is_not_followed(tmp_path: Path) -> None:
    beginnings = [
        b"\0\0\0\x14ftypisom\0\0\0\0isom",
        b"\x1a\x45\xdf\xa3\x87\x42\x82\x84webm",
        b"RIFF\0\0\0\0AVI ",
        b"ID3",
    ]
    with nothing_is_read_but(tmp_path) as sources:
        for source in sources:
            playlist = f"\n#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{source}\n#EXT-X-ENDLIST\n".encode()
            for beginning in beginnings:
                with pytest.raises(CorruptMediaError):
                    probed(beginning + playlist * 50, "x")


@pytest.mark.parametrize(
    "kind",
    [kind for kind in ALLOWED if kind.kind in (MediaKind.VIDEO, MediaKind.AUDIO)],
    ids=lambda kind: kind.content_type,
)
def test_the_parser_follows_no_list_of_files_even_where_the_type_was_mistaken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: MediaType
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.mp4").write_bytes(samples.video())
    content = b"ffconcat version 1.0\nfile 'secret.mp4'\n"
    with av.open(io.BytesIO(content), "r") as container:
        assert container.streams.video, "left to itself it does not follow either: this would test nothing"

    with pytest.raises(CorruptMediaError):
        probe_av(io.BytesIO(content), kind, filename="x", settings=Settings())


def test_a_quicktime_reference_to_another_file_is_not_followed(tmp_path: Path) -> None:
    """`rdrf` says that the movie is elsewhere (QuickTime File Format, reference movies)."""

    def atom(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", 8 + len(content)) + kind + content

    with nothing_is_read_but(tmp_path) as sources:
        for source in sources:
            url = source.encode() + b"\0"
            reference = atom(b"rdrf", bytes(4) + b"url " + struct.pack(">I", len(url)) + url)
            movie = atom(b"moov", atom(b"rmra", atom(b"rmda", reference)))
            with pytest.raises(CorruptMediaError):
                probed(movie, "x.mov")


@pytest.mark.parametrize("filename", ["x.mp4", "x.jpg", "x.svg", "x.png"])
def test_an_svg_is_refused_whatever_it_is_called(filename: str) -> None:
    content = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9" height="9"/></svg>'

    with pytest.raises(UnsupportedTypeError, match=f"'{filename}' begins with b'<svg"):
        probed(content, filename)


@pytest.mark.parametrize("image_format", ["EPS", "TIFF", "BMP", "ICO", "PPM", "TGA"])
def test_an_image_of_another_type_is_not_opened_although_pillow_could(image_format: str) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, image_format)

    with pytest.raises(UnsupportedTypeError):
        probed(buffer.getvalue(), "x.jpg")


@pytest.mark.parametrize(
    ("make", "filename", "declared"),
    [
        (lambda: samples.image("PNG"), "x.jpg", None),
        (samples.image, "x.png", None),
        (samples.image, "x.jpg", "image/png"),
        (samples.image, "x.mp4", None),
        (samples.video, "x.webm", None),
        (samples.wav, "x.mp3", None),
        (samples.pdf, "x.png", None),
    ],
)
def test_a_file_that_is_not_what_it_is_called_is_refused(
    make: Callable[[], bytes], filename: str, declared: str | None
) -> None:
    with pytest.raises(TypeMismatchError, match=filename):
        probed(make(), filename, declared=declared)


def test_a_file_that_begins_as_two_things_is_refused() -> None:
    content = bytearray(samples.wav())
    content[128:132] = b"DICM"

    with pytest.raises(TypeMismatchError, match=r"audio/wav.*dicom"):
        probed(bytes(content), "x.wav")


def test_the_file_is_read_from_its_beginning_wherever_it_stands() -> None:
    content = samples.image()
    file = io.BytesIO(content)
    file.seek(100)

    found = probe(Unprobed(file=file, size=len(content), filename="x"), settings=Settings())

    assert found.facts == ImageFacts(width=64, height=48)


def test_probing_in_many_threads_finds_the_same_and_leaves_the_filters_of_warnings_alone() -> None:
    contents = [SAMPLES[filename]() for filename in ("x.jpg", "x.png", "x.webp", "x.pdf", "x.wav")]
    expected = [facts(content) for content in contents]
    before = list(warnings.filters)
    together = threading.Barrier(4)

    def work(_: int) -> list[Facts]:
        together.wait(30)
        return [facts(content) for _ in range(15) for content in contents]

    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(work, range(4)):
            assert found == expected * 15

    assert list(warnings.filters) == before


def test_a_doubt_of_the_parser_about_metadata_is_no_warning_of_the_host() -> None:
    content = samples.image(orientation=6)
    at = content.index(b"Exif\0\0") + 6
    damaged = content[: at + 8] + b"\xff\xff" + content[at + 10 :]  # so many entries as there are not
    with pytest.warns(UserWarning, match="EXIF"):
        Image.open(io.BytesIO(damaged)).close()

    assert isinstance(facts(damaged), ImageFacts)  # warnings are errors in this suite


@pytest.mark.parametrize(
    "error",
    [
        av.error.BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"),  # a thread that cannot be had
        av.error.MemoryError(errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_a_decoder_without_memory_does_not_call_the_file_damaged(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    content = samples.video()

    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(av, "open", refuse)

    with pytest.raises(MemoryError):
        probed(content)
