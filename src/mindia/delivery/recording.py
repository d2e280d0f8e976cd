"""What becomes of a delivery after an attempt."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial

from mindia._ids import uuid7
from mindia.config import Settings
from mindia.db.session import Batch, Session
from mindia.db.units import Unit
from mindia.delivery.schedule import next_wait
from mindia.domain.events import Event, WebhookDisabled
from mindia.domain.webhooks import Attempt
from mindia.repositories import webhook_ends
from mindia.repositories.webhook_ends import Breaker, Ends, FailingEndpoint


def ends_of(attempts: Sequence[Attempt], *, settings: Settings) -> Batch[Ends]:
    """Record attempts, and schedule what is to be tried again. Endpoints that it names are for `give_up`.

    Args:
        attempts: In the order in which they ended.
        settings: With waits and limits.
    """
    return webhook_ends.end(
        attempts,
        [next_wait(attempt, settings) for attempt in attempts],
        breaker=Breaker(disable_after=settings.webhook_disable_after),
    )


def give_up(unit: Unit, failing: Sequence[FailingEndpoint]) -> None:
    """Disable endpoints, and tell their tenants. One that this does not come to is named again when it next fails.

    Args:
        unit: Across tenants.
        failing: What `ends_of` has named.
    """
    for endpoint in failing:
        unit.run(partial(_disable, endpoint=endpoint))


def _disable(session: Session, endpoint: FailingEndpoint) -> None:
    url = webhook_ends.disable(session, endpoint)
    if url is not None:
        webhook_ends.tell(session, _event(endpoint, url))


def _event(endpoint: FailingEndpoint, url: str) -> Event:
    return Event(
        id=uuid7(),
        type="webhook.disabled",
        tenant_id=endpoint.tenant_id,
        occurred_at=datetime.now(UTC),
        initiated_by=None,
        data=WebhookDisabled(
            webhook_id=endpoint.webhook_id,
            webhook_url=url,
            reason=endpoint.reason,
            failing_since=endpoint.failing_since,
        ),
    )
