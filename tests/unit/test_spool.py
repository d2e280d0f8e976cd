"""Incoming bytes are hashed and counted on the way, and no more of them are read than may be."""

from __future__ import annotations

import hashlib
import io
import random
import resource
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from mindia import Settings
from mindia.errors import InvalidError, StorageUnavailableError, TooLargeError, UnsupportedTypeError
from mindia.media.spool import Spooled, spool
from mindia.testing import samples

CHUNK = 1 << 18


class Source(io.RawIOBase):
    """A beginning and then zeros without end, counted."""

    def __init__(self, beginning: bytes, *, error: Exception | None = None) -> None:
        self.given = 0
        self._rest = beginning
        self._error = error

    def read(self, size: int = -1) -> bytes:
        if not self._rest and self._error is not None:
            raise self._error
        piece = (self._rest[:size] or bytes(size)) if size >= 0 else self._rest
        self._rest = self._rest[len(piece) :]
        self.given += len(piece)
        return piece

    @property
    def binary(self) -> BinaryIO:
        return self  # type: ignore[return-value]  # it reads, that is enough


def received(source: BinaryIO, **settings: Any) -> tuple[Spooled, bytes]:
    with spool(source, filename="x", settings=Settings(**settings)) as spooled:
        assert len(spooled.sha256) == 64  # it is asked for before the bytes are gone
        spooled.file.seek(0)
        return spooled, spooled.file.read()


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, CHUNK - 1, CHUNK, CHUNK + 1, 20 * CHUNK + 5])
@pytest.mark.parametrize("memory", [1, 1_000_000])
def test_what_is_received_is_counted_hashed_and_kept(size: int, memory: int) -> None:
    content = (samples.pdf() + random.Random(size).randbytes(21 * CHUNK))[:size]

    spooled, kept = received(io.BytesIO(content), spool_memory_bytes=memory)

    assert kept == content
    assert spooled.size == size
    assert spooled.sha256 == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("of", [bytearray, memoryview])
def test_a_source_may_give_any_kind_of_bytes(of: type[Any]) -> None:
    pieces = iter([b"%PDF-", b"1.4", b""])

    class Other(io.RawIOBase):
        def read(self, _: int = -1) -> Any:
            return of(next(pieces))

    assert received(Other())[1] == b"%PDF-1.4"  # type: ignore[arg-type]  # it reads, that is enough


def test_of_a_source_that_is_too_large_no_more_is_read_than_its_kind_allows() -> None:
    source = Source(samples.pdf())

    with pytest.raises(TooLargeError, match=r"'x' has \d+ bytes or more; the limit for document is 1000000"):
        received(source.binary, max_document_bytes=1_000_000)

    assert source.given <= 1_000_000 + CHUNK


def test_of_a_source_that_is_of_no_allowed_type_the_beginning_is_read() -> None:
    source = Source(b"MZ")

    with pytest.raises(UnsupportedTypeError):
        received(source.binary)

    assert source.given <= 2 * CHUNK


def test_text_is_refused() -> None:
    with pytest.raises(InvalidError, match="'x' must be open for reading bytes, not str"):
        received(io.StringIO("text"))  # type: ignore[arg-type]  # that is what is tested


def test_what_the_source_raises_passes_through() -> None:
    for error in (OSError(5, "unplugged"), ValueError("broken")):
        with pytest.raises(type(error)) as raised:
            received(Source(samples.pdf(), error=error).binary)
        assert raised.value is error


def test_a_folder_that_is_not_there_is_a_typed_error(tmp_path: Path) -> None:
    with pytest.raises(StorageUnavailableError, match=r"missing.*No such file.*Settings.spool_folder"):
        received(Source(samples.pdf()).binary, spool_folder=tmp_path / "missing", spool_memory_bytes=1)


@pytest.mark.parametrize("size", [100_001, 300_000, 5_000_000])
@pytest.mark.parametrize("piece", [1_000, CHUNK])
def test_a_folder_that_is_full_is_a_typed_error_and_nothing_stays_there(tmp_path: Path, size: int, piece: int) -> None:
    content = io.BytesIO(samples.pdf() + bytes(size))

    class InPieces(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            return content.read(min(size, piece))

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(StorageUnavailableError, match="File too large"):
            received(InPieces(), spool_folder=tmp_path, spool_memory_bytes=1)  # type: ignore[arg-type]  # it reads
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert list(tmp_path.iterdir()) == []


def test_nothing_stays_in_the_folder(tmp_path: Path) -> None:
    content = samples.pdf() + bytes(500_000)
    with spool(
        io.BytesIO(content), filename="x", settings=Settings(spool_folder=tmp_path, spool_memory_bytes=1)
    ) as spooled:
        assert spooled.size == len(content)

    assert list(tmp_path.iterdir()) == []
    assert spooled.file.closed
