"""Periodic tasks: each tick fires once, whoever notices it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import attrs
import pytest
from tests.faults.harness import wait_until
from tests.integration.queue_jobs import Handler, Job, Other, Owner, running, value

from mindia import Mindia
from mindia.db.session import ACROSS_TENANTS
from mindia.db.units import OwnTransaction
from mindia.errors import InvalidError
from mindia.worker.schedules import Schedule

BEGIN = datetime(2025, 3, 1, 12, 30, tzinfo=UTC)


def the_schedule(app: Mindia) -> Schedule:
    (schedule,) = app._runtime().schedules
    return schedule


def fire(app: Mindia, now: datetime) -> bool:
    return the_schedule(app).fire(OwnTransaction(app._runtime().database, ACROSS_TENANTS), now=now)


def count(owner: Owner) -> int:
    number: int = value(owner, "select count(*) from mindia.tasks")
    return number


def test_a_new_one_fires_at_its_next_tick_and_once(queue_app: Mindia, owner: Owner) -> None:
    queue_app.schedule("hourly", "0 * * * *", Job("now"))

    assert [fire(queue_app, BEGIN + timedelta(minutes=minutes)) for minutes in (0, 10, 30, 31, 89, 90)] == [
        False, False, True, False, False, True,
    ]  # fmt: skip
    assert count(owner) == 2


def test_ticks_that_nobody_noticed_are_made_up_for_by_one_task(queue_app: Mindia, owner: Owner) -> None:
    queue_app.schedule("hourly", "0 * * * *", Job())
    fire(queue_app, BEGIN)

    assert fire(queue_app, BEGIN + timedelta(days=7))
    assert not fire(queue_app, BEGIN + timedelta(days=7))
    assert not fire(queue_app, BEGIN + timedelta(days=6)), "a clock that goes back"
    assert count(owner) == 1


def test_many_that_notice_a_tick_at_the_same_time_fire_it_once(queue_app: Mindia, owner: Owner) -> None:
    queue_app.schedule("hourly", "0 * * * *", Job())
    together = threading.Barrier(8)

    def notice(_: int) -> list[bool]:
        fired = []
        for hour in range(5):
            together.wait(30)
            fired.append(fire(queue_app, BEGIN + timedelta(hours=hour)))
        return fired

    with ThreadPoolExecutor(8) as pool:
        fired = list(pool.map(notice, range(8)))

    assert [sum(each) for each in zip(*fired, strict=True)] == [0, 1, 1, 1, 1]
    assert count(owner) == 4


def test_workers_fire_it_and_run_its_task_as_declared(queue_app: Mindia, handler: Handler, owner: Owner) -> None:
    tenant = queue_app.tenants.create("Acme")
    queue_app.schedule("often", "* * * * *", Job("periodic"), tenant=tenant, priority=7, max_retries=2)
    owner.execute("insert into mindia.task_schedules values ('often', now() - interval '1 hour')")
    with running(queue_app.worker()), running(queue_app.worker()):
        wait_until(lambda: "periodic" in handler.names, what="it runs")

    row = owner.execute("select tenant_id, kind, priority, max_retries, payload from mindia.tasks limit 1").fetchone()
    assert row == (tenant.id, "job", 7, 2, {"name": "periodic"})
    ticks = value(owner, "select extract(epoch from last_tick)::int / 60 from mindia.task_schedules")
    assert count(owner) <= 2, f"one for the past, and one for a minute that began meanwhile: {ticks}"


def test_run_until_idle_fires_too(queue_app: Mindia, handler: Handler, owner: Owner) -> None:
    queue_app.schedule("often", "* * * * *", Job("periodic"))
    queue_app.run_until_idle()
    owner.execute("update mindia.task_schedules set last_tick = last_tick - interval '1 hour'")
    queue_app.run_until_idle()

    assert handler.names == ["periodic"]


def test_one_that_cannot_be_fired_is_not_in_the_way_of_the_others(
    queue_app: Mindia, handler: Handler, owner: Owner
) -> None:
    tenant = queue_app.tenants.create("Acme")
    queue_app.schedule("bad", "* * * * *", Job("bad"), tenant=tenant)
    queue_app.schedule("good", "* * * * *", Job("good"))
    owner.execute("delete from mindia.tenants where id = %s", (tenant.id,))
    owner.execute("insert into mindia.task_schedules values ('bad', '2000-01-01'), ('good', '2000-01-01')")

    queue_app.run_until_idle()

    assert handler.names == ["good"]


def test_what_cannot_be_is_refused_when_it_is_declared(queue_app: Mindia) -> None:
    queue_app.schedule("nightly", "30 3 * * *", Job(), timezone="Europe/Lisbon")

    with pytest.raises(InvalidError, match="there is a periodic task 'nightly' already"):
        queue_app.schedule("nightly", "* * * * *", Job())
    with pytest.raises(InvalidError, match="Other is not registered"):
        queue_app.schedule("other", "* * * * *", Other())
    with pytest.raises(InvalidError, match="five fields"):
        queue_app.schedule("other", "every day", Job())
    with pytest.raises(InvalidError, match="no time zone"):
        queue_app.schedule("other", "* * * * *", Job(), timezone="Mars/Olympus")
    with pytest.raises(InvalidError, match="max_retries"):
        queue_app.schedule("other", "* * * * *", Job(), max_retries=-1)
    assert attrs.has(Schedule)
    assert the_schedule(queue_app).name == "nightly"
