"""Threads for what a call does beside something else."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from mindia.errors import ClosedError

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

P = ParamSpec("P")
T = TypeVar("T")

_MAX_THREADS = 64


class Background:
    """Runs functions in threads, which are started when they are needed. Thread-safe; a forked child has its own."""

    def __init__(self) -> None:
        self._closed = False
        self._start_afresh()

    def _start_afresh(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._threads: ThreadPoolExecutor | None = None

    def submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run a function in a thread.

        Raises:
            ClosedError: `close` was called.
        """
        if self._process != os.getpid():
            self._start_afresh()
        with self._lock:
            if self._closed:
                raise ClosedError("this application is closed")
            if self._threads is None:
                from concurrent.futures import ThreadPoolExecutor  # costs more than the rest of this module

                self._threads = ThreadPoolExecutor(_MAX_THREADS, thread_name_prefix="mindia-background")
            return self._threads.submit(function, *args, **kwargs)

    def close(self) -> None:
        """Start nothing more; what runs goes on to its end. Calling it again does nothing."""
        self._closed = True
        if self._process == os.getpid() and self._threads is not None:
            self._threads.shutdown(wait=False)
