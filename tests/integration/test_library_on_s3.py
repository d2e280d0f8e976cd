"""A library whose bytes are on S3 does all that one on a local disk does."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import psycopg
import pytest
from tests.conftest import Roles
from tests.integration.library_calls import SETTINGS
from tests.integration.test_streams import encode, get
from tests.s3.fixtures import new_bucket, storage_of
from tests.s3.proxy import Fault, S3Proxy
from tests.s3.radosgw import S3Server
from urllib3 import PoolManager

import mindia
from mindia import Audio, Disposition, Library, LocalStorage, Mindia, Resize, S3Storage, Tenant, Video
from mindia.errors import InvalidError, NotFoundError, StorageUnavailableError
from mindia.serving import MediaFiles
from mindia.storage._s3_errors import Place
from mindia.testing import samples
from mindia.testing.storage import listed, read


@pytest.fixture(scope="module", params=["a bucket for each", "one for all"])
def storage(s3_server: S3Server, request: pytest.FixtureRequest) -> S3Storage:
    shared: dict[str, Any] = {} if request.param == "a bucket for each" else {"bucket": new_bucket(), "prefix": "m/"}
    return storage_of(s3_server, **shared)


@pytest.fixture
def app(application_url: str, roles: Roles, storage: S3Storage) -> Iterator[Mindia]:
    settings = attrs.evolve(SETTINGS, worker_role=roles.worker)
    with mindia.connect(application_url, storage=storage, settings=settings) as app:
        yield app


@pytest.fixture
def tenant(app: Mindia) -> Tenant:
    return app.tenants.create("Acme")


@pytest.fixture
def library(app: Mindia, tenant: Tenant) -> Library:
    return app.library(tenant)


def head(storage: S3Storage, tenant: Tenant, key: str) -> Any:
    place = storage._place(tenant.s3_bucket, key)
    return storage._connection.client().head_object(Bucket=place.bucket, Key=place.key)


def test_media_go_in_and_come_out(library: Library, tenant: Tenant, storage: S3Storage, tmp_path: Path) -> None:
    content = samples.wav(seconds=40.0, channels=8)  # in parts
    assert len(content) > 8 << 20

    item = library.media.add(content, filename="größe.wav")
    staged = library.media.stage(samples.image(), filename="cat.jpg")
    other = library.media.add(staged)
    copy = library.media.copy(item)

    assert isinstance(item, Audio)
    assert library.media.read(copy) == content
    assert library.media.read(item, start=100, length=50) == content[100:150]
    with library.media.open(item) as file:
        file.seek(-10, 2)
        assert file.read() == content[-10:]
    assert library.media.save_to(other, tmp_path).read_bytes() == samples.image()
    assert set(listed(storage, tenant.s3_bucket)) == {item.s3_key, other.s3_key}
    found = head(storage, tenant, item.s3_key)
    assert found["ContentType"] == item.content_type
    assert found["ContentDisposition"].startswith("inline; ")
    assert "gr%C3%B6%C3%9Fe.wav" in found["ContentDisposition"]


def test_many_go_in_at_once(library: Library, tenant: Tenant, storage: S3Storage) -> None:
    sources = [samples.image(color=f"rgb({number}, 9, 9)") for number in range(24)]

    report = library.media.add_many(sources, concurrency=8)

    assert not report.failed
    assert len(listed(storage, tenant.s3_bucket)) == 24


def test_an_address_is_one_of_the_store_with_type_and_name(library: Library) -> None:
    item = library.media.add(samples.image(), filename="Katze & Maus.jpg")

    url = library.media.url(item, disposition=Disposition.ATTACHMENT, expires_in=timedelta(minutes=5))

    with PoolManager(retries=False) as http:
        answer = http.request("GET", url)
        assert (answer.status, answer.data) == (200, samples.image())
        assert answer.headers["Content-Type"] == "image/jpeg"
        assert answer.headers["Content-Disposition"].startswith('attachment; filename="Katze')
        assert http.request("GET", url.replace("X-Amz-Expires=300", "X-Amz-Expires=301")).status == 403
    with pytest.raises(InvalidError, match="7 days"):
        library.media.url(item, expires_in=timedelta(days=30))
    with pytest.raises(InvalidError, match="disposition"):
        library.media.url(item, disposition="other")


def test_pictures_are_made_once_and_have_an_address_of_the_store(
    app: Mindia, library: Library, tenant: Tenant, storage: S3Storage
) -> None:
    large = samples.image("PNG", width=900, height=600)
    item, sound = library.media.add(large, filename="Katze.png"), library.media.add(samples.wav(seconds=40.0))
    made = library.media.derive(item.id, Resize(40), format="jpeg")
    library.media.thumbnail(sound)

    assert library.media.derive(item.id, Resize(40), format="jpeg") == made
    with PoolManager(retries=False) as http:
        answer = http.request("GET", library.media.url(made))
    assert (answer.status, answer.data) == (200, library.media.read(made))
    assert answer.headers["Content-Type"] == "image/jpeg"
    assert 'filename="Katze.jpg"' in answer.headers["Content-Disposition"]
    assert app.maintenance.verify(tenant=tenant).is_clean
    library.media.delete_many([item, sound])
    app.maintenance.remove_deleted()
    app.maintenance.sweep_staged(older_than=timedelta())
    assert listed(storage, tenant.s3_bucket) == {}


def test_a_stream_plays_from_a_store_that_lets_nobody_in(
    app: Mindia, library: Library, tenant: Tenant, storage: S3Storage
) -> None:
    film = library.media.add(samples.video(), filename="film.mp4")
    encode(library, film)
    streamed = library.media.get(film.id, type=Video)
    files, url = MediaFiles(app), library.media.hls_url(streamed)
    assert streamed.hls_master_key is not None

    master = get(files, url).body.decode()
    variant = next(line for line in master.splitlines() if line and not line.startswith("#"))
    index = get(files, f"{url.rpartition('/')[0]}/{variant}").body.decode()
    (segment,) = (line for line in index.splitlines() if line and not line.startswith("#"))

    folder = f"{streamed.hls_master_key.rpartition('/')[0]}/{variant.rpartition('/')[0]}"
    with PoolManager(retries=False) as http:
        answer = http.request("GET", segment)
        assert (answer.status, answer.headers["Content-Type"]) == (200, "video/mp2t")
        assert answer.data == read(storage, tenant.s3_bucket, f"{folder}/segment_000.ts")
        assert http.request("GET", segment.partition("?")[0]).status == 403


def test_what_is_deleted_or_never_added_goes(app: Mindia, library: Library, tenant: Tenant, storage: S3Storage) -> None:
    kept, gone = library.media.add(samples.image(color="red")), library.media.add(samples.image(color="teal"))
    library.media.stage(samples.image(color="navy"))
    library.media.delete(gone)
    with suppress(ZeroDivisionError), library.transaction() as tx:
        tx.media.add(samples.wav(seconds=0.1), filename="a.wav")
        raise ZeroDivisionError

    app.maintenance.remove_deleted()
    app.maintenance.sweep_staged(older_than=timedelta())

    assert set(listed(storage, tenant.s3_bucket)) == {kept.s3_key}


def test_a_deleted_tenant_leaves_neither_objects_nor_bucket(
    app: Mindia, library: Library, tenant: Tenant, storage: S3Storage
) -> None:
    other = app.library(app.tenants.create("Globex"))
    item = other.media.add(samples.image())
    library.media.add_many([samples.image(), samples.pdf(["Invoice"])])
    upload = storage.begin_parts(tenant.s3_bucket, "originals/unfinished", content_type="video/mp4")
    assert upload

    app.tenants.delete(tenant.id)
    app.maintenance.remove_deleted_tenants(staged_older_than=timedelta())

    with pytest.raises(NotFoundError):
        app.tenants.get(tenant.id)
    assert listed(storage, tenant.s3_bucket) == {}
    place = storage._place(tenant.s3_bucket)
    client = storage._connection.client()
    if storage._shared is None:
        assert place.bucket not in {each["Name"] for each in client.list_buckets()["Buckets"]}
    else:
        assert "Uploads" not in client.list_multipart_uploads(Bucket=place.bucket, Prefix=place.key)
    assert other.media.read(item) == samples.image()


def test_a_tenant_moves_from_s3_to_a_disk_and_back(
    app: Mindia, library: Library, tenant: Tenant, application_url: str, roles: Roles, tmp_path: Path
) -> None:
    item = library.media.add(samples.image(), filename="cat.jpg")
    small = library.media.derive(item.id, Resize(20))
    film = library.media.add(samples.video(seconds=1), filename="film.mp4")
    encode(library, film)
    stream = library.media.derivatives(film)[0]
    app.tenants.export(tenant.id, tmp_path / "one.zip")
    local = LocalStorage(tmp_path / "objects")
    settings = attrs.evolve(SETTINGS, worker_role=roles.worker)
    with mindia.connect(application_url, storage=local, settings=settings) as elsewhere:
        moved = elsewhere.tenants.import_archive(tmp_path / "one.zip", name="Moved", keep_ids=False).tenant
        elsewhere.tenants.export(moved.id, tmp_path / "two.zip")
    back = app.tenants.import_archive(tmp_path / "two.zip", name="Back", keep_ids=False).tenant

    imported = app.library(back).media
    again, film_again = imported.iterate(order="uploaded_at")
    assert imported.read(imported.derivatives(again)[0]) == library.media.read(small)
    (streamed,) = imported.derivatives(film_again)
    assert imported.get(film_again.id, type=Video).hls_master_key == streamed.s3_key
    assert (streamed.file_count, streamed.file_size) == (stream.file_count, stream.file_size)
    assert stream.s3_prefix is not None
    assert streamed.s3_prefix is not None
    files = [
        [read(app.storage, owner.s3_bucket, key) for key in listed(app.storage, owner.s3_bucket, prefix=prefix)]
        for owner, prefix in ((tenant, stream.s3_prefix), (back, streamed.s3_prefix))
    ]
    assert files[0] == files[1]
    assert (again.sha256, again.filename) == (item.sha256, "cat.jpg")
    assert hashlib.sha256(app.library(back).media.read(again)).hexdigest() == item.sha256
    assert len(listed(local, moved.s3_bucket)) == 3 + stream.file_count


def test_a_bucket_that_is_there_is_used(app: Mindia, s3_server: S3Server) -> None:
    bucket = new_bucket()
    storage_of(s3_server)._connection.client().create_bucket(Bucket=bucket)

    tenant = app.tenants.create("Acme", s3_bucket=bucket)
    item = app.library(tenant).media.add(samples.image())

    assert read(app.storage, bucket, item.s3_key) == samples.image()


def test_a_bucket_of_another_region_is_made_there_or_where_the_server_is(
    app: Mindia, storage: S3Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str | None] = []
    make = storage._connection.make_bucket

    def note(place: Place, region: str | None) -> None:
        asked.append(region)
        make(place, region)

    monkeypatch.setattr(storage._connection, "make_bucket", note)
    tenant = app.tenants.create("Acme", s3_region="eu-west-3")

    app.library(tenant).media.add(samples.image())

    if storage._shared is None:
        assert asked == ["eu-west-3"]
    assert app.tenants.get(tenant.id).s3_region == "eu-west-3"
    assert app.tenants.create("Other").s3_region == "us-east-1"


def test_a_store_that_fails_is_an_error_that_may_pass_and_no_row(
    application_url: str, database_url: str, roles: Roles, s3_server: S3Server
) -> None:
    settings = attrs.evolve(SETTINGS, worker_role=roles.worker)
    with (
        S3Proxy(s3_server.endpoint) as proxy,
        mindia.connect(
            application_url,
            storage=storage_of(s3_server, endpoint_url=proxy.endpoint, max_attempts=1),
            settings=settings,
        ) as app,
        psycopg.connect(database_url, autocommit=True) as host,
    ):
        library = app.library(app.tenants.create("Acme"))
        item = library.media.add(samples.image())
        proxy.faults = lambda _: Fault.INTERNAL_ERROR

        with pytest.raises(StorageUnavailableError) as raised:
            library.media.add(samples.image(color="red"))
        assert raised.value.retryable
        with pytest.raises(StorageUnavailableError):
            library.media.read(item)
        library.media.delete(item)
        app.maintenance.remove_deleted()
        ((attempts, error),) = host.execute(
            "select attempts, last_error from mindia.deleted_objects where tenant_id = %s", (library.tenant_id,)
        ).fetchall()

    assert attempts == 1
    assert "InternalError" in str(error)
