"""Logging of requests outlives the database: nobody waits, memory is bounded, what is lost is counted, it goes on."""

from __future__ import annotations

import psycopg
from tests.faults.harness import Child, Harness, Server, wait_until
from tests.faults.request_log_workload import CAPACITY, serve

import mindia


def _state(child: Child) -> tuple[int, int]:
    """Return how many were written, and how many dropped, as told last."""
    told = [line.split() for line in child.lines if line.startswith("state")]
    return (int(told[-1][1]), int(told[-1][2])) if told else (0, 0)


def test_a_database_that_stops_under_load_holds_up_no_request_and_logging_goes_on_by_itself(
    harness: Harness, server: Server
) -> None:
    url = server.new_database()
    with mindia.connect(url, storage=mindia.MemoryStorage()) as app:
        app.migrate()
        tenant = app.tenants.create("Acme")
    child = harness.start(serve, url, str(tenant.id))
    child.wait_until_ready()
    wait_until(lambda: _state(child)[0] > 0, what="requests are written")

    server.stop()
    # Requests are served all the while: more than there is room for.
    wait_until(lambda: _state(child)[1] > 100, what="requests are dropped")
    server.start()
    before = _state(child)[0]
    wait_until(lambda: _state(child)[0] > before + CAPACITY, what="logging goes on")

    child.send("stop")
    assert child.wait() == 0
    (end,) = [line.split()[1:] for line in child.lines if line.startswith("end")]
    served, written, dropped, most_waiting = map(int, end)
    assert served == written + dropped
    assert most_waiting <= CAPACITY
    with psycopg.connect(url) as connection:
        row = connection.execute("select count(*), count(distinct path) from mindia.request_logs").fetchone()
    assert row is not None
    # A batch whose commit was cut off counts as dropped, and may be there all the same; none is there twice.
    assert written <= int(row[0]) == int(row[1]) <= served
    assert "requests were not logged" in child.output()
