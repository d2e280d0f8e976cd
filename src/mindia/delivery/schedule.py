"""When a delivery that failed is tried again."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta

from mindia.config import Settings
from mindia.domain.webhooks import Attempt, AttemptCause, AttemptOutcome

GONE = 410
_OVERLOADED = {429, 502, 504}
_LEAST_WHEN_OVERLOADED = timedelta(seconds=60)
_MOST_ASKED_FOR = timedelta(hours=24)
_JITTER = 0.2


def next_wait(attempt: Attempt, settings: Settings, *, drawn: Callable[[], float] = random.random) -> timedelta | None:
    """Return how long it is until a delivery is tried again after an attempt; None where it is not.

    Up to a fifth is added to each wait, so that what failed together does not come again together. A receiver that is
    overloaded, or takes too long, is given a minute at least; one that asks for more is given that, up to a day.

    Args:
        attempt: How it ended.
        settings: With the waits.
        drawn: Returns a number from 0 to 1.
    """
    done = attempt.outcome is AttemptOutcome.DELIVERED or attempt.status_code == GONE
    waits = settings.webhook_retry_waits
    retries = attempt.delivery.retry_count
    if done or attempt.delivery.cause is AttemptCause.TEST or retries >= len(waits):
        return None
    wait = waits[retries] * (1 + _JITTER * drawn())
    if attempt.outcome is AttemptOutcome.TIMED_OUT or attempt.status_code in _OVERLOADED:
        wait = max(wait, _LEAST_WHEN_OVERLOADED)
    if attempt.retry_after is not None:
        wait = max(wait, min(attempt.retry_after, _MOST_ASKED_FOR))
    return wait
