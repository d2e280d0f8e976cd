"""What a folder as an object store promises beyond the contract: atomic files, no links followed, typed failures."""

from __future__ import annotations

import errno
import io
import os
import resource
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from mindia import LocalStorage
from mindia.errors import BucketNotEmptyError, ObjectNotFoundError, StorageError, StorageUnavailableError
from mindia.storage.base import NewObject
from mindia.testing.storage import listed, put, read

BUCKET = "bucket"
_WAIT_S = 30.0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "objects"


@pytest.fixture
def local(root: Path) -> LocalStorage:
    return LocalStorage(root)


def put_all(local: LocalStorage, keys: Iterable[str], content: bytes = b"new") -> None:
    """Store objects together."""
    objects = [NewObject(key=key, source=io.BytesIO(content), content_type="text/plain") for key in keys]
    with local.putting(BUCKET, objects):
        pass


def files(root: Path) -> list[str]:
    """All that is below a folder, except the folders."""
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if not path.is_dir())


def descriptors() -> list[int]:
    """The open descriptors of this process."""
    return sorted(int(path.name) for path in Path("/dev/fd").iterdir())


class Paused(io.RawIOBase):
    """A source that stands still after its first piece until it is told to go on."""

    def __init__(self, *pieces: bytes) -> None:
        self.reached = threading.Event()
        self.go_on = threading.Event()
        self._pieces = list(pieces)
        self._given = 0

    def readable(self) -> bool:
        return True

    def read(self, _: int = -1) -> bytes:
        if self._given == 1:
            self.reached.set()
            assert self.go_on.wait(_WAIT_S)
        self._given += 1
        return self._pieces.pop(0) if self._pieces else b""

    @property
    def binary(self) -> BinaryIO:
        return self  # type: ignore[return-value]  # it reads, that is enough


@contextmanager
def putting(local: LocalStorage, key: str, source: Paused) -> Iterator[None]:
    """Put an object in a thread; inside the block it has stopped in the middle."""
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(local.put, BUCKET, key, source.binary, content_type="text/plain")
        try:
            assert source.reached.wait(_WAIT_S)
            yield
        finally:
            source.go_on.set()
        done.result(_WAIT_S)


def kill_while_putting(root: Path, key: str) -> None:
    """Put an object in a process that is killed in the middle."""
    script = """
import io, os, signal, sys
from mindia import LocalStorage
class Source(io.RawIOBase):
    given = 0
    def read(self, size=-1):
        self.given += 1
        if self.given == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return b"half" * 1000
LocalStorage(sys.argv[1]).put("bucket", sys.argv[2], Source(), content_type="text/plain")
"""
    ended = subprocess.run([sys.executable, "-c", script, root, key], check=False, timeout=60)
    assert ended.returncode == -9


def test_an_object_is_a_file_of_its_key(local: LocalStorage, root: Path) -> None:
    put(local, BUCKET, "a/b/c", b"content")

    assert files(root) == ["bucket/a/b/c"]
    assert (root / "bucket/a/b/c").read_bytes() == b"content"


def test_files_and_folders_are_for_their_owner_alone(local: LocalStorage, root: Path) -> None:
    before = os.umask(0)
    try:
        put(local, BUCKET, "a/b", b"content")
    finally:
        os.umask(before)

    assert stat.S_IMODE((root / "bucket/a/b").stat().st_mode) == 0o600
    assert stat.S_IMODE((root / "bucket/a").stat().st_mode) == 0o700
    assert stat.S_IMODE((root / "bucket").stat().st_mode) == 0o700


def test_an_object_is_written_under_another_name_until_it_is_whole(local: LocalStorage, root: Path) -> None:
    put(local, BUCKET, "a/b", b"before")
    source = Paused(b"1" * 10, b"2" * 10)

    with putting(local, "a/b", source):
        assert files(root) == ["bucket/a/.b.part", "bucket/a/b"]
        assert read(local, BUCKET, "a/b") == b"before"
        assert listed(local, BUCKET) == {"a/b": 6}

    assert files(root) == ["bucket/a/b"]
    assert read(local, BUCKET, "a/b") == b"1" * 10 + b"2" * 10


