"""What can be done with a picture: operations, each a frozen object with a text form of its own.

The text holds nothing but what a URL may hold as it is (RFC 3986, 2.3): `resize_width-800_fit-cover`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum
from typing import ClassVar
from uuid import UUID

import attrs

from mindia.domain._operation import (
    FLAG,
    MAX_SIDE,
    NUMBER,
    TEXT,
    WHOLE,
    Operation,
    between,
    check_color,
    check_flag,
    chosen,
    hex_color,
    number,
    parsed_by,
    pixels,
    shown,
)
from mindia.domain.media import Image
from mindia.errors import InvalidError

__all__ = ["MAX_SIDE", "Operation"]

MAX_TILES = 100
"""Of a storyboard."""
TILES_IN_A_ROW = 10
MAX_TILE_SIDE = 640
"""In pixels: a hundred of them are a picture that any format has a place for."""


class Fit(StrEnum):
    """How a picture is brought to a width and a height that have another ratio.

    `inside` keeps its ratio, with neither side longer than told. `outside` keeps its ratio, with neither side shorter.
    `cover` fills both, and what stands over is cut off. `contain` leaves it whole, on a canvas of that size. `fill`
    distorts it.
    """

    INSIDE = "inside"
    OUTSIDE = "outside"
    COVER = "cover"
    CONTAIN = "contain"
    FILL = "fill"


class Position(StrEnum):
    """A place in a picture."""

    CENTER = "center"
    TOP = "top"
    BOTTOM = "bottom"
    LEFT = "left"
    RIGHT = "right"
    TOP_LEFT = "top-left"
    TOP_RIGHT = "top-right"
    BOTTOM_LEFT = "bottom-left"
    BOTTOM_RIGHT = "bottom-right"

    @property
    def shares(self) -> tuple[float, float]:
        """How much of the room that is left is to the left of it, and how much above it."""
        across = 0.0 if "left" in self else 1.0 if "right" in self else 0.5
        down = 0.0 if "top" in self else 1.0 if "bottom" in self else 0.5
        return across, down


class Direction(StrEnum):
    """How a picture is flipped: `horizontal` is as in a mirror, `vertical` upside down."""

    HORIZONTAL = "horizontal"
    VERTICAL = "vertical"


def _fit(value: Fit | str) -> Fit:
    return chosen(value, Fit)


def _position(value: Position | str) -> Position:
    return chosen(value, Position)


def _direction(value: Direction | str) -> Direction:
    return chosen(value, Direction)


def _id_of(value: Image | UUID) -> UUID:
    return value.id if isinstance(value, Image) else value


@attrs.frozen
class Resize(Operation):
    """Brings a picture to another size.

    Attributes:
        width: In pixels; without it, what the height and the ratio give.
        height: In pixels; without it, what the width and the ratio give.
        fit: What happens where the ratio is another one.
        position: Which part stays with `cover`, and where it stands with `contain`.
        enlarge: Whether a picture that is smaller is enlarged. Otherwise it is left at its size.
        background: Of the canvas with `contain`, as `#ffcc00`; transparent without it.
    """

    name: ClassVar[str] = "resize"

    width: int | None = attrs.field(default=None, validator=attrs.validators.optional(pixels()), metadata=WHOLE)
    height: int | None = attrs.field(default=None, validator=attrs.validators.optional(pixels()), metadata=WHOLE)
    fit: Fit = attrs.field(default=Fit.INSIDE, converter=_fit, metadata=parsed_by(Fit))
    position: Position = attrs.field(default=Position.CENTER, converter=_position, metadata=parsed_by(Position))
    enlarge: bool = attrs.field(default=False, validator=check_flag, metadata=FLAG)
    background: str | None = attrs.field(default=None, converter=hex_color, validator=check_color, metadata=TEXT)

    def __attrs_post_init__(self) -> None:
        if self.width is None and self.height is None:
            raise InvalidError("Resize needs a width, a height, or both")


@attrs.frozen
class Crop(Operation):
    """Cuts a part out of a picture. What would lie outside of the picture is left out.

    Attributes:
        width: Of the part, in pixels.
        height: Of the part, in pixels.
        x: Where it begins, from the left; without it, where `position` says.
        y: Where it begins, from the top; without it, where `position` says.
        position: Where it is.
    """

    name: ClassVar[str] = "crop"

    width: int = attrs.field(validator=pixels(), metadata=WHOLE)
    height: int = attrs.field(validator=pixels(), metadata=WHOLE)
    x: int | None = attrs.field(default=None, validator=attrs.validators.optional(pixels(0)), metadata=WHOLE)
    y: int | None = attrs.field(default=None, validator=attrs.validators.optional(pixels(0)), metadata=WHOLE)
    position: Position = attrs.field(default=Position.CENTER, converter=_position, metadata=parsed_by(Position))


@attrs.frozen
class SmartCrop(Operation):
    """Brings a picture to a size, and cuts off where there is least to see: flat surfaces rather than edges.

    Attributes:
        width: In pixels.
        height: In pixels.
        enlarge: Whether a picture that is smaller is enlarged. Otherwise the result is smaller, of the same ratio.
    """

    name: ClassVar[str] = "smartcrop"

    width: int = attrs.field(validator=pixels(), metadata=WHOLE)
    height: int = attrs.field(validator=pixels(), metadata=WHOLE)
    enlarge: bool = attrs.field(default=False, validator=check_flag, metadata=FLAG)


@attrs.frozen
class Rotate(Operation):
    """Turns a picture clockwise; the canvas grows with it.

    Attributes:
        degrees: -360 to 360.
        background: Of the corners that are left, as `#ffcc00`; transparent without it.
    """

    name: ClassVar[str] = "rotate"

    degrees: float = attrs.field(converter=number, validator=between(-360, 360), metadata=NUMBER)
    background: str | None = attrs.field(default=None, converter=hex_color, validator=check_color, metadata=TEXT)


@attrs.frozen
class Flip(Operation):
    """Flips a picture.

    Attributes:
        direction: `horizontal` as in a mirror, `vertical` upside down.
    """

    name: ClassVar[str] = "flip"

    direction: Direction = attrs.field(
        default=Direction.HORIZONTAL, converter=_direction, metadata=parsed_by(Direction)
    )


@attrs.frozen
class Watermark(Operation):
    """Puts another image of the same tenant on a picture.

    Attributes:
        image: Its id; an `Image` may be given.
        position: Where it stands.
        size: How wide it is, as a part of the width of the picture: 0.01 to 1.
        opacity: 0 to 1.
        margin: How far it is from the edges, as a part of the shorter side: 0 to 0.5.
    """

    name: ClassVar[str] = "watermark"

    image: UUID = attrs.field(converter=_id_of, metadata=parsed_by(UUID))
    position: Position = attrs.field(default=Position.BOTTOM_RIGHT, converter=_position, metadata=parsed_by(Position))
    size: float = attrs.field(default=0.25, converter=number, validator=between(0.01, 1), metadata=NUMBER)
    opacity: float = attrs.field(default=0.6, converter=number, validator=between(0, 1), metadata=NUMBER)
    margin: float = attrs.field(default=0.02, converter=number, validator=between(0, 0.5), metadata=NUMBER)

    @image.validator
    def _check_image(self, _: object, value: object) -> None:
        if not isinstance(value, UUID):
            raise InvalidError(f"image of Watermark must be an Image or its id, not {shown(value)}")


@attrs.frozen
class Blur(Operation):
    """Blurs a picture.

    Attributes:
        radius: In pixels, 0.1 to 200.
    """

    name: ClassVar[str] = "blur"

    radius: float = attrs.field(default=2.0, converter=number, validator=between(0.1, 200), metadata=NUMBER)


@attrs.frozen
class Sharpen(Operation):
    """Sharpens a picture.

    Attributes:
        amount: 0 to 5; 1 is what a picture bears that was made smaller.
        radius: In pixels, 0.1 to 20.
    """

    name: ClassVar[str] = "sharpen"

    amount: float = attrs.field(default=1.0, converter=number, validator=between(0, 5), metadata=NUMBER)
    radius: float = attrs.field(default=1.0, converter=number, validator=between(0.1, 20), metadata=NUMBER)


@attrs.frozen
class Brightness(Operation):
    """Makes a picture lighter or darker.

    Attributes:
        factor: 0 is black, 1 changes nothing, 10 is the most.
    """

    name: ClassVar[str] = "brightness"

    factor: float = attrs.field(converter=number, validator=between(0, 10), metadata=NUMBER)


@attrs.frozen
class Contrast(Operation):
    """Changes how far light and dark are apart.

    Attributes:
        factor: 0 is one grey, 1 changes nothing, 10 is the most.
    """

    name: ClassVar[str] = "contrast"

    factor: float = attrs.field(converter=number, validator=between(0, 10), metadata=NUMBER)


@attrs.frozen
class Saturation(Operation):
    """Changes how strong colours are.

    Attributes:
        factor: 0 is without colour, 1 changes nothing, 10 is the most.
    """

    name: ClassVar[str] = "saturation"

    factor: float = attrs.field(converter=number, validator=between(0, 10), metadata=NUMBER)


@attrs.frozen
class Grayscale(Operation):
    """Takes the colours out."""

    name: ClassVar[str] = "grayscale"


@attrs.frozen
class Sepia(Operation):
    """Gives a picture the brown of old photographs."""

    name: ClassVar[str] = "sepia"


@attrs.frozen
class Invert(Operation):
    """Makes a negative of a picture."""

    name: ClassVar[str] = "invert"


@attrs.frozen
class Thumbnail(Operation):
    """Makes a picture of an item of any kind; the first of the operations, or not there at all.

    Attributes:
        side: Its longest side, in pixels.
        at: Of a video, the second that is shown.
        page: Of a document, the page that is shown, from 1 on.
    """

    name: ClassVar[str] = "thumbnail"

    side: int = attrs.field(validator=pixels(), metadata=WHOLE)
    at: float = attrs.field(default=0.0, converter=number, validator=between(0, 1_000_000), metadata=NUMBER)
    page: int = attrs.field(default=1, metadata=WHOLE)

    @page.validator
    def _check_page(self, _: object, value: object) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 1_000_000:
            raise InvalidError(f"page must be 1 to 999999, not {shown(value)}")


@attrs.frozen
class Tiles(Operation):
    """Lays frames of a video out in one picture, ten in a row; the only operation, where it is one.

    Attributes:
        side: The longest side of a tile, in pixels.
        interval: Seconds from frame to frame; without it, whole ones, so many that 100 tiles are enough.
        end: When the last frame is over, in seconds; None as long as nobody has looked.
        exact: Whether each is the frame of its time; otherwise decoding took too long, and some are earlier ones.
    """

    name: ClassVar[str] = "tiles"

    side: int = attrs.field(metadata=WHOLE)
    interval: float | None = attrs.field(
        default=None,
        converter=attrs.converters.optional(number),
        validator=attrs.validators.optional(between(0.1, 86_400)),
        metadata=NUMBER,
    )
    end: float | None = attrs.field(
        default=None,
        converter=attrs.converters.optional(number),
        validator=attrs.validators.optional(between(0.001, 1_000_000)),
        metadata=NUMBER,
    )
    exact: bool = attrs.field(default=True, validator=check_flag, metadata=FLAG)

    @side.validator
    def _check_side(self, _: object, value: object) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or not 16 <= value <= MAX_TILE_SIDE:
            raise InvalidError(f"side of a tile must be 16 to {MAX_TILE_SIDE} pixels, not {shown(value)}")

    def __attrs_post_init__(self) -> None:
        if self.interval is not None and self.end is not None and self.count > MAX_TILES:
            raise InvalidError(
                f"a frame every {self.interval:g} seconds until {self.end:g} makes {self.count} tiles; the limit is "
                f"{MAX_TILES}: take {math.ceil(self.end * 1000 / MAX_TILES) / 1000:g} seconds or more, or leave it out"
            )

    @property
    def step_ms(self) -> int:
        """Milliseconds from frame to frame; the end must be known."""
        assert self.end is not None
        return round(self.interval * 1000) if self.interval else 1000 * math.ceil(self.end / MAX_TILES)

    @property
    def count(self) -> int:
        """How many tiles there are; the end must be known."""
        assert self.end is not None
        return -(-round(self.end * 1000) // self.step_ms)

    @property
    def grid(self) -> tuple[int, int]:
        """How many tiles there are in a row, and how many rows; the end must be known."""
        return min(self.count, TILES_IN_A_ROW), -(-self.count // TILES_IN_A_ROW)


OPERATIONS: Mapping[str, type[Operation]] = {
    kind.name: kind
    for kind in (
        Resize, Crop, SmartCrop, Rotate, Flip, Watermark, Blur, Sharpen, Brightness, Contrast, Saturation, Grayscale,
        Sepia, Invert, Thumbnail, Tiles,
    )
}  # fmt: skip
"""By the name in the text form."""
