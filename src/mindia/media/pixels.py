"""Operations on pixels, by Pillow. A picture is RGB, or RGBA where it has transparent parts."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

import attrs

from mindia.domain import operations as ops
from mindia.domain.operations import Fit, Operation, Position
from mindia.errors import InvalidError, TooLargeError

if TYPE_CHECKING:
    from PIL.Image import Image

GAP = 2
"""How much larger than needed a picture is, at least, when what is seen of its pixels is still made of all of them."""

_SEPIA = (0.393, 0.769, 0.189, 0, 0.349, 0.686, 0.168, 0, 0.272, 0.534, 0.131, 0)
"""Red, green and blue, each of the red, green and blue that there was."""

_LOOKED_AT = 256
"""Pixels of the shorter side of what is looked at to find where most is to be seen."""


@attrs.frozen(kw_only=True)
class Canvas:
    """What operations are done within.

    Attributes:
        filename: For messages.
        marks: The images that watermarks name, by their ids.
        max_pixels: How many a picture may have meanwhile.
        offsets: Where a picture was cut first, by the place of the operation: the pictures of an animation are cut in
            the same place.
    """

    filename: str
    marks: Mapping[UUID, Image]
    max_pixels: int
    offsets: dict[int, tuple[int, int]] = attrs.field(factory=dict)

    def check(self, width: int, height: int, *, count: int = 1) -> None:
        """Refuse a size that is too large.

        Raises:
            TooLargeError: It is.
        """
        if width * height * count > self.max_pixels:
            times = f" x {count}" if count > 1 else ""
            raise TooLargeError(
                f"{self.filename!r} would become {width} x {height}{times} pixels; the limit is {self.max_pixels} "
                "(Settings.max_derivative_pixels)"
            )


def applied(image: Image, operations: Sequence[Operation], canvas: Canvas) -> Image:
    """Return a picture after operations.

    Raises:
        TooLargeError: It would have too many pixels.
        InvalidError: There would be nothing left.
    """
    for place, operation in enumerate(operations):
        image = _DONE[type(operation)](image, operation, canvas, place)
    canvas.check(*image.size)
    return image


def resized_to(width: int, height: int, resize: ops.Resize) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the size to which a picture is scaled, and that which it has when it is cut or set on a canvas."""
    across = None if resize.width is None else resize.width / width
    down = None if resize.height is None else resize.height / height
    scales = [scale for scale in (across, down) if scale is not None]
    if len(scales) == 2 and resize.fit is Fit.FILL:
        shrunk = 1.0 if resize.enlarge else max(1.0, *scales)
        size = _whole(width * scales[0] / shrunk, height * scales[1] / shrunk)
        return size, size
    wanted = max(scales) if resize.fit in (Fit.COVER, Fit.OUTSIDE) else min(scales)
    scale = wanted if resize.enlarge else min(1.0, wanted)
    scaled = _whole(width * scale, height * scale)
    if resize.width is None or resize.height is None or resize.fit in (Fit.INSIDE, Fit.OUTSIDE):
        return scaled, scaled
    if resize.fit is Fit.CONTAIN:
        return scaled, (resize.width, resize.height)
    shrunk = wanted / scale
    cut = _whole(resize.width / shrunk, resize.height / shrunk)
    return scaled, (min(cut[0], scaled[0]), min(cut[1], scaled[1]))


def _whole(width: float, height: float) -> tuple[int, int]:
    return max(1, round(width)), max(1, round(height))


def needed(width: int, height: int, operation: Operation | None) -> tuple[int, int] | None:
    """Return the size to which the first operation scales a picture; None where it needs all of its pixels."""
    match operation:
        case ops.Resize():
            return resized_to(width, height, operation)[0]
        case ops.SmartCrop():
            return resized_to(width, height, _covering(operation))[0]
        case ops.Thumbnail():
            return resized_to(width, height, _inside(operation))[0]
        case _:
            return None


def _covering(crop: ops.SmartCrop) -> ops.Resize:
    return ops.Resize(crop.width, crop.height, fit=Fit.COVER, enlarge=crop.enlarge)


def _inside(thumbnail: ops.Thumbnail) -> ops.Resize:
    return ops.Resize(thumbnail.side, thumbnail.side)


def _scaled(image: Image, size: tuple[int, int], canvas: Canvas) -> Image:
    from PIL.Image import Resampling

    canvas.check(*size)
    return image if image.size == size else image.resize(size, Resampling.BICUBIC, reducing_gap=float(GAP))


def _cut(image: Image, size: tuple[int, int], corner: tuple[int, int]) -> Image:
    return image.crop((*corner, corner[0] + size[0], corner[1] + size[1]))


