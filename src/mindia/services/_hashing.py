"""A file whose bytes are hashed as they are read."""

from __future__ import annotations

import hashlib
from typing import BinaryIO


class Hashing:
    """Reads a file, and hashes what is read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """Read bytes."""
        content = self._file.read(size)
        self._digest.update(content)
        return content

    def hexdigest(self) -> str:
        """Return the hash of all that was read, as 64 hexadecimal digits."""
        return self._digest.hexdigest()
