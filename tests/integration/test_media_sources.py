"""Bytes may come from anywhere, in whatever pieces: what is stored is what came, and it costs little memory."""

from __future__ import annotations

import array
import codecs
import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.integration.media_rows import TABLES, Host, rows
from tests.integration.shared_bytes import QUICK, write_wav

import mindia
from mindia import Library, LocalStorage, Mindia, Tenant
from mindia.errors import InvalidError, UnsupportedTypeError
from mindia.testing import samples
from mindia.testing.storage import listed

CONTENT = samples.wav(seconds=0.1)
"""Of 3244 bytes: more than can be read at once where the test says so."""


@pytest.fixture
def app(database_url: str, storage: LocalStorage, tmp_path: Path) -> Iterator[Mindia]:
    spool = tmp_path / "spool"
    spool.mkdir()
    limits = attrs.evolve(QUICK, spool_folder=spool, spool_memory_bytes=1_000)
    with mindia.connect(database_url, storage=storage, settings=limits) as app:
        yield app


@pytest.fixture
def nothing_is_left(
    library: Library, tenant: Tenant, storage: LocalStorage, host: Host, tmp_path: Path
) -> Callable[[], None]:
    def check() -> None:
        assert list((tmp_path / "spool").iterdir()) == []
        assert rows(host, library, *TABLES, "staged_objects") == {}
        assert listed(storage, tenant.s3_bucket) == {}

    return check


class OnlyReads:
    """Gives bytes, and has nothing else of a file."""

    def __init__(self, content: bytes, *, most: int | None = None, least: int = 0) -> None:
        self._file = io.BytesIO(content)
        self._most = most
        self._least = least

    def read(self, size: int) -> bytes:
        return self._file.read(max(self._least, size if self._most is None else min(size, self._most)))


class ReadsNumbers(OnlyReads):
    """Gives its bytes as numbers of two bytes each."""

    def read(self, size: int) -> bytes:
        return memoryview(array.array("H", super().read(size)))  # type: ignore[return-value]  # as buffers do


