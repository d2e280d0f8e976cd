"""What models see: pictures of items, and what a describer says of them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import timedelta

import attrs

from mindia.describing.base import Picture, PictureDescriber
from mindia.domain.media import Image, Media, Video
from mindia.errors import ProviderError, ProviderUnavailableError
from mindia.media.pictures import Shot
from mindia.repositories.embeddings import Texts
from mindia.repositories.passages import StoredPassage
from mindia.services.context import TenantContext
from mindia.services.passages import frames_of

_MAX_SIDE = 512
_MAX_TEXT = 2_000

_log = logging.getLogger("mindia.search")


@attrs.frozen(kw_only=True)
class Seen:
    """What a model says of the pictures of an item.

    Attributes:
        text: Of an image, or of all frames of a video.
        by: Which model.
        frames: The frames of a video.
        is_new: Whether it has just been said, and is to be kept.
    """

    text: str = ""
    by: str = ""
    frames: Sequence[StoredPassage] = ()
    is_new: bool = False


class Pictures:
    """Shows items to the describer, where that looks at pictures. Once its server is away, it is not asked again.

    Args:
        context: Whose they are.
        afresh: Whether what was said before is not taken again.
    """

    def __init__(self, context: TenantContext, *, afresh: bool) -> None:
        self._context = context
        self._afresh = afresh
        self._outage: ProviderUnavailableError | None = None

    def seen(self, media: Media, texts: Texts, stored: Sequence[StoredPassage]) -> Seen:
        """Return what there is to see in an item: what was said before, if it was the same model that said it."""
        describer = self._context.describer
        frames = [each for each in stored if each.source == "frame"]
        kept = Seen(text=texts.generated, by=texts.generated_by or "", frames=frames)
        if not isinstance(describer, PictureDescriber) or not isinstance(media, Image | Video):
            return kept
        if texts.generated_by == describer.model_name and not self._afresh:
            return kept
        if self._outage is not None:
            raise self._outage
        try:
            said = self._described(media, describer)
        except ProviderUnavailableError as error:
            self._outage = error
            raise
        except ProviderError as error:
            # It is found by what else is known of it.
            _log.warning("media item %s is not described: %s", media.id, error)
            return kept
        return said

    def of_image(self, media: Media) -> bytes:
        """Return an image as a small file of JPEG."""
        (shot,) = self._shots(media, max_side=_MAX_SIDE, times=None)
        return shot.content

    def _described(self, media: Image | Video, describer: PictureDescriber) -> Seen:
        if isinstance(media, Image):
            (shot,) = self._shots(media, max_side=describer.max_side, times=None)
            said = _plain(describer.describe_picture(Picture(content=shot.content, media=media)))
            return Seen(text=said, by=describer.model_name, is_new=True)
        described: list[tuple[float, str]] = []
        for shot in self._shots(media, max_side=describer.max_side, times=times_of(media.duration, describer)):
            at = timedelta(seconds=shot.at_s or 0.0)
            said = _plain(describer.describe_picture(Picture(content=shot.content, media=media, at=at)))
            if said:
                described.append((shot.at_s or 0.0, said))
        text = " ".join(dict.fromkeys(said for _, said in described))[:_MAX_TEXT]
        return Seen(text=text, by=describer.model_name, frames=frames_of(media.id, described), is_new=True)

    def _shots(self, media: Media, *, max_side: int, times: Sequence[float] | None) -> list[Shot]:
        context = self._context
        with context.storage.open(context.bucket(), media.s3_key) as file:
            return context.prober.pictures(
                file,
                size=media.file_size,
                filename=media.filename,
                max_side=max_side,
                times=times,
                settings=context.settings,
            )


def times_of(duration_s: float | None, describer: PictureDescriber) -> list[float]:
    """Return which seconds of a video are looked at: the middle of each of its parts."""
    seconds = max(duration_s or 0.0, 0.0)
    count = round(seconds / describer.frame_interval.total_seconds())
    count = min(max(count, 1), describer.max_frames)
    return [round((place + 0.5) * seconds / count, 3) for place in range(count)]


def _plain(said: object) -> str:
    """Return what a model said, of which anything may be expected: one line, bounded, without what cannot be shown."""
    text = str(said).encode("utf-8", "replace").decode()
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:_MAX_TEXT]
