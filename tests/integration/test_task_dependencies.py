"""Tasks that wait for others."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.faults.harness import wait_until
from tests.integration.queue_jobs import Handler, Job, Owner, make_due, running, status, value

from mindia import Library, Mindia, Task, TaskContext, TaskStatus, WorkReport
from mindia._ids import uuid7
from mindia.errors import ConflictError, DiscardTask, InvalidError, NotFoundError
from mindia.worker import housekeeping

PENDING, COMPLETED = TaskStatus.PENDING, TaskStatus.COMPLETED
FAILED, CANCELLED = TaskStatus.FAILED, TaskStatus.CANCELLED


@pytest.fixture(autouse=True)
def _bad_ones_fail(handler: Handler) -> None:
    def does(_: TaskContext, job: Job) -> None:
        if job.name.startswith("bad"):
            raise DiscardTask("bad")

    handler.does = does


def test_a_chain_runs_in_its_order(queue_app: Mindia, queue: Library, handler: Handler) -> None:
    first = queue.tasks.enqueue(Job("first"), priority=-10)
    second = queue.tasks.enqueue(Job("second"), depends_on=[first])
    third = queue.tasks.enqueue(Job("third"), priority=20, depends_on=[second.id])
    assert [task.waiting_on for task in (first, second, third)] == [0, 1, 1]

    assert queue_app.run_until_idle() == WorkReport(completed=3)

    assert handler.names == ["first", "second", "third"]
    assert queue.tasks.get(third.id).waiting_on == 0


def test_a_diamond_joins_once_both_sides_have_ended(queue_app: Mindia, queue: Library, handler: Handler) -> None:
    top = queue.tasks.enqueue(Job("top"))
    sides = [queue.tasks.enqueue(Job(name), depends_on=[top]) for name in ("left", "right")]
    bottom = queue.tasks.enqueue(Job("bottom"), priority=20, depends_on=[*sides, sides[0]])
    assert bottom.waiting_on == 2

    queue_app.run_until_idle()

    assert handler.names == ["top", "left", "right", "bottom"]


@pytest.fixture
def _reconciled_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have workers look through dependencies often: where two parts end at the same moment, that lets go the whole."""
    monkeypatch.setattr(housekeeping, "_TICK_S", 0.1)
    monkeypatch.setattr(housekeeping, "_RECONCILE_S", 0.1)


@pytest.mark.usefixtures("_reconciled_often")
def test_many_that_end_at_the_same_time_in_two_workers_let_go_what_waits_for_all_of_them(
    queue_app: Mindia, queue: Library, handler: Handler
) -> None:
    with running(queue_app.worker()), running(queue_app.worker()):
        for _ in range(5):
            with queue.transaction() as tx:
                parts = [tx.tasks.enqueue(Job("part")) for _ in range(60)]
                whole = tx.tasks.enqueue(Job("whole"), depends_on=parts)
            assert queue.tasks.wait(whole).status is COMPLETED
            assert handler.names[-1] == "whole"


def test_a_dependency_that_has_completed_is_not_waited_for(queue_app: Mindia, queue: Library) -> None:
    done = queue.tasks.enqueue(Job())
    queue_app.run_until_idle()

    task = queue.tasks.enqueue(Job(), depends_on=[done])

    assert task.waiting_on == 0
    assert queue_app.run_until_idle() == WorkReport(completed=1)


def test_a_failure_calls_off_all_that_waits_over_several_levels(
    queue_app: Mindia, queue: Library, handler: Handler
) -> None:
    bad, good = queue.tasks.enqueue(Job("bad")), queue.tasks.enqueue(Job("good"))
    children = [queue.tasks.enqueue(Job("child"), depends_on=[bad, good]) for _ in range(2)]
    grandchild = queue.tasks.enqueue(Job("grandchild"), depends_on=children)
    survivor = queue.tasks.enqueue(Job("survivor"), depends_on=[grandchild], on_failure="proceed")

    assert queue_app.run_until_idle() == WorkReport(completed=2, failed=1)

    assert status(queue, bad, good, *children, grandchild, survivor) == [
        FAILED, COMPLETED, CANCELLED, CANCELLED, CANCELLED, COMPLETED,
    ]  # fmt: skip
    assert handler.names == ["bad", "good", "survivor"]
    called_off = queue.tasks.get(children[0].id)
    assert called_off.error_message == f"the task {bad.id}, which it waited for, did not complete"
    assert called_off.completed_at is not None


def test_what_is_to_proceed_runs_all_the_same(queue_app: Mindia, queue: Library, handler: Handler) -> None:
    bad = queue.tasks.enqueue(Job("bad"))
    queue.tasks.enqueue(Job("after"), depends_on=[bad], on_failure="proceed")

    assert queue_app.run_until_idle() == WorkReport(completed=1, failed=1)
    assert handler.names == ["bad", "after"]


def test_a_dependency_that_waits_and_is_called_off_calls_off_what_waits_for_it(
    queue_app: Mindia, queue: Library
) -> None:
    first = queue.tasks.enqueue(Job())
    second = queue.tasks.enqueue(Job(), depends_on=[first])
    third = queue.tasks.enqueue(Job(), depends_on=[second])
    anyway = queue.tasks.enqueue(Job(), depends_on=[first], on_failure="proceed")

    queue.tasks.cancel(first)

    assert status(queue, second, third, anyway) == [CANCELLED, CANCELLED, PENDING]
    assert queue_app.run_until_idle() == WorkReport(completed=1)


