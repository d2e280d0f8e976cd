"""Says when a worker may be woken."""

from __future__ import annotations

import time

_EACH_S = 0.02
"""Waking a worker costs all commits of the server: one process does it so often at most; workers poll besides."""


class Waker:
    """Of one application in one process. Thread-safe: at worst, two threads wake at the same moment."""

    def __init__(self) -> None:
        self._next = 0.0

    def may(self) -> bool:
        """Tell whether a worker may be woken now, and take note that it is."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + _EACH_S
        return True
