"""The queue, as workers see it: taking tasks, and saying how they ended."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, LiteralString
from uuid import UUID

import attrs

from mindia.db.session import Session, Statement
from mindia.domain.tasks import Task, TaskStatus
from mindia.repositories._text import storable
from mindia.repositories.tasks import CLAIMED, claimed

_MAX_MESSAGE_CHARS = 2_000
_MAX_TRACEBACK_CHARS = 8_000

# Planning the statements of a round anew takes longer than running them, and their plans do not depend on what is
# asked. What a crash of the server takes of claims that were not flushed is as if they had not been made; an end that
# is on the disk has its claim there, too.
_ROUND: LiteralString = """
set_config('plan_cache_mode', 'force_generic_plan', true),
       case when %s then set_config('synchronous_commit', 'off', true) end
"""

_IS_DUE: LiteralString = """
q.status = 'pending' and q.waiting_on = 0 and q.scheduled_for <= now() and (%(with_suspects)s or not q.is_suspect)
and (q.tenant_id is null or exists (select from mindia.tenants n where n.id = q.tenant_id and n.status = 'active'))
"""

# Rows are locked without their keys, throughout: who writes a task that waits for one of them holds that, in a
# transaction of the host's, and must not keep it from running. They are found again by their place, where they stay
# while they are locked: in a join, all of the table would be read where the planner takes the limit for a large one.
_TAKEN: LiteralString = f"""
update mindia.tasks t
set status = 'running', attempt = t.attempt + 1, worker_id = %(worker_id)s, started_at = now()
where t.ctid = any(array(select place from due))
returning {CLAIMED}
"""

# A lane is a type with a priority: within one, tasks come in the order of the index. Beginning behind the last one that
# was taken skips what dead entries are left of those before it, which a transaction that is open elsewhere preserves.
_CLAIM_LANES: LiteralString = f"""
with due as materialized (
    select c.place from (
        select k.kind, p.priority, coalesce(m.after, '-infinity') as after,
               coalesce(m.after_id, '00000000-0000-0000-0000-000000000000') as after_id
        from unnest(%(kinds)s::text[]) as k (kind)
        cross join lateral (
            with recursive lane as (
                select (select max(q.priority) from mindia.tasks q
                        where q.status = 'pending' and q.waiting_on = 0 and q.kind = k.kind) as priority
                union all
                select (select max(q.priority) from mindia.tasks q
                        where q.status = 'pending' and q.waiting_on = 0 and q.kind = k.kind
                          and q.priority < lane.priority)
                from lane where lane.priority is not null
            )
            select lane.priority from lane where lane.priority is not null
        ) p
        left join unnest(%(mark_kinds)s::text[], %(mark_priorities)s::int[], %(mark_times)s::timestamptz[],
                         %(mark_ids)s::uuid[]) as m (kind, priority, after, after_id)
            on m.kind = k.kind and m.priority = p.priority
        order by case when %(low_first)s then p.priority::bigint else -p.priority::bigint end, random()
    ) lanes
    cross join lateral (
        select q.ctid as place from mindia.tasks q
        where q.kind = lanes.kind and q.priority = lanes.priority
          and (q.scheduled_for, q.id) > (lanes.after, lanes.after_id) and {_IS_DUE}
        order by q.scheduled_for, q.id limit %(limit)s for no key update of q skip locked
    ) c
    limit %(limit)s
)
{_TAKEN}
"""

# So many of each tenant, those of the system among them.
_CLAIM_TENANTS: LiteralString = f"""
with busy as (
    select r.tenant_id, count(*) as running from mindia.tasks r
    where r.status = 'running' and (%(max_running)s::int is not null or %(max_per_tenant)s::int is not null)
      and r.kind = any(%(kinds)s::text[])
    group by r.tenant_id
), room as materialized (
    select least(
        %(limit)s::int,
        %(max_running)s::int - coalesce((select sum(running) from busy), 0)::int,
        (select floor(tokens)::int from mindia.task_rates where kind = %(rate_of)s::text)
    ) as slots
), due as materialized (
    select c.place from (
        select w.tenant_id, least(
            %(each)s::int,
            %(max_per_tenant)s::int - coalesce((select running from busy where busy.tenant_id = w.tenant_id), 0)::int
        ) as most
        from unnest(%(tenants)s::uuid[]) with ordinality as w (tenant_id, turn)
        where (select slots from room) > 0
        order by w.turn
    ) turns
    cross join lateral (
        select q.ctid as place from mindia.tasks q
        where q.tenant_id = turns.tenant_id and q.kind = any(%(kinds)s::text[]) and {_IS_DUE}
        order by q.priority desc, q.scheduled_for, q.id limit greatest(turns.most, 0) for no key update of q skip locked
    ) c
    limit greatest((select slots from room), 0)
), system as materialized (
    select q.ctid as place from mindia.tasks q
    where q.tenant_id is null and q.kind = any(%(kinds)s::text[]) and {_IS_DUE}
    order by q.priority desc, q.scheduled_for, q.id
    limit greatest((select slots from room) - (select count(*) from due), 0) for no key update of q skip locked
), taken as (
    select place from due union all select place from system
), charged as (
    update mindia.task_rates set tokens = tokens - (select count(*) from taken) where kind = %(rate_of)s::text
)
update mindia.tasks t
set status = 'running', attempt = t.attempt + 1, worker_id = %(worker_id)s, started_at = now()
where t.ctid = any(array(select place from taken))
returning {CLAIMED}
"""

# Limits hold for all workers together: those that count for the same type do it one after the other.
_LOCK_KIND = "select pg_advisory_xact_lock(hashtextextended('mindia.tasks ' || %s::text, 0)) is null"

_REFILL = """
insert into mindia.task_rates as r (kind, tokens) values (%(kind)s, %(burst)s)
on conflict on constraint task_rates_pkey do update
set tokens = least(%(burst)s, r.tokens + %(rate)s * extract(epoch from now() - r.updated_at)), updated_at = now()
returning true
"""

_WAITING_TENANTS: LiteralString = """
with recursive waiting as (
    select (select min(q.tenant_id::text) from (
        select q.tenant_id from mindia.tasks q
        where q.status = 'pending' and q.waiting_on = 0 and q.tenant_id > %(after)s
        order by q.tenant_id limit 1
    ) q)::uuid as tenant_id, 1 as number
    union all
    select (select q.tenant_id from mindia.tasks q
            where q.status = 'pending' and q.waiting_on = 0 and q.tenant_id > waiting.tenant_id
            order by q.tenant_id limit 1), waiting.number + 1
    from waiting where waiting.tenant_id is not null and waiting.number < %(limit)s
)
select tenant_id from waiting where tenant_id is not null
"""

# What is said about an attempt is fenced: from a worker that was given up on it touches no row. Rows are looked up by
# their ids: the index of what runs is full of dead entries of what was done before, and seems to have one row or none.
# Neither `is not distinct from` nor a status as text fits it. What goes with an id stands in an object, read once,
# since a join of so many with what seems to be one row compares each with each. It is looked up only where it differs:
# that takes a tenth of the statement.
_COMPLETE = """
update mindia.tasks t
set status = 'completed', completed_at = now(), worker_id = null, error_message = null,
    result = case when %(has_results)s then (select %(results)s::jsonb) -> t.id::text end,
    progress = null, progress_note = null
