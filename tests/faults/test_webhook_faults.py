"""No event is lost: whatever becomes of workers and of the database, and only what was in flight is sent twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import psycopg
import pytest
from tests.faults.harness import Child, Harness, Server, wait_until
from tests.faults.invariants import of_a_child, wait_for_the_killed
from tests.faults.webhook_workload import SETTINGS, deliver, prepare
from tests.integration.outbox_rows import Outbox, Owner
from tests.integration.webhook_receiver import ReceiverThread, Reply

import mindia

_ENDPOINTS = 10
_CAP = 4
_SHORT_LEASE_S = 5.0  # and longer than a busy machine stands still
_LONG_LEASE_S = 60.0


class _Place:
    """A database with endpoints that answer after some milliseconds."""

    def __init__(self, harness: Harness, server: Server, receiver: ReceiverThread) -> None:
        self.harness = harness
        self.receiver = receiver
        self.url = server.new_database()
        self.owner: Owner = prepare(self.url)
        self.outbox = Outbox(self.owner, SETTINGS)
        with mindia.connect(self.url, storage=mindia.MemoryStorage()) as app:
            tenants = [app.tenants.create(name).id for name in ("Acme", "Globex")]
        self.webhooks = []
        for number in range(_ENDPOINTS):
            receiver.replies[f"/{number}"] = Reply(after_s=0.005)
            self.webhooks.append(
                self.outbox.endpoint(tenants[number % 2], receiver.url(f"/{number}"), max_in_flight=_CAP)
            )

    def emit(self, count: int) -> None:
        for webhook in self.webhooks:
            self.outbox.emit(webhook, count // _ENDPOINTS)

    def start(self, *, lease_s: float) -> Child:
        return self.harness.start(deliver, of_a_child(self.url), lease_s)

    def in_flight(self) -> set[str]:
        """Return the ids of what is in somebody's hands: sent or not, and not on record."""
        rows = self.owner.execute(
            "select e.event_id::text from mindia.webhook_leases l join mindia.webhook_events e "
            "on e.id = l.webhook_event_id"
        ).fetchall()
        return {str(event_id) for (event_id,) in rows}

    def end_leases(self) -> None:
        """Let all leases be over at once, as they are when nobody renews them."""
        self.owner.execute("update mindia.webhook_leases set leased_until = now() - interval '1 second'")

    def wait_until_all_are_delivered(self, *, timeout_s: float = 60.0) -> None:
        wait_until(lambda: set(self.outbox.statuses()) == {"delivered"}, what="all are delivered", timeout_s=timeout_s)

    def sent_more_than_once(self) -> set[str]:
        return {event_id for event_id, times in Counter(self.receiver.ids()).items() if times > 1}


@pytest.fixture
def place(harness: Harness, server: Server) -> Iterator[_Place]:
    with ReceiverThread() as receiver:
        place = _Place(harness, server, receiver)
        try:
            yield place
        finally:
            place.owner.close()


@pytest.mark.parametrize(
    ("kills", "deliveries"),
    [(4, 600), pytest.param(100, 20_000, marks=(pytest.mark.slow, pytest.mark.timeout(1800)))],
    ids=["few", "many"],
)
def test_kills_lose_nothing_and_only_what_was_in_flight_comes_twice(place: _Place, kills: int, deliveries: int) -> None:
    place.emit(deliveries)
    in_flight: set[str] = set()
    for number in range(1, kills + 1):
        # No lease ends before its worker does, however slow the machine is at that moment.
        worker = place.start(lease_s=_LONG_LEASE_S)
        worker.wait_until_ready()
        # So that kills are spread over all that is delivered, and most of them come in the middle of it.
        until = min(len(place.receiver.received) + 1, deliveries)
        place.receiver.wait_for(max(until, number * deliveries // (kills + 2) - 50))
        place.harness.pause(0.05)
        worker.kill()
        wait_for_the_killed(place.url)
        in_flight |= place.in_flight()
        place.end_leases()
    place.emit(_ENDPOINTS)  # whatever the killed have delivered, something is left
    deliveries += _ENDPOINTS
    survivor = place.start(lease_s=_LONG_LEASE_S)
    place.wait_until_all_are_delivered(timeout_s=30 + deliveries / 20)

    assert len(set(place.receiver.ids())) == deliveries
    assert place.outbox.statuses() == {"delivered": deliveries}
    assert place.sent_more_than_once() <= in_flight
    assert len(in_flight) <= kills * _ENDPOINTS * _CAP
    survivor.terminate()
    assert survivor.wait() == 0, survivor.output()
    assert place.outbox.leases() == 0


def test_four_workers_send_nothing_twice_and_no_endpoint_more_than_it_may_have(place: _Place) -> None:
    workers = [place.start(lease_s=_LONG_LEASE_S) for _ in range(4)]
    for worker in workers:
        worker.wait_until_ready()
    place.emit(1_000)
    place.wait_until_all_are_delivered()
    for worker in workers:
        worker.terminate()
    reports = []
    for worker in workers:
        assert worker.wait() == 0, worker.output()
        reports += [line for line in worker.lines if line.startswith("ended")]

    assert len(place.receiver.received) == len(set(place.receiver.ids())) == 1_000
    assert max(place.receiver.most_at_once.values()) <= _CAP
    assert all("deliveries_failed=0" in line for line in reports)


@pytest.mark.parametrize("fault", [Server.restart, Server.crash, Server.cut_connections])
def test_faults_of_the_database_lose_nothing(place: _Place, server: Server, fault: Callable[[Server], None]) -> None:
    worker = place.start(lease_s=_SHORT_LEASE_S)
    worker.wait_until_ready()
    place.emit(600)
    place.receiver.wait_for(100)
    place.owner.close()
    fault(server)
    place.owner = psycopg.connect(place.url, autocommit=True)
    place.outbox = Outbox(place.owner, SETTINGS)
    place.wait_until_all_are_delivered()

    ids = place.receiver.ids()
    assert len(set(ids)) == 600
    # What was in flight at the time, and had no way to be put on record before its lease was over.
    assert len(place.sent_more_than_once()) <= _ENDPOINTS * _CAP
    worker.terminate()
    assert worker.wait() == 0, worker.output()
