"""A tenant is exported as it is at one moment, whole or not at all, and to its owner's eyes alone."""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

import attrs
import pytest
from tests.conftest import Roles
from tests.faults.proxy import Moment, Proxy, Words
from tests.integration.archives import DERIVATIVES, MANIFEST, MEDIA, PRESETS, USERS, lines, members
from tests.integration.library_calls import PASSWORD, SETTINGS
from tests.integration.media_rows import Host, four_kinds, register, sweep_all

import mindia
from mindia import (
    ExportReport,
    Grayscale,
    Image,
    Library,
    LocalStorage,
    MediaLimits,
    MemoryStorage,
    Mindia,
    Progress,
    Quota,
    Resize,
    Settings,
    Tenant,
    Watermark,
)
from mindia.errors import (
    InvalidError,
    NotFoundError,
    StorageError,
    StorageUnavailableError,
    TenantInactiveError,
)
from mindia.services import tenant_export
from mindia.testing import samples


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "archives"
    folder.mkdir()
    return folder / "acme.zip"


def alone(path: Path) -> bool:
    """Tell whether there is nothing else in the folder of an archive."""
    return [each.name for each in path.parent.iterdir()] == [path.name]


def test_an_archive_holds_the_tenant_its_users_its_media_and_each_content_once(
    app: Mindia, library: Library, tenant: Tenant, path: Path
) -> None:
    image, video, audio, document = four_kinds(library)
    copy = library.media.copy(image, filename="copy.jpg")
    again = library.media.add(samples.image(), filename="again.jpg")
    user = library.users.create("ann@example.org", password=PASSWORD, role="admin")
    app.tenants.set_limits(tenant.id, MediaLimits(max_document_pages=7, max_video_seconds=1.5))
    app.tenants.set_quota(tenant.id, Quota(max_items=50, max_total_bytes=10**9))
    marked = library.presets.create("marked", Resize(300), Watermark(image.id), format="avif")
    library.presets.create("a-sketch", Grayscale(), preset="marked")

    report = app.tenants.export(tenant.id, path)

    there = members(path)
    contents = {library.media.read(item) for item in (image, video, audio, document)}
    assert there.keys() - {MANIFEST, USERS, MEDIA, PRESETS, DERIVATIVES} == {
        f"objects/{hashlib.sha256(content).hexdigest()}" for content in contents
    }
    assert {there[name] for name in there if name.startswith("objects/")} == contents
    manifest = json.loads(there[MANIFEST])
    assert manifest == {
        "format": "mindia-tenant",
        "version": 3,
        "mindia": mindia.__version__,
        "tenant": {
            "name": "Acme",
            "region": "local",
            "limits": attrs.asdict(MediaLimits(max_document_pages=7, max_video_seconds=1.5)),
            "quota": {"max_items": 50, "max_total_bytes": 10**9},
        },
        "user_count": 1,
        "media_count": 6,
        "preset_count": 2,
        "derivative_count": 0,
        "object_count": 4,
        "object_bytes": sum(map(len, contents)),
        "users_sha256": hashlib.sha256(there[USERS]).hexdigest(),
        "media_sha256": hashlib.sha256(there[MEDIA]).hexdigest(),
        "presets_sha256": hashlib.sha256(there[PRESETS]).hexdigest(),
        "derivatives_sha256": hashlib.sha256(b"").hexdigest(),
    }
    items = lines(there[MEDIA])
    assert [item["id"] for item in items] == [str(item.id) for item in (image, video, audio, document, copy, again)]
    assert [item["shares_bytes"] for item in items] == [True, False, False, False, True, False]
    assert items[3]["facts"] == {"page_count": 1, "text": "A page.", "title": None}
    (archived,) = lines(there[USERS])
    assert archived["id"] == str(user.id)
    assert archived["role"] == "admin"
    assert archived["password_hash"].startswith("$argon2id$")
    assert [preset["name"] for preset in lines(there[PRESETS])] == ["a-sketch", "marked"]
    assert lines(there[PRESETS])[1] == {
        "name": "marked",
        "transformation": f"resize_width-300~watermark_image-{image.id.hex}~to_format-avif",
        "created_at": marked.created_at.isoformat(),
        "updated_at": marked.updated_at.isoformat(),
    }
    assert report == ExportReport(
        tenant_id=tenant.id, path=path, user_count=1, media_count=6, preset_count=2,
        derivative_count=0, object_count=4, object_bytes=sum(map(len, contents)),
    )  # fmt: skip


