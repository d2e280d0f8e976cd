"""The outbox: deliveries are claimed with a lease, and how attempts ended is recorded."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, LiteralString
from uuid import UUID, uuid4

import attrs

from mindia.db.session import Session, Statement
from mindia.domain.webhooks import Attempt, AttemptCause, AttemptOutcome, Claim, ClaimedDelivery, Recorded
from mindia.repositories._text import storable

_MOST_ENDPOINTS = 500
"""That one claim walks over; the next one goes on behind them."""

_MAX_RESPONSE_BYTES = 4096

BREAKER_FAILURES = 10
"""So many attempts that fail in a row open the breaker of an endpoint."""

# One claim at a time, so that no two count the same deliveries in flight: the second statement sees what the claim
# before has committed. Joins go as they are written, since no statistics tell how few rows there are.
_TURN = """
select pg_advisory_xact_lock(7013465862718264931), set_config('jit', 'off', true),
       set_config('enable_seqscan', 'off', true), set_config('join_collapse_limit', '1', true)
"""

# The walk goes from one endpoint that has something pending to the next, along the index: neither over all that are
# registered, nor over the backlog. Of a tenant the first delivery of each endpoint goes before the second of any; of
# all tenants likewise. Who is first among equals is drawn anew for each claim. Where there is an order, what is to be
# tried again keeps its place, and is held.
_CLAIM: LiteralString = """
with recursive ring as (
    (
        select e.webhook_id, greatest(e.next_attempt_at, e.held_until) as due_at, 1 as place
        from mindia.webhook_events e
        where e.delivery_status = 'pending' and e.webhook_id > %(after)s::uuid
        order by e.webhook_id, e.next_attempt_at, e.id limit 1
    )
    union all
    select e.webhook_id, e.due_at, ring.place + 1
    from ring cross join lateral (
        select e.webhook_id, greatest(e.next_attempt_at, e.held_until) as due_at from mindia.webhook_events e
        where e.delivery_status = 'pending' and e.webhook_id > ring.webhook_id
        order by e.webhook_id, e.next_attempt_at, e.id limit 1
    ) e
    where ring.place < %(most)s
), flying as materialized (
    select l.webhook_id, count(*)::int as in_flight from mindia.webhook_leases l where l.leased_until > now()
    group by l.webhook_id
), listening as materialized (
    select w.webhook_id, w.tenant_id, w.max_per_second, w.burst, s.tokens, s.open_until, ring.due_at, least(
        case when w.is_ordered or s.is_probed then 1 else w.max_in_flight end - coalesce(f.in_flight, 0),
        case when w.max_per_second is not null then floor(coalesce(s.tokens, w.burst))::int end
    ) as room
    from ring left join flying f on f.webhook_id = ring.webhook_id
    cross join lateral (
        select w.id as webhook_id, w.tenant_id, w.is_ordered, w.max_in_flight, w.max_per_second, w.resumed_at,
               greatest(1, w.max_per_second / 10) as burst
        from mindia.webhooks w where w.id = ring.webhook_id and w.is_active offset 0
    ) w
    cross join lateral (
        select true from mindia.tenants t where t.id = w.tenant_id and t.status = 'active' offset 0
    ) t
    left join lateral (
        select case when s.updated_at > coalesce(w.resumed_at, '-infinity') then s.open_until end as open_until,
               s.failures_in_row >= %(breaker)s and s.updated_at > coalesce(w.resumed_at, '-infinity') as is_probed,
               least(w.burst, s.tokens + greatest(0, extract(epoch from now() - s.tokens_at)) * w.max_per_second)
                   as tokens
        from mindia.webhook_states s where s.tenant_id = w.tenant_id and s.webhook_id = w.webhook_id offset 0
    ) s on true
), endpoint as materialized (
    select p.webhook_id, p.tenant_id, p.max_per_second, p.burst, p.tokens, p.room,
           ceil(4.0 * %(limit)s / count(*) over ())::int as share
    from listening p
    where p.due_at <= now() and p.room > 0 and (p.open_until is null or p.open_until <= now())
), candidate as materialized (
    select p.webhook_id, p.tenant_id, e.id, e.place, e.place = p.share and p.share < p.room as is_cut_off,
           case when p.max_per_second is not null then coalesce(p.tokens, p.burst) end as tokens
    from endpoint p cross join lateral (
        select e.id, row_number() over (order by e.next_attempt_at, e.id) as place from mindia.webhook_events e
        where e.webhook_id = p.webhook_id and e.delivery_status = 'pending' and e.next_attempt_at <= now()
          and (e.held_until is null or e.held_until <= now())
          and not exists (
              select from mindia.webhook_leases l
              where l.tenant_id = e.tenant_id and l.webhook_event_id = e.id and l.leased_until > now()
          )
        order by e.next_attempt_at, e.id limit least(p.room, p.share)
    ) e
), ranked as (
    select c.*, row_number() over (
        partition by c.tenant_id order by c.place, uuid_hash_extended(c.webhook_id, %(seed)s)
    ) as turn
    from candidate c
), chosen as materialized (
    select r.* from ranked r order by r.turn, uuid_hash_extended(r.tenant_id, %(seed)s) limit %(limit)s
), leased as (
    insert into mindia.webhook_leases as l (tenant_id, webhook_event_id, webhook_id, token, leased_until)
    select c.tenant_id, c.id, c.webhook_id, %(token)s::uuid, now() + %(lease)s::interval from chosen c
    on conflict on constraint webhook_leases_pkey do update
        set token = excluded.token, leased_until = excluded.leased_until where l.leased_until <= now()
    returning l.webhook_event_id, l.webhook_id
), rated as (
    insert into mindia.webhook_states as s (tenant_id, webhook_id, tokens, tokens_at)
    select c.tenant_id, c.webhook_id, max(c.tokens) - count(*), now() from chosen c where c.tokens is not null
    group by c.tenant_id, c.webhook_id order by c.tenant_id, c.webhook_id
    on conflict on constraint webhook_states_pkey do update set tokens = excluded.tokens, tokens_at = excluded.tokens_at
), waiting as (
    select min(greatest(p.due_at, p.open_until, case when p.tokens < 1 then now() + make_interval(
        secs => (greatest(1, p.burst / 2) - p.tokens) / p.max_per_second
    ) end)) as due_at
    from listening p where p.due_at > now() or p.open_until > now() or p.tokens < 1
), walk as (
    select (select webhook_id from ring where place = %(most)s) as after, case
        when (select count(*) from chosen) < %(limit)s and (
            exists (select from candidate where is_cut_off) or exists (select from ring where place = %(most)s)
        ) then 0
        else extract(epoch from (select due_at from waiting) - now())
    end::float8 as wait_s
)
select walk.after, walk.wait_s, d.*
from walk left join (
    select e.id, w.tenant_id, w.id as webhook_id, e.event_id, e.event_type, w.url, e.body, w.signing_secret,
           w.previous_secret, e.attempt_count, e.retry_count
    from leased l cross join lateral (
        select w.id, w.tenant_id, w.url, w.signing_secret,
               case when w.previous_secret_until > now() then w.previous_secret end as previous_secret
        from mindia.webhooks w where w.id = l.webhook_id offset 0
    ) w cross join lateral (
        select e.id, e.event_id, e.event_type, coalesce(e.body, e.payload::text) as body, e.attempt_count, e.retry_count
        from mindia.webhook_events e where e.id = l.webhook_event_id offset 0
    ) e
) d on true
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
    select l.webhook_event_id as id from mindia.webhook_leases l join ended r
        on l.tenant_id = r.tenant_id and l.webhook_event_id = r.id and l.token = r.token
    for update of l
), free as materialized (
    select e.id, e.webhook_id, e.event_id, w.is_ordered, w.resumed_at
    from mindia.webhook_events e join ended r on e.tenant_id = r.tenant_id and e.id = r.id
        join mindia.webhooks w on w.tenant_id = e.tenant_id and w.id = e.webhook_id
    where e.id in (select id from held)
    order by e.id for no key update of e skip locked
), recorded as materialized (
    select r.*, f.webhook_id, f.event_id, f.is_ordered, f.resumed_at, r.outcome = 'delivered' as is_delivered
    from ended r join free f on f.id = r.id
), told as (
    update mindia.webhook_events e
    set delivery_status = case when r.is_delivered then 'delivered' when r.wait is null then 'failed' else 'pending'
                          end::mindia.delivery_status,
        attempt_count = r.attempt,
        retry_count = e.retry_count + (not r.is_delivered and r.wait is not null)::int,
        next_attempt_at = case when r.is_ordered then e.next_attempt_at else now() + coalesce(r.wait, '0') end,
        held_until = case when r.is_ordered then now() + r.wait end,
        delivered_at = case when r.is_delivered then now() end
    from recorded r where e.tenant_id = r.tenant_id and e.id = r.id
), released as (
    delete from mindia.webhook_leases l using ended r
    where l.tenant_id = r.tenant_id and l.webhook_event_id = r.id and l.token = r.token and (
        r.id in (select id from recorded)
        or (select true from mindia.webhook_events e where e.tenant_id = r.tenant_id and e.id = r.id) is null
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
), prior as materialized (
    select s.webhook_id, s.failures_in_row, s.failing_since, s.failing_event_id, s.has_failed_others, s.times_opened,
           s.open_until, s.updated_at
    from mindia.webhook_states s join summed m on s.tenant_id = m.tenant_id and s.webhook_id = m.webhook_id
    order by s.tenant_id, s.webhook_id for no key update of s
), begun as (
    select m.*, p.webhook_id is not null and not m.has_succeeded and p.failures_in_row > 0
               and p.updated_at > coalesce(m.resumed_at, '-infinity') as goes_on,
           p.failures_in_row as prior_failures, p.failing_since as prior_since, p.failing_event_id as prior_event_id,
           p.has_failed_others as prior_others, p.times_opened as prior_opened, p.open_until as prior_until
    from summed m left join prior p on p.webhook_id = m.webhook_id
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
           case when j.opens
                then now() + least(%(open_cap)s::interval, %(open_base)s::interval * 2 ^ least(j.times_opened, 20))
                else j.open_until end,
           now()
    from judged j order by j.tenant_id, j.webhook_id
    on conflict on constraint webhook_states_pkey do update
        set failures_in_row = excluded.failures_in_row, failing_since = excluded.failing_since,
            failing_event_id = excluded.failing_event_id, has_failed_others = excluded.has_failed_others,
            times_opened = excluded.times_opened, open_until = excluded.open_until, updated_at = excluded.updated_at
), given_up as materialized (
    select w.id, j.is_gone, j.failing_since
    from mindia.webhooks w join judged j on w.tenant_id = j.tenant_id and w.id = j.webhook_id
    where j.is_given_up and w.is_active order by w.id for no key update of w skip locked
), disabled as (
    update mindia.webhooks w
    set is_active = false, disabled_at = now(), updated_at = now(),
        disabled_reason = case when g.is_gone then 'gone' else 'failing' end
    from given_up g where w.id = g.id
    returning w.tenant_id, w.id, w.url, w.disabled_reason, coalesce(g.failing_since, now()) as failing_since
)
select r.place, case
           when r.id in (select id from recorded) then 'recorded'
           when r.id in (select id from held)
                and (select true from mindia.webhook_events e where e.tenant_id = r.tenant_id and e.id = r.id)
               then 'busy'
           when (select true from mindia.webhook_attempts a where a.tenant_id = r.tenant_id and a.id = r.attempt_id)
               then 'recorded'
           else 'lost' end,
       null::uuid, null::uuid, null::text, null::text, null::timestamptz
from ended r
union all
select null, null, d.tenant_id, d.id, d.url, d.disabled_reason, d.failing_since from disabled d
"""

_RENEW = """
update mindia.webhook_leases l set leased_until = now() + %(lease)s::interval
from unnest(%(tenant_ids)s::uuid[], %(ids)s::bigint[], %(tokens)s::uuid[]) as r (tenant_id, id, token)
where l.tenant_id = r.tenant_id and l.webhook_event_id = r.id and l.token = r.token and l.leased_until > now()
returning l.webhook_event_id
"""

_GIVE_BACK = """
delete from mindia.webhook_leases l
using (
    select * from unnest(%(tenant_ids)s::uuid[], %(ids)s::bigint[], %(tokens)s::uuid[]) as u (tenant_id, id, token)
) r
where l.tenant_id = r.tenant_id and l.webhook_event_id = r.id and l.token = r.token
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
class DisabledEndpoint:
    """An endpoint that was disabled because of how its attempts ended."""

    tenant_id: UUID
    webhook_id: UUID
    url: str
    reason: str
    failing_since: datetime


@attrs.frozen(kw_only=True)
class Ends:
    """What came of recording attempts.

    Attributes:
        recorded: For each attempt.
        disabled: Endpoints that were disabled for it.
    """

    recorded: list[Recorded]
    disabled: list[DisabledEndpoint]


def claim(session: Session, *, limit: int, lease: timedelta, after: UUID | None = None) -> Claim:
    """Take deliveries that are due, fairly among tenants and endpoints, and never more of one endpoint than may fly.

    Args:
        session: Of a transaction across tenants that has no other statement.
        limit: How many, at most.
        lease: For how long they are not given to anybody else, unless it is renewed.
        after: What the claim before has told.
    """
    token = uuid4()
    parameters = {
        "limit": limit,
        "lease": lease,
        "after": UUID(int=0) if after is None else after,
        "token": token,
        "most": _MOST_ENDPOINTS,
        "breaker": BREAKER_FAILURES,
        "seed": secrets.randbits(63),
    }
    statements: list[Statement[Any]] = [Statement(_TURN, (), _ignored), Statement(_CLAIM, parameters, _Claimed)]
    rows: list[_Claimed] = session.batch(statements)[1]
    deliveries = [row.delivery(token) for row in rows if row.id is not None]
    wait_s = rows[0].wait_s
    return Claim(
        deliveries=deliveries,
        after=rows[0].after,
        wait=None if wait_s is None else timedelta(seconds=max(0.0, wait_s)),
    )


def end(session: Session, attempts: Sequence[Attempt], waits: Sequence[timedelta | None], *, breaker: Breaker) -> Ends:
    """Record how attempts ended, give the deliveries free, and schedule those that are to be tried again.

    It waits for no transaction of the host's: what one holds is `busy`.

    Args:
        session: Of a transaction across tenants.
        attempts: In the order in which they ended.
        waits: For each that failed, how long until it is tried again; None where it is not.
        breaker: When an endpoint is left alone.
    """
    deliveries = [attempt.delivery for attempt in attempts]
    parameters = {
        "places": list(range(len(attempts))),
        **_keys(deliveries),
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
    rows = session.all(_ENDED, parameters, row=_Ended)
    recorded = {row.place: Recorded(row.recorded) for row in rows if row.recorded is not None}
    return Ends(
        recorded=[recorded[place] for place in range(len(attempts))],
        disabled=[row.disabled() for row in rows if row.recorded is None],
    )


def renew(session: Session, deliveries: Sequence[ClaimedDelivery], *, lease: timedelta) -> set[int]:
    """Keep deliveries for longer, and return the numbers of those that are still this sender's."""
    return set(session.all(_RENEW, {**_keys(deliveries), "lease": lease}, row=int))


def give_back(session: Session, deliveries: Sequence[ClaimedDelivery]) -> None:
    """Let others have deliveries that were claimed and not sent; it counts as no attempt."""
    session.execute(_GIVE_BACK, _keys(deliveries))


def _keys(deliveries: Sequence[ClaimedDelivery]) -> dict[str, object]:
    return {
        "ids": [delivery.id for delivery in deliveries],
        "tenant_ids": [delivery.tenant_id for delivery in deliveries],
        "tokens": [delivery.token for delivery in deliveries],
    }


def _shortened(response: str | None) -> str | None:
    if response is None:
        return None
    return storable(response).encode()[:_MAX_RESPONSE_BYTES].decode(errors="ignore")


def _ignored(*_: object) -> None:
    return None


@attrs.frozen
class _Claimed:
    after: UUID | None
    wait_s: float | None
    id: int | None
    tenant_id: UUID
    webhook_id: UUID
    event_id: UUID
    event_type: str
    url: str
    body: str
    signing_secret: str | None
    previous_secret: str | None
    attempt_count: int
    retry_count: int

    def delivery(self, token: UUID) -> ClaimedDelivery:
        assert self.id is not None
        return ClaimedDelivery(
            id=self.id,
            tenant_id=self.tenant_id,
            webhook_id=self.webhook_id,
            event_id=self.event_id,
            event_type=self.event_type,
            url=self.url,
            body=self.body.encode(),
            sealed_secrets=tuple(filter(None, (self.signing_secret, self.previous_secret))),
            attempt=self.attempt_count + 1,
            retry_count=self.retry_count,
            cause=self._cause(),
            token=token,
        )

    def _cause(self) -> AttemptCause:
        if self.event_type == "webhook.test":
            return AttemptCause.TEST
        if self.retry_count:
            return AttemptCause.RETRY
        return AttemptCause.RESEND if self.attempt_count else AttemptCause.EVENT


@attrs.frozen
class _Ended:
    place: int
    recorded: str | None
    tenant_id: UUID
    webhook_id: UUID
    url: str
    reason: str
    failing_since: datetime

    def disabled(self) -> DisabledEndpoint:
        return DisabledEndpoint(
            tenant_id=self.tenant_id,
            webhook_id=self.webhook_id,
            url=self.url,
            reason=self.reason,
            failing_since=self.failing_since,
        )
