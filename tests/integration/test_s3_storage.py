"""What an S3 server is asked for beyond the contract of stores: parts, copies, signed addresses, options."""

from __future__ import annotations

import io
import multiprocessing
import os
import pickle
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from tests.integration.processes import wait_until
from tests.s3.fixtures import new_bucket, storage_of
from tests.s3.radosgw import S3Server
from urllib3 import HTTPResponse, PoolManager

from mindia import S3Storage
from mindia.errors import InvalidError, NotPicklableError, ObjectNotFoundError, StorageError, StorageUnavailableError
from mindia.storage.base import MIN_PART_BYTES, DirectStorage, UploadedPart, UploadForm
from mindia.testing.storage import listed, put, read

_HOUR = timedelta(hours=1)
_PART = MIN_PART_BYTES


@pytest.fixture(scope="module")
def storage(s3_server: S3Server) -> S3Storage:
    return storage_of(s3_server, part_bytes=_PART)


@pytest.fixture(scope="module")
def http() -> Iterator[PoolManager]:
    with PoolManager(retries=False) as pool:
        yield pool


@pytest.fixture
def bucket() -> str:
    return new_bucket()


def content_of(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def raw(storage: S3Storage) -> Any:
    """Return the client of boto3 below."""
    return storage._connection.client()


def uploads(storage: S3Storage, bucket: str) -> list[str]:
    return [each["Key"] for each in raw(storage).list_multipart_uploads(Bucket=bucket).get("Uploads", ())]


def post(http: PoolManager, form: UploadForm, content: bytes, **changed: str) -> HTTPResponse:
    fields: dict[str, Any] = {**form.fields, **changed, "file": ("cat.jpg", content)}
    return http.request("POST", form.url, fields=fields)  # type: ignore[return-value]  # what the library gives has no narrower type


@pytest.mark.parametrize("size", [_PART - 1, _PART, _PART + 1, 2 * _PART, 3 * _PART + 7])
def test_objects_around_the_size_of_parts_are_stored_whole(storage: S3Storage, bucket: str, size: int) -> None:
    content = content_of(size)

    storage.put(bucket, "a/b", io.BytesIO(content), content_type="video/mp4", disposition="inline; filename=cat")

    assert read(storage, bucket, "a/b") == content
    found = raw(storage).head_object(Bucket=bucket, Key="a/b")
    assert (found["ContentType"], found["ContentDisposition"]) == ("video/mp4", "inline; filename=cat")
    assert ("-" in found["ETag"]) == (size > _PART)
    assert uploads(storage, bucket) == []


class _Failing(io.RawIOBase):
    def __init__(self, content: bytes) -> None:
        self._file = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if content := self._file.read(size):
            return content
        raise OSError(5, "no more")


def test_a_source_that_fails_in_a_later_part_leaves_neither_object_nor_parts(storage: S3Storage, bucket: str) -> None:
    with pytest.raises(OSError, match="no more"):
        storage.put(bucket, "a", _Failing(content_of(3 * _PART)), content_type="video/mp4")  # type: ignore[arg-type]  # no more of it is used, or it is refused

    assert listed(storage, bucket) == {}
    assert uploads(storage, bucket) == []


class _Interrupted(io.RawIOBase):
    """Its upload is aborted by another when its third part is read."""

    def __init__(self, content: bytes, interrupt: Callable[[], None]) -> None:
        self._file = io.BytesIO(content)
        self._interrupt = interrupt
        self._reads = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        self._reads += 1
        if self._reads == 3:
            self._interrupt()
        return self._file.read(size)


def test_an_upload_that_is_removed_under_its_writer_may_be_tried_again(storage: S3Storage, bucket: str) -> None:
    def remove() -> None:
        wait_until(lambda: uploads(storage, bucket) == ["a"])
        storage.delete(bucket, ["a"])

    put(storage, bucket, "b", b"")
    storage.delete(bucket, ["b"])
    source = _Interrupted(content_of(4 * _PART), remove)
    with pytest.raises(StorageUnavailableError, match="removed by another") as raised:
        storage.put(bucket, "a", source, content_type="video/mp4")  # type: ignore[arg-type]  # no more of it is used, or it is refused

    assert raised.value.retryable
    assert listed(storage, bucket) == {}
    assert uploads(storage, bucket) == []


def test_what_a_killed_process_left_of_an_upload_goes_with_its_key_and_no_other(
    storage: S3Storage, bucket: str
) -> None:
    for key in ("a/1", "a/2", "a/22", "b"):
        upload = storage.begin_parts(bucket, key, content_type="image/png")
        raw(storage).upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=1, Body=b"1")

    storage.delete(bucket, ["a/1", "never"])
    assert uploads(storage, bucket) == ["a/2", "a/22", "b"]
    storage.delete(bucket, ["a/2"])
    assert uploads(storage, bucket) == ["a/22", "b"]
    storage.delete_prefix(bucket, "a/")
    assert uploads(storage, bucket) == ["b"]
    storage.delete_bucket(bucket)
    assert listed(storage, bucket) == {}
    put(storage, bucket, "b", b"1")
    assert uploads(storage, bucket) == []


