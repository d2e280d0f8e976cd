"""Wakes a worker when a task is written while it waits."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, LiteralString

import psycopg

from mindia.errors import MindiaError
from mindia.worker.rounds import Runtime

_EVENTS: LiteralString = "mindia_webhooks"

_WAIT_S = 0.1
"""How long a worker that is told to stop waits for its listener; the driver itself waits no longer at a time."""

_CLOSE_S = 2.0
_AGAIN_S = 5.0

_log = logging.getLogger("mindia.worker")


class Listener:
    """Listens on a connection of its own. Behind a proxy that pools transactions nothing comes: then polling is all.

    Args:
        runtime: What the worker works with.
        on_task: Is called when there may be a task to run.
        on_event: Is called when there may be an event to deliver.
    """

    def __init__(self, runtime: Runtime, *, on_task: Callable[[], object], on_event: Callable[[], object]) -> None:
        self._database = runtime.database
        self._is_wanted = runtime.settings.listen
        self._on_task = on_task
        self._on_event = on_event

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listen in a thread, for as long as the block runs."""
        if not self._is_wanted:
            yield
            return
        stopped = threading.Event()
        thread = threading.Thread(target=self._stay, args=(stopped,), name="mindia-listener", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stopped.set()
            thread.join(_CLOSE_S)

    def _stay(self, stopped: threading.Event) -> None:
        while not stopped.is_set():
            try:
                with self._database.listening("mindia_tasks", _EVENTS) as connection:
                    # What came before is not told.
                    self._on_task()
                    self._on_event()
                    self._listen(connection, stopped)
            except (MindiaError, psycopg.Error) as error:
                _log.warning("tasks are noticed by polling for now: %s", error)
                stopped.wait(_AGAIN_S)
            except Exception:  # noqa: BLE001 - logged; polling goes on
                _log.exception("tasks are noticed by polling from now on")
                return

    def _listen(self, connection: psycopg.Connection[Any], stopped: threading.Event) -> None:
        while not stopped.is_set():
            for notified in connection.notifies(timeout=_WAIT_S, stop_after=1):
                if notified.channel == _EVENTS:
                    self._on_event()
                else:
                    self._on_task()