class AtFolder:
    """A path of bytes, as `os.scandir` has them where it was asked with bytes."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __fspath__(self) -> bytes:
        return os.fsencode(self._path)


def spread(content: bytes) -> memoryview:
    """Return a view of every second byte."""
    return memoryview(np.repeat(np.frombuffer(content, dtype=np.uint8), 2).tobytes())[::2]


def by_columns(content: bytes) -> memoryview:
    """Return a view of rows whose bytes do not lie in their order."""
    return np.asfortranarray(np.frombuffer(content, dtype=np.uint8).reshape(4, -1)).data


SOURCES: dict[str, Callable[[bytes, Path], Any]] = {
    "object that reads": lambda content, _: OnlyReads(content),
    "object that reads a byte at a time": lambda content, _: OnlyReads(content, most=1),
    "object that reads more than it is asked for": lambda content, _: OnlyReads(content, least=1 << 20),
    "object that reads numbers": lambda content, _: ReadsNumbers(content),
    "file at a position": lambda content, _: at_position(io.BytesIO(b"before" + content), 6),
    "unbuffered file at a position": lambda content, path: at_position(written(path, b"1" + content), 1),
    "path of bytes": lambda content, path: AtFolder(whole(path, content)),
    "memoryview": lambda content, _: memoryview(content),
    "memoryview with gaps": lambda content, _: spread(content),
    "memoryview of numbers": lambda content, _: memoryview(array.array("H", content)),
    "memoryview by columns": lambda content, _: by_columns(content),
    "memoryview backwards": lambda content, _: memoryview(content[::-1])[::-1],
    "part of a memoryview": lambda content, _: memoryview(b"before" + content + b"after")[6:-5],
    "iterator": lambda content, _: iter([content]),
    "iterator of single bytes": lambda content, _: (content[at : at + 1] for at in range(len(content))),
    "iterator with empty pieces": lambda content, _: iter([b"", content[:7], b"", bytearray(), content[7:], b""]),
    "iterator of bytearrays": lambda content, _: iter([bytearray(content[:100]), bytearray(content[100:])]),
    "iterator of memoryviews": lambda content, _: iter([memoryview(content)[:100], memoryview(content)[100:]]),
    "iterator of memoryviews with gaps": lambda content, _: iter([spread(content[:999]), spread(content[999:])]),
    "iterator of numbers": lambda content, _: iter([memoryview(array.array("H", content))]),
    "iterator of columns": lambda content, _: iter([by_columns(content), by_columns(b"")]),
}


def at_position(file: Any, position: int) -> Any:
    file.seek(position)
    return file


def whole(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def written(path: Path, content: bytes) -> Any:
    return whole(path, content).open("rb", buffering=0)


@pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES)
def test_what_is_stored_is_what_the_source_gave(
    library: Library, tmp_path: Path, make: Callable[[bytes, Path], Any]
) -> None:
    one, other = (make(CONTENT, tmp_path / "bell.wav") for _ in range(2))

    items = [library.media.add(one, filename="bell.wav")]
    with library.transaction() as tx:
        items.append(tx.media.add(other, filename="bell.wav"))

    for item in items:
        assert item.file_size == len(CONTENT)
        assert library.media.get(item.id) == item
        assert library.media.read(item) == CONTENT
    for source in (one, other):
        if isinstance(source, io.IOBase):
            source.close()


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.integers(0, 2_000), max_size=12),
    kind=st.sampled_from([bytes, bytearray, memoryview]),
    by_reading=st.booleans(),
)
def test_pieces_may_be_of_any_size(library: Library, sizes: list[int], kind: type, by_reading: bool) -> None:
    def pieces() -> Iterator[Any]:
        at = 0
        for size in sizes:
            yield kind(CONTENT[at : at + size])
            at += size
        yield kind(CONTENT[at:])

    class Reads:
        given = pieces()

        def read(self, _: int) -> Any:
            return next((piece for piece in self.given if piece), b"")

    item = library.media.add(Reads() if by_reading else pieces(), filename="bell.wav")  # type: ignore[arg-type]  # it reads

    assert item.file_size == len(CONTENT)
    assert library.media.read(item) == CONTENT


def test_an_iterator_is_read_no_further_than_it_takes_to_refuse_it(
    library: Library, nothing_is_left: Callable[[], None]
) -> None:
    taken = count()

    def endless() -> Iterator[bytes]:
        while True:
            next(taken)
            yield b"no medium at all" * 4

    with pytest.raises(UnsupportedTypeError):
        library.media.add(endless())

    assert next(taken) <= 4096 // 64
    nothing_is_left()


class OfTheHost(Exception):  # noqa: N818 - what it is
    """An error that Mindia knows nothing of."""


def broken_off(content: bytes, error: BaseException) -> Iterator[bytes]:
    yield content[:1_000]
    yield content[1_000:2_500]
    raise error


def by_adding(library: Library, source: Any) -> None:
    library.media.add(source, filename="bell.wav")


def by_staging(library: Library, source: Any) -> None:
    library.media.stage(source, filename="bell.wav")


def by_looking_for_the_same(library: Library, source: Any) -> None:
    library.media.add(source, filename="bell.wav", on_duplicate="link")


def by_adding_in_a_transaction(library: Library, source: Any) -> None:
    with library.transaction() as tx:
        try:
            tx.media.add(source, filename="bell.wav")
        finally:
            assert tx.connection.execute("select 1").fetchone() == (1,), "the transaction is not usable any more"


WAYS = (by_adding, by_staging, by_looking_for_the_same, by_adding_in_a_transaction)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_what_an_iterator_raises_in_the_middle_passes_through_and_nothing_is_left(
    library: Library, nothing_is_left: Callable[[], None], way: Callable[[Library, Any], None]
) -> None:
    for error in (OfTheHost("unplugged"), OSError(5, "unplugged"), KeyError(7), KeyboardInterrupt()):
        with pytest.raises(type(error)) as raised:
            way(library, broken_off(CONTENT, error))

        assert raised.value is error
        nothing_is_left()


NO_BYTES: dict[str, Callable[[], Any]] = {
    "iterator of texts": lambda: iter(["text"]),
    "iterator with a text in the middle": lambda: iter([CONTENT[:1_000], "text", CONTENT[1_000:]]),
    "iterator of numbers": lambda: iter(CONTENT),
    "iterator of nothing": lambda: iter([None]),
    "iterator of lists": lambda: iter([[CONTENT]]),
    "reader of text": lambda: codecs.getreader("latin-1")(io.BytesIO(CONTENT)),
}


@pytest.mark.parametrize("make", NO_BYTES.values(), ids=NO_BYTES)
def test_what_is_no_bytes_is_refused_and_nothing_is_left(
    library: Library, nothing_is_left: Callable[[], None], make: Callable[[], Any]
) -> None:
    for way in WAYS:
        with pytest.raises(InvalidError, match="bytes"):
            way(library, make())

        nothing_is_left()


def test_a_source_that_does_not_wait_for_its_bytes_is_refused_rather_than_cut_short(
    library: Library, nothing_is_left: Callable[[], None]
) -> None:
    reads, writes = os.pipe()
    os.set_blocking(reads, False)
    os.write(writes, CONTENT[:2_000])
    try:
        with os.fdopen(reads, "rb", buffering=0) as file, pytest.raises(InvalidError, match="not NoneType"):
            library.media.add(file, filename="bell.wav")
    finally:
        os.close(writes)

    nothing_is_left()


def test_a_bytearray_belongs_to_its_owner_again_as_soon_as_the_call_ends(library: Library) -> None:
    accepted, refused = bytearray(CONTENT), bytearray(b"no medium at all" * 1_000)

    item = library.media.add(accepted, filename="bell.wav")
    with pytest.raises(UnsupportedTypeError) as held:
        library.media.add(refused)

    accepted.clear()
    assert library.media.read(item) == CONTENT
    del held
    refused.clear()


# What it costs

MEGABYTE = 1_000_000
SCRIPT = """
import os, resource, sys, wave
from pathlib import Path

