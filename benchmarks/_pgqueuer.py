"""pgqueuer, in a process and a virtual environment of its own, at its best: asyncpg on uvloop, batches of 500."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Coroutine, Sequence
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
        tables="pgqueuer, pgqueuer_log, pgqueuer_statistics",
        left="select exists (select from pgqueuer)",
        done="select count(*) filter (where status = 'successful'), extract(epoch from max(created) filter "
        "(where status = 'successful') - min(created) filter (where status = 'picked')) from pgqueuer_log "
        "where created >= %(since)s",
        keep="""
            insert into pgqueuer_log (created, job_id, status, priority, entrypoint, aggregated)
            select now() - interval '1 day', -n, 'successful', 0, 'number', true
            from generate_series(1, %(count)s) as n
        """,
    )


class PgqueuerSide(Side):
    """Run by `python -m benchmarks._pgqueuer URL`; with `schema` as a second argument it makes its tables."""

    def __init__(self, url: str) -> None:
        asyncpg: Any = import_module("asyncpg")
        drivers: Any = import_module("pgqueuer.db")
        queries: Any = import_module("pgqueuer.queries")
        self._manager: Any = import_module("pgqueuer.qm")
        uvloop: Any = import_module("uvloop")
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)

        async def connect() -> Any:
            return queries.Queries(drivers.AsyncpgDriver(await asyncpg.connect(url)))

        self._queries = self._runner.run(connect())
        self.version = version("pgqueuer")

    def make_tables(self) -> None:
        self._runner.run(self._queries.install())

    def enqueue(self, numbers: Sequence[int]) -> list[tuple[float, float]]:
        async def each() -> list[tuple[float, float]]:
            calls = []
            for number in numbers:
                began = time.monotonic()
                await self._queries.enqueue("number", str(number).encode())
                calls.append((began, time.monotonic()))
            return calls

        calls: list[tuple[float, float]] = self._run(each())
        return calls

    def enqueue_many(self, count: int) -> None:
        async def all_() -> None:
            for start in range(0, count, _BATCH):
                payloads = [str(number).encode() for number in range(start, min(start + _BATCH, count))]
                await self._queries.enqueue(["number"] * len(payloads), payloads, [0] * len(payloads))

        self._run(all_())

    def work(self, concurrency: int) -> None:
        async def run() -> None:
            manager = self._manager.QueueManager(self._queries)

            @manager.entrypoint("number")  # type: ignore[untyped-decorator]  # of a library that is not installed here
            async def number(job: Any) -> None:
                if started(int(job.payload)):
                    await asyncio.Event().wait()

            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, manager.shutdown.set)
            await manager.run(batch_size=concurrency)

        self._run(run())

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self._runner.run(work)


if __name__ == "__main__":
    side = PgqueuerSide(sys.argv[1])
    if sys.argv[2:] == ["schema"]:
        side.make_tables()
    else:
        serve(side)
