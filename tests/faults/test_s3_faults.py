"""Whatever goes wrong with an S3 server is a clear error of ours, tried again where that helps, and leaves nothing."""

from __future__ import annotations

import io
import random
import socket
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from tests.s3.fixtures import new_bucket, storage_of
from tests.s3.proxy import Fault, Request, S3Proxy
from tests.s3.radosgw import S3Server

from mindia import S3Storage
from mindia.errors import (
    BucketNotFoundError,
    ObjectNotFoundError,
    StorageAccessDeniedError,
    StorageError,
    StorageUnavailableError,
)
from mindia.storage.base import MIN_PART_BYTES
from mindia.testing.storage import listed, put, read

_PART = MIN_PART_BYTES
_SMALL, _LARGE = b"content", random.Random(1).randbytes(3 * _PART + 7)

_CALLS: dict[str, Callable[[S3Storage, str], object]] = {
    "put": lambda storage, bucket: put(storage, bucket, "new", _SMALL),
    "put in parts": lambda storage, bucket: put(storage, bucket, "new", _LARGE),
    "open": lambda storage, bucket: storage.open(bucket, "here"),
    "size": lambda storage, bucket: storage.size(bucket, "here"),
    "exists": lambda storage, bucket: storage.exists(bucket, "here"),
    "copy": lambda storage, bucket: storage.copy(bucket, "here", to_bucket=bucket, to_key="new"),
    "delete": lambda storage, bucket: storage.delete(bucket, ["here"]),
    "delete several": lambda storage, bucket: storage.delete(bucket, ["here", "there"]),
    "delete by prefix": lambda storage, bucket: storage.delete_prefix(bucket, "he"),
    "delete the bucket": lambda storage, bucket: storage.delete_bucket(bucket),
    "list": lambda storage, bucket: list(storage.list(bucket)),
}


@pytest.fixture(scope="module")
def direct(s3_server: S3Server) -> S3Storage:
    return storage_of(s3_server)


@pytest.fixture(scope="module")
def with_wrong_secret(s3_server: S3Server) -> S3Storage:
    return storage_of(s3_server, secret_access_key="not-the-right-one")


@pytest.fixture(scope="module")
def of_somebody_else(s3_server: S3Server) -> S3Storage:
    return storage_of(s3_server, access_key_id=s3_server.other_access_key, secret_access_key=s3_server.other_secret_key)


@pytest.fixture
def bucket(direct: S3Storage) -> str:
    bucket = new_bucket()
    put(direct, bucket, "here", _SMALL)
    return bucket


@pytest.fixture(scope="module")
def _proxy(s3_server: S3Server) -> Iterator[S3Proxy]:
    with S3Proxy(s3_server.endpoint) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def _proxied(s3_server: S3Server, _proxy: S3Proxy) -> S3Storage:
    return storage_of(
        s3_server, endpoint_url=_proxy.endpoint, read_timeout=timedelta(seconds=1), max_attempts=3, part_bytes=_PART
    )


@pytest.fixture(scope="module")
def tried_once(s3_server: S3Server, _proxy: S3Proxy) -> S3Storage:
    """A store behind the proxy that tries once: who tries often in vain has used up what boto3 allows for a while."""
    return storage_of(s3_server, endpoint_url=_proxy.endpoint, max_attempts=1, part_bytes=_PART)


@pytest.fixture
def proxy(_proxy: S3Proxy) -> Iterator[S3Proxy]:
    _proxy.seen.clear()
    yield _proxy
    _proxy.faults = lambda _: None


@pytest.fixture
def storage(_proxied: S3Storage, monkeypatch: pytest.MonkeyPatch) -> S3Storage:
    """A store behind the proxy, which does not wait between its tries."""
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda _: None)
    return _proxied


def uploads(direct: S3Storage, bucket: str) -> list[str]:
    return [
        each["Key"] for each in direct._connection.client().list_multipart_uploads(Bucket=bucket).get("Uploads", ())
    ]


def check_nothing_is_left(direct: S3Storage, bucket: str) -> None:
    assert listed(direct, bucket) == {"here": len(_SMALL)}
    assert uploads(direct, bucket) == []