def test_what_an_item_says_is_in_the_archive_field_by_field(
    app: Mindia, library: Library, tenant: Tenant, path: Path
) -> None:
    expires_at = datetime.now(UTC) + timedelta(days=1)
    item = library.media.add(
        samples.image(camera="Leica M3", taken_at=datetime(2024, 5, 6, 7, 8, 9)),  # noqa: DTZ001 - as cameras have it
        filename="cat.jpg",
        description="On the windowsill\n窓",
        metadata={"n": None, "b": True, "i": 4, "f": 2.5, "s": "猫", "l": [1, [2]], "o": {"a": {}}},
        expires_at=expires_at,
    )
    assert isinstance(item, Image)
    changed = library.media.update(item, filename="katze.jpg")

    app.tenants.export(tenant.id, path)

    (line,) = lines(members(path)[MEDIA])
    assert line == {
        "kind": "image",
        "id": str(item.id),
        "filename": "katze.jpg",
        "original_filename": "cat.jpg",
        "content_type": "image/jpeg",
        "file_size": item.file_size,
        "sha256": item.sha256,
        "shares_bytes": False,
        "metadata": {"n": None, "b": True, "i": 4, "f": 2.5, "s": "猫", "l": [1, [2]], "o": {"a": {}}},
        "description": "On the windowsill\n窓",
        "facts": {
            "width": 64, "height": 48, "taken_at": "2024-05-06T07:08:09", "camera": "Leica M3", "location": None,
            "perceptual_hash": item.perceptual_hash,
        },
        "uploaded_at": item.uploaded_at.isoformat(),
        "updated_at": changed.updated_at.isoformat(),
        "expires_at": expires_at.isoformat(),
    }  # fmt: skip


def test_members_are_stored_as_they_are_and_the_tenant_of_the_same_state_gives_the_same_bytes(
    app: Mindia, library: Library, tenant: Tenant, path: Path
) -> None:
    four_kinds(library)
    app.tenants.export(tenant.id, path)
    before = path.read_bytes()

    app.tenants.export(tenant.id, path)

    assert path.read_bytes() == before
    with zipfile.ZipFile(path) as archive:
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        assert archive.testzip() is None


def test_an_archive_may_be_read_by_its_owner_alone_whatever_was_there_before(
    app: Mindia, tenant: Tenant, path: Path
) -> None:
    path.write_bytes(b"of everybody")
    path.chmod(0o666)

    app.tenants.export(tenant.id, path)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert alone(path)


def test_keys_webhooks_tasks_and_vectors_stay_where_they_are(
    app: Mindia, library: Library, tenant: Tenant, path: Path, host: Host
) -> None:
    library.media.add(samples.image(), filename="cat.jpg")
    key = library.api_keys.issue("CI", role="viewer")
    register(host, library, ["*"])
    app.run_until_idle()

    app.tenants.export(tenant.id, path)

    content = path.read_bytes()
    assert str(key.token).encode() not in content
    assert b"https://x" not in content
    assert members(path).keys() - {MANIFEST, USERS, MEDIA, PRESETS, DERIVATIVES} == {
        f"objects/{library.media.find().items[0].sha256}"
    }


def test_what_has_expired_is_not_exported(app: Mindia, library: Library, tenant: Tenant, path: Path) -> None:
    library.media.add(samples.image(), filename="old.jpg", expires_at=datetime.now(UTC) - timedelta(seconds=1))
    kept = library.media.add(samples.wav(seconds=0.1), filename="new.wav")

    report = app.tenants.export(tenant.id, path)

    assert (report.media_count, report.object_count) == (1, 1)
    assert [item["id"] for item in lines(members(path)[MEDIA])] == [str(kept.id)]


