"""The stores that come with the library keep the contract of stores."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tests.s3.fixtures import new_bucket, storage_of
from tests.s3.radosgw import S3Server

from mindia import LocalStorage, MemoryStorage, S3Storage
from mindia.errors import BucketNotEmptyError, ObjectNotFoundError
from mindia.storage.base import MAX_KEY_BYTES, Storage
from mindia.testing.batch_storage import BatchStorageContract
from mindia.testing.storage import StorageContract, listed, put, read


class TestLocalStorage(BatchStorageContract):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> Storage:
        return LocalStorage(tmp_path / "objects")


class TestLocalStorageInAnOddPlace(BatchStorageContract):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> Storage:
        return LocalStorage(tmp_path / "my média" / "not made\nyet")


class TestMemoryStorage(StorageContract):
    @pytest.fixture
    def storage(self) -> Storage:
        return MemoryStorage()


@pytest.fixture(scope="module")
def s3_storage(s3_server: S3Server) -> S3Storage:
    return storage_of(s3_server)


@pytest.fixture(scope="module")
def shared_s3_storage(s3_server: S3Server) -> S3Storage:
    return storage_of(s3_server, bucket=new_bucket(), prefix="média/")


class _InNewBuckets(StorageContract):
    """The server is shared with other tests, and a client of it costs more than most of these."""

    rounds = 8

    @pytest.fixture
    def bucket(self) -> str:
        return new_bucket()

    @pytest.fixture
    def other_bucket(self) -> str:
        return new_bucket()


class TestS3StorageWithABucketForEachTenant(_InNewBuckets):
    @pytest.fixture
    def storage(self, s3_storage: S3Storage) -> Storage:
        return s3_storage


class TestS3StorageWithOneBucketForAllTenants(_InNewBuckets):
    max_key_bytes = MAX_KEY_BYTES - 40

    @pytest.fixture
    def storage(self, shared_s3_storage: S3Storage) -> Storage:
        return shared_s3_storage


# No key is the folder of another.
_FOLDERS = ["", "d/", "d/d/", "d-/", "ф/"]
_KEYS = st.builds("{}{}".format, st.sampled_from(_FOLDERS), st.sampled_from(["1", "1.", "12", "-", "é"]))
_BUCKETS = st.sampled_from(["one", "two"])
_CONTENTS = st.binary(max_size=20)
_PREFIXES = st.sampled_from(["1", "12", "d", "d/", "d/1", "d/d", "d/d/", "d/d/1", "d-", "ф/", "é", "none"])


class _Model(RuleBasedStateMachine):
    """Does the same to a store and to a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.storage = self.make()
        self.objects: dict[tuple[str, str], bytes] = {}

    def make(self) -> Storage:
        raise NotImplementedError

    def expected(self, bucket: str, prefix: str = "") -> dict[str, int]:
        keys = sorted(key for within, key in self.objects if within == bucket and key.startswith(prefix))
        return {key: len(self.objects[bucket, key]) for key in keys}

    @rule(bucket=_BUCKETS, key=_KEYS, content=_CONTENTS)
    def put(self, bucket: str, key: str, content: bytes) -> None:
        put(self.storage, bucket, key, content)
        self.objects[bucket, key] = content

    @rule(bucket=_BUCKETS, keys=st.lists(_KEYS, max_size=3))
    def delete(self, bucket: str, keys: list[str]) -> None:
        self.storage.delete(bucket, keys)
        for key in keys:
            self.objects.pop((bucket, key), None)

    @rule(bucket=_BUCKETS, prefix=_PREFIXES)
    def delete_prefix(self, bucket: str, prefix: str) -> None:
        self.storage.delete_prefix(bucket, prefix)
        for key in self.expected(bucket, prefix):
            del self.objects[bucket, key]

    @rule(bucket=_BUCKETS)
    def delete_bucket(self, bucket: str) -> None:
        if self.expected(bucket):
            with pytest.raises(BucketNotEmptyError):
                self.storage.delete_bucket(bucket)
        else:
            self.storage.delete_bucket(bucket)

    @rule(bucket=_BUCKETS, key=_KEYS, to_bucket=_BUCKETS, to_key=_KEYS)
    def copy(self, bucket: str, key: str, to_bucket: str, to_key: str) -> None:
        if (bucket, key) in self.objects:
            self.storage.copy(bucket, key, to_bucket=to_bucket, to_key=to_key)
            self.objects[to_bucket, to_key] = self.objects[bucket, key]
        else:
            with pytest.raises(ObjectNotFoundError):
                self.storage.copy(bucket, key, to_bucket=to_bucket, to_key=to_key)

    @rule(bucket=_BUCKETS, key=_KEYS)
    def look(self, bucket: str, key: str) -> None:
        content = self.objects.get((bucket, key))
        assert self.storage.exists(bucket, key) == (content is not None)
        if content is None:
            with pytest.raises(ObjectNotFoundError):
                self.storage.size(bucket, key)
        else:
            assert read(self.storage, bucket, key) == content
            assert self.storage.size(bucket, key) == len(content)

    @rule(bucket=_BUCKETS, prefix=_PREFIXES, after=_KEYS)
    def list(self, bucket: str, prefix: str, after: str) -> None:
        found = [stored.key for stored in self.storage.list(bucket, prefix=prefix, after=after)]
        assert found == [key for key in self.expected(bucket, prefix) if key > after]

    @invariant()
    def is_as_expected(self) -> None:
        for bucket in ("one", "two"):
            assert list(listed(self.storage, bucket).items()) == list(self.expected(bucket).items())


class _LocalModel(_Model):
    def make(self) -> Storage:
        self.folder = TemporaryDirectory()
        return LocalStorage(self.folder.name)

    def teardown(self) -> None:
        self.folder.cleanup()


class _MemoryModel(_Model):
    def make(self) -> Storage:
        return MemoryStorage()


_SETTINGS = settings(max_examples=30, stateful_step_count=25)

TestLocalStorageIsADictionary = _LocalModel.TestCase
TestMemoryStorageIsADictionary = _MemoryModel.TestCase
TestLocalStorageIsADictionary.settings = _SETTINGS
TestMemoryStorageIsADictionary.settings = _SETTINGS
