"""How attempts to deliver ended, and what follows from that."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, LiteralString
from uuid import UUID

import attrs

from mindia.db.session import Batch, Session, Statement
from mindia.domain.events import Event
from mindia.domain.webhooks import Attempt, AttemptOutcome, Recorded
from mindia.repositories._text import storable
from mindia.repositories.events import event_parameters
from mindia.repositories.webhook_outbox import BREAKER_FAILURES, ignored, keys_of

_MAX_RESPONSE_BYTES = 4096

# The plan is made once a connection, often while there is nothing in the outbox yet, and is used for long: what is
# looked up by its key stays looked up by its key, however small the tables were: in lateral subqueries, or as one of an
# array. A tenant that is compared `is true` offers no other index than that of the key.
_SETTINGS = """
select set_config('jit', 'off', true), set_config('enable_seqscan', 'off', true)
"""

# Rows are looked up by subqueries that return a value: `exists` may be answered by reading the whole table.
_ENDED: LiteralString = """
with ended as materialized (
    select * from unnest(
        %(places)s::int[], %(ids)s::bigint[], %(tenant_ids)s::uuid[], %(tokens)s::uuid[], %(attempt_ids)s::uuid[],
        %(attempts)s::int[], %(causes)s::text[], %(started)s::timestamptz[], %(durations_ms)s::int[],
        %(outcomes)s::text[], %(status_codes)s::int[], %(error_codes)s::text[], %(responses)s::text[],
        %(addresses)s::text[], %(waits)s::interval[]
    ) as r (place, id, tenant_id, token, attempt_id, attempt, cause, started_at, duration_ms, outcome, status_code,
            error_code, response, address, wait)
), held as materialized (
    select r.* from (select * from ended order by id) r cross join lateral (
        select true from mindia.webhook_leases l
        where l.tenant_id = r.tenant_id and l.webhook_event_id = r.id and l.token = r.token
        for update
    ) l
), recorded as materialized (
    select r.*, e.webhook_id, e.event_id, w.is_ordered, w.resumed_at, r.outcome = 'delivered' as is_delivered
    from held r cross join lateral (
        select e.webhook_id, e.event_id from mindia.webhook_events e
        where e.id = r.id and (e.tenant_id = r.tenant_id) is true
        for no key update skip locked
    ) e cross join lateral (
        select w.is_ordered, w.resumed_at from mindia.webhooks w
        where w.id = e.webhook_id and (w.tenant_id = r.tenant_id) is true offset 0
    ) w
), told as (
    update mindia.webhook_events e
    set delivery_status = case when r.is_delivered then 'delivered' when r.wait is null then 'failed' else 'pending'
                          end::mindia.delivery_status,
        attempt_count = r.attempt,
        retry_count = e.retry_count + (not r.is_delivered and r.wait is not null)::int,
        next_attempt_at = case when r.is_ordered then e.next_attempt_at else now() + coalesce(r.wait, '0') end,
        held_until = case when r.is_ordered then now() + r.wait end,
        delivered_at = case when r.is_delivered then now() end
    from recorded r
    where e.id = any(array(select id from recorded)) and e.id = r.id and (e.tenant_id = r.tenant_id) is true
), released as (
    delete from mindia.webhook_leases l using ended r
    where l.tenant_id = r.tenant_id and l.webhook_event_id = r.id and l.token = r.token and (
        r.id in (select id from recorded)
        or (select true from mindia.webhook_events e where e.id = r.id and (e.tenant_id = r.tenant_id) is true) is null
    )
), attempt as (
    insert into mindia.webhook_attempts
        (tenant_id, id, webhook_event_id, webhook_id, attempt, cause, started_at, duration_ms, outcome, status_code,
         error_code, response, address)
    select tenant_id, attempt_id, id, webhook_id, attempt, cause, started_at, duration_ms, outcome, status_code,
           error_code, response, address
    from recorded
), counted as (
    select r.*, max(r.place) filter (where r.is_delivered) over (partition by r.webhook_id) as last_success
    from recorded r
), summed as materialized (
    select c.tenant_id, c.webhook_id, bool_or(c.is_delivered) as has_succeeded, bool_or(c.status_code = 410) as is_gone,
           max(c.resumed_at) as resumed_at,
           count(*) filter (where c.place > coalesce(c.last_success, -1))::int as failures,
           min(c.started_at) filter (where c.place > coalesce(c.last_success, -1)) as failing_since,
           (array_agg(c.event_id order by c.place) filter (where c.place > coalesce(c.last_success, -1)))[1]
               as event_id,
           count(distinct c.event_id) filter (where c.place > coalesce(c.last_success, -1)) > 1 as has_several
    from counted c group by c.tenant_id, c.webhook_id
), begun as (
    select m.*, p.webhook_id is not null and not m.has_succeeded and p.failures_in_row > 0
               and p.updated_at > coalesce(m.resumed_at, '-infinity') as goes_on,
           p.failures_in_row as prior_failures, p.failing_since as prior_since, p.failing_event_id as prior_event_id,
           p.has_failed_others as prior_others, p.times_opened as prior_opened, p.open_until as prior_until
    from (select * from summed order by tenant_id, webhook_id) m left join lateral (
        select s.webhook_id, s.failures_in_row, s.failing_since, s.failing_event_id, s.has_failed_others,
               s.times_opened, s.open_until, s.updated_at
        from mindia.webhook_states s where s.tenant_id = m.tenant_id and s.webhook_id = m.webhook_id
        for no key update
    ) p on true
    where m.failures > 0 or p.failures_in_row > 0
), added as (
    select b.tenant_id, b.webhook_id, b.is_gone, b.resumed_at,
           b.failures + case when b.goes_on then b.prior_failures else 0 end as failures,
           case when b.goes_on then b.prior_since else b.failing_since end as failing_since,
           case when b.goes_on then b.prior_event_id else b.event_id end as event_id,
           b.has_several or (b.goes_on and (b.prior_others or b.prior_event_id is distinct from b.event_id))
               as has_others,
           case when b.goes_on then b.prior_opened else 0 end as times_opened,
           case when b.goes_on then b.prior_until end as open_until
    from begun b
), judged as materialized (
    select a.*, a.failures >= %(breaker)s and (a.open_until is null or a.open_until <= now()) as opens,
           a.is_gone or (a.failures > 0 and a.has_others and a.failing_since <= now() - %(disable_after)s::interval)
               as is_given_up
    from added a
), state as (
    insert into mindia.webhook_states as s
        (tenant_id, webhook_id, failures_in_row, failing_since, failing_event_id, has_failed_others, times_opened,
         open_until, updated_at)
    select j.tenant_id, j.webhook_id, j.failures, j.failing_since, j.event_id, j.has_others,
           j.times_opened + j.opens::int,
           case when j.opens or j.is_given_up  -- until it is disabled, behind this, nobody is to send more
                then now() + least(%(open_cap)s::interval, %(open_base)s::interval * 2 ^ least(j.times_opened, 20))
                else j.open_until end,
           now()
    from judged j order by j.tenant_id, j.webhook_id
    on conflict on constraint webhook_states_pkey do update
        set failures_in_row = excluded.failures_in_row, failing_since = excluded.failing_since,
            failing_event_id = excluded.failing_event_id, has_failed_others = excluded.has_failed_others,
            times_opened = excluded.times_opened, open_until = excluded.open_until, updated_at = excluded.updated_at
)
select r.place, case
           when r.id in (select id from recorded) then 'recorded'
           when r.id in (select id from held)
                and (select true from mindia.webhook_events e where e.id = r.id and (e.tenant_id = r.tenant_id) is true)
               then 'busy'
           when (select true from mindia.webhook_attempts a where a.tenant_id = r.tenant_id and a.id = r.attempt_id)
               then 'recorded'
           else 'lost' end,
       null::uuid, null::uuid, null::text, null::timestamptz, null::timestamptz