def test_an_empty_tenant_is_exported(app: Mindia, tenant: Tenant, path: Path) -> None:
    report = app.tenants.export(tenant.id, path)

    assert (report.user_count, report.media_count, report.object_count, report.object_bytes) == (0, 0, 0, 0)
    assert report.preset_count == 0
    assert members(path).keys() == {MANIFEST, USERS, MEDIA, PRESETS, DERIVATIVES}


def test_a_suspended_tenant_is_exported_and_stays_suspended(
    app: Mindia, library: Library, tenant: Tenant, path: Path
) -> None:
    library.media.add(samples.image())
    suspended = app.tenants.suspend(tenant.id)

    assert app.tenants.export(tenant.id, path).media_count == 1

    assert app.tenants.get(tenant.id) == suspended


def test_nothing_of_another_tenant_is_exported(app: Mindia, library: Library, tenant: Tenant, path: Path) -> None:
    other = app.library(app.tenants.create("Globex"))
    theirs = other.media.add(samples.image(color="red"), filename="theirs.jpg")
    other.users.create("eve@example.org")
    other.presets.create("theirs", Grayscale())
    library.media.add(samples.image(), filename="ours.jpg")

    report = app.tenants.export(tenant.id, path)

    assert (report.user_count, report.media_count, report.preset_count) == (0, 1, 0)
    assert theirs.sha256.encode() not in path.read_bytes()


def test_a_tenant_that_is_not_there_or_deleted_is_refused_and_no_file_is_left(
    app: Mindia, tenant: Tenant, path: Path
) -> None:
    with pytest.raises(NotFoundError, match="there is no tenant"):
        app.tenants.export(uuid4(), path)
    app.tenants.delete(tenant.id)
    with pytest.raises(TenantInactiveError, match="is deleted"):
        app.tenants.export(tenant.id, path)

    assert not list(path.parent.iterdir())


@pytest.mark.parametrize("name", ["no/such/folder/a.zip", "a\0b.zip", ".", ""])
def test_a_file_that_cannot_be_written_is_refused(app: Mindia, tenant: Tenant, tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidError, match=r"cannot be written|is a folder"):
        app.tenants.export(tenant.id, tmp_path / name)


def test_items_are_exported_page_by_page_in_their_order_each_once(
    app: Mindia, library: Library, tenant: Tenant, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tenant_export, "_PAGE", 3)
    monkeypatch.setattr(tenant_export, "_USERS_PAGE", 3)
    monkeypatch.setattr(tenant_export, "_PRESETS_PAGE", 3)
    first = library.media.add(samples.image(), filename="0.jpg")
    with library.transaction() as tx:  # all at the same time
        items = [tx.media.copy(first, filename=f"{number}.jpg") for number in range(1, 8)]
        users = [tx.users.create(f"{number}@example.org") for number in range(7)]
    names = ["0", "1", "a", "a-a", "a0", "aa", "b"]  # in the order of the bytes
    for name in reversed(names):
        library.presets.create(name, Grayscale())

    report = app.tenants.export(tenant.id, path)

    assert (report.media_count, report.user_count, report.object_count) == (8, 7, 1)
    ids = [str(item.id) for item in [first, *sorted(items, key=lambda item: item.id)]]
    assert [item["id"] for item in lines(members(path)[MEDIA])] == ids
    assert [user["id"] for user in lines(members(path)[USERS])] == [str(user.id) for user in users]
    assert [preset["name"] for preset in lines(members(path)[PRESETS])] == names


class _Interfering(LocalStorage):
    """A store that does something else before it opens the first object."""

    def __init__(self, root: Path, interfere: Callable[[], object]) -> None:
        super().__init__(root)
        self._interfere: Callable[[], object] | None = interfere

    def open(self, bucket: str, key: str) -> BinaryIO:
        if self._interfere is not None:
            interfere, self._interfere = self._interfere, None
            interfere()
        return super().open(bucket, key)


def _through(storage: LocalStorage, application_url: str, roles: Roles, interfere: Callable[[], object]) -> Mindia:
    """Return a further application on the same tenant whose store interferes."""
    settings = attrs.evolve(SETTINGS, worker_role=roles.worker)
    return mindia.connect(application_url, storage=_Interfering(storage.root, interfere), settings=settings)


