"""An object store in a folder."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

from mindia.errors import (
    BucketNotEmptyError,
    InvalidError,
    ObjectNotFoundError,
    StorageError,
    StorageUnavailableError,
)
from mindia.storage.base import StoredObject, check_bucket, check_key, check_prefix

_CHUNK = 1 << 20
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_TRIES = 20
"""A folder that was just made may be removed as empty by a concurrent delete, but not many times in a row."""


class LocalStorage:
    """Objects as files: `root/bucket/key`.

    An object is written beside its place and moved there; it and its folder are synced. Who writes the same object at
    the same time waits, in other processes too. No symbolic link below the root is followed. Since objects are files in
    folders, the keys `a` and `a/b` exclude each other.

    Args:
        root: The folder; made where it is missing.
    """

    region = "local"

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root).absolute()

    def __repr__(self) -> str:
        return f"LocalStorage({str(self.root)!r})"

    def put(
        self,
        bucket: str,
        key: str,
        source: BinaryIO,
        *,
        content_type: str,  # noqa: ARG002 - of the port, as the next two
        disposition: str | None = None,  # noqa: ARG002 - of the port; files have none
        region: str | None = None,  # noqa: ARG002 - of the port; files have none
    ) -> None:
        """Store an object."""
        check_bucket(bucket)
        check_key(key)
        *parents, name = key.split("/")
        try:
            with self._unfinished(bucket, key) as (folder, part):
                while chunk := source.read(_CHUNK):
                    with _typed(bucket, key):
                        _write(part, chunk)
                with _typed(bucket, key):
                    _publish(folder, part, name)
        except BaseException:
            self._remove_empty(bucket, parents)
            raise

    def open(self, bucket: str, key: str) -> BinaryIO:
        """Open an object for reading."""
        check_key(key)
        *parents, name = key.split("/")
        with _typed(bucket, key), self._folder(bucket, parents) as folder:
            # Without waiting, in case that somebody put a pipe there.
            file = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            if not stat.S_ISREG(os.fstat(file).st_mode):
                os.close(file)
                raise FileNotFoundError(errno.ENOENT, "not a file", key)
            return open(file, "rb")  # noqa: PTH123 - by descriptor

    def size(self, bucket: str, key: str) -> int:
        """Return the size in bytes."""
        with self.open(bucket, key) as file:
            return os.fstat(file.fileno()).st_size

    def exists(self, bucket: str, key: str) -> bool:
        """Tell whether the object is there."""
        try:
            self.size(bucket, key)
        except ObjectNotFoundError:
            return False
        return True

    def copy(self, bucket: str, key: str, *, to_bucket: str, to_key: str, region: str | None = None) -> None:  # noqa: ARG002 - of the port
        """Copy an object."""
        with self.open(bucket, key) as source:
            self.put(to_bucket, to_key, source, content_type="application/octet-stream")

    def delete(self, bucket: str, keys: Iterable[str]) -> None:
        """Delete objects, and what an interrupted `put` left of them; a missing one is fine."""
        # Those of one folder, one after the other, are synced at once.
        for above, alike in groupby(map(_checked, keys), key=lambda key: key.rpartition("/")[0]):
            parents = above.split("/") if above else []
            try:
                with _typed(bucket, above), self._folder(bucket, parents) as folder:
                    for key in alike:
                        name = key.rpartition("/")[2]
                        with _typed(bucket, key):
                            with suppress(FileNotFoundError, IsADirectoryError):
                                os.unlink(name, dir_fd=folder)
                            _remove_abandoned(folder, _part(name))
                    os.fsync(folder)
            except ObjectNotFoundError:
                continue
            self._remove_empty(bucket, parents)

    def delete_prefix(self, bucket: str, prefix: str) -> None:
        """Delete all objects whose keys begin with `prefix`, and what interrupted `put`s left of them."""
        if not prefix:
            raise InvalidError("prefix must not be empty")
        self.delete(bucket, [key for key, _ in self._files(bucket, prefix, parts=True)])

    def delete_bucket(self, bucket: str) -> None:
        """Delete the folder of a bucket without objects, and what interrupted `put`s left in it."""
        if next(self.list(bucket), None) is not None:
            raise BucketNotEmptyError(f"the bucket {bucket!r} has objects: delete them first")
        try:
            with _typed(bucket, ""), ExitStack() as stack:
                root = self._opened_root(make=False)
                stack.callback(os.close, root)
                with self._folder(bucket, []) as folder:
                    _remove_remains(folder)
                os.rmdir(bucket, dir_fd=root)
                os.fsync(root)
        except ObjectNotFoundError:
            return

    def list(self, bucket: str, *, prefix: str = "", after: str = "") -> Iterator[StoredObject]:
        """Yield the objects whose keys begin with `prefix` and come after `after`."""
        for key, size in self._files(bucket, prefix, after=after, parts=False):
            yield StoredObject(key, size)

    def _files(self, bucket: str, prefix: str, *, after: str = "", parts: bool) -> Iterator[tuple[str, int]]:
        """Yield keys and sizes; with `parts` also the keys that only an unfinished file stands for."""
        check_prefix(prefix)
        *parents, _ = prefix.split("/")
        try:
            with _typed(bucket, prefix), self._folder(bucket, parents) as folder:
                for path, size in _walk(folder, "".join(f"{segment}/" for segment in parents), after):
                    above, slash, name = path.rpartition("/")
                    if name.startswith("."):
                        if not parts:
                            continue
                        path = above + slash + _whole(name)
                    if path.startswith(prefix):
                        yield path, size
        except ObjectNotFoundError:
            return

    @contextmanager
    def _folder(self, bucket: str, parents: Sequence[str], *, make: bool = False) -> Iterator[int]:
        """Open the folder of an object, step by step, so that no step can be a symbolic link."""
        check_bucket(bucket)
        opened = self._opened_root(make=make)
        try:
            for segment in [bucket, *parents]:
                inner = _opened_inner(opened, segment, make=make)
                os.close(opened)
                opened = inner
            yield opened
        finally:
            os.close(opened)

    def _opened_root(self, *, make: bool) -> int:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        try:
            return os.open(self.root, flags)
        except FileNotFoundError:
            if not make:
                raise
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            return os.open(self.root, flags)

    @contextmanager
    def _unfinished(self, bucket: str, key: str) -> Iterator[tuple[int, int]]:
        """Open the unfinished file of an object, for this writer alone, and its folder; nothing stays of a failure."""
        *parents, name = key.split("/")
        with ExitStack() as stack:
            with _typed(bucket, key):
                folder, part = self._claimed(bucket, parents, _part(name), stack)
            try:
                yield folder, part
            except BaseException:
                if _is_named(part, _part(name), folder):
                    os.unlink(_part(name), dir_fd=folder)
                raise

    def _claimed(self, bucket: str, parents: Sequence[str], part: str, stack: ExitStack) -> tuple[int, int]:
        """Make an unfinished file, or take over what a killed writer left; return its folder and itself, open.

        Only who holds its lock may move or remove it.
        """
        left = _TRIES
        while True:
            try:
                folder = stack.enter_context(self._folder(bucket, parents, make=True))
                file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
            except FileNotFoundError:
                left -= 1
                if not left:
                    raise
            else:
                stack.callback(os.close, file)
                fcntl.flock(file, fcntl.LOCK_EX)
                # Closing is not enough: a child that was forked meanwhile shares the lock.
                stack.callback(fcntl.flock, file, fcntl.LOCK_UN)
                if _is_named(file, part, folder):
                    os.ftruncate(file, 0)
                    return folder, file
            stack.close()

    def _remove_empty(self, bucket: str, parents: Sequence[str]) -> None:
        for depth in range(len(parents), 0, -1):
            try:
                with self._folder(bucket, parents[: depth - 1]) as folder:
                    os.rmdir(parents[depth - 1], dir_fd=folder)
            except OSError:
                return  # not empty, or removed by another


def _checked(key: str) -> str:
    check_key(key)
    return key


def _opened_inner(folder: int, segment: str, *, make: bool) -> int:
    """Open a folder within an open one; with `make` it is made where it is missing."""
    try:
        return os.open(segment, _FOLDER, dir_fd=folder)
    except FileNotFoundError:
        if not make:
            raise
    except NotADirectoryError:
        if make or not stat.S_ISREG(os.stat(segment, dir_fd=folder, follow_symlinks=False).st_mode):
            raise
        raise FileNotFoundError(errno.ENOENT, "an object, not a folder", segment) from None
    with suppress(FileExistsError):
        os.mkdir(segment, 0o700, dir_fd=folder)
        os.fsync(folder)
    return os.open(segment, _FOLDER, dir_fd=folder)


def _walk(folder: int, above: str, after: str) -> Iterator[tuple[str, int]]:
    """Yield the files below an open folder with their sizes, in the order of their keys, behind one; links are none."""
    with os.scandir(folder) as scanned:
        # Names alone: a folder may have a million of them.
        names = sorted(entry.name + "/" * entry.is_dir(follow_symlinks=False) for entry in scanned)
    for name in names:
        path = above + name
        if path <= after and not (name.endswith("/") and after.startswith(path)):
            continue
        with suppress(FileNotFoundError):
            if name.endswith("/"):
                inner = os.open(name[:-1], _FOLDER, dir_fd=folder)
                try:
                    yield from _walk(inner, path, after)
                finally:
                    os.close(inner)
            elif stat.S_ISREG((found := os.stat(name, dir_fd=folder, follow_symlinks=False)).st_mode):
                yield path, found.st_size


def _publish(folder: int, part: int, name: str) -> None:
    """Move an unfinished file, which is whole now, to its place, for good.

    A file system writes what both syncs wait for in one go where the name is there by then. After a power failure in
    between, the file may not be whole: what it would have replaced is kept by syncing it first.
    """
    replaces = _is_there(name, folder)
    if replaces:
        os.fsync(part)
    os.replace(_part(name), name, src_dir_fd=folder, dst_dir_fd=folder)
    if not replaces:
        os.fsync(part)
    os.fsync(folder)


def _is_there(name: str, folder: int) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _write(file: int, content: bytes) -> None:
    """Write all of it: the system may take less than it was given, as where the disk becomes full."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(file, rest) :]


