"""Small real media files, made on the spot."""

from __future__ import annotations

import io
import math
import struct
import wave
from collections.abc import Iterable, Mapping
from datetime import datetime
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from mindia.domain.media import Location
from mindia.errors import MissingExtraError

if TYPE_CHECKING:
    from av.container import OutputContainer

_TONE_HZ = 440


def image(
    image_format: str = "JPEG",
    *,
    width: int = 64,
    height: int = 48,
    color: str = "teal",
    orientation: int = 1,
    taken_at: datetime | None = None,
    camera: str | None = None,
    location: Location | None = None,
) -> bytes:
    """Return a picture of one colour.

    Args:
        image_format: As Pillow names it: JPEG, PNG, GIF, WEBP or AVIF.
        width: In pixels, as stored.
        height: In pixels, as stored.
        color: As Pillow names it.
        orientation: Of the EXIF data, 1 to 8; JPEG, PNG, WEBP and AVIF keep it, and what follows.
        taken_at: Of the EXIF data, to the second.
        camera: Model of the camera.
        location: Where it was taken, to a ten thousandth of a second of arc.
    """
    from PIL import Image

    picture = Image.new("RGB", (width, height), color)
    exif = picture.getexif()
    exif[0x0112] = orientation
    if camera is not None:
        exif[0x0110] = camera
    if taken_at is not None:
        times = exif.get_ifd(0x8769)
        times[0x9003] = taken_at.strftime("%Y:%m:%d %H:%M:%S")
        if taken_at.tzinfo is not None:
            offset = taken_at.strftime("%z")
            times[0x9011] = f"{offset[:3]}:{offset[3:5]}"
    if location is not None:
        exif.get_ifd(0x8825).update(_gps(location))
    buffer = io.BytesIO()
    if image_format == "GIF":
        picture.save(buffer, "GIF")
    else:
        picture.save(buffer, image_format, exif=exif)
    return buffer.getvalue()


def _gps(location: Location) -> dict[int, object]:
    """Return the tags of a place (CIPA DC-008, 4.6.6)."""
    tags: dict[int, object] = {
        1: "N" if location.latitude >= 0 else "S",
        2: _sexagesimal(location.latitude),
        3: "E" if location.longitude >= 0 else "W",
        4: _sexagesimal(location.longitude),
    }
    if location.altitude is not None:
        tags |= {5: b"\1" if location.altitude < 0 else b"\0", 6: abs(location.altitude)}
    return tags


def _sexagesimal(degrees: float) -> tuple[float, float, float]:
    minutes, seconds = divmod(round(abs(degrees) * 3600, 4), 60)
    whole, minutes = divmod(minutes, 60)
    return whole, minutes, seconds


def wav(*, seconds: float = 1.0, sample_rate: int = 16_000, channels: int = 1) -> bytes:
    """Return a tone as PCM of 16 bits."""
    frames = b"".join(
        struct.pack("<h", sample) * channels for sample in _tone(round(seconds * sample_rate), sample_rate)
    )
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(frames)
    return buffer.getvalue()


def audio(
    container_format: str = "mp3",
    *,
    codec: str = "libmp3lame",
    seconds: float = 1.0,
    title: str | None = None,
    artist: str | None = None,
    album: str | None = None,
) -> bytes:
    """Return a tone, mono, 44.1 kHz.

    Args:
        container_format: As FFmpeg names it: mp3, ipod (m4a), flac, ogg.
        codec: As FFmpeg names it: libmp3lame, aac, flac, libopus.
        seconds: How long it is.
        title: Of its tags.
        artist: Of its tags.
        album: Of its tags.
    """
    buffer = io.BytesIO()
    tags = {"title": title, "artist": artist, "album": album}
    with _writer(buffer, container_format, tags) as container:
        _encode_tone(container, codec, seconds, 48_000 if codec == "libopus" else 44_100)
    return buffer.getvalue()


