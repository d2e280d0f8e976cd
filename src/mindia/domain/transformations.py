"""A transformation: operations in their order, and the form in which the picture comes out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import ClassVar
from uuid import UUID

import attrs

from mindia.domain._operation import FLAG, TEXT, Operation, check_color, chosen, hex_color, parsed_by, shown
from mindia.domain.operations import OPERATIONS, Thumbnail, Tiles, Watermark
from mindia.errors import InvalidError

MAX_TEXT = 1000
MAX_OPERATIONS = 30

_PRESET = re.compile(r"[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?", re.ASCII)


class ImageFormat(StrEnum):
    """What a picture is encoded as."""

    JPEG = "jpeg"
    PNG = "png"
    WEBP = "webp"
    AVIF = "avif"
    GIF = "gif"

    @property
    def content_type(self) -> str:
        """The MIME type."""
        return f"image/{self}"

    @property
    def extension(self) -> str:
        """Of filenames, without the dot."""
        return "jpg" if self is ImageFormat.JPEG else str(self)

    @property
    def has_quality(self) -> bool:
        """Whether it gives up detail for size."""
        return self in (ImageFormat.JPEG, ImageFormat.WEBP, ImageFormat.AVIF)

    @property
    def has_motion(self) -> bool:
        """Whether it can hold several pictures."""
        return self in (ImageFormat.WEBP, ImageFormat.GIF)


class Quality(StrEnum):
    """Steps of quality, which look about the same in each format."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    BEST = "best"


_STEPS = {
    ImageFormat.JPEG: {Quality.LOW: 50, Quality.MEDIUM: 70, Quality.HIGH: 82, Quality.BEST: 93},
    ImageFormat.WEBP: {Quality.LOW: 45, Quality.MEDIUM: 68, Quality.HIGH: 80, Quality.BEST: 92},
    ImageFormat.AVIF: {Quality.LOW: 35, Quality.MEDIUM: 50, Quality.HIGH: 63, Quality.BEST: 80},
}


def _operations(value: Iterable[Operation]) -> tuple[Operation, ...]:
    return tuple(value)


def _format(value: ImageFormat | str | None) -> ImageFormat | None:
    return None if value is None else chosen(value, ImageFormat)


def _quality(value: Quality | str | int | None) -> Quality | int | None:
    return chosen(value, Quality) if isinstance(value, str) else value


def _parsed_quality(text: str) -> object:
    return int(text) if re.fullmatch(r"\d{1,3}", text, re.ASCII) else Quality(text)


@attrs.frozen
class _Preset(Operation):
    """How the text form begins of what goes on where a preset ends."""

    name: ClassVar[str] = "preset"

    called: str = attrs.field(metadata=TEXT)


@attrs.frozen
class _Output(Operation):
    """How the text form ends: with the encoding."""

    name: ClassVar[str] = "to"

    format: ImageFormat | None = attrs.field(default=None, converter=_format, metadata=parsed_by(ImageFormat))
    quality: int | Quality | None = attrs.field(default=None, converter=_quality, metadata=parsed_by(_parsed_quality))
    background: str | None = attrs.field(default=None, converter=hex_color, validator=check_color, metadata=TEXT)
    animated: bool | None = attrs.field(default=None, metadata=FLAG)


def check_preset_name(name: object) -> str:
    """Return the name of a preset, if it is one.

    Raises:
        InvalidError: It is none.
    """
    if not isinstance(name, str) or not _PRESET.fullmatch(name):
        raise InvalidError(
            f"the name of a preset has 1 to 64 small letters, digits and hyphens, the latter inside: {shown(name)}"
        )
    return name


