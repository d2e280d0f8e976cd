"""Identifiers made by the client."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import datetime
from uuid import UUID

_AT_ONCE = 128


def uuid7() -> UUID:
    """Return a UUIDv7 (RFC 9562, section 5.7): ids made later sort later, to a quarter of a microsecond."""
    return _made_now(os.urandom(8))


def uuid7s() -> Iterator[UUID]:
    """Yield a UUIDv7 each time, without end: the system is asked for randomness once for many. Not over a fork."""
    while True:
        random = os.urandom(8 * _AT_ONCE)
        for start in range(0, len(random), 8):
            yield _made_now(random[start : start + 8])


def _made_now(random: bytes) -> UUID:
    milliseconds, rest = divmod(time.time_ns(), 1_000_000)
    fraction = rest * 4096 // 1_000_000  # method 3 of section 6.2: the time below a millisecond in rand_a
    return UUID(int=milliseconds << 80 | 7 << 76 | fraction << 64 | 2 << 62 | int.from_bytes(random) & (1 << 62) - 1)


def uuid7_of(moment: datetime) -> UUID:
    """Return the smallest UUIDv7 that `uuid7` may have made at a time."""
    return UUID(int=int(moment.timestamp() * 1000) << 80 | 7 << 76 | 2 << 62)
