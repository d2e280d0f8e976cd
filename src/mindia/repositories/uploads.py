"""Uploads that clients make by themselves."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import LiteralString
from uuid import UUID

import attrs

from mindia.db.session import Session

_COLUMNS: LiteralString = """
tenant_id, id, s3_bucket, filename, original_filename, content_type, max_bytes, file_size, part_size, multipart_id,
initiated_by, created_at, expires_at, closed_at, staged_id
"""

_BEGIN = f"""
insert into mindia.uploads (
    tenant_id, id, s3_bucket, filename, original_filename, content_type, max_bytes, file_size, part_size, initiated_by,
    expires_at, sweep_at
)
select %(tenant_id)s::uuid, %(id)s::uuid, %(s3_bucket)s, %(filename)s, %(original_filename)s, %(content_type)s,
       %(max_bytes)s::bigint, %(file_size)s::bigint, %(part_size)s::bigint, %(initiated_by)s::uuid,
       %(expires_at)s::timestamptz, %(expires_at)s::timestamptz
where not exists (select from mindia.tenants where id = %(tenant_id)s and status = 'deleted')
on conflict on constraint uploads_pkey do update set s3_bucket = excluded.s3_bucket
returning {_COLUMNS}
"""

_SET_MULTIPART = "update mindia.uploads set multipart_id = %s where tenant_id = %s and id = %s"

_GET = f"select {_COLUMNS} from mindia.uploads where tenant_id = %s and id = %s"

_CLOSE = """
update mindia.uploads set closed_at = now(), staged_id = %(staged_id)s::uuid
where tenant_id = %(tenant_id)s and id = %(id)s
  and (closed_at is null or (%(staged_id)s::uuid is not null and staged_id = %(staged_id)s::uuid))
"""

# Materialized, so that the limit holds whatever the plan.
_LOCK_ABANDONED = f"""
select {_COLUMNS} from mindia.uploads
where sweep_at < now() - %s::interval order by sweep_at limit %s for update skip locked
"""
_COUNT_ABANDONED = "select count(*) from mindia.uploads where sweep_at < now() - %s::interval"
_LOOK_AT_ABANDONED = f"""
select {_COLUMNS} from mindia.uploads where sweep_at < now() - %s::interval order by sweep_at limit %s
"""
_FORGET = "delete from mindia.uploads where tenant_id = %s and id = %s"
_POSTPONE = (
    "update mindia.uploads set sweep_at = now() - %s::interval + interval '1 minute' where tenant_id = %s and id = %s"
)


@attrs.frozen
class UploadRow:
    """An upload, as it is on record."""

    tenant_id: UUID
    id: UUID
    s3_bucket: str
    filename: str
    original_filename: str
    content_type: str | None
    max_bytes: int
    file_size: int | None
    part_size: int | None
    multipart_id: str | None
    initiated_by: UUID | None
    created_at: datetime
    expires_at: datetime
    closed_at: datetime | None
    staged_id: UUID | None


def begin(
    session: Session,
    tenant_id: UUID,
    upload_id: UUID,
    *,
    s3_bucket: str,
    filename: str,
    original_filename: str,
    content_type: str | None,
    max_bytes: int,
    file_size: int | None,
    part_size: int | None,
    initiated_by: UUID | None,
    expires_at: datetime,
) -> UploadRow | None:
    """Put an upload on record; None where the tenant is deleted."""
    parameters = {
        "tenant_id": tenant_id,
        "id": upload_id,
        "s3_bucket": s3_bucket,
        "filename": filename,
        "original_filename": original_filename,
        "content_type": content_type,
        "max_bytes": max_bytes,
        "file_size": file_size,
        "part_size": part_size,
        "initiated_by": initiated_by,
        "expires_at": expires_at,
    }
    return session.one(_BEGIN, parameters, row=UploadRow)


def set_multipart(session: Session, tenant_id: UUID, upload_id: UUID, multipart_id: str) -> None:
    """Put on record what the object store calls an upload in parts."""
    session.execute(_SET_MULTIPART, (multipart_id, tenant_id, upload_id))


def get(session: Session, tenant_id: UUID, upload_id: UUID) -> UploadRow | None:
    """Read an upload, whatever has become of it."""
    return session.one(_GET, (tenant_id, upload_id), row=UploadRow)


def close(session: Session, tenant_id: UUID, upload_id: UUID, *, staged_id: UUID | None) -> bool:
    """End an upload, with what was staged of it, or nothing; False where it was ended otherwise before."""
    parameters = {"tenant_id": tenant_id, "id": upload_id, "staged_id": staged_id}
    return session.execute(_CLOSE, parameters) > 0


def lock_abandoned(session: Session, *, older_than: timedelta, limit: int) -> list[UploadRow]:
    """Lock uploads under which nobody can put bytes any more."""
    return session.all(_LOCK_ABANDONED, (older_than, limit), row=UploadRow)


def count_abandoned(session: Session, *, older_than: timedelta) -> int:
    """Count them."""
    return session.one(_COUNT_ABANDONED, (older_than,), row=int) or 0


def look_at_abandoned(session: Session, *, older_than: timedelta, limit: int) -> list[UploadRow]:
    """Read which they are, the oldest first."""
    return session.all(_LOOK_AT_ABANDONED, (older_than, limit), row=UploadRow)


def forget(session: Session, upload: UploadRow) -> None:
    """Take an upload off the record: nothing is left of it."""
    session.execute(_FORGET, (upload.tenant_id, upload.id))


def postpone(session: Session, upload: UploadRow, *, older_than: timedelta) -> None:
    """Try again in a minute."""
    session.execute(_POSTPONE, (older_than, upload.tenant_id, upload.id))
