"""Opens an archive, of which nothing is believed that has not been looked at."""

from __future__ import annotations

import hashlib
import os
import stat
import struct
import zipfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import pairwise
from typing import BinaryIO, cast

from mindia.domain.archives import Manifest
from mindia.errors import ArchiveError, InvalidError, MindiaError
from mindia.services.archive_format import (
    DERIVATIVES,
    MANIFEST,
    MAX_LINE_BYTES,
    MAX_MANIFEST_BYTES,
    MEDIA,
    OBJECT,
    PRESETS,
    SINCE,
    USERS,
    object_name,
    read_manifest,
)

# PKWARE's APPNOTE: 4.3.16 the end of the central directory, 4.3.15 where its zip64 form is, 4.3.14 that form, 4.3.12 an
# entry, and 4.3.7 the header of a file.
_END = struct.Struct("<4s4xHHLLH")
_LOCATOR = struct.Struct("<4s16x")
_END_64 = struct.Struct("<4s28xQQQ")
_ENTRY = struct.Struct("<4s24xHHH12x")
_HEADER_BYTES = 30
_MAX_ENTRY_TAIL = 256
"""Bytes of the name, the extra fields and the comment of an entry. Those of ours have 100 at most."""

_ENCRYPTED = 0x1 | 0x40 | 0x2000
"""Flags (4.4.4): encrypted, strongly so, and with a central directory that is masked."""


class ArchiveReader:
    """An archive whose structure has been found sound. Thread-safe.

    Its members are stored as they are: none is larger than the file that it is in.

    Args:
        file: The archive, seekable.
        max_items: How many objects of items there may be, at most, and how many of what was made of them.

    Attributes:
        manifest: What it says of itself.
        objects: The sizes of the objects, by hash.

    Raises:
        ArchiveError: It is no archive, or not one that was exported.
    """

    def __init__(self, file: BinaryIO, *, max_items: int) -> None:
        end = _checked_directory(file, max_members=2 * max_items + len(SINCE))
        with _typed("the archive"):
            self._zip = zipfile.ZipFile(file)
        members = self._zip.infolist()
        _check_members(members)
        _check_places(members, end=end)
        self.objects = {match[1]: info.file_size for info in members if (match := OBJECT.fullmatch(info.filename))}
        if self._zip.getinfo(MANIFEST).file_size > MAX_MANIFEST_BYTES:
            raise ArchiveError(f"{MANIFEST} has more than {MAX_MANIFEST_BYTES} bytes")
        with _typed(MANIFEST):
            content = self._zip.read(MANIFEST)
        self.manifest: Manifest = read_manifest(content)
        _check_lists(members, version=self.manifest.version)

    def users(self) -> Iterator[tuple[str, bytes]]:
        """Yield where each line of the users is, and the line; see `_lines`."""
        return self._lines(USERS, self.manifest.users_sha256)

    def media(self) -> Iterator[tuple[str, bytes]]:
        """Yield where each line of the media is, and the line; see `_lines`."""
        return self._lines(MEDIA, self.manifest.media_sha256)

    def presets(self) -> Iterator[tuple[str, bytes]]:
        """Yield where each line of the presets is, and the line; see `_lines`. The first version has none."""
        return self._lines(PRESETS, self.manifest.presets_sha256)

    def derivatives(self) -> Iterator[tuple[str, bytes]]:
        """Yield where each line of what was made is, and the line; see `_lines`. The first two versions have none."""
        return self._lines(DERIVATIVES, self.manifest.derivatives_sha256)

    def open_object(self, sha256: str) -> AbstractContextManager[BinaryIO]:
        """Open the bytes that should have a hash; whether they do is left to who reads them."""
        return self._open(object_name(sha256))

    def _lines(self, name: str, sha256: str) -> Iterator[tuple[str, bytes]]:
        """Yield lines. That they are those of the hash is known at the end.

        Raises:
            ArchiveError: A line is too long, or they have another hash.
        """
        if self.manifest.version < SINCE[name]:
            return
        digest = hashlib.sha256()
        number = 0
        with self._open(name) as file:
            while line := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                where = f"line {number} of {name}"
                if not line.endswith(b"\n"):
                    too_long = len(line) > MAX_LINE_BYTES
                    reason = f"is longer than {MAX_LINE_BYTES} bytes" if too_long else "has no end"
                    raise ArchiveError(f"{where} {reason}")
                digest.update(line)
                yield where, line
        if digest.hexdigest() != sha256:
            raise ArchiveError(f"{name} has the hash {digest.hexdigest()}, and not {sha256}, as {MANIFEST} says")

    @contextmanager
    def _open(self, name: str) -> Iterator[BinaryIO]:
        with _typed(name):
            file = cast("BinaryIO", self._zip.open(name))
        with file:
            yield cast("BinaryIO", _Typed(file, name))


