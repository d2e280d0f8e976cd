"""Events that webhooks are told."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Self
from uuid import UUID

import attrs

from mindia.domain.media import JsonValue, Media, MediaKind, Staged


@attrs.frozen(kw_only=True)
class MediaData:
    """Which item an event is about.

    Attributes:
        media_id: The item.
        kind: Its kind.
        filename: Its filename.
        content_type: Its MIME type.
        file_size: In bytes.
        sha256: Hash of its bytes, as 64 hexadecimal digits.
    """

    media_id: UUID
    kind: MediaKind
    filename: str
    content_type: str
    file_size: int
    sha256: str


@attrs.frozen(kw_only=True)
class ImageData(MediaData):
    """An image.

    Attributes:
        width: In pixels, as displayed.
        height: In pixels, as displayed.
    """

    width: int
    height: int


@attrs.frozen(kw_only=True)
class VideoData(MediaData):
    """A video.

    Attributes:
        duration: In seconds.
        width: In pixels, as displayed.
        height: In pixels, as displayed.
        reason: Why it failed; only of `video.failed`.
    """

    duration: float
    width: int
    height: int
    reason: str | None = None


@attrs.frozen(kw_only=True)
class AudioData(MediaData):
    """An audio file.

    Attributes:
        duration: In seconds.
        bitrate: In bits per second.
        sample_rate: In samples per second.
        channels: 1 is mono, 2 stereo.
    """

    duration: float
    bitrate: int
    sample_rate: int
    channels: int


@attrs.frozen(kw_only=True)
class DocumentData(MediaData):
    """A document.

    Attributes:
        page_count: Number of pages.
    """

    page_count: int


@attrs.frozen(kw_only=True)
class WebhookDisabled:
    """An endpoint that nothing is sent to any more: the data of `webhook.disabled`.

    Attributes:
        webhook_id: The endpoint.
        webhook_url: Its address.
        reason: Why: `failing` for days, or `gone`, as it has answered itself.
        failing_since: When the first of the attempts began that all failed.
    """

    webhook_id: UUID
    webhook_url: str
    reason: str
    failing_since: datetime


@attrs.frozen(kw_only=True)
class WebhookTest:
    """A try whether an endpoint answers: the data of `webhook.test`.

    Attributes:
        webhook_id: The endpoint.
    """

    webhook_id: UUID


MEDIA_DATA: Mapping[MediaKind, type[MediaData]] = {
    MediaKind.IMAGE: ImageData,
    MediaKind.VIDEO: VideoData,
    MediaKind.AUDIO: AudioData,
    MediaKind.DOCUMENT: DocumentData,
}

_FACTS = {
    kind: tuple(
        name for name in attrs.fields_dict(data) if name not in attrs.fields_dict(MediaData) and name != "reason"
    )
    for kind, data in MEDIA_DATA.items()
}

BUILT_IN: Mapping[str, type[Any]] = {
    **{f"{kind}.{what}": data for kind, data in MEDIA_DATA.items() for what in ("uploaded", "updated", "deleted")},
    "video.completed": VideoData,
    "video.failed": VideoData,
    "webhook.disabled": WebhookDisabled,
    "webhook.test": WebhookTest,
}
"""The events of Mindia's own, with the class of their data."""


@attrs.frozen(kw_only=True)
class Event:
    """Something that happened.

    Attributes:
        id: UUIDv7; receivers recognise a repeated delivery by it.
        type: For example `image.uploaded`.
        tenant_id: Whose it is.
        occurred_at: In UTC.
        initiated_by: The user or API key on whose behalf it was done; None for the host itself.
        data: What it is about: an object of the class that belongs to the type, or that object as JSON.
        url: A signed URL of the item, for the endpoints that ask for one; None where there is none.
    """

    id: UUID
    type: str
    tenant_id: UUID
    occurred_at: datetime
    initiated_by: UUID | None
    data: object
    url: str | None = attrs.field(default=None, repr=False)

    def envelope(self) -> dict[str, JsonValue]:
        """Return what is sent. Its `data` comes last."""
        return {
            "id": str(self.id),
            "type": self.type,
            "timestamp": self.occurred_at.isoformat(),
            "tenant_id": str(self.tenant_id),
            "initiated_by": None if self.initiated_by is None else str(self.initiated_by),
            "data": _json(self.data),
        }


@attrs.frozen(kw_only=True)
class MediaEvent(Event):
    """Something happened to a media item. Its type is `{kind}.uploaded`, `{kind}.updated` and the like."""

    @classmethod
    def of(
        cls,
        media: Media | Staged,
        what: str,
        *,
        id: UUID,  # noqa: A002 - its name
        occurred_at: datetime,
        initiated_by: UUID | None,
        url: str | None = None,
        reason: str | None = None,
    ) -> Self:
        """Return the event that `media` was `what`: `uploaded`, `updated`, `deleted`; `completed` or `failed`."""
        facts = media.facts if isinstance(media, Staged) else media
        more: dict[str, Any] = {name: getattr(facts, name) for name in _FACTS[media.kind]}
        if reason is not None:
            more["reason"] = reason
        data = MEDIA_DATA[media.kind](
            media_id=media.id,
            kind=media.kind,
            filename=media.filename,
            content_type=media.content_type,
            file_size=media.file_size,
            sha256=media.sha256,
            **more,
        )
        return cls(
            id=id,
            type=f"{media.kind}.{what}",
            tenant_id=media.tenant_id,
            occurred_at=occurred_at,
            initiated_by=initiated_by,
            data=data,
            url=url,
        )


def _json(data: Any) -> JsonValue:
    if not attrs.has(type(data)):
        return data  # type: ignore[no-any-return]  # JSON already
    found: dict[str, JsonValue] = {}
    for name in attrs.fields_dict(type(data)):
        value = getattr(data, name)
        if isinstance(value, UUID):
            value = str(value)
        elif isinstance(value, datetime):
            value = value.isoformat()
        if value is not None:
            found[name] = value
    return found
