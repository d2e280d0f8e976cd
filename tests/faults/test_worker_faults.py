"""No task is lost and none is stuck: whatever becomes of workers, and of the database under them."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.rows import dict_row
from tests.faults.harness import Child, Harness, Server, wait_until
from tests.faults.invariants import number
from tests.faults.worker_workload import SETTINGS, KillWorker, Wait, Write, connect, prepare, work, work_impatiently

from mindia import Library, Mindia, Task, TaskStatus

_KILLS = 20
_TASKS_PER_KILL = 15


class _Place:
    """A database, an application and a tenant of the test's own."""

    def __init__(self, harness: Harness, server: Server) -> None:
        self.harness = harness
        self.server = server
        self.url = server.new_database()
        prepare(self.url)
        self.app: Mindia = connect(self.url)
        self.library: Library = self.app.library(self.app.tenants.create("Acme"))

    def start_worker(self, *, concurrency: int = 4) -> Child:
        return self.harness.start(work, self.url, concurrency)

    def keep_a_worker_until_ended(self, task: Task) -> None:
        """Start a worker whenever the one before has died, as a supervisor does."""
        worker = self.start_worker()

        def ended() -> bool:
            nonlocal worker
            if not worker.is_alive():
                assert worker.wait() == -signal.SIGKILL, worker.output()
                worker = self.start_worker()
            return self.library.tasks.get(task.id).is_finished

        wait_until(ended, what="the task ends")

    def row(self, task: Task) -> dict[str, Any]:
        with psycopg.connect(self.url, row_factory=dict_row) as connection:
            row = connection.execute("select * from mindia.tasks where id = %s", (task.id,)).fetchone()
        assert row is not None
        return row

    def errors(self, task: Task) -> list[tuple[int, str]]:
        with psycopg.connect(self.url) as connection:
            return connection.execute(
                "select attempt, error_type from mindia.task_errors where task_id = %s order by attempt", (task.id,)
            ).fetchall()

    def wait_until_ended(self, task: Task) -> Task:
        def ended() -> bool:
            return self.library.tasks.get(task.id).status in (TaskStatus.COMPLETED, TaskStatus.FAILED)

        wait_until(ended, what=f"{task.kind} task ends")
        return self.library.tasks.get(task.id)

    def wait_until_all_ended(self) -> None:
        wait_until(
            lambda: not number(self.url, "select count(*) from mindia.tasks where status in ('pending', 'running')"),
            what="all tasks end",
        )


@pytest.fixture
def place(harness: Harness, server: Server) -> Iterator[_Place]:
    place = _Place(harness, server)
    with place.app:
        yield place


def test_tasks_of_a_killed_worker_run_again_on_another_and_that_counts_against_their_retries(place: _Place) -> None:
    task = place.library.tasks.enqueue(Wait(), max_retries=1)
    killed = place.start_worker()
    killed.wait_for_line("began 1")
    other = place.start_worker()
    other.wait_until_ready()

    killed.kill()
    other.wait_for_line("began 2")
    other.send("go on")

    ended = place.wait_until_ended(task)
    assert (ended.status, ended.attempt, ended.retry_count) == (TaskStatus.COMPLETED, 2, 1)
    assert place.errors(task) == [(1, "WorkerDied")]
    other.terminate()
    assert other.wait() == 0, other.output()
    assert number(place.url, "select count(*) from mindia.workers") == 0


def test_a_task_that_kills_its_worker_fails_once_its_retries_are_used_up(place: _Place) -> None:
    task = place.library.tasks.enqueue(KillWorker(), max_retries=1)
    harmless = [place.library.tasks.enqueue(Write(), max_retries=5) for _ in range(5)]
    place.keep_a_worker_until_ended(task)
    ended = place.library.tasks.get(task.id)

    assert (ended.status, ended.retry_count) == (TaskStatus.FAILED, 1)
    assert ended.error_message == "the worker died"
    assert {error for _, error in place.errors(task)} == {"WorkerDied"}
    assert all(place.wait_until_ended(each).status is TaskStatus.COMPLETED for each in harmless)


