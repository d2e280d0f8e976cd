"""When a delivery that failed is tried again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.test_webhook_signing import delivery

from mindia import AttemptCause, AttemptOutcome, Settings
from mindia.delivery.schedule import next_wait
from mindia.domain.webhooks import Attempt

SETTINGS = Settings()


def attempt(
    outcome: AttemptOutcome = AttemptOutcome.REJECTED,
    *,
    status: int | None = 500,
    retries: int = 0,
    cause: AttemptCause = AttemptCause.EVENT,
    retry_after: timedelta | None = None,
) -> Attempt:
    return Attempt(
        delivery=attrs.evolve(delivery(), retry_count=retries, cause=cause),
        started_at=datetime.now(UTC),
        duration=timedelta(),
        outcome=outcome,
        status_code=status,
        retry_after=retry_after,
    )


def wait(ended: Attempt, drawn: float = 0.0) -> timedelta | None:
    return next_wait(ended, SETTINGS, drawn=lambda: drawn)


def test_the_waits_are_those_of_standard_webhooks() -> None:
    seconds = [(found := wait(attempt(retries=retries))) and found.total_seconds() for retries in range(10)]

    assert seconds == [5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400, None]


@given(st.floats(min_value=0, max_value=1), st.integers(min_value=0, max_value=8))
def test_up_to_a_fifth_is_added(drawn: float, retries: int) -> None:
    base = SETTINGS.webhook_retry_waits[retries]
    found = wait(attempt(retries=retries), drawn)

    assert found is not None
    assert base <= found <= base * 1.2


@pytest.mark.parametrize(
    "ended",
    [
        attempt(AttemptOutcome.DELIVERED, status=204),
        attempt(status=410),
        attempt(cause=AttemptCause.TEST),
        attempt(cause=AttemptCause.TEST, retry_after=timedelta(seconds=5)),
        attempt(retries=9, retry_after=timedelta(seconds=5)),
    ],
    ids=["delivered", "gone", "a test", "a test that is asked for another", "the last retry"],
)
def test_some_are_not_tried_again(ended: Attempt) -> None:
    assert wait(ended) is None


@pytest.mark.parametrize(
    "ended",
    [attempt(status=429), attempt(status=502), attempt(status=504), attempt(AttemptOutcome.TIMED_OUT, status=None)],
)
def test_who_is_overloaded_is_given_a_minute(ended: Attempt) -> None:
    assert wait(ended) == timedelta(minutes=1)
    assert wait(attrs.evolve(ended, delivery=attrs.evolve(ended.delivery, retry_count=1))) == timedelta(minutes=5)


@pytest.mark.parametrize(
    ("asked", "waited"),
    [(-1, 5), (0, 5), (1, 5), (90, 90), (86_400, 86_400), (10**9, 86_400)],
)
def test_who_asks_for_more_time_is_given_it_up_to_a_day(asked: int, waited: int) -> None:
    assert wait(attempt(retry_after=timedelta(seconds=asked))) == timedelta(seconds=waited)


def test_a_host_may_choose_its_own_waits() -> None:
    settings = Settings(webhook_retry_waits=(timedelta(seconds=1),))

    assert next_wait(attempt(), settings, drawn=lambda: 0) == timedelta(seconds=1)
    assert next_wait(attempt(retries=1), settings) is None
    assert next_wait(attempt(), Settings(webhook_retry_waits=())) is None
