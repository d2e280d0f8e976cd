"""The tests that every object store must pass. Needs pytest."""

from __future__ import annotations

import io
import os
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import BinaryIO

import pytest

from mindia.errors import BucketNotEmptyError, InvalidError, ObjectNotFoundError, StorageError
from mindia.storage.base import MAX_KEY_BYTES, MAX_SEGMENT_BYTES, Storage, StoredObject

HOSTILE_KEYS = {
    "empty": "",
    "parent": "..",
    "parent in front": "../other/a",
    "parent within": "a/../b",
    "parent at the end": "a/..",
    "this folder": ".",
    "this folder within": "a/./b",
    "hidden": ".a",
    "hidden within": "a/.b/c",
    "unfinished": ".a.part",
    "leading slash": "/etc/passwd",
    "trailing slash": "a/",
    "double slash": "a//b",
    "only a slash": "/",
    "backslash": "a\\b",
    "parent with backslashes": "..\\..\\a",
    "NUL": "a\0b",
    "line feed": "a\nb",
    "escape": "a\x1bb",
    "delete": "a\x7fb",
    "control character of Latin-1": "a\x85b",
    "decomposed": "e\u0301",
    "surrogate": "a\ud800b",
    "too long": "/".join(["a" * MAX_SEGMENT_BYTES] * (MAX_KEY_BYTES // MAX_SEGMENT_BYTES) + ["a" * 100]),
    "too long in bytes": "/".join(["é" * (MAX_SEGMENT_BYTES // 2)] * (MAX_KEY_BYTES // MAX_SEGMENT_BYTES) + ["é" * 50]),
    "segment too long": "a" * (MAX_SEGMENT_BYTES + 1),
    "segment too long in bytes": "é" * (MAX_SEGMENT_BYTES // 2 + 1),
}
"""Keys that `check_key` refuses, by what is wrong with them."""

GOOD_KEYS = {
    "one letter": "a",
    "dots": "a.b..c",
    "dot at the end": "a.",
    "dots within": "a/b.c/d...e",
    "space": "a b/ c ",
    "percent": "100%/%2e%2e/a",
    "shell": "$(a);`b`*?[c]'\"&|<>~#!",
    "colon and plus": "a:b+c=d,e@f",
    "accents": "Übergrößenträger/café",
    "right to left": "תמונה/צילום",
    "other planes": "🐈/猫/🏳️‍🌈",
    "longest segment": "a" * MAX_SEGMENT_BYTES,
    "longest": "/".join(["a" * 200] * 5) + "/" + "b" * 19,
    "like an unfinished file": "a.part",
}
"""Keys that every store must take, by what is special about them."""

_WAIT_S = 30.0


class StorageContract:
    """What users of a store rely on; a subclass says by the fixture `storage` which store it is.

    ```python
    class TestMyStorage(StorageContract):
        @pytest.fixture
        def storage(self) -> Storage:
            return MyStorage(...)
    ```

    Attributes:
        max_key_bytes: The longest key that the store takes, where it keeps some bytes of a key for itself.
        rounds: How often is repeated what goes wrong only at some moments; fewer where a store is far away.
    """

    max_key_bytes = MAX_KEY_BYTES
    rounds = 60

    @pytest.fixture
    def storage(self) -> Storage:
        """The store under test."""
        raise NotImplementedError("override the fixture `storage`")

    @pytest.fixture
    def bucket(self) -> str:
        """A bucket that may be written to, and is empty."""
        return "contract"

    @pytest.fixture
    def other_bucket(self) -> str:
        """Another one."""
        return "contract-other"

    def test_it_is_a_storage_and_names_its_region(self, storage: Storage) -> None:
        """Checks the port at run time, as `connect` does."""
        assert isinstance(storage, Storage)
        assert storage.region

    @pytest.mark.parametrize("size", [0, 1, 10_000, 5_000_000], ids=["empty", "one byte", "10 kB", "5 MB"])
    def test_what_was_put_is_read_back(self, storage: Storage, bucket: str, size: int) -> None:
        """Also where it takes several reads and writes."""
        content = random.Random(size).randbytes(size)  # noqa: S311 - no secret

        put(storage, bucket, "a/b", content)

        assert read(storage, bucket, "a/b") == content
        assert storage.size(bucket, "a/b") == size
        assert storage.exists(bucket, "a/b")

    def test_a_source_is_read_from_its_position_to_its_end(self, storage: Storage, bucket: str) -> None:
        """And stays open."""
        source = io.BytesIO(b"0123456789")
        source.seek(4)

        storage.put(bucket, "a", source, content_type="text/plain")

        assert read(storage, bucket, "a") == b"456789"
        assert not source.closed

    def test_a_source_may_give_less_than_was_asked_for(self, storage: Storage, bucket: str) -> None:
        """As sockets and pipes do."""
        content = random.Random(1).randbytes(5_000)  # noqa: S311 - no secret

        storage.put(bucket, "a", source_from(io.BytesIO(content), most=7), content_type="text/plain")

        assert read(storage, bucket, "a") == content

    def test_an_open_object_can_be_sought_and_read_in_ranges(self, storage: Storage, bucket: str) -> None:
        """From the beginning, from the current place and from the end."""
        put(storage, bucket, "a", bytes(range(100)))

        with storage.open(bucket, "a") as file:
            assert file.readable()
            assert file.seekable()
            assert file.seek(10) == 10
            assert file.read(5) == bytes(range(10, 15))
            assert file.tell() == 15
            assert file.seek(5, os.SEEK_CUR) == 20
            assert file.read(1) == b"\x14"
            assert file.seek(-3, os.SEEK_END) == 97
            assert file.read() == bytes(range(97, 100))
            assert file.read(1) == b""
            assert file.seek(0) == 0
            assert file.read(0) == b""
            assert file.read() == bytes(range(100))
            file.seek(200)
            assert file.read() == b""
        assert file.closed

    def test_two_readers_do_not_share_a_position(self, storage: Storage, bucket: str) -> None:
        """Each has its own."""
        put(storage, bucket, "a", b"0123")

        with storage.open(bucket, "a") as one, storage.open(bucket, "a") as other:
            assert one.read(2) == b"01"
            assert other.read(3) == b"012"
            assert one.read() == b"23"

    def test_an_object_cannot_be_written_through_its_reader(self, storage: Storage, bucket: str) -> None:
        """Whatever is done to what `open` returned."""
        put(storage, bucket, "a", b"before")

        with storage.open(bucket, "a") as file, suppress(OSError, ValueError, AttributeError):
            file.write(b"after")

        assert read(storage, bucket, "a") == b"before"

    def test_an_object_is_put_in_place_of_an_earlier_one(self, storage: Storage, bucket: str) -> None:
        """Longer or shorter."""
        for content in (b"first", b"the second is longer", b"3"):
            put(storage, bucket, "a", content)

            assert read(storage, bucket, "a") == content
            assert listed(storage, bucket) == {"a": len(content)}

    def test_who_reads_an_object_while_it_is_replaced_sees_the_earlier_one_whole(
        self, storage: Storage, bucket: str
    ) -> None:
        """Or the later one whole, but never of both."""
        put(storage, bucket, "a", b"1" * 100_000)

        with storage.open(bucket, "a") as file:
            begun = file.read(10)
            put(storage, bucket, "a", b"2" * 100_000)
            seen = begun + file.read()

        assert seen in (b"1" * 100_000, b"2" * 100_000)

    def test_a_missing_object_is_an_error_of_its_own(self, storage: Storage, bucket: str) -> None:
        """Also where the bucket is not there."""
        for missing in (bucket, "contract-never-made"):
            with pytest.raises(ObjectNotFoundError, match="a/b"):
                storage.open(missing, "a/b")
            with pytest.raises(ObjectNotFoundError, match="a/b"):
                storage.size(missing, "a/b")
            with pytest.raises(ObjectNotFoundError, match="a/b"):
                storage.copy(missing, "a/b", to_bucket=bucket, to_key="c")
            assert not storage.exists(missing, "a/b")
            assert not storage.exists(bucket, "c")
            assert listed(storage, missing) == {}

    def test_deleting_what_is_missing_is_fine(self, storage: Storage, bucket: str) -> None:
        """Twice, too."""
        put(storage, bucket, "a/b", b"1")

        storage.delete(bucket, ["a/b", "a/b", "a/c", "d"])
        storage.delete(bucket, ["a/b"])
        storage.delete(bucket, [])
        storage.delete("contract-never-made", ["a"])
        storage.delete_prefix(bucket, "x/")
        storage.delete_prefix("contract-never-made", "x/")

        assert listed(storage, bucket) == {}

    def test_delete_takes_the_named_objects_and_no_others(self, storage: Storage, bucket: str) -> None:
        """Several at once."""
        for key in ("a", "ab", "b/a", "b/ab", "c"):
            put(storage, bucket, key, b"1")

        storage.delete(bucket, iter(["a", "b/a", "c"]))

        assert listed(storage, bucket) == {"ab": 1, "b/ab": 1}
        assert not storage.exists(bucket, "a")
        with pytest.raises(ObjectNotFoundError):
            storage.open(bucket, "b/a")

    def test_what_is_being_listed_can_be_deleted(self, storage: Storage, bucket: str) -> None:
        """Without collecting the keys first."""
        for number in range(5):
            put(storage, bucket, f"a/{number}", b"1")

        storage.delete(bucket, (found.key for found in storage.list(bucket)))

        assert listed(storage, bucket) == {}

    def test_delete_prefix_takes_what_begins_with_it_and_nothing_else(self, storage: Storage, bucket: str) -> None:
        """A prefix need not end at a slash."""
        keys = ("a/1", "a/12/3", "a/2", "a1", "ab/1", "b/a/1")
        for key in keys:
            put(storage, bucket, key, b"1")

        storage.delete_prefix(bucket, "a/1")
        assert sorted(listed(storage, bucket)) == ["a/2", "a1", "ab/1", "b/a/1"]
        storage.delete_prefix(bucket, "a/")
        assert sorted(listed(storage, bucket)) == ["a1", "ab/1", "b/a/1"]
        storage.delete_prefix(bucket, "a")
        assert sorted(listed(storage, bucket)) == ["b/a/1"]

    def test_an_empty_prefix_does_not_delete_everything(self, storage: Storage, bucket: str) -> None:
        """It is taken for a mistake."""
        put(storage, bucket, "a", b"1")

        with pytest.raises(InvalidError, match="prefix"):
            storage.delete_prefix(bucket, "")

        assert listed(storage, bucket) == {"a": 1}

    def test_a_bucket_without_objects_can_be_deleted_and_comes_back_with_its_next_object(
        self, storage: Storage, bucket: str
    ) -> None:
        """Also one that never was, and twice."""
        put(storage, bucket, "a/b/c", b"1")
        put(storage, bucket, "d", b"1")
        storage.delete(bucket, ["a/b/c", "d"])

        storage.delete_bucket(bucket)
        storage.delete_bucket(bucket)
        storage.delete_bucket("contract-never-made")

        assert listed(storage, bucket) == {}
        put(storage, bucket, "a/b/c", b"2")
        assert read(storage, bucket, "a/b/c") == b"2"
        storage.delete(bucket, ["a/b/c"])
        storage.delete_bucket(bucket)

    def test_a_bucket_with_an_object_is_not_deleted(self, storage: Storage, bucket: str, other_bucket: str) -> None:
        """It is an error of its own, and everything stays."""
        put(storage, bucket, "a/b", b"1")
        put(storage, other_bucket, "c", b"2")

        with pytest.raises(BucketNotEmptyError, match=bucket):
            storage.delete_bucket(bucket)
        storage.delete(bucket, ["a/b"])
        storage.delete_bucket(bucket)

        assert listed(storage, bucket) == {}
        assert read(storage, other_bucket, "c") == b"2"

    def test_a_put_is_neither_lost_nor_refused_when_its_bucket_is_deleted_at_the_same_time(
        self, storage: Storage, bucket: str
    ) -> None:
        """Whichever comes first."""
        threads, rounds = 3, self.rounds
        together = threading.Barrier(threads + 1)

        def write(number: int) -> None:
            for turn in range(rounds):
                together.wait(_WAIT_S)
                put(storage, bucket, f"a/b/{number}", str(turn).encode())
                assert read(storage, bucket, f"a/b/{number}") == str(turn).encode()
                storage.delete(bucket, [f"a/b/{number}"])

        def delete() -> None:
            for _ in range(rounds):
                together.wait(_WAIT_S)
                with suppress(BucketNotEmptyError):
                    storage.delete_bucket(bucket)

        with ThreadPoolExecutor(threads + 1) as pool:
            for future in [pool.submit(delete), *(pool.submit(write, number) for number in range(threads))]:
                future.result(_WAIT_S)

        assert listed(storage, bucket) == {}
        storage.delete_bucket(bucket)

    def test_a_listing_is_in_the_order_of_the_keys(self, storage: Storage, bucket: str) -> None:
        """By code points, the slash being a character like others."""
        keys = [
            "a/b",
            "a-b",
            "a0",
            "a/b-c",
            "a/b0",
            "a.b/c",
            "B",
            "z",
            "é",
            "猫",
            "🐈",
            "aa/b/c/d",
            "aa/b/c.d",
            "aa/b!",
        ]
        for key in keys:
            put(storage, bucket, key, key.encode())

        found = list(storage.list(bucket))

        assert found == [StoredObject(key, len(key.encode())) for key in sorted(keys)]

    def test_a_listing_keeps_to_its_prefix_and_begins_after_a_key(self, storage: Storage, bucket: str) -> None:
        """So that it can be read in pages."""
        keys = ["a", "b/1", "b/2", "b/2-", "b/20/1", "b/3", "b1", "c/1"]
        for key in keys:
            put(storage, bucket, key, b"1")

        def found(prefix: str = "", after: str = "") -> list[str]:
            return [stored.key for stored in storage.list(bucket, prefix=prefix, after=after)]

        assert found("b/") == ["b/1", "b/2", "b/2-", "b/20/1", "b/3"]
        assert found("b/2") == ["b/2", "b/2-", "b/20/1"]
        assert found("b") == ["b/1", "b/2", "b/2-", "b/20/1", "b/3", "b1"]
        assert found("b/20/1") == ["b/20/1"]
        assert found("x") == []
        assert found("b/2/1") == []
        assert found(after="b/2") == ["b/2-", "b/20/1", "b/3", "b1", "c/1"]
        assert found(after="b/2,") == ["b/2-", "b/20/1", "b/3", "b1", "c/1"]
        assert found("b/", after="b/20/1") == ["b/3"]
        assert found("b/", after="a") == ["b/1", "b/2", "b/2-", "b/20/1", "b/3"]
        assert found("b/", after="c") == []
        assert found(after="c/1") == []

    def test_buckets_are_apart(self, storage: Storage, bucket: str, other_bucket: str) -> None:
        """The same key in another bucket is another object."""
        put(storage, bucket, "a/b", b"one")
        put(storage, other_bucket, "a/b", b"other")

        assert read(storage, bucket, "a/b") == b"one"
        assert read(storage, other_bucket, "a/b") == b"other"

        storage.delete(bucket, ["a/b"])
        assert listed(storage, bucket) == {}
        assert listed(storage, other_bucket) == {"a/b": 5}

        storage.delete_prefix(bucket, "a")
        assert read(storage, other_bucket, "a/b") == b"other"

    def test_a_copy_is_an_object_of_its_own(self, storage: Storage, bucket: str, other_bucket: str) -> None:
        """Within a bucket, over buckets, in place of another and onto itself."""
        put(storage, bucket, "a", b"content")
        put(storage, bucket, "c", b"in the way")

        storage.copy(bucket, "a", to_bucket=bucket, to_key="b/a")
        storage.copy(bucket, "a", to_bucket=other_bucket, to_key="a")
        storage.copy(bucket, "a", to_bucket=bucket, to_key="c")
        storage.copy(bucket, "a", to_bucket=bucket, to_key="a")
        put(storage, bucket, "a", b"changed")

        assert read(storage, bucket, "a") == b"changed"
        assert read(storage, bucket, "b/a") == b"content"
        assert read(storage, other_bucket, "a") == b"content"
        assert read(storage, bucket, "c") == b"content"

    @pytest.mark.parametrize("key", GOOD_KEYS.values(), ids=GOOD_KEYS.keys())
    def test_a_key_may_have_any_harmless_character(self, storage: Storage, bucket: str, key: str) -> None:
        """And is listed as it was given."""
        if len(key.encode()) > self.max_key_bytes:
            pytest.skip(f"the store takes keys of {self.max_key_bytes} bytes")
        put(storage, bucket, key, b"1")

        assert read(storage, bucket, key) == b"1"
        assert listed(storage, bucket) == {key: 1}
        assert listed(storage, bucket, prefix=key) == {key: 1}

        storage.copy(bucket, key, to_bucket=bucket, to_key=key)
        storage.delete(bucket, [key])

        assert listed(storage, bucket) == {}

    @pytest.mark.parametrize("key", HOSTILE_KEYS.values(), ids=HOSTILE_KEYS.keys())
    def test_a_key_that_could_be_understood_in_another_way_is_refused(
        self, storage: Storage, bucket: str, other_bucket: str, key: str
    ) -> None:
        """By every method, and nothing happens."""
        put(storage, bucket, "good", b"1")
        source = io.BytesIO(b"1")
        calls: list[Callable[[], object]] = [
            lambda: storage.put(bucket, key, source, content_type="text/plain"),
            lambda: storage.open(bucket, key),
            lambda: storage.size(bucket, key),
            lambda: storage.exists(bucket, key),
            lambda: storage.copy(bucket, key, to_bucket=bucket, to_key="copy"),
            lambda: storage.copy(bucket, "good", to_bucket=other_bucket, to_key=key),
            lambda: storage.delete(bucket, [key]),
        ]

        for call in calls:
            with pytest.raises(InvalidError):
                call()

        assert source.tell() == 0
        assert listed(storage, bucket) == {"good": 1}
        assert listed(storage, other_bucket) == {}

    @pytest.mark.parametrize(
        "prefix",
        [key for what, key in HOSTILE_KEYS.items() if what not in ("empty", "trailing slash")],
        ids=[what for what in HOSTILE_KEYS if what not in ("empty", "trailing slash")],
    )
    def test_a_prefix_that_no_key_can_begin_with_is_refused(self, storage: Storage, bucket: str, prefix: str) -> None:
        """Rather than understood in another way."""
        put(storage, bucket, "good", b"1")

        with pytest.raises(InvalidError):
            list(storage.list(bucket, prefix=prefix))
        with pytest.raises(InvalidError):
            storage.delete_prefix(bucket, prefix)

        assert listed(storage, bucket) == {"good": 1}

    @pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "a\\b", "a\0b", ".hidden", "a" * 201])
    def test_a_bucket_that_could_be_understood_in_another_way_is_refused(
        self, storage: Storage, bucket: str, name: str
    ) -> None:
        """As with keys."""
        put(storage, bucket, "good", b"1")
        calls: list[Callable[[], object]] = [
            lambda: storage.put(name, "a", io.BytesIO(b"1"), content_type="text/plain"),
            lambda: storage.open(name, "a"),
            lambda: storage.size(name, "a"),
            lambda: storage.exists(name, "a"),
            lambda: storage.copy(name, "a", to_bucket=bucket, to_key="copy"),
            lambda: storage.copy(bucket, "good", to_bucket=name, to_key="copy"),
            lambda: storage.delete(name, ["a"]),
            lambda: storage.delete_prefix(name, "a"),
            lambda: storage.delete_bucket(name),
            lambda: list(storage.list(name)),
        ]

        for call in calls:
            with pytest.raises(InvalidError):
                call()

        assert listed(storage, bucket) == {"good": 1}

    @pytest.mark.parametrize("error", [ValueError("no more"), OSError(5, "no more"), FileNotFoundError(2, "no more")])
    @pytest.mark.parametrize("after", [0, 10, 3_000_000])
    def test_a_source_that_raises_leaves_nothing_and_its_error_passes_through(
        self, storage: Storage, bucket: str, after: int, error: Exception
    ) -> None:
        """Before its first byte or in the middle; what was there before stays."""
        put(storage, bucket, "here", b"before")

        for key in ("a/b", "here"):
            with pytest.raises(type(error)) as raised:
                storage.put(bucket, key, source_from(io.BytesIO(b"1" * after), error=error), content_type="text/plain")
            assert raised.value is error

        assert listed(storage, bucket) == {"here": 6}
        assert read(storage, bucket, "here") == b"before"
        assert not storage.exists(bucket, "a/b")
        put(storage, bucket, "a/b", b"later")
        assert read(storage, bucket, "a/b") == b"later"

    def test_an_unfinished_object_is_not_there_yet(self, storage: Storage, bucket: str) -> None:
        """For no reader and no listing, until all of it is."""
        put(storage, bucket, "old", b"before")
        seen: list[object] = []

        def look() -> None:
            seen.append(
                (storage.exists(bucket, "new"), listed(storage, bucket), read(storage, bucket, "old") == b"before")
            )

        for key in ("new", "old"):
            source = source_from(io.BytesIO(b"1" * 3_000_000), most=1_000_000, before_read=look)
            storage.put(bucket, key, source, content_type="text/plain")
            if key == "new":
                storage.delete(bucket, ["new"])

        assert seen
        assert all(each == (False, {"old": 6}, True) for each in seen)
        assert storage.size(bucket, "old") == 3_000_000

    def test_of_concurrent_puts_of_one_key_a_reader_sees_one_or_the_other_whole(
        self, storage: Storage, bucket: str
    ) -> None:
        """At every moment; in the end one of them is there."""
        sizes = [2_000_000 + number for number in range(4)]
        contents = {size: bytes([number]) * size for number, size in enumerate(sizes)}
        together = threading.Barrier(len(sizes))
        writing = threading.Event()
        writing.set()

        def write(size: int) -> None:
            together.wait(_WAIT_S)
            for _ in range(3):
                source = source_from(io.BytesIO(contents[size]), most=100_000)
                storage.put(bucket, "a/b", source, content_type="text/plain")

        def watch() -> int:
            looks = 0
            while writing.is_set() or not looks:
                try:
                    content = read(storage, bucket, "a/b")
                except ObjectNotFoundError:
                    continue
                assert contents.get(len(content)) == content
                looks += 1
            return looks

        with ThreadPoolExecutor(len(sizes) + 1) as pool:
            looking = pool.submit(watch)
            try:
                for future in [pool.submit(write, size) for size in sizes]:
                    future.result(_WAIT_S)
            finally:
                writing.clear()
            assert looking.result(_WAIT_S)

        assert contents.get(storage.size(bucket, "a/b")) == read(storage, bucket, "a/b")
        assert list(listed(storage, bucket)) == ["a/b"]

    def test_concurrent_puts_and_deletes_in_one_folder_do_not_disturb_each_other(
        self, storage: Storage, bucket: str
    ) -> None:
        """Although the folder may come and go with its objects."""
        threads, rounds = 4, self.rounds
        together = threading.Barrier(threads)

        def work(number: int) -> None:
            together.wait(_WAIT_S)
            for turn in range(rounds):
                key = f"a/b/{number}-{turn}"
                put(storage, bucket, key, key.encode())
                assert read(storage, bucket, key) == key.encode()
                if turn < rounds - 1:
                    storage.delete(bucket, [key])
                    assert not storage.exists(bucket, key)

        with ThreadPoolExecutor(threads) as pool:
            for future in [pool.submit(work, number) for number in range(threads)]:
                future.result(_WAIT_S)

        assert sorted(listed(storage, bucket)) == [f"a/b/{number}-{rounds - 1}" for number in range(threads)]

    def test_concurrent_puts_and_deletes_of_one_key_end_with_it_or_without(self, storage: Storage, bucket: str) -> None:
        """And neither is an error."""
        rounds = self.rounds
        together = threading.Barrier(4)

        def write(content: bytes) -> None:
            together.wait(_WAIT_S)
            for _ in range(rounds):
                put(storage, bucket, "a/b", content)

        def delete() -> None:
            together.wait(_WAIT_S)
            for _ in range(rounds):
                storage.delete(bucket, ["a/b"])
                storage.delete_prefix(bucket, "a/")

        with ThreadPoolExecutor(4) as pool:
            writers = [pool.submit(write, content) for content in (b"one", b"another")]
            for future in [*writers, pool.submit(delete), pool.submit(delete)]:
                future.result(_WAIT_S)

        found = listed(storage, bucket)
        assert found in ({}, {"a/b": 3}, {"a/b": 7})
        if found:
            assert read(storage, bucket, "a/b") in (b"one", b"another")
        storage.delete(bucket, ["a/b"])
        assert listed(storage, bucket) == {}

    def test_a_failed_call_is_an_error_of_ours(self) -> None:
        """So that callers can tell it from their own."""
        assert issubclass(ObjectNotFoundError, StorageError)
        assert issubclass(BucketNotEmptyError, StorageError)
        assert issubclass(ObjectNotFoundError, LookupError)


def put(storage: Storage, bucket: str, key: str, content: bytes) -> None:
    """Store bytes."""
    storage.put(bucket, key, io.BytesIO(content), content_type="application/octet-stream")


def read(storage: Storage, bucket: str, key: str) -> bytes:
    """Return the bytes of an object."""
    with storage.open(bucket, key) as file:
        return file.read()


def listed(storage: Storage, bucket: str, *, prefix: str = "") -> dict[str, int]:
    """Return the keys and sizes of a listing."""
    return {stored.key: stored.size for stored in storage.list(bucket, prefix=prefix)}


def source_from(
    file: BinaryIO,
    *,
    most: int | None = None,
    error: Exception | None = None,
    before_read: Callable[[], None] | None = None,
) -> BinaryIO:
    """Return a source that gives at most so many bytes at once, looks round before, and raises at its end."""
    return _Source(file, most, error, before_read)  # type: ignore[return-value]  # it reads, that is enough


class _Source(io.RawIOBase):
    def __init__(
        self, file: BinaryIO, most: int | None, error: Exception | None, before_read: Callable[[], None] | None
    ) -> None:
        self._file = file
        self._most = most
        self._error = error
        self._before_read = before_read

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if self._before_read is not None:
            self._before_read()
        if size < 0:
            pieces = []
            while piece := self.read(1 << 20):
                pieces.append(piece)
            return b"".join(pieces)
        content = self._file.read(size if self._most is None else min(size, self._most))
        if not content and self._error is not None:
            raise self._error
        return content
