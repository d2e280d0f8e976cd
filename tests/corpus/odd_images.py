"""Good pictures that are out of the ordinary."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from functools import partial
from typing import Any

from PIL import Image, ImageCms
from tests.corpus.formats import in_jpeg, jpeg_segment, png, png_chunk
from tests.corpus.odd import OddFile, ffmpeg, picture, size

from mindia.testing import samples


def _saved(image_format: str, mode: str = "RGB", dimensions: tuple[int, int] = (40, 30), **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, dimensions).save(buffer, image_format, **options)
    return buffer.getvalue()


def _animated(image_format: str, **options: Any) -> bytes:
    """Three frames, of which each is different."""
    frames = [Image.new("RGB", (40, 30), color) for color in ("red", "green", "blue")]
    buffer = io.BytesIO()
    frames[0].save(buffer, image_format, save_all=True, append_images=frames[1:], duration=100, **options)
    return buffer.getvalue()


def _palette(image_format: str) -> bytes:
    """A picture of a palette in which one colour is transparent."""
    image = Image.new("P", (40, 30), 1)
    image.putpalette([255, 0, 0, 0, 255, 0] + [0] * 762)
    buffer = io.BytesIO()
    image.save(buffer, image_format, transparency=1)
    return buffer.getvalue()


def _exif(length: int) -> bytes:
    """Metadata whose comment is so long, turned by a quarter."""
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x9286] = b"ASCII\0\0\0" + b"a" * length
    return exif.tobytes()


def _segments() -> bytes:
    """A JPEG with segments of all makers, a comment, and filling before a marker."""
    segments = [jpeg_segment(0xE0 + number, b"Maker\0" + bytes(range(256)) * number) for number in range(2, 16)]
    return in_jpeg(samples.image(), *segments, jpeg_segment(0xFE, b"comment" * 1_000), b"\xff\xff\xff")


def _profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def _interlaced() -> bytes:
    """A PNG in seven passes (PNG, 8.2)."""
    passes = ((5, 4), (5, 4), (10, 4), (10, 8), (20, 8), (20, 15), (40, 15))
    return png(40, 30, data=b"".join((b"\0" + bytes(3 * width)) * height for width, height in passes), interlaced=True)


def _without_head() -> bytes:
    """A JPEG that has no segment of JFIF."""
    content = samples.image(width=40, height=30)
    at = content.index(b"\xff\xe0")
    return content[:at] + content[at + 2 + int.from_bytes(content[at + 2 : at + 4]) :]


JPEG, PNG, GIF, WEBP, AVIF = (f"image/{name}" for name in ("jpeg", "png", "gif", "webp", "avif"))
_TAKEN = datetime(2024, 2, 29, 23, 59, 59, tzinfo=UTC)

_TURNED = {
    f"{name} turned in way {turn}": OddFile(
        f"x.{name.lower()}",
        content_type,
        partial(samples.image, name, width=64, height=48, orientation=turn),
        size(48, 64) if turn >= 5 else size(64, 48),
    )
    for name, content_type, turns in (
        ("JPEG", JPEG, range(1, 9)),
        ("PNG", PNG, (6,)),
        ("WEBP", WEBP, (8,)),
        ("AVIF", AVIF, (3, 5)),
    )
    for turn in turns
}

IMAGES: dict[str, OddFile] = {
    "PNG of one pixel": OddFile("x.png", PNG, lambda: _saved("PNG", dimensions=(1, 1)), size(1, 1)),
    "JPEG of one pixel": OddFile("x.jpg", JPEG, lambda: _saved("JPEG", dimensions=(1, 1)), size(1, 1)),
    "WEBP of one pixel": OddFile("x.webp", WEBP, lambda: _saved("WEBP", dimensions=(1, 1)), size(1, 1)),
    "AVIF of one pixel": OddFile("x.avif", AVIF, lambda: _saved("AVIF", dimensions=(1, 1)), size(1, 1)),
    "JPEG of a line": OddFile("x.jpg", JPEG, lambda: _saved("JPEG", dimensions=(1, 5_000)), size(1, 5_000)),
    "PNG of a column": OddFile("x.png", PNG, lambda: _saved("PNG", dimensions=(5_000, 1)), size(5_000, 1)),
    "JPEG as wide as can be": OddFile("x.jpg", JPEG, lambda: _saved("JPEG", dimensions=(65_500, 3)), size(65_500, 3)),
    "WEBP as wide as can be": OddFile("x.webp", WEBP, lambda: _saved("WEBP", dimensions=(16_383, 3)), size(16_383, 3)),
    "WEBP of odd sizes": OddFile("x.webp", WEBP, lambda: _saved("WEBP", dimensions=(127, 255)), size(127, 255)),
    "AVIF of odd sizes": OddFile("x.avif", AVIF, lambda: _saved("AVIF", dimensions=(127, 255)), size(127, 255)),
    "GIF of odd sizes": OddFile("x.gif", GIF, lambda: _saved("GIF", dimensions=(127, 255)), size(127, 255)),
    **_TURNED,
    "GIF that moves": OddFile("x.gif", GIF, lambda: _animated("GIF"), size(40, 30)),
    "WEBP that moves": OddFile("x.webp", WEBP, lambda: _animated("WEBP"), size(40, 30)),
    "WEBP that moves without loss": OddFile("x.webp", WEBP, lambda: _animated("WEBP", lossless=True), size(40, 30)),
    "PNG that moves": OddFile("x.png", PNG, lambda: _animated("PNG"), size(40, 30)),
    "PNG that moves, called APNG": OddFile("x.apng", PNG, lambda: _animated("PNG"), size(40, 30)),
    "AVIF that moves": OddFile("x.avif", AVIF, lambda: _animated("AVIF"), size(40, 30)),
    "GIF of the first version": OddFile("x.gif", GIF, lambda: b"GIF87a" + _saved("GIF")[6:], size(40, 30)),
    "GIF with a transparent colour": OddFile("x.gif", GIF, lambda: _palette("GIF"), size(40, 30)),
    "PNG of a palette with a transparent colour": OddFile("x.png", PNG, lambda: _palette("PNG"), size(40, 30)),
    "PNG of two colours": OddFile("x.png", PNG, lambda: _saved("PNG", "1"), size(40, 30)),
    "PNG of grey with transparency": OddFile("x.png", PNG, lambda: _saved("PNG", "LA"), size(40, 30)),
    "PNG of grey in 16 bits": OddFile("x.png", PNG, lambda: _saved("PNG", "I;16"), size(40, 30)),
    "PNG of colours in 16 bits": OddFile(
        "x.png", PNG, lambda: png(40, 30, depth=16, data=(b"\0" + bytes(240)) * 30), size(40, 30)
    ),
    "PNG of colours in 16 bits with transparency": OddFile(
        "x.png", PNG, lambda: png(40, 30, depth=16, colors=6, data=(b"\0" + bytes(320)) * 30), size(40, 30)
    ),
    "PNG in seven passes": OddFile("x.png", PNG, _interlaced, size(40, 30)),
    "PNG with chunks that nobody knows": OddFile(
        "x.png", PNG, lambda: png(40, 30, png_chunk(b"pRVt", bytes(70_000)), png_chunk(b"tEXt", b"a\0b")), size(40, 30)
    ),
    "JPEG of CMYK": OddFile("x.jpg", JPEG, lambda: _saved("JPEG", "CMYK"), size(40, 30)),
    "JPEG of grey": OddFile("x.jpg", JPEG, lambda: _saved("JPEG", "L"), size(40, 30)),
    "JPEG that is progressive": OddFile("x.jpg", JPEG, lambda: _saved("JPEG", progressive=True), size(40, 30)),
    "JPEG with all its colours": OddFile(
        "x.jpg", JPEG, lambda: _saved("JPEG", subsampling=0, quality=100), size(40, 30)
    ),
    "JPEG that can be resumed": OddFile("x.jpg", JPEG, lambda: _saved("JPEG", restart_marker_blocks=2), size(40, 30)),
    "JPEG with 60 kB of metadata": OddFile("x.jpg", JPEG, lambda: _saved("JPEG", exif=_exif(60_000)), size(30, 40)),
    "JPEG with segments of all makers": OddFile("x.jpg", JPEG, _segments, size(64, 48)),
    "JPEG with a colour profile": OddFile("x.jpg", JPEG, lambda: _saved("JPEG", icc_profile=_profile()), size(40, 30)),
    "JPEG without the head of JFIF": OddFile("x.jpg", JPEG, _without_head, size(40, 30)),
    "JPEG with zeros behind it": OddFile("x.jpg", JPEG, lambda: samples.image() + bytes(5_000), size(64, 48)),
    "WEBP without loss": OddFile("x.webp", WEBP, lambda: _saved("WEBP", "RGBA", lossless=True), size(40, 30)),
    "WEBP with transparency and a profile": OddFile(
        "x.webp", WEBP, lambda: _saved("WEBP", "RGBA", icc_profile=_profile(), exif=_exif(50)), size(30, 40)
    ),
    "AVIF of 10 bits": OddFile(
        "x.avif",
        AVIF,
        lambda: ffmpeg("avif", picture(64, 48, seconds=0.1), "-c:v libsvtav1 -pix_fmt yuv420p10le -still-picture 1"),
        size(64, 48),
    ),
    "AVIF of all its colours": OddFile("x.avif", AVIF, lambda: _saved("AVIF", subsampling="4:4:4"), size(40, 30)),
    "AVIF with transparency": OddFile("x.avif", AVIF, lambda: _saved("AVIF", "RGBA"), size(40, 30)),
    "JPEG of 98 megapixels": OddFile(
        "x.jpg", JPEG, lambda: _saved("JPEG", dimensions=(9_900, 9_900), quality=10), size(9_900, 9_900)
    ),
    "progressive JPEG of 48 megapixels": OddFile(
        "x.jpg", JPEG, lambda: _saved("JPEG", dimensions=(8_000, 6_000), progressive=True), size(8_000, 6_000)
    ),
    "PNG of 48 megapixels": OddFile(
        "x.png", PNG, lambda: _saved("PNG", dimensions=(8_000, 6_000), compress_level=1), size(8_000, 6_000)
    ),
    "WEBP of 24 megapixels": OddFile(
        "x.webp", WEBP, lambda: _saved("WEBP", dimensions=(6_000, 4_000), method=0), size(6_000, 4_000)
    ),
    "AVIF of 24 megapixels": OddFile(
        "x.avif", AVIF, lambda: _saved("AVIF", dimensions=(6_000, 4_000), speed=10), size(6_000, 4_000)
    ),
    "JPEG of a camera": OddFile(
        "x.jpg",
        JPEG,
        lambda: samples.image(taken_at=_TAKEN, camera="Rolleiflex 2.8"),
        size(64, 48, taken_at=_TAKEN, camera="Rolleiflex 2.8", location=None),
    ),
    "PNG of a camera whose clock knows no zone": OddFile(
        "x.png",
        PNG,
        lambda: samples.image("PNG", taken_at=_TAKEN.replace(tzinfo=None), camera="Ünïcode"),
        size(64, 48, taken_at=_TAKEN.replace(tzinfo=None)),
    ),
}
