"""An object store in a folder."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

from mindia.errors import BucketNotEmptyError, InvalidError, ObjectNotFoundError
from mindia.storage._local_files import (
    Unfinished,
    begin_to_sync,
    is_named,
    opened_inner,
    part_of,
    published,
    remove_abandoned,
    remove_own,
    remove_remains,
    typed,
    walk,
    whole_of,
    write,
)
from mindia.storage.base import NewObject, StoredObject, check_bucket, check_key, check_prefix

_CHUNK = 1 << 20
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
        content_type: str,
        disposition: str | None = None,  # noqa: ARG002 - of the port; files have none
        region: str | None = None,  # noqa: ARG002 - of the port; files have none
    ) -> None:
        """Store an object."""
        with self.putting(bucket, [NewObject(key=key, source=source, content_type=content_type)]):
            pass

    @contextmanager
    def putting(
        self,
        bucket: str,
        objects: Sequence[NewObject],
        *,
        region: str | None = None,  # noqa: ARG002 - of the port
    ) -> Iterator[Callable[[], None]]:
        """Store objects: all have their names before the first is synced, so that a file system writes them at once."""
        check_bucket(bucket)
        keys = {_checked(each.key) for each in objects}
        if len(keys) < len(objects):
            raise InvalidError(f"of {len(objects)} objects some have the same key: {sorted(keys)}")
        try:
            with ExitStack() as stack:
                whole: list[Unfinished] = []
                # In one order, so that no two wait for each other.
                for each in sorted(objects, key=lambda each: each.key):
                    unfinished = stack.enter_context(self._unfinished(bucket, each.key))
                    while chunk := each.source.read(_CHUNK):
                        with typed(bucket, each.key):
                            write(unfinished.file, chunk)
                    begin_to_sync(unfinished.file)
                    whole.append(unfinished)
                yield stack.enter_context(published(bucket, whole))
        except BaseException:
            for above in {key.rpartition("/")[0] for key in keys}:
                self._remove_empty(bucket, above.split("/") if above else [])
            raise

    def open(self, bucket: str, key: str) -> BinaryIO:
        """Open an object for reading."""
        check_key(key)
        *parents, name = key.split("/")
        with typed(bucket, key), self._folder(bucket, parents) as folder:
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
                with typed(bucket, above), self._folder(bucket, parents) as folder:
                    for key in alike:
                        name = key.rpartition("/")[2]
                        with typed(bucket, key):
                            with suppress(FileNotFoundError, IsADirectoryError):
                                os.unlink(name, dir_fd=folder)
                            remove_abandoned(folder, part_of(name))
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
            with typed(bucket, ""), ExitStack() as stack:
                root = self._opened_root(make=False)
                stack.callback(os.close, root)
                with self._folder(bucket, []) as folder:
                    remove_remains(folder)
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
            with typed(bucket, prefix), self._folder(bucket, parents) as folder:
                for path, size in walk(folder, "".join(f"{segment}/" for segment in parents), after):
                    above, slash, name = path.rpartition("/")
                    if name.startswith("."):
                        if not parts:
                            continue
                        path = above + slash + whole_of(name)
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
                inner = opened_inner(opened, segment, make=make)
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
    def _unfinished(self, bucket: str, key: str) -> Iterator[Unfinished]:
        """Open the unfinished file of an object, for this writer alone, and its folder; nothing stays of a failure."""
        *parents, name = key.split("/")
        with ExitStack() as stack:
            with typed(bucket, key):
                folder, file = self._claimed(bucket, parents, part_of(name), stack)
            try:
                yield Unfinished(key, folder, file)
            except BaseException:
                remove_own(file, part_of(name), folder)
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
                if is_named(file, part, folder):
                    os.ftruncate(file, 0)
                    return folder, file
            stack.close()

    def _remove_empty(self, bucket: str, parents: Sequence[str]) -> None:
        for depth in range(len(parents), 0, -1):
            try:
                with self._folder(bucket, parents[: depth - 1]) as folder:
                    os.rmdir(parents[depth - 1], dir_fd=folder)
            except FileNotFoundError:
                continue  # never made, or removed by another
            except OSError:
                return  # not empty


def _checked(key: str) -> str:
    check_key(key)
    return key
