"""Small pictures of files: of an image, or of frames of a video."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, BinaryIO

import attrs

from mindia.config import Settings
from mindia.domain.media import MediaKind
from mindia.errors import CorruptMediaError, InvalidError
from mindia.media import sniff
from mindia.media.images import quiet, refuse_slow
from mindia.media.video import opened_video

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_SIDE = 4096
MAX_SHOTS = 1000
_MICROSECONDS = 1_000_000
_QUALITY = 85


@attrs.frozen
class Shot:
    """A small picture, as a file of JPEG.

    Attributes:
        content: The file.
        at_s: When it is seen in a video, in seconds, or None for an image.
    """

    content: bytes = attrs.field(repr=False)
    at_s: float | None = None


def pictures(
    file: BinaryIO, *, filename: str, max_side: int, times: Sequence[float] | None, settings: Settings
) -> list[Shot]:
    """Return small pictures of an image or a video that was taken in before.

    Args:
        file: Seekable.
        filename: For messages.
        max_side: The longest side of a picture, in pixels.
        times: The seconds of a video to look at; those behind its end are left out.
        settings: Limits.

    Raises:
        CorruptMediaError: It cannot be decoded.
        InvalidError: There are no pictures of that kind of file.
    """
    file.seek(0)
    kind = sniff.require(file.read(sniff.HEAD_BYTES), filename=filename)
    if kind.kind is MediaKind.IMAGE:
        return [Shot(_of_image(file, kind, filename, max_side))]
    if kind.kind is MediaKind.VIDEO:
        return _of_video(file, kind, filename, max_side, times or [0.0], settings)
    raise InvalidError(f"{filename!r} is {kind.content_type}: there are no pictures of that")


def _of_image(file: BinaryIO, kind: sniff.MediaType, filename: str, max_side: int) -> bytes:
    from PIL import Image, ImageOps

    refuse_slow(file, kind, filename)
    file.seek(0)
    try:
        with quiet, Image.open(file, formats=[kind.parser]) as image:
            image.draft("RGB", (max_side, max_side))
            image.load()
            turned = ImageOps.exif_transpose(image)
            return _jpeg(turned, max_side)
    except MemoryError:
        raise
    except Exception as error:  # what a plugin raises over damaged bytes is not written down anywhere
        raise CorruptMediaError(f"{filename!r} cannot be read as {kind.content_type}: {error}") from error


def _of_video(
    file: BinaryIO, kind: sniff.MediaType, filename: str, max_side: int, times: Sequence[float], settings: Settings
) -> list[Shot]:
    shots: list[Shot] = []
    with opened_video(file, kind, filename=filename, settings=settings) as (container, stream):
        for at_s in times[:MAX_SHOTS]:
            container.seek(int(at_s * _MICROSECONDS))
            start = float((stream.start_time or 0) * (stream.time_base or 0))
            for frame in container.decode(stream):
                if frame.time is None or frame.time - start >= at_s:
                    picture: Image = frame.to_image()  # type: ignore[no-untyped-call]  # of PyAV
                    picture = picture.rotate(frame.rotation, expand=True)
                    shots.append(Shot(_jpeg(picture, max_side), at_s))
                    break
    if not shots:
        raise CorruptMediaError(f"{filename!r} has no frame that can be read")
    return shots


def _jpeg(image: Image, max_side: int) -> bytes:
    from PIL import Image as Pillow

    image.thumbnail((max_side, max_side))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layer = image.convert("RGBA")
        image = Pillow.new("RGB", layer.size, "white")
        image.paste(layer, mask=layer.getchannel("A"))
    target = io.BytesIO()
    image.convert("RGB").save(target, "JPEG", quality=_QUALITY)
    return target.getvalue()