import mindia
from mindia.testing import samples

how, url, root, source = sys.argv[1:]

def peak():
    status = Path("/proc/self/status")
    if status.exists():  # of this program alone; what resource says may be that of the process which started it
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

def pieces():
    with open(source, "rb") as file:
        while piece := file.read(100_000):
            yield piece

with mindia.connect(url, storage=mindia.LocalStorage(root)) as app:
    library = app.library(app.tenants.create("Acme"))
    library.media.read(library.media.add(samples.wav(seconds=0.1), filename="warm.wav"))
    content = Path(source).read_bytes() if how == "bytes" else None
    before = peak()
    match how:
        case "path":
            item = library.media.add(source)
        case "bytes":
            item = library.media.add(content, filename="long.wav")
        case "iterator":
            item = library.media.add(pieces(), filename="long.wav", on_duplicate="link")
        case "file":
            with open(source, "rb") as file:
                item = library.media.add(file)
        case "all at once":
            with open(source, "rb") as file:
                item = library.media.add(file.read(), filename="long.wav")
    used = peak() - before
    assert item.file_size == os.path.getsize(source), item
    assert app.settings.isolate_parsers
print(used)
"""


@pytest.fixture(scope="module")
def long_wav(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 64 MB."""
    return write_wav(tmp_path_factory.mktemp("long") / "long.wav", 64 * MEGABYTE)


def extra_memory(how: str, url: str, root: Path, source: Path) -> int:
    """Return how much more memory a process of its own needed at most while it took in the file."""
    command = [sys.executable, "-c", SCRIPT, how, url, str(root), str(source)]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=100)
    assert ended.returncode == 0, ended.stderr
    return int(ended.stdout)


@pytest.mark.parametrize("how", ["path", "iterator", "file", "bytes"])
def test_a_large_file_costs_little_memory(database_url: str, tmp_path: Path, long_wav: Path, how: str) -> None:
    assert long_wav.stat().st_size >= 64 * MEGABYTE
    assert extra_memory(how, database_url, tmp_path / "objects", long_wav) <= 32 * MEGABYTE


def test_memory_is_measured_so_that_a_file_held_as_a_whole_would_be_noticed(
    database_url: str, tmp_path: Path, long_wav: Path
) -> None:
    assert extra_memory("all at once", database_url, tmp_path / "objects", long_wav) >= 60 * MEGABYTE