where t.id = any(array(select unnest(%(ids)b::uuid[]))) and t.worker_id is not distinct from %(worker_id)s
  and t.attempt = coalesce(%(attempt)s::int, ((select %(attempts)s::jsonb) ->> t.id::text)::int)
  and t.status::text = 'running'
returning t.id
"""

# End, retry and record of an attempt that failed, in one write. The wait is 0.5 to 1.5 times as long as the exponential
# one, and 0.5 to 1 times the longest: what failed together does not come back together.
FAILED: LiteralString = """
failed as (
    update mindia.tasks t
    set status = case when t.cancel_requested then 'cancelled' when e.is_last then 'failed' else 'pending' end
            ::mindia.task_status,
        retry_count = t.retry_count + case when e.is_last or not e.is_counted then 0 else 1 end,
        is_suspect = e.is_suspect,
        completed_at = case when e.is_last or t.cancel_requested then now() end,
        scheduled_for = case when e.is_last then t.scheduled_for else now() + coalesce(
            %(retry_after)s::interval,
            least(
                %(base)s::interval * power(2, least(t.retry_count, 30)) * (0.5 + random()),
                %(cap)s::interval * (1 - random() / 2)
            )
        ) end,
        worker_id = null, error_message = %(error_message)s, progress = null, progress_note = null
    from ended e where t.id = e.id
    returning t.id, t.tenant_id, t.attempt, t.status
), recorded as (
    insert into mindia.task_errors (tenant_id, task_id, attempt, error_type, error_message, traceback)
    select tenant_id, id, attempt, %(error_type)s, %(error_message)s, %(traceback)s from failed
    on conflict on constraint task_errors_pkey do nothing
)
"""

_FAIL: LiteralString = f"""
with ended as materialized (
    select t.id, %(final)s::boolean or t.retry_count >= t.max_retries as is_last, true as is_counted,
           false as is_suspect
    from mindia.tasks t
    where t.id = %(id)s and t.worker_id = %(worker_id)s and t.attempt = %(attempt)s and t.status = 'running'
    for no key update
), {FAILED}
select id, status::text from failed
"""

# It was called off while it ran, and its handler did not look: this is its end.
PUT_BACK: LiteralString = """
status = case when t.cancel_requested then 'cancelled' else 'pending' end::mindia.task_status,
completed_at = case when t.cancel_requested then now() end, worker_id = null, started_at = null,
progress = null, progress_note = null
"""

# Uses up no retry.
_SNOOZE: LiteralString = f"""
update mindia.tasks t set {PUT_BACK}, scheduled_for = now() + %(delay)s::interval
where t.id = %(id)s and t.worker_id = %(worker_id)s and t.attempt = %(attempt)s and t.status = 'running'
returning t.id
"""

# Counted anew rather than down, since it is done twice: of two that end at the same time in two transactions, neither
# sees the end of the other one, so those that tasks wait for are returned. A row that is locked by an open transaction
# is left to the next time, or to the reconciliation.
_RELEASE_DEPENDENTS: LiteralString = """
with recursive lost as (
    select d.task_id, d.depends_on_id from mindia.task_dependencies d
    join mindia.tasks p on p.id = d.depends_on_id
    join mindia.tasks w on w.id = d.task_id
    where d.depends_on_id = any(%(ids)b::uuid[]) and d.on_failure = 'cancel' and p.status in ('failed', 'cancelled')
      and w.status = 'pending' and w.waiting_on > 0
    union
    select d.task_id, d.depends_on_id from lost join mindia.task_dependencies d on d.depends_on_id = lost.task_id
    join mindia.tasks w on w.id = d.task_id
    where d.on_failure = 'cancel' and w.status = 'pending' and w.waiting_on > 0
), called_off as (
    update mindia.tasks t set status = 'cancelled', completed_at = now(),
        error_message = 'the task ' || lost.depends_on_id || ', which it waited for, did not complete'
    from lost where t.id = lost.task_id and t.status = 'pending'
      and t.id in (
        select l.id from mindia.tasks l where l.id in (select task_id from lost) for no key update skip locked
      )
    returning t.id
), ready as (
    update mindia.tasks t set waiting_on = (
        select count(*) from mindia.task_dependencies d join mindia.tasks p on p.id = d.depends_on_id
        where d.task_id = t.id and p.status in ('pending', 'running') and not p.id in (select id from called_off)
    )
    where t.status = 'pending' and t.waiting_on > 0 and t.id in (
        select l.id from mindia.tasks l
        where l.status = 'pending' and l.waiting_on > 0 and l.id in (
            select d.task_id from mindia.task_dependencies d
            where d.depends_on_id = any(%(ids)b::uuid[]) or d.depends_on_id in (select id from called_off)
        ) and l.id not in (select task_id from lost)
        for no key update skip locked
    )
)
select distinct d.depends_on_id from mindia.task_dependencies d join mindia.tasks w on w.id = d.task_id
where d.depends_on_id = any(%(ids)b::uuid[]) and w.status = 'pending' and w.waiting_on > 0
"""

_PROGRESS = """
update mindia.tasks t set progress = coalesce(%(progress)s::real, t.progress),
    progress_note = case when %(progress)s::real is null then t.progress_note else %(note)s end
