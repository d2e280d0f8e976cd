"""Tests of stores that take several objects at once: what `BatchStorage` promises beyond `Storage`."""

from __future__ import annotations

import io
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from mindia.errors import InvalidError
from mindia.storage.base import BatchStorage, NewObject, Storage
from mindia.testing.storage import HOSTILE_KEYS, StorageContract, listed, put, read, source_from

_WAIT_S = 30.0


class BatchStorageContract(StorageContract):
    """What users of such a store rely on; used like `StorageContract`, all of which it has."""

    @pytest.fixture
    def batches(self, storage: Storage) -> BatchStorage:
        """The store under test, which is one for batches."""
        assert isinstance(storage, BatchStorage)
        return storage

    def test_what_was_put_together_is_read_back(self, batches: BatchStorage, bucket: str) -> None:
        """In the same folder and in others, small and large, in any order."""
        contents = {"b/2": b"second", "a": b"", "b/1": bytes(3_000_000), "c/d/e": b"last"}

        put_all(batches, bucket, contents)
        put_all(batches, bucket, {})

        assert {key: read(batches, bucket, key) for key in contents} == contents
        assert listed(batches, bucket) == {key: len(content) for key, content in contents.items()}

    def test_those_that_were_there_are_replaced(self, batches: BatchStorage, bucket: str) -> None:
        """As by `put`."""
        put(batches, bucket, "a/1", b"a longer one before")

        put_all(batches, bucket, {"a/0": b"new", "a/1": b"replaced"})

        assert listed(batches, bucket) == {"a/0": 3, "a/1": 8}
        assert read(batches, bucket, "a/1") == b"replaced"

    def test_two_of_the_same_key_are_refused(self, batches: BatchStorage, bucket: str) -> None:
        """And nothing is stored."""
        twice = [NewObject(key="a", source=io.BytesIO(content), content_type="text/plain") for content in (b"1", b"2")]

        with pytest.raises(InvalidError, match="same key"):
            put_objects(batches, bucket, twice)

        assert listed(batches, bucket) == {}

    @pytest.mark.parametrize("key", HOSTILE_KEYS.values(), ids=HOSTILE_KEYS.keys())
    def test_a_key_among_them_that_could_be_understood_in_another_way_is_refused(
        self, batches: BatchStorage, bucket: str, key: str
    ) -> None:
        """And nothing is stored."""
        with pytest.raises(InvalidError):
            put_all(batches, bucket, {"a": b"1", key: b"2"})
        with pytest.raises(InvalidError):
            put_all(batches, "a/b", {"a": b"1"})

        assert listed(batches, bucket) == {}

    @pytest.mark.parametrize("position", [0, 1, 2])
    def test_where_one_source_raises_none_is_stored(self, batches: BatchStorage, bucket: str, position: int) -> None:
        """What it raises passes through; what was there before is whole."""
        put(batches, bucket, "before/1", b"before")
        keys = ["before/0", "before/1", "new/0"]
        sources = [
            source_from(io.BytesIO(b"content"), error=_BrokenError() if at == position else None) for at in range(3)
        ]
        objects = [
            NewObject(key=key, source=source, content_type="text/plain")
            for key, source in zip(keys, sources, strict=True)
        ]

        with pytest.raises(_BrokenError):
            put_objects(batches, bucket, objects)

        assert list(listed(batches, bucket)) == ["before/1"]
        assert read(batches, bucket, "before/1") in (b"before", b"content")

    def test_they_are_read_within_the_block_and_stay_once_they_are_settled(
        self, batches: BatchStorage, bucket: str
    ) -> None:
        """Settling twice is settling once, and what is raised afterwards changes nothing."""
        objects = [NewObject(key=key, source=io.BytesIO(b"content"), content_type="text/plain") for key in ("a/1", "b")]

        def read_and_settle() -> None:
            with batches.putting(bucket, objects) as settle:
                assert read(batches, bucket, "a/1") == b"content"
                settle()
                settle()
                raise _BrokenError

        with pytest.raises(_BrokenError):
            read_and_settle()

        assert listed(batches, bucket) == {"a/1": 7, "b": 7}

    def test_where_the_block_raises_before_they_are_settled_none_is_stored(
        self, batches: BatchStorage, bucket: str
    ) -> None:
        """What was there before is whole."""
        put(batches, bucket, "before", b"before")
        objects = [
            NewObject(key=key, source=io.BytesIO(b"content"), content_type="text/plain") for key in ("before", "new/0")
        ]

        with pytest.raises(_BrokenError), batches.putting(bucket, objects):
            raise _BrokenError

        assert list(listed(batches, bucket)) == ["before"]
        assert read(batches, bucket, "before") in (b"before", b"content")

    def test_several_may_put_the_same_ones_at_once(self, batches: BatchStorage, bucket: str) -> None:
        """In any order: none waits for ever, and each object is whole."""
        keys = [f"a/{number}" for number in range(5)]
        together = threading.Barrier(4)

        def work(number: int) -> None:
            for turn in range(max(1, self.rounds // 4)):
                together.wait(_WAIT_S)
                ordered = keys if (number + turn) % 2 else keys[::-1]
                put_all(batches, bucket, {key: str(number).encode() * 1000 for key in ordered})

        with ThreadPoolExecutor(4) as pool:
            for future in [pool.submit(work, number) for number in range(4)]:
                future.result(_WAIT_S)

        assert listed(batches, bucket) == dict.fromkeys(keys, 1000)
        for key in keys:
            assert read(batches, bucket, key) in {str(number).encode() * 1000 for number in range(4)}


def put_all(storage: BatchStorage, bucket: str, contents: Mapping[str, bytes]) -> None:
    """Store bytes as objects by their keys."""
    put_objects(
        storage,
        bucket,
        [
            NewObject(key=key, source=io.BytesIO(content), content_type="application/octet-stream")
            for key, content in contents.items()
        ],
    )


def put_objects(storage: BatchStorage, bucket: str, objects: Sequence[NewObject]) -> None:
    """Store objects, for good."""
    with storage.putting(bucket, objects):
        pass


class _BrokenError(Exception):
    pass
