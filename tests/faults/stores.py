"""Object stores that can be named to a child process."""

from __future__ import annotations

from collections.abc import Mapping

from mindia import LocalStorage, S3Storage
from mindia.storage.base import Storage

Named = str | Mapping[str, object]
"""A folder, or the arguments of an `S3Storage`."""


def store(named: Named) -> Storage:
    """Return the store that a name stands for."""
    return LocalStorage(named) if isinstance(named, str) else S3Storage(**named)  # type: ignore[arg-type]  # its own