where t.id = %(id)s and t.worker_id = %(worker_id)s and t.attempt = %(attempt)s and t.status = 'running'
returning t.cancel_requested
"""


@attrs.frozen(kw_only=True)
class Lane:
    """A type with a priority, and the last task that was taken of it."""

    kind: str
    priority: int
    after: datetime
    after_id: UUID


@attrs.frozen(kw_only=True)
class Limits:
    """What may run at once of a type, all workers taken together, and how many begin in a second; None for no limit."""

    max_running: int | None = None
    max_per_tenant: int | None = None
    max_per_second: float | None = None


NO_LIMITS = Limits()


def set_up_round(session: Session, *, is_flushed: bool) -> None:
    """Say how the statements of a round are planned and committed, before the first of them.

    Args:
        session: What they are sent with.
        is_flushed: Whether its commit waits until it is on the disk: always, where it records what cannot be repeated.
    """
    session.set_along(_ROUND, (not is_flushed,))


def claim_lanes(
    *,
    worker_id: UUID,
    kinds: Sequence[str],
    lanes: Sequence[Lane],
    limit: int,
    low_first: bool,
    with_suspects: bool,
) -> Statement[Task]:
    """Return what takes tasks of these types that are due; nobody else gets them. Those of a suspended tenant wait."""
    parameters = {
        "worker_id": worker_id,
        "kinds": list(kinds),
        "mark_kinds": [lane.kind for lane in lanes],
        "mark_priorities": [lane.priority for lane in lanes],
        "mark_times": [lane.after for lane in lanes],
        "mark_ids": [lane.after_id for lane in lanes],
        "limit": limit,
        "low_first": low_first,
        "with_suspects": with_suspects,
    }
    return Statement(_CLAIM_LANES, parameters, claimed)


def claim_tenants(
    *,
    worker_id: UUID,
    kinds: Sequence[str],
    tenants: Sequence[UUID],
    each: int,
    limit: int,
    limits: Limits,
    with_suspects: bool,
) -> Statement[Task]:
    """Return what takes so many tasks of each tenant in turn, within limits of the one type that these are then."""
    parameters = {
        "worker_id": worker_id,
        "kinds": list(kinds),
        "tenants": list(tenants),
        "each": each,
        "limit": limit,
        "max_running": limits.max_running,
        "max_per_tenant": limits.max_per_tenant,
        "rate_of": kinds[0] if limits.max_per_second is not None else None,
        "with_suspects": with_suspects,
    }
    return Statement(_CLAIM_TENANTS, parameters, claimed)


def hold_limits(kind: str, limits: Limits) -> list[Statement[Any]]:
    """Return what goes before taking tasks of a type with limits, in the same transaction."""
    statements: list[Statement[Any]] = [Statement(_LOCK_KIND, (kind,), bool)]
    if limits.max_per_second is not None:
        rate = {"kind": kind, "rate": limits.max_per_second, "burst": max(1.0, limits.max_per_second)}
        statements.append(Statement(_REFILL, rate, bool))
    return statements


def waiting_tenants(*, after: UUID, limit: int) -> Statement[UUID]:
    """Return what reads which tenants have tasks that wait, behind one of them."""
    return Statement(_WAITING_TENANTS, {"after": after, "limit": limit}, _itself)


def complete(*, worker_id: UUID, ends: Sequence[tuple[Task, str | None]]) -> Statement[UUID]:
    """Return what records success, with results as JSON; it returns the tasks that were still this worker's."""
    attempts = [(ended.id, ended.attempt) for ended, _ in ends]
    are_alike = len({attempt for _, attempt in attempts}) == 1
    results = [(ended.id, result) for ended, result in ends if result is not None]
    parameters = {
        "worker_id": worker_id,
        "ids": [ended.id for ended, _ in ends],
        "attempt": ends[0][0].attempt if are_alike else None,
        "attempts": None if are_alike else _object(attempts),
        "has_results": bool(results),
        "results": _object(results) if results else None,
    }
    return Statement(_COMPLETE, parameters, _itself)