def test_a_task_that_kills_its_worker_takes_none_of_those_in_reserve_down_with_it(place: _Place) -> None:
    with place.library.transaction() as tx:
        # Enough for the worker to find out that they are short, and to take more of them than it has threads. Of one
        # type, they come in their order.
        harmless = [tx.tasks.enqueue(KillWorker(kills=False), max_retries=3) for _ in range(300)]
        poison = tx.tasks.enqueue(KillWorker(), max_retries=3)
        harmless += [tx.tasks.enqueue(KillWorker(kills=False), max_retries=3) for _ in range(300)]

    place.keep_a_worker_until_ended(poison)
    place.start_worker()
    place.wait_until_all_ended()

    ended = place.library.tasks.get(poison.id)
    assert (ended.status, ended.retry_count) == (TaskStatus.FAILED, 3)
    suspected = number(place.url, "select count(*) from mindia.tasks where is_suspect")
    assert suspected > 4, "none was in reserve when the worker died"
    assert {place.library.tasks.get(task.id).status for task in harmless} == {TaskStatus.COMPLETED}


@pytest.mark.parametrize("says", ["go on", "fail"])
def test_a_worker_that_was_given_up_on_changes_nothing(place: _Place, says: str) -> None:
    task = place.library.tasks.enqueue(Wait())
    given_up = place.start_worker()
    given_up.wait_for_line("began 1")
    given_up.stop()
    other = place.start_worker()
    other.wait_for_line("began 2")
    before, errors = place.row(task), place.errors(task)

    given_up.resume()
    given_up.send(says)
    given_up.terminate()

    assert given_up.wait() == 0, given_up.output()
    assert "completed=0, failed=0, retried=0" in given_up.lines[-1]
    assert place.row(task) == before
    assert place.errors(task) == errors == [(1, "WorkerDied")]
    other.send("go on")
    ended = place.wait_until_ended(task)
    assert (ended.status, ended.attempt) == (TaskStatus.COMPLETED, 2)


def test_no_task_is_lost_and_none_is_stuck_after_20_random_kills_of_workers(place: _Place) -> None:
    tasks: list[Task] = []
    workers = [place.start_worker() for _ in range(3)]
    for _ in range(_KILLS):
        with place.library.transaction() as tx:
            tasks += [tx.tasks.enqueue(Write(milliseconds=30), max_retries=_KILLS) for _ in range(_TASKS_PER_KILL)]
        place.harness.kill_at_random(workers.pop(0), max_lines=0, max_delay_s=0.2)
        workers.append(place.start_worker())
    place.wait_until_all_ended()

    handled = _handled(place.url)
    for task in tasks:
        ended = place.library.tasks.get(task.id)
        assert ended.status is TaskStatus.COMPLETED
        assert ended.attempt in handled[task.id]
        errors = place.errors(task)
        # One that was put back unbegun has left no trace but its number.
        assert {error for _, error in errors} <= {"WorkerDied"}
        assert ended.retry_count <= len(errors) <= ended.attempt - 1
    assert any(place.errors(task) for task in tasks), "no kill has hit a task"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_20000_tasks_outlive_100_random_kills_of_workers_and_5_restarts_of_postgresql(place: _Place) -> None:
    workers = [place.start_worker() for _ in range(3)]
    for kill in range(100):
        place.library.tasks.enqueue_many((Write(milliseconds=5) for _ in range(200)), max_retries=1000)
        place.harness.kill_at_random(workers.pop(0), max_lines=0, max_delay_s=0.4)
        workers.append(place.start_worker())
        if kill % 20 == 10:
            (Server.crash if kill % 40 == 10 else Server.restart)(place.server)
    wait_until(
        lambda: not number(place.url, "select count(*) from mindia.tasks where status in ('pending', 'running')"),
        what="all tasks end",
        timeout_s=600,
    )

    assert number(place.url, "select count(*) from mindia.tasks where status = 'completed'") == 20_000
    # The attempt that is on record as the one that completed has run, once: its row in the host's table says so.
    assert not number(
        place.url,
        "select count(*) from mindia.tasks t where not exists "
        "(select from handled h where h.task_id = t.id and h.attempt = t.attempt)",
    )
    assert number(place.url, "select count(*) from mindia.task_errors") > 0, "no kill has hit a task"


