"""Events, written for every endpoint of the tenant that listens, in the statement that causes them."""

from __future__ import annotations

import json
from typing import LiteralString
from uuid import UUID

from mindia.db.session import Session
from mindia.domain.events import Event

_to_json = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode


def fan_out(source: LiteralString, *, url: LiteralString = "%(event_url)s::text") -> LiteralString:
    """Return the insert that writes each event of `source` for each endpoint that listens, and wakes who sends them.

    `source`, which is called `e`, has the columns `event_id` and `event`, the text that is sent; `url` is that of the
    item, if there is one. The parameters are `tenant_id`, `event_type`, `event_patterns` and, where `url` is not a
    column, `event_url`. Events for endpoints that are not active wait for them.
    """
    # The text ends with the end of `data` and that of the event: a URL is put between the two, where one is wanted.
    # A commit that notifies takes a lock that all of them share: so only where somebody waits.
    return (
        """
    insert into mindia.webhook_events (tenant_id, webhook_id, event_id, event_type, payload, body)
    select w.tenant_id, w.id, e.event_id, %(event_type)s, b.body::jsonb, b.body
    from mindia.webhooks w cross join """
        + source
        + """ e cross join lateral (
        select case when w.includes_url and u.url is not null
                    then left(e.event, -2) || ',"url":' || to_json(u.url)::text || '}}'
                    else e.event end as body
        from (values ("""
        + url
        + """)) u (url)
    ) b
    where w.tenant_id = %(tenant_id)s and w.events && %(event_patterns)s::text[]
    on conflict on constraint webhook_events_event_key do nothing
    returning case when exists (select from mindia.workers where awaits_events)
                   then pg_notify('mindia_webhooks', '')::text end
"""
    )


_EMIT: LiteralString = f"""
with event as (
    select %(event_id)s::uuid as event_id, %(event)s::text as event
), events as ({fan_out("event")})
select count(*)::int from events
"""


def emit(session: Session, tenant_id: UUID, event: Event) -> int:
    """Write an event for each endpoint of a tenant that listens, and return how many there are."""
    return session.one(_EMIT, {"tenant_id": tenant_id, **event_parameters(event)}, row=int) or 0


def type_parameters(event_type: str, *, url: str | None = None) -> dict[str, object]:
    """Return the parameters of `fan_out` that events of one type have in common."""
    return {"event_type": event_type, "event_patterns": patterns(event_type), "event_url": url}


def event_parameters(event: Event) -> dict[str, object]:
    """Return the parameters of `fan_out` for a single event, those of its source included, and who has caused it."""
    return {
        "event_id": event.id,
        "event": payload(event),
        "initiated_by": event.initiated_by,
        **type_parameters(event.type, url=event.url),
    }


def payload(event: Event) -> str:
    """Return what receivers are sent: the very text that is signed."""
    return _to_json(event.envelope())


def patterns(event_type: str) -> list[str]:
    """Return all that an endpoint may have subscribed to and mean this event: the name and its wildcards."""
    parts = event_type.split(".")
    return ["*", *(".".join(parts[:depth]) + ".*" for depth in range(1, len(parts))), event_type]
