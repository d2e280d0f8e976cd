"""Events, written for every endpoint of the tenant that listens, in the statement that causes them."""

from __future__ import annotations

from typing import LiteralString

from psycopg.types.json import Jsonb

from mindia.domain.events import MediaEvent


def fan_out(source: LiteralString) -> LiteralString:
    """Return the insert that writes each event of `source` for each endpoint that listens.

    `source` has the columns `event_id` and `event`; the parameters are `tenant_id`, `event_type` and `event_patterns`.
    """
    return (
        """
    insert into mindia.webhook_events (tenant_id, webhook_id, event_id, event_type, payload)
    select w.tenant_id, w.id, e.event_id, %(event_type)s, e.event
    from mindia.webhooks w cross join """
        + source
        + """ e
    where w.tenant_id = %(tenant_id)s and w.is_active and w.events && %(event_patterns)s::text[]
    on conflict on constraint webhook_events_event_key do nothing
"""
    )


def type_parameters(event_type: str) -> dict[str, object]:
    """Return the parameters of `fan_out` that events of one type have in common."""
    return {"event_type": event_type, "event_patterns": patterns(event_type)}


def event_parameters(event: MediaEvent) -> dict[str, object]:
    """Return the parameters of `fan_out` for a single event, those of its source included, and who has caused it."""
    return {
        "event_id": event.id,
        "event": payload(event),
        "initiated_by": event.initiated_by,
        **type_parameters(event.type),
    }


def payload(event: MediaEvent) -> Jsonb:
    """Return what receivers are sent."""
    return Jsonb(
        {
            "id": str(event.id),
            "type": event.type,
            "timestamp": event.occurred_at.isoformat(),
            "initiated_by": None if event.initiated_by is None else str(event.initiated_by),
            "data": {
                "media_id": str(event.media_id),
                "kind": event.kind,
                "filename": event.filename,
                "content_type": event.content_type,
                "file_size": event.file_size,
                "sha256": event.sha256,
            },
        }
    )


def patterns(event_type: str) -> list[str]:
    """Return all that an endpoint may have subscribed to and mean this event: the name and its wildcards."""
    parts = event_type.split(".")
    return ["*", *(".".join(parts[:depth]) + ".*" for depth in range(1, len(parts))), event_type]
