"""Small pictures of items, for notebooks."""

from __future__ import annotations

import attrs

from mindia.domain.media import Image, Media, Video
from mindia.errors import MindiaError
from mindia.services.context import TenantContext

_MAX_SIDE = 192


@attrs.frozen(repr=False, eq=False)
class MediaPreviews:
    """Gives previews of the media of one tenant; made of the bytes, by the parsers.

    Attributes:
        context: Of the tenant.
    """

    context: TenantContext

    def of(self, media: Media) -> bytes | None:
        """Return a file of JPEG, or None where there is none: no picture, no bytes any more, an ended transaction."""
        if not isinstance(media, Image | Video):
            return None
        context = self.context
        try:
            with context.storage.open(context.bucket(), media.s3_key) as file:
                shots = context.prober.pictures(
                    file,
                    size=media.file_size,
                    filename=media.filename,
                    max_side=_MAX_SIDE,
                    times=None,
                    settings=context.settings,
                )
        except (MindiaError, OSError):
            return None
        return shots[0].content if shots else None