def fail(
    *,
    worker_id: UUID,
    ended: Task,
    error_type: str,
    error_message: str,
    traceback: str,
    final: bool,
    retry_after: timedelta | None,
    base: timedelta,
    cap: timedelta,
) -> Statement[tuple[UUID, TaskStatus]]:
    """Return what records a failure, and the retry with it; nothing where the task was taken away from this worker."""
    parameters = {
        "id": ended.id,
        "worker_id": worker_id,
        "attempt": ended.attempt,
        "error_type": error_type,
        "error_message": storable(error_message)[:_MAX_MESSAGE_CHARS],
        "traceback": storable(traceback)[-_MAX_TRACEBACK_CHARS:],
        "final": final,
        "retry_after": retry_after,
        "base": base,
        "cap": cap,
    }
    return Statement(_FAIL, parameters, lambda task_id, status: (task_id, TaskStatus(status)))


def snooze(*, worker_id: UUID, ended: Task, delay: timedelta) -> Statement[UUID]:
    """Return what puts a task off, which uses up no retry."""
    parameters = {"id": ended.id, "worker_id": worker_id, "attempt": ended.attempt, "delay": delay}
    return Statement(_SNOOZE, parameters, _itself)


def release_dependents(ended: Sequence[UUID]) -> Statement[UUID]:
    """Return what lets go the tasks that waited for these, or calls them off where these have failed.

    It returns those that tasks have waited for, or still do: to be done once more after the commit.
    """
    return Statement(_RELEASE_DEPENDENTS, {"ids": list(ended)}, _itself)


def progress(*, worker_id: UUID, running: Task, fraction: float | None, note: str | None) -> Statement[bool]:
    """Return what records how far a task is; it returns whether it is to be cancelled, nothing where it was taken."""
    parameters = {
        "id": running.id,
        "worker_id": worker_id,
        "attempt": running.attempt,
        "progress": fraction,
        "note": None if note is None else storable(note)[:_MAX_MESSAGE_CHARS],
    }
    return Statement(_PROGRESS, parameters, bool)


def _object(values: Iterable[tuple[UUID, object]]) -> str:
    """Return a JSON object of what is JSON already, by ids."""
    return "{" + ",".join(f'"{each}":{value}' for each, value in values) + "}"


def _itself(value: UUID) -> UUID:
    return value
