"""Media rows of all four kinds: reading them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

from mindia.db.session import Session
from mindia.domain.media import (
    Audio,
    Document,
    Image,
    Media,
    MediaKind,
    Metadata,
    ProcessingStatus,
    Video,
)
from mindia.repositories._details import facts_of

COLUMNS: LiteralString = """
m.kind::text, m.id, m.filename, m.original_filename, m.content_type, m.file_size, m.sha256, m.s3_key, m.metadata,
m.description, m.details, m.uploaded_at, m.updated_at, m.expires_at, m.width, m.height, m.duration, m.bitrate,
m.sample_rate, m.channels, m.page_count, m.processing_status::text, m.hls_master_key
"""
"""Of the view `mindia.media m`, in the order that the rows of `media_of` take them."""

_GET = f"select {COLUMNS} from mindia.media m where m.tenant_id = %s and m.id = %s"

# Each is looked up by its id, which `offset 0` makes sure of: a plan for any tenant would read all of the tenant's.
_GET_MANY = f"""
select {COLUMNS} from unnest(%(ids)s::uuid[]) as named (named_id) cross join lateral (
    select * from mindia.media i where i.tenant_id = %(tenant_id)s and i.id = named_id offset 0
) m
"""

_GET_EXPIRED = f"""
select {COLUMNS} from unnest(%(ids)s::uuid[]) as named (named_id) cross join lateral (
    select * from mindia.all_media i
    where i.tenant_id = %(tenant_id)s and i.id = named_id and i.expires_at <= now() offset 0
) m
"""

_DUPLICATE = f"""
select {COLUMNS} from mindia.media m
where m.tenant_id = %s and m.sha256 = %s::bytea order by m.uploaded_at, m.id limit 1
"""

_LOCK_BYTES = "select true from (select pg_advisory_xact_lock(hashtextextended(%s || encode(%s, 'hex'), 0))) as locked"

_IS_STORED: dict[MediaKind, LiteralString] = {
    MediaKind.IMAGE: "select true from mindia.images where tenant_id = %s and id = %s",
    MediaKind.VIDEO: "select true from mindia.videos where tenant_id = %s and id = %s",
    MediaKind.AUDIO: "select true from mindia.audios where tenant_id = %s and id = %s",
    MediaKind.DOCUMENT: "select true from mindia.documents where tenant_id = %s and id = %s",
}


def get(session: Session, tenant_id: UUID, media_id: UUID) -> Media | None:
    """Read an item of any kind."""
    return session.one(_GET, (tenant_id, media_id), row=media_of(tenant_id))


def get_many(session: Session, tenant_id: UUID, media_ids: Sequence[UUID]) -> list[Media]:
    """Read items of any kind, in no order; each id is given once."""
    return session.all(_GET_MANY, {"tenant_id": tenant_id, "ids": list(media_ids)}, row=media_of(tenant_id))


def get_expired(session: Session, tenant_id: UUID, media_ids: Sequence[UUID]) -> list[Media]:
    """Read items that are not found any more, since their time has come."""
    return session.all(_GET_EXPIRED, {"tenant_id": tenant_id, "ids": list(media_ids)}, row=media_of(tenant_id))


def lock_bytes(session: Session, tenant_id: UUID, sha256: str) -> None:
    """Hold up others that add the same bytes for the tenant until the transaction ends."""
    session.one(_LOCK_BYTES, (str(tenant_id), bytes.fromhex(sha256)), row=bool)


def duplicate(session: Session, tenant_id: UUID, sha256: str) -> Media | None:
    """Read the oldest item that has the same bytes."""
    return session.one(_DUPLICATE, (tenant_id, bytes.fromhex(sha256)), row=media_of(tenant_id))


def is_stored(session: Session, tenant_id: UUID, kind: MediaKind, media_id: UUID) -> bool:
    """Tell whether there is a row of an item, expired or not."""
    return session.one(_IS_STORED[kind], (tenant_id, media_id), row=bool) is not None


def media_of(tenant_id: UUID) -> Callable[..., Media]:
    """Return what makes an item of the tenant of a row of the view, whose columns are `COLUMNS`."""

    def row(
        kind: str,
        id: UUID,  # noqa: A002 - the column
        filename: str,
        original_filename: str,
        content_type: str,
        file_size: int,
        sha256: bytes,
        s3_key: str,
        metadata: Metadata,
        description: str,
        details: dict[str, Any],
        uploaded_at: datetime,
        updated_at: datetime,
        expires_at: datetime | None,
        width: int = 0,
        height: int = 0,
        duration: float = 0.0,
        bitrate: int = 0,
        sample_rate: int = 0,
        channels: int = 0,
        page_count: int = 0,
        processing_status: str = ProcessingStatus.PENDING,
        hls_master_key: str | None = None,
    ) -> Media:
        common: dict[str, Any] = {
            "id": id,
            "tenant_id": tenant_id,
            "filename": filename,
            "original_filename": original_filename,
            "content_type": content_type,
            "file_size": file_size,
            "sha256": sha256.hex(),
            "s3_key": s3_key,
            "metadata": metadata,
            "description": description,
            "uploaded_at": uploaded_at,
            "updated_at": updated_at,
            "expires_at": expires_at,
        }
        if details:
            common.update(facts_of(details))
        match kind:
            case "image":
                return Image(**common, width=width, height=height)
            case "video":
                return Video(
                    **common,
                    width=width,
                    height=height,
                    duration=duration,
                    processing_status=ProcessingStatus(processing_status),
                    hls_master_key=hls_master_key,
                )
            case "audio":
                return Audio(**common, duration=duration, bitrate=bitrate, sample_rate=sample_rate, channels=channels)
            case _:
                return Document(**common, page_count=page_count)

    return row
