"""Limits of what runs at once, and turns of tenants: all workers taken together."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import attrs
import pytest
from tests.faults.harness import wait_until
from tests.integration.queue_jobs import Handler, Job, Other, Owner, Together, running, value

import mindia
from mindia import Library, MemoryStorage, Mindia, Settings, TaskContext, TaskStatus, WorkReport
from mindia._ids import uuid7
from mindia.errors import InvalidError
from mindia.worker import claiming
from mindia.worker.claiming import Room
from mindia.worker.rounds import Rounds


@attrs.frozen
class Limited:
    """A payload of a type with limits."""

    name: str = ""


@contextmanager
def two_workers(app: Mindia, *, concurrency: int = 8) -> Iterator[None]:
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(running(app.worker(concurrency=concurrency)))
        yield


def _left(owner: Owner, kind: str = "limited") -> int:
    number: int = value(
        owner, "select count(*) from mindia.tasks where kind = %s and status in ('pending', 'running')", kind
    )
    return number


def test_no_more_of_a_type_run_at_once_than_it_may(queue_app: Mindia, queue: Library, owner: Owner) -> None:
    together = Together()

    def handler(_: TaskContext, __: Limited) -> None:
        with together.one_more():
            time.sleep(0.01)  # so that there would be more, were there no limit

    queue_app.register_task("limited", Limited, handler, max_running=3)
    queue.tasks.enqueue_many(Limited() for _ in range(60))
    with two_workers(queue_app):
        most = _most_running(owner)

    assert together.most[None] <= 3
    assert most <= 3
    assert _left(owner) == 0


def _most_running(owner: Owner) -> int:
    """Return how many have ever been on record as running until all have ended."""
    most = 0

    def all_ended() -> bool:
        nonlocal most
        most = max(
            most, value(owner, "select count(*) from mindia.tasks where kind = 'limited' and status = 'running'")
        )
        return _left(owner) == 0

    wait_until(all_ended, what="all end")
    return most


def test_no_more_of_a_tenant_run_at_once_than_it_may(queue_app: Mindia, owner: Owner) -> None:
    together = Together()

    def handler(context: TaskContext, _: Limited) -> None:
        with together.one_more(context.library.tenant_id):
            time.sleep(0.01)  # as above

    queue_app.register_task("limited", Limited, handler, max_running_per_tenant=2)
    tenants = [queue_app.tenants.create(name) for name in ("Acme", "Globex", "Initech")]
    for tenant in tenants:
        queue_app.library(tenant).tasks.enqueue_many(Limited() for _ in range(30))
    with two_workers(queue_app):
        wait_until(lambda: _left(owner) == 0, what="all end")

    assert max(together.most.values()) <= 2
    assert len(together.most) == 3


def test_no_more_begin_in_a_second_than_may(queue_app: Mindia, queue: Library, owner: Owner) -> None:
    queue_app.register_task("limited", Limited, lambda _, __: None, max_per_second=20)
    queue.tasks.enqueue_many(Limited() for _ in range(60))
    with two_workers(queue_app):
        wait_until(lambda: _left(owner) == 0, what="all end")

    # Twenty are in the bucket at the beginning, the other forty come at their rate.
    took = value(owner, "select extract(epoch from max(started_at) - min(started_at))::float8 from mindia.tasks")
    assert took >= 1.9


def test_a_rate_below_one_a_second_lets_one_through(queue_app: Mindia, queue: Library, owner: Owner) -> None:
    queue_app.register_task("limited", Limited, lambda _, __: None, max_per_second=0.001)
    queue.tasks.enqueue_many(Limited() for _ in range(3))

    assert queue_app.run_until_idle() == WorkReport(completed=1)
    assert queue_app.run_until_idle() == WorkReport()
    assert _left(owner) == 2


def test_what_waits_for_its_limit_holds_no_thread(
    queue_app: Mindia, queue: Library, handler: Handler, owner: Owner
) -> None:
    go_on = threading.Event()
    queue_app.register_task("limited", Limited, lambda _, __: go_on.wait(60) and None, max_running=1)
    queue.tasks.enqueue_many((Limited() for _ in range(20)), priority=20)
    queue.tasks.enqueue_many(Job() for _ in range(20))
    with running(queue_app.worker(concurrency=2)):
        wait_until(lambda: _left(owner, "job") == 0, what="the others end")
        assert value(owner, "select count(*) from mindia.tasks where status = 'running'") == 1
        go_on.set()
        wait_until(lambda: _left(owner) == 0, what="all end")

    assert len(handler.names) == 20


def test_types_with_limits_get_their_turn_beside_a_long_queue_of_others(
    queue_app: Mindia, queue: Library, handler: Handler
) -> None:
    limited: list[int] = []
    queue_app.register_task("limited", Limited, lambda _, __: limited.append(len(handler.names)), max_running=2)
    queue.tasks.enqueue_many(Job() for _ in range(5_000))
    queue.tasks.enqueue_many(Limited() for _ in range(5))
    with running(queue_app.worker(concurrency=2)):
        wait_until(lambda: len(limited) == 5, what="the limited ones run")

    assert limited[0] < 4_000


def test_limited_tasks_of_a_hundred_tenants_and_of_none_all_run(queue_app: Mindia) -> None:
    names: list[str] = []
    queue_app.register_task("limited", Limited, lambda _, payload: names.append(payload.name), max_running=50)
    for number in range(100):
        queue_app.library(queue_app.tenants.create(f"T{number}")).tasks.enqueue(Limited(str(number)))
    queue_app.tasks.enqueue(Limited("system"))

    assert queue_app.run_until_idle().completed == 101
    assert len(set(names)) == 101


def test_the_same_types_may_be_limited_and_not_in_the_same_worker_with_one_thread(
    queue_app: Mindia, queue: Library, owner: Owner
) -> None:
    for number in range(4):
        kind = f"limited{number}"
        payload = attrs.make_class(f"P{number}", [])
        queue_app.register_task(kind, payload, lambda _, __: None, max_running=1 + number)
        queue.tasks.enqueue_many([payload() for _ in range(5)])
        queue_app.tasks.enqueue_many([payload() for _ in range(5)])
    queue.tasks.enqueue_many([Job() for _ in range(5)])
    with running(queue_app.worker(concurrency=1)):
        wait_until(
            lambda: not value(owner, "select count(*) from mindia.tasks where status in ('pending', 'running')"),
            what="all end",
        )


@pytest.mark.parametrize(
    "limits",
    [
        {"max_running": 0},
        {"max_running": -1},
        {"max_running": 2**31},
        {"max_running_per_tenant": 0},
        {"max_per_second": 0},
        {"max_per_second": float("nan")},
        {"max_per_second": float("inf")},
        {"max_running": 1.5},
        {"max_running": "many"},
    ],
)
def test_a_limit_that_nobody_could_keep_is_refused(queue_app: Mindia, limits: dict[str, Any]) -> None:
    with pytest.raises(InvalidError, match=next(iter(limits))):
        queue_app.register_task("limited", Limited, lambda _, __: None, **limits)
    queue_app.register_task("limited", Limited, lambda _, __: None)


class TestTurns:
    def test_a_tenant_with_many_tasks_does_not_delay_the_first_of_another(
        self, queue_url: str, queue_settings: Settings
    ) -> None:
        with mindia.connect(queue_url, storage=MemoryStorage(), settings=queue_settings) as app:
            app.register_task("job", Job, lambda _, __: None)
            noisy, quiet = (app.library(app.tenants.create(name)) for name in ("Noisy", "Quiet"))
            noisy.tasks.enqueue_many(Job() for _ in range(8_000))
            rounds = Rounds(app._runtime(), uuid7(), app._runtime().registry.kinds)
            room = Room(limit=4, free=4, threads=4)
            assert {task.tenant_id for _ in range(3) for task in rounds.go(room=room).tasks} == {noisy.tenant_id}
            quiet.tasks.enqueue(Job())

            # It takes a tenth of a second, or ten times as long as looking, to notice that another tenant waits.
            until = time.monotonic() + 10
            turns: list[set[UUID | None]] = []
            while not any(quiet.tenant_id in turn for turn in turns) and time.monotonic() < until:
                turns.append({task.tenant_id for task in rounds.go(room=room).tasks})
            turns += [{task.tenant_id for task in rounds.go(room=room).tasks}]
            waiting = noisy.tasks.counts()

        assert any(quiet.tenant_id in turn for turn in turns)
        assert noisy.tenant_id in turns[-1], "the other one goes on"
        assert {each.status: each.count for each in waiting}[TaskStatus.PENDING] > 0, "long before the other's are done"

    @pytest.mark.parametrize(
        ("room", "rounds_until"),
        [(Room(limit=1, free=1, threads=1), 1), (Room(limit=1, free=0, threads=1), 10)],
        ids=["as threads are free", "in reserve"],
    )
    def test_what_was_committed_late_is_not_passed_over_for_long(
        self, queue_app: Mindia, queue: Library, monkeypatch: pytest.MonkeyPatch, room: Room, rounds_until: int
    ) -> None:
        rounds = Rounds(queue_app._runtime(), uuid7(), ["job"])

        def names(count: int) -> list[object]:
            return [task.payload for _ in range(count) for task in rounds.go(room=room).tasks]

        with queue.transaction() as late:
            late.tasks.enqueue(Job("late"))
            queue.tasks.enqueue_many(Job() for _ in range(100))
            assert names(1) == [{"name": ""}]
        assert names(20) == [{"name": ""}] * 20, "a worker goes on from where it was"

        in_a_while = SimpleNamespace(monotonic=lambda: time.monotonic() + 2)
        monkeypatch.setattr(claiming, "time", in_a_while)
        assert {"name": "late"} in names(rounds_until)

    def test_many_tenants_get_the_same_share(self, queue_app: Mindia) -> None:
        for number in range(20):
            queue_app.library(queue_app.tenants.create(f"T{number}")).tasks.enqueue_many(Job() for _ in range(100))
        rounds = Rounds(queue_app._runtime(), uuid7(), ["job"])
        room = Room(limit=5, free=5, threads=5)
        rounds.go(room=room)  # finds out who waits

        shares: dict[object, int] = {}
        for _ in range(8):
            for task in rounds.go(room=room).tasks:
                shares[task.tenant_id] = shares.get(task.tenant_id, 0) + 1

        assert len(shares) == 20
        assert set(shares.values()) <= {1, 2, 3, 4}

    def test_a_worker_takes_only_the_types_that_it_was_told(
        self, queue_app: Mindia, queue: Library, owner: Owner
    ) -> None:
        others: list[int] = []
        queue_app.register_task("other", Other, lambda _, payload: others.append(payload.number))
        queue.tasks.enqueue_many([Other(1), Other(2)])
        with running(queue_app.worker(types=["job"])):
            queue.tasks.enqueue(Job("hers"))
            wait_until(lambda: _left(owner, "job") == 0, what="the job ends")
        assert others == []
        with running(queue_app.worker(types=["other", "other"])):
            wait_until(lambda: _left(owner, "other") == 0, what="the others end")

        assert sorted(others) == [1, 2]
        for wrong in ([], ["nothing"], "job"):
            with pytest.raises(InvalidError):
                queue_app.worker(types=wrong)