def test_a_second_writer_of_an_object_waits_for_the_first(local: LocalStorage, root: Path) -> None:
    first, second = Paused(b"1", b"1"), Paused(b"22", b"22")

    with ThreadPoolExecutor(1) as pool:
        with putting(local, "a", first):
            later = pool.submit(local.put, BUCKET, "a", second.binary, content_type="text/plain")
            assert not second.reached.wait(0.1)
            assert files(root) == ["bucket/.a.part"]
        assert second.reached.wait(_WAIT_S)
        assert read(local, BUCKET, "a") == b"11"
        second.go_on.set()
        later.result(_WAIT_S)

    assert read(local, BUCKET, "a") == b"2222"
    assert files(root) == ["bucket/a"]


def test_a_delete_does_not_disturb_the_writer_of_the_same_object(local: LocalStorage, root: Path) -> None:
    put(local, BUCKET, "a/b", b"before")

    with putting(local, "a/b", Paused(b"1", b"2")):
        local.delete(BUCKET, ["a/b"])
        local.delete_prefix(BUCKET, "a/")
        assert not local.exists(BUCKET, "a/b")

    assert read(local, BUCKET, "a/b") == b"12"
    assert files(root) == ["bucket/a/b"]


def test_what_a_killed_writer_leaves_is_no_object(local: LocalStorage, root: Path) -> None:
    put(local, BUCKET, "a/here", b"before")
    for key in ("a/gone", "a/here"):
        kill_while_putting(root, key)

    assert files(root) == ["bucket/a/.gone.part", "bucket/a/.here.part", "bucket/a/here"]
    assert listed(local, BUCKET) == {"a/here": 6}
    assert not local.exists(BUCKET, "a/gone")
    with pytest.raises(ObjectNotFoundError):
        local.open(BUCKET, "a/gone")
    assert read(local, BUCKET, "a/here") == b"before"


def test_what_a_killed_writer_leaves_goes_with_its_key(local: LocalStorage, root: Path) -> None:
    kill_while_putting(root, "a/one")
    kill_while_putting(root, "a/other")

    local.delete(BUCKET, ["a/one"])

    assert files(root) == ["bucket/a/.other.part"]


def test_what_a_killed_writer_leaves_goes_with_its_prefix(local: LocalStorage, root: Path) -> None:
    kill_while_putting(root, "a/b/one")
    kill_while_putting(root, "a/c")

    local.delete_prefix(BUCKET, "a/b/o")
    assert files(root) == ["bucket/a/.c.part"]
    local.delete_prefix(BUCKET, "a/")
    assert files(root) == []


def test_what_a_killed_writer_leaves_is_written_over(local: LocalStorage, root: Path) -> None:
    kill_while_putting(root, "a/b")

    put(local, BUCKET, "a/b", b"short")

    assert read(local, BUCKET, "a/b") == b"short"
    assert files(root) == ["bucket/a/b"]


def test_folders_go_with_their_last_object(local: LocalStorage, root: Path) -> None:
    put(local, BUCKET, "a/b/c/one", b"1")
    put(local, BUCKET, "a/b/other", b"1")

    local.delete(BUCKET, ["a/b/c/one"])
    assert not (root / "bucket/a/b/c").exists()
    assert (root / "bucket/a/b").exists()
    local.delete(BUCKET, ["a/b/other"])
    assert list((root / "bucket").iterdir()) == []


def test_the_folder_of_a_bucket_goes_with_what_killed_writers_have_left(local: LocalStorage, root: Path) -> None:
    put(local, "other", "a", b"1")
    (root / "bucket/a/b/c").mkdir(parents=True)
    for key in ("a/b/one", "two"):
        kill_while_putting(root, key)

    local.delete_bucket(BUCKET)

    assert [path.name for path in root.iterdir()] == ["other"]
    local.delete_bucket(BUCKET)
    LocalStorage(root / "never made").delete_bucket(BUCKET)


def test_the_folder_of_a_bucket_stays_while_something_is_put_into_it(local: LocalStorage, root: Path) -> None:
    with putting(local, "a/b", Paused(b"1", b"2")), pytest.raises(BucketNotEmptyError, match="being put into"):
        local.delete_bucket(BUCKET)

    assert read(local, BUCKET, "a/b") == b"12"
    assert files(root) == ["bucket/a/b"]


def test_the_folder_of_a_bucket_stays_where_something_else_is_in_it(
    local: LocalStorage, root: Path, outside: Path
) -> None:
    (root / "bucket").mkdir(parents=True)
    (root / "bucket/link").symlink_to(outside)
    (root / "linked").symlink_to(outside)

    with pytest.raises(BucketNotEmptyError):
        local.delete_bucket(BUCKET)
    with pytest.raises(StorageError, match="symbolic link"):
        local.delete_bucket("linked")

    assert files(outside) == ["secret"]


