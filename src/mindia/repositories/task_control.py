"""The queue, as its owners see it: calling off, trying again, putting off, clearing away."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import LiteralString
from uuid import UUID

from mindia.db.session import Session
from mindia.domain.tasks import Task
from mindia.repositories.tasks import COLUMNS, task

# One that waits at once, one that runs as soon as its handler looks.
_CANCEL: LiteralString = f"""
update mindia.tasks t
set status = case when t.status = 'pending' then 'cancelled' else t.status end,
    completed_at = case when t.status = 'pending' then now() end,
    cancel_requested = true
where t.tenant_id is not distinct from %s and t.id = %s and t.status in ('pending', 'running')
returning {COLUMNS}
"""

# What it waited for and did not complete is not waited for again: its owner wants it to run all the same.
_RETRY: LiteralString = f"""
update mindia.tasks t
set status = 'pending', completed_at = null, scheduled_for = now(), retry_count = 0, cancel_requested = false,
    error_message = null, result = null, waiting_on = (
        select count(*) from mindia.task_dependencies d
        join mindia.tasks p on p.tenant_id is not distinct from d.tenant_id and p.id = d.depends_on_id
        where d.tenant_id is not distinct from t.tenant_id and d.task_id = t.id and p.status in ('pending', 'running')
    )
where t.tenant_id is not distinct from %s and t.id = %s and t.status in ('failed', 'cancelled')
returning {COLUMNS}
"""

_RESCHEDULE: LiteralString = f"""
update mindia.tasks t set scheduled_for = %s
where t.tenant_id is not distinct from %s and t.id = %s and t.status = 'pending'
returning {COLUMNS}
"""

# By the order of the ids, which is that of their making.
# An array, since it is made once, so that the limit holds whatever the plan.
_PRUNE = """
delete from mindia.tasks t where t.id = any(array(
    select p.id from mindia.tasks p
    where p.id < %(made_before)s and p.status in ('completed', 'failed', 'cancelled')
      and p.completed_at < now() - %(older_than)s::interval
      and not exists (
        select from mindia.task_dependencies d join mindia.tasks w on w.id = d.task_id
        where d.depends_on_id = p.id and w.status in ('pending', 'running')
      )
    order by p.id limit %(limit)s for update of p skip locked
))
"""

# A task that was written while one that it waits for was ending may have missed that.
_RECONCILE = """
update mindia.tasks t set waiting_on = c.number
from (
    select w.id, (
        select count(*) from mindia.task_dependencies d join mindia.tasks p on p.id = d.depends_on_id
        where d.task_id = w.id and p.status in ('pending', 'running')
    ) as number
    from mindia.tasks w where w.status = 'pending' and w.waiting_on > 0 and not exists (
        select from mindia.task_dependencies d join mindia.tasks p on p.id = d.depends_on_id
        where d.task_id = w.id and d.on_failure = 'cancel' and p.status in ('failed', 'cancelled')
    )
) c
where t.id = c.id and t.status = 'pending' and t.waiting_on > 0 and c.number < t.waiting_on
"""

_LOST_DEPENDENCIES = """
select distinct p.id from mindia.tasks w join mindia.task_dependencies d on d.task_id = w.id
join mindia.tasks p on p.id = d.depends_on_id
where w.status = 'pending' and w.waiting_on > 0 and d.on_failure = 'cancel' and p.status in ('failed', 'cancelled')
limit 1000
"""

_SEEN = """
insert into mindia.task_schedules (name, last_tick) values (%s, %s)
on conflict on constraint task_schedules_pkey do nothing
"""

_LAST_TICK = "select last_tick from mindia.task_schedules where name = %s"

_FIRE = "update mindia.task_schedules set last_tick = %(tick)s where name = %(name)s and last_tick < %(tick)s"


def cancel(session: Session, tenant_id: UUID | None, task_id: UUID) -> Task | None:
    """Call a task off; None where it is not there or has ended."""
    return session.one(_CANCEL, (tenant_id, task_id), row=task)


def retry(session: Session, tenant_id: UUID | None, task_id: UUID) -> Task | None:
    """Have a task that failed or was cancelled run again; None where it is not there or has not."""
    return session.one(_RETRY, (tenant_id, task_id), row=task)


def reschedule(session: Session, tenant_id: UUID | None, task_id: UUID, run_at: datetime) -> Task | None:
    """Change when a task that waits is to run; None where it is not there or does not wait."""
    return session.one(_RESCHEDULE, (run_at, tenant_id, task_id), row=task)


def prune(session: Session, *, made_before: UUID, older_than: timedelta, limit: int) -> int:
    """Delete finished tasks that nothing waits for, and return how many."""
    return session.execute(_PRUNE, {"made_before": made_before, "older_than": older_than, "limit": limit})


def reconcile(session: Session) -> list[UUID]:
    """Let go the tasks whose dependencies have ended, and return failed ones that tasks still wait for."""
    session.execute(_RECONCILE)
    return session.all(_LOST_DEPENDENCIES, row=_itself)


def last_tick(session: Session, name: str, *, first: datetime) -> datetime:
    """Read when a periodic task was fired last; for a new one that is `first`."""
    session.execute(_SEEN, (name, first))
    found = session.one(_LAST_TICK, (name,), row=_itself_time)
    assert found is not None
    return found


def fire(session: Session, name: str, *, tick: datetime) -> bool:
    """Claim a tick of a periodic task; False where somebody else has."""
    return session.execute(_FIRE, {"name": name, "tick": tick}) > 0


def _itself(value: UUID) -> UUID:
    return value


def _itself_time(value: datetime) -> datetime:
    return value