def _corner(room: tuple[int, int], size: tuple[int, int], position: Position) -> tuple[int, int]:
    across, down = position.shares
    return round((room[0] - size[0]) * across), round((room[1] - size[1]) * down)


def _resize(image: Image, resize: Any, canvas: Canvas, _: int) -> Image:
    scaled, size = resized_to(*image.size, resize)
    canvas.check(*size)
    image = _scaled(image, scaled, canvas)
    if scaled == size:
        return image
    if resize.fit is Fit.COVER:
        return _cut(image, size, _corner(image.size, size, resize.position))
    return _on_canvas(image, size, _corner(size, image.size, resize.position), resize.background)


def _on_canvas(image: Image, size: tuple[int, int], corner: tuple[int, int], background: str | None) -> Image:
    from PIL import Image as Pillow

    if background is None:
        under = Pillow.new("RGBA", size, (0, 0, 0, 0))
        under.paste(image, corner)
        return under
    under = Pillow.new("RGB", size, f"#{background}")
    under.paste(image, corner, mask=image if image.mode == "RGBA" else None)
    return under


def _crop(image: Image, crop: Any, canvas: Canvas, _: int) -> Image:
    size = (min(crop.width, image.width), min(crop.height, image.height))
    x, y = _corner(image.size, size, crop.position)
    x, y = x if crop.x is None else crop.x, y if crop.y is None else crop.y
    if x >= image.width or y >= image.height:
        raise InvalidError(
            f"{crop} leaves nothing of {canvas.filename!r}, which has {image.width} x {image.height} pixels then"
        )
    return image.crop((x, y, min(x + crop.width, image.width), min(y + crop.height, image.height)))


def _smart_crop(image: Image, crop: Any, canvas: Canvas, place: int) -> Image:
    scaled, size = resized_to(*image.size, _covering(crop))
    image = _scaled(image, scaled, canvas)
    if place not in canvas.offsets:
        canvas.offsets[place] = _where_most_is_seen(image, size)
    return _cut(image, size, canvas.offsets[place])


def _where_most_is_seen(image: Image, size: tuple[int, int]) -> tuple[int, int]:
    """Return the corner of the part that has the most edges and colours: it slides along one side alone."""
    from PIL import ImageFilter
    from PIL.Image import Resampling, Transpose

    is_wide = image.width > size[0]
    room = image.width - size[0] if is_wide else image.height - size[1]
    if room <= 0:
        return 0, 0
    looked_at = image.convert("RGB")
    shrink = max(1.0, min(image.size) / _LOOKED_AT)
    looked_at = looked_at.resize(_whole(image.width / shrink, image.height / shrink), Resampling.BOX)
    if not is_wide:
        looked_at = looked_at.transpose(Transpose.TRANSPOSE)
    edges = looked_at.convert("L").filter(ImageFilter.FIND_EDGES)
    # The filter leaves the outermost pixels as they are.
    edges.paste(0, (0, 0, edges.width, 1))
    edges.paste(0, (0, edges.height - 1, edges.width, edges.height))
    edges.paste(0, (0, 0, 1, edges.height))
    edges.paste(0, (edges.width - 1, 0, edges.width, edges.height))
    of_columns = [
        edge + colour / 4
        for edge, colour in zip(_columns(edges), _columns(looked_at.convert("HSV").getchannel("S")), strict=True)
    ]
    wide = min(len(of_columns), max(1, round((size[0] if is_wide else size[1]) / shrink)))
    best, at, total, middle = -1.0, 0, sum(of_columns[:wide]), (len(of_columns) - wide) / 2
    for start in range(len(of_columns) - wide + 1):
        # Of parts with as much, the one in the middle.
        score = total - 1e-6 * abs(start - middle)
        if score > best:
            best, at = score, start
        if start + wide < len(of_columns):
            total += of_columns[start + wide] - of_columns[start]
    offset = min(room, round(at * shrink))
    return (offset, 0) if is_wide else (0, offset)


def _columns(image: Image) -> Sequence[float]:
    """Return the mean of each column."""
    from PIL.Image import Resampling

    return array("f", image.convert("F").resize((image.width, 1), Resampling.BOX).tobytes())


