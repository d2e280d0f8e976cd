"""Two stores that are one keep the contract of stores, wherever an object is."""

from __future__ import annotations

from pathlib import Path

import pytest

from mindia import LocalStorage, MemoryStorage, MovingStorage
from mindia.errors import ObjectNotFoundError
from mindia.storage.base import DirectStorage, Storage
from mindia.testing.storage import StorageContract, listed, put, read


class TestMovingStorage(StorageContract):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> Storage:
        return MovingStorage(MemoryStorage(), LocalStorage(tmp_path / "objects"))


@pytest.fixture
def old() -> MemoryStorage:
    return MemoryStorage()


@pytest.fixture
def new() -> MemoryStorage:
    return MemoryStorage()


@pytest.fixture
def storage(old: Storage, new: Storage) -> MovingStorage:
    return MovingStorage(old, new)


def test_what_only_the_old_store_has_is_there(old: Storage, new: Storage, storage: MovingStorage) -> None:
    put(old, "acme", "a", b"old a")
    put(old, "acme", "b", b"old b")
    put(new, "acme", "b", b"new b, longer")
    put(storage, "acme", "c", b"c")

    assert [read(storage, "acme", key) for key in "abc"] == [b"old a", b"new b, longer", b"c"]
    assert storage.size("acme", "b") == 13
    assert [(found.key, found.size) for found in storage.list("acme")] == [("a", 5), ("b", 13), ("c", 1)]
    assert [found.key for found in storage.list("acme", after="a")] == ["b", "c"]
    assert listed(old, "acme").keys() == {"a", "b"}, "what is new is put into the new store alone"


def test_a_copy_is_in_the_new_store(old: Storage, new: Storage, storage: MovingStorage) -> None:
    put(old, "acme", "a", b"content")
    storage.copy("acme", "a", to_bucket="acme", to_key="b")
    assert read(new, "acme", "b") == b"content"
    with pytest.raises(ObjectNotFoundError):
        storage.copy("acme", "x", to_bucket="acme", to_key="y")


def test_what_is_deleted_is_deleted_from_both(old: Storage, new: Storage, storage: MovingStorage) -> None:
    for each in (old, new):
        for key in ("a", "b/c", "b/d", "e"):
            put(each, "acme", key, b"content")

    storage.delete("acme", ["a"])
    storage.delete_prefix("acme", "b/")

    for each in (old, new):
        assert listed(each, "acme").keys() == {"e"}


def test_an_object_that_moves_between_two_looks_is_found(old: MemoryStorage, new: MemoryStorage) -> None:
    class Late(MemoryStorage):
        def size(self, bucket: str, key: str) -> int:
            put(new, bucket, key, b"content")
            return super().size(bucket, key)

    assert MovingStorage(Late(), new).size("acme", "a") == 7
    assert old.region == new.region


def test_it_signs_addresses_where_the_new_store_does(storage: MovingStorage) -> None:
    assert not isinstance(storage, DirectStorage)
    assert isinstance(storage, Storage)
