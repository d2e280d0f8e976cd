"""The outbox: deliveries are claimed with a lease, which can be renewed and given back."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, LiteralString
from uuid import UUID, uuid4

import attrs

from mindia.db.session import Batch, Statement
from mindia.domain.webhooks import AttemptCause, Claim, ClaimedDelivery

_MOST_ENDPOINTS = 300
"""That one claim walks over; the next one goes on behind them."""

BREAKER_FAILURES = 10
"""So many attempts that fail in a row open the breaker of an endpoint."""

# One claim at a time, so that no two count the same deliveries in flight: the second statement sees what the claim
# before has committed. Joins go as they are written, since no statistics tell how few rows there are. The disk is not
# waited for: a server that crashes forgets leases, and what was in flight is sent again, as it is where a worker dies.
_TURN = """
select pg_advisory_xact_lock(7013465862718264931), set_config('jit', 'off', true),
       set_config('enable_seqscan', 'off', true), set_config('join_collapse_limit', '1', true),
       set_config('synchronous_commit', 'off', true)
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
), ready as materialized (
    select p.webhook_id, p.tenant_id, p.max_per_second, p.burst, p.tokens, p.room,
           count(*) over (partition by p.tenant_id) as endpoints
    from listening p
    where p.due_at <= now() and p.room > 0 and (p.open_until is null or p.open_until <= now())
), endpoint as materialized (
    select r.*, ceil(2.0 * %(limit)s / (t.tenants * r.endpoints))::int as share
    from ready r cross join (select count(distinct tenant_id) as tenants from ready) t
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


def claim(*, limit: int, lease: timedelta, after: UUID | None = None) -> Batch[Claim]:
    """Take deliveries that are due, fairly among tenants and endpoints, and never more of one endpoint than may fly.

    It is for a transaction across tenants that has no other statement.

    Args:
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

    def result(rows: list[list[Any]]) -> Claim:
        claimed: list[_Claimed] = rows[1]
        wait_s = claimed[0].wait_s
        return Claim(
            deliveries=[row.delivery(token) for row in claimed if row.id is not None],
            after=claimed[0].after,
            wait=None if wait_s is None else timedelta(seconds=max(0.0, wait_s)),
        )

    return Batch([Statement(_TURN, (), ignored), Statement(_CLAIM, parameters, _Claimed)], result)


def renew(deliveries: Sequence[ClaimedDelivery], *, lease: timedelta) -> Batch[set[int]]:
    """Keep deliveries for longer; the numbers of those that are still this sender's are returned."""
    return Batch([Statement(_RENEW, {**keys_of(deliveries), "lease": lease}, int)], lambda rows: set(rows[0]))


def give_back(deliveries: Sequence[ClaimedDelivery]) -> Batch[None]:
    """Let others have deliveries that were claimed and not sent; it counts as no attempt."""
    return Batch([Statement(_GIVE_BACK, keys_of(deliveries), ignored)], ignored)


def keys_of(deliveries: Sequence[ClaimedDelivery]) -> dict[str, object]:
    """Return the parameters that say which deliveries are meant, and by which claims."""
    return {
        "ids": [delivery.id for delivery in deliveries],
        "tenant_ids": [delivery.tenant_id for delivery in deliveries],
        "tokens": [delivery.token for delivery in deliveries],
    }


def ignored(*_: object) -> None:
    """Take what says nothing."""


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