@pytest.mark.parametrize("call", _CALLS.values(), ids=_CALLS.keys())
class TestRefusals:
    def check(self, storage: S3Storage, bucket: str, call: Callable[[S3Storage, str], object], secret: str) -> str:
        with pytest.raises(StorageAccessDeniedError) as raised:
            call(storage, bucket)
        message = str(raised.value)
        assert bucket in message
        assert secret not in message
        assert storage._connection.endpoint in message
        return message

    def test_wrong_secret(
        self, with_wrong_secret: S3Storage, direct: S3Storage, bucket: str, call: Callable[[S3Storage, str], object]
    ) -> None:
        self.check(with_wrong_secret, bucket, call, "not-the-right-one")

        check_nothing_is_left(direct, bucket)

    def test_no_permission(
        self,
        s3_server: S3Server,
        of_somebody_else: S3Storage,
        direct: S3Storage,
        bucket: str,
        call: Callable[[S3Storage, str], object],
    ) -> None:
        message = self.check(of_somebody_else, bucket, call, s3_server.other_secret_key)

        assert "may not" in message
        check_nothing_is_left(direct, bucket)


def test_an_unknown_key_of_access(s3_server: S3Server, bucket: str) -> None:
    storage = storage_of(s3_server, access_key_id="NOBODY")

    with pytest.raises(StorageAccessDeniedError, match="does not know the access key"):
        put(storage, bucket, "a", b"1")


def test_a_wrong_secret_is_called_by_its_name(with_wrong_secret: S3Storage, bucket: str) -> None:
    with pytest.raises(StorageAccessDeniedError, match="secret access key is not right"):
        put(with_wrong_secret, bucket, "a", b"1")


def test_no_credentials_at_all(monkeypatch: pytest.MonkeyPatch, s3_server: S3Server) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/dev/null")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    storage = S3Storage(endpoint_url=s3_server.endpoint, region="us-east-1")

    with pytest.raises(StorageAccessDeniedError, match=r"no credentials.*access_key_id"):
        put(storage, "some-bucket", "a", b"1")


def test_a_clock_that_is_wrong(s3_server: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import botocore.auth

    now = botocore.auth.get_current_datetime
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *given: now(*given) - timedelta(hours=2))
    storage = storage_of(s3_server)

    with pytest.raises(StorageAccessDeniedError, match="clock"):
        put(storage, bucket, "a", b"1")


def test_a_bucket_that_is_missing_and_not_to_be_made(s3_server: S3Server) -> None:
    storage, missing = storage_of(s3_server, create_buckets=False), new_bucket()

    with pytest.raises(BucketNotFoundError, match=missing):
        put(storage, missing, "a", _SMALL)
    with pytest.raises(BucketNotFoundError, match=missing):
        put(storage, missing, "a", _LARGE)
    with pytest.raises(ObjectNotFoundError):
        storage.open(missing, "a")


def test_a_shared_bucket_that_is_missing_and_not_to_be_made(s3_server: S3Server) -> None:
    missing = new_bucket()
    storage = storage_of(s3_server, bucket=missing, create_buckets=False)
    calls: list[Callable[[], object]] = [
        lambda: put(storage, "acme", "a", _SMALL),
        lambda: storage.open("acme", "a"),
        lambda: list(storage.list("acme")),
        lambda: storage.delete("acme", ["a", "b"]),
        lambda: storage.delete_prefix("acme", "a"),
        lambda: storage.delete_bucket("acme"),
    ]

    for call in calls:
        with pytest.raises(BucketNotFoundError, match=missing):
            call()


