"""Pictures and films that say more than they should, each with the word CANARY wherever it can be."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable
from functools import cache
from typing import Any

import av
import numpy as np
from PIL import Image, ImageCms, PngImagePlugin

from mindia.testing import samples

CANARY = b"CANARY"
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF>CANARY tiff:Orientation="8"</rdf:RDF></x:xmpmeta>'
IPTC = b"Photoshop 3.0\x008BIM\x04\x04\0\0\0\0\0\x0bCANARY IPTC\0"
SPHERICAL = bytes.fromhex("ffcc8263f8554a938814587a02521fdd")
XMP_UUID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")


@cache
def profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def picture(width: int = 61, height: int = 43, mode: str = "RGB", *, seed: int = 1) -> Image.Image:
    """Return a picture of which no two rows or columns are the same."""
    noise = np.random.default_rng(seed).integers(0, 255, (height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def exif(orientation: int = 1) -> bytes:
    tags = Image.Exif()
    tags.update(
        {0x0112: orientation, 0x010F: "CANARY make", 0x0110: "CANARY model", 0x9C9B: "CANARY".encode("utf-16-le")}
    )
    tags.get_ifd(0x8769).update({0x9003: "2024:05:06 07:08:09", 0xA431: "CANARY serial number"})
    tags.get_ifd(0x8825).update({1: "N", 2: (48.0, 51.0, 24.0), 3: "E", 4: (2.0, 21.0, 3.0), 27: b"CANARY GPS"})
    return tags.tobytes()


def segment(marker: int, payload: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload


def jpeg(*, orientation: int = 1, mode: str = "RGB", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture(mode=mode).save(
        buffer, "JPEG", exif=exif(orientation), xmp=XMP, comment=b"CANARY comment", icc_profile=profile(), **options
    )
    content = buffer.getvalue()
    at = content.index(segment(0xFE, b"CANARY comment"))
    more = segment(0xED, IPTC) + segment(0xEC, b"Ducky CANARY") + segment(0xE0, b"JFXX\0\x10" + content[:99] + CANARY)
    return content[:at] + more + content[at:] + b"CANARY behind the end" + content


def mpo() -> bytes:
    buffer = io.BytesIO()
    further = picture(seed=2)
    further.info["exif"] = exif()
    picture().save(buffer, "MPO", save_all=True, append_images=[further], exif=exif(6))
    return buffer.getvalue() + CANARY


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(*, orientation: int = 1, mode: str = "RGB", **options: Any) -> bytes:
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Comment", "CANARY")
    texts.add_text("Author", "CANARY " * 99, zip=True)
    texts.add_itxt("XML:com.adobe.xmp", XMP.decode())
    buffer = io.BytesIO()
    picture(mode=mode).save(
        buffer, "PNG", pnginfo=texts, exif=exif(orientation), icc_profile=profile(), dpi=(72, 72), **options
    )
    content = buffer.getvalue()
    at = content.index(b"IDAT") - 4
    more = chunk(b"tIME", struct.pack(">HBBBBB", 2024, 5, 6, 7, 8, 9)) + chunk(b"prVt", CANARY)
    return content[:at] + more + content[at:] + b"CANARY behind the end"


def webp(*, orientation: int = 1, mode: str = "RGB", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture(mode=mode).save(
        buffer, "WEBP", exif=exif(orientation), xmp=XMP, icc_profile=profile(), **{"quality": 70} | options
    )
    body = buffer.getvalue()[8:] + b"prVt\x07\0\0\0CANARY!\0"
    return b"RIFF" + struct.pack("<I", len(body)) + body + b"CANARY behind the end"


def blocks(content: bytes) -> bytes:
    return (
        b"".join(bytes([len(part)]) + part for part in (content[at : at + 99] for at in range(0, len(content), 99)))
        + b"\0"
    )


def gif(**options: Any) -> bytes:
    buffer = io.BytesIO()
    picture(mode="P").save(buffer, "GIF", comment=b"CANARY comment", **options)
    content = buffer.getvalue()
    magic_trailer = b"\1" + bytes(range(255, -1, -1)) + b"\0"
    xmp = b"\x21\xff\x0bXMP DataXMP" + XMP + magic_trailer
    private = b"\x21\xff\x0bCANARY12345" + blocks(CANARY)
    text = b"\x21\xf9\x04\0\0\0\0\0" + b"\x21\x01\x0c" + bytes(12) + blocks(CANARY)
    return content[:-1] + xmp + private + text + b"\0\0" + content[-1:] + b"CANARY behind the end"


def avif(*, orientation: int = 1, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture().save(buffer, "AVIF", exif=exif(orientation), xmp=XMP, icc_profile=profile(), **options)
    return buffer.getvalue() + box(b"uuid", XMP_UUID + XMP) + box(b"free", CANARY)


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + kind + content


def within(content: bytes, path: Iterable[bytes], addition: bytes) -> bytes:
    """Append boxes to the innermost box of a path; all of them must be behind the media."""
    starts = []
    at = 0
    for kind in path:
        at = content.index(kind, at)
        starts.append(at - 4)
    end = starts[-1] + int.from_bytes(content[starts[-1] : starts[-1] + 4])
    content = content[:end] + addition + content[end:]
    for start in starts:
        size = int.from_bytes(content[start : start + 4]) + len(addition)
        content = content[:start] + struct.pack(">I", size) + content[start + 4 :]
    return content


def film(container_format: str = "mp4", **options: Any) -> bytes:
    """Return a film with boxes of users, of tags and of XMP in all places where they are found, and with times."""
    content = samples.video(container_format, title="CANARY title", **options)
    return with_boxes(content)


def film_with_index_first() -> bytes:
    """Return a film whose boxes of chunks point behind the index (ISO/IEC 14496-12, 8.7.5)."""
    content = film()
    start = content.index(b"moov") - 4
    index = content[start : start + int.from_bytes(content[start : start + 4])]
    at = index.find(b"stco")
    while at >= 0:
        for entry in range(at + 12, at + 12 + 4 * int.from_bytes(index[at + 8 : at + 12]), 4):
            moved = int.from_bytes(index[entry : entry + 4]) + len(index)
            index = index[:entry] + struct.pack(">I", moved) + index[entry + 4 :]
        at = index.find(b"stco", at + 1)
    media = content.index(b"mdat") - 4
    return content[:media] + index + content[media:start] + content[start + len(index) :]


def song() -> bytes:
    return with_boxes(samples.audio("ipod", codec="aac", title="CANARY title", artist="CANARY", album="CANARY"))


def with_boxes(content: bytes) -> bytes:
    user = box(b"udta", box(b"\xa9xyz", b"\0\x0b\0\0CANARY+48.8/") + box(b"name", CANARY) + bytes(4))
    meta = box(b"meta", bytes(4) + box(b"hdlr", bytes(8) + b"mdta" + bytes(12)) + box(b"ilst", CANARY))
    content = within(content, [b"moov", b"trak", b"mdia"], user)
    content = within(content, [b"moov", b"trak"], user + meta + box(b"uuid", b"CANARY" + bytes(10) + CANARY))
    content = within(content, [b"moov", b"trak"], box(b"uuid", SPHERICAL + b"<rdf:SphericalVideo/>"))
    content = within(content, [b"moov"], user + meta + box(b"CNRY", CANARY) + box(b"free", CANARY) + b"\0\0\0\0")
    for kind in (b"mvhd", b"tkhd", b"mdhd"):
        at = content.find(kind)
        while at >= 0:
            content = content[: at + 8] + b"CANARY!!" + content[at + 16 :]
            at = content.find(kind, at + 1)
    return content + box(b"uuid", XMP_UUID + XMP) + meta + user + box(b"skip", CANARY) + b"CANARY"


def frames(content: bytes) -> list[tuple[bytes, Any, Any]]:
    """Return all frames as they are seen, but not turned: pixels, profile, duration."""
    found = []
    with Image.open(io.BytesIO(content)) as image:
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            found.append((image.convert("RGBA").tobytes(), image.info.get("icc_profile"), image.info.get("duration")))
    return found


def media(content: bytes, *, kinds: tuple[str, ...] = ("video", "audio")) -> list[Any]:
    """Return all frames and samples, and when they are played."""
    found: list[Any] = []
    with av.open(io.BytesIO(content), "r", format="mov") as container:
        for stream in container.streams:
            if stream.type in kinds:
                container.seek(0)
                found += [(frame.pts, frame.to_ndarray().tobytes()) for frame in container.decode(stream)]  # type: ignore[union-attr]  # no subtitles
    return found