def test_no_folder_stays_of_a_failed_put(local: LocalStorage, root: Path) -> None:
    class Broken(io.RawIOBase):
        def read(self, _: int = -1) -> bytes:
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        local.put(BUCKET, "a/b/c", Broken(), content_type="text/plain")  # type: ignore[arg-type]  # it reads

    assert list((root / "bucket").iterdir()) == []


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder with a file, outside of the store."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret").write_bytes(b"secret")
    return folder


@pytest.mark.parametrize("link", ["bucket", "bucket/a", "bucket/a/b"], ids=["bucket", "folder", "inner folder"])
def test_a_folder_that_is_a_symbolic_link_is_not_followed(
    local: LocalStorage, root: Path, outside: Path, link: str
) -> None:
    (root / link).parent.mkdir(parents=True)
    (root / link).symlink_to(outside, target_is_directory=True)
    key = "a/b/secret"

    with pytest.raises(StorageError):
        put(local, BUCKET, key, b"1")
    with pytest.raises(StorageError):
        local.open(BUCKET, key)
    with pytest.raises(StorageError):
        local.size(BUCKET, key)
    with pytest.raises(StorageError):
        local.delete(BUCKET, [key])
    for prefix in ("", "a", "a/", "a/b", "a/b/"):
        try:
            assert listed(local, BUCKET, prefix=prefix) == {}
        except StorageError:
            assert (root / BUCKET / prefix).resolve().is_relative_to(outside)
    try:
        local.delete_prefix(BUCKET, "a")
    except StorageError:
        assert link == BUCKET

    assert files(outside) == ["secret"]
    assert (outside / "secret").read_bytes() == b"secret"


def test_an_object_that_is_a_symbolic_link_is_not_followed(local: LocalStorage, root: Path, outside: Path) -> None:
    put(local, BUCKET, "good", b"1")
    (root / "bucket/link").symlink_to(outside / "secret")
    (root / "bucket/.later.part").symlink_to(outside / "secret")

    with pytest.raises(StorageError):
        local.open(BUCKET, "link")
    with pytest.raises(StorageError):
        local.copy(BUCKET, "link", to_bucket=BUCKET, to_key="copy")
    with pytest.raises(StorageError):
        put(local, BUCKET, "later", b"written through")
    assert listed(local, BUCKET) == {"good": 1}

    put(local, BUCKET, "link", b"2")  # in place of the link
    assert read(local, BUCKET, "link") == b"2"
    assert (outside / "secret").read_bytes() == b"secret"


def test_a_deleted_link_leaves_what_it_points_at(local: LocalStorage, root: Path, outside: Path) -> None:
    put(local, BUCKET, "good", b"1")
    (root / "bucket/link").symlink_to(outside / "secret")

    local.delete(BUCKET, ["link"])

    assert files(root) == ["bucket/good"]
    assert (outside / "secret").read_bytes() == b"secret"


def test_the_root_itself_may_be_a_link(tmp_path: Path, outside: Path) -> None:
    (tmp_path / "link").symlink_to(outside)
    local = LocalStorage(tmp_path / "link")

    put(local, BUCKET, "a", b"1")

    assert (outside / "bucket/a").read_bytes() == b"1"


def test_a_pipe_is_no_object_and_nobody_waits_for_it(local: LocalStorage, root: Path) -> None:
    put(local, BUCKET, "good", b"1")
    os.mkfifo(root / "bucket/pipe")

    with pytest.raises(ObjectNotFoundError):
        local.open(BUCKET, "pipe")
    assert not local.exists(BUCKET, "pipe")
    assert listed(local, BUCKET) == {"good": 1}


def test_an_object_and_a_folder_cannot_have_the_same_name(local: LocalStorage, root: Path) -> None:
    put(local, BUCKET, "a/b", b"1")
    put(local, BUCKET, "c", b"1")

    with pytest.raises(StorageError, match="another object"):
        put(local, BUCKET, "a", b"2")
    with pytest.raises(StorageError, match="another object"):
        put(local, BUCKET, "c/d/e", b"2")

    assert not local.exists(BUCKET, "a")
    assert not local.exists(BUCKET, "c/d/e")
    local.delete(BUCKET, ["a", "c/d/e"])
    assert files(root) == ["bucket/a/b", "bucket/c"]


