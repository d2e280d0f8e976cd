"""Workers: who lives, who waits, and the tasks of those that have died."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any, LiteralString
from uuid import UUID

from mindia.db.session import Batch, Session, Statement
from mindia.domain.tasks import Task
from mindia.repositories.task_claims import FAILED, PUT_BACK

# A task that kills its worker must not run for ever: being rescued is a failed attempt. It waits as after any other, so
# that it does not take down with it the same tasks again and again. Where a worker had more than it can have been at,
# nobody knows which of them it was: that counts for none, and they are run again without any in reserve, one at a time
# in each worker. So are those that were in the hands of one that died for the second time.
_RESCUE: LiteralString = f"""
with ended as materialized (
    select t.id, c.is_counted, c.is_counted and t.retry_count >= t.max_retries as is_last,
           t.is_suspect or t.retry_count > 0 or not c.is_counted as is_suspect
    from mindia.tasks t cross join lateral (
        select coalesce(
            (select count(*) from mindia.tasks r where r.worker_id = t.worker_id and r.status = 'running')
            <= (select w.concurrency from mindia.workers w where w.id = t.worker_id), true
        ) as is_counted
    ) c
    where t.status = 'running' and not exists (
        select from mindia.workers w where w.id = t.worker_id and w.heartbeat_at > now() - %(timeout)s::interval
    )
    for no key update of t skip locked
), {FAILED}, buried as (
    delete from mindia.workers where id in (
        select id from mindia.workers where heartbeat_at <= now() - %(timeout)s::interval for update skip locked
    )
)
select id from failed
"""

# Counts for nothing: the task has done nothing wrong.
_RELEASE: LiteralString = f"""
update mindia.tasks t set {PUT_BACK}
where t.worker_id = %s and t.status = 'running' and not exists (
    select from unnest(%s::uuid[], %s::int[]) as kept (id, attempt) where kept.id = t.id and kept.attempt = t.attempt
)
"""

_GIVE_BACK: LiteralString = f"""
update mindia.tasks t set {PUT_BACK}
from unnest(%(ids)s::uuid[], %(attempts)s::int[]) as e (id, attempt)
where t.id = e.id and t.worker_id is not distinct from %(worker_id)s and t.attempt = e.attempt and t.status = 'running'
returning t.id
"""

_HEARTBEAT = """
insert into mindia.workers (id, hostname, pid, concurrency, kinds)
values (%(id)s, %(hostname)s, %(pid)s, %(concurrency)s, %(kinds)s)
on conflict on constraint workers_pkey do update set heartbeat_at = now()
"""

_IDLE = "update mindia.workers set is_idle = %s where id = %s and is_idle <> %s returning id"

_AWAITS_EVENTS = """
update mindia.workers set awaits_events = %s where id = %s and awaits_events <> %s returning id
"""

_LEAVE = "delete from mindia.workers where id = %s"

_CANCELLED = """
select t.id from mindia.tasks t where t.worker_id = %s and t.status = 'running' and t.cancel_requested
"""


def rescue(session: Session, *, worker_timeout: timedelta, base: timedelta, cap: timedelta) -> list[UUID]:
    """Put back the tasks of workers that have died, counted against their retries, and return which."""
    parameters = {
        "timeout": worker_timeout,
        "base": base,
        "cap": cap,
        "retry_after": None,
        "error_type": "WorkerDied",
        "error_message": "the worker died",
        "traceback": None,
    }
    return session.all(_RESCUE, parameters, row=_itself)


def release(session: Session, worker_id: UUID, *, keep: Collection[Task] = ()) -> int:
    """Put back what a worker has claimed, except some attempts; it does not count against the retries."""
    return session.execute(_RELEASE, (worker_id, [task.id for task in keep], [task.attempt for task in keep]))


def give_back(*, worker_id: UUID, tasks: Sequence[Task]) -> Statement[UUID]:
    """Return what puts back some tasks that a worker has claimed and not begun."""
    parameters = {
        "worker_id": worker_id,
        "ids": [task.id for task in tasks],
        "attempts": [task.attempt for task in tasks],
    }
    return Statement(_GIVE_BACK, parameters, _itself)


def heartbeat(
    session: Session, *, worker_id: UUID, hostname: str, pid: int, concurrency: int, kinds: list[str]
) -> None:
    """Say that a worker lives."""
    session.execute(
        _HEARTBEAT,
        {"id": worker_id, "hostname": hostname, "pid": pid, "concurrency": concurrency, "kinds": kinds},
    )


def idle(worker_id: UUID, *, is_idle: bool) -> Statement[Any]:
    """Return what says that a worker waits for tasks, or does not."""
    return Statement(_IDLE, (is_idle, worker_id, is_idle), _itself)


def awaiting_events(worker_id: UUID, *, is_waiting: bool) -> Batch[None]:
    """Say that a worker waits for events to deliver, or does not."""
    return Batch([Statement(_AWAITS_EVENTS, (is_waiting, worker_id, is_waiting), _itself)], lambda _: None)


def leave(session: Session, worker_id: UUID) -> None:
    """Say that a worker has ended."""
    session.execute(_LEAVE, (worker_id,))


def cancelled(session: Session, worker_id: UUID) -> list[UUID]:
    """Read which of the tasks that a worker runs are to be cancelled."""
    return session.all(_CANCELLED, (worker_id,), row=_itself)


def _itself(value: UUID) -> UUID:
    return value
