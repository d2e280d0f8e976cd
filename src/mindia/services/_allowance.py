"""How much more a long run may do."""

from __future__ import annotations

import threading


class Allowance:
    """Counts down what a run that is given a limit may still look at. Of one thread.

    Args:
        limit: How many at most, or None for all.
        cancel: Ends the run when it is set, or None.
    """

    def __init__(self, limit: int | None, cancel: threading.Event | None) -> None:
        self._left = limit
        self._cancel = cancel

    def next(self, batch: int) -> int:
        """Return how many of a batch may be looked at next; none where the run is to end."""
        if self._cancel is not None and self._cancel.is_set():
            return 0
        return batch if self._left is None else min(batch, self._left)

    def spend(self, number: int) -> None:
        """Take note of what was looked at."""
        if self._left is not None:
            self._left -= number