def test_a_retry_of_a_dependency_is_waited_for(queue_app: Mindia, queue: Library, owner: Owner) -> None:
    task = queue.tasks.enqueue(Job("bad"))
    queue.tasks.enqueue(Job(), depends_on=[task])
    queue_app.run_until_idle()
    queue.tasks.retry(task)
    (waits,) = queue.tasks.list(status="cancelled")

    assert queue.tasks.retry(waits).waiting_on == 1
    queue_app.run_until_idle()
    make_due(owner)
    assert status(queue, task, waits) == [FAILED, CANCELLED]

    assert queue.tasks.retry(waits).waiting_on == 0  # whoever tries it again now wants it without the other one
    assert queue_app.run_until_idle() == WorkReport(completed=1)


def test_what_is_missing_foreign_or_has_failed_is_refused_and_nothing_is_written(
    queue_app: Mindia, queue: Library, owner: Owner
) -> None:
    theirs = queue_app.library(queue_app.tenants.create("Globex")).tasks.enqueue(Job())
    systems = queue_app.tasks.enqueue(Job())
    bad = queue.tasks.enqueue(Job("bad"))
    off = queue.tasks.enqueue(Job())
    queue.tasks.cancel(off)
    queue_app.run_until_idle()
    before = value(owner, "select count(*) from mindia.tasks")

    for missing in (uuid7(), theirs, systems):
        with pytest.raises(NotFoundError, match="to depend on"):
            queue.tasks.enqueue(Job(), depends_on=[missing])
    for ended, said in ((bad, "failed"), (off, "cancelled")):
        with pytest.raises(ConflictError, match=f"is {said}; on_failure='proceed'"):
            queue.tasks.enqueue(Job(), depends_on=[ended])
    with pytest.raises(InvalidError, match="at most 1000 others"):
        queue.tasks.enqueue(Job(), depends_on=[uuid7() for _ in range(1001)])

    assert value(owner, "select count(*) from mindia.tasks") == before
    queue.tasks.enqueue(Job(), depends_on=[bad, off], on_failure="proceed")
    assert queue_app.run_until_idle() == WorkReport(completed=1)


@pytest.mark.parametrize(("name", "ends"), [("good", COMPLETED), ("bad", CANCELLED)])
def test_a_dependency_that_ends_while_the_transaction_of_what_waits_is_open_is_noticed(
    queue_app: Mindia, queue: Library, name: str, ends: TaskStatus
) -> None:
    first = queue.tasks.enqueue(Job(name))
    with queue.transaction() as tx:
        second = tx.tasks.enqueue(Job(), depends_on=[first])
        third = tx.tasks.enqueue(Job(), depends_on=[second])
        with ThreadPoolExecutor(1) as pool:
            pool.submit(queue_app.run_until_idle).result(30)
    assert queue.tasks.get(second.id).waiting_on == 1

    queue_app.run_until_idle()

    assert status(queue, second, third) == [ends, ends]


@pytest.mark.usefixtures("_reconciled_often")
def test_a_worker_notices_it_by_itself(queue_app: Mindia, queue: Library) -> None:
    first = queue.tasks.enqueue(Job("first"))
    with running(queue_app.worker()):
        with queue.transaction() as tx:
            second = tx.tasks.enqueue(Job(), depends_on=[first])
            wait_until(lambda: status(queue, first) == [COMPLETED], what="the first one ends")
        assert queue.tasks.wait(second).status is COMPLETED


def test_a_row_that_an_open_transaction_holds_is_in_nobodys_way(queue_app: Mindia, queue: Library) -> None:
    first = queue.tasks.enqueue(Job("first"))
    second = queue.tasks.enqueue(Job("second"), depends_on=[first])
    other = queue.tasks.enqueue(Job("other"))
    with queue.transaction() as tx:
        tx.tasks.reschedule(second, second.scheduled_for)
        with ThreadPoolExecutor(1) as pool:
            pool.submit(queue_app.run_until_idle).result(30)
        assert status(queue, first, other, second) == [COMPLETED, COMPLETED, PENDING]

    queue_app.run_until_idle()
    assert status(queue, second) == [COMPLETED]


def test_a_task_of_the_system_waits_for_one(queue_app: Mindia, handler: Handler) -> None:
    first = queue_app.tasks.enqueue(Job("first"))
    queue_app.tasks.enqueue(Job("second"), priority=20, depends_on=[first])

    queue_app.run_until_idle()

    assert handler.names == ["first", "second"]


def test_one_with_a_key_that_is_taken_waits_for_nothing_new(queue: Library, owner: Owner) -> None:
    first: Task = queue.tasks.enqueue(Job(), dedup_key="k")
    other = queue.tasks.enqueue(Job())

    assert queue.tasks.enqueue(Job(), dedup_key="k", depends_on=[other]).id == first.id
    assert value(owner, "select count(*) from mindia.task_dependencies") == 0