def test_a_relative_root_stays_where_it_was_when_the_process_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    local = LocalStorage("objects")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    put(local, BUCKET, "a", b"1")

    assert files(tmp_path) == ["objects/bucket/a"]


def test_no_descriptor_stays_open(local: LocalStorage) -> None:
    def work() -> None:
        put(local, BUCKET, "a/b", b"1")
        read(local, BUCKET, "a/b")
        next(local.list(BUCKET))
        local.exists(BUCKET, "none/at/all")
        local.copy(BUCKET, "a/b", to_bucket=BUCKET, to_key="c")
        with pytest.raises(StorageError):
            put(local, BUCKET, "a", b"1")
        local.delete(BUCKET, ["a/b", "c"])

    work()
    before = descriptors()
    for _ in range(5):
        work()

    assert descriptors() == before


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Have the system refuse to let any file of this process become longer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [100_001, 700_000, 3_000_000])
def test_what_the_system_refuses_to_write_is_a_typed_error_and_leaves_nothing(
    local: LocalStorage, root: Path, size: int
) -> None:
    put(local, BUCKET, "here", b"before")

    with files_of_at_most(100_000):
        for key in ("a/b", "here"):
            with pytest.raises(StorageError, match=key):
                put(local, BUCKET, key, b"1" * size)

    assert files(root) == ["bucket/here"]
    assert not (root / "bucket/a").exists()
    assert read(local, BUCKET, "here") == b"before"


def test_a_full_disk_is_an_error_that_may_pass_and_leaves_nothing(tmp_path: Path) -> None:
    script = """
import io, os, sys
from mindia import LocalStorage
from mindia.errors import StorageUnavailableError
local = LocalStorage(sys.argv[1])
local.put("bucket", "here", io.BytesIO(b"before"), content_type="text/plain")
for size in (1_100_000, 3_000_000):
    try:
        local.put("bucket", "a/b", io.BytesIO(b"1" * size), content_type="text/plain")
    except StorageUnavailableError as error:
        assert error.retryable and "a/b" in str(error), error
    else:
        raise AssertionError("stored")
assert os.listdir(sys.argv[1] + "/bucket") == ["here"], os.listdir(sys.argv[1] + "/bucket")
local.put("bucket", "a/b", io.BytesIO(b"1" * 500_000), content_type="text/plain")
assert local.size("bucket", "a/b") == 500_000
print("done")
"""
    disk = tmp_path / "disk"
    disk.mkdir()
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("a small disk is mounted by unshare(1), which is not here")
    # In a mount namespace of its own, so that it is gone with the process.
    mounted = [unshare, "--user", "--map-root-user", "--mount", "sh", "-c"]
    mount = f'mount -t tmpfs -o size=1m tmpfs "{disk}"'
    if subprocess.run([*mounted, mount], check=False, capture_output=True, timeout=60).returncode:
        pytest.skip("this system does not let its users mount a small disk")

    command = [*mounted, f'{mount} && exec "$0" -c "$1" "{disk}"', sys.executable, script]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)

    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "done\n"


def test_too_many_open_files_are_an_error_that_may_pass(local: LocalStorage) -> None:
    put(local, BUCKET, "a", b"1")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(descriptors()) + 1, hard))
    opened = []
    try:
        while True:
            try:
                opened.append(os.open("/dev/null", os.O_RDONLY))
            except OSError:
                break
        with pytest.raises(StorageUnavailableError):
            put(local, BUCKET, "a/b", b"1")
        with pytest.raises(StorageUnavailableError):
            local.open(BUCKET, "a")
    finally:
        for descriptor in opened:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert read(local, BUCKET, "a") == b"1"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
def test_a_folder_without_permission_is_a_typed_error(local: LocalStorage, root: Path) -> None:
    put(local, BUCKET, "a/b", b"1")
    (root / "bucket/a").chmod(0)
    try:
        with pytest.raises(StorageError, match="Permission denied"):
            local.open(BUCKET, "a/b")
        with pytest.raises(StorageError, match="Permission denied"):
            put(local, BUCKET, "a/b", b"2")
        with pytest.raises(StorageError, match="Permission denied"):
            listed(local, BUCKET)
        with pytest.raises(StorageError, match="Permission denied"):
            local.delete_prefix(BUCKET, "a")
    finally:
        (root / "bucket/a").chmod(0o700)
    assert read(local, BUCKET, "a/b") == b"1"


