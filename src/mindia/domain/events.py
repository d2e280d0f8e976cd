"""Events that webhooks are told."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import attrs

from mindia.domain.media import Media, MediaKind, Staged


@attrs.frozen(kw_only=True)
class MediaEvent:
    """Something happened to a media item. Its type is `{kind}.uploaded`, `{kind}.updated` or `{kind}.deleted`.

    Attributes:
        id: Of the event, UUIDv7; receivers recognise a repeated delivery by it.
        type: For example `image.uploaded`.
        occurred_at: In UTC.
        media_id: The item.
        kind: Its kind.
        filename: Its filename.
        content_type: Its MIME type.
        file_size: In bytes.
        sha256: Hash of its bytes, as 64 hexadecimal digits.
        initiated_by: The user or API key on whose behalf it was done; None for the host itself.
    """

    id: UUID
    type: str
    occurred_at: datetime
    media_id: UUID
    kind: MediaKind
    filename: str
    content_type: str
    file_size: int
    sha256: str
    initiated_by: UUID | None

    @classmethod
    def of(
        cls,
        media: Media | Staged,
        what: str,
        *,
        id: UUID,  # noqa: A002 - its name
        occurred_at: datetime,
        initiated_by: UUID | None,
    ) -> MediaEvent:
        """Return the event that `media` was `what`: `uploaded`, `updated` or `deleted`."""
        return cls(
            id=id,
            type=f"{media.kind}.{what}",
            occurred_at=occurred_at,
            media_id=media.id,
            kind=media.kind,
            filename=media.filename,
            content_type=media.content_type,
            file_size=media.file_size,
            sha256=media.sha256,
            initiated_by=initiated_by,
        )
