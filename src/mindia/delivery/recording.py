"""What becomes of a delivery after an attempt."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from mindia._ids import uuid7
from mindia.config import Settings
from mindia.db.session import Session
from mindia.delivery.schedule import next_wait
from mindia.domain.events import Event, WebhookDisabled
from mindia.domain.webhooks import Attempt, Recorded
from mindia.repositories import webhook_ends
from mindia.repositories.webhook_ends import Breaker, DisabledEndpoint


def complete(session: Session, attempts: Sequence[Attempt], *, settings: Settings) -> list[Recorded]:
    """Record attempts, schedule what is to be tried again, and tell of endpoints that were disabled for it.

    Args:
        session: Of a transaction across tenants.
        attempts: In the order in which they ended.
        settings: With waits and limits.

    Returns:
        What became of each. What is `busy` is to be handed in again, with later ones.
    """
    if not attempts:
        return []
    ends = webhook_ends.end(
        session,
        attempts,
        [next_wait(attempt, settings) for attempt in attempts],
        breaker=Breaker(disable_after=settings.webhook_disable_after),
    )
    for disabled in ends.disabled:
        webhook_ends.tell(session, _event(disabled))
    return ends.recorded


def _event(disabled: DisabledEndpoint) -> Event:
    return Event(
        id=uuid7(),
        type="webhook.disabled",
        tenant_id=disabled.tenant_id,
        occurred_at=datetime.now(UTC),
        initiated_by=None,
        data=WebhookDisabled(
            webhook_id=disabled.webhook_id,
            webhook_url=disabled.url,
            reason=disabled.reason,
            failing_since=disabled.failing_since,
        ),
    )
