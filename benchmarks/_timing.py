"""Calls that are measured in turns."""

from __future__ import annotations

import time
from collections.abc import Mapping
from statistics import median
from typing import Protocol

_CALLS = 100


class Call(Protocol):
    """What is measured."""

    def __call__(self) -> object:
        """Do it once."""


def interleaved(calls: Mapping[str, Call], *, repeats: int) -> dict[str, list[float]]:
    """Return the median of the calls of each repeat, in milliseconds."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        _timed(call)  # prepares the statements, and has the server settle on a plan
    names = list(calls)
    for number in range(repeats):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            times[name].append(_timed(calls[name]))
    return times


def _timed(call: Call) -> float:
    taken = []
    for _ in range(_CALLS):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return median(taken) * 1000
