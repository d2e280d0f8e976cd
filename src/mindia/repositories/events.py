"""Events, written for every endpoint of the tenant that listens, in the statement that causes them."""

from __future__ import annotations

from typing import LiteralString

import attrs
from psycopg.types.json import Jsonb

from mindia.domain.events import MediaEvent


def fan_out(source: LiteralString) -> LiteralString:
    """Return the insert that writes an event for each endpoint that listens, where `source` has a row.

    Its parameters are those of `event_parameters`, and `tenant_id`.
    """
    return (
        """
    insert into mindia.webhook_events (tenant_id, webhook_id, event_id, event_type, payload)
    select w.tenant_id, w.id, %(event_id)s::uuid, %(event_type)s, %(event)s::jsonb
    from mindia.webhooks w
    where w.tenant_id = %(tenant_id)s and w.is_active and w.events && %(event_patterns)s::text[]
      and exists (select from """
        + source
        + """)
    on conflict on constraint webhook_events_event_key do nothing
"""
    )


def event_parameters(event: MediaEvent) -> dict[str, object]:
    """Return the parameters of `fan_out`."""
    data = attrs.asdict(event, filter=lambda attribute, _: attribute.name not in ("id", "type", "occurred_at"))
    return {
        "event_id": event.id,
        "event_type": event.type,
        "event": Jsonb(
            {
                "id": str(event.id),
                "type": event.type,
                "timestamp": event.occurred_at.isoformat(),
                "data": data | {"media_id": str(event.media_id)},
            }
        ),
        "event_patterns": patterns(event.type),
    }


def patterns(event_type: str) -> list[str]:
    """Return all that an endpoint may have subscribed to and mean this event: the name and its wildcards."""
    parts = event_type.split(".")
    return ["*", *(".".join(parts[:depth]) + ".*" for depth in range(1, len(parts))), event_type]
