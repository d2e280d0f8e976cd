"""procrastinate, in a process and a virtual environment of its own, at its best: all asynchronous, on uvloop."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Sequence
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from benchmarks._task_side import Side, serve, started

if TYPE_CHECKING:
    from benchmarks._task_queue import Record

_BATCH = 1000


def record() -> Record:
    """Return what the parent needs."""
    from benchmarks._task_queue import Record

    return Record(
        tables="procrastinate_jobs, procrastinate_events",
        left="select exists (select from procrastinate_jobs where status = any (array['todo', 'doing']"
        "::procrastinate_job_status[]))",
        done="select count(*) filter (where type = 'succeeded'), extract(epoch from max(at) filter "
        "(where type = 'succeeded') - min(at) filter (where type = 'started')) from procrastinate_events "
        "where at >= %(since)s",
        keep="""
            with kept as (
                insert into procrastinate_jobs (queue_name, task_name, args, status, attempts)
                select 'default', 'number', '{"number": 1}', 'succeeded', 1 from generate_series(1, %(count)s)
                returning id
            )
            insert into procrastinate_events (job_id, type, at)
            select id, type::procrastinate_job_event_type, now() - interval '1 day'
            from kept, unnest(array['deferred', 'started', 'succeeded']) as types (type)
        """,
    )


class ProcrastinateSide(Side):
    """Run by `python -m benchmarks._procrastinate URL`; with `schema` as a second argument it makes its tables."""

    def __init__(self, url: str) -> None:
        library: Any = import_module("procrastinate")
        uvloop: Any = import_module("uvloop")
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._app = library.App(connector=library.PsycopgConnector(conninfo=url, min_size=4, max_size=10))

        @self._app.task(name="number")  # type: ignore[untyped-decorator]  # of a library that is not installed here
        async def run(number: int) -> None:
            if started(number):
                await asyncio.Event().wait()

        self._task = run
        self._run(self._app.open_async())
        self.version = version("procrastinate")

    def make_tables(self) -> None:
        self._run(self._app.schema_manager.apply_schema_async())
        self._run(self._app.close_async())

    def enqueue(self, numbers: Sequence[int]) -> list[tuple[float, float]]:
        async def each() -> list[tuple[float, float]]:
            calls = []
            for number in numbers:
                began = time.monotonic()
                await self._task.defer_async(number=number)
                calls.append((began, time.monotonic()))
            return calls

        calls: list[tuple[float, float]] = self._run(each())
        return calls

    def enqueue_many(self, count: int) -> None:
        async def all_() -> None:
            for start in range(0, count, _BATCH):
                numbers = range(start, min(start + _BATCH, count))
                await self._task.batch_defer_async(*({"number": number} for number in numbers))

        self._run(all_())

    def work(self, concurrency: int) -> None:
        self._run(self._app.run_worker_async(concurrency=concurrency, shutdown_graceful_timeout=0))

    def _run(self, work: Awaitable[Any]) -> Any:
        async def awaited() -> Any:
            return await work

        return self._runner.run(awaited())


if __name__ == "__main__":
    side = ProcrastinateSide(sys.argv[1])
    if sys.argv[2:] == ["schema"]:
        side.make_tables()
    else:
        serve(side)