def test_more_objects_than_one_request_takes_are_listed_and_deleted(storage: S3Storage, bucket: str) -> None:
    keys = [f"k/{number:04}" for number in range(1005)]
    put(storage, bucket, keys[0], b"")
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda key: put(storage, bucket, key, b""), keys))

    assert list(listed(storage, bucket)) == keys
    assert [each.key for each in storage.list(bucket, prefix="k/", after="k/1000")] == keys[1001:]

    storage.delete(bucket, keys[:1003])
    assert list(listed(storage, bucket)) == keys[1003:]


def test_a_copy_of_more_than_a_request_copies_is_made_in_parts(
    storage: S3Storage, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = content_of(2 * _PART + 5)
    storage.put(bucket, "a", io.BytesIO(content), content_type="video/mp4", disposition="inline")
    monkeypatch.setattr(storage, "_max_copy_bytes", _PART)
    monkeypatch.setattr(storage, "_copy_part_bytes", _PART)

    storage.copy(bucket, "a", to_bucket=bucket, to_key="b")

    assert read(storage, bucket, "b") == content
    found = raw(storage).head_object(Bucket=bucket, Key="b")
    assert (found["ContentType"], found["ContentDisposition"]) == ("video/mp4", "inline")
    assert found["ETag"].endswith('-3"')


def test_a_copy_keeps_type_and_name(storage: S3Storage, bucket: str) -> None:
    storage.put(bucket, "a", io.BytesIO(b"1"), content_type="image/png", disposition="inline; filename=cat.png")

    storage.copy(bucket, "a", to_bucket=bucket, to_key="b")

    found = raw(storage).head_object(Bucket=bucket, Key="b")
    assert (found["ContentType"], found["ContentDisposition"]) == ("image/png", "inline; filename=cat.png")


def test_jumps_in_a_large_object_read_what_is_there(storage: S3Storage, bucket: str) -> None:
    content = content_of(3_000_000)
    put(storage, bucket, "a", content)
    chance = random.Random(1)

    with storage.open(bucket, "a") as file:
        for _ in range(40):
            start, length = chance.randrange(len(content)), chance.choice((1, 1000, 300_000))
            file.seek(start)
            assert file.read(length) == content[start : start + length]
        with pytest.raises((OSError, ValueError)):
            file.seek(-1)
    with pytest.raises(ValueError, match="closed"):
        file.read()


def test_pieces_of_any_size_are_read_as_from_a_file(storage: S3Storage, bucket: str) -> None:
    content = content_of(3_000_000)
    put(storage, bucket, "a", content)
    chance = random.Random(2)

    with storage.open(bucket, "a") as file:
        for _ in range(20):
            beside = io.BytesIO(content)
            start = chance.randrange(len(content))
            assert file.seek(start) == beside.seek(start)
            for _ in range(8):
                size = chance.choice((0, 1, 100, 1 << 18, 300_000, 1 << 20, 5_000_000))
                assert file.read(size) == beside.read(size)
                assert file.tell() == beside.tell()
                if chance.random() < 0.3:
                    back = chance.randrange(min(1000, beside.tell() + 1))
                    assert file.seek(-back, io.SEEK_CUR) == beside.seek(-back, io.SEEK_CUR)
            assert file.readline() == beside.readline()
            assert file.read() == beside.read()


def test_who_jumps_in_an_object_that_was_replaced_is_told(storage: S3Storage, bucket: str) -> None:
    put(storage, bucket, "a", content_of(3_000_000))

    with storage.open(bucket, "a") as file:
        file.read(1)
        put(storage, bucket, "a", b"2" * 3_000_000)
        file.seek(2_000_000)
        with pytest.raises(Exception, match="replaced"):
            file.read(1)


def test_in_a_shared_bucket_each_tenant_has_a_prefix(s3_server: S3Server) -> None:
    shared = new_bucket()
    storage = storage_of(s3_server, bucket=shared, prefix="media/")
    put(storage, "acme", "originals/1", b"1")
    put(storage, "acme-2", "originals/2", b"2")

    keys = [each["Key"] for each in raw(storage).list_objects_v2(Bucket=shared)["Contents"]]

    assert keys == ["media/acme-2/originals/2", "media/acme/originals/1"]
    storage.delete_prefix("acme", "originals/")
    storage.delete_bucket("acme")
    assert listed(storage, "acme-2") == {"originals/2": 1}


class TestAddresses:
    def test_an_address_gives_the_object_with_type_and_name(
        self, storage: S3Storage, bucket: str, http: PoolManager
    ) -> None:
        put(storage, bucket, "é/b c", b"content")

        url = storage.url(
            bucket, "é/b c", expires_in=_HOUR, content_type="image/png", disposition="attachment; filename=cat.png"
        )

        assert url is not None
        answer = http.request("GET", url)
        assert (answer.status, answer.data) == (200, b"content")
        assert answer.headers["Content-Type"] == "image/png"
        assert answer.headers["Content-Disposition"] == "attachment; filename=cat.png"

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("/a/b?", "/a/c?"),
            ("image%2Fpng", "text%2Fhtml"),
            ("Expires=3600", "Expires=86400"),
            ("Signature=", "Signature=0"),
        ],
        ids=["another object", "another type", "a later end", "another signature"],
    )
    def test_an_address_that_was_changed_gives_nothing(
        self, storage: S3Storage, bucket: str, http: PoolManager, old: str, new: str
    ) -> None:
        put(storage, bucket, "a/b", b"content")
        put(storage, bucket, "a/c", b"other")
        url = storage.url(bucket, "a/b", expires_in=_HOUR, content_type="image/png", disposition="inline")
        assert url is not None
        assert old in url

        assert http.request("GET", url.replace(old, new)).status == 403

    def test_a_signature_lasts_seven_days_at_most(self, storage: S3Storage, bucket: str) -> None:
        with pytest.raises(InvalidError, match="7 days"):
            storage.url(bucket, "a", expires_in=timedelta(days=8), content_type="image/png", disposition="inline")

    def test_public_addresses_are_those_of_the_cdn(self, s3_server: S3Server) -> None:
        own = storage_of(s3_server, public_url="https://cdn.example.org/m/")
        shared = storage_of(s3_server, public_url="https://cdn.example.org", bucket="all-of-them", prefix="p/")
        facts: Any = {"expires_in": timedelta(days=365), "content_type": "image/png", "disposition": "inline"}

        assert own.url("acme", "a/é", **facts) == "https://cdn.example.org/m/acme/a/%C3%A9"
        assert shared.url("acme", "a/é", **facts) == "https://cdn.example.org/p/acme/a/%C3%A9"

    def test_the_host_may_serve_media_itself(self, s3_server: S3Server, bucket: str) -> None:
        storage = storage_of(s3_server, presigned_urls=False)

        assert storage.url(bucket, "a", expires_in=_HOUR, content_type="image/png", disposition="inline") is None

    def test_addresses_are_those_at_which_others_reach_the_server(self, s3_server: S3Server, bucket: str) -> None:
        storage = storage_of(s3_server, public_endpoint_url="https://s3.example.org")
        put(storage, bucket, "a", b"1")

        url = storage.url(bucket, "a", expires_in=_HOUR, content_type="image/png", disposition="inline")

        assert url is not None
        assert url.startswith(f"https://s3.example.org/{bucket}/a?")


