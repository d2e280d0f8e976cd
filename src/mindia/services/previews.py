"""Small pictures of items, for notebooks."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from mindia.db.session import Session
from mindia.domain.derivatives import Derivative
from mindia.domain.media import Image, Media, Video
from mindia.domain.operations import Thumbnail
from mindia.domain.transformations import Transformation
from mindia.errors import MindiaError
from mindia.repositories import derivatives
from mindia.services.context import TenantContext

_MAX_SIDE = 192
_STORED = range(96, 401)
"""Pixels of the longer side of a thumbnail that serves as a preview, too."""


@attrs.frozen(repr=False, eq=False)
class MediaPreviews:
    """Gives previews of the media of one tenant; made of the bytes, by the parsers.

    Attributes:
        context: Of the tenant.
    """

    context: TenantContext

    def of(self, media: Media) -> bytes | None:
        """Return a small picture: a thumbnail that is there already, or one that is made for this once.

        None where there is none: no picture, no bytes any more, an ended transaction.
        """
        context = self.context
        try:
            stored = self._stored(media)
            if stored is not None or not isinstance(media, Image | Video):
                return stored
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

    def _stored(self, media: Media) -> bytes | None:
        context = self.context

        def work(session: Session) -> Sequence[Derivative]:
            return derivatives.of_items(session, context.tenant_id, [media])

        small = [each for each in context.as_viewer.run(work, single=True) if _is_small(each)]
        if not small:
            return None
        best = max(small, key=lambda each: each.width or 0)
        with context.storage.open(context.bucket(), best.s3_key) as file:
            return file.read()


def _is_small(derivative: Derivative) -> bool:
    if not derivative.operations.startswith(f"{Thumbnail.name}_"):
        return False
    first = Transformation.parse(derivative.operations).operations[0]
    return isinstance(first, Thumbnail) and first.side in _STORED
