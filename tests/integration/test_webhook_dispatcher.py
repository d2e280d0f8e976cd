"""Delivering: what is due is sent, within its limits, and how that ended is on record."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import attrs
import psycopg
import pytest
from psycopg import sql
from standardwebhooks import Webhook as Verifier
from tests.conftest import Roles
from tests.integration.outbox_rows import SECRET, Outbox, Owner
from tests.integration.queue_jobs import SETTINGS, Handler, Job
from tests.integration.webhook_receiver import HANGS, Received, ReceiverThread, Reply

import mindia
from mindia import MemoryStorage, Mindia, Settings, Tenant, WorkReport
from mindia.delivery.signing import shown
from mindia.worker.loop import Worker

QUICK = attrs.evolve(
    SETTINGS,
    webhook_allow_private=True,
    webhook_retry_waits=(timedelta(milliseconds=1),) * 3,
    webhook_timeout=timedelta(seconds=1),
)


@pytest.fixture
def settings(roles: Roles) -> Settings:
    return attrs.evolve(QUICK, worker_role=roles.worker)


@pytest.fixture
def outbox(owner: Owner, settings: Settings) -> Outbox:
    """An outbox with nothing in it."""
    for table in ("webhooks", "webhook_leases", "webhook_states"):
        owner.execute(sql.SQL("delete from mindia.{}").format(sql.Identifier(table)))
    return Outbox(owner, settings)


@pytest.fixture
def app(queue_url: str, settings: Settings) -> Iterator[Mindia]:
    with mindia.connect(queue_url, storage=MemoryStorage(), settings=settings) as app:
        yield app


@pytest.fixture
def tenant(app: Mindia) -> Tenant:
    return app.tenants.create("Acme")


@pytest.fixture
def receiver() -> Iterator[ReceiverThread]:
    with ReceiverThread() as receiver:
        yield receiver


@contextmanager
def _working(app: Mindia, **options: Any) -> Iterator[Worker]:
    worker = app.worker(**options)
    failed: list[BaseException] = []

    def run() -> None:
        try:
            worker.run()
        except BaseException as error:  # noqa: BLE001 - told below
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield worker
    finally:
        worker.stop()
        thread.join(60)
    assert not thread.is_alive()
    assert not failed


def test_what_is_due_is_delivered_and_recorded(
    app: Mindia, tenant: Tenant, outbox: Outbox, receiver: ReceiverThread
) -> None:
    webhook = outbox.endpoint(tenant.id, receiver.url())
    outbox.emit(webhook, 30)

    assert app.run_until_idle() == WorkReport(events_delivered=30)

    assert len(set(receiver.ids())) == len(receiver.ids()) == 30
    assert outbox.statuses() == {"delivered": 30}
    assert outbox.attempts() == [(1, "event", "delivered", 200, None)] * 30
    assert outbox.leases() == 0
    assert app.run_until_idle() == WorkReport()


def test_what_is_sent_is_signed_as_receivers_know_it(
    app: Mindia, tenant: Tenant, outbox: Outbox, receiver: ReceiverThread
) -> None:
    outbox.emit(outbox.endpoint(tenant.id, receiver.url()))
    app.run_until_idle()

    (request,) = receiver.received
    assert request.body == b'{"id":"1","type":"image.uploaded","data":{"b":1,"a":2}}'
    assert Verifier(shown(SECRET)).verify(request.body, request.headers)["id"] == "1"


def test_nothing_is_due_where_nothing_is_registered(app: Mindia) -> None:
    assert app.run_until_idle() == WorkReport()


def test_delivering_works_where_an_event_loop_runs(
    app: Mindia, tenant: Tenant, outbox: Outbox, receiver: ReceiverThread
) -> None:
    """As in a notebook."""
    outbox.emit(outbox.endpoint(tenant.id, receiver.url()))

    async def notebook() -> WorkReport:
        return app.run_until_idle()

    assert asyncio.run(notebook()).events_delivered == 1


def test_what_fails_is_tried_again_with_the_same_id_until_it_has_failed(
    app: Mindia, tenant: Tenant, outbox: Outbox, receiver: ReceiverThread
) -> None:
    receiver.replies["/hook"] = Reply(500)
    outbox.emit(outbox.endpoint(tenant.id, receiver.url()))

    report = app.run_until_idle()

    assert (report.events_delivered, report.deliveries_failed) == (0, 4)
    assert len(receiver.ids()) == 4
    assert len(set(receiver.ids())) == 1
    assert outbox.statuses() == {"failed": 1}
    assert [attempt[:4] for attempt in outbox.attempts()] == [
        (1, "event", "rejected", 500),
        *((number, "retry", "rejected", 500) for number in (2, 3, 4)),
    ]


def test_a_retry_that_succeeds_ends_it(app: Mindia, tenant: Tenant, outbox: Outbox, receiver: ReceiverThread) -> None:
    replies = [Reply(503), Reply(200)]
    receiver.replies["/hook"] = lambda _: replies.pop(0)
    outbox.emit(outbox.endpoint(tenant.id, receiver.url()))

    app.run_until_idle()

    assert outbox.statuses() == {"delivered": 1}
    assert [attempt[2] for attempt in outbox.attempts()] == ["rejected", "delivered"]


def test_a_forbidden_address_is_an_attempt_that_failed(
    queue_url: str, settings: Settings, tenant: Tenant, outbox: Outbox, receiver: ReceiverThread
) -> None:
    outbox.emit(outbox.endpoint(tenant.id, receiver.url()))
    strictly = attrs.evolve(settings, webhook_allow_private=False, webhook_retry_waits=())
    with mindia.connect(queue_url, storage=MemoryStorage(), settings=strictly) as strict:
        strict.run_until_idle()

    assert receiver.received == []
    assert outbox.attempts() == [(1, "event", "failed", None, "forbidden_address")]


def test_a_process_without_a_key_leaves_deliveries_to_others(
    queue_url: str, settings: Settings, app: Mindia, tenant: Tenant, outbox: Outbox, receiver: ReceiverThread
) -> None:
    outbox.emit(outbox.endpoint(tenant.id, receiver.url()))
    keyless = attrs.evolve(settings, secret_key=None)
    with mindia.connect(queue_url, storage=MemoryStorage(), settings=keyless) as other:
        assert other.run_until_idle() == WorkReport()
        with _working(other):
            pass
    assert outbox.statuses() == {"pending": 1}
    assert app.run_until_idle().events_delivered == 1


def test_a_secret_of_another_key_is_an_attempt_that_failed(
    queue_url: str, settings: Settings, tenant: Tenant, outbox: Outbox, receiver: ReceiverThread
) -> None:
    outbox.emit(outbox.endpoint(tenant.id, receiver.url()))
    other = attrs.evolve(settings, secret_key="another one than before", webhook_retry_waits=())
    with mindia.connect(queue_url, storage=MemoryStorage(), settings=other) as stranger:
        stranger.run_until_idle()

    assert receiver.received == []
    assert outbox.attempts() == [(1, "event", "failed", None, "secret_unreadable")]


def test_a_worker_is_woken_by_an_event(app: Mindia, tenant: Tenant, outbox: Outbox, receiver: ReceiverThread) -> None:
    webhook = outbox.endpoint(tenant.id, receiver.url())
    lazy = attrs.evolve(app.settings, poll=timedelta(hours=1))
    app.settings = lazy
    with _working(app):
        outbox.emit(webhook)
        receiver.wait_for(1)
        for count in range(2, 6):
            outbox.emit(webhook, wakes=True)
            receiver.wait_for(count)


def test_a_worker_without_webhooks_leaves_them_to_others(
    app: Mindia, tenant: Tenant, outbox: Outbox, receiver: ReceiverThread
) -> None:
    outbox.emit(outbox.endpoint(tenant.id, receiver.url()))
    ran = threading.Event()
    handler = Handler()
    handler.does = lambda *_: ran.set()
    app.register_task("job", Job, handler)
    app.library(tenant).tasks.enqueue(Job())
    with _working(app, webhooks=False):
        assert ran.wait(30)
    assert receiver.received == []


def test_no_endpoint_gets_more_at_once_than_it_may(
    app: Mindia, tenant: Tenant, outbox: Outbox, receiver: ReceiverThread
) -> None:
    for path, cap in (("/one", 1), ("/three", 3)):
        receiver.replies[path] = Reply(after_s=0.005)
        outbox.emit(outbox.endpoint(tenant.id, receiver.url(path), max_in_flight=cap), 40)

    app.run_until_idle()

    assert receiver.most_at_once == {"/one": 1, "/three": 3}
    assert outbox.statuses() == {"delivered": 80}


def test_an_endpoint_with_an_order_gets_one_after_the_other_also_when_one_fails(
    app: Mindia, tenant: Tenant, outbox: Outbox, receiver: ReceiverThread
) -> None:
    failed: set[str] = set()

    def fail_each_once(request: Received) -> Reply:
        if request.webhook_id in failed:
            return Reply(200)
        failed.add(request.webhook_id)
        return Reply(500)

    receiver.replies["/hook"] = fail_each_once
    outbox.emit(outbox.endpoint(tenant.id, receiver.url(), is_ordered=True), 8)

    app.run_until_idle()

    bodies = [request.body for request in receiver.received]
    assert bodies == [body for number in range(0, 16, 2) for body in [bodies[number]] * 2]
    assert [int(body.split(b'"')[3]) for body in bodies[::2]] == list(range(1, 9))


def test_a_hanging_endpoint_does_not_hold_up_the_others(
    app: Mindia, tenant: Tenant, outbox: Outbox, receiver: ReceiverThread
) -> None:
    """Not even where the hanging ones could fill all that a worker has under way."""
    app.settings = attrs.evolve(app.settings, webhook_concurrency=16, webhook_timeout=timedelta(seconds=3))
    for number in range(4):
        receiver.replies[f"/hangs/{number}"] = HANGS
        outbox.emit(outbox.endpoint(tenant.id, receiver.url(f"/hangs/{number}")), 50)
    good = outbox.endpoint(tenant.id, receiver.url("/good"))
    outbox.emit(good, 200)
    with _working(app, shutdown_timeout_s=0.1):
        receiver.wait_for(200, path="/good")
    assert receiver.most_at_once["/good"] <= 8


def test_what_is_under_way_when_a_worker_stops_is_waited_for(
    app: Mindia, tenant: Tenant, outbox: Outbox, receiver: ReceiverThread
) -> None:
    app.settings = attrs.evolve(app.settings, webhook_lease=timedelta(hours=1))  # and not until it were renewed
    receiver.replies["/hook"] = Reply(after_s=0.3)
    outbox.emit(outbox.endpoint(tenant.id, receiver.url()), 5)
    with _working(app):
        receiver.wait_for(5)
    assert outbox.statuses() == {"delivered": 5}


def test_what_is_still_under_way_after_that_is_for_others(
    app: Mindia, tenant: Tenant, outbox: Outbox, receiver: ReceiverThread
) -> None:
    app.settings = attrs.evolve(app.settings, webhook_timeout=timedelta(seconds=60))
    receiver.replies["/hook"] = HANGS
    outbox.emit(outbox.endpoint(tenant.id, receiver.url()), 5)
    with _working(app, shutdown_timeout_s=0.1):
        receiver.wait_for(5)

    assert (outbox.statuses(), outbox.attempts(), outbox.leases()) == ({"pending": 5}, [], 0)
    receiver.replies.clear()
    assert app.run_until_idle().events_delivered == 5


def test_a_delivery_that_takes_longer_than_its_lease_is_sent_once(
    app: Mindia, tenant: Tenant, outbox: Outbox, receiver: ReceiverThread
) -> None:
    app.settings = attrs.evolve(
        app.settings, webhook_lease=timedelta(seconds=0.4), webhook_timeout=timedelta(seconds=30)
    )
    receiver.replies["/hook"] = Reply(after_s=1.5)
    outbox.emit(outbox.endpoint(tenant.id, receiver.url()), 3)
    with _working(app), _working(app):
        receiver.wait_for(3)
    assert outbox.statuses() == {"delivered": 3}
    assert len(receiver.received) == 3


def test_an_end_that_a_transaction_of_the_hosts_is_in_the_way_of_is_recorded_later(
    app: Mindia, tenant: Tenant, outbox: Outbox, receiver: ReceiverThread, owner: Owner
) -> None:
    webhook = outbox.endpoint(tenant.id, receiver.url())
    outbox.emit(webhook, 3)
    other = outbox.endpoint(tenant.id, receiver.url("/other"))
    with psycopg.connect(owner.info.dsn) as host:
        host.execute("select from mindia.webhook_events where webhook_id = %s for update", (webhook,))
        with _working(app):
            receiver.wait_for(3)
            outbox.emit(other, 5)
            receiver.wait_for(5, path="/other")
            host.rollback()
    assert outbox.statuses() == {"delivered": 8}
    assert len(receiver.received) == 8


def test_one_gone_is_enough_and_later_ones_are_not_sent(
    app: Mindia, tenant: Tenant, outbox: Outbox, receiver: ReceiverThread
) -> None:
    receiver.replies["/hook"] = Reply(410)
    webhook = outbox.endpoint(tenant.id, receiver.url(), max_in_flight=1)
    outbox.emit(webhook, 5)

    app.run_until_idle()

    assert len(receiver.received) == 1
    # What is left, and that it was disabled: it listens to all events.
    assert outbox.statuses(webhook) == {"failed": 1, "pending": 4 + 1}


def test_ten_failures_in_a_row_open_the_breaker_and_use_up_no_further_attempts(
    app: Mindia, tenant: Tenant, outbox: Outbox, receiver: ReceiverThread
) -> None:
    receiver.replies["/hook"] = Reply(500)
    outbox.emit(outbox.endpoint(tenant.id, receiver.url(), max_in_flight=2), 50)

    app.run_until_idle()

    assert 10 <= len(receiver.received) <= 12
    assert outbox.statuses()["pending"] >= 40


def test_nobody_is_heard_of_twice_by_four_workers_at_once(
    app: Mindia, tenant: Tenant, outbox: Outbox, receiver: ReceiverThread
) -> None:
    for number in range(5):
        receiver.replies[f"/{number}"] = Reply(after_s=0.002)
        outbox.emit(outbox.endpoint(tenant.id, receiver.url(f"/{number}"), max_in_flight=3), 60)
    with _working(app), _working(app), _working(app), _working(app):
        receiver.wait_for(300)
    assert len(set(receiver.ids())) == len(receiver.received) == 300
    assert max(receiver.most_at_once.values()) <= 3