def test_what_happens_while_bytes_are_copied_is_not_in_the_archive(
    library: Library, tenant: Tenant, storage: LocalStorage, application_url: str, roles: Roles, path: Path
) -> None:
    item = library.media.add(samples.image(), filename="cat.jpg", description="before")
    deleted = library.media.add(samples.wav(seconds=0.1), filename="deleted.wav")

    def interfere() -> None:
        library.media.update(item, description="after")
        library.media.delete(deleted)  # whose bytes stay until maintenance comes
        library.media.add(samples.pdf(), filename="late.pdf")
        library.users.create("late@example.org")
        library.presets.create("late", Grayscale())

    with _through(storage, application_url, roles, interfere) as exporting:
        report = exporting.tenants.export(tenant.id, path)

    assert (report.media_count, report.user_count, report.preset_count, report.missing) == (2, 0, 0, ())
    first, second = lines(members(path)[MEDIA])
    assert (first["description"], second["id"]) == ("before", str(deleted.id))


def test_items_whose_bytes_are_gone_by_the_time_they_are_copied_are_named_and_left_out(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, application_url: str, roles: Roles, path: Path
) -> None:
    items = [library.media.add(samples.image(width=60 + number), filename=f"{number}.jpg") for number in range(4)]
    copy = library.media.copy(items[1], filename="copy.jpg")
    seen: list[Progress] = []

    def interfere() -> None:
        library.media.delete_many([items[1], copy, items[2]])
        sweep_all(app)

    with _through(storage, application_url, roles, interfere) as exporting:
        report = exporting.tenants.export(tenant.id, path, progress=seen.append)

    assert set(report.missing) == {items[1].id, copy.id, items[2].id}
    assert (report.media_count, report.object_count) == (2, 2)
    assert [item["id"] for item in lines(members(path)[MEDIA])] == [str(items[0].id), str(items[3].id)]
    assert json.loads(members(path)[MANIFEST])["media_count"] == 2
    assert seen[-1] == Progress(done=5, failed=3, total=5)


@pytest.mark.parametrize(
    "damage",
    [lambda content: content[:-1], lambda content: content + b"x", lambda content: b"x" + content[1:]],
    ids=["shorter", "longer", "changed"],
)
def test_bytes_that_are_not_those_that_were_added_are_an_error_that_names_the_item_and_no_archive_is_left(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, path: Path,
    damage: Callable[[bytes], bytes],
) -> None:  # fmt: skip
    path.write_bytes(b"the archive before")
    item = library.media.add(samples.image(), filename="cat.jpg")
    place = storage.root / tenant.s3_bucket / item.s3_key
    place.write_bytes(damage(place.read_bytes()))

    with pytest.raises(StorageError, match=f"media item {item.id} are not those that were added"):
        app.tenants.export(tenant.id, path)

    assert path.read_bytes() == b"the archive before"
    assert alone(path)


def test_progress_is_told_item_by_item_and_what_it_raises_ends_the_export(
    app: Mindia, library: Library, tenant: Tenant, path: Path
) -> None:
    for number in range(3):
        library.media.add(samples.image(width=60 + number))
    seen: list[Progress] = []
    app.tenants.export(tenant.id, path, progress=seen.append)
    path.unlink()

    def stop(progress: Progress) -> None:
        if progress.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        app.tenants.export(tenant.id, path, progress=stop)

    assert seen == [Progress(done=number, failed=0, total=3) for number in (1, 2, 3)]
    assert not list(path.parent.iterdir())


