"""A tenant that is imported is the one that was exported: all of it, or nothing."""

from __future__ import annotations

import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

import attrs
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.conftest import Roles, database
from tests.corpus.odd_documents import DOCUMENTS
from tests.corpus.odd_images import IMAGES
from tests.corpus.odd_names import ODD_NAMES
from tests.faults.proxy import Moment, Proxy, Words
from tests.integration.archives import Parts, installation, media_of, plain, presets_of, users_of
from tests.integration.library_calls import PASSWORD, SETTINGS
from tests.integration.media_rows import Host, four_kinds, rows, sweep_all
from tests.integration.shared_bytes import check_counts, check_every_item_reads, counted

import mindia
from mindia import (
    Document,
    Grayscale,
    Image,
    Library,
    LocalStorage,
    Location,
    Media,
    MediaInput,
    MediaKind,
    MediaLimits,
    Mindia,
    Progress,
    Quota,
    Resize,
    Settings,
    Tenant,
    TenantStatus,
    UserRole,
    Watermark,
)
from mindia.errors import (
    AlreadyExistsError,
    ArchiveError,
    AuthenticationError,
    ConflictError,
    DatabaseUnavailableError,
    InvalidError,
    NotFoundError,
    QuotaExceededError,
    RejectedError,
    TenantInactiveError,
    TooLargeError,
)
from mindia.services import media_import
from mindia.testing import samples
from mindia.testing.storage import listed

KEEPING = attrs.evolve(SETTINGS, keep_location=True)
QUICK = attrs.evolve(KEEPING, isolate_parsers=False)
LISBON = Location(latitude=38.7, longitude=-9.1, altitude=12.0)


@pytest.fixture
def app(application_url: str, roles: Roles, storage: LocalStorage) -> Iterator[Mindia]:
    with mindia.connect(
        application_url, storage=storage, settings=attrs.evolve(KEEPING, worker_role=roles.worker)
    ) as app:
        yield app


@pytest.fixture
def elsewhere(fresh_database_url: str, roles: Roles, tmp_path: Path) -> Iterator[Mindia]:
    """Another installation, with a database and an object store of its own."""
    with installation(fresh_database_url, roles, tmp_path / "elsewhere", settings=KEEPING) as elsewhere:
        yield elsewhere


@pytest.fixture
def there(fresh_database_url: str) -> Iterator[Host]:
    """One who sees all rows of the other installation."""
    with psycopg.connect(fresh_database_url) as connection:
        yield connection


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "acme.zip"


def changed(path: Path, change: Callable[[Parts], object]) -> Path:
    """Write an archive like another one, with something changed, and return where."""
    parts = Parts.of(path)
    change(parts)
    other = path.with_name("changed.zip")
    other.write_bytes(parts.seal().build())
    return other


def with_ids(items: list[Media], ids: Mapping[UUID, UUID]) -> list[Media]:
    return [attrs.evolve(item, id=ids[item.id]) for item in items]


def found(library: Library, query: str) -> list[tuple[UUID, float | None, float | None]]:
    return [(each.media.id, each.text_score, each.similarity) for each in library.search(query)]


def _fill(app: Mindia, library: Library) -> None:
    """Add all that a tenant can have, out of the ordinary where that is possible."""
    image, _, _, document = four_kinds(library)
    library.media.add(
        samples.image("PNG", camera="Leica M3", taken_at=datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC), location=LISBON),
        filename="IMG_catOn-windowsill2.png",
        description="On the windowsill\n\t窓 🐈‍⬛ \x01",
        metadata={
            "null": None, "true": True, "false": False, "whole": -(10**17), "float": 0.1, "large": 1e23, "empty": {},
            "text": "猫\n\"'\\", "list": [1, [2, {"three": 3}], None], "object": {"a": {"b": []}}, " key é ": "",
        },
    )  # fmt: skip
    library.media.add(
        samples.audio(title="Blue in Green", artist="Miles Davis", album="Kind of Blue"), filename="blue.mp3"
    )
    library.media.add(samples.pdf(["Invoice 4711", "Second page"], title="Rechnung für März"), filename="4711.pdf")
    library.media.add(
        samples.image(camera="Nikon", taken_at=datetime(2020, 1, 2, 3, 4, 5), location=LISBON),  # noqa: DTZ001 - as cameras have it
        filename="sanitized.jpg",
        sanitize=True,
    )
    library.media.copy(image, filename="copy.jpg", description="A copy", metadata={"copy": 1})
    library.media.copy(document, filename="copy.pdf")
    library.media.add(samples.image(), filename="stored_again.jpg")
    library.media.add(
        samples.wav(seconds=0.2), filename="soon.wav", expires_at=datetime.now(UTC) + timedelta(days=2, microseconds=7)
    )
    for name, _ in ODD_NAMES.values():
        library.media.add(samples.image(), filename=name, on_duplicate="link")
    library.media.update(image, filename="renamed.jpg", description="Changed since")
    library.users.create("ann@example.org", password=PASSWORD, role=UserRole.ADMIN)
    library.users.create("Bob.Ü@Example.org", role=UserRole.VIEWER)
    library.users.deactivate(library.users.create("gone@example.org", password=PASSWORD).id)
    library.users.authenticate("ann@example.org", PASSWORD)
    library.presets.create("z", Resize(300), Watermark(image.id), format="avif", quality=70)
    library.presets.create("a-sketch", Grayscale(), preset="z")
    library.presets.create("as-it-is")
    library.presets.update("z", Resize(30), Watermark(image.id), format="avif", quality=70)
    app.tenants.set_limits(library.tenant_id, MediaLimits(max_document_pages=7, max_video_seconds=60.5))
    app.tenants.set_quota(library.tenant_id, Quota(max_items=500))


