"""Tasks: writing and reading them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, LiteralString
from uuid import UUID

import attrs

from mindia.db.session import Session
from mindia.domain.tasks import OnFailure, Task, TaskCount, TaskError, TaskStatus, TaskType
from mindia.errors import NotFoundError

COLUMNS: LiteralString = """
t.id, t.tenant_id, t.task_type::text, t.kind, t.payload, t.status::text, t.priority, t.retry_count, t.max_retries,
t.attempt, t.created_at, t.scheduled_for, t.started_at, t.completed_at, t.error_message, t.initiated_by, t.waiting_on,
t.dedup_key, t.timeout_s, t.progress, t.progress_note, t.cancel_requested, t.result, t.is_suspect, t.trace_context
"""
"""Of `mindia.tasks t`, in the order that `task` takes them."""

CLAIMED: LiteralString = """
t.id, t.tenant_id, t.kind, t.payload, t.priority, t.retry_count, t.max_retries, t.attempt, t.created_at,
t.scheduled_for, t.started_at, t.error_message, t.initiated_by, t.dedup_key, t.timeout_s, t.is_suspect, t.trace_context
"""
"""The same for `claimed`: without what all that were just taken have in common, and what follows from the kind."""

# A commit that notifies takes a lock that all of them share: so only where a worker says that it waits.
_WAKE: LiteralString = """
wake as (
    select pg_notify('mindia_tasks', '') from written
    where %(may_notify)s and exists (select from mindia.workers where is_idle) limit 1
)
"""

# A tenant with tasks is not removed. Nobody who changes its row is kept from that.
_PLACE: LiteralString = """
place as materialized (
    select from mindia.enter(%(tenant_id)s::uuid, %(binds)s) as is_there where is_there
)
"""

_ENQUEUE = """
select %(payload)s::jsonb, created_at, scheduled_for from mindia.enqueue(
    %(id)s::uuid, %(tenant_id)s::uuid, %(binds)s, %(task_type)s::mindia.task_type, %(kind)s::text, %(payload)s::jsonb,
    %(priority)s::int, %(run_at)s::timestamptz, %(delay)s::interval, %(max_retries)s::int, %(initiated_by)s::uuid,
    %(timeout_s)s::float8, %(waiting_on)s::int, %(trace_context)s::jsonb, %(may_notify)s
)
"""

# An update that changes nothing returns the task that has the key already.
_ENQUEUE_WITH_KEY: LiteralString = f"""
with {_PLACE}, written as (
    insert into mindia.tasks as t
        (id, tenant_id, task_type, kind, payload, priority, scheduled_for, max_retries, dedup_key, initiated_by,
         timeout_s, waiting_on, trace_context)
    select %(id)s::uuid, %(tenant_id)s::uuid, %(task_type)s::mindia.task_type, %(kind)s::text, %(payload)s::jsonb,
           %(priority)s::int, coalesce(%(run_at)s::timestamptz, now() + %(delay)s::interval), %(max_retries)s::int,
           %(dedup_key)s::text, %(initiated_by)s::uuid, %(timeout_s)s::float8, %(waiting_on)s::int,
           %(trace_context)s::jsonb
    from place
    on conflict (tenant_id, dedup_key) where dedup_key is not null and status in ('pending', 'running')
    do update set dedup_key = excluded.dedup_key
    returning {COLUMNS}
), {_WAKE}
select written.* from written left join wake on true
"""

# Ids come in binary, payloads as one text: arrays of texts take a client longer than all the rest. JSON has no line
# breaks of its own.
_WRITE_MANY: LiteralString = f"""
with {_PLACE}, written as (
    insert into mindia.tasks
        (id, tenant_id, task_type, kind, payload, priority, scheduled_for, max_retries, dedup_key, initiated_by,
         timeout_s, trace_context)
    select r.id, %(tenant_id)s::uuid, %(task_type)s::mindia.task_type, %(kind)s, r.payload::jsonb, %(priority)s,
           coalesce(%(run_at)s::timestamptz, now() + %(delay)s::interval), %(max_retries)s, r.dedup_key,
           %(initiated_by)s::uuid, %(timeout_s)s::float8, %(trace_context)s::jsonb
    from place, unnest(%(ids)b::uuid[], string_to_array(%(payloads)s, E'\n'), %(dedup_keys)s::text[])
        as r (id, payload, dedup_key)
"""
_WRITTEN_MANY: LiteralString = f"""
    returning id
), {_WAKE}
select count(written.id)::int, exists (select from place) from written left join wake on true
"""

# To look for what is in the way, each row is written as if something were.
_ENQUEUE_MANY = _WRITE_MANY + _WRITTEN_MANY
_ENQUEUE_MANY_WITH_KEYS = _WRITE_MANY + "on conflict do nothing" + _WRITTEN_MANY

_DEPEND = """
insert into mindia.task_dependencies (tenant_id, task_id, depends_on_id, on_failure)
select %(tenant_id)s::uuid, %(task_id)s::uuid, depends_on_id, %(on_failure)s
from unnest(%(depends_on)s::uuid[]) as d (depends_on_id)
"""

_GET = f"select {COLUMNS} from mindia.tasks t where t.tenant_id is not distinct from %s and t.id = %s"

_STATUSES = """
select id, status::text from mindia.tasks where tenant_id is not distinct from %s and id = any(%s::uuid[])
"""

_LIST: LiteralString = f"""
select {COLUMNS} from mindia.tasks t
where t.tenant_id is not distinct from %(tenant_id)s
  and (%(status)s::mindia.task_status is null or t.status = %(status)s::mindia.task_status)
  and (%(kind)s::text is null or t.kind = %(kind)s)
  and (%(before)s::timestamptz is null or (t.created_at, t.id) < (%(before)s::timestamptz, %(before_id)s::uuid))
