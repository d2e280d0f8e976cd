"""What is being made at the moment in this process, so that others wait for it rather than make it, too."""

from __future__ import annotations

import os
import threading
from collections.abc import Hashable, Iterator
from contextlib import contextmanager


class Flights:
    """Lets one at a time make a thing. Thread-safe; a forked process has flights of its own."""

    def __init__(self) -> None:
        self._start_afresh()

    def _start_afresh(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._under_way: dict[Hashable, threading.Event] = {}

    @contextmanager
    def alone(self, key: Hashable, *, patience_s: float) -> Iterator[None]:
        """Be the only one with a key, or wait for the one who is; whoever enters looks whether it is there now.

        Args:
            key: What is made.
            patience_s: How long the other one is waited for; then both are at it.
        """
        if self._process != os.getpid():
            self._start_afresh()
        with self._lock:
            other = self._under_way.get(key)
            mine = threading.Event()
            if other is None:
                self._under_way[key] = mine
        if other is not None:
            other.wait(patience_s)
            yield  # those who have waited do not queue: where the first one failed, each of them does, too
            return
        try:
            yield
        finally:
            with self._lock:
                del self._under_way[key]
            mine.set()
