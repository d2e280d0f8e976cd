"""An object store in a folder."""

from __future__ import annotations

import errno
import io
import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from mindia.errors import InvalidError, ObjectNotFoundError, StorageError, StorageUnavailableError
from mindia.storage.base import StoredObject, check_key

_CHUNK = 1 << 20
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_TRIES = 20
"""A folder that was just made may be removed as empty by a concurrent delete, but not many times in a row."""


class LocalStorage:
    """Objects as files: `root/bucket/key`.

    An object is written beside its place, synced, and moved there; its folder is synced too. No symbolic link below the
    root is followed.

    Args:
        root: The folder; made where it is missing.
    """

    region = "local"

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root).absolute()

    def __repr__(self) -> str:
        return f"LocalStorage({str(self.root)!r})"

    def put(self, bucket: str, key: str, source: BinaryIO, *, content_type: str) -> None:  # noqa: ARG002 - of the port
        """Store an object."""
        check_key(key)
        *parents, name = key.split("/")
        part = _part(name)
        with _typed(bucket, key), self._created(bucket, parents, part) as (folder, file):
            try:
                shutil.copyfileobj(source, file, _CHUNK)
                os.fsync(file.fileno())
                os.replace(part, name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with suppress(FileNotFoundError):
                    os.unlink(part, dir_fd=folder)
                raise
            os.fsync(folder)

    def open(self, bucket: str, key: str) -> BinaryIO:
        """Open an object for reading."""
        check_key(key)
        *parents, name = key.split("/")
        with _typed(bucket, key), self._folder(bucket, parents) as folder:
            file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
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

    def copy(self, bucket: str, key: str, *, to_bucket: str, to_key: str) -> None:
        """Copy an object."""
        with self.open(bucket, key) as source:
            self.put(to_bucket, to_key, source, content_type="application/octet-stream")

    def delete(self, bucket: str, keys: Iterable[str]) -> None:
        """Delete objects, and what an interrupted `put` left of them; a missing one is fine."""
        for key in keys:
            check_key(key)
            *parents, name = key.split("/")
            try:
                with _typed(bucket, key), self._folder(bucket, parents) as folder:
                    for file in (name, _part(name)):
                        with suppress(FileNotFoundError):
                            os.unlink(file, dir_fd=folder)
                    os.fsync(folder)
            except ObjectNotFoundError:
                continue
            self._remove_empty(bucket, parents)

    def delete_prefix(self, bucket: str, prefix: str) -> None:
        """Delete all objects whose keys begin with `prefix`, and what interrupted `put`s left of them."""
        if not prefix:
            raise InvalidError("prefix must not be empty")
        self.delete(bucket, [key for key, _ in self._files(bucket, prefix, parts=True)])

    def list(self, bucket: str, *, prefix: str = "", after: str = "") -> Iterator[StoredObject]:
        """Yield the objects whose keys begin with `prefix` and come after `after`."""
        for key, size in self._files(bucket, prefix, parts=False):
            if key > after:
                yield StoredObject(key, size)

    def _files(self, bucket: str, prefix: str, *, parts: bool) -> Iterator[tuple[str, int]]:
        """Yield keys and sizes; with `parts` also the keys that only an unfinished file stands for."""
        check_key(bucket)
        top = self.root / bucket
        start = top / prefix.rpartition("/")[0]
        if not start.resolve().is_relative_to(top.resolve()):
            raise InvalidError(f"the prefix {prefix[:80]!r} leaves the bucket")
        for path, size in _walk(start):
            key = path.relative_to(top).as_posix()
            if path.name.startswith("."):
                if not parts:
                    continue
                key = path.with_name(_whole(path.name)).relative_to(top).as_posix()
            if key.startswith(prefix):
                yield key, size

    @contextmanager
    def _folder(self, bucket: str, parents: Sequence[str], *, make: bool = False) -> Iterator[int]:
        """Open the folder of an object, step by step, so that no step can be a symbolic link."""
        check_key(bucket)
        if make:
            self.root.mkdir(parents=True, exist_ok=True)
        opened = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for segment in [bucket, *parents]:
                if make:
                    try:
                        os.mkdir(segment, 0o700, dir_fd=opened)
                    except FileExistsError:
                        pass
                    else:
                        os.fsync(opened)
                inner = os.open(segment, _FOLDER, dir_fd=opened)
                os.close(opened)
                opened = inner
            yield opened
        finally:
            os.close(opened)

    @contextmanager
    def _created(self, bucket: str, parents: Sequence[str], name: str) -> Iterator[tuple[int, io.FileIO]]:
        """Create a file, its folders too, and open both."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with ExitStack() as stack:
            for left in reversed(range(_TRIES)):
                try:
                    folder = stack.enter_context(self._folder(bucket, parents, make=True))
                    descriptor = os.open(name, flags, 0o600, dir_fd=folder)
                    break
                except FileNotFoundError:
                    if not left:
                        raise
                    stack.close()
            yield folder, stack.enter_context(io.FileIO(descriptor, "w"))

    def _remove_empty(self, bucket: str, parents: Sequence[str]) -> None:
        for depth in range(len(parents), 0, -1):
            try:
                with self._folder(bucket, parents[: depth - 1]) as folder:
                    os.rmdir(parents[depth - 1], dir_fd=folder)
            except OSError:
                return  # not empty, or removed by another


def _walk(folder: Path) -> Iterator[tuple[Path, int]]:
    """Yield the files below a folder with their sizes, in the order of their keys."""
    with suppress(FileNotFoundError, NotADirectoryError):
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name + "/" * entry.is_dir(follow_symlinks=False))
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(Path(entry.path))
            else:
                with suppress(FileNotFoundError):
                    yield Path(entry.path), entry.stat(follow_symlinks=False).st_size


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
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            raise StorageError(f"{bucket}/{key} leads over a file or a symbolic link, which is not followed") from error
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE):
            raise StorageUnavailableError(f"{bucket}/{key} cannot be stored: {error.strerror}") from error
        raise StorageError(f"{bucket}/{key}: {error.strerror or error}") from error
