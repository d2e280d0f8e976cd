"""What goes to endpoints and what became of it: deliveries, attempts, health."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, LiteralString
from uuid import UUID

from mindia.db.session import Session
from mindia.domain.events import Event
from mindia.domain.media import JsonValue
from mindia.domain.webhooks import (
    AttemptCause,
    AttemptOutcome,
    DeliveryStatus,
    WebhookAttempt,
    WebhookEvent,
    WebhookHealth,
)
from mindia.repositories.events import payload
from mindia.repositories.webhook_outbox import BREAKER_FAILURES
from mindia.repositories.webhooks import WAKE

_MOST_ATTEMPTS = 10_000
"""That health is told from."""

_COLUMNS: LiteralString = """
e.id, e.webhook_id, e.event_id, e.event_type, e.payload, e.delivery_status::text, e.retry_count, e.attempt_count,
greatest(e.next_attempt_at, e.held_until), e.delivered_at, e.created_at
"""

_GET = f"select {_COLUMNS} from mindia.webhook_events e where e.tenant_id = %s and e.id = %s"

_OF_TENANT: LiteralString = f"""
select {_COLUMNS} from mindia.webhook_events e
where e.tenant_id = %(tenant_id)s
  and (%(status)s::mindia.delivery_status is null or e.delivery_status = %(status)s::mindia.delivery_status)
  and (%(before)s::timestamptz is null or (e.created_at, e.id) < (%(before)s::timestamptz, %(before_id)s::bigint))
order by e.created_at desc, e.id desc limit %(limit)s
"""

_OF_WEBHOOK: LiteralString = f"""
select {_COLUMNS} from mindia.webhook_events e
where e.tenant_id = %(tenant_id)s and e.webhook_id = %(webhook_id)s
  and (%(status)s::mindia.delivery_status is null or e.delivery_status = %(status)s::mindia.delivery_status)
  and (%(before)s::uuid is null or e.event_id < %(before)s::uuid)
order by e.event_id desc limit %(limit)s
"""

_ATTEMPT: LiteralString = """
a.id, a.webhook_id, a.webhook_event_id, a.attempt, a.cause, a.started_at, a.duration_ms, a.outcome, a.status_code,
a.error_code, a.response, a.address
"""

_ATTEMPTS = f"""
select {_ATTEMPT} from mindia.webhook_attempts a where a.tenant_id = %s and a.webhook_event_id = %s
order by a.started_at, a.id
"""

_TEST: LiteralString = f"""
with e as (
    insert into mindia.webhook_events as e (tenant_id, webhook_id, event_id, event_type, payload, body)
    select w.tenant_id, w.id, %(event_id)s::uuid, %(event_type)s, %(event)s::jsonb, %(event)s::text
    from mindia.webhooks w where w.tenant_id = %(tenant_id)s and w.id = %(webhook_id)s
    on conflict on constraint webhook_events_event_key do update set event_type = excluded.event_type
    returning e.*
), woken as (select {WAKE} from e)
select {_COLUMNS} from e left join woken on true
"""

_RESEND: LiteralString = f"""
with e as (
    update mindia.webhook_events e
    set delivery_status = 'pending', retry_count = 0, next_attempt_at = now(), held_until = null, delivered_at = null
    where e.tenant_id = %s and e.id = %s
    returning e.*
), woken as (select {WAKE} from e)
select {_COLUMNS} from e left join woken on true
"""

_RECOVER: LiteralString = f"""
with recovered as (
    update mindia.webhook_events e
    set delivery_status = 'pending', retry_count = 0, next_attempt_at = now(), held_until = null
    where e.tenant_id = %(tenant_id)s and e.webhook_id = %(webhook_id)s and e.delivery_status = 'failed'
      and e.created_at >= %(since)s::timestamptz
    returning e.id
), woken as (select {WAKE} from recovered limit 1)
select (select count(*) from recovered)::int from (values (1)) as one (n) left join woken on true
"""

_HEALTH: LiteralString = f"""
with recent as materialized (
    select {_ATTEMPT} from mindia.webhook_attempts a
    where a.tenant_id = %(tenant_id)s and a.webhook_id = %(webhook_id)s and a.started_at >= %(since)s::timestamptz
    order by a.started_at desc limit %(most)s
), told as (
    select count(*)::int as attempts, count(*) filter (where r.outcome = 'delivered')::int as delivered,
           percentile_disc(0.5) within group (order by r.duration_ms) filter (where r.outcome = 'delivered') as p50,
           percentile_disc(0.95) within group (order by r.duration_ms) filter (where r.outcome = 'delivered') as p95,
           max(r.started_at) filter (where r.outcome = 'delivered') as last_success_at
    from recent r
), waiting as (
    select count(*)::int as waiting, min(e.created_at) as oldest from mindia.webhook_events e
    where e.tenant_id = %(tenant_id)s and e.webhook_id = %(webhook_id)s and e.delivery_status = 'pending'
), failed as (
    select count(*)::int as failed from mindia.webhook_events e
    where e.tenant_id = %(tenant_id)s and e.webhook_id = %(webhook_id)s and e.delivery_status = 'failed'
), last_failure as (
    select r.* from recent r where r.outcome <> 'delivered' order by r.started_at desc, r.id desc limit 1
)
select told.*, waiting.*, failed.failed, coalesce(s.failures_in_row, 0),
       case when s.failures_in_row >= %(breaker)s then s.open_until end, last_failure.*