def test_a_tenant_arrives_in_another_installation_as_it_was(
    app: Mindia, library: Library, tenant: Tenant, elsewhere: Mindia, path: Path
) -> None:
    _fill(app, library)
    app.tenants.export(tenant.id, path)

    report = elsewhere.tenants.import_archive(path)

    imported = elsewhere.library(report.tenant)
    assert report.tenant.id != tenant.id
    assert (report.tenant.name, report.tenant.status) == ("Acme", TenantStatus.ACTIVE)
    assert report.tenant == elsewhere.tenants.get(report.tenant.id)
    assert report.tenant.limits == app.tenants.get(tenant.id).limits
    assert imported.usage() == library.usage()
    assert media_of(imported) == media_of(library)
    assert {type(item) for item in media_of(imported)} == {mindia.Image, mindia.Video, mindia.Audio, mindia.Document}
    assert users_of(imported) == users_of(library)
    assert presets_of(imported) == presets_of(library)
    assert (report.media_count, report.user_count, report.preset_count) == (len(media_of(library)), 3, 3)
    assert (report.expired, report.media_ids, report.user_ids) == ((), {}, {})
    for item in check_every_item_reads(imported):
        assert imported.media.read(item) == library.media.read(item.id)


def test_what_is_found_by_word_and_by_vector_is_the_same(
    app: Mindia, library: Library, tenant: Tenant, elsewhere: Mindia, path: Path
) -> None:
    _fill(app, library)
    app.tenants.export(tenant.id, path)
    imported = elsewhere.library(elsewhere.tenants.import_archive(path).tenant)
    queries = ["4711", "windowsill", "miles davis", "changed", "copy", "leica", "猫", "rechnung", "page"]
    by_word = {query: found(library, query) for query in queries}
    assert all(by_word.values())

    assert {query: found(imported, query) for query in queries} == by_word
    app.run_until_idle()
    elsewhere.run_until_idle()
    by_both = {query: found(library, query) for query in queries}
    assert {query: found(imported, query) for query in queries} == by_both
    assert any(similarity is not None for results in by_both.values() for _, _, similarity in results)


def test_what_was_imported_gives_the_same_archive_again(
    app: Mindia, library: Library, tenant: Tenant, elsewhere: Mindia, path: Path
) -> None:
    _fill(app, library)
    app.tenants.export(tenant.id, path)
    report = elsewhere.tenants.import_archive(path)

    again = elsewhere.tenants.export(report.tenant.id, path.with_name("again.zip"))

    assert again.path.read_bytes() == path.read_bytes()


def test_odd_files_arrive_as_they_were(
    app: Mindia, library: Library, tenant: Tenant, elsewhere: Mindia, path: Path
) -> None:
    odd_files = (IMAGES | DOCUMENTS).values()
    added = library.media.add_many([MediaInput(odd.make(), filename=odd.filename) for odd in odd_files])
    assert not added.failed
    app.tenants.export(tenant.id, path)

    report = elsewhere.tenants.import_archive(path)

    assert media_of(elsewhere.library(report.tenant)) == media_of(library)


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


@attrs.frozen
class Said:
    """What is said about an item."""

    filename: str
    description: str
    metadata: dict[str, Any]
    on_duplicate: str
    expires_at: datetime | None


said = st.builds(
    Said,
    texts,
    texts,
    st.dictionaries(texts.filter(bool), values, max_size=4),
    st.sampled_from(["store", "link"]),
    st.none() | st.datetimes(datetime(2100, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC)),  # noqa: DTZ001 - the zone is beside
)  # fmt: skip


