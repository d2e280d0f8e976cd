"""The queue."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any, LiteralString
from uuid import UUID

from mindia.db.session import Session
from mindia.domain.tasks import Task, TaskStatus, TaskType
from mindia.repositories._text import storable

_MAX_MESSAGE_CHARS = 2_000
_MAX_TRACEBACK_CHARS = 8_000

_COLUMNS: LiteralString = """
t.id, t.tenant_id, t.task_type::text, t.kind, t.payload, t.status::text, t.priority, t.retry_count, t.max_retries,
t.attempt, t.created_at, t.scheduled_for, t.started_at, t.completed_at, t.error_message, t.initiated_by
"""

# An update that changes nothing returns the task that has the key already.
_ENQUEUE = f"""
insert into mindia.tasks as t
    (id, tenant_id, task_type, kind, payload, priority, scheduled_for, max_retries, dedup_key, initiated_by)
values (%(id)s, %(tenant_id)s, %(task_type)s::mindia.task_type, %(kind)s, %(payload)s::jsonb, %(priority)s,
        coalesce(%(run_at)s::timestamptz, now()), %(max_retries)s, %(dedup_key)s, %(initiated_by)s)
on conflict (tenant_id, dedup_key) where dedup_key is not null and status in ('pending', 'running')
do update set dedup_key = excluded.dedup_key
returning {_COLUMNS}
"""

_GET = f"select {_COLUMNS} from mindia.tasks t where t.tenant_id is not distinct from %s and t.id = %s"

_CLAIM = f"""
with due as materialized (
    select c.id from mindia.tasks c
    where c.status = 'pending' and c.waiting_on = 0 and c.scheduled_for <= now() and c.kind = any(%(kinds)s::text[])
      and (c.tenant_id is null
           or exists (select from mindia.tenants n where n.id = c.tenant_id and n.status = 'active'))
    order by c.priority desc, c.scheduled_for, c.id limit %(limit)s for update of c skip locked
)
update mindia.tasks t
set status = 'running', attempt = t.attempt + 1, worker_id = %(worker_id)s, started_at = now()
from due where t.id = due.id
returning {_COLUMNS}
"""

# What is said about an attempt is fenced: from a worker that was given up on it touches no row.
_COMPLETE = """
update mindia.tasks set status = 'completed', completed_at = now(), worker_id = null, error_message = null
where id = %s and worker_id = %s and attempt = %s and status = 'running'
"""

# End, retry and record of an attempt that failed, in one write. The wait is 0.5 to 1.5 times as long as the exponential
# one, and 0.5 to 1 times the longest: what failed together does not come back together.
_FAILED: LiteralString = """
failed as (
    update mindia.tasks t
    set status = case when e.is_last then 'failed' else 'pending' end::mindia.task_status,
        retry_count = t.retry_count + case when e.is_last then 0 else 1 end,
        completed_at = case when e.is_last then now() end,
        scheduled_for = case when e.is_last then t.scheduled_for else now() + least(
            %(base)s::interval * power(2, least(t.retry_count, 30)) * (0.5 + random()),
            %(cap)s::interval * (1 - random() / 2)
        ) end,
        worker_id = null, error_message = %(error_message)s
    from ended e where t.id = e.id
    returning t.id, t.attempt, t.status
), recorded as (
    insert into mindia.task_errors (task_id, attempt, error_type, error_message, traceback)
    select id, attempt, %(error_type)s, %(error_message)s, %(traceback)s from failed
    on conflict on constraint task_errors_pkey do nothing
)
"""

_FAIL: LiteralString = f"""
with ended as materialized (
    select t.id, %(final)s::boolean or t.retry_count >= t.max_retries as is_last from mindia.tasks t
    where t.id = %(id)s and t.worker_id = %(worker_id)s and t.attempt = %(attempt)s and t.status = 'running'
    for update
), {_FAILED}
select status::text from failed
"""

# A task that kills its worker must not run for ever: being rescued is a failed attempt. It waits as after any other, so
# that it does not take down with it the same tasks again and again.
_RESCUE: LiteralString = f"""
with ended as materialized (
    select t.id, t.retry_count >= t.max_retries as is_last from mindia.tasks t
    where t.status = 'running' and not exists (
        select from mindia.workers w where w.id = t.worker_id and w.heartbeat_at > now() - %(timeout)s::interval
    )
    for update skip locked
), {_FAILED}, buried as (
    delete from mindia.workers where id in (
        select id from mindia.workers where heartbeat_at <= now() - %(timeout)s::interval for update skip locked
    )
)
select count(*)::int from failed
"""

# Counts for nothing: the task has done nothing wrong.
_RELEASE = """
update mindia.tasks t set status = 'pending', worker_id = null, started_at = null
where t.worker_id = %s and t.status = 'running' and not exists (
    select from unnest(%s::uuid[], %s::int[]) as kept (id, attempt) where kept.id = t.id and kept.attempt = t.attempt
)
"""

_HEARTBEAT = """
insert into mindia.workers (id, hostname, pid) values (%s, %s, %s)
on conflict on constraint workers_pkey do update set heartbeat_at = now()
"""

_LEAVE = "delete from mindia.workers where id = %s"


def enqueue(
    session: Session,
    *,
    task_id: UUID,
    tenant_id: UUID | None,
    task_type: TaskType,
    kind: str,
    payload: str,
    priority: int,
    run_at: datetime | None,
    max_retries: int,
    dedup_key: str | None,
    initiated_by: UUID | None,
) -> Task:
    """Write a task, whose payload is JSON, or return the one that is pending or running under the same key."""
    parameters = {
        "id": task_id,
        "tenant_id": tenant_id,
        "task_type": task_type,
        "kind": kind,
        "payload": payload,
        "priority": priority,
        "run_at": run_at,
        "max_retries": max_retries,
        "dedup_key": dedup_key,
        "initiated_by": initiated_by,
    }
    task = session.one(_ENQUEUE, parameters, row=_task)
    assert task is not None
    return task


def get(session: Session, tenant_id: UUID | None, task_id: UUID) -> Task | None:
    """Read a task."""
    return session.one(_GET, (tenant_id, task_id), row=_task)


def claim(session: Session, *, worker_id: UUID, kinds: list[str], limit: int) -> list[Task]:
    """Take tasks of these kinds that are due; nobody else gets them. Those of a suspended tenant wait."""
    tasks = session.all(_CLAIM, {"worker_id": worker_id, "kinds": kinds, "limit": limit}, row=_task)
    return sorted(tasks, key=lambda task: (-task.priority, task.scheduled_for, task.id))


def complete(session: Session, task: Task, *, worker_id: UUID) -> bool:
    """Record success; False where the task was taken away from this worker."""
    return session.execute(_COMPLETE, (task.id, worker_id, task.attempt)) > 0


def fail(
    session: Session,
    task: Task,
    *,
    worker_id: UUID,
    error_type: str,
    error_message: str,
    traceback: str,
    final: bool,
    base: timedelta,
    cap: timedelta,
) -> TaskStatus | None:
    """Record a failure, and the retry with it; None where the task was taken away from this worker."""
    parameters = {
        "id": task.id,
        "worker_id": worker_id,
        "attempt": task.attempt,
        "error_type": error_type,
        "error_message": storable(error_message)[:_MAX_MESSAGE_CHARS],
        "traceback": storable(traceback)[-_MAX_TRACEBACK_CHARS:],
        "final": final,
        "base": base,
        "cap": cap,
    }
    return session.one(_FAIL, parameters, row=TaskStatus)


def release(session: Session, worker_id: UUID, *, keep: Collection[Task] = ()) -> int:
    """Put back what a worker has claimed, except some attempts; it does not count against the retries."""
    return session.execute(_RELEASE, (worker_id, [task.id for task in keep], [task.attempt for task in keep]))


def rescue(session: Session, *, worker_timeout: timedelta, base: timedelta, cap: timedelta) -> int:
    """Put back the tasks of workers that have died, counted against their retries."""
    parameters = {
        "timeout": worker_timeout,
        "base": base,
        "cap": cap,
        "error_type": "WorkerDied",
        "error_message": "the worker died",
        "traceback": None,
    }
    return session.one(_RESCUE, parameters, row=int) or 0


def heartbeat(session: Session, *, worker_id: UUID, hostname: str, pid: int) -> None:
    """Say that a worker lives."""
    session.execute(_HEARTBEAT, (worker_id, hostname, pid))


def leave(session: Session, worker_id: UUID) -> None:
    """Say that a worker has ended."""
    session.execute(_LEAVE, (worker_id,))


def _task(
    id: UUID,  # noqa: A002 - the column
    tenant_id: UUID | None,
    task_type: str,
    kind: str,
    payload: Any,
    status: str,
    priority: int,
    retry_count: int,
    max_retries: int,
    attempt: int,
    created_at: datetime,
    scheduled_for: datetime,
    started_at: datetime | None,
    completed_at: datetime | None,
    error_message: str | None,
    initiated_by: UUID | None,
) -> Task:
    return Task(
        id=id,
        tenant_id=tenant_id,
        task_type=TaskType(task_type),
        kind=kind,
        payload=payload,
        status=TaskStatus(status),
        priority=priority,
        retry_count=retry_count,
        max_retries=max_retries,
        attempt=attempt,
        created_at=created_at,
        scheduled_for=scheduled_for,
        started_at=started_at,
        completed_at=completed_at,
        error_message=error_message,
        initiated_by=initiated_by,
    )
