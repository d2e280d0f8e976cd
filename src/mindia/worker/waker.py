"""Says when a worker may be woken."""

from __future__ import annotations

import time

_EACH_S, _BURST = 0.02, 3
"""Waking a worker costs all commits of the server: one process does it so often at most, but for a few in a row;
workers poll besides."""


class Waker:
    """Of one application in one process. Thread-safe: at worst, two threads wake at the same moment."""

    def __init__(self) -> None:
        self._used_until = 0.0

    def may(self) -> bool:
        """Tell whether a worker may be woken now, and take note that it is."""
        now = time.monotonic()
        used_until = max(self._used_until, now)
        if used_until - now > (_BURST - 0.5) * _EACH_S:
            return False
        self._used_until = used_until + _EACH_S
        return True
