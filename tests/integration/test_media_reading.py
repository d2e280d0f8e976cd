"""Items are read as a whole, in parts, or into a file, and never more of them than is asked for."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.integration.library_calls import SETTINGS
from tests.integration.media_rows import Host, four_kinds

import mindia
from mindia import Library, LocalStorage, Media, MemoryStorage, Mindia
from mindia._ids import uuid7
from mindia.errors import InvalidError, NotFoundError, ObjectNotFoundError, StorageError, StorageUnavailableError
from mindia.storage.base import Storage
from mindia.testing import samples

TRUSTING = attrs.evolve(SETTINGS, isolate_parsers=False)

TINY = samples.image("PNG", width=2, height=2)
LARGE_BYTES = 64 << 20


@pytest.fixture
def trusting(database_url: str, storage: LocalStorage) -> Iterator[Mindia]:
    """An application that parses in its own process."""
    with mindia.connect(database_url, storage=storage, settings=TRUSTING) as app:
        yield app


@pytest.fixture
def library(trusting: Mindia) -> Library:
    return trusting.library(trusting.tenants.create("Acme"))


@pytest.fixture
def other(trusting: Mindia) -> Library:
    """Another tenant's library."""
    return trusting.library(trusting.tenants.create("Globex"))


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A folder for what is saved."""
    folder = tmp_path / "target"
    folder.mkdir()
    return folder


@attrs.frozen
class Stored:
    """An item, whose it is, and its bytes."""

    library: Library
    item: Media
    content: bytes


@pytest.fixture(scope="module", params=["local", "memory"])
def stored(
    database_url: str, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Stored]:
    """An item of some chunks of what files are buffered in, in each object store."""
    local = LocalStorage(tmp_path_factory.mktemp("objects"))
    storage: Storage = local if request.param == "local" else MemoryStorage()
    with mindia.connect(database_url, storage=storage, settings=TRUSTING) as app:
        library = app.library(app.tenants.create("Acme"))
        content = samples.wav(seconds=2.5)
        yield Stored(library, library.media.add(content, filename="tone.wav"), content)


def file_of(storage: LocalStorage, item: Media) -> Path:
    """Where the bytes of an item are."""
    (path,) = storage.root.glob(f"*/{item.s3_key}")
    return path


# Many at once


def test_items_come_in_the_order_of_their_ids_without_those_that_are_not_found(
    library: Library, other: Library
) -> None:
    added = four_kinds(library)
    foreign = other.media.add(TINY)
    gone = library.media.add(TINY)
    library.media.delete(gone)

    assert library.media.get_many([item.id for item in added]) == added
    assert library.media.get_many([item.id for item in reversed(added)]) == added[::-1]
    wanted = [uuid7(), added[2].id, foreign.id, added[0].id, gone.id]
    assert library.media.get_many(wanted) == [added[2], added[0]]
    assert library.media.get_many(iter(wanted)) == [added[2], added[0]]
    assert library.media.get_many({item.id: None for item in added}) == added
    assert library.media.get_many([]) == []
    assert library.media.get_many([uuid7()]) == []


def test_any_number_of_items_may_be_asked_for_at_once(library: Library) -> None:
    added = [library.media.add(TINY, filename=f"{number}") for number in range(3)]
    ids = [uuid7() for _ in range(2_500)]
    for at, item in zip((0, 1_000, 2_499), added, strict=True):
        ids[at] = item.id

    assert library.media.get_many(ids) == added


# In parts


@pytest.mark.parametrize("by_id", [True, False], ids=["by id", "by item"])
def test_the_whole_item_is_read_where_no_part_is_asked_for(stored: Stored, by_id: bool) -> None:
    item = stored.item.id if by_id else stored.item

    assert stored.library.media.read(item) == stored.content
    assert stored.library.media.read(item, start=0, length=None) == stored.content
    with stored.library.media.open(item) as file:
        assert file.read() == stored.content
        assert file.read() == b""
        assert file.readable()
        assert file.seekable()


NEAR = st.sampled_from([0, 1, 4095, 4096, 8191, 8192, 8193, 65_536, 80_043, 80_044, 80_045, 10**6])


@settings(max_examples=100, derandomize=True)
@given(start=NEAR | st.integers(0, 90_000), length=st.none() | NEAR | st.integers(0, 90_000))
def test_any_part_that_is_read_is_the_slice_of_the_bytes(stored: Stored, start: int, length: int | None) -> None:
    assert len(stored.content) == 80_044

    read = stored.library.media.read(stored.item, start=start, length=length)

    assert read == stored.content[start : None if length is None else start + length]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("seek"), NEAR | st.integers(0, 90_000), st.just(os.SEEK_SET)),
        st.tuples(st.just("seek"), st.integers(-90_000, 0), st.just(os.SEEK_END)),
        st.tuples(st.just("seek"), st.integers(-50, 50), st.just(os.SEEK_CUR)),
        st.tuples(st.just("read"), st.integers(-1, 90_000)),
        st.tuples(st.just("readinto"), st.integers(0, 9_000)),
        st.tuples(st.just("readline"), st.integers(-1, 100)),
        st.tuples(st.just("tell")),
    ),
    max_size=12,
)


@settings(max_examples=100, derandomize=True)
@given(STEPS)
def test_an_open_item_is_a_file_like_any_other(stored: Stored, steps: list[tuple[Any, ...]]) -> None:
    like = io.BytesIO(stored.content)
    with stored.library.media.open(stored.item) as file:
        for name, *arguments in steps:
            if name == "seek" and _position(like, *arguments) < 0:
                continue
            if name == "readinto":
                ours, theirs = bytearray(arguments[0]), bytearray(arguments[0])
                assert file.readinto(ours) == like.readinto(theirs)  # type: ignore[attr-defined]  # not of BinaryIO
                assert ours == theirs
            else:
                assert getattr(file, name)(*arguments) == getattr(like, name)(*arguments)
            assert file.tell() == like.tell()


def _position(file: io.BytesIO, offset: int, whence: int) -> int:
    return offset + {os.SEEK_SET: 0, os.SEEK_CUR: file.tell(), os.SEEK_END: len(file.getvalue())}[whence]


@pytest.mark.parametrize(
    ("start", "length", "expected"),
    [
        (0, 0, b""),
        (80_043, 1, slice(80_043, None)),
        (80_044, 1, b""),
        (80_044, None, b""),
        (10**12, None, b""),
        (2**63, 5, b""),
        (10**30, 10**30, b""),
        (0, 2**31, slice(None)),
        (0, 2**46, slice(None)),
        (80_000, 2**63, slice(80_000, None)),
        (0, 10**30, slice(None)),
    ],
)
def test_what_is_asked_for_beyond_the_end_is_not_there(
    stored: Stored, start: int, length: int | None, expected: bytes | slice
) -> None:
    read = stored.library.media.read(stored.item, start=start, length=length)

    assert read == (stored.content[expected] if isinstance(expected, slice) else expected)


@pytest.mark.parametrize(("start", "length"), [(-1, None), (0, -1), (-1, -1), (-(10**30), 1), (5, -(10**30))])
def test_a_part_does_not_begin_or_end_before_the_item(stored: Stored, start: int, length: int | None) -> None:
    with pytest.raises(InvalidError, match=f"must not be negative: {start}, {length}"):
        stored.library.media.read(stored.item, start=start, length=length)


def test_no_more_is_read_than_is_asked_for(library: Library, storage: LocalStorage, host: Host) -> None:
    """The file is as large as it says, with nothing but a hole on the disk."""
    item = library.media.add(TINY, filename="large.png")
    with file_of(storage, item).open("r+b") as file:
        file.truncate(LARGE_BYTES)
        file.seek(LARGE_BYTES - 4)
        file.write(b"last")
    with host.transaction():
        host.execute("update mindia.images set file_size = %s where id = %s", (LARGE_BYTES, item.id))
    item = library.media.get(item.id)

    tracemalloc.start()
    try:
        assert library.media.read(item, length=len(TINY)) == TINY
        assert library.media.read(item, start=LARGE_BYTES // 2, length=1_000) == bytes(1_000)
        assert library.media.read(item, start=LARGE_BYTES - 4) == b"last"
        assert library.media.read(item, start=LARGE_BYTES - 4, length=2**40) == b"last"
        with library.media.open(item) as opened:
            opened.seek(-1_000, os.SEEK_END)
            assert opened.read() == bytes(996) + b"last"
            opened.seek(0)
            assert opened.read(4) == TINY[:4]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20


def test_a_file_that_is_large_is_saved_in_pieces(
    library: Library, storage: LocalStorage, host: Host, target: Path
) -> None:
    item = library.media.add(TINY, filename="large.png")
    content = bytes(LARGE_BYTES // 4)
    file_of(storage, item).write_bytes(content)
    with host.transaction():
        host.execute(
            "update mindia.images set file_size = %s, sha256 = %s where id = %s",
            (len(content), hashlib.sha256(content).digest(), item.id),
        )

    tracemalloc.start()
    try:
        saved = library.media.save_to(item.id, target)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert saved.stat().st_size == len(content)
    assert peak < len(content) // 2


def test_several_may_read_the_same_item_at_once(stored: Stored) -> None:
    with stored.library.media.open(stored.item) as one, stored.library.media.open(stored.item) as another:
        one.seek(100)
        assert another.read(10) == stored.content[:10]
        assert one.read(10) == stored.content[100:110]


def test_what_was_opened_can_be_read_to_its_end_although_it_is_deleted(library: Library, trusting: Mindia) -> None:
    content = samples.wav(seconds=2.5)
    item = library.media.add(content)
    with library.media.open(item) as file:
        assert file.read(10) == content[:10]
        library.media.delete(item)
        trusting.maintenance.remove_deleted()
        assert file.read() == content[10:]


def test_what_is_deleted_or_another_tenants_is_not_found(library: Library, other: Library, target: Path) -> None:
    deleted = library.media.add(TINY)
    library.media.delete(deleted)
    for item in (deleted, other.media.add(TINY), None):
        wanted = uuid7() if item is None else item
        for same in (wanted, wanted if not isinstance(wanted, Media) else wanted.id):
            calls = (
                library.media.open,
                library.media.read,
                lambda item: library.media.read(item, start=5, length=5),
                lambda item: library.media.save_to(item, target),
                lambda item: library.media.save_to(item, target / "cat.png"),
                library.media.url,
            )
            for call in calls:
                with pytest.raises(NotFoundError, match=r"there is no media item [0-9a-f-]{36}"):
                    call(same)
    assert list(target.iterdir()) == []


# Into a file


@pytest.mark.parametrize("as_text", [True, False], ids=["text", "path"])
def test_an_item_is_saved_under_a_name_or_in_a_folder(library: Library, target: Path, as_text: bool) -> None:
    item = library.media.add(TINY, filename="cat on windowsill.png")

    def given_as(path: Path) -> str | Path:
        return str(path) if as_text else path

    by_name = library.media.save_to(item, given_as(target / "other.bin"))
    in_folder = library.media.save_to(item.id, given_as(target))

    assert by_name == target / "other.bin"
    assert in_folder == target / "cat on windowsill.png"
    assert by_name.read_bytes() == in_folder.read_bytes() == TINY
    assert sorted(path.name for path in target.iterdir()) == ["cat on windowsill.png", "other.bin"]


def test_a_relative_path_is_one_below_the_current_folder(
    library: Library, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = library.media.add(TINY, filename="cat.png")
    monkeypatch.chdir(target)

    assert library.media.save_to(item, "a.png") == Path("a.png")
    assert library.media.save_to(item, ".") == Path("cat.png")
    assert (target / "a.png").read_bytes() == (target / "cat.png").read_bytes() == TINY


def test_a_file_that_is_there_is_replaced_as_a_whole(library: Library, target: Path) -> None:
    """Who has the old one open goes on reading the old one."""
    item = library.media.add(TINY, filename="cat.png")
    there = target / "cat.png"
    there.write_bytes(b"before" * 10_000)
    there.chmod(0o400)
    with there.open("rb") as before:
        library.media.save_to(item, target)

        assert before.read() == b"before" * 10_000
    assert there.read_bytes() == TINY
    assert [path.name for path in target.iterdir()] == ["cat.png"]


def test_a_link_is_replaced_and_not_what_it_leads_to(library: Library, target: Path, tmp_path: Path) -> None:
    item = library.media.add(TINY, filename="cat.png")
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    (target / "cat.png").symlink_to(precious)

    library.media.save_to(item, target)

    assert precious.read_bytes() == b"precious"
    assert not (target / "cat.png").is_symlink()
    assert (target / "cat.png").read_bytes() == TINY


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o027, 0o640), (0, 0o666)])
def test_the_permissions_of_a_saved_file_are_those_of_any_new_file(
    library: Library, target: Path, umask: int, mode: int
) -> None:
    item = library.media.add(TINY, filename="cat.png")
    (target / "there").write_bytes(b"")
    (target / "there").chmod(0o777)

    before = os.umask(umask)
    try:
        saved = [library.media.save_to(item, target), library.media.save_to(item, target / "there")]
    finally:
        os.umask(before)

    assert [path.stat().st_mode & 0o777 for path in saved] == [mode, mode]


@pytest.mark.parametrize(
    "name",
    [
        "猫 🐈 ñandú.png",
        "-rf",
        "a" * 251 + ".png",
        "é" * 127,
        "$(reboot)",
        "..x",
        "%s",
        "'",
        "#",
        "~",
        "CON",
        "a:b",
        "*",
    ],
    ids=lambda name: name[:10],
)
def test_any_name_is_a_name(library: Library, target: Path, name: str) -> None:
    item = library.media.add(TINY, filename="cat.png")
    assert library.media.save_to(item, target / name).read_bytes() == TINY

    named = library.media.add(TINY, filename=name)
    folder = target / "folder"
    folder.mkdir()
    saved = library.media.save_to(named, folder)
    assert saved == folder / named.filename
    assert [path.name for path in folder.iterdir()] == [named.filename]


def test_a_name_that_the_file_system_has_no_room_for_is_refused(library: Library, target: Path) -> None:
    """A name of 255 characters may have four times as many bytes."""
    item = library.media.add(TINY, filename="🐈" * 255)

    with pytest.raises(InvalidError, match="cannot be written: File name too long"):
        library.media.save_to(item, target)

    assert list(target.iterdir()) == []
    assert library.media.save_to(item, target / "cat.png").read_bytes() == TINY


@pytest.mark.parametrize(
    "path",
    [
        "missing/cat.png",
        "file/cat.png",
        "file/more/cat.png",
        "x" * 300,
        "x/" * 3_000,
        "a\0b",
        "\0",
        "missing/\0",
        "a\ud800b",
        "loop",
        "loop/cat.png",
    ],
    ids=lambda path: ascii(path)[:20],
)
def test_a_file_that_cannot_be_written_is_refused_and_nothing_is_left_of_it(
    library: Library, target: Path, path: str
) -> None:
    item = library.media.add(TINY, filename="cat.png")
    (target / "file").write_bytes(b"file")
    (target / "folder").mkdir()
    (target / "loop").symlink_to("loop")
    if path == "loop":
        assert library.media.save_to(item, target / path).read_bytes() == TINY, "a link is replaced"
        return

    with pytest.raises(InvalidError, match="cannot be written: "):
        library.media.save_to(item, f"{target}/{path}")

    assert sorted(path.name for path in target.iterdir()) == ["file", "folder", "loop"]
    assert (target / "file").read_bytes() == b"file"


def test_a_folder_in_the_place_of_the_file_is_left_alone(library: Library, target: Path) -> None:
    item = library.media.add(TINY, filename="cat.png")
    (target / "cat.png").mkdir()
    (target / "cat.png" / "inner").write_bytes(b"inner")

    with pytest.raises(InvalidError, match="cannot be written: Is a directory"):
        library.media.save_to(item, target)

    assert [path.name for path in target.iterdir()] == ["cat.png"]
    assert (target / "cat.png" / "inner").read_bytes() == b"inner"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_to_is_refused(library: Library, target: Path) -> None:
    item = library.media.add(TINY, filename="cat.png")
    (target / "cat.png").write_bytes(b"before")
    target.chmod(0o500)
    try:
        with pytest.raises(InvalidError, match="cannot be written: Permission denied"):
            library.media.save_to(item, target)
    finally:
        target.chmod(0o700)
    assert (target / "cat.png").read_bytes() == b"before"


def test_a_disk_without_room_is_an_error_that_leaves_nothing(database_url: str, tmp_path: Path) -> None:
    script = """
