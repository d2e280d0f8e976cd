"""Incoming bytes, kept aside until it is known what they are."""

from __future__ import annotations

import hashlib
import io
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import BinaryIO, cast

import attrs

from mindia.config import Settings
from mindia.errors import InvalidError, StorageUnavailableError
from mindia.media import sniff
from mindia.media.probe import check_size

_CHUNK = 1 << 18
_CHUNKS_AHEAD = 8
"""Of those that wait to be hashed."""


@attrs.frozen(kw_only=True)
class Spooled:
    """Bytes that have been received.

    Attributes:
        file: Seekable; gone when the spool is left.
        size: In bytes.
        sha256: Their hash, as 64 hexadecimal digits.
    """

    file: BinaryIO
    size: int
    sha256: str


@contextmanager
def spool(source: BinaryIO, *, filename: str, settings: Settings) -> Iterator[Spooled]:
    """Receive a source, up to the size limit of its kind, in memory while it is small and on disk when it is not.

    What the source raises passes through.

    Raises:
        UnsupportedTypeError: The first bytes are of no allowed type.
        TooLargeError: There are more bytes than the kind may have.
        InvalidError: The source does not give bytes.
        StorageUnavailableError: The folder of `Settings.spool_folder` is full or missing.
    """
    digest = _Digest()
    size = 0
    kind = None
    head = bytearray()
    read: Callable[[int], object] = source.read
    folder = None if settings.spool_folder is None else str(settings.spool_folder)
    file: BinaryIO = io.BytesIO()
    try:
        while (chunk := read(_CHUNK)) or chunk is None:
            if not isinstance(chunk, bytes | bytearray | memoryview):
                # None is what a source gives that does not wait for its bytes: it has not come to its end.
                raise InvalidError(f"{filename!r} must be open for reading bytes, not {type(chunk).__name__}")
            if isinstance(chunk, memoryview):
                chunk = chunk.tobytes()  # its items may be larger than a byte
            size += len(chunk)
            if isinstance(file, io.BytesIO) and size > settings.spool_memory_bytes:
                with disk_errors(folder):
                    file = _moved_to_disk(file, folder)
                digest.begin_aside()
            with disk_errors(folder):
                file.write(chunk)
            digest.update(chunk)
            if kind is None:
                head += chunk[: sniff.HEAD_BYTES - len(head)]
                if len(head) == sniff.HEAD_BYTES:
                    kind = sniff.require(bytes(head), filename=filename).kind
            if kind is not None:
                check_size(size, kind, filename=filename, settings=settings)
        with disk_errors(folder):
            file.flush()
        yield Spooled(file=file, size=size, sha256=digest.hexdigest())
    finally:
        digest.close()
        with suppress(OSError):  # what could not be written before cannot be written now
            file.close()


class _Digest:
    """The hash of what comes in; of much, in a thread of its own, while the next is read and written."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._thread: ThreadPoolExecutor | None = None
        self._waiting: deque[Future[None]] = deque()

    def begin_aside(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="mindia-hash")

    def update(self, chunk: bytes | bytearray) -> None:
        if self._thread is None:
            self._hash.update(chunk)
            return
        if len(self._waiting) == _CHUNKS_AHEAD:
            self._waiting.popleft().result()
        # A copy of what a source might use again.
        self._waiting.append(self._thread.submit(self._hash.update, bytes(chunk)))

    def hexdigest(self) -> str:
        while self._waiting:
            self._waiting.popleft().result()
        return self._hash.hexdigest()

    def close(self) -> None:
        if self._thread is not None:
            self._thread.shutdown()


def _moved_to_disk(file: io.BytesIO, folder: str | None) -> BinaryIO:
    moved = cast("BinaryIO", tempfile.TemporaryFile(dir=folder))  # noqa: SIM115 - the caller closes it
    try:
        moved.write(file.getbuffer())
    except BaseException:
        with suppress(OSError):
            moved.close()
        raise
    return moved


@contextmanager
def disk_errors(folder: str | None) -> Iterator[None]:
    """Tell of a folder that is full or missing as `StorageUnavailableError`."""
    try:
        yield
    except OSError as error:
        raise StorageUnavailableError(
            f"incoming bytes cannot be kept in {folder or tempfile.gettempdir()!r}: {error.strerror or error} "
            "(Settings.spool_folder)"
        ) from error