def test_an_object_store_that_fails_in_the_middle_is_an_error_and_no_archive_is_left(
    application_url: str, roles: Roles, path: Path
) -> None:
    class Failing(MemoryStorage):
        def open(self, bucket: str, key: str) -> BinaryIO:
            class Broken(io.BytesIO):
                def read(self, size: int | None = -1, /) -> bytes:
                    if self.tell():
                        raise OSError(5, "Input/output error")
                    return super().read(min(size or 0, 100))

            return Broken(super().open(bucket, key).read())

    settings = attrs.evolve(SETTINGS, worker_role=roles.worker)
    with mindia.connect(application_url, storage=Failing(), settings=settings) as failing:
        tenant = failing.tenants.create("Acme")
        failing.library(tenant).media.add(samples.image())

        with pytest.raises(StorageError, match="cannot be read: Input/output error"):
            failing.tenants.export(tenant.id, path)

    assert not list(path.parent.iterdir())


def test_a_folder_for_rows_that_is_not_there_is_named(
    application_url: str, roles: Roles, storage: LocalStorage, path: Path, tmp_path: Path
) -> None:
    settings = Settings(worker_role=roles.worker, spool_folder=tmp_path / "nowhere")
    with mindia.connect(application_url, storage=storage, settings=settings) as app:
        tenant = app.tenants.create("Acme")
        with pytest.raises(StorageUnavailableError, match=r"nowhere.*Settings\.spool_folder"):
            app.tenants.export(tenant.id, path)


def test_a_connection_that_breaks_while_rows_are_read_is_not_noticed(
    database_url: str, library: Library, tenant: Tenant, storage: LocalStorage, path: Path
) -> None:
    four_kinds(library)
    with Proxy(database_url) as proxy, mindia.connect(proxy.url, storage=storage, settings=SETTINGS) as behind:
        behind.check()
        for moment in (Moment.BEFORE, Moment.ANSWERED):
            proxy.cut_at(b"password_hash", moment)
            report = behind.tenants.export(tenant.id, path)
            assert proxy.cuts_left == 0
            assert (report.media_count, len(lines(members(path)[MEDIA]))) == (4, 4)
            proxy.cut_at(Words.COMMIT, moment)
            report = behind.tenants.export(tenant.id, path)
            assert proxy.cuts_left == 0
            assert (report.media_count, len(lines(members(path)[MEDIA]))) == (4, 4)


def test_no_connection_is_held_while_bytes_are_copied(
    application_url: str, roles: Roles, library: Library, tenant: Tenant, storage: LocalStorage, path: Path
) -> None:
    library.media.add(samples.image())
    settings = attrs.evolve(SETTINGS, worker_role=roles.worker, pool_size=1, pool_timeout_s=5.0)
    with mindia.connect(application_url, storage=storage, settings=settings) as narrow:
        seen = []
        narrow.tenants.export(tenant.id, path, progress=lambda _: seen.append(narrow.tenants.get(tenant.id)))

    assert len(seen) == 1


def test_a_process_that_is_killed_leaves_no_archive_in_its_place(
    library: Library, tenant: Tenant, storage: LocalStorage, database_url: str, path: Path
) -> None:
    path.write_bytes(b"the archive before")
    library.media.add(samples.image())
    script = """
import os, signal, sys
from uuid import UUID
import mindia
url, root, tenant, path = sys.argv[1:]
with mindia.connect(url, storage=mindia.LocalStorage(root)) as app:
    app.tenants.export(UUID(tenant), path, progress=lambda _: os.kill(os.getpid(), signal.SIGKILL))
"""
    arguments = [database_url, str(storage.root), str(tenant.id), str(path)]

    ended = subprocess.run([sys.executable, "-c", script, *arguments], check=False, timeout=60)

    assert ended.returncode == -9
    assert path.read_bytes() == b"the archive before"


def test_a_full_disk_is_an_error_and_leaves_nothing(
    app: Mindia, library: Library, tenant: Tenant, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library.media.add(samples.wav(seconds=3.0))
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("there is no /dev/full here")
    real = os.open

    def open_full(name: str | Path, flags: int, *mode: int, **options: int) -> int:
        if ".mindia-" in str(name):
            return real(full, os.O_WRONLY)
        return real(name, flags, *mode, **options)

    monkeypatch.setattr(os, "open", open_full)

    with pytest.raises(InvalidError, match=r"acme\.zip' cannot be written: No space left on device"):
        app.tenants.export(tenant.id, path)

    assert not list(path.parent.iterdir())
