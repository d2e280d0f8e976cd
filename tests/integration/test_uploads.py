"""Clients bring bytes past the host: what they send becomes an item as if it had been added, or leaves nothing."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs
import psycopg
import pytest
from tests.integration.library_calls import SETTINGS
from tests.integration.upload_clients import check_closed_meanwhile, form, post, put_parts, send, serving

import mindia
from mindia import Image, Library, LocalStorage, MemoryStorage, Mindia, Tenant, Video
from mindia.domain.uploads import Upload
from mindia.errors import (
    InvalidError,
    MediaError,
    NotFoundError,
    RejectedError,
    SignatureError,
    StorageError,
    StorageUnavailableError,
    TenantInactiveError,
    TooLargeError,
    TypeMismatchError,
    UnsupportedTypeError,
    UploadClosedError,
    UploadExpiredError,
    UploadIncompleteError,
)
from mindia.services import upload_urls
from mindia.storage.base import Storage
from mindia.testing import samples
from mindia.testing.storage import listed

MIB = 1 << 20
PART = 5 * MIB


@pytest.fixture(params=["local", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return LocalStorage(tmp_path / "objects") if request.param == "local" else MemoryStorage()


@pytest.fixture
def app(application_url: str, roles: Any, storage: Storage) -> Iterator[Mindia]:
    settings = attrs.evolve(SETTINGS, worker_role=roles.worker, isolate_parsers=False)
    with serving(application_url, storage, settings, allow_origins=["https://app.example"]) as app:
        yield app


@pytest.fixture
def tenant(app: Mindia) -> Tenant:
    return app.tenants.create("Acme")


@pytest.fixture
def library(app: Mindia, tenant: Tenant) -> Library:
    return app.library(tenant)


@pytest.fixture
def long_video() -> bytes:
    """A video that has three parts."""
    video = samples.video()
    return video + (2 * PART + 1000 - len(video) + 8).to_bytes(4, "big") + b"free" + bytes(2 * PART + 1000 - len(video))


def expire(host: psycopg.Connection[Any], upload: Upload, *, ago: timedelta) -> None:
    host.execute(
        "update mindia.uploads set expires_at = now() - %(ago)s::interval, sweep_at = now() - %(ago)s::interval "
        "where id = %(id)s",
        {"ago": ago, "id": upload.id},
    )
    host.commit()


def on_record(host: psycopg.Connection[Any], tenant: Tenant) -> int:
    found = host.execute("select id from mindia.uploads where tenant_id = %s", (tenant.id,)).fetchall()
    host.commit()
    return len(found)


# What arrives


def test_a_form_becomes_an_item_as_if_it_had_been_added(library: Library, tenant: Tenant, storage: Storage) -> None:
    content = samples.image()
    upload = library.media.begin_upload("harbour at night.jpg", content_type="image/jpeg")
    assert (upload.received_bytes, upload.is_open, upload.parts) == (0, True, ())
    assert post(upload, content).status == 204
    assert library.media.get_upload(upload.id).received_bytes == len(content)

    staged = library.media.complete_upload(upload.id)
    item = library.media.add(staged, description="a harbour")

    same = library.media.add(content, filename="harbour at night.jpg", description="a harbour")
    assert isinstance(item, Image)
    assert attrs.evolve(
        item, id=same.id, s3_key=same.s3_key, uploaded_at=same.uploaded_at, updated_at=same.updated_at
    ) == same  # fmt: skip
    assert library.media.read(item) == content
    assert set(listed(storage, tenant.s3_bucket)) == {item.s3_key, same.s3_key}
    ended = library.media.get_upload(upload)
    assert (ended.is_open, ended.staged_id, ended.url) == (False, staged.id, None)


def test_a_file_comes_in_parts_in_any_order_and_goes_on_after_a_break(
    library: Library, tenant: Tenant, storage: Storage, long_video: bytes
) -> None:
    upload = library.media.begin_upload("film.mp4", file_size=len(long_video), part_bytes=PART)
    assert [part.size for part in upload.parts] == [PART, PART, 1008]
    assert upload.url is None
    assert [answer.status for answer in put_parts(upload, long_video, numbers={3, 1})] == [204, 204]
    with pytest.raises(UploadIncompleteError, match="missing: 2"):
        library.media.complete_upload(upload)

    again = library.media.get_upload(upload.id)
    assert again.received_bytes == PART + 1008
    assert (
        [part.url is None for part in again.parts] == [part.is_received for part in again.parts] == [True, False, True]
    )
    assert [answer.status for answer in put_parts(again, long_video)] == [204]
    item = library.media.add(library.media.complete_upload(upload.id))

    assert isinstance(item, Video)
    assert library.media.read(item) == long_video
    assert set(listed(storage, tenant.s3_bucket)) == {item.s3_key}


def test_a_part_may_be_put_again_and_the_latest_counts(library: Library, long_video: bytes) -> None:
    upload = library.media.begin_upload("film.mp4", file_size=len(long_video), part_bytes=PART)
    put_parts(upload, bytes(len(long_video)))
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda number: put_parts(upload, long_video, numbers={number}), [1, 2, 3]))

    assert [answer.status for part in answers for answer in part] == [204] * 3
    assert library.media.read(library.media.add(library.media.complete_upload(upload))) == long_video


def test_an_upload_is_there_also_where_the_transaction_that_began_it_is_rolled_back(
    library: Library,
) -> None:
    with suppress(ZeroDivisionError), library.transaction() as tx:
        upload = tx.media.begin_upload("a.jpg")
        assert post(upload, samples.image()).status == 204
        staged = tx.media.complete_upload(upload)
        tx.media.add(staged)
        raise ZeroDivisionError

    assert library.media.get_upload(upload).staged_id == staged.id
    assert library.media.add(staged).id == staged.id


def test_what_files_tell_is_removed_where_told(library: Library) -> None:
    upload = library.media.begin_upload("a.jpg")
    content = samples.image()
    commented = content[:2] + b"\xff\xfe\x00\x0asecrets!"[:12] + content[2:]
    post(upload, commented)

    item = library.media.add(library.media.complete_upload(upload, sanitize=True))

    assert b"secrets!" not in library.media.read(item)


# What is refused


def test_what_is_said_of_a_file_is_refused_before_it_is_sent(library: Library, app: Mindia) -> None:
    begin = library.media.begin_upload
    with pytest.raises(UnsupportedTypeError):
        begin("a.exe", content_type="application/x-msdownload")
    with pytest.raises(TypeMismatchError):
        begin("a.png", content_type="image/jpeg")
    with pytest.raises(TooLargeError):
        begin("a.png", file_size=app.settings.max_image_bytes + 1)
    with pytest.raises(TooLargeError):
        begin("a.png", file_size=101, max_bytes=100)
    assert begin("a.png", max_bytes=10**12).max_bytes == app.settings.max_image_bytes
    assert begin("a").max_bytes == app.settings.max_video_bytes


@pytest.mark.parametrize(
    "arguments",
    [
        {"expires_in": timedelta()}, {"expires_in": timedelta(days=8)}, {"max_bytes": 0}, {"file_size": 0},
        {"file_size": -1}, {"part_bytes": MIB}, {"max_bytes": True}, {"content_type": "x" * 101},
    ],
    ids=str,
)  # fmt: skip
def test_arguments_that_are_not_allowed_are_refused(library: Library, arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidError):
        library.media.begin_upload("a.jpg", **arguments)


@pytest.mark.parametrize("too_many", [1, 100_000])
def test_more_bytes_than_are_allowed_are_not_kept(
    library: Library, tenant: Tenant, storage: Storage, too_many: int
) -> None:
    upload = library.media.begin_upload("a.jpg", max_bytes=1000)

    answer = post(upload, bytes(1000 + too_many))

    assert (answer.status, answer.text) == (413, "too_large\n")
    assert listed(storage, tenant.s3_bucket) == {}
    with pytest.raises(UploadIncompleteError):
        library.media.complete_upload(upload)


@pytest.mark.parametrize("difference", [-1, 1])
def test_another_size_than_was_announced_is_not_kept(
    library: Library, tenant: Tenant, storage: Storage, difference: int, long_video: bytes
) -> None:
    content = samples.image()
    whole = library.media.begin_upload("a.jpg", file_size=len(content))
    assert post(whole, content + b"x" if difference > 0 else content[:-1]).status in (409, 413)
    parts = library.media.begin_upload("film.mp4", file_size=len(long_video), part_bytes=PART)
    url = parts.parts[2].url or ""
    assert send(url, method="PUT", body=bytes(1008 + difference)).status in (409, 413)

    assert listed(storage, tenant.s3_bucket) == {}


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"MZ\x90\x00" * 100, UnsupportedTypeError),
        (samples.image("PNG"), TypeMismatchError),
        (samples.image()[:200], MediaError),
        (b"", MediaError),
    ],
    ids=["program", "other type", "damaged", "empty"],
)
def test_bytes_of_the_wrong_type_are_refused_and_gone(
    library: Library, tenant: Tenant, storage: Storage, content: bytes, error: type[Exception]
) -> None:
    upload = library.media.begin_upload("a.jpg", content_type="image/jpeg")
    assert post(upload, content).status == 204

    with pytest.raises(error):
        library.media.complete_upload(upload)

    assert listed(storage, tenant.s3_bucket) == {}
    with pytest.raises(UploadClosedError):
        library.media.complete_upload(upload)
    assert post(upload, samples.image()).status == 409


def test_the_scan_of_the_host_sees_uploads(application_url: str, roles: Any, storage: Storage) -> None:
    def scan(*_: object) -> None:
        raise RejectedError("a virus")

    settings = attrs.evolve(SETTINGS, worker_role=roles.worker, isolate_parsers=False)
    with serving(application_url, storage, settings) as app:
        app._scan = scan
        app._make_context.keywords["scan"] = scan
        tenant = app.tenants.create("Acme")
        library = app.library(tenant)
        upload = library.media.begin_upload("a.jpg")
        post(upload, samples.image())
        with pytest.raises(RejectedError):
            library.media.complete_upload(upload)
    assert listed(storage, tenant.s3_bucket) == {}


def changed(url: str, **parts: str) -> str:
    split = urlsplit(url)
    path, query = split.path, split.query
    for old, new in parts.items():
        assert old in path + query
        path, query = path.replace(old, new), query.replace(old, new)
    return f"{split.scheme}://{split.netloc}{path}?{query}"


def test_a_url_that_was_changed_is_refused(app: Mindia, library: Library, storage: Storage, tenant: Tenant) -> None:
    other = app.library(app.tenants.create("Globex"))
    upload, theirs = library.media.begin_upload("a.jpg"), other.media.begin_upload("a.jpg")
    assert upload.url is not None
    body, headers = form({}, samples.image())
    item = library.media.add(samples.image())
    expires = upload.url.partition("expires=")[2].partition("&")[0]
    for url in (
        changed(upload.url, **{str(upload.id): str(theirs.id)}),
        changed(upload.url, **{str(library.tenant_id): str(other.tenant_id)}),
        changed(upload.url, **{expires: str(int(expires) + 1)}),
        changed(upload.url, whole="1"),
        upload.url[:-1] + ("0" if upload.url[-1] != "0" else "1"),
        upload.url.partition("?")[0],
        library.media.url(item),
    ):
        answer = send(url, method="POST", body=body, headers=headers)
        assert (answer.status, answer.text) == (403, "signature\n"), url
    assert set(listed(storage, tenant.s3_bucket)) == {item.s3_key}
    assert send(upload.url, method="GET", body=b"").status == 403


def test_an_upload_of_another_tenant_is_not_found(app: Mindia, library: Library) -> None:
    intruder = app.library(app.tenants.create("Globex"))
    upload = library.media.begin_upload("a.jpg")
    post(upload, samples.image())

    for call in (intruder.media.complete_upload, intruder.media.get_upload, intruder.media.abort_upload):
        with pytest.raises(NotFoundError):
            call(upload)

    assert library.media.complete_upload(upload).filename == "a.jpg"


def test_what_has_expired_takes_nothing_and_cannot_be_completed(
    library: Library, host: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    upload, late = library.media.begin_upload("a.jpg"), library.media.begin_upload("b.jpg")
    post(upload, samples.image())
    for each in (upload, late):
        expire(host, each, ago=timedelta(seconds=1))

    assert post(late, samples.image()).status == 410
    with pytest.raises(UploadExpiredError):
        library.media.complete_upload(upload)
    assert library.media.get_upload(late).url is None
    monkeypatch.setattr(
        "mindia.services.upload_urls.time.time", lambda: (datetime.now(UTC) + timedelta(hours=2)).timestamp()
    )
    with pytest.raises(SignatureError, match="expired"):
        upload_urls.verify(late.url or "", settings=library._context.settings)


def test_an_upload_is_completed_once(library: Library, tenant: Tenant, storage: Storage) -> None:
    upload = library.media.begin_upload("a.jpg")
    post(upload, samples.image())
    staged = library.media.complete_upload(upload)

    with pytest.raises(UploadClosedError):
        library.media.complete_upload(upload)
    with pytest.raises(UploadClosedError):
        library.media.abort_upload(upload)
    assert post(upload, samples.image()).status == 409

    assert set(listed(storage, tenant.s3_bucket)) == {f"originals/{staged.id}"}


@pytest.mark.parametrize("end", ["complete_upload", "abort_upload"])
@pytest.mark.parametrize(
    ("part_bytes", "moment"), [(4 * PART, "open:1"), (PART, "list:1"), (PART, "open:1"), (PART, "open:3")]
)
def test_what_another_call_ends_meanwhile_is_closed(
    library: Library, tenant: Tenant, storage: Storage, long_video: bytes,
    monkeypatch: pytest.MonkeyPatch, part_bytes: int, moment: str, end: str,
) -> None:  # fmt: skip
    upload = library.media.begin_upload("film.mp4", file_size=len(long_video), part_bytes=part_bytes)
    put_parts(upload, long_video) if upload.parts else post(upload, long_video)

    check_closed_meanwhile(library, upload, storage, moment, end, monkeypatch)

    assert len(listed(storage, tenant.s3_bucket)) == (end == "complete_upload")


def test_of_many_that_complete_it_at_once_one_does(library: Library, tenant: Tenant, storage: Storage) -> None:
    upload = library.media.begin_upload("a.jpg")
    post(upload, samples.image())

    def complete(_: int) -> object:
        try:
            return library.media.complete_upload(upload)
        except (UploadClosedError, UploadIncompleteError) as error:
            return error

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(complete, range(4)))

    (staged,) = [result for result in results if not isinstance(result, Exception)]
    assert set(listed(storage, tenant.s3_bucket)) == {f"originals/{staged.id}"}  # type: ignore[attr-defined]  # gathered as an object by the thread above


def test_an_aborted_upload_leaves_nothing_and_takes_nothing(library: Library, tenant: Tenant, storage: Storage) -> None:
    upload = library.media.begin_upload("a.jpg")
    post(upload, samples.image())

    library.media.abort_upload(upload)
    library.media.abort_upload(upload.id)

    assert listed(storage, tenant.s3_bucket) == {}
    assert post(upload, samples.image()).status == 409
    with pytest.raises(UploadClosedError):
        library.media.complete_upload(upload)
    assert listed(storage, tenant.s3_bucket) == {}


def test_a_tenant_that_is_not_served_uploads_nothing(
    app: Mindia, library: Library, tenant: Tenant, storage: Storage
) -> None:
    upload = library.media.begin_upload("a.jpg")
    app.tenants.suspend(tenant.id)

    assert post(upload, samples.image()).status == 403
    with pytest.raises(TenantInactiveError):
        library.media.begin_upload("b.jpg")
    with pytest.raises(TenantInactiveError):
        library.media.complete_upload(upload)
    assert listed(storage, tenant.s3_bucket) == {}


def test_without_an_address_nothing_begins(database_url: str, storage: Storage) -> None:
    for settings in (attrs.evolve(SETTINGS, public_url=None), attrs.evolve(SETTINGS, secret_key=None)):
        with mindia.connect(database_url, storage=storage, settings=settings) as app:
            library = app.library(app.tenants.create("Acme"))
            with pytest.raises(InvalidError, match="Settings"):
                library.media.begin_upload("a.jpg")


# What is left behind


def test_what_is_never_completed_is_swept(
    app: Mindia, library: Library, tenant: Tenant, storage: Storage, host: psycopg.Connection[Any], long_video: bytes
) -> None:
    young, old = (library.media.begin_upload("a.jpg") for _ in range(2))
    parts = library.media.begin_upload("film.mp4", file_size=len(long_video), part_bytes=PART)
    for upload in (young, old):
        post(upload, samples.image())
    put_parts(parts, long_video, numbers={2})
    expire(host, young, ago=timedelta(minutes=59))
    for upload in (old, parts):
        expire(host, upload, ago=timedelta(minutes=61))

    assert app.maintenance.remove_uploads(dry_run=True).found == 2
    report = app.maintenance.remove_uploads()

    assert (report.found, report.removed) == (2, 2)
    assert set(listed(storage, tenant.s3_bucket)) == {f"uploads/{young.id}/whole"}
    assert on_record(host, tenant) == 1
    with pytest.raises(NotFoundError):
        library.media.get_upload(old)
    assert app.maintenance.verify(tenant=tenant).is_clean


def test_a_completed_upload_is_forgotten_once_nobody_can_put_bytes_under_it_any_more(
    app: Mindia, library: Library, tenant: Tenant, host: psycopg.Connection[Any]
) -> None:
    upload = library.media.begin_upload("a.jpg")
    post(upload, samples.image())
    item = library.media.add(library.media.complete_upload(upload))
    assert on_record(host, tenant) == 1

    expire(host, upload, ago=timedelta(hours=2))
    app.maintenance.remove_uploads()

    assert on_record(host, tenant) == 0
    assert library.media.read(item) == samples.image()


def test_bytes_that_come_to_their_end_after_the_upload_has_are_removed(
    library: Library, tenant: Tenant, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = library.media.begin_upload("a.jpg")
    put = type(storage).put

    def put_and_abort(self: Any, *arguments: Any, **named: Any) -> None:
        put(self, *arguments, **named)
        monkeypatch.undo()
        library.media.abort_upload(upload)
        put(self, bucket=tenant.s3_bucket, key=f"uploads/{upload.id}/whole", **again())

    def again() -> dict[str, Any]:
        import io

        return {"source": io.BytesIO(b"content"), "content_type": "image/jpeg"}

    monkeypatch.setattr(type(storage), "put", put_and_abort)

    assert post(upload, samples.image()).status == 409
    assert listed(storage, tenant.s3_bucket) == {}


@pytest.mark.parametrize("cut_at", [0, 60, 700, -4])
def test_a_connection_that_is_cut_leaves_nothing(
    library: Library, tenant: Tenant, storage: Storage, cut_at: int
) -> None:
    upload = library.media.begin_upload("a.jpg")
    split = urlsplit(upload.url or "")
    body, headers = form({}, samples.image(width=400, height=400))
    head = f"POST {split.path}?{split.query} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    with socket.create_connection((split.hostname or "", split.port or 0), timeout=20) as connection:
        connection.sendall(head.encode() + b"\r\n" + body[:cut_at])
        connection.shutdown(socket.SHUT_WR)
        answer = connection.recv(4096)

    assert b" 409 " in answer.splitlines()[0]
    assert listed(storage, tenant.s3_bucket) == {}
    assert post(upload, samples.image()).status == 204, "it may be tried again"


def test_a_full_disk_is_said_and_the_upload_can_be_tried_again(
    library: Library, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = library.media.begin_upload("a.jpg")

    def full(*_: object, **__: object) -> None:
        raise StorageUnavailableError("no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(type(storage), "put", full)
        assert post(upload, samples.image()).status == 503
    assert post(upload, samples.image()).status == 204
    with monkeypatch.context() as patched:
        for name in {"put", "putting"}.intersection(dir(storage)):
            patched.setattr(type(storage), name, full)
        with pytest.raises(StorageError):
            library.media.complete_upload(upload)
    assert library.media.complete_upload(upload).file_size == len(samples.image())


# Forms


@pytest.mark.parametrize(
    "body",
    [
        b"", b"junk", b"--b\r\n", b"--b--\r\n",
        b'--b\r\nContent-Disposition: form-data; name="other"\r\n\r\nx\r\n--b--\r\n',
        b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nx\r\n'
        b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\ny\r\n--b--\r\n',
        b"".join(b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n' for _ in range(30)) + b"--b--\r\n",
        b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n' + bytes(100_000) + b"\r\n--b--\r\n",
        b"--b\r\n" + b"X: y\r\n" * 100 + b"\r\nx\r\n--b--\r\n",
        b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nno end',
    ],
    ids=[
        "empty", "junk", "begun", "no field", "no file", "two files", "many fields", "large field", "many headers",
        "no end",
    ],
)  # fmt: skip
def test_a_form_that_is_none_is_refused(library: Library, tenant: Tenant, storage: Storage, body: bytes) -> None:
    upload = library.media.begin_upload("a.jpg")
    headers = {"Content-Type": "multipart/form-data; boundary=b"}

    answer = send(upload.url or "", method="POST", body=body, headers=headers)

    assert answer.status in (400, 409)
    assert listed(storage, tenant.s3_bucket) == {}


@pytest.mark.parametrize("content_type", ["", "text/plain", "multipart/form-data", "multipart/form-data; boundary="])
def test_a_post_that_is_no_form_is_refused(library: Library, content_type: str) -> None:
    upload = library.media.begin_upload("a.jpg")

    answer = send(upload.url or "", method="POST", body=b"x", headers={"Content-Type": content_type})

    assert (answer.status, answer.text) == (400, "invalid\n")


def test_bytes_may_be_put_as_they_are(library: Library) -> None:
    upload = library.media.begin_upload("a.jpg")

    assert send(upload.url or "", method="PUT", body=samples.image()).status == 204

    assert library.media.complete_upload(upload).file_size == len(samples.image())


def test_scripts_of_the_sites_that_may_upload_do_so(library: Library) -> None:
    upload = library.media.begin_upload("a.jpg")
    url = upload.url or ""

    asked = send(url, method="OPTIONS", body=b"", headers={"Origin": "https://app.example"})
    assert asked.status == 204
    assert asked.headers["Access-Control-Allow-Origin"] == "https://app.example"
    assert asked.headers["Access-Control-Allow-Methods"] == "POST, PUT"
    other = send(url, method="OPTIONS", body=b"", headers={"Origin": "https://evil.example"})
    assert "Access-Control-Allow-Origin" not in other.headers
    assert post(upload, samples.image(), Origin="https://app.example").headers["Access-Control-Allow-Origin"]
    refused = post(upload, b"x" * (11 << 20), Origin="https://app.example")
    assert refused.headers["Access-Control-Allow-Origin"] == "https://app.example"
