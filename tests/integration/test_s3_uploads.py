"""Clients upload to the object store itself: it is held to what was allowed, and the host looks at what has come."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import attrs
import psycopg
import pytest
from tests.integration.library_calls import SETTINGS
from tests.integration.upload_clients import check_closed_meanwhile, form, post, put_parts, send
from tests.s3.fixtures import new_bucket, storage_of
from tests.s3.radosgw import S3Server

import mindia
from mindia import Image, Library, LocalStorage, Mindia, MovingStorage, S3Storage, Tenant, Upload
from mindia.errors import (
    TypeMismatchError,
    UnsupportedTypeError,
    UploadClosedError,
    UploadIncompleteError,
)
from mindia.storage.base import DirectStorage
from mindia.testing import samples
from mindia.testing.storage import listed

PART = 5 << 20
OK = (200, 204)


@pytest.fixture(params=["a bucket each", "one bucket"])
def storage(s3_server: S3Server, request: pytest.FixtureRequest) -> S3Storage:
    shared = {} if request.param == "a bucket each" else {"bucket": new_bucket(), "prefix": "média/"}
    return storage_of(s3_server, **shared)


@pytest.fixture
def app(application_url: str, roles: Any, storage: S3Storage) -> Iterator[Mindia]:
    settings = attrs.evolve(SETTINGS, worker_role=roles.worker, isolate_parsers=False, public_url=None)
    with mindia.connect(application_url, storage=storage, settings=settings) as app:
        yield app


@pytest.fixture
def long_video() -> bytes:
    """A video that has three parts."""
    video = samples.video()
    rest = 2 * PART + 1000 - len(video)
    return video + rest.to_bytes(4, "big") + b"free" + bytes(rest - 8)


def test_a_form_of_a_browser_becomes_an_item(library: Library, tenant: Tenant, storage: S3Storage) -> None:
    upload = library.media.begin_upload("harbour at night.jpg")
    assert post(upload, samples.image()).status in OK
    assert library.media.get_upload(upload.id).received_bytes == len(samples.image())

    item = library.media.add(library.media.complete_upload(upload.id))

    assert isinstance(item, Image)
    assert (item.filename, item.content_type) == ("harbour at night.jpg", "image/jpeg")
    assert library.media.read(item) == samples.image()
    assert set(listed(storage, tenant.s3_bucket)) == {item.s3_key}
    with pytest.raises(UploadClosedError):
        library.media.complete_upload(upload)


def test_a_file_comes_in_parts_and_goes_on_after_a_break(
    library: Library, tenant: Tenant, storage: S3Storage, long_video: bytes
) -> None:
    upload = library.media.begin_upload("film.mp4", file_size=len(long_video), part_bytes=PART)
    assert {answer.status for answer in put_parts(upload, long_video, numbers={3, 1})} == {200}
    with pytest.raises(UploadIncompleteError, match="missing: 2"):
        library.media.complete_upload(upload)

    again = library.media.get_upload(upload.id)
    assert [part.is_received for part in again.parts] == [True, False, True]
    assert again.received_bytes == len(long_video) - PART
    assert {answer.status for answer in put_parts(again, long_video)} == {200}
    item = library.media.add(library.media.complete_upload(upload.id))

    assert library.media.read(item) == long_video
    assert set(listed(storage, tenant.s3_bucket)) == {item.s3_key}


@pytest.mark.parametrize("end", ["complete_upload", "abort_upload"])
@pytest.mark.parametrize(("part_bytes", "moment"), [(4 * PART, "open:1"), (PART, "uploaded_parts:1"), (PART, "open:1")])
def test_what_another_call_ends_meanwhile_is_closed(
    library: Library, tenant: Tenant, storage: S3Storage, long_video: bytes,
    monkeypatch: pytest.MonkeyPatch, part_bytes: int, moment: str, end: str,
) -> None:  # fmt: skip
    upload = library.media.begin_upload("film.mp4", file_size=len(long_video), part_bytes=part_bytes)
    put_parts(upload, long_video) if upload.parts else post(upload, long_video)

    check_closed_meanwhile(library, upload, storage, moment, end, monkeypatch)

    assert len(listed(storage, tenant.s3_bucket)) == (end == "complete_upload")


def test_the_store_takes_no_more_than_was_allowed(
    library: Library, tenant: Tenant, storage: S3Storage, long_video: bytes
) -> None:
    upload = library.media.begin_upload("a.jpg", max_bytes=1000)
    assert post(upload, bytes(1001)).status == 400
    parts = library.media.begin_upload("film.mp4", file_size=len(long_video), part_bytes=PART)
    url = parts.parts[2].url or ""
    for size in (999, 1001):
        assert send(url, method="PUT", body=bytes(size)).status in (400, 403)

    assert listed(storage, tenant.s3_bucket) == {}


@pytest.mark.parametrize("field", ["key", "Content-Type", "policy"])
def test_a_form_that_was_changed_is_refused(
    app: Mindia, library: Library, tenant: Tenant, storage: S3Storage, field: str
) -> None:
    theirs = app.library(app.tenants.create("Globex")).media.begin_upload("a.jpg")
    upload = library.media.begin_upload("a.jpg")
    fields = dict(upload.fields)
    (name,) = (each for each in fields if each.lower() == field.lower())
    fields[name] = theirs.fields[name] if field != "Content-Type" else "text/html"
    body, headers = form(fields, samples.image())

    assert send(upload.url or "", method="POST", body=body, headers=headers).status in (400, 403)
    assert listed(storage, tenant.s3_bucket) == {}


def test_an_address_of_a_part_that_was_changed_is_refused(library: Library, long_video: bytes) -> None:
    upload = library.media.begin_upload("film.mp4", file_size=len(long_video), part_bytes=PART)
    url = upload.parts[0].url or ""

    for changed in (url.replace("partNumber=1", "partNumber=2"), url[:-1] + ("0" if url[-1] != "0" else "1")):
        assert changed != url
        assert send(changed, method="PUT", body=bytes(PART)).status == 403


@pytest.mark.parametrize(
    ("content", "error"), [(b"MZ\x90" * 400, UnsupportedTypeError), (samples.image("PNG"), TypeMismatchError)]
)
def test_what_has_come_is_looked_at_and_gone_where_it_is_refused(
    library: Library, tenant: Tenant, storage: S3Storage, content: bytes, error: type[Exception]
) -> None:
    upload = library.media.begin_upload("a.jpg", content_type="image/jpeg")
    assert post(upload, content).status in OK
    with pytest.raises(error):
        library.media.complete_upload(upload)
    assert listed(storage, tenant.s3_bucket) == {}


def test_what_is_not_completed_is_swept_with_the_parts_that_have_come(
    app: Mindia,
    library: Library,
    tenant: Tenant,
    storage: S3Storage,
    host: psycopg.Connection[Any],
    long_video: bytes,
) -> None:
    whole = library.media.begin_upload("a.jpg")
    parts = library.media.begin_upload("film.mp4", file_size=len(long_video), part_bytes=PART)
    post(whole, samples.image())
    put_parts(parts, long_video, numbers={1})
    aborted: Upload = library.media.begin_upload("film.mp4", file_size=len(long_video), part_bytes=PART)
    put_parts(aborted, long_video, numbers={1})
    library.media.abort_upload(aborted)
    host.execute("update mindia.uploads set sweep_at = now() - interval '1 day' where tenant_id = %s", (tenant.id,))
    host.commit()

    assert app.maintenance.remove_uploads().removed >= 3

    assert listed(storage, tenant.s3_bucket) == {}
    assert _unfinished(storage, tenant) == []


def _unfinished(storage: S3Storage, tenant: Tenant) -> list[Any]:
    place = storage._place(tenant.s3_bucket)
    client = storage._connection.client()
    return list(client.list_multipart_uploads(Bucket=place.bucket).get("Uploads", []))


def test_an_upload_lasts_as_long_as_it_was_given(library: Library) -> None:
    upload = library.media.begin_upload("a.jpg", expires_in=timedelta(days=7))
    assert post(upload, samples.image()).status in OK
    assert library.media.complete_upload(upload).file_size == len(samples.image())


def test_a_library_moves_to_the_store_while_clients_upload(
    application_url: str, roles: Any, storage: S3Storage, tmp_path: Any
) -> None:
    old = LocalStorage(tmp_path / "old")
    settings = attrs.evolve(SETTINGS, worker_role=roles.worker, isolate_parsers=False)
    with mindia.connect(application_url, storage=old, settings=settings) as app:
        tenant = app.tenants.create("Acme")
        kept = [app.library(tenant).media.add(samples.image(), filename=f"{number}.jpg") for number in range(5)]

    moving = MovingStorage(old, storage)
    assert isinstance(moving, DirectStorage)
    with mindia.connect(application_url, storage=moving, settings=settings) as app:
        library = app.library(tenant)
        upload = library.media.begin_upload("uploaded.jpg")
        assert upload.fields, "it goes to the new store itself"
        assert post(upload, samples.image()).status in OK
        report = app.maintenance.copy_objects(old, storage, tenant=tenant)
        assert (report.copied, report.is_complete) == (5, True)
        uploaded = library.media.add(library.media.complete_upload(upload))

    with mindia.connect(application_url, storage=storage, settings=settings) as app:
        library = app.library(tenant)
        assert app.tenants.get(tenant.id).s3_region == storage.region
        assert [library.media.read(item) for item in (*kept, uploaded)] == [samples.image()] * 6
        assert app.maintenance.verify(tenant=tenant).is_clean