from mindia.webhooks w cross join told cross join waiting cross join failed left join last_failure on true
    left join mindia.webhook_states s on s.tenant_id = w.tenant_id and s.webhook_id = w.id
        and s.updated_at > coalesce(w.resumed_at, '-infinity')
where w.tenant_id = %(tenant_id)s and w.id = %(webhook_id)s
"""

_PRUNE = """
delete from mindia.webhook_events where id = any(array(
    select id from mindia.webhook_events
    where delivery_status <> 'pending' and created_at < now() - %(older_than)s::interval
    order by created_at limit %(limit)s for update skip locked
))
"""

_PRUNE_WAITING = """
delete from mindia.webhook_events where id = any(array(
    select e.id from mindia.webhooks w join mindia.webhook_events e on e.webhook_id = w.id
    where not w.is_active and e.delivery_status = 'pending' and e.next_attempt_at < now() - %(older_than)s::interval
    limit %(limit)s for update of e skip locked
))
"""

_PRUNE_LEASES = "delete from mindia.webhook_leases where leased_until < now() - interval '1 minute'"

_PRUNE_STATES = """
delete from mindia.webhook_states s where not exists (select from mindia.webhooks w where w.id = s.webhook_id)
"""


def get(session: Session, tenant_id: UUID, delivery_id: int) -> WebhookEvent | None:
    """Read a delivery."""
    return session.one(_GET, (tenant_id, delivery_id), row=_delivery)


def page(
    session: Session,
    tenant_id: UUID,
    *,
    webhook_id: UUID | None,
    status: DeliveryStatus | None,
    before: WebhookEvent | None,
    limit: int,
) -> list[WebhookEvent]:
    """Read deliveries, the newest first, from one of them on."""
    parameters: dict[str, object] = {
        "tenant_id": tenant_id,
        "webhook_id": webhook_id,
        "status": status,
        "before_id": None if before is None else before.id,
        "limit": limit,
    }
    if webhook_id is None:
        parameters["before"] = None if before is None else before.created_at
        return session.all(_OF_TENANT, parameters, row=_delivery)
    parameters["before"] = None if before is None else before.event_id
    return session.all(_OF_WEBHOOK, parameters, row=_delivery)


def attempts(session: Session, tenant_id: UUID, delivery_id: int) -> list[WebhookAttempt]:
    """Read the attempts of a delivery, the first one first."""
    return session.all(_ATTEMPTS, (tenant_id, delivery_id), row=_attempt)


def test(session: Session, tenant_id: UUID, webhook_id: UUID, event: Event) -> WebhookEvent | None:
    """Write an event for one endpoint, whatever that has subscribed to; None where it is gone."""
    parameters = {
        "tenant_id": tenant_id,
        "webhook_id": webhook_id,
        "event_id": event.id,
        "event_type": event.type,
        "event": payload(event),
    }
    return session.one(_TEST, parameters, row=_delivery)


def resend(session: Session, tenant_id: UUID, delivery_id: int) -> WebhookEvent | None:
    """Have a delivery sent again, at once and with all its retries; None where it is gone."""
    return session.one(_RESEND, (tenant_id, delivery_id), row=_delivery)


def recover(session: Session, tenant_id: UUID, webhook_id: UUID, *, since: datetime) -> int:
    """Have sent again what was given up on, and return how many that are."""
    parameters = {"tenant_id": tenant_id, "webhook_id": webhook_id, "since": since}
    return session.one(_RECOVER, parameters, row=int) or 0


def health(session: Session, tenant_id: UUID, webhook_id: UUID, *, since: datetime) -> WebhookHealth | None:
    """Read how an endpoint does; None where it is gone."""
    parameters = {
        "tenant_id": tenant_id,
        "webhook_id": webhook_id,
        "since": since,
        "most": _MOST_ATTEMPTS,
        "breaker": BREAKER_FAILURES,
    }

    def made(
        attempts: int,
        delivered: int,
        p50: int | None,
        p95: int | None,
        last_success_at: datetime | None,
        waiting: int,
        oldest: datetime | None,
        failed: int,
        failures_in_row: int,
        open_until: datetime | None,
        *last_failure: Any,
    ) -> WebhookHealth:
        return WebhookHealth(
            webhook_id=webhook_id,
            since=since,
            attempts=attempts,
            delivered=delivered,
            latency_p50=None if p50 is None else timedelta(milliseconds=p50),
            latency_p95=None if p95 is None else timedelta(milliseconds=p95),
            waiting=waiting,
            oldest_waiting_at=oldest,
            failed=failed,
            failures_in_row=failures_in_row,
            open_until=open_until,
            last_success_at=last_success_at,
            last_failure=None if last_failure[0] is None else _attempt(*last_failure),
        )

    return session.one(_HEALTH, parameters, row=made)


def prune(session: Session, *, older_than: timedelta, limit: int) -> int:
    """Delete, of any tenant, events that have ended long ago, or wait as long for endpoints that are not active."""
    parameters = {"older_than": older_than, "limit": limit}
    return session.execute(_PRUNE, parameters) + session.execute(_PRUNE_WAITING, parameters)


def prune_leases(session: Session) -> None:
    """Delete leases that nobody has renewed, and how endpoints did that are gone."""
    session.execute(_PRUNE_LEASES)
    session.execute(_PRUNE_STATES)


def _delivery(
    id: int,  # noqa: A002 - its name
    webhook_id: UUID,
    event_id: UUID,
    event_type: str,
    payload: JsonValue,
    status: str,
    retry_count: int,
    attempt_count: int,
    next_attempt_at: datetime,
    delivered_at: datetime | None,
    created_at: datetime,
) -> WebhookEvent:
    return WebhookEvent(
        id=id,
        webhook_id=webhook_id,
        event_id=event_id,
        event_type=event_type,
        payload=payload,
        delivery_status=DeliveryStatus(status),
        retry_count=retry_count,
        attempt_count=attempt_count,
        next_attempt_at=next_attempt_at,
        delivered_at=delivered_at,
        created_at=created_at,
    )


def _attempt(
    id: UUID,  # noqa: A002 - its name
    webhook_id: UUID,
    delivery_id: int,
    attempt: int,
    cause: str,
    started_at: datetime,
    duration_ms: int,
    outcome: str,
    status_code: int | None,
    error_code: str | None,
    response: str | None,
    address: str | None,
) -> WebhookAttempt:
    return WebhookAttempt(
        id=id,
        webhook_id=webhook_id,
        delivery_id=delivery_id,
        attempt=attempt,
        cause=AttemptCause(cause),
        started_at=started_at,
        duration=timedelta(milliseconds=duration_ms),
        outcome=AttemptOutcome(outcome),
        status_code=status_code,
        error_code=error_code,
        response=response,
        address=address,
    )