def video(
    container_format: str = "mp4",
    *,
    codec: str = "libx264",
    audio_codec: str | None = "aac",
    width: int = 128,
    height: int = 96,
    seconds: float = 1.0,
    frame_rate: int = 10,
    title: str | None = None,
    options: Mapping[str, str] | None = None,
) -> bytes:
    """Return moving colours, with a tone unless `audio_codec` is None.

    Args:
        container_format: As FFmpeg names it: mp4, mov, webm, matroska, avi, mpegts.
        codec: As FFmpeg names it.
        audio_codec: As FFmpeg names it.
        width: In pixels, even.
        height: In pixels, even.
        seconds: How long it is.
        frame_rate: In frames per second.
        title: Of its tags.
        options: Of the container, as FFmpeg names them.
    """
    import av
    import numpy as np

    buffer = io.BytesIO()
    with _writer(buffer, container_format, {"title": title}, options) as container:
        stream: Any = container.add_stream(codec, rate=frame_rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        tone = None if audio_codec is None else container.add_stream(audio_codec, rate=48_000, layout="mono")
        for number in range(round(seconds * frame_rate)):
            shade = np.full((height, width, 3), (number * 20 % 256, 80, 160), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(shade, format="rgb24")))
        container.mux(stream.encode(None))
        if tone is not None:
            _mux_tone(container, tone, seconds, 48_000)
    return buffer.getvalue()


def pdf(pages: Iterable[str] = ("A page.",), *, title: str | None = None) -> bytes:
    """Return a document with a line of ASCII text on each page.

    Args:
        pages: Their texts.
        title: Of its properties.
    """
    texts = list(pages)
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(len(texts)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(texts)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for number, text in enumerate(texts):
        escaped = text.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
        content = f"BT /F1 18 Tf 72 720 Td ({escaped}) Tj ET"
        objects += [
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] "
            f"/Resources << /Font << /F1 3 0 R >> >> /Contents {5 + 2 * number} 0 R >>",
            f"<< /Length {len(content)} >>\nstream\n{content}\nendstream",
        ]
    trailer = f"/Size {len(objects) + 1} /Root 1 0 R"
    if title is not None:
        objects.append(f"<< /Title <feff{title.encode('utf-16-be').hex()}> >>")
        trailer = f"/Size {len(objects) + 1} /Root 1 0 R /Info {len(objects)} 0 R"
    body = "%PDF-1.4\n"
    offsets = []
    for number, text in enumerate(objects, start=1):
        offsets.append(len(body))
        body += f"{number} 0 obj\n{text}\nendobj\n"
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    body += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}"
    start = body.index("xref\n0 ")
    body += f"trailer\n<< {trailer} >>\nstartxref\n{start}\n%%EOF\n"
    return body.encode("ascii")


def _tone(samples: int, sample_rate: int) -> list[int]:
    return [round(8_000 * math.sin(2 * math.pi * _TONE_HZ * number / sample_rate)) for number in range(samples)]


def _writer(
    buffer: io.BytesIO, container_format: str, tags: Mapping[str, str | None], options: Mapping[str, str] | None = None
) -> OutputContainer:
    try:
        import av
    except ImportError as error:
        raise MissingExtraError("making video and audio", extra="video") from error
    container = av.open(buffer, mode="w", format=container_format, options=dict(options or {}))
    container.metadata.update({name: value for name, value in tags.items() if value is not None})
    return container


def _encode_tone(container: OutputContainer, codec: str, seconds: float, sample_rate: int) -> None:
    _mux_tone(container, container.add_stream(codec, rate=sample_rate, layout="mono"), seconds, sample_rate)


def _mux_tone(container: OutputContainer, stream: Any, seconds: float, sample_rate: int) -> None:
    import av
    import numpy as np

    samples = np.array([_tone(round(seconds * sample_rate), sample_rate)], dtype=np.int16)
    frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
    frame.sample_rate = sample_rate
    frame.time_base = Fraction(1, sample_rate)
    frame.pts = 0
    context = stream.codec_context
    resampler = av.AudioResampler(format=context.format, layout="mono", rate=sample_rate, frame_size=context.frame_size)
    for piece in [*resampler.resample(frame), *resampler.resample(None)]:
        container.mux(stream.encode(piece))
    container.mux(stream.encode(None))
