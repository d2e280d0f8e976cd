"""Identifiers made by the client."""

from __future__ import annotations

import os
import time
from datetime import datetime
from uuid import UUID


def uuid7() -> UUID:
    """Return a UUIDv7 (RFC 9562, section 5.7): ids made later sort later, to a quarter of a microsecond."""
    ns = time.time_ns()
    milliseconds, rest = divmod(ns, 1_000_000)
    fraction = rest * 4096 // 1_000_000  # method 3 of section 6.2: the time below a millisecond in rand_a
    random = int.from_bytes(os.urandom(8)) & (1 << 62) - 1
    return UUID(int=milliseconds << 80 | 7 << 76 | fraction << 64 | 2 << 62 | random)


def uuid7_of(moment: datetime) -> UUID:
    """Return the smallest UUIDv7 that `uuid7` may have made at a time."""
    return UUID(int=int(moment.timestamp() * 1000) << 80 | 7 << 76 | 2 << 62)