@pytest.fixture(scope="module")
def both(
    application_url: str, server_url: str, template: str, roles: Roles, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Mindia, Mindia]]:
    """Two installations for many tenants, with parsers in the process itself."""
    folder = tmp_path_factory.mktemp("both")
    here = attrs.evolve(QUICK, worker_role=roles.worker)
    with (
        database(server_url, template=template) as url,
        mindia.connect(application_url, storage=LocalStorage(folder / "here"), settings=here) as app,
        installation(url, roles, folder / "there", settings=QUICK) as other,
    ):
        yield app, other


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(items=st.lists(said, max_size=6))
def test_whatever_is_said_about_items_arrives_as_it_was(
    both: tuple[Mindia, Mindia], tmp_path: Path, items: list[Said]
) -> None:
    app, elsewhere = both
    library = app.library(app.tenants.create("Acme"))
    for number, each in enumerate(items):
        content = samples.image(width=16 + number % 2, height=16)
        try:
            library.media.add(content, **attrs.asdict(each, recurse=False))
        except InvalidError:
            continue  # such as metadata that are too long, or the name of another type
    path = tmp_path / "acme.zip"
    app.tenants.export(library.tenant_id, path)

    imported = elsewhere.library(elsewhere.tenants.import_archive(path).tenant)

    assert media_of(imported) == media_of(library)
    check_every_item_reads(imported)
    again = elsewhere.tenants.export(imported.tenant_id, tmp_path / "again.zip")
    assert again.path.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("limit", ["ZIP64_LIMIT", "ZIP_FILECOUNT_LIMIT"])
def test_an_archive_that_is_large_is_one_of_zip64_and_arrives_as_well(
    app: Mindia, library: Library, tenant: Tenant, elsewhere: Mindia, path: Path, monkeypatch: pytest.MonkeyPatch,
    limit: str,
) -> None:  # fmt: skip
    items = four_kinds(library)
    monkeypatch.setattr(zipfile, limit, 3)  # instead of 2 GiB, and of 65,535 members
    app.tenants.export(tenant.id, path)
    assert b"PK\6\6" in path.read_bytes()

    report = elsewhere.tenants.import_archive(path)

    assert media_of(elsewhere.library(report.tenant)) == list(map(plain, items))
    check_every_item_reads(elsewhere.library(report.tenant))


