"""The port of describers."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import BinaryIO, Protocol, runtime_checkable

import attrs

from mindia.domain.media import Media
from mindia.errors import InvalidError
from mindia.media.pictures import MAX_SHOTS, MAX_SIDE


@runtime_checkable
class Describer(Protocol):
    """Puts a media item into words, which are then embedded. Thread-safe."""

    def describe(self, media: Media, *, text: str, open_media: Callable[[], BinaryIO]) -> str:
        """Return the words for an item.

        Args:
            media: The item.
            text: What a person or the host said about it, what a model said of its pictures, and its own text; may be
                empty.
            open_media: Opens its bytes for reading.
        """
        ...


@attrs.frozen(kw_only=True)
class Picture:
    """What a describer of pictures is shown.

    Attributes:
        content: A file of JPEG, no larger than the describer wants.
        media: The item that it is of: an image, or a video of which it is a frame.
        at: When the frame is seen, or None for an image.
    """

    content: bytes = attrs.field(repr=False)
    media: Media
    at: timedelta | None = None


@runtime_checkable
class PictureDescriber(Describer, Protocol):
    """A describer that looks at images and at frames of videos.

    What it says is kept apart from what persons say, is not asked for again while `model_name` stays the same, and is
    embedded and searched with the rest.

    Attributes:
        model_name: At most 100 characters; changes whenever the descriptions would.
        max_side: The longest side of the pictures that it is shown, in pixels.
        frame_interval: The time between two frames of a video.
        max_frames: How many frames of a video it is shown at most; those of a long one are further apart.
    """

    @property
    def model_name(self) -> str: ...  # noqa: D102 - above
    @property
    def max_side(self) -> int: ...  # noqa: D102 - above
    @property
    def frame_interval(self) -> timedelta: ...  # noqa: D102 - above
    @property
    def max_frames(self) -> int: ...  # noqa: D102 - above

    def describe_picture(self, picture: Picture) -> str:
        """Return what there is to see."""
        ...


def check_frames(*, max_side: int, frame_interval: timedelta, max_frames: int) -> None:
    """Refuse sizes and intervals that pictures cannot have.

    Raises:
        InvalidError: One is out of range.
    """
    if not 16 <= max_side <= MAX_SIDE:
        raise InvalidError(f"max_side must be 16 to {MAX_SIDE}, not {max_side}")
    if frame_interval < timedelta(seconds=0.1):
        raise InvalidError(f"frame_interval must be a tenth of a second or more, not {frame_interval!r}")
    if not 1 <= max_frames <= MAX_SHOTS:
        raise InvalidError(f"max_frames must be 1 to {MAX_SHOTS}, not {max_frames}")