def _is_named(file: int, name: str, folder: int) -> bool:
    """Tell whether an open file is what the name stands for, still."""
    try:
        return os.path.samestat(os.fstat(file), os.stat(name, dir_fd=folder, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _remove_abandoned(folder: int, part: str) -> None:
    """Remove an unfinished file, unless its writer lives: then the object is stored after it was deleted."""
    try:
        file = os.open(part, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_named(file, part, folder):
            os.unlink(part, dir_fd=folder)
    except BlockingIOError:
        pass
    finally:
        os.close(file)


def _remove_remains(folder: int) -> None:
    """Remove unfinished files that nobody writes and folders that have nothing else, below an open folder."""
    with os.scandir(folder) as scanned:
        entries = list(scanned)
    for entry in entries:
        with suppress(FileNotFoundError):
            if entry.is_dir(follow_symlinks=False):
                inner = os.open(entry.name, _FOLDER, dir_fd=folder)
                try:
                    _remove_remains(inner)
                finally:
                    os.close(inner)
                os.rmdir(entry.name, dir_fd=folder)
            elif entry.is_file(follow_symlinks=False) and entry.name == _part(_whole(entry.name)):
                _remove_abandoned(folder, entry.name)


def _part(name: str) -> str:
    """Return the name under which an object is written until it is whole: known, so that it can be deleted too."""
    return f".{name}.part"


def _whole(part: str) -> str:
    return part.removeprefix(".").removesuffix(".part")


@contextmanager
def _typed(bucket: str, key: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise ObjectNotFoundError(f"there is no object {key!r} in bucket {bucket!r}") from None
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.EISDIR, errno.ELOOP):
            raise StorageError(
                f"{bucket}/{key} leads over another object or a symbolic link, which is not followed"
            ) from error
        if error.errno == errno.ENOTEMPTY:
            raise BucketNotEmptyError(f"something is in the bucket {bucket!r}, or is being put into it") from error
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE):
            raise StorageUnavailableError(f"{bucket}/{key} cannot be stored: {error.strerror}") from error
        raise StorageError(f"{bucket}/{key}: {error.strerror or error}") from error
