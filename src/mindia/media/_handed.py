"""Files as they are handed to the parsers' children: by their descriptors."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import IO, BinaryIO, cast

from mindia.config import Settings
from mindia.media.probe import Source
from mindia.media.spool import disk_errors

_CHUNK = 1 << 20


@contextmanager
def descriptor_of(file: BinaryIO, *, in_memory: bool) -> Iterator[int]:
    """Give the descriptor of a file, or of a copy in memory."""
    if not in_memory:
        yield file.fileno()
        return
    file.seek(0)
    with _memory_file() as copy:
        copy.write(file.read())
        copy.flush()
        yield copy.fileno()


def _memory_file() -> IO[bytes]:
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("mindia-probe"), "wb")
    return tempfile.TemporaryFile()


@contextmanager
def with_descriptor(source: Source, settings: Settings) -> Iterator[Source]:
    """Give a file that can be handed to another process: what comes from an object store may be none."""
    if source.size > settings.spool_memory_bytes:
        try:
            source.file.fileno()
        except OSError:
            with _copied(source.file, settings) as copy:
                yield Source(copy, source.size)
            return
    yield source


@contextmanager
def _copied(file: BinaryIO, settings: Settings) -> Iterator[BinaryIO]:
    folder = None if settings.spool_folder is None else str(settings.spool_folder)
    with ExitStack() as stack:
        with disk_errors(folder):
            copy = cast("BinaryIO", tempfile.TemporaryFile(dir=folder))  # noqa: SIM115 - closed below
            stack.callback(_closed, copy)
        while chunk := file.read(_CHUNK):
            with disk_errors(folder):
                copy.write(chunk)
        with disk_errors(folder):
            copy.flush()
        yield copy


def _closed(file: BinaryIO) -> None:
    with suppress(OSError):  # what could not be written before cannot be written now
        file.close()