class TestUploadsOfOthers:
    def test_a_form_stores_an_object(self, storage: S3Storage, bucket: str, http: PoolManager) -> None:
        form = storage.upload_form(bucket, "a/b", content_type="image/jpeg", max_bytes=100, expires_in=_HOUR)

        assert post(http, form, b"content").status in (200, 204)

        assert read(storage, bucket, "a/b") == b"content"
        assert raw(storage).head_object(Bucket=bucket, Key="a/b")["ContentType"] == "image/jpeg"

    @pytest.mark.parametrize(
        ("content", "changed"),
        [
            (b"1" * 101, {}),
            (b"1", {"Content-Type": "text/html"}),
            (b"1", {"key": "a/c"}),
            (b"1", {"x-amz-signature": "0" * 64}),
            (b"1", {"policy": "e30="}),
        ],
        ids=["too large", "another type", "another key", "another signature", "another policy"],
    )
    def test_a_form_stores_nothing_but_what_it_is_for(
        self, storage: S3Storage, bucket: str, http: PoolManager, content: bytes, changed: dict[str, str]
    ) -> None:
        form = storage.upload_form(bucket, "a/b", content_type="image/jpeg", max_bytes=100, expires_in=_HOUR)

        assert post(http, form, content, **changed).status in (400, 403)

        assert listed(storage, bucket) == {}

    def test_parts_arrive_in_any_order_and_are_known(self, storage: S3Storage, bucket: str, http: PoolManager) -> None:
        first, last = content_of(_PART), b"the end"
        upload = storage.begin_parts(bucket, "a", content_type="video/mp4")

        for number, part in ((2, last), (1, first)):
            url = storage.part_url(bucket, "a", upload_id=upload, number=number, size=len(part), expires_in=_HOUR)
            assert http.request("PUT", url, body=part).status == 200
        parts = storage.uploaded_parts(bucket, "a", upload_id=upload)
        assert [(part.number, part.size) for part in parts] == [(1, len(first)), (2, len(last))]
        assert not storage.exists(bucket, "a")
        storage.complete_parts(bucket, "a", upload_id=upload, parts=parts)

        assert read(storage, bucket, "a") == first + last
        assert raw(storage).head_object(Bucket=bucket, Key="a")["ContentType"] == "video/mp4"

    def test_a_part_of_another_size_is_refused(self, storage: S3Storage, bucket: str, http: PoolManager) -> None:
        upload = storage.begin_parts(bucket, "a", content_type="video/mp4")
        url = storage.part_url(bucket, "a", upload_id=upload, number=1, size=10, expires_in=_HOUR)

        assert http.request("PUT", url, body=b"1" * 11).status == 403

        assert storage.uploaded_parts(bucket, "a", upload_id=upload) == []
        storage.abort_parts(bucket, "a", upload_id=upload)

    def test_an_upload_that_was_removed_is_not_found(self, storage: S3Storage, bucket: str) -> None:
        upload = storage.begin_parts(bucket, "a", content_type="video/mp4")
        storage.abort_parts(bucket, "a", upload_id=upload)
        storage.abort_parts(bucket, "a", upload_id=upload)
        storage.abort_parts(new_bucket(), "a", upload_id=upload)

        with pytest.raises(ObjectNotFoundError):
            storage.uploaded_parts(bucket, "a", upload_id=upload)
        with pytest.raises(StorageError):
            storage.complete_parts(bucket, "a", upload_id=upload, parts=[UploadedPart(1, 1, "0" * 32)])

    def test_it_is_known_by_its_port(self, storage: S3Storage) -> None:
        assert isinstance(storage, DirectStorage)