def test_items_that_shared_their_bytes_share_them_again_and_others_do_not(
    library: Library, app: Mindia, tenant: Tenant, elsewhere: Mindia, there: Host, path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(media_import, "_BATCH", 2)
    first = library.media.add(samples.image(), filename="first.jpg")
    library.media.add(samples.image(), filename="alone.jpg")
    copies = [library.media.copy(first, filename=f"{number}.jpg") for number in range(4)]
    library.media.delete(first)  # whose bytes the others have still
    app.tenants.export(tenant.id, path)

    report = elsewhere.tenants.import_archive(path)

    imported = elsewhere.library(report.tenant)
    items = {item.filename: item for item in imported.media.iterate()}
    assert len(items) == 5
    assert {items[copy.filename].s3_key for copy in copies} == {f"originals/{copies[0].id}"}
    assert items["alone.jpg"].s3_key == f"originals/{items['alone.jpg'].id}"
    assert counted(there, imported) == {f"originals/{copies[0].id}": 4}
    check_counts(there, imported)
    imported.media.delete_many(items[copy.filename] for copy in copies)
    sweep_all(elsewhere)
    assert set(listed(elsewhere.storage, report.tenant.s3_bucket)) == {items["alone.jpg"].s3_key}


def test_items_have_tasks_that_embed_them_and_nothing_else_is_told_of_them(
    app: Mindia, library: Library, tenant: Tenant, elsewhere: Mindia, there: Host, path: Path
) -> None:
    items = four_kinds(library)
    library.api_keys.issue("CI", role="viewer")
    app.tenants.export(tenant.id, path)

    imported = elsewhere.library(elsewhere.tenants.import_archive(path).tenant)

    assert rows(there, imported, "tasks", "webhook_events", "api_keys", "staged_objects", "deleted_objects") == {
        "tasks": len(items)
    }
    assert elsewhere.run_until_idle().completed == len(items)
    assert rows(there, imported, "embeddings") == {"embeddings": len(items)}


def test_users_log_in_with_the_passwords_that_they_had(
    app: Mindia, library: Library, tenant: Tenant, elsewhere: Mindia, path: Path
) -> None:
    _fill(app, library)
    app.tenants.export(tenant.id, path)

    imported = elsewhere.library(elsewhere.tenants.import_archive(path).tenant)

    ann = imported.users.authenticate("ANN@example.org", PASSWORD)
    assert ann.id == library.users.by_email("ann@example.org").id
    elsewhere.library(imported.tenant_id, user=ann).users.create("new@example.org")  # she is an admin
    for address in ("Bob.Ü@Example.org", "gone@example.org"):
        with pytest.raises(AuthenticationError):
            imported.users.authenticate(address, PASSWORD)


def test_the_same_database_takes_it_with_new_ids_and_the_report_tells_which(
    app: Mindia, library: Library, tenant: Tenant, host: Host, path: Path
) -> None:
    _fill(app, library)
    before = media_of(library)
    app.tenants.export(tenant.id, path)

    report = app.tenants.import_archive(path, keep_ids=False)

    imported = app.library(report.tenant)
    assert media_of(imported) == with_ids(before, report.media_ids)
    assert not set(report.media_ids) & set(report.media_ids.values())
    assert all(new.version == 7 for new in report.media_ids.values())
    assert users_of(imported) == [attrs.evolve(user, id=report.user_ids[user.id]) for user in users_of(library)]
    image = next(item for item in media_of(library) if item.filename == "renamed.jpg")
    assert imported.presets.get("z").transformation.watermarks == (report.media_ids[image.id],)
    assert [preset.transformation.with_watermarks(report.media_ids) for preset in presets_of(library)] == [
        preset.transformation for preset in presets_of(imported)
    ]
    check_every_item_reads(imported)
    check_counts(host, imported)
    assert media_of(library) == before


@pytest.mark.parametrize("keep_ids", [True, False])
def test_a_picture_is_made_by_a_preset_that_goes_on_from_one_with_a_watermark(
    app: Mindia, library: Library, tenant: Tenant, elsewhere: Mindia, path: Path, *, keep_ids: bool
) -> None:
    picture = library.media.add(samples.image(), filename="cat.jpg")
    mark = library.media.add(samples.image("PNG", color="red"), filename="mark.png")
    library.presets.create("marked", Resize(32), Watermark(mark.id, opacity=1.0))
    library.presets.create("gray-marked", Grayscale(), preset="marked")
    made = library.media.read(library.media.derive(picture.id, preset="gray-marked"))
    app.tenants.export(tenant.id, path)

    report = elsewhere.tenants.import_archive(path, keep_ids=keep_ids)

    imported = elsewhere.library(report.tenant)
    again = imported.media.derive(report.media_ids.get(picture.id, picture.id), preset="gray-marked")
    assert imported.media.read(again) == made
    with pytest.raises(ConflictError, match="goes on from 'marked'"):
        imported.presets.delete("marked")


@pytest.mark.parametrize("keep_ids", [True, False])
def test_a_preset_whose_watermark_is_gone_stays_as_it_was(
    app: Mindia, library: Library, tenant: Tenant, elsewhere: Mindia, path: Path, *, keep_ids: bool
) -> None:
    picture = library.media.add(samples.image(), filename="cat.jpg")
    mark = library.media.add(samples.image("PNG", color="red"), filename="mark.png")
    library.presets.create("marked", Watermark(mark.id))
    library.media.delete(mark)
    app.tenants.export(tenant.id, path)

    report = elsewhere.tenants.import_archive(path, keep_ids=keep_ids)

    imported = elsewhere.library(report.tenant)
    assert presets_of(imported) == presets_of(library)
    for each, item in ((library, picture.id), (imported, report.media_ids.get(picture.id, picture.id))):
        with pytest.raises(NotFoundError, match=f"there is no image {mark.id} for a watermark"):
            each.media.derive(item, preset="marked")


def test_presets_that_do_too_much_together_arrive_as_they_were(
    app: Mindia, library: Library, tenant: Tenant, elsewhere: Mindia, path: Path
) -> None:
    library.presets.create("a", *[Grayscale()] * 20)
    library.presets.create("b", *[Grayscale()] * 10, preset="a")
    library.presets.update("a", *[Grayscale()] * 21)  # so that there is no picture of b any more
    app.tenants.export(tenant.id, path)

    imported = elsewhere.library(elsewhere.tenants.import_archive(path).tenant)

    assert presets_of(imported) == presets_of(library)


def test_an_archive_of_the_first_version_has_no_presets_and_arrives_as_before(
    app: Mindia, library: Library, tenant: Tenant, elsewhere: Mindia, path: Path
) -> None:
    _fill(app, library)
    app.tenants.export(tenant.id, path)

    report = elsewhere.tenants.import_archive(changed(path, Parts.set_first_version))

    imported = elsewhere.library(report.tenant)
    assert media_of(imported) == media_of(library)
    assert users_of(imported) == users_of(library)
    assert (report.preset_count, presets_of(imported)) == (0, [])


def test_ids_that_are_taken_are_refused_before_anything_is_made(
    app: Mindia, library: Library, tenant: Tenant, path: Path, storage: LocalStorage
) -> None:
    item = library.media.add(samples.image())
    app.tenants.export(tenant.id, path)
    tenants = list(app.tenants.list())

    with pytest.raises(AlreadyExistsError, match=f"a media item {item.id} in this database already.*keep_ids=False"):
        app.tenants.import_archive(path)
    library.media.delete(item)
    user = library.users.create("ann@example.org")
    app.tenants.export(tenant.id, path)
    with pytest.raises(AlreadyExistsError, match=f"a user {user.id} in this database already.*keep_ids=False"):
        app.tenants.import_archive(path)

    assert list(app.tenants.list()) == tenants
    assert {each.name for each in storage.root.iterdir()} == {tenant.s3_bucket}


def test_ids_stay_free_for_the_tenant_itself_once_it_was_removed(
    app: Mindia, library: Library, tenant: Tenant, path: Path
) -> None:
    items = four_kinds(library)
    app.tenants.export(tenant.id, path)
    app.tenants.delete(tenant.id)
    app.maintenance.remove_deleted_tenants(staged_older_than=timedelta())

    report = app.tenants.import_archive(path, s3_bucket=tenant.s3_bucket)

    imported = app.library(report.tenant)
    assert media_of(imported) == list(map(plain, items))
    check_every_item_reads(imported)


def test_ids_that_are_taken_meanwhile_are_refused_as_well(
    app: Mindia, library: Library, tenant: Tenant, elsewhere: Mindia, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(media_import, "_BATCH", 1)
    for number in range(3):
        library.media.add(samples.image(width=60 + number))
    app.tenants.export(tenant.id, path)
    last = changed(path, _only_the_last)
    tenants = set(elsewhere.tenants.list())

    def take(progress: Progress) -> None:
        if progress.done == 1:
            tenants.add(elsewhere.tenants.import_archive(last).tenant)

    with pytest.raises(AlreadyExistsError, match="in this database already: import with keep_ids=False"):
        elsewhere.tenants.import_archive(path, progress=take)

    assert set(elsewhere.tenants.list()) == tenants


def _only_the_last(parts: Parts) -> None:
    *_, last = parts.media
    parts.media = [last]
    parts.objects = {last["sha256"]: parts.objects[last["sha256"]]}


def test_of_two_that_import_the_same_archive_at_once_one_succeeds(
    app: Mindia, library: Library, tenant: Tenant, elsewhere: Mindia, path: Path
) -> None:
    four_kinds(library)
    library.users.create("ann@example.org")
    app.tenants.export(tenant.id, path)
    barrier = threading.Barrier(3)

    def run() -> Tenant | AlreadyExistsError:
        barrier.wait(30)
        try:
            return elsewhere.tenants.import_archive(path).tenant
        except AlreadyExistsError as error:
            return error

    with ThreadPoolExecutor(3) as threads:
        outcomes = [future.result() for future in [threads.submit(run) for _ in range(3)]]

    (made,) = elsewhere.tenants.list()
    assert [each for each in outcomes if isinstance(each, Tenant)] == [made]
    assert media_of(elsewhere.library(made)) == media_of(library)


def test_the_tenant_is_suspended_under_a_name_that_tells_why_until_all_of_it_is_there(
    app: Mindia, library: Library, tenant: Tenant, elsewhere: Mindia, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(media_import, "_BATCH", 2)
    app.tenants.rename(tenant.id, "A" * 255)
    four_kinds(library)
    app.tenants.export(tenant.id, path)
    seen: list[tuple[Progress, str, TenantStatus]] = []

    def look(progress: Progress) -> None:
        (half,) = elsewhere.tenants.list()
        seen.append((progress, half.name, half.status))
        with pytest.raises(TenantInactiveError):
            elsewhere.library(half).media.find()
        assert not elsewhere.run_until_idle().completed  # its tasks wait

    report = elsewhere.tenants.import_archive(path, progress=look)

    name = "A" * 233 + " (import not complete)"
    assert seen == [(Progress(done=done, failed=0, total=4), name, TenantStatus.SUSPENDED) for done in (2, 4)]
    assert (report.tenant.name, report.tenant.status) == ("A" * 255, TenantStatus.ACTIVE)
    assert elsewhere.run_until_idle().completed == 4


def test_what_fails_in_the_middle_leaves_a_tenant_that_is_deleted_and_then_nothing(
    app: Mindia, library: Library, tenant: Tenant, elsewhere: Mindia, there: Host, path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(media_import, "_BATCH", 1)
    items = four_kinds(library)
    library.users.create("ann@example.org")
    library.presets.create("card", Resize(300))
    app.tenants.export(tenant.id, path)
    half: list[UUID] = []

    def stop(progress: Progress) -> None:
        half.extend(each.id for each in elsewhere.tenants.list())
        if progress.done == 3:
            assert rows(there, elsewhere.library(half[0]), "presets") == {"presets": 1}
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        elsewhere.tenants.import_archive(path, progress=stop)

    assert elsewhere.tenants.get(half[0]).status is TenantStatus.DELETED
    assert not list(elsewhere.tenants.list())
    (removed,) = elsewhere.maintenance.remove_deleted_tenants()  # waits for nothing that would still be staged
    assert removed.is_complete
    assert not rows(
        there, elsewhere.library(half[0]), "users", "presets", "staged_objects", "images", "videos", "tasks"
    )
    assert isinstance(elsewhere.storage, LocalStorage)
    assert not list(elsewhere.storage.root.iterdir())
    assert media_of(elsewhere.library(elsewhere.tenants.import_archive(path).tenant)) == list(map(plain, items))


def test_a_process_that_is_killed_leaves_a_suspended_tenant_which_can_be_deleted(
    app: Mindia, library: Library, tenant: Tenant, elsewhere: Mindia, fresh_database_url: str, path: Path
) -> None:
    items = [library.media.add(samples.image(width=60 + number)) for number in range(3)]
    app.tenants.export(tenant.id, path)
    script = """
import os, signal, sys
import mindia
from mindia.services import media_import
media_import._BATCH = 1
url, root, path = sys.argv[1:]
def die(progress):
    if progress.done == 2:
        os.kill(os.getpid(), signal.SIGKILL)
with mindia.connect(url, storage=mindia.LocalStorage(root)) as app:
    app.tenants.import_archive(path, progress=die)
"""
    assert isinstance(elsewhere.storage, LocalStorage)
    arguments = [fresh_database_url, str(elsewhere.storage.root), str(path)]

    ended = subprocess.run([sys.executable, "-c", script, *arguments], check=False, timeout=60)

    assert ended.returncode == -9
    (half,) = elsewhere.tenants.list()
    assert (half.name, half.status) == ("Acme (import not complete)", TenantStatus.SUSPENDED)
    with pytest.raises(TenantInactiveError):
        elsewhere.library(half).media.find()
    elsewhere.tenants.delete(half.id)
    (removed,) = elsewhere.maintenance.remove_deleted_tenants(staged_older_than=timedelta())
    assert removed.is_complete
    report = elsewhere.tenants.import_archive(path)
    assert media_of(elsewhere.library(report.tenant)) == list(map(plain, items))


def test_an_archive_that_is_changed_while_it_is_imported_is_refused(
    app: Mindia, library: Library, tenant: Tenant, elsewhere: Mindia, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(media_import, "_BATCH", 1)
    for number in range(3):
        library.media.add(samples.image(width=60 + number) + bytes(50_000))  # more than is read ahead
    app.tenants.export(tenant.id, path)
    item = library.media.find(order="-uploaded_at").items[0]
    content = path.read_bytes()
    at = content.index(library.media.read(item)) + 300

    def change(progress: Progress) -> None:
        if progress.done == 1:
            with path.open("r+b") as file:
                file.seek(at)
                file.write(bytes([content[at] ^ 1]))

    with pytest.raises(ArchiveError, match="is damaged: Bad CRC-32"):
        elsewhere.tenants.import_archive(path, progress=change)

    assert not list(elsewhere.tenants.list())


def test_a_tenant_that_is_deleted_while_it_is_imported_stays_deleted(
    app: Mindia, library: Library, tenant: Tenant, elsewhere: Mindia, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(media_import, "_BATCH", 1)
    four_kinds(library)
    app.tenants.export(tenant.id, path)
    for when in (1, 4):

        def delete(progress: Progress, when: int = when) -> None:
            if progress.done == when:
                (half,) = elsewhere.tenants.list()
                elsewhere.tenants.delete(half.id)

        with pytest.raises(TenantInactiveError, match=r"is deleted|was deleted while it was being imported"):
            elsewhere.tenants.import_archive(path, progress=delete)

        assert not list(elsewhere.tenants.list())
        elsewhere.maintenance.remove_deleted_tenants(staged_older_than=timedelta())


def test_name_bucket_and_region_may_be_others(
    app: Mindia, library: Library, tenant: Tenant, elsewhere: Mindia, path: Path
) -> None:
    item = library.media.add(samples.image())
    app.tenants.export(tenant.id, path)

    report = elsewhere.tenants.import_archive(path, name="  Globex ", s3_bucket="globex-media", s3_region="eu-west-3")

    assert (report.tenant.name, report.tenant.s3_bucket, report.tenant.s3_region) == (
        "Globex",
        "globex-media",
        "eu-west-3",
    )
    assert set(listed(elsewhere.storage, "globex-media")) == {f"originals/{item.id}"}
    for arguments, error in (
        ({"name": ""}, InvalidError),
        ({"s3_bucket": "No Bucket"}, InvalidError),
        ({"s3_bucket": "globex-media", "keep_ids": False}, AlreadyExistsError),
        ({"max_items": 0}, InvalidError),
    ):
        with pytest.raises(error):
            elsewhere.tenants.import_archive(path, **arguments)
    assert list(elsewhere.tenants.list()) == [report.tenant]


def test_an_archive_raises_no_limit_but_its_stricter_ones_hold(
    app: Mindia, tenant: Tenant, elsewhere: Mindia, path: Path
) -> None:
    app.tenants.set_limits(tenant.id, MediaLimits(max_image_bytes=10**12, max_video_bytes=5_000, max_audio_seconds=1e9))
    app.tenants.export(tenant.id, path)

    assert elsewhere.tenants.import_archive(path).tenant.limits == MediaLimits(max_video_bytes=5_000)
    own = MediaLimits(max_image_bytes=10**12)
    assert elsewhere.tenants.import_archive(path, limits=own).tenant.limits == own


def test_media_beyond_the_limits_of_the_installation_are_refused_unless_it_gives_the_tenant_others(
    application_url: str, roles: Roles, app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, path: Path
) -> None:
    library.media.add(samples.pdf(["One", "Two", "Three"]), filename="long.pdf")
    app.tenants.export(tenant.id, path)
    settings = attrs.evolve(SETTINGS, worker_role=roles.worker, max_document_pages=2)
    with mindia.connect(application_url, storage=storage, settings=settings) as strict:
        with pytest.raises(TooLargeError, match=r"Settings\.max_document_pages"):
            strict.tenants.import_archive(path, keep_ids=False)

        report = strict.tenants.import_archive(path, keep_ids=False, limits=MediaLimits(max_document_pages=3))

    assert report.media_count == 1


def test_the_quota_of_the_archive_holds_from_the_end_on(
    app: Mindia, library: Library, tenant: Tenant, elsewhere: Mindia, path: Path
) -> None:
    for number in range(3):
        library.media.add(samples.image(width=60 + number))
    app.tenants.set_quota(tenant.id, Quota(max_items=1))  # fewer than there are
    app.tenants.export(tenant.id, path)

    imported = elsewhere.library(elsewhere.tenants.import_archive(path).tenant)

    assert imported.usage() == library.usage()
    with pytest.raises(QuotaExceededError):
        imported.media.add(samples.image())


def test_the_scan_of_the_installation_sees_all_bytes_and_may_refuse_the_whole(
    app: Mindia, library: Library, tenant: Tenant, fresh_database_url: str, roles: Roles, tmp_path: Path, path: Path
) -> None:
    items = four_kinds(library)
    app.tenants.export(tenant.id, path)
    seen: list[str] = []

    def scan(file: Any, candidate: mindia.Candidate) -> None:
        seen.append(candidate.sha256)
        if candidate.kind is MediaKind.DOCUMENT and file.read().startswith(b"%PDF"):
            raise RejectedError(f"{candidate.filename} is not wanted here")

    with installation(fresh_database_url, roles, tmp_path / "there", scan=scan) as scanning:
        with pytest.raises(RejectedError, match=r"d\.pdf is not wanted here"):
            scanning.tenants.import_archive(path)

        assert set(seen) == {item.sha256 for item in items}
        assert not list(scanning.tenants.list())


def test_where_a_picture_was_taken_and_long_texts_are_kept_as_the_installation_keeps_them(
    app: Mindia, library: Library, tenant: Tenant, fresh_database_url: str, roles: Roles, tmp_path: Path, path: Path
) -> None:
    picture = library.media.add(samples.image(location=LISBON, camera="Leica"), filename="cat.jpg")
    document = library.media.add(samples.pdf(["abcdefgh ijkl"]), filename="a.pdf")
    assert isinstance(picture, Image)
    assert picture.location == LISBON
    app.tenants.export(tenant.id, path)
    own = Settings(max_text_chars=8, keep_location=False)
    with installation(fresh_database_url, roles, tmp_path / "there", settings=own) as private:
        imported = private.library(private.tenants.import_archive(path).tenant)

        assert imported.media.get(picture.id, type=Image).location is None
        assert imported.media.get(picture.id, type=Image).camera == "Leica"
        assert [each.media.id for each in imported.search("abcdefgh")] == [document.id]
        assert not imported.search("ijkl")


def test_what_can_be_measured_is_measured_and_names_are_cleaned_whatever_an_archive_says(
    app: Mindia, library: Library, tenant: Tenant, elsewhere: Mindia, path: Path
) -> None:
    library.media.add(samples.image(), filename="cat.jpg")
    library.media.add(samples.pdf(["One", "Two"]), filename="a.pdf")
    app.tenants.export(tenant.id, path)

    def lie(parts: Parts) -> None:
        parts.item("image")["facts"] |= {"width": 10**30, "height": -1}
        parts.item("image")["filename"] = "../../etc/\u202egpj.jpg"
        parts.item("document")["facts"]["page_count"] = 0

    imported = elsewhere.library(elsewhere.tenants.import_archive(changed(path, lie)).tenant)

    image, document = imported.media.iterate(order="uploaded_at")
    assert isinstance(image, Image)
    assert isinstance(document, Document)
    assert (image.width, image.height, image.filename) == (64, 48, "gpj.jpg")
    assert document.page_count == 2


def test_items_that_have_expired_since_are_left_out_and_named(
    app: Mindia, library: Library, tenant: Tenant, elsewhere: Mindia, path: Path
) -> None:
    kept, late = (library.media.add(samples.image(width=width)) for width in (60, 61))
    app.tenants.export(tenant.id, path)
    past = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()

    report = elsewhere.tenants.import_archive(changed(path, lambda parts: parts.media[1].update(expires_at=past)))

    assert (report.media_count, report.expired) == (1, (late.id,))
    assert media_of(elsewhere.library(report.tenant)) == [plain(kept)]


def test_items_that_shared_the_bytes_of_one_that_expires_meanwhile_share_those_of_another(
    app: Mindia, library: Library, tenant: Tenant, elsewhere: Mindia, there: Host, path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(media_import, "_BATCH", 3)
    first = library.media.add(samples.image(), filename="first.jpg")
    copies = [library.media.copy(first, filename=f"{number}.jpg") for number in range(6)]
    app.tenants.export(tenant.id, path)

    def expire(progress: Progress) -> None:
        if progress.done == 3:
            with there.transaction():
                there.execute("update mindia.images set expires_at = now() where id = %s", (first.id,))

    report = elsewhere.tenants.import_archive(path, progress=expire)

    imported = elsewhere.library(report.tenant)
    assert report.media_count == 7
    assert media_of(imported) == list(map(plain, copies))
    check_every_item_reads(imported)
    check_counts(there, imported)
    assert sorted(counted(there, imported).values()) == [3, 4]


def test_connections_that_break_at_any_commit_are_not_noticed_and_nothing_is_there_twice(
    app: Mindia, library: Library, tenant: Tenant, fresh_database_url: str, there: Host, tmp_path: Path, path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(media_import, "_BATCH", 3)
    items = four_kinds(library)
    library.media.copy(items[0], filename="copy.jpg")
    library.users.create("ann@example.org", password=PASSWORD)
    library.presets.create("marked", Watermark(items[0].id))
    app.tenants.export(tenant.id, path)
    with (
        Proxy(fresh_database_url) as proxy,
        mindia.connect(proxy.url, storage=LocalStorage(tmp_path / "there"), settings=QUICK) as behind,
    ):
        behind.check()
        for commit in count():
            proxy.cut_at(Words.COMMIT, Moment.ANSWERED, skip=commit)

            report = behind.tenants.import_archive(path, keep_ids=False)

            imported = behind.library(report.tenant)
            if proxy.cuts_left:  # there are no more commits
                break
            assert media_of(imported) == with_ids(media_of(library), report.media_ids)
            assert len(users_of(imported)) == 1
            assert imported.presets.get("marked").transformation.watermarks == (report.media_ids[items[0].id],)
            tables = ("images", "tasks", "search_documents", "users", "presets", "staged_objects")
            assert rows(there, imported, *tables) == {
                "images": 2, "tasks": 5, "search_documents": 5, "users": 1, "presets": 1,
            }  # fmt: skip
            check_counts(there, imported)
    assert commit > 5  # of the tenant, its users, keys, rows, and the end


def test_a_database_that_goes_away_is_an_error_and_leaves_a_suspended_tenant(
    app: Mindia, library: Library, tenant: Tenant, fresh_database_url: str, elsewhere: Mindia, tmp_path: Path,
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(media_import, "_BATCH", 1)
    four_kinds(library)
    app.tenants.export(tenant.id, path)
    quick = attrs.evolve(QUICK, pool_timeout_s=0.5)
    with (
        Proxy(fresh_database_url) as proxy,
        mindia.connect(proxy.url, storage=LocalStorage(tmp_path / "there"), settings=quick) as behind,
        pytest.raises(DatabaseUnavailableError),
    ):
        behind.tenants.import_archive(path, progress=lambda progress: proxy.refuse() if progress.done == 2 else None)

    (half,) = elsewhere.tenants.list()
    assert half.status is TenantStatus.SUSPENDED
    assert f"tenant {half.id}, which was not imported, is still there, suspended" in caplog.text
