"""Nothing in an archive is trusted: what is wrong with one is a typed error, and leaves no tenant that is served."""

from __future__ import annotations

import copy
import json
import os
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.conftest import Roles
from tests.integration.archives import Parts, media_of, presets_of, users_of
from tests.integration.hostile_archives import ARCHIVES
from tests.integration.library_calls import PASSWORD, SETTINGS

import mindia
from mindia import Grayscale, Library, LocalStorage, Mindia, Resize, Watermark
from mindia._ids import uuid7
from mindia.errors import ArchiveError, InvalidError, MindiaError
from mindia.testing import samples

QUICK = attrs.evolve(SETTINGS, isolate_parsers=False)


@attrs.frozen
class Place:
    """An installation, and an archive that was exported from it.

    Attributes:
        app: The installation.
        objects: Where its object store is.
        library: What was exported.
        archive: The archive.
    """

    app: Mindia
    objects: Path
    library: Library
    archive: Path

    def parts(self) -> Parts:
        return copy.deepcopy(Parts.of(self.archive))

    def buckets(self) -> set[str]:
        return {folder.name for folder in self.objects.iterdir()}

    def tenants(self) -> dict[str, str]:
        """Return the names of all tenants that are not deleted, by id."""
        return {str(tenant.id): tenant.name for tenant in self.app.tenants.list()}


def _place(application_url: str, roles: Roles, folder: Path, *, isolated: bool) -> Iterator[Place]:
    objects = folder / "objects"
    settings = attrs.evolve(SETTINGS if isolated else QUICK, worker_role=roles.worker)
    with mindia.connect(application_url, storage=LocalStorage(objects), settings=settings) as app:
        tenant = app.tenants.create("Acme")
        library = app.library(tenant)
        cat = library.media.add(samples.image(), filename="cat.jpg", metadata={"place": "Lisbon"})
        library.media.add(samples.pdf(["Invoice 4711"]), filename="invoice.pdf")
        library.media.add(samples.wav(seconds=0.1), filename="tone.wav")
        library.users.create("ann@example.org", password=PASSWORD, role="admin")
        library.users.create("bob@example.org")
        library.presets.create("card", Resize(300))
        library.presets.create("card-gray", Grayscale(), preset="card")
        library.presets.create("marked", Watermark(cat.id))
        if not isolated:
            library.media.derive(cat.id, Resize(20))
            library.media.derive(cat.id, Watermark(cat.id), format="png")
        archive = folder / "acme.zip"
        app.tenants.export(tenant.id, archive)
        yield Place(app, objects, library, archive)


