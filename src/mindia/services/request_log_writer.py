"""Writes requests to the database, off the path of whoever has served them."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

from mindia.db.database import Database
from mindia.db.session import ACROSS_TENANTS, Scope
from mindia.domain.analytics import RequestLogBuffer
from mindia.errors import ClosedError, DatabaseUnavailableError, MindiaError, RoleError
from mindia.repositories import request_log
from mindia.repositories.request_log import Entry

_BATCH = 2_000
_INTERVAL_S = 0.5
_LONGEST_PAUSE_S = 5.0
_COMPLAIN_S = 60.0
_CLOSE_S = 5.0

_log = logging.getLogger("mindia.request_log")


class _Here:
    """What one process has recorded, and its thread."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.entries: deque[Entry] = deque()
        self.lock = threading.Lock()
        self.writing = threading.Lock()
        self.due = threading.Event()
        self.thread: threading.Thread | None = None
        self.written = self.dropped = self.told = 0
        self.may_be_there = False
        self.complained_at: float | None = None


class RequestLogWriter:
    """Keeps requests in memory, up to a bound, and writes them in batches, in a thread of its own. Thread-safe.

    While the database is away they wait; those that have no room any more are dropped, and counted. The thread is begun
    by the first request; a forked child has its own, and leaves to its parent what that has recorded.

    Args:
        database: Where they are written.
        capacity: How many wait in memory at most.
    """

    def __init__(self, database: Database, *, capacity: int) -> None:
        self._database = database
        self._capacity = capacity
        self._closed = False
        self._is_held_to_tenants = False
        self._here_ = _Here()

    @property
    def _here(self) -> _Here:
        here = self._here_
        if here.process != os.getpid():
            here = self._here_ = _Here()
        return here

    def put(self, entry: Entry) -> None:
        """Take a request; never waits for the database, and raises nothing."""
        here = self._here
        entries = here.entries
        if self._closed or len(entries) >= self._capacity:
            with here.lock:
                here.dropped += 1
            return
        entries.append(entry)
        if here.thread is None:
            self._begin(here)
        if len(entries) == _BATCH:
            here.due.set()

    def check_open(self) -> None:
        """Raise where `close` was called."""
        self._database.check_open()

    def flush(self) -> None:
        """Write all that waits now, on the thread of the caller.

        Raises:
            DatabaseUnavailableError: The database is away; what waits goes on waiting.
        """
        self.check_open()
        here = self._here
        with here.writing:
            for _ in range(-(-len(here.entries) // _BATCH)):
                self._write(here)

    def state(self) -> RequestLogBuffer:
        """Return what has become of what this process has recorded."""
        here = self._here
        return RequestLogBuffer(waiting=len(here.entries), written=here.written, dropped=here.dropped)

    def close(self) -> None:
        """Write what waits, where the database takes it within seconds, and end the thread."""
        self._closed = True
        here = self._here
        if here.thread is None:
            return
        here.due.set()
        here.thread.join(_CLOSE_S)
        left = len(here.entries)
        if left:
            here.entries.clear()
            here.dropped += left
            self._complain(here, "the application was closed", at_once=True)

    def _begin(self, here: _Here) -> None:
        with here.lock:
            if here.thread is None:
                here.thread = threading.Thread(
                    target=self._keep_writing, args=(here,), name="mindia-request-log", daemon=True
                )
                here.thread.start()

    def _keep_writing(self, here: _Here) -> None:
        pause_s = _INTERVAL_S
        while True:
            here.due.wait(pause_s)
            here.due.clear()
            try:
                with here.writing:
                    while here.entries:
                        self._write(here)
                pause_s = _INTERVAL_S
            except ClosedError:
                return
            except DatabaseUnavailableError as error:
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                self._complain(here, str(error))
            except Exception:  # noqa: BLE001 - logged; the next batch may do better
                _log.exception("requests are not logged")
            else:
                if here.dropped > here.told:
                    self._complain(here, "there was no room for them, or no such tenant")
            if self._closed:
                return

    def _write(self, here: _Here) -> None:
        """Write one batch. One that did not come to the database is kept, one that failed there is dropped."""
        batch: list[Entry] = []
        with suppress(IndexError):  # it was closed meanwhile
            for _ in range(min(_BATCH, len(here.entries))):
                batch.append(here.entries.popleft())  # noqa: PERF401 - keeps what there was before the end
        if not batch:
            return
        written = 0
        here.may_be_there = False
        try:
            written = self._write_batch(here, batch)
        except DatabaseUnavailableError:
            # Of a commit whose end was not seen nobody knows: written again, its requests might be there twice.
            if not here.may_be_there:
                kept = batch[: max(0, self._capacity - len(here.entries))]
                here.entries.extendleft(reversed(kept))
                batch = batch[len(kept) :]
            raise
        except MindiaError as error:
            self._complain(here, str(error))
        finally:
            with here.lock:
                here.written += written
                here.dropped += len(batch) - written

    def _write_batch(self, here: _Here, batch: list[Entry]) -> int:
        if not self._is_held_to_tenants:
            try:
                return self._write_as(here, ACROSS_TENANTS, batch)
            except RoleError:  # refused before anything was sent
                self._is_held_to_tenants = True
        written = 0
        for tenant_id in sorted({entry.tenant_id for entry in batch} - {""}):
            own = [entry for entry in batch if entry.tenant_id == tenant_id]
            written += self._write_as(here, Scope(tenant_id=request_log.tenant_of(own[0]), is_served=False), own)
        return written

    def _write_as(self, here: _Here, scope: Scope, entries: Sequence[Entry]) -> int:
        # Beside the pool: it shall not wait for connections that requests hold, nor they for this.
        with self._database.side_transaction(scope) as session:
            written = request_log.write(session, entries)
            here.may_be_there = True
        return written

    def _complain(self, here: _Here, reason: str, *, at_once: bool = False) -> None:
        """Log how many were dropped, once in a while."""
        now = time.monotonic()
        is_due = here.complained_at is None or now - here.complained_at >= _COMPLAIN_S
        lost = here.dropped - here.told
        if (lost or here.entries) and (is_due or at_once):
            here.complained_at, here.told = now, here.dropped
            _log.warning("%d requests were not logged, and %d wait to be: %s", lost, len(here.entries), reason)