import os, sys
from pathlib import Path
import mindia
from mindia import LocalStorage
from mindia.errors import InvalidError
from mindia.testing import samples
disk, url, objects = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
with mindia.connect(url, storage=LocalStorage(objects), settings=mindia.Settings(isolate_parsers=False)) as app:
    library = app.library(app.tenants.create("Acme"))
    small, large = samples.wav(seconds=1), samples.wav(seconds=60)
    assert len(small) < 1_000_000 < len(large)
    item = library.media.add(large, filename="large.wav")
    (disk / "large.wav").write_bytes(b"before")
    for _ in range(2):
        try:
            library.media.save_to(item, disk)
        except InvalidError as error:
            assert "No space left" in str(error) and "large.wav" in str(error), error
        else:
            raise AssertionError("saved")
        assert os.listdir(disk) == ["large.wav"], os.listdir(disk)
        assert (disk / "large.wav").read_bytes() == b"before"
    saved = library.media.save_to(library.media.add(small, filename="small.wav"), disk)
    assert saved.read_bytes() == small
print("done")
"""
    disk = tmp_path / "disk"
    disk.mkdir()
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("a small disk is mounted by unshare(1), which is not here")
    # In a mount namespace of its own, so that it is gone with the process. Root stays root, for the server's socket.
    as_root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    mounted = [unshare, *as_root, "--mount", "sh", "-c"]
    mount = f'mount -t tmpfs -o size=1m tmpfs "{disk}"'
    if subprocess.run([*mounted, mount], check=False, capture_output=True, timeout=60).returncode:
        pytest.skip("this system does not let its users mount a small disk")

    command = [
        *mounted,
        f'{mount} && exec "$0" -c "$1" "{disk}" "$2" "$3"',
        sys.executable, script, database_url, str(tmp_path / "objects"),
    ]  # fmt: skip
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)

    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "done\n"


# What the object store has


@pytest.mark.parametrize(
    "tampered",
    [
        b"",
        TINY[:-1],
        TINY + b"\0",
        bytes([TINY[0] ^ 1]) + TINY[1:],
        TINY[:-1] + bytes([TINY[-1] ^ 1]),
        b"x" * (3 << 20),
    ],
    ids=["nothing", "cut", "longer", "first bit", "last bit", "something else"],
)
def test_bytes_that_are_not_those_that_were_stored_are_not_saved(
    library: Library, storage: LocalStorage, target: Path, tampered: bytes
) -> None:
    item = library.media.add(TINY, filename="cat.png")
    (target / "there.png").write_bytes(b"before")
    file_of(storage, item).write_bytes(tampered)

    for path in (target / "there.png", target / "new.png", target):
        with pytest.raises(StorageError, match=f"was not written: the stored bytes of {item.id} have the hash"):
            library.media.save_to(item, path)

    assert [path.name for path in target.iterdir()] == ["there.png"]
    assert (target / "there.png").read_bytes() == b"before"


def test_bytes_that_are_gone_are_an_error_of_the_store(library: Library, storage: LocalStorage, target: Path) -> None:
    item = library.media.add(TINY, filename="cat.png")
    file_of(storage, item).unlink()

    with pytest.raises(ObjectNotFoundError):
        library.media.save_to(item, target)
    with pytest.raises(ObjectNotFoundError):
        library.media.read(item, length=1)
    assert list(target.iterdir()) == []


class Failing(MemoryStorage):
    """Fails in the middle of reading."""

    error: Exception = OSError(errno.EIO, "Input/output error")

    def open(self, bucket: str, key: str) -> BinaryIO:
        class File(io.BytesIO):
            def read(this, size: int | None = -1) -> bytes:  # noqa: N805 - self is the storage
                if this.tell():
                    raise self.error
                return super().read(5 if size is None or size < 0 else min(size, 5))

            def seek(this, offset: int, whence: int = 0) -> int:  # noqa: N805 - as above
                return super().seek(offset, whence)

        return File(super().open(bucket, key).read())


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.EIO, "Input/output error"), StorageError),
        (TimeoutError("timed out"), StorageError),
        (StorageUnavailableError("slow down"), StorageUnavailableError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
    ids=repr,
)
def test_a_store_that_fails_while_it_is_read_leaves_no_file(
    database_url: str, target: Path, error: Any, expected: type[BaseException]
) -> None:
    storage = Failing()
    storage.error = error
    (target / "cat.png").write_bytes(b"before")
    with mindia.connect(database_url, storage=storage, settings=TRUSTING) as app:
        library = app.library(app.tenants.create("Acme"))
        item = library.media.add(TINY, filename="cat.png")

        with pytest.raises(expected) as raised:
            library.media.save_to(item, target)
        assert not isinstance(raised.value, InvalidError)
        with pytest.raises(expected):
            library.media.read(item, start=1)

    assert [path.name for path in target.iterdir()] == ["cat.png"]
    assert (target / "cat.png").read_bytes() == b"before"


def test_no_file_stays_open(library: Library, storage: LocalStorage, target: Path) -> None:
    item = library.media.add(TINY, filename="cat.png")
    library.media.read(item)
    folder = Path("/proc/self/fd")
    if not folder.exists():
        pytest.skip("there is no /proc here")

    before = len(list(folder.iterdir()))
    for _ in range(20):
        library.media.read(item, start=3, length=5)
        library.media.save_to(item, target)
        with pytest.raises(InvalidError):
            library.media.save_to(item, target / "missing/cat.png")
    file_of(storage, item).write_bytes(b"something else")
    for _ in range(20):
        with pytest.raises(StorageError):
            library.media.save_to(item, target)
    assert len(list(folder.iterdir())) == before