@pytest.fixture(scope="module")
def place(application_url: str, roles: Roles, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    yield from _place(application_url, roles, tmp_path_factory.mktemp("place"), isolated=True)


@pytest.fixture(scope="module")
def quick(application_url: str, roles: Roles, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The same, with parsers in the process itself: for many archives of which it is known what is in them."""
    yield from _place(application_url, roles, tmp_path_factory.mktemp("quick"), isolated=False)


@pytest.mark.parametrize("name", ARCHIVES)
def test_a_hostile_archive_is_refused_and_leaves_nothing(place: Place, tmp_path: Path, name: str) -> None:
    hostile = ARCHIVES[name]
    path = tmp_path / "inner" / "hostile.zip"
    path.parent.mkdir()
    path.write_bytes(hostile.make(place.parts()))
    tenants, threads = place.tenants(), set(threading.enumerate())
    outside = {each for each in Path("/tmp").iterdir() if "evil" in each.name}

    with pytest.raises(hostile.error, match=hostile.says) as caught:
        place.app.tenants.import_archive(path, keep_ids=False)

    assert type(caught.value) is hostile.error
    assert place.tenants() == tenants
    assert {each.name for each in tmp_path.rglob("*")} == {"inner", "hostile.zip"}
    assert outside == {each for each in Path("/tmp").iterdir() if "evil" in each.name}
    assert not [thread for thread in set(threading.enumerate()) - threads if "mindia-import" in thread.name]
    password_hash = json.loads(place.parts().contents()["users.jsonl"].splitlines()[0])["password_hash"]
    assert password_hash[-20:] not in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_the_good_archive_that_they_are_made_of_is_imported(place: Place, tmp_path: Path) -> None:
    path = tmp_path / "good.zip"
    path.write_bytes(place.parts().seal().build())

    report = place.app.tenants.import_archive(path, keep_ids=False)

    assert (report.media_count, report.user_count, report.preset_count) == (3, 2, 3)


def test_nothing_of_what_was_refused_is_left_after_maintenance(place: Place, tmp_path: Path) -> None:
    for name in ("an object of another hash", "an image of another type", "bytes that the parser refuses"):
        path = tmp_path / "hostile.zip"
        path.write_bytes(ARCHIVES[name].make(place.parts()))
        with pytest.raises(MindiaError):
            place.app.tenants.import_archive(path, keep_ids=False)

    reports = place.app.maintenance.remove_deleted_tenants(staged_older_than=timedelta())

    assert len(reports) >= 3
    assert all(report.is_complete for report in reports)
    assert place.buckets() <= {tenant.s3_bucket for tenant in place.app.tenants.list()}


def test_an_error_of_an_item_tells_its_line(place: Place, tmp_path: Path) -> None:
    path = tmp_path / "hostile.zip"
    path.write_bytes(ARCHIVES["bytes that the parser refuses"].make(place.parts()))

    with pytest.raises(MindiaError) as caught:
        place.app.tenants.import_archive(path, keep_ids=False)

    assert caught.value.__notes__ == ["line 1 of media.jsonl"]


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda _: None], ids=["a folder", "a pipe", "nothing"])
def test_what_is_no_file_is_no_archive(place: Place, tmp_path: Path, make: object) -> None:
    path = tmp_path / "archive.zip"
    assert callable(make)
    make(path)

    with pytest.raises(InvalidError, match=r"archive\.zip' (is no file|cannot be read: No such file)"):
        place.app.tenants.import_archive(path)


@pytest.mark.parametrize("path", ["a\0b.zip", ""])
def test_what_is_no_path_is_refused(place: Place, path: str) -> None:
    with pytest.raises(InvalidError, match="cannot be read"):
        place.app.tenants.import_archive(path)


def test_an_archive_of_more_than_the_limit_is_refused_before_anything_is_made_of_it(place: Place) -> None:
    tenants = place.tenants()

    with pytest.raises(ArchiveError, match="raise max_items"):
        place.app.tenants.import_archive(place.archive, keep_ids=False, max_items=2)

    assert place.tenants() == tenants
    assert place.app.tenants.import_archive(place.archive, keep_ids=False, max_items=3).media_count == 3


def test_more_items_than_the_limit_are_refused_although_they_share_few_bytes(place: Place, tmp_path: Path) -> None:
    parts = place.parts()
    first = parts.media[0]
    for _ in range(3):
        parts.media.append(first | {"id": str(uuid7()), "shares_bytes": True})
    path = tmp_path / "many.zip"
    path.write_bytes(parts.seal().build())

    with pytest.raises(ArchiveError, match=r"line 5 of media\.jsonl: the limit is 4 lines"):
        place.app.tenants.import_archive(path, keep_ids=False, max_items=4)


def test_more_presets_than_the_limit_are_refused(place: Place, tmp_path: Path) -> None:
    parts = place.parts()
    assert parts.presets is not None
    parts.presets += [parts.preset("card") | {"name": f"card-{number}"} for number in range(2)]
    path = tmp_path / "many.zip"
    path.write_bytes(parts.seal().build())

    with pytest.raises(ArchiveError, match=r"line 5 of presets\.jsonl: the limit is 4 lines: raise max_items"):
        place.app.tenants.import_archive(path, keep_ids=False, max_items=4)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_an_archive_with_a_byte_changed_is_refused_or_is_the_same_tenant(
    quick: Place, tmp_path: Path, data: st.DataObject
) -> None:
    content = bytearray(quick.archive.read_bytes())
    # The manifest says what the tenant is called, which is vouched for by nothing but its checksum.
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    path = tmp_path / "changed.zip"
    path.write_bytes(content)
    tenants = quick.tenants()

    try:
        report = quick.app.tenants.import_archive(path, keep_ids=False)
    except MindiaError:
        assert quick.tenants() == tenants
        return

    imported = quick.app.library(report.tenant)
    assert report.tenant.name == "Acme"
    assert [attrs.evolve(item, id=report.media_ids[item.id]) for item in media_of(quick.library)] == media_of(imported)
    assert [attrs.evolve(user, id=report.user_ids[user.id]) for user in users_of(quick.library)] == users_of(imported)
    assert [
        attrs.evolve(preset, transformation=preset.transformation.with_watermarks(report.media_ids))
        for preset in presets_of(quick.library)
    ] == presets_of(imported)
    cat = next(iter(quick.library.media.find(kind="image")))
    made = quick.library.media.derivatives(cat)
    again = imported.media.derivatives(report.media_ids[cat.id])
    assert list(map(quick.library.media.read, made)) == list(map(imported.media.read, again))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_an_archive_that_was_cut_off_is_refused(quick: Place, tmp_path: Path, data: st.DataObject) -> None:
    content = quick.archive.read_bytes()
    path = tmp_path / "cut.zip"
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])

    with pytest.raises(ArchiveError):
        quick.app.tenants.import_archive(path, keep_ids=False)
