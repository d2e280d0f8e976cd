"""A queue, as the parent of its processes sees it: where it is, and what its database records."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import LiteralString

import attrs
import psycopg
from benchmarks._task_side import Process

_POLL_S = 0.1


@attrs.frozen(kw_only=True)
class Record:
    """What the statements of a queue are.

    Attributes:
        tables: What is emptied before a new backlog.
        left: Whether any task waits or runs.
        done: How many tasks have ended since a time, and the seconds from the first start to the last end.
        keep: Writes so many finished tasks, as the queue keeps them.
    """

    tables: LiteralString
    left: LiteralString
    done: LiteralString
    keep: LiteralString


@attrs.frozen(kw_only=True)
class Queue:
    """A queue on a database of its own.

    Attributes:
        name: For the report.
        python: Its interpreter.
        module: What runs there.
        url: Of the database, as superuser.
        arguments: Of its processes.
        record: Its statements.
        concurrency: How many tasks a worker runs at once, at its best.
        sample_s: It is so slow that its backlog is drained for so long only, None to the end.
    """

    name: str
    python: str
    module: str
    url: str
    arguments: Sequence[str]
    record: Record
    concurrency: int
    sample_s: float | None = None

    @contextmanager
    def process(self) -> Iterator[Process]:
        """Start a process of it."""
        with Process.running(self.python, self.module, self.arguments) as process:
            yield process

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
        """Connect as superuser, for what is no part of the measurement."""
        with psycopg.connect(self.url, autocommit=True, prepare_threshold=None) as connection:
            # What is asked for while others are measured must not read whole tables.
            connection.execute("set enable_seqscan = off")
            yield connection

    def fill(self, count: int, *, finished: int = 0) -> None:
        """Leave so many tasks that wait and so many that have ended, and the tables in order."""
        with self.connection() as connection, self.process() as producer:
            connection.execute(b"truncate " + self.record.tables.encode() + b" cascade")
            if finished:
                connection.execute("set session_replication_role = replica")
                connection.execute(self.record.keep, {"count": finished})
            producer.enqueue_many(count)
            connection.execute("vacuum analyze")
            connection.execute("checkpoint")

    def drain(self, *, processes: int = 1) -> float:
        """Run what waits, and return how many tasks a second were done, by the record of the database."""
        with self.connection() as connection, ExitStack() as stack:
            workers = [stack.enter_context(self.process()) for _ in range(processes)]
            row = connection.execute("select clock_timestamp()").fetchone()
            assert row is not None
            for worker in workers:
                worker.work(self.concurrency)
            until = time.monotonic() + (self.sample_s or float("inf"))
            while time.monotonic() < until and self._has_left(connection):
                time.sleep(_POLL_S)
            done, seconds = self._done(connection, row[0])
        return done / seconds

    def has_left(self) -> bool:
        """Tell whether any task waits or runs."""
        with self.connection() as connection:
            return self._has_left(connection)

    def _has_left(self, connection: psycopg.Connection[tuple[object, ...]]) -> bool:
        row = connection.execute(self.record.left).fetchone()
        assert row is not None
        return bool(row[0])

    def _done(self, connection: psycopg.Connection[tuple[object, ...]], since: object) -> tuple[int, float]:
        row = connection.execute(self.record.done, {"since": since}).fetchone()
        assert row is not None
        done, seconds = row
        assert isinstance(done, int)
        return done, float(str(seconds))