def _rotate(image: Image, rotate: Any, canvas: Canvas, _: int) -> Image:
    from PIL.Image import Resampling, Transpose

    turned = rotate.degrees % 360
    if turned % 90 == 0:
        quarter = {90: Transpose.ROTATE_270, 180: Transpose.ROTATE_180, 270: Transpose.ROTATE_90}.get(int(turned))
        return image if quarter is None else image.transpose(quarter)
    canvas.check(image.width + image.height, max(image.size))
    if rotate.background is None:
        return image.convert("RGBA").rotate(-turned, Resampling.BICUBIC, expand=True)
    layer = image.convert("RGBA").rotate(-turned, Resampling.BICUBIC, expand=True)
    if image.mode == "RGB":
        return _on_canvas(layer, layer.size, (0, 0), rotate.background)
    corners = _mask_of_corners(image, turned)
    under = _on_canvas(layer, layer.size, (0, 0), rotate.background).convert("RGBA")
    under.paste(layer, (0, 0), mask=corners)
    return under


def _mask_of_corners(image: Image, turned: float) -> Image:
    """Return where a picture is after it was turned, transparent parts included."""
    from PIL import Image as Pillow
    from PIL.Image import Resampling

    return Pillow.new("L", image.size, 255).rotate(-turned, Resampling.BICUBIC, expand=True)


def _flip(image: Image, flip: Any, _: Canvas, __: int) -> Image:
    from PIL.Image import Transpose

    across = flip.direction is ops.Direction.HORIZONTAL
    return image.transpose(Transpose.FLIP_LEFT_RIGHT if across else Transpose.FLIP_TOP_BOTTOM)


def _watermark(image: Image, watermark: Any, canvas: Canvas, _: int) -> Image:
    mark = canvas.marks[watermark.image]
    size = _whole(image.width * watermark.size, image.width * watermark.size * mark.height / mark.width)
    if size[1] > image.height:
        size = _whole(size[0] * image.height / size[1], image.height)
    mark = _scaled(mark.convert("RGBA"), size, canvas)
    if watermark.opacity < 1:
        mark.putalpha(mark.getchannel("A").point(_times(watermark.opacity)))
    margin = round(min(image.size) * watermark.margin)
    room = (max(size[0], image.width - 2 * margin), max(size[1], image.height - 2 * margin))
    x, y = _corner(room, size, watermark.position)
    inset = ((image.width - room[0]) // 2, (image.height - room[1]) // 2)
    layer = image.convert("RGBA")
    layer.alpha_composite(mark, (x + inset[0], y + inset[1]))
    return layer if image.mode == "RGBA" else layer.convert("RGB")


def _times(factor: float) -> Callable[[Any], Any]:
    return lambda value: value * factor


def _blur(image: Image, blur: Any, _: Canvas, __: int) -> Image:
    from PIL import ImageFilter

    through = ImageFilter.GaussianBlur(blur.radius)
    # Colours of transparent parts are not to be seen, and must not shine through at their edges.
    return image.convert("RGBa").filter(through).convert("RGBA") if image.mode == "RGBA" else image.filter(through)


def _on_colours(change: Callable[[Image, Any], Image]) -> Callable[[Image, Any, Canvas, int], Image]:
    def done(image: Image, operation: Any, _: Canvas, __: int) -> Image:
        if image.mode == "RGB":
            return change(image, operation).convert("RGB")
        changed = change(image.convert("RGB"), operation).convert("RGB")
        changed.putalpha(image.getchannel("A"))
        return changed

    return done


def _sharpened(image: Image, sharpen: Any) -> Image:
    from PIL import ImageFilter

    return image.filter(ImageFilter.UnsharpMask(sharpen.radius, round(100 * sharpen.amount), 0))


def _enhanced(name: str) -> Callable[[Image, Any], Image]:
    def change(image: Image, operation: Any) -> Image:
        from PIL import ImageEnhance

        enhance: Any = getattr(ImageEnhance, name)
        changed: Image = enhance(image).enhance(operation.factor)
        return changed

    return change


def _inverted(image: Image, _: Any) -> Image:
    from PIL import ImageChops

    return ImageChops.invert(image)


_DONE: dict[type[Operation], Callable[[Image, Any, Canvas, int], Image]] = {
    ops.Resize: _resize,
    ops.Crop: _crop,
    ops.SmartCrop: _smart_crop,
    ops.Rotate: _rotate,
    ops.Flip: _flip,
    ops.Watermark: _watermark,
    ops.Blur: _blur,
    ops.Sharpen: _on_colours(_sharpened),
    ops.Brightness: _on_colours(_enhanced("Brightness")),
    ops.Contrast: _on_colours(_enhanced("Contrast")),
    ops.Saturation: _on_colours(_enhanced("Color")),
    ops.Grayscale: _on_colours(lambda image, _: image.convert("L")),
    ops.Sepia: _on_colours(lambda image, _: image.convert("RGB", _SEPIA)),
    ops.Invert: _on_colours(_inverted),
    ops.Thumbnail: lambda image, thumbnail, canvas, place: _resize(image, _inside(thumbnail), canvas, place),
}
