"""What is refused is refused by a typed error, and nothing of it is left."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from tests.integration.media_rows import TABLES, Host, register, rolled_back, rows, sweep_all

import mindia
from mindia import (
    Library,
    LocalStorage,
    Mindia,
    Settings,
    Tenant,
)
from mindia._ids import uuid7
from mindia.errors import (
    CorruptMediaError,
    DatabaseError,
    EmptyFileError,
    InvalidError,
    MindiaError,
    NotFoundError,
    StagedObjectExpiredError,
    StorageError,
    TenantInactiveError,
    TooLargeError,
    TypeMismatchError,
    UnsupportedTypeError,
)
from mindia.testing import samples
from mindia.testing.storage import listed


class Unplugged(io.BytesIO):
    """Gives the beginning of a file, then fails."""

    def read(self, _: int | None = -1) -> bytes:
        return super().read(100) or self._fail()

    def _fail(self) -> bytes:
        raise OSError(5, "unplugged")


def endless(beginning: bytes) -> BinaryIO:
    class Endless(io.RawIOBase):
        given = 0

        def read(self, size: int = -1) -> bytes:
            assert 0 < size <= 1 << 20
            assert self.given < 50_000_000, "the source is read to an end that it has not"
            piece = beginning if not self.given else bytes(size)
            self.given += len(piece)
            return piece

    return Endless()  # type: ignore[return-value]  # it reads, that is enough


HALF_JPEG = samples.image()[: len(samples.image()) // 2]

REFUSED: dict[str, tuple[Callable[[Path], Any], dict[str, Any], type[Exception], str]] = {
    "empty": (lambda _: b"", {}, EmptyFileError, "'x.jpg' is empty"),
    "empty file": (lambda _: io.BytesIO(), {}, EmptyFileError, "'x.jpg' is empty"),
    "unknown type": (lambda _: b"MZ" + bytes(500), {}, UnsupportedTypeError, "'x.jpg' begins with b'MZ"),
    "unknown type, large": (lambda _: endless(b"MZ"), {}, UnsupportedTypeError, "'x.jpg' begins with b'MZ"),
    "svg called mp4": (lambda _: b"<svg/>", {"filename": "x.mp4"}, UnsupportedTypeError, "b'<svg"),
    "playlist called mp4": (lambda _: b"#EXTM3U\n/etc/passwd", {"filename": "x.mp4"}, UnsupportedTypeError, "EXTM3U"),
    "truncated": (lambda _: HALF_JPEG, {}, CorruptMediaError, "'x.jpg' cannot be read as image/jpeg"),
    "broken pdf": (lambda _: b"%PDF-1.4 broken", {"filename": "x.pdf"}, CorruptMediaError, "application/pdf"),
    "name of another type": (lambda _: samples.image("PNG"), {}, TypeMismatchError, "image/png"),
    "declared as another type": (
        lambda _: samples.image(), {"content_type": "image/png"}, TypeMismatchError, "declared as 'image/png'",
    ),
    "too many pixels": (
        lambda _: samples.image("PNG", width=2001, height=500), {"filename": "x.png"}, TooLargeError, "2001 x 500",
    ),
    "too many bytes": (lambda _: samples.image() + bytes(50_000), {}, TooLargeError, "limit for image is 50000"),
    "without end": (lambda _: endless(samples.image()), {}, TooLargeError, "limit for image is 50000"),
    "no such path": (lambda folder: folder / "none.jpg", {}, InvalidError, "none.jpg' cannot be read: No such file"),
    "folder": (lambda folder: folder, {}, InvalidError, "cannot be read: Is a directory"),
    "path with NUL": (lambda _: "a\0b.jpg", {}, InvalidError, "cannot be read"),
    "text": (lambda _: io.StringIO("text"), {}, InvalidError, "reading bytes"),
    "file in text mode": (lambda folder: (folder / "cat.jpg").open(encoding="utf-8"), {}, InvalidError, "mode 'rb'"),
    "number": (lambda _: 7, {}, InvalidError, "not int"),
    "none": (lambda _: None, {}, InvalidError, "not NoneType"),
    "list": (lambda _: [b"1"], {}, InvalidError, "not list"),
    "source that fails": (lambda _: Unplugged(samples.image()), {}, OSError, "unplugged"),
    "metadata with NUL": (lambda _: samples.image(), {"metadata": {"a": "\0"}}, InvalidError, "NUL"),
    "metadata without end": (
        lambda _: samples.image(), {"metadata": dict.fromkeys(map(str, range(10_000)))}, InvalidError, "10000 keys",
    ),
    "metadata that is none": (lambda _: samples.image(), {"metadata": ["a"]}, InvalidError, "not list"),
    "expiry without time zone": (
        lambda _: samples.image(), {"expires_at": datetime(2999, 1, 1)}, InvalidError, "time zone",  # noqa: DTZ001 - refused for that
    ),
}  # fmt: skip


@pytest.fixture
def strict(database_url: str, storage: LocalStorage, tmp_path: Path) -> Iterator[Mindia]:
    """An application of small limits, whose incoming bytes wait in a folder that can be looked into."""
    spool = tmp_path / "spool"
    spool.mkdir()
    limits = Settings(max_image_bytes=50_000, max_image_pixels=1_000_000, spool_folder=spool, spool_memory_bytes=1)
    with mindia.connect(database_url, storage=storage, settings=limits) as app:
        yield app


def add(library: Library, source: Any, options: dict[str, Any]) -> None:
    library.media.add(source, **options)


def stage(library: Library, source: Any, options: dict[str, Any]) -> None:
    library.media.stage(source, **options)


def add_in_a_transaction(library: Library, source: Any, options: dict[str, Any]) -> None:
    with library.transaction() as tx:
        try:
            tx.media.add(source, **options)
        finally:
            assert tx.connection.execute("select 1").fetchone() == (1,), "the transaction is not usable any more"


@pytest.mark.parametrize(
    ("way", "make", "options", "error", "message"),
    [
        pytest.param(way, *case, id=f"{way.__name__}-{name}")
        for way in (add, stage, add_in_a_transaction)
        for name, case in REFUSED.items()
        if way is not stage or case[1].keys() <= {"filename", "content_type"}
    ],
)
def test_what_is_refused_is_a_typed_error_and_leaves_nothing(
    strict: Mindia,
    storage: LocalStorage,
    host: Host,
    tmp_path: Path,
    way: Callable[[Library, Any, dict[str, Any]], None],
    make: Callable[[Path], Any],
    options: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    tenant = strict.tenants.create("Acme")
    library = strict.library(tenant)
    register(host, library, ["*"])
    (tmp_path / "cat.jpg").write_bytes(samples.image())
    source = make(tmp_path)

    with pytest.raises(error, match=message) as raised:
        way(library, source, {"filename": "x.jpg"} | options)

    assert isinstance(raised.value, MindiaError) or error is OSError
    assert rows(host, library, *TABLES, "staged_objects") == {}
    assert listed(storage, tenant.s3_bucket) == {}
    assert list((tmp_path / "spool").iterdir()) == []
    sweep_all(strict)
    assert listed(storage, tenant.s3_bucket) == {}
    if isinstance(source, io.IOBase):
        source.close()


def test_a_limit_is_that_of_the_settings(strict: Mindia) -> None:
    library = strict.library(strict.tenants.create("Acme"))
    content = samples.image()

    assert library.media.add(content + bytes(50_000 - len(content))).file_size == 50_000
    assert library.media.add(samples.wav(seconds=3), filename="long.wav").file_size > 50_000


def test_a_tenant_that_is_suspended_is_refused_before_a_byte_is_read(
    app: Mindia, library: Library, tenant: Tenant
) -> None:
    staged = library.media.stage(samples.image())
    item = library.media.add(samples.image())
    app.tenants.suspend(tenant.id)
    source = io.BytesIO(samples.image())
    calls: list[Callable[[], object]] = [
        lambda: library.media.add(source),
        lambda: library.media.stage(source),
        lambda: library.media.add(staged),
        lambda: library.media.get(item.id),
        lambda: library.media.find(),
        lambda: library.media.open(item),
        lambda: library.media.read(item),
        lambda: library.media.delete(item),
    ]

    for call in calls:
        with pytest.raises(TenantInactiveError):
            call()

    assert source.tell() == 0
    app.tenants.reactivate(tenant.id)
    assert library.media.get(item.id) == item
    library.media.add(staged)


def test_a_tenant_that_does_not_exist_is_refused_before_a_byte_is_read(app: Mindia) -> None:
    source = io.BytesIO(samples.image())

    with pytest.raises(NotFoundError):
        app.library(uuid7()).media.add(source)

    assert source.tell() == 0


def test_a_store_that_fails_leaves_no_item(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, host: Host
) -> None:
    storage.root.mkdir()
    (storage.root / tenant.s3_bucket).write_bytes(b"in the way")

    with pytest.raises(StorageError):
        library.media.add(samples.image())

    assert rows(host, library) == {}
    (storage.root / tenant.s3_bucket).unlink()
    sweep_all(app)
    assert rows(host, library, "staged_objects") == {}


def test_a_statement_that_fails_leaves_no_bytes(database_url: str, storage: LocalStorage, host: Host) -> None:
    with mindia.connect(database_url, storage=storage, settings=Settings(language="klingon")) as app:
        tenant = app.tenants.create("Acme")
        library = app.library(tenant)

        with pytest.raises(DatabaseError, match="klingon"):
            library.media.add(samples.image())

        assert listed(storage, tenant.s3_bucket) == {}
        assert rows(host, library, *TABLES, "staged_objects") == {}


def test_what_is_swept_while_it_is_being_added_leaves_no_bytes(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, host: Host
) -> None:
    for _ in range(2):  # keys are leased ahead: the next one is on record by now
        library.media.add(samples.image())
    kept = listed(storage, tenant.s3_bucket)
    assert rows(host, library, "staged_objects") == {"staged_objects": 1}
    sweep_all(app)

    with pytest.raises(StagedObjectExpiredError):
        library.media.add(samples.image())

    assert listed(storage, tenant.s3_bucket) == kept
    assert len(library.media.find()) == 2
    library.media.add(samples.image())


def test_a_tenant_that_is_suspended_meanwhile_keeps_no_bytes_after_the_sweep(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, caplog: pytest.LogCaptureFixture
) -> None:
    class Suspending(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            content = super().read(size)
            if not content:
                app.tenants.suspend(tenant.id)
            return content

    with caplog.at_level(logging.WARNING, "mindia.media"), pytest.raises(TenantInactiveError):
        library.media.add(Suspending(samples.image()))

    sweep_all(app)
    assert listed(storage, tenant.s3_bucket) == {}


def test_an_addition_that_is_rolled_back_has_not_happened(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, host: Host
) -> None:
    with rolled_back(library) as tx:
        item = tx.media.add(samples.image(), filename="cat.jpg")
        assert [found.media for found in tx.search("cat")] == [item]
        assert not library.search("cat")

    assert rows(host, library) == {}
    with pytest.raises(NotFoundError):
        library.media.get(item.id)
    sweep_all(app)
    assert listed(storage, tenant.s3_bucket) == {}
