"""What was stored and what was worked off, by hour or day."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import LiteralString
from uuid import UUID

import attrs

from mindia.db.session import Session
from mindia.domain.analytics import StorageStats, TaskStats
from mindia.domain.media import MediaKind

_WHEN_STORED: LiteralString = """
m.uploaded_at >= %(since)s::timestamptz and m.uploaded_at < coalesce(%(until)s::timestamptz, 'infinity'::timestamptz)
group by 1, 2 order by 1, 2
"""
_STORED: LiteralString = """
select date_bin(%(step)s::interval, m.uploaded_at, '2000-01-01 00:00+00'::timestamptz), m.kind::text, count(*),
       sum(m.file_size)::bigint
"""
_STORAGE: LiteralString = f"""
{_STORED} from mindia.all_media m where m.tenant_id = %(tenant_id)s::uuid and {_WHEN_STORED}
"""
_STORAGE_OF_ALL: LiteralString = f"{_STORED} from mindia.all_media m where {_WHEN_STORED}"

_WHEN_WRITTEN: LiteralString = """
t.created_at >= %(since)s::timestamptz and t.created_at < coalesce(%(until)s::timestamptz, 'infinity'::timestamptz)
group by 1, 2 order by 1, 2
"""
_WRITTEN: LiteralString = """
select date_bin(%(step)s::interval, t.created_at, '2000-01-01 00:00+00'::timestamptz), t.kind, count(*),
       count(*) filter (where t.status = 'completed'), count(*) filter (where t.status = 'failed'),
       count(*) filter (where t.status = 'cancelled'), sum(t.retry_count)::bigint,
       avg(t.completed_at - t.started_at) filter (where t.status = 'completed'),
       avg(t.started_at - greatest(t.created_at, t.scheduled_for)) filter (where t.status = 'completed')
"""
_TASKS: LiteralString = f"""
{_WRITTEN} from mindia.tasks t where t.tenant_id = %(tenant_id)s::uuid and {_WHEN_WRITTEN}
"""
_TASKS_OF_ALL: LiteralString = f"{_WRITTEN} from mindia.tasks t where {_WHEN_WRITTEN}"


@attrs.frozen(kw_only=True)
class Steps:
    """What is looked at.

    Attributes:
        tenant_id: The tenant, or None for all of them.
        since: From this time on.
        until: Before this time, or None.
        step: How long each hour or day is.
    """

    tenant_id: UUID | None
    since: datetime
    until: datetime | None
    step: timedelta


def storage(session: Session, steps: Steps) -> list[StorageStats]:
    """Count the items that were stored in each step, and are still there."""
    statement = _STORAGE_OF_ALL if steps.tenant_id is None else _STORAGE
    return session.all(
        statement,
        attrs.asdict(steps),
        row=lambda begins_at, kind, items, size: StorageStats(
            begins_at=begins_at, kind=MediaKind(kind), items=items, total_bytes=size
        ),
    )


def tasks(session: Session, steps: Steps) -> list[TaskStats]:
    """Count the tasks that were enqueued in each step, and are still on record."""
    statement = _TASKS_OF_ALL if steps.tenant_id is None else _TASKS
    return session.all(
        statement,
        attrs.asdict(steps),
        row=lambda begins_at, kind, count, completed, failed, cancelled, retries, run, wait: TaskStats(
            begins_at=begins_at,
            kind=kind,
            tasks=count,
            completed=completed,
            failed=failed,
            cancelled=cancelled,
            retries=retries,
            mean_run_s=_seconds(run),
            mean_wait_s=_seconds(wait),
        ),
    )


def _seconds(mean: timedelta | None) -> float:
    return 0.0 if mean is None else mean.total_seconds()
