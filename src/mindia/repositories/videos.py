"""How far the streaming form of videos has come. Videos of the same bytes share it, and so their status."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import attrs

from mindia.db.session import Session
from mindia.domain.media import Video
from mindia.domain.tasks import TaskStatus
from mindia.repositories import media as media_rows

_OF_SOURCE = """
select id from mindia.videos
where tenant_id = %(tenant_id)s and s3_key = %(s3_key)s and (expires_at is null or expires_at > now())
order by uploaded_at, id limit 1
"""

# What is there already is shown until there is something newer.
_BEGIN = """
update mindia.videos set processing_status = 'processing', transcode_task_id = %(task_id)s::uuid
where tenant_id = %(tenant_id)s and sha256 = %(sha256)s::bytea and s3_key = %(s3_key)s and hls_master_key is null
"""

_COMPLETE = """
update mindia.videos
set processing_status = 'completed', hls_master_key = %(hls_master_key)s, transcode_task_id = null
where tenant_id = %(tenant_id)s and sha256 = %(sha256)s::bytea and s3_key = %(s3_key)s
  and (hls_master_key is distinct from %(hls_master_key)s or processing_status <> 'completed')
returning id
"""

_PROCESSING = """
select tenant_id, id, transcode_task_id from mindia.videos
where processing_status = 'processing' and transcode_task_id is not null and (tenant_id, id) > (%s::uuid, %s::uuid)
order by tenant_id, id limit %s
"""

_ENDED = """
select t.id, t.status::text, t.error_message, t.initiated_by from mindia.tasks t
where t.tenant_id = %s and t.id = any(%s::uuid[])
"""

_SETTLE = """
update mindia.videos set processing_status = %(status)s::mindia.processing_status, transcode_task_id = null
where tenant_id = %(tenant_id)s and id = any(%(ids)s::uuid[]) and processing_status = 'processing'
  and transcode_task_id = %(task_id)s::uuid
returning id
"""


_WITHOUT_TASK = """
delete from mindia.tasks where tenant_id = %s and dedup_key = %s and status = 'pending'
"""


@attrs.frozen
class Processing:
    """A video that is being encoded, or was when the worker died."""

    tenant_id: UUID
    id: UUID
    task_id: UUID


@attrs.frozen
class EndedTask:
    """What has become of a task."""

    id: UUID
    status: TaskStatus = attrs.field(converter=TaskStatus)
    error_message: str | None
    initiated_by: UUID | None


def of_source(session: Session, tenant_id: UUID, s3_key: str) -> Video | None:
    """Read the oldest video that has the bytes under a key."""
    found = session.one(_OF_SOURCE, {"tenant_id": tenant_id, "s3_key": s3_key}, row=_itself)
    video = None if found is None else media_rows.get(session, tenant_id, found)
    return video if isinstance(video, Video) else None


def begin(session: Session, video: Video, *, task_id: UUID) -> None:
    """Say of all videos of the same bytes that have no streaming form that it is being made."""
    session.execute(_BEGIN, {**_bytes_of(video), "task_id": task_id})


def complete(session: Session, video: Video, *, hls_master_key: str) -> list[UUID]:
    """Say of all videos of the same bytes where their streaming form is; return for which that is new."""
    return session.all(_COMPLETE, {**_bytes_of(video), "hls_master_key": hls_master_key}, row=_itself)


def forget_task(session: Session, tenant_id: UUID, dedup_key: str) -> None:
    """Remove the task that waits to encode some bytes: they are encoded already."""
    session.execute(_WITHOUT_TASK, (tenant_id, dedup_key))


def processing(session: Session, *, after: Processing | None, limit: int) -> list[Processing]:
    """Read which videos are being encoded, of whichever tenant, behind one of them."""
    begin_at = (UUID(int=0), UUID(int=0)) if after is None else (after.tenant_id, after.id)
    return session.all(_PROCESSING, (*begin_at, limit), row=Processing)


def tasks_of(session: Session, tenant_id: UUID, task_ids: Sequence[UUID]) -> dict[UUID, EndedTask]:
    """Read what has become of tasks."""
    found = session.all(_ENDED, (tenant_id, list(task_ids)), row=EndedTask)
    return {each.id: each for each in found}


def settle(session: Session, tenant_id: UUID, ids: Sequence[UUID], *, task_id: UUID, status: str) -> list[UUID]:
    """Give videos another status whose task has ended; return which still were that task's."""
    parameters = {"tenant_id": tenant_id, "ids": list(ids), "task_id": task_id, "status": status}
    return session.all(_SETTLE, parameters, row=_itself)


def _bytes_of(video: Video) -> dict[str, Any]:
    return {"tenant_id": video.tenant_id, "sha256": bytes.fromhex(video.sha256), "s3_key": video.s3_key}


def _itself(value: UUID) -> UUID:
    return value
