"""A good file of each type, and what is left of it when it is cut off or its bits are turned."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterator
from functools import cache, partial

from PIL import Image

from mindia.testing import samples


def _image(image_format: str, **options: object) -> bytes:
    """A picture of every shade, so that most of its bytes are pixels."""
    buffer = io.BytesIO()
    shades = Image.linear_gradient("L").resize((64, 48))
    exif = Image.Exif()
    exif[0x010F], exif[0x0112], exif[0x0132] = "Maker", 6, "2024:02:29 12:00:00"
    Image.merge("RGB", (shades, shades.rotate(90), shades.rotate(180))).save(
        buffer, image_format, exif=exif.tobytes(), **options
    )
    return buffer.getvalue()


def _animation(image_format: str) -> bytes:
    buffer = io.BytesIO()
    frames = [Image.linear_gradient("L").resize((32, 24)).rotate(angle) for angle in (0, 90, 180)]
    frames[0].save(buffer, image_format, save_all=True, append_images=frames[1:])
    return buffer.getvalue()


WHOLE: dict[str, Callable[[], bytes]] = {
    "x.jpg": partial(_image, "JPEG"),
    "progressive.jpg": partial(_image, "JPEG", progressive=True),
    "x.png": partial(_image, "PNG"),
    "animated.png": partial(_animation, "PNG"),
    "x.gif": partial(_animation, "GIF"),
    "x.webp": partial(_image, "WEBP"),
    "animated.webp": partial(_animation, "WEBP"),
    "x.avif": partial(_image, "AVIF"),
    "x.mp4": partial(samples.video, seconds=0.5),
    "x.mov": partial(samples.video, "mov", seconds=0.5),
    "x.avi": partial(samples.video, "avi", codec="mpeg4", audio_codec="libmp3lame", seconds=0.5),
    "x.webm": partial(samples.video, "webm", codec="libvpx", audio_codec="libopus", seconds=0.5),
    "x.mkv": partial(samples.video, "matroska", seconds=0.5),
    "x.ts": partial(samples.video, "mpegts", seconds=0.5),
    "x.mp3": partial(samples.audio, seconds=0.5),
    "x.m4a": partial(samples.audio, "ipod", codec="aac", seconds=0.5),
    "x.wav": partial(samples.wav, seconds=0.5),
    "x.flac": partial(samples.audio, "flac", codec="flac", seconds=0.5),
    "x.ogg": partial(samples.audio, "ogg", codec="libopus", seconds=3.0),
    "x.pdf": partial(samples.pdf, ["One", "Two", "Three"]),
}
"""A good file of each type, with the name that it has."""


@cache
def whole(filename: str) -> bytes:
    """Return the good file of that name."""
    return WHOLE[filename]()


def cut_off(filename: str) -> Iterator[tuple[str, bytes]]:
    """Yield what is left of a file at every tenth of it, and how much that is."""
    content = whole(filename)
    for tenth in range(1, 10):
        yield f"{tenth} tenths of {filename}", content[: len(content) * tenth // 10]


def turned(filename: str, *, times: int) -> Iterator[tuple[str, bytes]]:
    """Yield a file with some bits turned: half of the time near its beginning, where most is decided."""
    content = whole(filename)
    chance = random.Random(filename)
    for number in range(times):
        damaged = bytearray(content)
        end = len(damaged) if number % 2 else min(len(damaged), 600)
        for _ in range(chance.choice([1, 2, 8, 40])):
            damaged[chance.randrange(12, end)] ^= 1 << chance.randrange(8)
        yield f"{filename}, turned {number}", bytes(damaged)
