"""Makes pictures of files: what is seen first, operations on it, and its encoding; by Pillow."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

import attrs

from mindia.config import Settings
from mindia.domain.media import MediaKind
from mindia.domain.operations import Thumbnail
from mindia.domain.transformations import ImageFormat, Transformation
from mindia.errors import CorruptMediaError, InvalidError, TooLargeError
from mindia.media import sniff
from mindia.media.colours import decoding, orientation, upright_srgb
from mindia.media.images import quiet, refuse_slow, without_metadata
from mindia.media.pixels import GAP, Canvas, applied, needed
from mindia.media.stills import frame_of_video, page_of_document, waveform
from mindia.media.storyboards import laid_out
from mindia.media.video import has_pictures

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

_MAX_SIDES = {ImageFormat.WEBP: 16_383, ImageFormat.GIF: 65_535, ImageFormat.JPEG: 65_500, ImageFormat.AVIF: 65_536}
_MAX_MARK_PIXELS = 16_000_000
"""To which a watermark is reduced while it is read."""
_FRAME_MS = 100
"""How long a picture of an animation is seen that does not say."""


@attrs.frozen
class Made:
    """A picture that was made.

    Attributes:
        content: The file.
        width: In pixels.
        height: In pixels.
        end: Of tiles, when the last frame of the video is over, in seconds; otherwise None.
        is_exact: Whether each tile is the frame of its time.
    """

    content: bytes = attrs.field(repr=False)
    width: int
    height: int
    end: float | None = None
    is_exact: bool = True


def derive(
    file: BinaryIO,
    *,
    filename: str,
    transformation: Transformation,
    watermarks: Sequence[BinaryIO],
    settings: Settings,
) -> Made:
    """Make a picture of a file that was taken in before. It holds nothing but pixels: no EXIF data, no place.

    Args:
        file: Seekable.
        filename: For messages.
        transformation: What is done; settled.
        watermarks: The files of `transformation.watermarks`, in the same order.
        settings: Limits.

    Raises:
        CorruptMediaError: It cannot be decoded.
        TooLargeError: The picture would have too many pixels.
        InvalidError: There is nothing left after cropping, or no picture of that kind of file.
        MissingExtraError: What reads that kind of file is not installed.
    """
    marks = {
        image_id: _mark(mark, filename, settings)
        for image_id, mark in zip(transformation.watermarks, watermarks, strict=True)
    }
    canvas = Canvas(marks=marks, max_pixels=settings.max_derivative_pixels, filename=filename)
    kind = _kind_of(file, filename)
    if transformation.tiles is not None:
        if kind.kind is not MediaKind.VIDEO:
            raise InvalidError(f"{filename!r} is {kind.content_type}: a storyboard is made of a video")
        sheet, tiles = laid_out(file, kind, transformation.tiles, canvas, settings)
        made = _encoded([sheet], transformation, filename)
        return attrs.evolve(made, end=tiles.end, is_exact=tiles.exact)
    if kind.kind is MediaKind.IMAGE:
        try:
            return _of_image(file, kind, transformation, canvas, settings)
        except CorruptMediaError:
            # As it was taken in: decoders stumble over the metadata of some.
            sound = without_metadata(file, kind, filename)
            if sound is None:
                raise
        return _of_image(sound, kind, transformation, canvas, settings)
    first = next(iter(transformation.operations), None)
    if not isinstance(first, Thumbnail):
        raise InvalidError(f"{filename!r} is {kind.content_type}: what can be made of that is a thumbnail")
    still = _still(file, kind, first, filename, settings)
    with decoding(filename, kind.content_type):
        return _encoded([applied(still, transformation.operations, canvas)], transformation, filename)


def _kind_of(file: BinaryIO, filename: str) -> sniff.MediaType:
    file.seek(0)
    return sniff.require(file.read(sniff.HEAD_BYTES), filename=filename)


def _still(file: BinaryIO, kind: sniff.MediaType, asked: Thumbnail, filename: str, settings: Settings) -> Image:
    if kind.kind is MediaKind.DOCUMENT:
        return page_of_document(file, filename=filename, page=asked.page, side=asked.side, settings=settings)
    if kind.kind is MediaKind.VIDEO and has_pictures(file, kind, filename=filename, settings=settings):
        return frame_of_video(file, kind, filename=filename, at_s=asked.at, settings=settings)
    return waveform(file, kind, filename=filename, width=asked.side, settings=settings)


def _of_image(
    file: BinaryIO, kind: sniff.MediaType, transformation: Transformation, canvas: Canvas, settings: Settings
) -> Made:
    from PIL import Image

    filename, operations = canvas.filename, transformation.operations
    refuse_slow(file, kind, filename)
    file.seek(0)
    with decoding(filename, kind.content_type), quiet, Image.open(file, formats=[kind.parser]) as image:
        _check_pixels(image, filename, settings)
        if transformation.animated and getattr(image, "n_frames", 1) > 1:
            return _moving(image, transformation, canvas)
        first = operations[0] if operations else None
        turned = orientation(image) > 4  # width and height change places
        wanted = needed(*(image.size[::-1] if turned else image.size), first)
        if wanted is not None:
            wanted = wanted[::-1] if turned else wanted
            image.draft(None, (wanted[0] * GAP, wanted[1] * GAP))
        image.load()
        upright = upright_srgb(image if wanted is None else _reduced(image, wanted))
        return _encoded([applied(upright, operations, canvas)], transformation, filename)


def _check_pixels(image: ImageFile, filename: str, settings: Settings) -> None:
    if image.width * image.height > settings.max_image_pixels:
        raise TooLargeError(
            f"{filename!r} has {image.width} x {image.height} pixels; the limit is {settings.max_image_pixels} "
            "(Settings.max_image_pixels)"
        )


def _reduced(image: Image, wanted: tuple[int, int]) -> Image:
    """Return a picture that is not much larger than needed, by the mean of whole pixels, which is quick."""
    factor = (max(1, image.width // (GAP * wanted[0])), max(1, image.height // (GAP * wanted[1])))
    if factor == (1, 1) or image.mode not in ("RGB", "RGBA", "L", "LA", "CMYK"):
        return image
    reduced = image.reduce(factor)
    reduced.info = image.info
    return reduced


def _moving(image: ImageFile, transformation: Transformation, canvas: Canvas) -> Made:
    frames: list[Image] = []
    durations: list[int] = []
    count: int = getattr(image, "n_frames", 1)
    for number in range(count):
        image.seek(number)
        image.load()
        frame = applied(upright_srgb(image), transformation.operations, canvas)
        frames.append(frame.copy() if frame is image else frame)
        durations.append(int(image.info.get("duration") or _FRAME_MS))
        canvas.check(*frames[0].size, count=count)
    loop = image.info.get("loop", 1)
    return _encoded(frames, transformation, canvas.filename, durations=durations, loop=loop)


def _mark(file: BinaryIO, filename: str, settings: Settings) -> Image:
    from PIL import Image

    kind = _kind_of(file, filename)
    if kind.kind is not MediaKind.IMAGE:
        raise InvalidError(f"the watermark of {filename!r} is {kind.content_type}, and no image")
    refuse_slow(file, kind, filename)
    file.seek(0)
    with decoding(f"the watermark of {filename}", kind.content_type), quiet:
        with Image.open(file, formats=[kind.parser]) as image:
            _check_pixels(image, filename, settings)
            image.load()
            mark = upright_srgb(image).convert("RGBA")
        while mark.width * mark.height > _MAX_MARK_PIXELS:
            mark = mark.reduce(2)
    return mark


def _encoded(
    frames: Sequence[Image],
    transformation: Transformation,
    filename: str,
    *,
    durations: Sequence[int] = (),
    loop: int = 0,
) -> Made:
    form = transformation.format
    assert form is not None, "the transformation is settled"
    width, height = frames[0].size
    limit = _MAX_SIDES.get(form)
    if limit is not None and max(width, height) > limit:
        raise TooLargeError(f"{filename!r} would become {width} x {height} pixels; {form} has at most {limit} a side")
    first, *others = (_finished(frame, transformation.background) for frame in frames)
    options: dict[str, Any] = {}
    if transformation.quality is not None:
        options["quality"] = transformation.quality
    if others:
        options |= {"save_all": True, "append_images": others, "duration": list(durations), "loop": loop}
        if form is ImageFormat.GIF:
            options["disposal"] = 2  # transparent parts do not show the picture before
    target = io.BytesIO()
    first.save(target, form.upper(), **options)
    return Made(target.getvalue(), width, height)


def _finished(image: Image, background: str | None) -> Image:
    from PIL import Image as Pillow

    finished = image
    if image.mode == "RGBA":
        if image.getchannel("A").getextrema() == (255, 255):
            finished = image.convert("RGB")
        elif background is not None:
            finished = Pillow.new("RGB", image.size, f"#{background}")
            finished.paste(image, mask=image)
    finished.info = {}  # encoders write what they find there
    return finished
