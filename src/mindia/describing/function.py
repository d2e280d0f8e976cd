"""A describer made of a function of the host's own."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from mindia.describing.base import Picture, check_frames
from mindia.describing.metadata import MetadataDescriber
from mindia.embedding.base import checked_model_name
from mindia.errors import InvalidError


class FunctionDescriber(MetadataDescriber):
    """Calls a function with each picture, which returns what there is to see.

    Args:
        function: Is called with an image, or with a frame of a video, from several threads at once.
        model_name: Names the descriptions, at most 100 characters. Changes whenever they would.
        max_side: The longest side of the pictures that it is given, in pixels.
        frame_interval: The time between two frames of a video.
        max_frames: How many frames of a video it is given at most; those of a long one are further apart.

    Raises:
        InvalidError: An argument is not what it should be.
    """

    def __init__(
        self,
        function: Callable[[Picture], str],
        *,
        model_name: str,
        max_side: int = 768,
        frame_interval: timedelta = timedelta(seconds=10),
        max_frames: int = 12,
    ) -> None:
        if not callable(function):
            raise InvalidError(f"function must be a function of a picture, not {function!r}")
        check_frames(max_side=max_side, frame_interval=frame_interval, max_frames=max_frames)
        self._function = function
        self.model_name = checked_model_name(model_name)
        self.max_side = max_side
        self.frame_interval = frame_interval
        self.max_frames = max_frames

    def __repr__(self) -> str:
        return f"<FunctionDescriber {self.model_name!r}>"

    def describe_picture(self, picture: Picture) -> str:
        """Return what the function returns. Its exceptions pass through."""
        return self._function(picture)