def test_a_server_that_is_not_there(s3_server: S3Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    storage = storage_of(s3_server, endpoint_url=f"http://127.0.0.1:{port}", max_attempts=1)

    for call in _CALLS.values():
        with pytest.raises(StorageUnavailableError, match=str(port)) as raised:
            call(storage, "some-bucket")
        assert raised.value.retryable


@pytest.mark.parametrize("fault", [Fault.INTERNAL_ERROR, Fault.SLOW_DOWN, Fault.CUT], ids=lambda fault: fault.name)
@pytest.mark.parametrize("call", _CALLS.values(), ids=_CALLS.keys())
class TestPassingFaults:
    def test_one_is_not_noticed(
        self, storage: S3Storage, proxy: S3Proxy, bucket: str, call: Callable[[S3Storage, str], object], fault: Fault
    ) -> None:
        if "bucket" in str(call.__code__.co_names):
            storage.delete(bucket, ["here"])
        failed: set[tuple[str, str]] = set()

        def once_each(request: Request) -> Fault | None:
            what = (request.method, request.path)
            if what in failed:
                return None
            failed.add(what)
            return fault

        proxy.faults = once_each
        call(storage, bucket)

        assert failed

    def test_one_that_stays_is_an_error_that_says_so(
        self,
        tried_once: S3Storage,
        proxy: S3Proxy,
        direct: S3Storage,
        bucket: str,
        call: Callable[[S3Storage, str], object],
        fault: Fault,
    ) -> None:
        proxy.faults = lambda _: fault

        with pytest.raises(StorageUnavailableError) as raised:
            call(tried_once, bucket)

        assert bucket in str(raised.value)
        check_nothing_is_left(direct, bucket)


def _of_part(request: Request) -> bool:
    return request.method == "PUT" and "partNumber" in request.path


@pytest.mark.parametrize("fault", [Fault.CUT_BODY, Fault.CUT_ANSWER, Fault.SILENCE], ids=lambda fault: fault.name)
def test_a_part_that_breaks_off_once_is_sent_again(
    storage: S3Storage, proxy: S3Proxy, direct: S3Storage, bucket: str, fault: Fault
) -> None:
    broken: list[Request] = []

    def first_part(request: Request) -> Fault | None:
        if _of_part(request) and not broken:
            broken.append(request)
            return fault
        return None

    proxy.faults = first_part
    put(storage, bucket, "new", _LARGE)

    assert broken
    assert read(direct, bucket, "new") == _LARGE
    assert uploads(direct, bucket) == []


@pytest.mark.parametrize("fault", [Fault.CUT_BODY, Fault.CUT, Fault.DROPPED], ids=lambda fault: fault.name)
def test_parts_that_never_arrive_leave_nothing(
    tried_once: S3Storage, proxy: S3Proxy, direct: S3Storage, bucket: str, fault: Fault
) -> None:
    proxy.faults = lambda request: fault if _of_part(request) else None

    with pytest.raises(StorageUnavailableError):
        put(tried_once, bucket, "new", _LARGE)

    check_nothing_is_left(direct, bucket)


def lose_first_answer(proxy: S3Proxy, what: str) -> list[Request]:
    """Have the answer lost to the first POST whose address has `what`; return where that request is noted."""
    lost: list[Request] = []

    def first(request: Request) -> Fault | None:
        if request.method == "POST" and what in request.path and not lost:
            lost.append(request)
            return Fault.CUT_ANSWER
        return None

    proxy.faults = first
    return lost


@pytest.mark.parametrize("what", ["uploads", "uploadId"], ids=["beginning", "completion"])
def test_an_upload_of_which_an_answer_is_lost_is_whole_and_the_only_one(
    storage: S3Storage, proxy: S3Proxy, direct: S3Storage, bucket: str, what: str
) -> None:
    lost = lose_first_answer(proxy, what)

    put(storage, bucket, "new", _LARGE)

    assert lost
    assert read(direct, bucket, "new") == _LARGE
    assert uploads(direct, bucket) == []


@pytest.mark.parametrize("what", ["uploads", "uploadId"], ids=["beginning", "completion"])
def test_a_copy_in_parts_of_which_an_answer_is_lost_is_whole_and_the_only_one(
    storage: S3Storage, proxy: S3Proxy, direct: S3Storage, bucket: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(direct, bucket, "old", _LARGE)
    monkeypatch.setattr(storage, "_max_copy_bytes", 5 << 20)
    monkeypatch.setattr(storage, "_copy_part_bytes", 5 << 20)
    lost = lose_first_answer(proxy, what)

    storage.copy(bucket, "old", to_bucket=bucket, to_key="new")

    assert lost
    assert read(direct, bucket, "new") == _LARGE
    assert uploads(direct, bucket) == []


@pytest.mark.parametrize("content", [_SMALL, _LARGE], ids=["whole", "in parts"])
def test_an_upload_that_the_server_drops_without_a_word_is_noticed(
    storage: S3Storage, proxy: S3Proxy, direct: S3Storage, bucket: str, content: bytes
) -> None:
    proxy.faults = lambda request: Fault.DROPPED if request.method in ("PUT", "POST") else None

    with pytest.raises(StorageUnavailableError, match=r"no S3 server|dropped"):
        put(storage, bucket, "new", content)

    check_nothing_is_left(direct, bucket)


def test_a_completion_that_the_server_drops_without_a_word_is_noticed(
    storage: S3Storage, proxy: S3Proxy, direct: S3Storage, bucket: str
) -> None:
    proxy.faults = lambda request: Fault.DROPPED if request.method == "POST" and "uploadId" in request.path else None

    with pytest.raises(StorageError):
        put(storage, bucket, "new", _LARGE)

    check_nothing_is_left(direct, bucket)


def test_who_wants_to_be_sure_has_the_server_asked(
    s3_server: S3Server, proxy: S3Proxy, direct: S3Storage, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the answer to the upload itself looks right."""
    monkeypatch.setattr("tests.s3.proxy._Handler._answer", _with_tag_of_small)
    for confirms in (False, True):
        storage = storage_of(s3_server, endpoint_url=proxy.endpoint, confirm_puts=confirms)
        proxy.faults = lambda request: Fault.DROPPED if request.method == "PUT" else None
        if confirms:
            with pytest.raises(StorageUnavailableError, match="has none"):
                put(storage, bucket, "new", _SMALL)
        else:
            put(storage, bucket, "new", _SMALL)
    check_nothing_is_left(direct, bucket)


def _with_tag_of_small(
    handler: Any, status: int, headers: list[tuple[str, str]], content: bytes, length: int | None = None
) -> None:
    tag = [("ETag", '"9a0364b9e99bb480dd25e1f0284c8555"')] if handler.command == "PUT" else []
    handler.send_response_only(status)
    for name, value in headers + tag:
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(content) if length is None else length))
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(content)


@pytest.mark.parametrize("size", [200_000, 3_000_000])
def test_a_reader_goes_on_where_the_server_broke_off(
    storage: S3Storage, proxy: S3Proxy, direct: S3Storage, bucket: str, size: int
) -> None:
    content = random.Random(size).randbytes(size)
    put(direct, bucket, "long", content)
    cut: list[Request] = []

    def twice(request: Request) -> Fault | None:
        if request.method == "GET" and len(cut) < 2:
            cut.append(request)
            return Fault.CUT_CONTENT
        return None

    proxy.faults = twice
    with storage.open(bucket, "long") as file:
        assert b"".join(iter(lambda: file.read(50_000), b"")) == content
    assert len(cut) == 2


def test_a_reader_whose_server_goes_for_good_says_so(
    storage: S3Storage, proxy: S3Proxy, direct: S3Storage, bucket: str
) -> None:
    key = "412/long"  # with a number in it that is a code of servers
    put(direct, bucket, key, b"1" * 3_000_000)
    proxy.faults = lambda request: Fault.CUT_CONTENT if request.number == 0 else Fault.CUT

    with storage.open(bucket, key) as file, pytest.raises(StorageUnavailableError, match="412/long"):
        file.read()


def test_ten_in_a_hundred_requests_that_fail_or_stand_still_are_not_noticed(
    s3_server: S3Server, direct: S3Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda _: None)
    chance, bucket = random.Random(20_250_131), new_bucket()
    kinds = [Fault.INTERNAL_ERROR, Fault.SILENCE, Fault.CUT, Fault.CUT_ANSWER]
    expected: dict[str, bytes] = {}
    with S3Proxy(s3_server.endpoint, silence_s=0.5) as proxy:
        storage = storage_of(
            s3_server,
            endpoint_url=proxy.endpoint,
            read_timeout=timedelta(seconds=0.3),
            max_attempts=6,
            part_bytes=_PART,
        )
        proxy.faults = lambda _: chance.choice(kinds) if chance.random() < 0.1 else None
        for number in range(60):
            content = _LARGE if number % 20 == 0 else chance.randbytes(100)
            storage.put(bucket, f"a/{number:03}", io.BytesIO(content), content_type="image/png")
            expected[f"a/{number:03}"] = content
            if number % 3 == 2:
                storage.copy(bucket, f"a/{number:03}", to_bucket=bucket, to_key=f"b/{number:03}")
                storage.delete(bucket, [f"a/{number - 1:03}"])
                expected[f"b/{number:03}"] = content
                del expected[f"a/{number - 1:03}"]
        assert listed(storage, bucket) == {key: len(expected[key]) for key in sorted(expected)}
    assert {key: read(direct, bucket, key) for key in expected} == expected
    assert uploads(direct, bucket) == []
