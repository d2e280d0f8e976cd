"""Small files of `add_many` are stored several at once where the store can: each has its own result all the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from tests.integration.shared_bytes import QUICK, check_every_item_reads

import mindia
from mindia import Candidate, Library, LocalStorage, Mindia, Tenant
from mindia.errors import RejectedError, StorageUnavailableError
from mindia.storage.base import NewObject
from mindia.testing import samples
from mindia.testing.storage import listed

PICTURES = [samples.image("GIF", width=8 + each, height=8) for each in range(40)]


class WatchedStorage(LocalStorage):
    """Notes how many are stored at once; does what it is told to do before it returns."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.counts: list[int] = []
        self.then: Callable[[Sequence[NewObject]], object] = len

    @contextmanager
    def putting(self, bucket: str, objects: Sequence[NewObject], **more: Any) -> Iterator[Callable[[], None]]:
        with super().putting(bucket, objects, **more) as settle:
            self.counts.append(len(objects))
            self.then(objects)
            yield settle


@pytest.fixture
def storage(tmp_path: Path) -> WatchedStorage:
    return WatchedStorage(tmp_path / "objects")


@pytest.fixture
def seen() -> list[str]:
    """What the host's hook was shown, by name; it refuses some."""
    return []


@pytest.fixture
def app(database_url: str, storage: WatchedStorage, seen: list[str]) -> Iterator[Mindia]:
    def scan(_: BinaryIO, candidate: Candidate) -> None:
        seen.append(candidate.filename)
        if candidate.filename == "refused.gif":
            raise RejectedError("by the host")

    with mindia.connect(database_url, storage=storage, settings=QUICK, scan=scan) as app:
        yield app


def check_only_items(library: Library, tenant: Tenant, storage: LocalStorage) -> int:
    items = check_every_item_reads(library)
    assert set(listed(storage, tenant.s3_bucket)) == {item.s3_key for item in items}
    return len(items)


def test_small_ones_are_stored_together(library: Library, tenant: Tenant, storage: WatchedStorage) -> None:
    report = library.media.add_many(PICTURES, concurrency=1)

    assert storage.counts == [16, 16, 8]
    assert [library.media.read(result.media) for result in report if result.media is not None] == PICTURES
    assert check_only_items(library, tenant, storage) == len(PICTURES)


def test_where_that_fails_each_is_stored_by_itself(
    library: Library, tenant: Tenant, storage: WatchedStorage, seen: list[str]
) -> None:
    failed: list[NewObject] = []

    def fail(objects: Sequence[NewObject]) -> None:
        if len(objects) > 1 or len(storage.counts) == 5:
            failed.extend(objects)
            raise StorageUnavailableError("of the store")

    storage.then = fail
    named = [mindia.MediaInput(each, filename=f"{at}.gif") for at, each in enumerate(PICTURES[:16])]
    named[7] = mindia.MediaInput(PICTURES[7], filename="refused.gif")
    report = library.media.add_many(named, concurrency=1)

    errors = {result.position: type(result.error) for result in report if result.error is not None}
    assert errors == {7: RejectedError, 3: StorageUnavailableError}
    assert (len(failed), len(storage.counts)) == (16, 16)
    assert seen == [each.filename for each in named]
    assert check_only_items(library, tenant, storage) == 14


def test_what_a_store_of_the_host_raises_is_an_error_of_one(
    library: Library, tenant: Tenant, storage: WatchedStorage
) -> None:
    def fail(_: Sequence[NewObject]) -> None:
        if len(storage.counts) in (1, 3):
            raise OSError("of the host")

    storage.then = fail
    report = library.media.add_many(PICTURES[:3], concurrency=1)

    assert [type(result.error) for result in report] == [type(None), OSError, type(None)]
    assert storage.counts == [3, 1, 1, 1]
    assert check_only_items(library, tenant, storage) == 2


def test_what_was_swept_while_they_were_stored_is_stored_again(
    app: Mindia, library: Library, tenant: Tenant, storage: WatchedStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sweep(_: Sequence[NewObject]) -> None:
        storage.then = len
        monkeypatch.setattr("mindia.services.leases._Deadline.passed", True)
        assert app.maintenance.sweep_staged(older_than=timedelta()).removed

    storage.then = sweep
    report = library.media.add_many(PICTURES[:16], concurrency=1)

    assert [result.error for result in report] == [None] * 16
    assert storage.counts == [16] + [1] * 16
    assert check_only_items(library, tenant, storage) == 16


def test_what_is_sanitized_is_stored_together_as_it_was_changed(
    library: Library, tenant: Tenant, storage: WatchedStorage
) -> None:
    pictures = [samples.image("JPEG", width=20 + each, height=20, camera="Camera") for each in range(3)]

    report = library.media.add_many(pictures, sanitize=True, concurrency=1)

    assert storage.counts == [3]
    for result, picture in zip(report, pictures, strict=True):
        assert result.media is not None
        kept = library.media.read(result.media)
        assert b"Camera" in picture
        assert b"Camera" not in kept
        assert result.media.file_size == len(kept) < len(picture)
    assert check_only_items(library, tenant, storage) == 3