@contextmanager
def opened_archive(path: str | os.PathLike[str], *, max_items: int) -> Iterator[ArchiveReader]:
    """Open an archive.

    Raises:
        ArchiveError: It is none.
        InvalidError: The file cannot be read.
    """
    try:
        # Without waiting, in case that it is a pipe.
        opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise InvalidError(f"{str(path)!r} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        os.close(opened)
        raise InvalidError(f"{str(path)!r} is no file")
    with os.fdopen(opened, "rb") as file:
        yield ArchiveReader(file, max_items=max_items)


class _Typed:
    """A member whose errors are ours."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self._name = name

    def read(self, size: int) -> bytes:
        with _typed(self._name):
            return self._file.read(size)

    def readline(self, size: int) -> bytes:
        with _typed(self._name):
            return self._file.readline(size)


@contextmanager
def _typed(what: str) -> Iterator[None]:
    """Raise whatever the reading of a ZIP file raises as one of ours."""
    try:
        yield
    except MindiaError:
        raise
    except OSError as error:
        raise InvalidError(f"{what} cannot be read: {error.strerror or error}") from error
    except (zipfile.BadZipFile, EOFError, KeyError, RuntimeError, ValueError, struct.error) as error:
        raise ArchiveError(f"{what} is damaged: {error}") from error


def _checked_directory(file: BinaryIO, *, max_members: int) -> int:
    """Return where the central directory begins, after it has been gone through: it is held in memory as a whole."""
    begin: int
    at = file.seek(0, os.SEEK_END) - _END.size
    signature, _, count, length, begin, comment = _END.unpack(_read(file, at, _END.size))
    if signature != b"PK\5\6" or comment:
        raise ArchiveError("the file does not end as an archive does: it is none, or was cut off")
    if at >= _LOCATOR.size + _END_64.size and _read(file, at - _LOCATOR.size, 4) == b"PK\6\7":
        at -= _LOCATOR.size + _END_64.size
        signature, count, length, begin = _END_64.unpack(_read(file, at, _END_64.size))
        if signature != b"PK\6\6":
            raise ArchiveError("the archive is damaged: the end of its directory is not where it should be")
    if begin + length != at:
        raise ArchiveError("the archive is damaged: its directory is not where it should be")
    if count > max_members:
        raise ArchiveError(f"the archive has {count} members; the limit is {max_members}: raise max_items")
    file.seek(begin)
    found = 0
    while file.tell() < at:
        found += 1
        entry = file.read(_ENTRY.size)
        if found > count or len(entry) < _ENTRY.size:
            raise ArchiveError(f"the archive is damaged: its directory has more or less than {count} entries")
        signature, *tail = _ENTRY.unpack(entry)
        if signature != b"PK\1\2" or sum(tail) > _MAX_ENTRY_TAIL:
            raise ArchiveError(f"entry {found} of the archive's directory is none that was exported")
        file.seek(sum(tail), os.SEEK_CUR)
    if found != count or file.tell() != at:
        raise ArchiveError(f"the archive is damaged: its directory has {found} entries, not {count}")
    return begin


def _read(file: BinaryIO, at: int, size: int) -> bytes:
    if at < 0:
        raise ArchiveError("the file is too short to be an archive")
    file.seek(at)
    return file.read(size)


def _check_members(members: list[zipfile.ZipInfo]) -> None:
    seen: set[str] = set()
    for info in members:
        name = info.filename
        # What comes after a NUL character is left off in the name.
        if info.orig_filename != name or (name not in SINCE and not OBJECT.fullmatch(name)):
            raise ArchiveError(f"the archive has a member {info.orig_filename[:100]!r}, which is none of an export")
        if name in seen:
            raise ArchiveError(f"the archive has the member {name!r} more than once")
        seen.add(name)
        if info.flag_bits & _ENCRYPTED:
            raise ArchiveError(f"the member {name!r} is encrypted")
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            raise ArchiveError(f"the member {name!r} is compressed: what is exported is stored as it is")
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
            raise ArchiveError(f"the member {name!r} is no file, but a link or the like")
    for name in (MANIFEST, USERS, MEDIA):
        if name not in seen:
            raise ArchiveError(f"the archive has no {name}")


def _check_lists(members: list[zipfile.ZipInfo], *, version: int) -> None:
    there = {info.filename for info in members} & SINCE.keys()
    for name, since in SINCE.items():
        if version < since and name in there:
            raise ArchiveError(f"the archive has a member {name!r}, which is none of version {version} of the format")
        if version >= since and name not in there:
            raise ArchiveError(f"the archive has no {name}")


def _check_places(members: list[zipfile.ZipInfo], *, end: int) -> None:
    """Refuse members that overlap: bytes that are counted several times would make an archive larger than it is."""
    places = [
        (info.header_offset, info.header_offset + _HEADER_BYTES + len(info.filename) + info.file_size, info.filename)
        for info in members
    ]
    places.sort()
    places.append((end, end, ""))
    for (_, ends, name), (begins, _, _) in pairwise(places):
        if ends > begins:
            raise ArchiveError(f"the member {name!r} overlaps with what follows it")