order by t.created_at desc, t.id desc limit %(limit)s
"""

_COUNT = """
select kind, status::text, count(*)::int from mindia.tasks where tenant_id is not distinct from %s
group by kind, status order by kind, status
"""

_COUNT_EMBEDDINGS = """
select count(*)::int from mindia.tasks
where tenant_id = %s and kind = 'generate_embedding' and status in ('pending', 'running')
"""

_ERRORS = """
select e.attempt, e.error_type, e.error_message, e.traceback, e.failed_at from mindia.task_errors e
where e.tenant_id is not distinct from %s and e.task_id = %s order by e.attempt
"""


_TYPES = {str(each): each for each in TaskType}
_STATUS = {str(each): each for each in TaskStatus}


@attrs.frozen(kw_only=True)
class NewTasks:
    """What all tasks of one call have in common.

    Attributes:
        tenant_id: Whose they are.
        task_type: Their label in the database.
        kind: Their type.
        priority: Higher goes first.
        run_at: Not before this time, or None.
        delay: Where `run_at` is None, not before so long from now.
        max_retries: How often each is tried again.
        timeout_s: How long an attempt may take, in seconds, or None.
        initiated_by: On whose behalf.
        may_notify: Whether an idle worker may be woken.
        trace_context: In which trace, as JSON, or None.
    """

    tenant_id: UUID | None
    task_type: TaskType
    kind: str
    priority: int
    run_at: datetime | None
    delay: timedelta
    max_retries: int
    timeout_s: float | None
    initiated_by: UUID | None
    may_notify: bool
    trace_context: str | None = None

    def parameters(self) -> dict[str, Any]:
        """Return them as a statement takes them."""
        return {field.name: getattr(self, field.name) for field in attrs.fields(NewTasks)}


def enqueue(
    session: Session, new: NewTasks, *, task_id: UUID, payload: str, dedup_key: str | None, waiting_on: int = 0
) -> Task:
    """Write a task, whose payload is JSON, or return the one that is pending or running under the same key.

    Raises:
        NotFoundError: Its tenant is gone.
    """
    own = {"id": task_id, "payload": payload, "waiting_on": waiting_on, "binds": session.hand_over_binding()}
    parameters = new.parameters() | own
    if dedup_key is None:
        written = session.one(_ENQUEUE, parameters, row=partial(_new_task, new, task_id, waiting_on))
    else:
        written = session.one(_ENQUEUE_WITH_KEY, parameters | {"dedup_key": dedup_key}, row=task)
    if written is None:
        raise _tenant_gone(new)
    return written


def enqueue_many(
    session: Session,
    new: NewTasks,
    *,
    task_ids: Sequence[UUID],
    payloads: Sequence[str],
    dedup_keys: list[str | None],
    meanwhile: Callable[[], None] | None,
) -> int:
    """Write tasks, whose payloads are JSON, but for those whose key a pending or running one has; return how many.

    `meanwhile`, if there is one, is called while the database is at work.

    Raises:
        NotFoundError: Their tenant is gone.
    """
    has_keys = any(key is not None for key in dedup_keys)
    own = {
        "ids": list(task_ids),
        "payloads": "\n".join(payloads),
        "dedup_keys": dedup_keys if has_keys else [],
        "binds": session.hand_over_binding(),
    }
    counted = session.one(
        _ENQUEUE_MANY_WITH_KEYS if has_keys else _ENQUEUE_MANY,
        new.parameters() | own,
        row=lambda count, is_there: (int(count), bool(is_there)),
        meanwhile=meanwhile,
    )
    if counted is None or not counted[1]:
        raise _tenant_gone(new)
    return counted[0]


def _new_task(
    new: NewTasks, task_id: UUID, waiting_on: int, payload: Any, created_at: datetime, scheduled_for: datetime
) -> Task:
    """Return a task that was just written, most of which is known."""
    return Task(
        id=task_id,
        tenant_id=new.tenant_id,
        task_type=new.task_type,
        kind=new.kind,
        payload=payload,
        status=TaskStatus.PENDING,
        priority=new.priority,
        retry_count=0,
        max_retries=new.max_retries,
        attempt=0,
        created_at=created_at,
        scheduled_for=scheduled_for,
        initiated_by=new.initiated_by,
        waiting_on=waiting_on,
        timeout_s=new.timeout_s,
        trace_context=None if new.trace_context is None else json.loads(new.trace_context),
    )


def _tenant_gone(new: NewTasks) -> NotFoundError:
    return NotFoundError(f"there is no tenant {new.tenant_id}")


def depend(
    session: Session, tenant_id: UUID | None, task_id: UUID, depends_on: Sequence[UUID], *, on_failure: OnFailure
) -> None:
    """Write what a task waits for."""
    session.execute(
        _DEPEND,
        {"tenant_id": tenant_id, "task_id": task_id, "depends_on": list(depends_on), "on_failure": on_failure},
    )


def statuses(session: Session, tenant_id: UUID | None, task_ids: Sequence[UUID]) -> dict[UUID, TaskStatus]:
    """Read where tasks stand; those that are not there are left out."""
    rows = session.all(_STATUSES, (tenant_id, list(task_ids)), row=lambda task_id, status: (task_id, status))
    return {task_id: TaskStatus(status) for task_id, status in rows}


def get(session: Session, tenant_id: UUID | None, task_id: UUID) -> Task | None:
    """Read a task."""
    return session.one(_GET, (tenant_id, task_id), row=task)


def page(
    session: Session,
    tenant_id: UUID | None,
    *,
    status: TaskStatus | None,
    kind: str | None,
    before: Task | None,
    limit: int,
) -> list[Task]:
    """Read tasks, the newest first, from behind one of them on."""
    parameters = {
        "tenant_id": tenant_id,
        "status": status,
        "kind": kind,
        "before": None if before is None else before.created_at,
        "before_id": None if before is None else before.id,
        "limit": limit,
    }
    return session.all(_LIST, parameters, row=task)


def counts(session: Session, tenant_id: UUID | None) -> list[TaskCount]:
    """Count tasks by type and status."""
    return session.all(
        _COUNT,
        (tenant_id,),
        row=lambda kind, status, number: TaskCount(kind=kind, status=TaskStatus(status), count=number),
    )


def count_embeddings(session: Session, tenant_id: UUID) -> int:
    """Count the tasks that embed an item and have not ended."""
    return session.one(_COUNT_EMBEDDINGS, (tenant_id,), row=int) or 0


def errors(session: Session, tenant_id: UUID | None, task_id: UUID) -> list[TaskError]:
    """Read the failed attempts of a task."""
    return session.all(
        _ERRORS,
        (tenant_id, task_id),
        row=lambda attempt, error_type, message, traceback, failed_at: TaskError(
            attempt=attempt, error_type=error_type, error_message=message, traceback=traceback, failed_at=failed_at
        ),
    )


def task(
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
    waiting_on: int,
    dedup_key: str | None,
    timeout_s: float | None,
    progress: float | None,
    progress_note: str | None,
    cancel_requested: bool,  # noqa: FBT001 - the column
    result: Any,
    is_suspect: bool,  # noqa: FBT001 - the column
    trace_context: dict[str, str] | None,
) -> Task:
    """Return the task of a row whose columns are `COLUMNS`."""
    return Task(
        id=id,
        tenant_id=tenant_id,
        task_type=_TYPES[task_type],
        kind=kind,
        payload=payload,
        status=_STATUS[status],
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
        waiting_on=waiting_on,
        dedup_key=dedup_key,
        timeout_s=timeout_s,
        progress=progress,
        progress_note=progress_note,
        cancel_requested=cancel_requested,
        result=result,
        is_suspect=is_suspect,
        trace_context=trace_context,
    )


def claimed(
    id: UUID,  # noqa: A002 - the column
    tenant_id: UUID | None,
    kind: str,
    payload: Any,
    priority: int,
    retry_count: int,
    max_retries: int,
    attempt: int,
    created_at: datetime,
    scheduled_for: datetime,
    started_at: datetime,
    error_message: str | None,
    initiated_by: UUID | None,
    dedup_key: str | None,
    timeout_s: float | None,
    is_suspect: bool,  # noqa: FBT001 - the column
    trace_context: dict[str, str] | None,
) -> Task:
    """Return the task of a row whose columns are `CLAIMED`."""
    return Task(
        id=id,
        tenant_id=tenant_id,
        task_type=_TYPES.get(kind, TaskType.CUSTOM),
        kind=kind,
        payload=payload,
        status=TaskStatus.RUNNING,
        priority=priority,
        retry_count=retry_count,
        max_retries=max_retries,
        attempt=attempt,
        created_at=created_at,
        scheduled_for=scheduled_for,
        started_at=started_at,
        error_message=error_message,
        initiated_by=initiated_by,
        dedup_key=dedup_key,
        timeout_s=timeout_s,
        is_suspect=is_suspect,
        trace_context=trace_context,
    )
