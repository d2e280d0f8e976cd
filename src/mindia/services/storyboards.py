"""Storyboards of videos: the part of `library.media` that makes pictures of many frames."""

from __future__ import annotations

from uuid import UUID

from mindia.domain.media import Media, Video
from mindia.domain.operations import Tiles
from mindia.domain.storyboards import Storyboard
from mindia.domain.transformations import ImageFormat, Quality, Transformation
from mindia.errors import InvalidError
from mindia.services.derivatives import MediaDerivatives


class MediaStoryboards(MediaDerivatives):
    """Makes storyboards of the videos of one tenant."""

    def storyboard(
        self,
        video: Media | UUID,
        *,
        interval_s: float | None = None,
        side: int = 160,
        format: ImageFormat | str = ImageFormat.WEBP,  # noqa: A002 - of the public interface
        quality: int | Quality | str | None = None,
    ) -> Storyboard:
        """Return frames of a video at even intervals in one picture, made and stored as by `derive`.

        A player shows them above its bar: `storyboard.webvtt(url)` is what it reads. Each tile is the frame that is
        seen when its time begins. Where it takes too long to decode up to that, it is an earlier one, but none from
        before the tile before, and `is_exact` is False. Of a video whose end cannot be decoded, tiles end where that
        begins.

        Args:
            video: The video or its id.
            interval_s: Seconds from frame to frame, 0.1 to 86,400. By default as many whole ones as it takes to need no
                more than 100 frames, which is the limit.
            side: The longest side of each tile, 16 to 640 pixels; nothing is enlarged.
            format: As for `derive`.
            quality: As for `derive`.

        Raises:
            NotFoundError: There is no such item.
            InvalidError: An argument is not allowed, the item is no video, or there would be more than 100 frames.
            PermissionDeniedError: It is not there yet, and the user is a viewer: it takes a member to make it.
            MediaError: The video cannot be decoded within the limits.
            MissingExtraError: The extra `video` is not installed.
            StorageError: The object store failed, or the folder for temporary files did.
        """

        def wanted(item: Media) -> Transformation:
            if not isinstance(item, Video):
                raise InvalidError(
                    f"{item.filename!r} is no video but of the kind {item.kind}: thumbnail() makes a picture of it"
                )
            return Transformation.of(Tiles(side, interval=interval_s), format=format, quality=quality)

        return Storyboard.of(self._made(video if isinstance(video, UUID) else video.id, wanted))