from ended r
union all
select null, null, j.tenant_id, j.webhook_id, case when j.is_gone then 'gone' else 'failing' end,
       coalesce(j.failing_since, now()), now()
from judged j where j.is_given_up
"""

_DISABLE: LiteralString = """
with given_up as materialized (
    select w.id from mindia.webhooks w
    where w.tenant_id = %(tenant_id)s and w.id = %(webhook_id)s and w.is_active
      and coalesce(w.resumed_at, '-infinity') <= %(judged_at)s
    for no key update skip locked
)
update mindia.webhooks w
set is_active = false, disabled_at = now(), updated_at = now(), disabled_reason = %(reason)s
where w.tenant_id = %(tenant_id)s and w.id = (select id from given_up)
returning w.url
"""

# As `events.fan_out`, but an endpoint that an open transaction is deleting is left out, and not waited for.
_TELL: LiteralString = """
with listening as materialized (
    select w.id, w.tenant_id from mindia.webhooks w
    where w.tenant_id = %(tenant_id)s and w.events && %(event_patterns)s::text[] for key share of w skip locked
)
insert into mindia.webhook_events (tenant_id, webhook_id, event_id, event_type, payload, body)
select l.tenant_id, l.id, %(event_id)s::uuid, %(event_type)s, %(event)s::jsonb, %(event)s::text from listening l
on conflict on constraint webhook_events_event_key do nothing
"""


@attrs.frozen(kw_only=True)
class Breaker:
    """When an endpoint that fails is left alone.

    Attributes:
        open_base: For how long at first; doubled each time.
        open_cap: For how long at most.
        disable_after: It is disabled once it has failed for so long, with more than one event.
    """

    open_base: timedelta = timedelta(seconds=30)
    open_cap: timedelta = timedelta(hours=1)
    disable_after: timedelta = timedelta(days=5)


@attrs.frozen(kw_only=True)
class FailingEndpoint:
    """An endpoint that is to be disabled because of how its attempts ended.

    Attributes:
        tenant_id: Whose it is.
        webhook_id: Which one.
        reason: `gone`, or `failing`.
        failing_since: When the first of the attempts in a row failed.
        judged_at: When this was found; one that somebody has resumed since is left alone.
    """

    tenant_id: UUID
    webhook_id: UUID
    reason: str
    failing_since: datetime
    judged_at: datetime


@attrs.frozen(kw_only=True)
class Ends:
    """What came of recording attempts.

    Attributes:
        recorded: For each attempt.
        failing: Endpoints that are to be disabled for it.
    """

    recorded: list[Recorded]
    failing: list[FailingEndpoint]


def end(attempts: Sequence[Attempt], waits: Sequence[timedelta | None], *, breaker: Breaker) -> Batch[Ends]:
    """Record how attempts ended, give the deliveries free, and schedule those that are to be tried again.

    It is for a transaction across tenants, and waits for none of the host's: what one holds is `busy`.

    Args:
        attempts: In the order in which they ended.
        waits: For each that failed, how long until it is tried again; None where it is not.
        breaker: When an endpoint is left alone.
    """
    deliveries = [attempt.delivery for attempt in attempts]
    parameters = {
        "places": list(range(len(attempts))),
        **keys_of(deliveries),
        "attempt_ids": [attempt.id for attempt in attempts],
        "attempts": [delivery.attempt for delivery in deliveries],
        "causes": [str(delivery.cause) for delivery in deliveries],
        "started": [attempt.started_at for attempt in attempts],
        "durations_ms": [min(round(attempt.duration / timedelta(milliseconds=1)), 2**31 - 1) for attempt in attempts],
        "outcomes": [str(attempt.outcome) for attempt in attempts],
        "status_codes": [attempt.status_code for attempt in attempts],
        "error_codes": [attempt.error_code for attempt in attempts],
        "responses": [_shortened(attempt.response) for attempt in attempts],
        "addresses": [attempt.address for attempt in attempts],
        "waits": [
            None if attempt.outcome is AttemptOutcome.DELIVERED else wait
            for attempt, wait in zip(attempts, waits, strict=True)
        ],
        "breaker": BREAKER_FAILURES,
        "open_base": breaker.open_base,
        "open_cap": breaker.open_cap,
        "disable_after": breaker.disable_after,
    }

    def result(rows: list[list[Any]]) -> Ends:
        ended: list[_Ended] = rows[1]
        recorded = {row.place: Recorded(row.recorded) for row in ended if row.recorded is not None}
        return Ends(
            recorded=[recorded[place] for place in range(len(attempts))],
            failing=[row.failing() for row in ended if row.recorded is None],
        )

    return Batch([Statement(_SETTINGS, (), ignored), Statement(_ENDED, parameters, _Ended)], result)


def disable(session: Session, endpoint: FailingEndpoint) -> str | None:
    """Disable an endpoint, and return its URL; None where it is not active any more, or a transaction holds it."""
    parameters = {
        "tenant_id": endpoint.tenant_id,
        "webhook_id": endpoint.webhook_id,
        "judged_at": endpoint.judged_at,
        "reason": endpoint.reason,
    }
    return session.one(_DISABLE, parameters, row=str)


def tell(session: Session, event: Event) -> None:
    """Write an event for those of its tenant that listen, without waiting for anybody."""
    session.execute(_TELL, {"tenant_id": event.tenant_id, **event_parameters(event)})


def _shortened(response: str | None) -> str | None:
    if response is None:
        return None
    return storable(response).encode()[:_MAX_RESPONSE_BYTES].decode(errors="ignore")


@attrs.frozen
class _Ended:
    place: int
    recorded: str | None
    tenant_id: UUID
    webhook_id: UUID
    reason: str
    failing_since: datetime
    judged_at: datetime

    def failing(self) -> FailingEndpoint:
        return FailingEndpoint(
            tenant_id=self.tenant_id,
            webhook_id=self.webhook_id,
            reason=self.reason,
            failing_since=self.failing_since,
            judged_at=self.judged_at,
        )
