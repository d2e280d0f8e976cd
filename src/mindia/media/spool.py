"""Incoming bytes, kept aside until it is known what they are."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO, cast

import attrs

from mindia.config import Settings
from mindia.errors import InvalidError, StorageUnavailableError
from mindia.media import sniff
from mindia.media.probe import check_size

_CHUNK = 1 << 18


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
    digest = hashlib.sha256()
    size = 0
    kind = None
    folder = None if settings.spool_folder is None else str(settings.spool_folder)
    spooled = tempfile.SpooledTemporaryFile(settings.spool_memory_bytes, dir=folder)  # noqa: SIM115 - see the end
    try:
        while chunk := source.read(_CHUNK):
            if not isinstance(chunk, bytes | bytearray | memoryview):
                raise InvalidError(f"{filename!r} must be open for reading bytes, not {type(chunk).__name__}")
            with _typed(folder):
                spooled.write(chunk)
            digest.update(chunk)
            size += len(chunk)
            if kind is None and size >= sniff.HEAD_BYTES:
                spooled.seek(0)
                kind = sniff.require(spooled.read(sniff.HEAD_BYTES), filename=filename).kind
                spooled.seek(0, 2)
            if kind is not None:
                check_size(size, kind, filename=filename, settings=settings)
        with _typed(folder):
            spooled.flush()
        yield Spooled(file=cast("BinaryIO", spooled), size=size, sha256=digest.hexdigest())
    finally:
        with suppress(OSError):  # what could not be written before cannot be written now
            spooled.close()


@contextmanager
def _typed(folder: str | None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageUnavailableError(
            f"incoming bytes cannot be kept in {folder or tempfile.gettempdir()!r}: {error.strerror or error} "
            "(Settings.spool_folder)"
        ) from error
