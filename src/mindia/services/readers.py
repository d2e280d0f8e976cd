"""What reads a file in place of the file itself."""

from __future__ import annotations

import io
from concurrent.futures import Future
from typing import Any, BinaryIO


class Lent(io.RawIOBase):
    """A file for one who reads it, and can neither change nor close it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def seekable(self) -> bool:
        """Tell that it has positions."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer, and return how many bytes there are in it."""
        into = memoryview(buffer)
        content = self._file.read(len(into))
        into[: len(content)] = content
        return len(content)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move the position, and return it."""
        return self._file.seek(offset, whence)

    def fileno(self) -> int:
        """Return the descriptor of the file."""
        return self._file.fileno()


class Approved:
    """A source whose end is there only once it has been approved of; where it has been refused, reading raises.

    Args:
        file: The source.
        size: In bytes.
        verdict: Of who looks at it; its exception is what reading raises.
    """

    def __init__(self, file: BinaryIO, size: int, verdict: Future[Any]) -> None:
        self._file = file
        self._left = size
        self._verdict = verdict

    def read(self, size: int = -1) -> bytes:
        """Return bytes, or raise what there is against them."""
        content = self._file.read(size)
        self._left -= len(content)
        if self._left <= 0 or self._verdict.done():
            self._verdict.result()
        return content
