"""The bytes of an item, read asynchronously."""

from __future__ import annotations

import io
import threading
from collections.abc import AsyncIterator
from types import TracebackType
from typing import BinaryIO, Self

from mindia._handles import Handle
from mindia.aio._threads import Lane

_CHUNK = 1 << 20


class AsyncFile(Handle):
    """The bytes of an item, open for reading: an asynchronous context manager, and iterable piece by piece."""

    def __init__(self, file: BinaryIO, lane: Lane) -> None:
        self._file = file
        self._lane = lane
        # A read whose caller was cancelled may still be under way.
        self._lock = threading.Lock()

    async def read(self, size: int = -1) -> bytes:
        """Return the next bytes, at most `size` of them; all to the end by default.

        Raises:
            StorageError: The object store failed.
        """

        def read() -> bytes:
            with self._lock:
                return self._file.read(size)

        return await self._lane.run(read)

    async def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place, and return how far from the beginning it is."""

        def seek() -> int:
            with self._lock:
                return self._file.seek(offset, whence)

        return await self._lane.run(seek)

    async def close(self) -> None:
        """Close it. Twice does nothing more."""

        def close() -> None:
            with self._lock:
                self._file.close()

        await self._lane.run(close)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while piece := await self.read(_CHUNK):
            yield piece

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