@attrs.frozen(kw_only=True)
class Transformation:
    """Operations in their order, and the form in which the picture comes out. `str()` gives its text form.

    Attributes:
        operations: What is done, one after the other. The picture is upright and in sRGB before.
        preset: The preset whose operations come first, and whose form is kept where none is told here; or None.
        format: What it is encoded as; WebP where nobody tells.
        quality: 1 to 100, or a step (`low`, `medium`, `high`, `best`); `high` where nobody tells.
        background: What is under a picture with transparent parts, as `#ffffff`. Without it they stay transparent, and
            become white in JPEG, which has none.
        animated: Whether all pictures of an animated one are kept, in WebP and GIF; otherwise the first.

    Raises:
        InvalidError: A value is not allowed, or the text form would be too long.
    """

    operations: tuple[Operation, ...] = attrs.field(default=(), converter=_operations)
    preset: str | None = attrs.field(
        default=None, validator=attrs.validators.optional(lambda *given: check_preset_name(given[2]))
    )
    format: ImageFormat | None = attrs.field(default=None, converter=_format, metadata=parsed_by(ImageFormat))
    quality: int | Quality | None = attrs.field(default=None, converter=_quality)
    background: str | None = attrs.field(default=None, converter=hex_color, validator=check_color, metadata=TEXT)
    animated: bool | None = None

    def __attrs_post_init__(self) -> None:
        for place, operation in enumerate(self.operations):
            if not isinstance(operation, Operation) or not operation.name:
                raise InvalidError(f"an operation is a Resize, a Blur or the like, not {shown(operation)}")
            if isinstance(operation, Thumbnail) and place:
                raise InvalidError("a thumbnail is made first, or not at all")
            if isinstance(operation, Tiles) and len(self.operations) > 1:
                raise InvalidError("tiles are laid out as they are: there is no other operation")
        if len(self.operations) > MAX_OPERATIONS:
            raise InvalidError(f"there are {len(self.operations)} operations; the limit is {MAX_OPERATIONS}")
        is_number = isinstance(self.quality, int) and not isinstance(self.quality, bool) and 1 <= self.quality <= 100
        if self.quality is not None and not isinstance(self.quality, Quality) and not is_number:
            raise InvalidError(f"quality must be 1 to 100 or one of {', '.join(Quality)}, not {shown(self.quality)}")
        if not isinstance(self.animated, bool | None):
            raise InvalidError(f"animated must be True or False, not {shown(self.animated)}")
        if self.animated and self.format is not None and not self.format.has_motion:
            raise InvalidError(f"{self.format} holds a single picture: leave out animated, or take webp or gif")
        if len(str(self)) > MAX_TEXT:
            raise InvalidError(f"the text form of the operations has more than {MAX_TEXT} characters")

    def __str__(self) -> str:
        before = [] if self.preset is None else [_Preset(self.preset)]
        output = _Output(self.format, self.quality, self.background, self.animated)
        after = [] if output == _Output() else [output]
        return "~".join(str(each) for each in (*before, *self.operations, *after))

    @classmethod
    def of(
        cls,
        *parts: Operation | Transformation,
        preset: str | None = None,
        format: ImageFormat | str | None = None,  # noqa: A002 - of the public interface
        quality: int | Quality | str | None = None,
        background: str | None = None,
        animated: bool | None = None,
    ) -> Transformation:
        """Return one that does what its parts do, one after the other.

        Args:
            parts: Operations, and whole transformations; of these only the first may begin with a preset.
            preset: As in the attributes.
            format: As in the attributes; before what the parts say.
            quality: The same.
            background: The same.
            animated: The same.

        Raises:
            InvalidError: A value is not allowed.
        """
        made = cls(preset=preset)
        for part in parts:
            more = part if isinstance(part, Transformation) else cls(operations=(part,))
            if more.preset is None:
                made = more.after(made)
            elif made == cls():
                made = more
            else:
                raise InvalidError(f"a preset comes first, and there is one: {more.preset!r}")
        form = cls(format=format, quality=quality, background=background, animated=animated)
        return form.after(made)

    @classmethod
    def parse(cls, text: str) -> Transformation:
        """Return the transformation of a text form. It may come from anybody.

        Args:
            text: As `str()` gives it: `resize_width-800~blur_radius-2~to_format-webp_quality-80`.

        Raises:
            InvalidError: It is none.
        """
        if not isinstance(text, str) or len(text) > MAX_TEXT:
            raise InvalidError(f"the text form of operations has at most {MAX_TEXT} characters: {shown(text)}")
        parts = [_parsed(part) for part in text.split("~")] if text else []
        preset, output = None, _Output()
        if parts and isinstance(first := parts[0], _Preset):
            preset = first.called
            parts.pop(0)
        if parts and isinstance(last := parts[-1], _Output):
            output = last
            parts.pop()
        if any(isinstance(part, _Preset | _Output) for part in parts):
            raise InvalidError(f"a preset stands first and the format last, each once: {shown(text)}")
        made = cls(
            operations=tuple(parts),
            preset=preset,
            format=output.format,
            quality=output.quality,
            background=output.background,
            animated=output.animated,
        )
        if str(made) != text:
            raise InvalidError(f"the same is written {str(made)!r}, and not {shown(text)}")
        return made

    def after(self, first: Transformation) -> Transformation:
        """Return one that does what another one does, and then what this does; the form is of this, where it tells."""
        return Transformation(
            operations=(*first.operations, *self.operations),
            preset=first.preset,
            format=self.format or first.format,
            quality=first.quality if self.quality is None else self.quality,
            background=self.background or first.background,
            animated=first.animated if self.animated is None else self.animated,
        )

    def settled(self) -> Transformation:
        """Return what it does where nobody tells more: with a format and with a quality in numbers.

        Raises:
            InvalidError: It names a preset, or is to be animated in a format of single pictures.
        """
        if self.preset is not None:
            raise InvalidError(f"the preset {self.preset!r} is not known here")
        form = self.format or ImageFormat.WEBP
        quality: int | Quality | None = Quality.HIGH if self.quality is None else self.quality
        if not form.has_quality:
            quality = None
        elif isinstance(quality, Quality):
            quality = _STEPS[form][quality]
        background = self.background or ("ffffff" if form is ImageFormat.JPEG else None)
        return attrs.evolve(self, format=form, quality=quality, background=background, animated=self.animated or None)

    @property
    def tiles(self) -> Tiles | None:
        """The frames of a video that it lays out, or None where it does something else."""
        first = next(iter(self.operations), None)
        return first if isinstance(first, Tiles) else None

    def ending(self, end: float | None, *, is_exact: bool = True) -> Transformation:
        """Return one whose tiles, if there are any, are as they were found: what is asked for ends at None."""
        if self.tiles is None:
            return self
        return attrs.evolve(self, operations=[attrs.evolve(self.tiles, end=end, exact=is_exact)])

    @property
    def watermarks(self) -> tuple[UUID, ...]:
        """The ids of the images that it puts on pictures, each once."""
        ids = [operation.image for operation in self.operations if isinstance(operation, Watermark)]
        return tuple(dict.fromkeys(ids))

    def with_watermarks(self, ids: Mapping[UUID, UUID]) -> Transformation:
        """Return one whose watermarks are other images, by the ids that they have now; what is not named stays."""
        operations = [
            attrs.evolve(each, image=ids.get(each.image, each.image)) if isinstance(each, Watermark) else each
            for each in self.operations
        ]
        return attrs.evolve(self, operations=operations)


def _parsed(part: str) -> Operation:
    name, *values = part.split("_")
    known: dict[str, type[Operation]] = {**OPERATIONS, _Preset.name: _Preset, _Output.name: _Output}
    kind = known.get(name)
    if kind is None:
        raise InvalidError(f"there is no operation {shown(name)}: there are {', '.join(OPERATIONS)}")
    given: dict[str, str] = {}
    for value in values:
        field, dash, said = value.partition("-")
        if not dash or field in given:
            raise InvalidError(f"{shown(value)} is no value of {name!r}")
        given[field] = said
    return kind.of(given)


@attrs.frozen(kw_only=True)
class Preset:
    """A transformation that a tenant has given a name.

    Attributes:
        tenant_id: Whose it is.
        name: Small letters, digits and hyphens.
        transformation: What it does.
        created_at: In UTC.
        updated_at: When it was last changed, in UTC.
    """

    tenant_id: UUID
    name: str
    transformation: Transformation
    created_at: datetime
    updated_at: datetime