@pytest.mark.parametrize(
    ("call", "refused"), [*(("fsync", at) for at in range(8)), *(("replace", at) for at in range(4))]
)
def test_of_those_put_together_none_stays_where_the_system_fails_at_any_of_them(
    local: LocalStorage, root: Path, monkeypatch: pytest.MonkeyPatch, call: str, refused: int
) -> None:
    put(local, BUCKET, "a/1", b"before")
    before, real, calls = descriptors(), getattr(os, call), iter(range(refused + 1))

    def failing(*arguments: Any, **named: Any) -> None:
        if next(calls, None) == refused:
            raise OSError(errno.EIO, "of the disk")
        real(*arguments, **named)

    monkeypatch.setattr(os, call, failing)
    with pytest.raises(StorageError, match="of the disk"):
        put_all(local, ["a/0", "a/1", "a/2", "b/c/0"])

    assert files(root) == ["bucket/a/1"]
    assert not (root / "bucket/b").exists()
    assert read(local, BUCKET, "a/1") in (b"before", b"new")
    assert descriptors() == before


def test_of_those_put_together_none_stays_where_the_system_refuses_to_write_one(
    local: LocalStorage, root: Path
) -> None:
    put(local, BUCKET, "a/1", b"before")

    with files_of_at_most(100_000), pytest.raises(StorageError, match="a/0"):
        put_all(local, ["a/0", "a/1", "b/c"], b"1" * 100_001)

    assert files(root) == ["bucket/a/1"]
    assert read(local, BUCKET, "a/1") == b"before"


def test_a_disk_that_takes_nothing_back_either_is_a_typed_error(
    local: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "read-only now")

    put(local, BUCKET, "a/here", b"1")
    before = descriptors()
    for call in ("fsync", "replace", "write"):
        with monkeypatch.context() as patched:
            patched.setattr(os, call, failing)
            patched.setattr(os, "unlink", failing)
            with pytest.raises(StorageError, match="read-only now"):
                put_all(local, ["a/0", "a/1"])
        assert descriptors() == before


def test_a_system_need_not_know_what_will_be_waited_for(local: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    def refusing(*_: int) -> None:
        raise OSError(errno.EINVAL, "not here")

    monkeypatch.setattr(os, "posix_fadvise", refusing)
    put(local, BUCKET, "a", b"1")
    monkeypatch.delattr(os, "posix_fadvise")
    put(local, BUCKET, "b", b"2")

    assert (read(local, BUCKET, "a"), read(local, BUCKET, "b")) == (b"1", b"2")


def test_a_failure_leaves_what_another_has_put_in_place_of_one_meanwhile(
    local: LocalStorage, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(_: int) -> None:
        monkeypatch.undo()
        put(local, BUCKET, "a/0", b"of another")
        raise OSError(errno.EIO, "of the disk")

    put(local, BUCKET, "a/here", b"1")
    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(StorageError, match="of the disk"):
        put_all(local, ["a/0", "a/1"])

    assert files(root) == ["bucket/a/0", "bucket/a/here"]
    assert read(local, BUCKET, "a/0") == b"of another"


@pytest.mark.parametrize("killed_at", range(11))
def test_what_a_killed_writer_of_several_left_can_be_deleted_by_their_keys(
    local: LocalStorage, root: Path, killed_at: int
) -> None:
    script = """
import io, os, signal, sys
from mindia import LocalStorage
from mindia.storage.base import NewObject
calls = iter(range(1 + int(sys.argv[2])))
def dying(real):
    def call(*arguments, **named):
        if next(calls, None) == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **named)
    return call
objects = [NewObject(key=key, source=io.BytesIO(b"1"), content_type="text/plain") for key in ("a", "b", "c")]
for name in ("write", "replace", "fsync"):
    setattr(os, name, dying(getattr(os, name)))
with LocalStorage(sys.argv[1]).putting("bucket", objects):
    pass
"""
    ended = subprocess.run([sys.executable, "-c", script, root, str(killed_at)], check=False, timeout=60)
    assert ended.returncode == -9
    assert set(listed(local, BUCKET).values()) <= {1}

    local.delete(BUCKET, ["a", "b", "c"])

    assert files(root) == []
