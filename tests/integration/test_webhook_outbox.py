"""Who is sent to when: claims are fair and keep to all limits, and what ended is recorded once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import attrs
import psycopg
import pytest
from tests.conftest import Roles
from tests.integration.library_calls import SETTINGS
from tests.integration.outbox_rows import Outbox

import mindia
from mindia import AttemptCause, AttemptOutcome, MemoryStorage, Mindia, Settings, Tenant
from mindia.db.session import ACROSS_TENANTS
from mindia.db.units import OwnTransaction
from mindia.delivery.recording import ends_of, give_up
from mindia.domain.webhooks import Attempt, Claim, ClaimedDelivery, Recorded
from mindia.repositories import webhook_outbox
from mindia.repositories.webhook_ends import Ends

Owner = psycopg.Connection[tuple[Any, ...]]

LEASE = timedelta(seconds=60)


@attrs.frozen
class Sender:
    """Claims and records as a worker does, without sending anything."""

    app: Mindia

    def claim(self, limit: int = 64, *, lease: timedelta = LEASE, after: UUID | None = None) -> Claim:
        with self.app._database.transaction(ACROSS_TENANTS, single=True) as session:
            return session.ask(webhook_outbox.claim(limit=limit, lease=lease, after=after))

    def end(
        self,
        deliveries: Sequence[ClaimedDelivery],
        status: int | None = 200,
        *,
        retry_after: timedelta | None = None,
        started_at: datetime | None = None,
    ) -> list[Recorded]:
        return self.record([ended(each, status, retry_after=retry_after, started_at=started_at) for each in deliveries])

    def record(self, attempts: Sequence[Attempt], *, settings: Settings | None = None) -> list[Recorded]:
        ends = self.record_alone(attempts, settings=settings)
        give_up(OwnTransaction(self.app._database, ACROSS_TENANTS), ends.failing)
        return ends.recorded

    def record_alone(self, attempts: Sequence[Attempt], *, settings: Settings | None = None) -> Ends:
        """Record, and go no further."""
        batch = ends_of(attempts, settings=settings or self.app.settings)
        return OwnTransaction(self.app._database, ACROSS_TENANTS).run(lambda session: session.ask(batch), single=True)

    def renew(self, deliveries: Sequence[ClaimedDelivery]) -> set[int]:
        with self.app._database.transaction(ACROSS_TENANTS) as session:
            return session.ask(webhook_outbox.renew(deliveries, lease=LEASE))

    def give_back(self, deliveries: Sequence[ClaimedDelivery]) -> None:
        with self.app._database.transaction(ACROSS_TENANTS) as session:
            session.ask(webhook_outbox.give_back(deliveries))


def ended(
    delivery: ClaimedDelivery,
    status: int | None = 200,
    *,
    retry_after: timedelta | None = None,
    started_at: datetime | None = None,
) -> Attempt:
    outcome = AttemptOutcome.DELIVERED if status == 200 else AttemptOutcome.REJECTED
    return Attempt(
        delivery=delivery,
        started_at=started_at or datetime.now(UTC),
        duration=timedelta(milliseconds=20),
        outcome=outcome if status else AttemptOutcome.TIMED_OUT,
        status_code=status,
        error_code=None if status else "timeout",
        response="a\0b",
        address="203.0.113.7",
        retry_after=retry_after,
    )


@pytest.fixture
def owner(_queue_owner_url: str) -> Iterator[Owner]:
    """A connection of the owner's to a database of this module's, in which nothing waits."""
    with psycopg.connect(_queue_owner_url, autocommit=True) as connection:
        connection.execute("delete from mindia.webhooks")
        connection.execute("delete from mindia.webhook_leases")
        connection.execute("delete from mindia.webhook_states")
        yield connection


@pytest.fixture
def app(_queue_owner_url: str, owner: Owner, roles: Roles) -> Iterator[Mindia]:  # noqa: ARG001 - nothing waits
    url = psycopg.conninfo.make_conninfo(_queue_owner_url, user=roles.application)
    settings = attrs.evolve(SETTINGS, worker_role=roles.worker)
    with mindia.connect(url, storage=MemoryStorage(), settings=settings) as app:
        yield app


@pytest.fixture
def tenant(app: Mindia) -> Tenant:
    return app.tenants.create("Acme")


@pytest.fixture
def outbox(owner: Owner) -> Outbox:
    return Outbox(owner, SETTINGS)


@pytest.fixture
def sender(app: Mindia) -> Sender:
    return Sender(app)


@pytest.fixture
def endpoint(outbox: Outbox, tenant: Tenant) -> UUID:
    return outbox.endpoint(tenant.id, "https://example.org/")


def later(owner: Owner, by: timedelta) -> None:
    """Let time have passed for what waits, and for what is held against endpoints."""
    owner.execute(
        "update mindia.webhook_events set next_attempt_at = next_attempt_at - %s, held_until = held_until - %s",
        (by, by),
    )
    owner.execute("update mindia.webhook_leases set leased_until = leased_until - %s", (by,))
    owner.execute(
        "update mindia.webhook_states set open_until = open_until - %(by)s, tokens_at = tokens_at - %(by)s, "
        "failing_since = failing_since - %(by)s",
        {"by": by},
    )


def test_a_claim_has_all_that_sending_takes(sender: Sender, outbox: Outbox, tenant: Tenant, endpoint: UUID) -> None:
    outbox.emit(endpoint)

    (delivery,) = sender.claim().deliveries

    assert (delivery.tenant_id, delivery.webhook_id, delivery.url) == (tenant.id, endpoint, "https://example.org/")
    assert delivery.body == b'{"id":"1","type":"image.uploaded","data":{"b":1,"a":2}}'
    assert (delivery.attempt, delivery.retry_count, delivery.cause) == (1, 0, AttemptCause.EVENT)
    assert len(delivery.sealed_secrets) == 1
    assert "secret" not in repr(delivery).replace("sealed_secrets", "")


def test_nobody_else_is_given_what_is_claimed_until_the_lease_has_ended(
    sender: Sender, outbox: Outbox, owner: Owner, endpoint: UUID
) -> None:
    outbox.emit(endpoint, 3)
    first = sender.claim().deliveries
    assert len(first) == 3
    assert sender.claim() == Claim(deliveries=[], after=None, wait=None)

    later(owner, LEASE)
    again = sender.claim().deliveries

    assert {each.id for each in again} == {each.id for each in first}
    assert sender.renew(first) == set()
    assert sender.end(first) == [Recorded.LOST] * 3
    assert outbox.statuses() == {"pending": 3}
    assert sender.renew(again) == {each.id for each in again}
    assert sender.end(again) == [Recorded.RECORDED] * 3
    assert outbox.statuses() == {"delivered": 3}


def test_what_is_given_back_is_due_at_once_and_counts_as_no_attempt(
    sender: Sender, outbox: Outbox, endpoint: UUID
) -> None:
    outbox.emit(endpoint)
    (delivery,) = sender.claim().deliveries

    sender.give_back([delivery])

    (again,) = sender.claim().deliveries
    assert (again.attempt, again.cause) == (1, AttemptCause.EVENT)
    assert sender.end([delivery]) == [Recorded.LOST]


def test_recording_again_what_was_recorded_changes_nothing(sender: Sender, outbox: Outbox, endpoint: UUID) -> None:
    outbox.emit(endpoint)
    attempt = ended(sender.claim().deliveries[0], 500)

    assert [sender.record([attempt]), sender.record([attempt])] == [[Recorded.RECORDED]] * 2
    assert outbox.attempts() == [(1, "event", "rejected", 500, None)]


def test_a_failure_is_tried_again_when_its_time_has_come(
    sender: Sender, outbox: Outbox, owner: Owner, endpoint: UUID
) -> None:
    outbox.emit(endpoint)
    sender.end(sender.claim().deliveries, 500)

    claim = sender.claim()
    assert claim.deliveries == []
    assert claim.wait is not None
    assert timedelta(seconds=4) < claim.wait <= timedelta(seconds=6)
    later(owner, timedelta(seconds=6))
    (again,) = sender.claim().deliveries
    assert (again.attempt, again.retry_count, again.cause) == (2, 1, AttemptCause.RETRY)
    sender.end([again], None)
    assert outbox.attempts() == [(1, "event", "rejected", 500, None), (2, "retry", "timed_out", None, "timeout")]
    assert owner.execute("select response from mindia.webhook_attempts").fetchall() == [("a\ufffdb",)] * 2


def test_after_the_last_retry_it_has_failed(sender: Sender, outbox: Outbox, endpoint: UUID) -> None:
    outbox.emit(endpoint)
    attempt = ended(sender.claim().deliveries[0], 500)

    sender.record([attempt], settings=Settings(webhook_retry_waits=()))

    assert outbox.statuses() == {"failed": 1}


def test_no_endpoint_has_more_in_flight_than_it_may(sender: Sender, outbox: Outbox, tenant: Tenant) -> None:
    endpoints = {outbox.endpoint(tenant.id, "https://example.org/", max_in_flight=most): most for most in (1, 3, 8)}
    for endpoint in endpoints:
        outbox.emit(endpoint, 20)

    first = sender.claim(5).deliveries
    rest = sender.claim().deliveries

    assert len(first) == 5
    assert Counter(each.webhook_id for each in (*first, *rest)) == endpoints
    sender.end(first)
    assert Counter(each.webhook_id for each in sender.claim().deliveries) == Counter(each.webhook_id for each in first)


def test_senders_that_claim_at_once_get_different_deliveries_and_keep_to_the_limit(
    app: Mindia, outbox: Outbox, tenant: Tenant
) -> None:
    endpoints = [outbox.endpoint(tenant.id, "https://example.org/", max_in_flight=5) for _ in range(10)]
    for endpoint in endpoints:
        outbox.emit(endpoint, 30)

    with ThreadPoolExecutor(4) as pool:
        claims = list(pool.map(lambda _: Sender(app).claim(7).deliveries, range(12)))

    claimed = [each for claim in claims for each in claim]
    assert len({each.id for each in claimed}) == len(claimed) == 50
    assert Counter(each.webhook_id for each in claimed) == dict.fromkeys(endpoints, 5)


def test_a_large_backlog_holds_up_neither_other_endpoints_nor_other_tenants(
    app: Mindia, sender: Sender, outbox: Outbox, tenant: Tenant
) -> None:
    busy = [outbox.endpoint(tenant.id, "https://example.org/") for _ in range(30)]
    for endpoint in busy:
        outbox.emit(endpoint, 20)
    others = [outbox.endpoint(app.tenants.create("Other").id, "https://example.org/") for _ in range(3)]
    quiet = outbox.endpoint(tenant.id, "https://example.org/")
    for endpoint in (*others, quiet):
        outbox.emit(endpoint, 2)

    claimed = Counter(each.webhook_id for each in sender.claim(20).deliveries)

    assert {endpoint: claimed[endpoint] for endpoint in others} == dict.fromkeys(others, 2)
    assert claimed.total() == 20
    assert max(claimed[endpoint] for endpoint in (*busy, quiet)) == 1


def test_the_walk_goes_on_where_the_claim_before_has_ended(
    sender: Sender, outbox: Outbox, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_outbox, "_MOST_ENDPOINTS", 3)
    endpoints = [outbox.endpoint(tenant.id, "https://example.org/") for _ in range(7)]
    for endpoint in endpoints:
        outbox.emit(endpoint)

    found: list[UUID] = []
    after: UUID | None = None
    for _ in range(3):
        claim = sender.claim(after=after)
        found += sorted(each.webhook_id for each in claim.deliveries)
        after = claim.after
        assert (after is None) == (claim.wait is None)

    assert found == endpoints
    assert after is None


def test_what_is_not_active_is_not_sent_to(app: Mindia, sender: Sender, outbox: Outbox, tenant: Tenant) -> None:
    paused = outbox.endpoint(tenant.id, "https://example.org/", is_active=False)
    suspended = app.tenants.create("Suspended")
    for endpoint in (paused, outbox.endpoint(suspended.id, "https://example.org/")):
        outbox.emit(endpoint)
    app.tenants.suspend(suspended.id)

    assert sender.claim().deliveries == []
    app.library(tenant).webhooks.resume(paused)
    app.tenants.reactivate(suspended.id)

    assert len(sender.claim().deliveries) == 2


def test_an_order_is_kept_through_failures(sender: Sender, outbox: Outbox, owner: Owner, tenant: Tenant) -> None:
    endpoint = outbox.endpoint(tenant.id, "https://example.org/", is_ordered=True)
    outbox.emit(endpoint, 3)
    (first,) = sender.claim().deliveries
    assert sender.claim().deliveries == [], "the one before is in flight"

    sender.end([first], 500)

    claim = sender.claim()
    assert claim.deliveries == [], "the one before is tried again first"
    assert claim.wait is not None
    assert claim.wait > timedelta(seconds=4)
    later(owner, timedelta(seconds=6))
    bodies = []
    while deliveries := sender.claim().deliveries:
        (delivery,) = deliveries
        bodies.append(delivery.body[7:8])
        sender.end(deliveries)
    assert bodies == [b"1", b"2", b"3"]


def test_a_rate_is_kept_and_made_up_for_by_time(sender: Sender, outbox: Outbox, owner: Owner, tenant: Tenant) -> None:
    endpoint = outbox.endpoint(tenant.id, "https://example.org/", max_per_second=20, max_in_flight=100)
    outbox.emit(endpoint, 50)

    claim = sender.claim()
    assert len(claim.deliveries) == 2, "no more at once than a tenth of a second has"
    sender.end(claim.deliveries)
    claim = sender.claim(1)
    assert claim.wait is not None or claim.deliveries
    later(owner, timedelta(hours=1))
    assert len(sender.claim().deliveries) <= 2


@pytest.mark.parametrize("status", [500, None])
def test_ten_failures_in_a_row_open_the_breaker_and_one_probe_closes_it(
    sender: Sender, outbox: Outbox, owner: Owner, endpoint: UUID, status: int | None
) -> None:
    outbox.emit(endpoint, 30)
    sender.end(sender.claim(8).deliveries, status)
    flying = sender.claim(8).deliveries
    sender.end(flying[:4], status)

    claim = sender.claim()
    assert claim.deliveries == []
    assert claim.wait is not None
    sender.end(flying[4:], status)
    (until,) = one(owner, "select open_until - now() from mindia.webhook_states")
    assert timedelta(seconds=25) < until <= timedelta(seconds=30), "those that were in flight open it no longer"
    waits = []
    for _ in range(9):
        later(owner, timedelta(hours=1))
        (probe,) = sender.claim().deliveries
        assert sender.claim().deliveries == [], "one probe at a time"
        sender.end([probe], status)
        (until,) = one(owner, "select open_until - now() from mindia.webhook_states")
        waits.append(round(until.total_seconds() / 30) * 30)
    assert waits == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]
    later(owner, timedelta(hours=1))
    sender.end(sender.claim().deliveries)
    assert len(sender.claim().deliveries) == 8


def test_a_success_begins_the_count_of_failures_anew(
    sender: Sender, outbox: Outbox, owner: Owner, endpoint: UUID
) -> None:
    outbox.emit(endpoint, 30)
    claimed = sender.claim().deliveries

    sender.record([*(ended(each, 500) for each in claimed[:7]), ended(claimed[7])])
    assert one(owner, "select coalesce(max(failures_in_row), 0) from mindia.webhook_states") == (0,)
    claimed = sender.claim().deliveries
    sender.record([ended(claimed[0]), *(ended(each, 500) for each in claimed[1:])])
    assert one(owner, "select failures_in_row, open_until from mindia.webhook_states") == (7, None)


def test_resuming_closes_the_breaker(
    app: Mindia, sender: Sender, outbox: Outbox, tenant: Tenant, endpoint: UUID
) -> None:
    outbox.emit(endpoint, 30)
    for _ in range(2):
        sender.end(sender.claim().deliveries, 500)
    assert sender.claim().deliveries == []
    assert app.library(tenant).webhooks.health(endpoint).failures_in_row == 16

    app.library(tenant).webhooks.resume(endpoint)

    assert len(sender.claim().deliveries) == 8
    assert app.library(tenant).webhooks.health(endpoint).failures_in_row == 0


def test_days_of_failure_disable_an_endpoint_and_its_owner_is_told(
    app: Mindia, sender: Sender, outbox: Outbox, owner: Owner, tenant: Tenant, endpoint: UUID
) -> None:
    listening = outbox.endpoint(tenant.id, "https://example.net/", events=["webhook.disabled"])
    outbox.emit(endpoint, 2)
    first, second = sender.claim().deliveries
    sender.end([first], 500)
    later(owner, timedelta(days=4, hours=23))
    sender.end([second], 500)
    webhooks = app.library(tenant).webhooks
    assert webhooks.get(endpoint).is_active

    later(owner, timedelta(hours=2))
    sender.end(sender.claim(1).deliveries, 500)

    found = webhooks.get(endpoint)
    assert (found.status, found.disabled_reason) == ("disabled", "failing")
    (told,) = webhooks.deliveries(listening)
    assert told.event_type == "webhook.disabled"
    assert isinstance(told.payload, dict)
    assert told.payload["data"].keys() == {"webhook_id", "webhook_url", "reason", "failing_since"}
    assert told.payload["data"]["webhook_id"] == str(endpoint)
    assert [each.webhook_id for each in sender.claim().deliveries] == [listening]
    assert outbox.statuses(endpoint)["pending"] == 3, "what waits is kept, and what tells of it"
    webhooks.resume(endpoint)
    assert sender.claim().deliveries


def test_one_event_alone_disables_nothing(
    app: Mindia, sender: Sender, outbox: Outbox, owner: Owner, tenant: Tenant, endpoint: UUID
) -> None:
    outbox.emit(endpoint)
    for _ in range(9):
        sender.end(sender.claim().deliveries, 500)
        later(owner, timedelta(days=3))

    assert app.library(tenant).webhooks.get(endpoint).is_active


def test_gone_disables_at_once(app: Mindia, sender: Sender, outbox: Outbox, tenant: Tenant, endpoint: UUID) -> None:
    outbox.emit(endpoint, 20)
    claimed = sender.claim().deliveries

    sender.end(claimed[:1], 410)

    found = app.library(tenant).webhooks.get(endpoint)
    assert (found.status, found.disabled_reason) == ("disabled", "gone")
    assert sender.claim().deliveries == []
    assert outbox.statuses(endpoint) == {"failed": 1, "pending": 20}
    assert sender.end(claimed[1:]) == [Recorded.RECORDED] * 7


def test_what_a_worker_that_died_did_not_disable_the_next_failure_does(
    app: Mindia, sender: Sender, outbox: Outbox, tenant: Tenant, endpoint: UUID
) -> None:
    outbox.emit(endpoint, 2)
    first, second = sender.claim().deliveries
    webhooks = app.library(tenant).webhooks

    assert [each.webhook_id for each in sender.record_alone([ended(first, 410)]).failing] == [endpoint]
    assert webhooks.get(endpoint).is_active

    assert sender.end([second], 410) == [Recorded.RECORDED]
    assert webhooks.get(endpoint).disabled_reason == "gone"


def test_an_endpoint_that_is_resumed_before_it_is_disabled_stays(
    app: Mindia, sender: Sender, outbox: Outbox, tenant: Tenant, endpoint: UUID
) -> None:
    outbox.emit(endpoint)
    failing = sender.record_alone([ended(each, 410) for each in sender.claim().deliveries]).failing
    webhooks = app.library(tenant).webhooks
    webhooks.resume(endpoint)

    give_up(OwnTransaction(app._database, ACROSS_TENANTS), failing)

    assert webhooks.get(endpoint).is_active


@pytest.mark.parametrize("what", ["event", "endpoint"])
def test_a_transaction_of_the_hosts_holds_up_neither_claims_nor_the_ends_of_others(
    owner: Owner, sender: Sender, outbox: Outbox, tenant: Tenant, endpoint: UUID, what: str
) -> None:
    other = outbox.endpoint(tenant.id, "https://example.org/")
    for each in (endpoint, other):
        outbox.emit(each)
    claimed = sorted(sender.claim().deliveries, key=lambda delivery: delivery.webhook_id == other)
    with psycopg.connect(owner.info.dsn, password=owner.info.password or None) as host:
        if what == "event":
            host.execute("update mindia.webhook_events set event_type = 'a.b' where id = %s", (claimed[0].id,))
        else:
            host.execute("delete from mindia.webhooks where id = %s", (endpoint,))
        assert sender.end(claimed) == [Recorded.BUSY, Recorded.RECORDED]
        outbox.emit(other)
        assert len(sender.claim().deliveries) == 1
        assert sender.renew(claimed[:1]) == {claimed[0].id}

    assert sender.end(claimed[:1]) == [Recorded.RECORDED if what == "event" else Recorded.LOST]


def test_telling_of_an_endpoint_that_is_disabled_waits_for_nobody(
    app: Mindia, owner: Owner, sender: Sender, outbox: Outbox, tenant: Tenant, endpoint: UUID
) -> None:
    going, staying = (outbox.endpoint(tenant.id, "https://example.org/") for _ in range(2))
    outbox.emit(endpoint)
    claimed = sender.claim().deliveries
    with psycopg.connect(owner.info.dsn, password=owner.info.password or None) as host:
        host.execute("delete from mindia.webhooks where id = %s", (going,))

        assert sender.end(claimed, 410) == [Recorded.RECORDED]

        host.rollback()
    told = app.library(tenant).webhooks.deliveries()
    assert {each.webhook_id for each in told if each.event_type == "webhook.disabled"} == {endpoint, staying}


def test_retention_removes_what_has_ended_long_ago_and_what_waits_in_vain(
    app: Mindia, sender: Sender, outbox: Outbox, owner: Owner, tenant: Tenant, endpoint: UUID
) -> None:
    paused = outbox.endpoint(tenant.id, "https://example.org/", is_active=False)
    for each in (endpoint, paused):
        outbox.emit(each, 2)
    delivered = sender.claim(1).deliveries
    sender.end(delivered)
    assert app.maintenance.remove_old_deliveries() == 0
    long_ago = timedelta(days=31)
    owner.execute(
        "update mindia.webhook_events set created_at = created_at - %(by)s, next_attempt_at = next_attempt_at - %(by)s",
        {"by": long_ago},
    )
    outbox.emit(paused)

    assert app.maintenance.remove_old_deliveries() == 3

    assert outbox.statuses(endpoint) == {"pending": 1}
    assert outbox.statuses(paused) == {"pending": 1}
    assert outbox.attempts() == []


def one(owner: Owner, query: Any) -> tuple[Any, ...]:
    row = owner.execute(query).fetchone()
    assert row is not None
    return row
