"""A worker, and tasks that show what becomes of them."""

from __future__ import annotations

import os
import random
import signal
import time
from datetime import timedelta

import attrs
import psycopg
from tests.faults.child import hear, ready, report

import mindia
from mindia import Mindia, Settings, TaskContext

SETTINGS = Settings(
    heartbeat=timedelta(seconds=0.2),
    worker_timeout=timedelta(seconds=1.5),
    poll=timedelta(seconds=0.05),
    maintenance=timedelta(seconds=1),
    retry_base=timedelta(milliseconds=10),
    pool_timeout_s=1.0,
)
"""A worker that was not heard of for 1.5 seconds is taken for dead."""

HANDLED = "create table handled (task_id uuid, attempt integer, primary key (task_id, attempt))"
"""The host's own table: an attempt that ran twice would violate its key."""


@attrs.frozen
class Write:
    """Write down that the task ran, after up to some milliseconds."""

    milliseconds: int = 0


@attrs.frozen
class Wait:
    """Report "began <attempt>", and do as the test says: "go on" or "fail"."""


@attrs.frozen
class KillWorker:
    """Kill the process that runs the task, or do nothing at all."""

    kills: bool = True


def connect(url: str, *, settings: Settings = SETTINGS) -> Mindia:
    """Return an application that knows the tasks."""
    app = mindia.connect(url, storage=mindia.MemoryStorage(), settings=settings)
    app.register_task("write", Write, _write)
    app.register_task("wait", Wait, _wait)
    app.register_task("kill_worker", KillWorker, _kill_worker)
    return app


def work(url: str, concurrency: int) -> None:
    """Run a worker until SIGTERM."""
    with connect(url) as app:
        ready()
        report(f"ended {app.worker(concurrency=concurrency).run()}")


def work_impatiently(url: str) -> None:
    """Run a worker that does not wait for its tasks when it is told to stop."""
    with connect(url) as app:
        app.worker(shutdown_timeout_s=0.05).run()


def work_lazily(url: str) -> None:
    """Run a worker that looks for work once an hour."""
    with connect(url, settings=attrs.evolve(SETTINGS, poll=timedelta(hours=1))) as app:
        app.worker().run()


def _write(context: TaskContext, payload: Write) -> None:
    with context.library.transaction() as tx:
        tx.connection.execute("insert into handled values (%s, %s)", (context.task.id, context.task.attempt))
        time.sleep(random.uniform(0, payload.milliseconds / 1000))  # so that faults come in the middle, too
    report(f"wrote {context.task.id}")


def _wait(context: TaskContext, _: Wait) -> None:
    report(f"began {context.task.attempt}")
    if hear() == "fail":
        raise RuntimeError("as the test said")


def _kill_worker(_: TaskContext, payload: KillWorker) -> None:
    if payload.kills:
        os.kill(os.getpid(), signal.SIGKILL)


def prepare(url: str) -> None:
    """Make the tables of Mindia and of the host."""
    with connect(url) as app, psycopg.connect(url, autocommit=True) as connection:
        app.migrate()
        connection.execute(HANDLED)
