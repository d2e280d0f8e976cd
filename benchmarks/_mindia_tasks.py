"""Mindia's queue, in a process as a host's are: connected as the application role, which sees one tenant only."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from unittest.mock import patch
from uuid import UUID

import attrs
from benchmarks._task_queue import Record
from benchmarks._task_side import Side, serve, started

import mindia
from mindia import Settings, TaskContext
from mindia.worker import waker

RECORD = Record(
    tables="mindia.tasks",
    left="select exists (select from mindia.tasks where status = 'pending' and waiting_on = 0) "
    "or exists (select from mindia.tasks where status = 'running')",
    done="select count(*), extract(epoch from max(completed_at) - min(started_at)) from mindia.tasks "
    "where status = 'completed' and started_at >= %(since)s",
    keep="""
        insert into mindia.tasks (id, tenant_id, task_type, kind, payload, status, attempt, created_at, scheduled_for,
                                  started_at, completed_at)
        select (lpad(to_hex((extract(epoch from moment) * 1000)::bigint), 12, '0') || '7' || substr(noise, 1, 3)
                || '8' || substr(noise, 4, 15))::uuid, tenant, 'custom', 'number', '{"number": 1}', 'completed', 1,
               moment, moment, moment, moment
        from (select now() - (%(count)s - n) * interval '1 second' as moment, md5(n::text) as noise
              from generate_series(1, %(count)s) as n) as numbers,
             (select id as tenant from mindia.tenants limit 1) as tenants
    """,
)


@attrs.frozen
class Number:
    """The payload."""

    number: int


class MindiaSide(Side):
    """Run by `python -m benchmarks._mindia_tasks URL TENANT WORKER_ROLE`."""

    def __init__(self, url: str, tenant: str, worker_role: str) -> None:
        settings = Settings(worker_role=worker_role or None, pool_size=16)
        self._app = mindia.connect(url, storage=mindia.MemoryStorage(), settings=settings)
        register(self._app)
        self._tasks = self._app.library(UUID(tenant)).tasks
        self._tasks.counts()
        self.version = mindia.__version__

    def enqueue(self, numbers: Sequence[int]) -> list[tuple[float, float]]:
        return [self._enqueue(number) for number in numbers]

    def enqueue_many(self, count: int) -> None:
        self._tasks.enqueue_many(Number(number) for number in range(count))

    def work(self, concurrency: int) -> None:
        self._app.worker(concurrency=concurrency, shutdown_timeout_s=0).run()

    def _enqueue(self, number: int) -> tuple[float, float]:
        began = time.monotonic()
        self._tasks.enqueue(Number(number))
        return began, time.monotonic()


class MindiaClients(MindiaSide):
    """Enqueues from eight threads at once. With `silent` no worker is ever notified."""

    def __init__(self, url: str, tenant: str, worker_role: str, manner: str) -> None:
        super().__init__(url, tenant, worker_role)
        if manner == "silent":
            patch.object(waker.Waker, "may", lambda _: False).start()
        self._threads = ThreadPoolExecutor(8)

    def enqueue(self, numbers: Sequence[int]) -> list[tuple[float, float]]:
        return list(self._threads.map(self._enqueue, numbers))


def register(app: mindia.Mindia) -> None:
    """Add the type of the tasks."""
    app.register_task("number", Number, _run)


def _run(_: TaskContext, payload: Number) -> None:
    if started(payload.number):
        Event().wait()


if __name__ == "__main__":
    serve(MindiaSide(*sys.argv[1:]) if len(sys.argv) == 4 else MindiaClients(*sys.argv[1:]))