def _exists_in_child(storage: S3Storage, bucket: str, results: Any) -> None:
    results.put((storage.exists(bucket, "a"), read(storage, bucket, "a")))


def test_a_forked_child_has_connections_of_its_own(storage: S3Storage, bucket: str) -> None:
    put(storage, bucket, "a", b"1")
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    with storage.open(bucket, "a") as open_here:
        child = context.Process(target=_exists_in_child, args=(storage, bucket, results))
        child.start()
        assert results.get() == (True, b"1")
        child.join(30)
        assert open_here.read() == b"1"
    assert child.exitcode == 0
    child.close()
    results.close()


def test_options_go_with_what_stores_something(s3_server: S3Server, bucket: str) -> None:
    storage = storage_of(s3_server, storage_class="STANDARD", server_side_encryption="aws:kms", kms_key_id="key-1")
    sent: list[dict[str, str]] = []

    def note(request: Any, **_: object) -> None:
        sent.append({name.lower(): str(value) for name, value in request.headers.items()})
        raise ConnectionError("seen")

    raw(storage).meta.events.register("before-send.s3.PutObject", note)
    with pytest.raises(ConnectionError, match="seen"):
        put(storage, bucket, "a", b"1")

    kept = {"x-amz-storage-class", "x-amz-server-side-encryption", "x-amz-server-side-encryption-aws-kms-key-id"}
    assert kept <= sent[0].keys()


