"""Images that mean harm."""

from __future__ import annotations

import io
import struct
import zlib
from functools import cache

from PIL import Image
from tests.corpus import formats
from tests.corpus.containers import box
from tests.corpus.formats import in_jpeg, jpeg_segment, packed, png, png_chunk, tiff, zeros
from tests.corpus.hostile import CORRUPT, TOO_LARGE, UNREADABLE, UNSUPPORTED, HostileFile, either, harmless, refused

from mindia.testing import samples

_MANY = 100_000
_MOST = 2**32 - 1


@cache
def _encoded(image_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((64, 48)).convert("RGB").save(buffer, image_format, **options)
    return buffer.getvalue()


def _png_of_zeros(width: int, height: int, *, depth: int, colors: int, bits: int) -> bytes:
    """All pixels are there, and black."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colors, 0, 0, 0))
    data = png_chunk(b"IDAT", packed(bytes(1 + (width * bits + 7) // 8), height))
    return formats.PNG + header + data + png_chunk(b"IEND", b"")


def _apng(frames: int, *, said: int | None = None, x: int = 0) -> bytes:
    """A PNG that is animated (PNG, 11.3.6), of one pixel that changes its colour."""
    control = png_chunk(b"acTL", struct.pack(">II", frames if said is None else said, 0))
    pieces = [formats.PNG, png_chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)), control]
    pixel = zlib.compress(bytes(4))
    for number in range(frames):
        at = 2 * number - 1 if number else 0
        pieces.append(png_chunk(b"fcTL", struct.pack(">IIIIIHHBB", at, 1, 1, x, 0, 1, 10, 0, 0)))
        pieces.append(png_chunk(b"fdAT", struct.pack(">I", at + 1) + pixel) if number else png_chunk(b"IDAT", pixel))
    return b"".join([*pieces, png_chunk(b"IEND", b"")])


def _gif(width: int, height: int, *frames: bytes, colors: bytes = b"\0\0\0\xff\xff\xff") -> bytes:
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + colors + b"".join(frames) + b";"


def _gif_frame(*, x: int = 0, width: int = 1, height: int = 1, code_size: int = 2) -> bytes:
    return b"," + struct.pack("<HHHHBB", x, 0, width, height, 0, code_size) + b"\2\x44\1\0"


def _webp(width: int, height: int, *chunks: bytes, flags: int = 0x02) -> bytes:
    """An extended WebP (RFC 9649, 2.7) on a canvas."""
    canvas = struct.pack("<I", flags) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return formats.riff(b"WEBP", formats.chunk(b"VP8X", canvas), *chunks)


def _webp_frame() -> bytes:
    still = _encoded("WEBP", lossless=True)
    return formats.chunk(b"ANMF", bytes(6) + b"\x3f\0\0\x2f\0\0" + b"\x0a\0\0\0" + still[12:])


def _tiny_webp_frame() -> bytes:
    """A frame of one pixel, in its 26 bytes."""
    buffer = io.BytesIO()
    Image.new("RGB", (1, 1)).save(buffer, "WEBP", lossless=True)
    return formats.chunk(b"ANMF", bytes(12) + b"\x0a\0\0\0" + buffer.getvalue()[12:])


def _webp_lossless(width: int, height: int) -> bytes:
    """One colour, for which a pixel takes no bit at all (RFC 9649, 3)."""
    size = (width - 1) | (height - 1) << 14 | 1 << 28
    return formats.riff(
        b"WEBP", formats.chunk(b"VP8L", b"\x2f" + struct.pack("<I", size) + b"\x88\x88\x08" + bytes(20))
    )


def _avif(width: int, height: int) -> bytes:
    """It says that it is so large in its properties (ISO/IEC 23008-12, 6.5.3)."""
    content = samples.image("AVIF")
    at = content.index(b"ispe") + 8
    return content[:at] + struct.pack(">II", width, height) + content[at + 8 :]


def _avif_item_elsewhere() -> bytes:
    """Its pixels are behind its end."""
    content = samples.image("AVIF")
    at = content.index(b"iloc") + 4
    return content[: at + 12] + b"\x7f\xff\xff\xff" * 2 + content[at + 20 :]


def _jpeg(width: int, height: int, *, progressive: bool = False) -> bytes:
    """It says that it is so large, and has the pixels of a small one."""
    content = bytearray(_encoded("JPEG", progressive=progressive))
    at = content.index(b"\xff\xc2" if progressive else b"\xff\xc0") + 5
    content[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(content)


def _jpeg_of_scans(width: int, height: int, scans: int) -> bytes:
    """Each scan goes over all pixels again, and takes a dozen bytes (ITU-T T.81, G.1.1)."""
    content = _jpeg(width, height, progressive=True)
    tables = []
    at = content.index(b"\xff\xc4")
    while (found := content.find(b"\xff\xc4", at)) >= 0:
        at = found + 2 + int.from_bytes(content[found + 2 : found + 4])
        tables.append(content[found:at])
    first = jpeg_segment(0xDA, b"\3\1\0\2\x11\3\x11\0\0\1") + b"\0\0"
    scan = jpeg_segment(0xDA, b"\1\1\0\1\x3f\0") + b"\0\0"
    return content[: content.index(b"\xff\xc4")] + b"".join(tables) + first + scan * scans + b"\xff\xd9"


def _exif(content: bytes) -> bytes:
    return jpeg_segment(0xE1, b"Exif\0\0" + content)


def _cyclic() -> bytes:
    """Directories of metadata that hold themselves and follow upon themselves."""
    at_8 = struct.pack("<I", 8)
    return tiff((0x8769, 4, 1, at_8), (0x8825, 4, 1, at_8), (0xA005, 4, 1, at_8), (0x014A, 4, 1, at_8), following=8)


def _absurd_counts() -> bytes:
    orientation = (0x0112, 3, 0xFFFFFFFF, struct.pack("<I", 26))
    return tiff(orientation, (0x010F, 2, 0xFFFFFFFF, b"\xff" * 4), (0x9286, 7, 0x7FFFFFFF, bytes(4)), count=0xFFFF)


def _camera(make: bytes = b"", *, taken: bytes = b"", place: tuple[int, ...] = ()) -> bytes:
    """Metadata of a camera; the place is twelve numbers, two to a fraction, latitude and longitude."""
    location = formats.directory(
        8 + 42,
        (1, 2, 2, b"N\0"),
        (2, 5, 3, struct.pack("<6I", *(place[:6] or [0] * 6))),
        (3, 2, 2, b"E\0"),
        (4, 5, 3, struct.pack("<6I", *(place[6:] or [0] * 6))),
    )
    main = formats.directory(
        8,
        (0x010F, 2, len(make), make),
        (0x0132, 2, len(taken), taken),
        (0x8825, 4, 1, struct.pack("<I", 50)),
    )
    behind = main[42:]  # values of the first directory come behind the second one
    moved = _moved(main[:42], by=len(location))
    return b"II*\0" + struct.pack("<I", 8) + moved + location + behind


def _moved(main: bytes, *, by: int) -> bytes:
    """Shift where the values of a directory are, of those that are not in it."""
    moved = bytearray(main)
    for at in range(2, 2 + 12 * 2, 12):
        if struct.unpack_from("<I", main, at + 4)[0] > 4:
            struct.pack_into("<I", moved, at + 8, struct.unpack_from("<I", main, at + 8)[0] + by)
    return bytes(moved)


def _profile(content: bytes, *, number: int = 1, of: int = 1) -> bytes:
    return jpeg_segment(0xE2, b"ICC_PROFILE\0" + bytes([number, of]) + content)


def _several_pictures() -> bytes:
    """An index of pictures in one file (CIPA DC-007) that points at itself, a million times."""
    index = tiff(
        (0xB000, 7, 4, b"0100"),
        (0xB001, 4, 1, struct.pack("<I", 1_000_000)),
        (0xB002, 7, 16_000_000, bytes(4)),
        following=8,
    )
    return in_jpeg(samples.image(), jpeg_segment(0xE2, b"MPF\0" + index))


def _other(image_format: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, image_format)
    return buffer.getvalue()


def _photoshop() -> bytes:
    head = b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, 8, 8, 8, 3)
    return head + bytes(12) + b"\0\0" + bytes(3 * 64)


def _heic() -> bytes:
    return box(b"ftyp", b"heic", bytes(4), b"mif1heic") + bytes(500)


IMAGES: dict[str, HostileFile] = {
    "PNG of 900 megapixels": refused(
        "x.png", lambda _: _png_of_zeros(30_000, 30_000, depth=1, colors=0, bits=1), TOO_LARGE
    ),
    "PNG of 900 megapixels in a hundred bytes": refused("x.png", lambda _: png(30_000, 30_000, data=b""), TOO_LARGE),
    "PNG as large as can be said": refused("x.png", lambda _: png(2**31 - 1, 2**31 - 1, data=b""), TOO_LARGE),
    "PNG of a line of 2^31": refused("x.png", lambda _: png(2**31 - 1, 1, data=b""), TOO_LARGE),
    "PNG within the limit of pixels, that takes almost all memory": either(
        "x.png", "image/png", lambda _: _png_of_zeros(10_000, 10_000, depth=8, colors=6, bits=32), TOO_LARGE
    ),
    "PNG of 16 bits within the limit of pixels": either(
        "x.png", "image/png", lambda _: _png_of_zeros(6_000, 6_000, depth=16, colors=2, bits=48)
    ),
    "PNG without width": refused("x.png", lambda _: png(0, 5), CORRUPT),
    "PNG with a compressed text of 200 MB": either(
        "x.png", "image/png", lambda _: png(8, 8, png_chunk(b"zTXt", b"Title\0\0" + zeros(200_000_000)))
    ),
    "PNG with an international text of 200 MB": either(
        "x.png", "image/png", lambda _: png(8, 8, png_chunk(b"iTXt", b"Title\0\1\0\0\0" + zeros(200_000_000)))
    ),
    "PNG with a colour profile of 200 MB": either(
        "x.png", "image/png", lambda _: png(8, 8, png_chunk(b"iCCP", b"sRGB\0\0" + zeros(200_000_000)))
    ),
    "PNG with a thousand texts of 1 MB": either(
        "x.png", "image/png", lambda _: png(8, 8, png_chunk(b"zTXt", b"Title\0\0" + zeros(1_000_000)) * 1_000)
    ),
    "PNG with a hundred thousand texts": either(
        "x.png", "image/png", lambda _: png(8, 8, png_chunk(b"tEXt", b"Title\0a") * _MANY)
    ),
    "PNG whose pixels unpack to a gigabyte": either(
        "x.png",
        "image/png",
        lambda _: (
            formats.PNG
            + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0))
            + png_chunk(b"IDAT", zeros(1_000_000_000))
            + png_chunk(b"IEND", b"")
        ),
    ),
    "PNG whose metadata go round in circles": either(
        "x.png", "image/png", lambda _: png(8, 8, png_chunk(b"eXIf", _cyclic()))
    ),
    "PNG whose chunk is 4 GB": refused(
        "x.png", lambda _: png(8, 8)[:33] + b"\xff\xff\xff\xffIDAT" + bytes(99), UNREADABLE
    ),
    "APNG of a hundred thousand frames": either("x.png", "image/png", lambda _: _apng(_MANY)),
    "APNG that says it has 2^32 frames": either("x.png", "image/png", lambda _: _apng(2, said=2**32 - 1)),
    "APNG whose frames lie outside": either("x.png", "image/png", lambda _: _apng(3, x=2**31 - 1)),
    "GIF on a huge canvas": refused("x.gif", lambda _: _gif(65_535, 65_535, _gif_frame()), TOO_LARGE),
    "GIF within the limit of pixels": either("x.gif", "image/gif", lambda _: _gif(10_000, 10_000, _gif_frame())),
    "GIF of a hundred thousand frames": either("x.gif", "image/gif", lambda _: _gif(1, 1, _gif_frame() * _MANY)),
    "GIF of a hundred thousand frames on a large canvas": either(
        "x.gif", "image/gif", lambda _: _gif(9_000, 9_000, _gif_frame() * _MANY)
    ),
    "GIF whose frame lies outside": either(
        "x.gif", "image/gif", lambda _: _gif(8, 8, _gif_frame(x=60_000, width=60_000, height=60_000))
    ),
    "GIF whose frame is larger than its canvas": either(
        "x.gif", "image/gif", lambda _: _gif(8, 8, _gif_frame(width=65_535, height=65_535))
    ),
    "GIF of codes of 255 bits": either("x.gif", "image/gif", lambda _: _gif(8, 8, _gif_frame(code_size=255))),
    "GIF of a comment of 5 MB": either(
        "x.gif", "image/gif", lambda _: _gif(8, 8, b"!\xfe" + (b"\xff" + b"a" * 255) * 20_000 + b"\0", _gif_frame())
    ),
    "WEBP on a canvas of 2^24": refused(
        "x.webp", lambda _: _webp(1 << 24, 1 << 24, _encoded("WEBP")[12:], flags=0), UNREADABLE
    ),
    "WEBP on a canvas of 268 megapixels": refused(
        "x.webp", lambda _: _webp(16_384, 16_384, formats.chunk(b"ANIM", bytes(6)), _webp_frame()), UNREADABLE
    ),
    "WEBP on a canvas within the limit of pixels": either(
        "x.webp", "image/webp", lambda _: _webp(10_000, 10_000, formats.chunk(b"ANIM", bytes(6)), _webp_frame())
    ),
    "WEBP of 268 megapixels in fifty bytes": refused("x.webp", lambda _: _webp_lossless(16_383, 16_383), UNREADABLE),
    "WEBP of 98 megapixels in fifty bytes": either("x.webp", "image/webp", lambda _: _webp_lossless(9_900, 9_900)),
    "WEBP of a hundred thousand frames": either(
        "x.webp", "image/webp", lambda _: _webp(1, 1, formats.chunk(b"ANIM", bytes(6)), _tiny_webp_frame() * _MANY)
    ),
    "WEBP whose chunks are 4 GB": refused(
        "x.webp", lambda _: b"RIFF\xff\xff\xff\xffWEBPVP8L\xff\xff\xff\xff" + bytes(500), CORRUPT
    ),
    "AVIF as large as can be said": refused("x.avif", lambda _: _avif(2**32 - 1, 2**32 - 1), UNREADABLE),
    "AVIF of 900 megapixels": refused("x.avif", lambda _: _avif(30_000, 30_000), UNREADABLE),
    "AVIF larger than its pixels": either("x.avif", "image/avif", lambda _: _avif(9_000, 9_000)),
    "AVIF whose pixels are behind its end": refused("x.avif", lambda _: _avif_item_elsewhere(), CORRUPT),
    "JPEG as large as can be said": refused("x.jpg", lambda _: _jpeg(65_500, 65_500), TOO_LARGE),
    "JPEG within the limit of pixels, most not there": either("x.jpg", "image/jpeg", lambda _: _jpeg(10_000, 10_000)),
    "JPEG of progressive scans without pixels": either(
        "x.jpg", "image/jpeg", lambda _: _jpeg(9_000, 9_000, progressive=True)
    ),
    "JPEG of a thousand scans": refused("x.jpg", lambda _: _jpeg_of_scans(2_000, 2_000, 1_000), TOO_LARGE),
    "JPEG of four hundred scans": either("x.jpg", "image/jpeg", lambda _: _jpeg_of_scans(2_000, 2_000, 400)),
    "JPEG whose metadata go round in circles": either(
        "x.jpg", "image/jpeg", lambda _: in_jpeg(samples.image(), _exif(_cyclic()))
    ),
    "JPEG whose metadata have absurd counts": either(
        "x.jpg", "image/jpeg", lambda _: in_jpeg(samples.image(), _exif(_absurd_counts()))
    ),
    "JPEG whose metadata are cut off": harmless(
        "x.jpg", "image/jpeg", lambda _: in_jpeg(samples.image(), _exif(b"II*\0\xff\xff"))
    ),
    "JPEG of a camera whose name is 60 kB of control characters": harmless(
        "x.jpg", "image/jpeg", lambda _: in_jpeg(samples.image(), _exif(_camera(b"\x1b]0;\xe2\x80\xae\0" * 7_000)))
    ),
    "JPEG taken at a time that does not exist": harmless(
        "x.jpg", "image/jpeg", lambda _: in_jpeg(samples.image(), _exif(_camera(taken=b"2024:02:31 24:60:61\0")))
    ),
    "JPEG taken in the year 0": harmless(
        "x.jpg", "image/jpeg", lambda _: in_jpeg(samples.image(), _exif(_camera(taken=b"0000:00:00 00:00:00\0")))
    ),
    "JPEG taken at a place of fractions without a denominator": harmless(
        "x.jpg", "image/jpeg", lambda _: in_jpeg(samples.image(), _exif(_camera(place=(1, 0) * 6)))
    ),
    "JPEG taken on another planet": harmless(
        "x.jpg", "image/jpeg", lambda _: in_jpeg(samples.image(), _exif(_camera(place=(_MOST, 1) * 6)))
    ),
    "JPEG with a colour profile of noise": harmless(
        "x.jpg", "image/jpeg", lambda _: in_jpeg(samples.image(), _profile(bytes(range(256))))
    ),
    "JPEG with a colour profile in the wrong order": harmless(
        "x.jpg",
        "image/jpeg",
        lambda _: in_jpeg(samples.image(), _profile(b"a", number=255, of=2), _profile(b"b", number=0, of=0)),
    ),
    "JPEG with ten thousand segments": either(
        "x.jpg", "image/jpeg", lambda _: in_jpeg(samples.image(), *[jpeg_segment(0xEF, b"a" * 200)] * 10_000)
    ),
    "JPEG with 9 MB of colour profile": either(
        "x.jpg", "image/jpeg", lambda _: in_jpeg(samples.image(), *[_profile(bytes(60_000), of=150)] * 150)
    ),
    "JPEG that holds a million pictures": either("x.jpg", "image/jpeg", lambda _: _several_pictures()),
    "TIFF": refused("x.tiff", lambda _: _other("TIFF"), UNSUPPORTED),
    "TIFF called JPEG": refused("x.jpg", lambda _: _other("TIFF"), UNSUPPORTED),
    "BMP": refused("x.bmp", lambda _: _other("BMP"), UNSUPPORTED),
    "ICO": refused("x.ico", lambda _: _other("ICO"), UNSUPPORTED),
    "PCX called GIF": refused("x.gif", lambda _: _other("PCX"), UNSUPPORTED),
    "EPS that runs a program": refused(
        "x.jpg",
        lambda c: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(" + str(c.path).encode() + b") run\n",
        UNSUPPORTED,
    ),
    "PSD": refused("x.psd", lambda _: _photoshop(), UNSUPPORTED),
    "HEIC": refused("x.heic", lambda _: _heic(), UNSUPPORTED),
    "JPEG 2000": refused("x.jp2", lambda _: b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(200), UNSUPPORTED),
}


BUSY_IMAGES: dict[str, HostileFile] = {
    "JPEG of scans without end": refused("x.jpg", lambda _: _jpeg_of_scans(9_000, 9_000, 500_000), TOO_LARGE),
    "JPEG of a thousand scans of 81 megapixels": refused(
        "x.jpg", lambda _: _jpeg_of_scans(9_000, 9_000, 1_000), TOO_LARGE
    ),
    "JPEG of two hundred scans of 81 megapixels": refused(
        "x.jpg", lambda _: _jpeg_of_scans(9_000, 9_000, 200), TOO_LARGE
    ),
}
"""What would keep a parser at it for long."""
