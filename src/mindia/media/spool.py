"""Incoming bytes, kept aside until it is known what they are."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from threading import Condition
from typing import BinaryIO, cast

import attrs

from mindia.config import Settings
from mindia.errors import InvalidError, StorageUnavailableError
from mindia.media import sniff
from mindia.media.probe import check_size

_CHUNK = 1 << 19
_FIRST_CHUNK = 1 << 16
"""A file sets as much memory aside as it is asked for: most have less, and so much at once comes from the system."""


@attrs.frozen(kw_only=True)
class Spooled:
    """Bytes that have been received.

    Attributes:
        file: Seekable; gone when the spool is left.
        size: In bytes.
        hexdigest: Returns their hash, for which it may wait; to be asked for while the file is there.
    """

    file: BinaryIO
    size: int
    hexdigest: Callable[[], str]

    @property
    def sha256(self) -> str:
        """Their hash, as 64 hexadecimal digits."""
        return self.hexdigest()


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
    folder = None if settings.spool_folder is None else str(settings.spool_folder)
    digest = _Digest(folder)
    size = 0
    kind = None
    head = bytearray()
    read: Callable[[int], object] = source.read
    file: BinaryIO = io.BytesIO()
    try:
        while (chunk := read(_CHUNK if size >= _FIRST_CHUNK else _FIRST_CHUNK)) or chunk is None:
            if not isinstance(chunk, bytes | bytearray | memoryview):
                # None is what a source gives that does not wait for its bytes: it has not come to its end.
                raise InvalidError(f"{filename!r} must be open for reading bytes, not {type(chunk).__name__}")
            if isinstance(chunk, memoryview):
                chunk = chunk.tobytes()  # its items may be larger than a byte
            size += len(chunk)
            if isinstance(file, io.BytesIO) and size > settings.spool_memory_bytes:
                with disk_errors(folder):
                    file = _moved_to_disk(file, folder)
                    digest.follow(file)
            with disk_errors(folder):
                file.write(chunk)
                if isinstance(file, io.BytesIO):
                    digest.update(chunk)
                else:
                    file.flush()
                    digest.wrote(size)
            if kind is None:
                head += chunk[: sniff.HEAD_BYTES - len(head)]
                if len(head) == sniff.HEAD_BYTES:
                    kind = sniff.require(bytes(head), filename=filename).kind
            if kind is not None:
                check_size(size, kind, filename=filename, settings=settings)
        digest.wrote(size, is_whole=True)
        yield Spooled(file=file, size=size, hexdigest=digest.hexdigest)
    finally:
        digest.close()
        with suppress(OSError):  # what could not be written before cannot be written now
            file.close()


class _Digest:
    """The hash of what comes in; of much, by a thread of its own, which reads it behind who writes it."""

    def __init__(self, folder: str | None) -> None:
        self._folder = folder
        self._hash = hashlib.sha256()
        self._size = 0
        self._thread: ThreadPoolExecutor | None = None
        self._hashed: Future[bool] | None = None
        self._written = 0
        self._is_whole = self._is_given_up = False

    def update(self, chunk: bytes | bytearray) -> None:
        """Add what is in memory alone."""
        self._hash.update(chunk)
        self._size += len(chunk)

    def follow(self, file: BinaryIO) -> None:
        """Go on with what is being written to a file, which stays open until `close`."""
        self._more = Condition()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="mindia-hash")
        self._hashed = self._thread.submit(self._read_behind, file.fileno())

    def wrote(self, size: int, *, is_whole: bool = False) -> None:
        """Tell how much of the file is there, and whether that is all; what is in memory needs no telling."""
        if self._thread is None:
            return
        with self._more:
            self._written, self._is_whole = size, is_whole
            self._more.notify()

    def hexdigest(self) -> str:
        """Return the hash of all, once it has been made."""
        if self._hashed is not None:
            assert self._hashed.result(), "the bytes are gone, and were not hashed before"
        return self._hash.hexdigest()

    def close(self) -> None:
        if self._thread is not None:
            with self._more:
                self._is_given_up = True
                self._more.notify()
            self._thread.shutdown()

    def _read_behind(self, descriptor: int) -> bool:
        """Return whether all of it has been read."""
        buffer = memoryview(bytearray(_CHUNK))
        while True:
            with self._more:
                self._more.wait_for(lambda: self._written > self._size or self._is_whole or self._is_given_up)
                end, is_last = self._written, self._is_whole
            while self._size < end and not self._is_given_up:
                with disk_errors(self._folder):
                    count = os.preadv(descriptor, [buffer[: end - self._size]], self._size)
                if not count:
                    raise StorageUnavailableError("incoming bytes that were kept aside are not there any more")
                self._hash.update(buffer[:count])
                self._size += count
            if self._is_given_up or is_last:
                return self._size == end


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