@pytest.mark.parametrize(
    "arguments",
    [
        {"bucket": "No Bucket"},
        {"prefix": "p/"},
        {"bucket": "shared-one", "prefix": "no-slash"},
        {"bucket": "shared-one", "prefix": "../"},
        {"access_key_id": "A"},
        {"secret_access_key": "s"},
        {"endpoint_url": "s3.example.org"},
        {"endpoint_url": "https://user:secret@s3.example.org"},
        {"endpoint_url": "ftp://s3.example.org"},
        {"public_url": "cdn"},
        {"addressing": "other"},
        {"kms_key_id": "key"},
        {"part_bytes": 1000},
        {"part_concurrency": 0},
        {"max_attempts": 0},
        {"max_connections": 0},
    ],
    ids=lambda arguments: " and ".join(arguments) + " " + str(next(iter(arguments.values())))[:12],
)
def test_arguments_that_cannot_be_meant_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidError) as raised:
        S3Storage(**arguments)
    assert "secret@" not in str(raised.value)


def test_it_shows_no_secret_and_is_not_pickled() -> None:
    storage = S3Storage(access_key_id="AKIA", secret_access_key="hidden-one", endpoint_url="http://127.0.0.1:9")

    assert "hidden-one" not in repr(storage)
    assert "AKIA" not in repr(storage)
    with pytest.raises(NotPicklableError, match="not pickled"):
        pickle.dumps(storage)


@pytest.mark.parametrize("bucket", ["ab", "Upper", "under_score", "a..b", "-a-b", "a" * 64])
def test_a_bucket_that_the_server_would_not_take_is_refused_before(storage: S3Storage, bucket: str) -> None:
    with pytest.raises(InvalidError, match="bucket"):
        storage.exists(bucket, "a")


def test_the_region_comes_from_the_environment_where_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    assert S3Storage().region == "eu-central-1"
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    assert S3Storage().region == "us-east-1"
    assert S3Storage(region="eu-west-1").region == "eu-west-1"
