"""Writes an archive, which is there as a whole at the end or not at all."""

from __future__ import annotations

import hashlib
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

from mindia._ids import uuid7
from mindia.config import Settings
from mindia.errors import InvalidError, MindiaError, StorageError, StorageUnavailableError
from mindia.services.archive_format import object_name

_CHUNK = 1 << 20


class ArchiveWriter:
    """An archive that is being written, member by member.

    Attributes:
        object_bytes: The sizes of the objects together.
    """

    def __init__(self, file: BinaryIO, target: Path) -> None:
        self._zip = zipfile.ZipFile(file, "w", zipfile.ZIP_STORED)
        self._target = target
        self._hashes: set[bytes] = set()
        self.object_bytes = 0

    @property
    def object_count(self) -> int:
        """How many objects are in it."""
        return len(self._hashes)

    def has(self, sha256: str) -> bool:
        """Tell whether the object of this hash is in it."""
        return bytes.fromhex(sha256) in self._hashes

    def add_object(self, source: BinaryIO, *, sha256: str, size: int, owner: str) -> None:
        """Write an object.

        Args:
            source: Its bytes.
            sha256: The hash that they must have.
            size: How many there must be.
            owner: The item that they are of, for messages.

        Raises:
            StorageError: They cannot be read, or are others.
        """
        digest = hashlib.sha256()
        written = 0
        with self._member(object_name(sha256), size) as member:
            while chunk := read_chunk(source, owner):
                written += len(chunk)
                if written > size:
                    break
                digest.update(chunk)
                with _writable(self._target):
                    member.write(chunk)
        if written != size or digest.hexdigest() != sha256:
            raise StorageError(
                f"the stored bytes of {owner} are not those that were added: they have the hash {digest.hexdigest()}, "
                f"not {sha256}; nothing was exported. Delete the item, or bring back its bytes"
            )
        self._hashes.add(bytes.fromhex(sha256))
        self.object_bytes += size

    def add_lines(self, name: str, lines: Lines) -> None:
        """Write a member of lines."""
        with self._member(name, lines.size) as member, _writable(self._target):
            for chunk in lines.chunks():
                member.write(chunk)

    def add(self, name: str, content: bytes) -> None:
        """Write a small member."""
        with self._member(name, len(content)) as member, _writable(self._target):
            member.write(content)

    def finish(self) -> None:
        """Write the directory."""
        with _writable(self._target):
            self._zip.close()

    def abandon(self) -> None:
        """Let go of a file that will be removed."""
        with suppress(Exception):
            self._zip.close()

    @contextmanager
    def _member(self, name: str, size: int) -> Iterator[BinaryIO]:
        # Without the time of day: what has not changed is exported as the same bytes.
        info = zipfile.ZipInfo(name)
        info.file_size = size
        with _writable(self._target):
            member = cast("BinaryIO", self._zip.open(info, "w"))
        try:
            yield member
        finally:
            with _writable(self._target):
                member.close()


@contextmanager
def written_archive(path: str | os.PathLike[str]) -> Iterator[ArchiveWriter]:
    """Begin an archive; it is moved to its place where this is left without an error. Its owner alone may read it.

    Raises:
        InvalidError: The file cannot be written.
    """
    target = Path(path)
    part = target.with_name(f".mindia-{uuid7()}") if target.name else target
    with _writable(target):
        if target.is_dir():
            raise InvalidError(f"{str(target)!r} is a folder: name a file for the archive")
        file = os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")
    writer = ArchiveWriter(file, target)
    try:
        yield writer
        writer.finish()
        with _writable(target):
            file.flush()
            os.fsync(file.fileno())
            part.replace(target)
            _sync(target.parent)
    except BaseException:
        writer.abandon()
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise
    finally:
        with suppress(OSError):  # what could not be written before cannot be written now
            file.close()


class Lines:
    """Lines that wait on disk until their place in the archive comes. Not to be found by others.

    Attributes:
        count: How many there are.
        size: In bytes.
    """

    def __init__(self, settings: Settings) -> None:
        self._folder = None if settings.spool_folder is None else str(settings.spool_folder)
        with self._typed():
            self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - see close()
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        with self._typed():
            self._file.seek(0)
            self._file.truncate()
        self.count = self.size = 0
        self._digest = hashlib.sha256()

    def add(self, line: bytes) -> None:
        """Add a line."""
        with self._typed():
            self._file.write(line)
        self._digest.update(line)
        self.count += 1
        self.size += len(line)

    @property
    def sha256(self) -> str:
        """Their hash."""
        return self._digest.hexdigest()

    def __iter__(self) -> Iterator[bytes]:
        with self._typed():
            self._file.seek(0)
        while line := self._next(self._file.readline):
            yield line

    def chunks(self) -> Iterator[bytes]:
        """Yield all of it in pieces."""
        with self._typed():
            self._file.seek(0)
        while chunk := self._next(lambda: self._file.read(_CHUNK)):
            yield chunk

    def close(self) -> None:
        """Remove them."""
        with suppress(OSError):
            self._file.close()

    def _next(self, read: Callable[[], bytes]) -> bytes:
        with self._typed():
            return read()

    @contextmanager
    def _typed(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageUnavailableError(
                f"rows cannot be kept in {self._folder or tempfile.gettempdir()!r}: {error.strerror or error} "
                "(Settings.spool_folder)"
            ) from error


def read_chunk(source: BinaryIO, owner: str) -> bytes:
    """Read a piece of what is stored.

    Raises:
        StorageError: It cannot be read.
    """
    try:
        return source.read(_CHUNK)
    except OSError as error:
        if isinstance(error, MindiaError):
            raise
        raise StorageError(f"the bytes of {owner} cannot be read: {error.strerror or error}") from error


@contextmanager
def _writable(target: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:  # the latter where the path has a NUL character
        if isinstance(error, MindiaError):
            raise
        raise InvalidError(f"{str(target)!r} cannot be written: {getattr(error, 'strerror', None) or error}") from error


def _sync(folder: Path) -> None:
    """Have the name of the file survive a loss of power."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