@pytest.mark.parametrize("fault", [Server.crash, Server.restart, Server.cut_connections])
def test_a_worker_goes_on_by_itself_after_postgresql_was_restarted(
    place: _Place, fault: Callable[[Server], None]
) -> None:
    worker = place.start_worker()
    worker.wait_until_ready()
    tasks: list[Task] = []
    for _ in range(2):
        with place.library.transaction() as tx:
            tasks += [tx.tasks.enqueue(Write(milliseconds=30), max_retries=1000) for _ in range(60)]
        worker.wait_for_more(5)
        place.harness.pause(0.05)
        fault(place.server)
    place.wait_until_all_ended()

    assert {place.library.tasks.get(task.id).status for task in tasks} == {TaskStatus.COMPLETED}
    assert not [error for task in tasks for error in place.errors(task) if error[1] == "WorkerDied"]
    assert set(_handled(place.url)) == {task.id for task in tasks}
    worker.terminate()
    assert worker.wait() == 0, worker.output()


def test_workers_that_an_outage_of_the_database_made_silent_are_not_taken_for_dead(place: _Place) -> None:
    tasks = [place.library.tasks.enqueue(Wait()) for _ in range(2)]
    workers = [place.start_worker(concurrency=1) for _ in range(2)]
    for worker in workers:
        worker.wait_for_line("began 1")

    place.server.stop()
    workers[0].send("go on")  # the end of a task that nobody can be told of now
    time.sleep(1.5 * SETTINGS.worker_timeout.total_seconds())  # the outage
    place.server.start()
    heard_of = """
        select count(*) from mindia.workers
        where heartbeat_at > pg_postmaster_start_time() + 1.5 * %s::interval
    """
    wait_until(
        lambda: number(place.url, heard_of, SETTINGS.worker_timeout) == 2,
        what="both are heard of for long enough to have looked for the dead",
    )
    workers[1].send("go on")

    assert [place.wait_until_ended(task).attempt for task in tasks] == [1, 1]
    assert [place.errors(task) for task in tasks] == [[], []]


def test_a_worker_that_is_started_before_the_database_waits_for_it(place: _Place) -> None:
    task = place.library.tasks.enqueue(Write())
    place.server.stop()
    worker = place.start_worker()
    hopeless = place.start_worker()
    for child in (worker, hopeless):
        wait_until(lambda child=child: "waits for the database" in child.output(), what="a worker waits")  # type: ignore[misc]  # mypy cannot type the default
    hopeless.terminate()
    assert hopeless.wait() == 0, hopeless.output()
    place.server.start()

    assert place.wait_until_ended(task).status is TaskStatus.COMPLETED
    assert worker.is_alive()


def test_a_worker_that_is_told_to_stop_during_an_outage_ends(place: _Place) -> None:
    task = place.library.tasks.enqueue(Wait(), max_retries=0)
    worker = place.harness.start(work_impatiently, place.url)
    worker.wait_for_line("began 1")
    place.server.stop()

    worker.terminate()

    assert worker.wait() == 0, worker.output()
    place.server.start()
    assert place.library.tasks.get(task.id).status is TaskStatus.RUNNING  # until somebody looks for the dead


def _handled(url: str) -> dict[UUID, set[int]]:
    with psycopg.connect(url) as connection:
        rows = connection.execute("select task_id, array_agg(attempt) from handled group by task_id").fetchall()
    return {task_id: set(attempts) for task_id, attempts in rows}
