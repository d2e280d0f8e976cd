"""Files and folders of an object store, by open descriptors, so that no symbolic link is followed."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

import attrs

from mindia.errors import BucketNotEmptyError, ObjectNotFoundError, StorageError, StorageUnavailableError

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@attrs.frozen
class Unfinished:
    """A file that is being written for this writer alone, and the folder that it is in, by descriptors."""

    key: str
    folder: int
    file: int

    @property
    def name(self) -> str:
        """What it is called when it is whole."""
        return self.key.rpartition("/")[2]


def opened_inner(folder: int, segment: str, *, make: bool) -> int:
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


def walk(folder: int, above: str, after: str) -> Iterator[tuple[str, int]]:
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
                    yield from walk(inner, path, after)
                finally:
                    os.close(inner)
            elif stat.S_ISREG((found := os.stat(name, dir_fd=folder, follow_symlinks=False)).st_mode):
                yield path, found.st_size


@contextmanager
def published(bucket: str, unfinished: Sequence[Unfinished]) -> Iterator[Callable[[], None]]:
    """Move unfinished files, which are whole now, to their places; they stay there where the block lets them.

    A file system writes what the syncs wait for in one go where the names are there by then. After a power failure in
    between, a file may not be whole: what it would have replaced is kept by syncing it first.

    Yields:
        What syncs them all; the end of the block does where it has not been called. They stay from then on.
    """
    moved: list[Unfinished] = []
    is_synced = False
    failure: BaseException | None = None

    def sync() -> None:
        nonlocal is_synced, failure
        if is_synced:
            return
        if failure is not None:
            raise failure  # a system may tell of lost bytes only once
        try:
            for each in moved:
                with typed(bucket, each.key):
                    os.fsync(each.file)
            for each in {each.key.rpartition("/")[0]: each for each in unfinished}.values():
                with typed(bucket, each.key):
                    os.fsync(each.folder)
        except BaseException as error:
            failure = error
            raise
        is_synced = True

    try:
        for each in unfinished:
            with typed(bucket, each.key):
                replaces = _is_there(each.name, each.folder)
                if replaces:
                    os.fsync(each.file)
                os.replace(part_of(each.name), each.name, src_dir_fd=each.folder, dst_dir_fd=each.folder)
            if not replaces:
                moved.append(each)
        yield sync
        sync()
    except BaseException:
        if not is_synced:
            for each in moved:
                remove_own(each.file, each.name, each.folder)
        raise


def _is_there(name: str, folder: int) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def write(file: int, content: bytes) -> None:
    """Write all of it: the system may take less than it was given, as where the disk becomes full."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(file, rest) :]


def begin_to_sync(file: int) -> None:
    """Have the system begin to write a file out, so that less is left when it is waited for."""
    if hasattr(os, "posix_fadvise"):
        with suppress(OSError):  # only a hint
            # Linux writes out what is not to be kept in memory, and keeps it there while it does.
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)


def is_named(file: int, name: str, folder: int) -> bool:
    """Tell whether an open file is what the name stands for, still."""
    try:
        return os.path.samestat(os.fstat(file), os.stat(name, dir_fd=folder, follow_symlinks=False))
    except FileNotFoundError:
        return False


def remove_own(file: int, name: str, folder: int) -> None:
    """Remove what a failure has left under a name, unless another has put something there, if the disk lets us."""
    with suppress(OSError):  # the failure itself is what is to be told
        if is_named(file, name, folder):
            os.unlink(name, dir_fd=folder)


def remove_abandoned(folder: int, part: str) -> None:
    """Remove an unfinished file, unless its writer lives: then the object is stored after it was deleted."""
    try:
        file = os.open(part, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if is_named(file, part, folder):
            os.unlink(part, dir_fd=folder)
    except BlockingIOError:
        pass
    finally:
        os.close(file)


def remove_remains(folder: int) -> None:
    """Remove unfinished files that nobody writes and folders that have nothing else, below an open folder."""
    with os.scandir(folder) as scanned:
        entries = list(scanned)
    for entry in entries:
        with suppress(FileNotFoundError):
            if entry.is_dir(follow_symlinks=False):
                inner = os.open(entry.name, _FOLDER, dir_fd=folder)
                try:
                    remove_remains(inner)
                finally:
                    os.close(inner)
                os.rmdir(entry.name, dir_fd=folder)
            elif entry.is_file(follow_symlinks=False) and entry.name == part_of(whole_of(entry.name)):
                remove_abandoned(folder, entry.name)


def part_of(name: str) -> str:
    """Return the name under which an object is written until it is whole: known, so that it can be deleted too."""
    return f".{name}.part"


def whole_of(part: str) -> str:
    """Return the name of an object by that of its unfinished file."""
    return part.removeprefix(".").removesuffix(".part")


@contextmanager
def typed(bucket: str, key: str) -> Iterator[None]:
    """Raise an error of the library's own for one of the system's."""
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
