"""What was made of items goes with them into an archive, and out of it: nothing is made a second time."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import attrs
import psycopg
import pytest
from tests.conftest import Roles, database
from tests.faults.proxy import Moment, Proxy, Words
from tests.integration.archives import Parts, installation, lines, media_of, members
from tests.integration.hostile_derivatives import DERIVED, files_of
from tests.integration.library_calls import SETTINGS
from tests.integration.media_rows import Host, rows, sweep_all
from tests.integration.test_streams import encode, get

import mindia
from mindia import (
    Derivative,
    ExportReport,
    Image,
    Library,
    LocalStorage,
    Media,
    Mindia,
    ProcessingStatus,
    Resize,
    Storyboard,
    Video,
    Watermark,
)
from mindia.errors import ArchiveError, RejectedError, StreamNotReadyError, TooLargeError
from mindia.media.hls import MASTER
from mindia.serving import MediaFiles
from mindia.testing import samples
from mindia.testing.storage import listed

QUICK = attrs.evolve(
    SETTINGS,
    isolate_parsers=False,
    transcode_on_add=True,
    hls_ladder=("48p@100k", "96p@300k"),
    hls_segment_s=1.0,
    hls_preset="ultrafast",
)


@attrs.frozen
class Made:
    """A tenant with an image, a document and a video, and what was made of them, and its archive."""

    app: Mindia
    library: Library
    cat: Media
    copied: Media
    mark: Media
    letter: Media
    clip: Media
    pictures: list[Derivative]
    archive: Path

    def parts(self) -> Parts:
        return copy.deepcopy(Parts.of(self.archive))


@pytest.fixture(scope="module")
def made(application_url: str, roles: Roles, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    folder = tmp_path_factory.mktemp("made")
    settings = attrs.evolve(QUICK, worker_role=roles.worker)
    with mindia.connect(application_url, storage=LocalStorage(folder / "objects"), settings=settings) as app:
        tenant = app.tenants.create("Acme")
        library = app.library(tenant)
        cat = library.media.add(samples.image(), filename="cat.jpg")
        copied = library.media.copy(cat, filename="copy.jpg")
        mark = library.media.add(samples.image("PNG", color="red", width=16, height=16), filename="mark.png")
        letter = library.media.add(samples.pdf(), filename="letter.pdf")
        clip = library.media.add(samples.video(seconds=2), filename="clip.mp4")
        pictures = [
            library.media.derive(cat.id, Resize(20)),
            library.media.derive(copied.id, Watermark(mark.id), format="png"),
            library.media.thumbnail(letter, side=30, format="jpeg"),
            library.media.thumbnail(clip, side=30),
        ]
        encode(library, clip)
        archive = folder / "acme.zip"
        app.tenants.export(tenant.id, archive)
        # The first lines are those of the image.
        yield Made(app, library, cat, copied, mark, letter, library.media.get(clip.id), pictures, archive)


@pytest.fixture(scope="module")
def there_url(server_url: str, template: str) -> Iterator[str]:
    with database(server_url, template=template) as url:
        yield url


@pytest.fixture(scope="module")
def elsewhere(there_url: str, roles: Roles, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mindia]:
    """Another installation, which can make nothing."""
    folder = tmp_path_factory.mktemp("elsewhere")
    with installation(there_url, roles, folder / "objects", settings=QUICK) as elsewhere:
        yield elsewhere


@pytest.fixture
def there(there_url: str) -> Iterator[Host]:
    with psycopg.connect(there_url) as connection:
        yield connection


@pytest.fixture
def nothing_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("something is made that was there")

    monkeypatch.setattr("mindia.media.probe.derive", refuse)
    monkeypatch.setattr("mindia.services.transcoding.encode", refuse)


def said(derivative: Derivative, **changes: Any) -> Derivative:
    """Return what is said of a derivative, without what is another one after an import."""
    nobody = UUID(int=0)
    has_prefix = None if derivative.s3_prefix is None else ""
    return attrs.evolve(
        derivative, id=nobody, tenant_id=nobody, source_id=nobody, s3_key="", s3_prefix=has_prefix, **changes
    )


def played(app: Mindia, library: Library, video: Media | UUID) -> list[bytes]:
    """Return all that a player fetches, from the address of a stream on."""
    files = MediaFiles(app)
    url = library.media.hls_url(video)
    base = url.rpartition("/")[0]
    master = get(files, url)
    found = [master.body]
    for variant in filter(lambda line: line and line[0] != "#", master.body.decode().splitlines()):
        index = get(files, f"{base}/{variant}")
        found.append(index.body)
        folder = variant.rpartition("/")[0]
        for segment in filter(lambda line: line and line[0] != "#", index.body.decode().splitlines()):
            answer = get(files, f"{base}/{folder}/{segment}")
            assert (answer.status, answer.headers["Content-Type"]) == (200, "video/mp2t")
            found.append(answer.body)
    return found


def changed(made: Made, path: Path, change: Callable[[Parts], object]) -> Path:
    parts = made.parts()
    change(parts)
    path.write_bytes(parts.seal().build())
    return path


def test_a_storyboard_arrives_unless_it_does_not_say_where_it_ends(
    made: Made, elsewhere: Mindia, tmp_path: Path
) -> None:
    library = made.app.library(made.app.tenants.create("Films"))
    film = library.media.add(samples.video(seconds=2), filename="film.mp4")
    board = library.media.storyboard(film, side=16)
    archive = made.app.tenants.export(library.tenant_id, tmp_path / "films.zip").path

    imported = elsewhere.library(elsewhere.tenants.import_archive(archive, keep_ids=True).tenant)

    assert imported.media.storyboard(film.id, side=16) == Storyboard.of(imported.media.derivatives(film.id)[0])
    assert imported.media.storyboard(film.id, side=16).sheet.sha256 == board.sheet.sha256
    parts = Parts.of(archive)
    sheet = parts.made("tiles")
    assert (sheet["operations"], len(board.tiles)) == (board.sheet.operations, 2)
    sheet["operations"] = sheet["operations"].replace("_end-2", "")
    archive.write_bytes(parts.seal().build())
    with pytest.raises(ArchiveError, match=r"'tiles_side-16~.*' is not made of the kind video"):
        elsewhere.tenants.import_archive(archive, keep_ids=False)


@pytest.mark.usefixtures("nothing_is_made")
@pytest.mark.parametrize("keep_ids", [True, False])
def test_what_was_made_is_there_after_an_import_and_nothing_is_made_again(
    made: Made, elsewhere: Mindia, there: Host, *, keep_ids: bool
) -> None:
    report = elsewhere.tenants.import_archive(made.archive, keep_ids=keep_ids)

    def new(item: Media) -> UUID:
        return report.media_ids.get(item.id, item.id)

    imported, library = elsewhere.library(report.tenant), made.library
    assert report.derivative_count == 5
    for item in (made.cat, made.copied, made.letter, made.clip):
        before, after = library.media.derivatives(item), imported.media.derivatives(new(item))
        operations = [each.operations.replace(made.mark.id.hex, new(made.mark).hex) for each in before]
        assert [said(each, media_id=None) for each in after] == [
            said(each, operations=text, media_id=None) for each, text in zip(before, operations, strict=True)
        ]
        for old, again in zip(before, after, strict=True):
            if old.s3_prefix is None:
                assert imported.media.read(again) == library.media.read(old)
    assert imported.media.derive(new(made.cat), Resize(20)).created_at == made.pictures[0].created_at
    assert imported.media.derive(new(made.copied), Resize(20)).created_at == made.pictures[0].created_at
    marked = imported.media.derive(new(made.cat), Watermark(new(made.mark)), format="png")
    assert marked.created_at == made.pictures[1].created_at
    assert imported.media.thumbnail(new(made.letter), side=30, format="jpeg").sha256 == made.pictures[2].sha256
    assert imported.media.thumbnail(new(made.clip), side=30).sha256 == made.pictures[3].sha256
    clip = imported.media.get(new(made.clip), type=Video)
    assert clip.processing_status is ProcessingStatus.COMPLETED
    assert played(elsewhere, imported, clip) == played(made.app, library, made.clip)
    assert imported.usage() == library.usage()
    with there.transaction():
        tasks = there.execute(
            "select distinct task_type from mindia.tasks where tenant_id = %s", (report.tenant.id,)
        ).fetchall()
    assert tasks == [("generate_embedding",)]
    assert not rows(there, imported, "staged_objects", "deleted_objects", "webhook_events")
    elsewhere.tenants.delete(report.tenant.id)
    elsewhere.maintenance.remove_deleted_tenants(staged_older_than=timedelta())
    assert not rows(there, imported, "derivatives", "videos", "tasks")
    assert not list(listed(elsewhere.storage, report.tenant.s3_bucket))


def test_what_was_imported_gives_the_same_archive_again(made: Made, elsewhere: Mindia, tmp_path: Path) -> None:
    report = elsewhere.tenants.import_archive(made.archive)

    again = elsewhere.tenants.export(report.tenant.id, tmp_path / "again.zip")

    assert again.path.read_bytes() == made.archive.read_bytes()
    assert again.derivative_count == 5
    assert media_of(elsewhere.library(report.tenant))[0].id == made.cat.id
    elsewhere.tenants.delete(report.tenant.id)
    elsewhere.maintenance.remove_deleted_tenants(staged_older_than=timedelta())


def test_lines_say_what_was_made_of_which_item_and_each_stream_is_one_object(made: Made) -> None:
    parts = made.parts()

    assert parts.derivatives is not None
    assert [(each["media_id"], each["operations"]) for each in parts.derivatives[:2]] == [
        (str(made.cat.id), made.pictures[0].operations),
        (str(made.cat.id), made.pictures[1].operations),  # asked for of the copy, which has the same bytes
    ]
    assert parts.derivatives[0] == {
        "media_id": str(made.cat.id),
        "operations": made.pictures[0].operations,
        "file_size": made.pictures[0].file_size,
        "sha256": made.pictures[0].sha256,
        "files": [],
        "width": 20,
        "height": 15,
        "created_at": made.pictures[0].created_at.isoformat(),
    }
    stream = parts.made("hls")
    names = [file["name"] for file in stream["files"]]
    assert names == sorted(names)
    assert {MASTER, "48p/index.m3u8", "96p/segment_001.ts"} < set(names)
    assert b"".join(files_of(parts).values()) == parts.objects[stream["sha256"]]
    assert len(parts.objects) == 4 + 5


def test_without_what_was_made_an_archive_is_smaller_and_a_video_waits_to_be_encoded(
    made: Made, elsewhere: Mindia, there: Host, tmp_path: Path
) -> None:
    exported = made.app.tenants.export(made.library.tenant_id, tmp_path / "small.zip", derived=False)

    assert (exported.derivative_count, exported.object_count) == (0, 4)
    assert lines(members(exported.path)["derivatives.jsonl"]) == []
    _check_nothing_was_made(made, elsewhere, there, exported.path)


def test_an_archive_of_the_second_version_has_nothing_that_was_made_and_arrives_as_before(
    made: Made, elsewhere: Mindia, there: Host, tmp_path: Path
) -> None:
    _check_nothing_was_made(made, elsewhere, there, changed(made, tmp_path / "old.zip", Parts.set_second_version))


def _check_nothing_was_made(made: Made, elsewhere: Mindia, there: Host, path: Path) -> None:
    report = elsewhere.tenants.import_archive(path, keep_ids=False)

    imported = elsewhere.library(report.tenant)
    assert (report.media_count, report.derivative_count) == (5, 0)
    clip = imported.media.get(report.media_ids[made.clip.id], type=Video)
    assert (clip.processing_status, clip.hls_master_key) == (ProcessingStatus.PENDING, None)
    assert imported.media.derivatives(clip) == ()
    with pytest.raises(StreamNotReadyError):
        imported.media.hls_url(clip)
    with there.transaction():
        assert there.execute(
            "select count(*) from mindia.tasks where tenant_id = %s and task_type = 'video_transcode'",
            (report.tenant.id,),
        ).fetchone() == (1,)


@attrs.frozen
class Own:
    """A tenant that a test may damage."""

    app: Mindia
    library: Library
    folder: Path


@pytest.fixture
def own(made: Made) -> Own:
    """A tenant of the same archive, whose objects can be reached."""
    report = made.app.tenants.import_archive(made.archive, keep_ids=False)
    storage = made.app.storage
    assert isinstance(storage, LocalStorage)
    return Own(made.app, made.app.library(report.tenant), storage.root / report.tenant.s3_bucket)


def _item(library: Library, filename: str) -> Media:
    return library.media.find(filename=filename).items[0]


def _without(path: Path) -> None:
    path.unlink()


def _shorter(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def _other(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])


def missing(report: ExportReport) -> list[tuple[UUID | None, str]]:
    """Return what is named as missing."""
    assert all(each.reason for each in report.missing_derivatives)
    return [(each.media_id, each.operations) for each in report.missing_derivatives]


@pytest.mark.parametrize("damage", [_without, _shorter, _longer, _other])
def test_a_picture_that_is_not_as_it_was_made_is_left_out(
    own: Own, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    picture = own.library.media.derivatives(_item(own.library, "cat.jpg"))[0]
    damage(own.folder / picture.s3_key)

    report = own.app.tenants.export(own.library.tenant_id, tmp_path / "a.zip")

    assert (report.derivative_count, report.missing) == (4, ())
    assert missing(report) == [(picture.media_id, picture.operations)]
    parts = Parts.of(report.path)
    assert picture.operations not in {each["operations"] for each in parts.derivatives or ()}
    own.app.tenants.import_archive(report.path, keep_ids=False)


@pytest.mark.parametrize("damage", [_without, _shorter, _longer, _other])
@pytest.mark.parametrize("name", [MASTER, "48p/index.m3u8", "96p/segment_001.ts"])
def test_a_video_whose_stream_is_not_as_it_was_made_goes_out_as_one_that_is_not_encoded(
    own: Own, elsewhere: Mindia, tmp_path: Path, damage: Callable[[Path], None], name: str
) -> None:
    key = getattr(_item(own.library, "clip.mp4"), "hls_master_key", "")
    damage(own.folder / key.replace(MASTER, name))

    report = own.app.tenants.export(own.library.tenant_id, tmp_path / "a.zip")

    assert (report.derivative_count, report.media_count) == (4, 5)
    assert missing(report) == [(_item(own.library, "clip.mp4").id, "hls")]
    imported = elsewhere.library(elsewhere.tenants.import_archive(report.path, keep_ids=False).tenant)
    clip = _item(imported, "clip.mp4")
    assert isinstance(clip, Video)
    assert clip.processing_status is ProcessingStatus.PENDING


def test_a_file_that_is_none_of_a_stream_has_the_stream_left_out(own: Own, tmp_path: Path) -> None:
    key = getattr(_item(own.library, "clip.mp4"), "hls_master_key", "")
    (own.folder / key.replace(MASTER, "note.txt")).write_bytes(b"x")

    report = own.app.tenants.export(own.library.tenant_id, tmp_path / "a.zip")

    assert report.derivative_count == 4
    assert missing(report) == [(_item(own.library, "clip.mp4").id, "hls")]


def test_an_original_that_is_missing_takes_along_what_was_made_of_it(own: Own, tmp_path: Path) -> None:
    letter = _item(own.library, "letter.pdf")
    (own.folder / letter.s3_key).unlink()

    report = own.app.tenants.export(own.library.tenant_id, tmp_path / "a.zip")

    assert (report.derivative_count, report.media_count, report.missing) == (4, 4, (letter.id,))
    assert report.missing_derivatives == ()
    own.app.tenants.import_archive(report.path, keep_ids=False)


def test_copies_of_a_video_share_its_stream_and_it_goes_with_the_last_one(
    own: Own, elsewhere: Mindia, tmp_path: Path
) -> None:
    clip = _item(own.library, "clip.mp4")
    own.library.media.copy(clip, filename="second.mp4")
    own.library.media.copy(clip, filename="third.mp4")
    own.library.media.delete(clip)
    report = own.app.tenants.export(own.library.tenant_id, tmp_path / "a.zip")
    assert report.derivative_count == 5

    imported = elsewhere.library(elsewhere.tenants.import_archive(report.path, keep_ids=False).tenant)

    copies = [_item(imported, name) for name in ("second.mp4", "third.mp4")]
    assert {getattr(each, "processing_status", None) for each in copies} == {ProcessingStatus.COMPLETED}
    assert len({getattr(each, "hls_master_key", None) for each in copies}) == 1
    for each in copies:
        played(elsewhere, imported, each)
    bucket = elsewhere.tenants.get(imported.tenant_id).s3_bucket
    imported.media.delete(copies[0])
    sweep_all(elsewhere)
    played(elsewhere, imported, copies[1])
    imported.media.delete(copies[1])
    sweep_all(elsewhere)
    assert not [key for key in listed(elsewhere.storage, bucket) if key.endswith((".ts", ".m3u8"))]


def test_what_was_made_of_one_that_has_expired_since_goes_to_those_that_share_its_bytes(
    made: Made, elsewhere: Mindia, tmp_path: Path
) -> None:
    past = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    path = changed(made, tmp_path / "a.zip", lambda parts: parts.media[0].update(expires_at=past))

    report = elsewhere.tenants.import_archive(path, keep_ids=False)

    imported = elsewhere.library(report.tenant)
    assert (report.expired, report.derivative_count) == ((made.cat.id,), 5)
    assert len(imported.media.derivatives(report.media_ids[made.copied.id])) == 2


def test_what_was_made_of_one_that_has_expired_alone_is_left_out(made: Made, elsewhere: Mindia, tmp_path: Path) -> None:
    past = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    path = changed(made, tmp_path / "a.zip", lambda parts: parts.item("video").update(expires_at=past))

    report = elsewhere.tenants.import_archive(path, keep_ids=False)

    assert (report.expired, report.derivative_count) == ((made.clip.id,), 3)


def test_bytes_that_were_there_twice_with_copies_share_one_set_of_what_was_made(
    own: Own, elsewhere: Mindia, tmp_path: Path
) -> None:
    again = own.library.media.add(samples.image(), filename="again.jpg")
    own.library.media.copy(again, filename="again_copy.jpg")
    own.library.media.derive(again.id, Resize(20))
    report = own.app.tenants.export(own.library.tenant_id, tmp_path / "a.zip")
    assert report.derivative_count == 6

    imported = elsewhere.tenants.import_archive(report.path, keep_ids=False)

    library = elsewhere.library(imported.tenant)
    assert imported.derivative_count == 5
    assert len(library.media.derivatives(_item(library, "again_copy.jpg"))) == 2
    sweep_all(elsewhere)
    assert len([key for key in listed(elsewhere.storage, imported.tenant.s3_bucket) if "picture." in key]) == 4


def test_what_can_be_measured_is_measured_whatever_an_archive_says(
    made: Made, elsewhere: Mindia, tmp_path: Path
) -> None:
    path = changed(made, tmp_path / "a.zip", lambda parts: parts.made("resize").update(width=9999, height=None))

    report = elsewhere.tenants.import_archive(path, keep_ids=False)

    picture = elsewhere.library(report.tenant).media.derivatives(report.media_ids[made.cat.id])[0]
    assert (picture.width, picture.height) == (20, 15)


def test_a_picture_beyond_the_limit_of_the_installation_is_refused(
    made: Made, application_url: str, roles: Roles, tmp_path: Path
) -> None:
    settings = attrs.evolve(QUICK, worker_role=roles.worker, max_derivative_pixels=299)
    with (
        mindia.connect(application_url, storage=LocalStorage(tmp_path / "there"), settings=settings) as strict,
        pytest.raises(TooLargeError, match=r"\d+ x \d+ pixels; the limit is 299 \(Settings\.max_derivative_pixels\)"),
    ):
        strict.tenants.import_archive(made.archive, keep_ids=False)


def test_the_scan_of_the_installation_sees_pictures_and_streams_are_made_anew_where_there_is_one(
    made: Made, application_url: str, roles: Roles, tmp_path: Path
) -> None:
    seen: list[str] = []

    def scan(_: object, candidate: mindia.Candidate) -> None:
        seen.append(candidate.sha256)
        if len(seen) > 8:
            raise RejectedError("that is enough")

    settings = attrs.evolve(QUICK, worker_role=roles.worker)
    storage = LocalStorage(tmp_path / "there")
    with mindia.connect(application_url, storage=storage, settings=settings, scan=scan) as scanning:
        report = scanning.tenants.import_archive(made.archive, keep_ids=False)

        assert {picture.sha256 for picture in made.pictures} < set(seen)
        assert report.derivative_count == 4
        clip = scanning.library(report.tenant).media.get(report.media_ids[made.clip.id], type=Video)
        assert clip.processing_status is ProcessingStatus.PENDING
        with pytest.raises(RejectedError):
            scanning.tenants.import_archive(made.archive, keep_ids=False)


@pytest.mark.parametrize("name", DERIVED)
def test_what_was_made_and_means_harm_is_refused_and_leaves_nothing(
    made: Made, elsewhere: Mindia, tmp_path: Path, name: str
) -> None:
    hostile = DERIVED[name]
    path = tmp_path / "inner" / "hostile.zip"
    path.parent.mkdir()
    path.write_bytes(hostile.make(made.parts()))
    before = {tenant.id for tenant in elsewhere.tenants.list()}
    threads = set(threading.enumerate())
    outside = {each for each in Path("/tmp").iterdir() if "evil" in each.name}

    with pytest.raises(hostile.error, match=hostile.says) as caught:
        elsewhere.tenants.import_archive(path, keep_ids=False)

    assert type(caught.value) is hostile.error
    assert "derivatives.jsonl" in " ".join([str(caught.value), *getattr(caught.value, "__notes__", [])]) or (
        "of no item" in str(caught.value)
    )
    assert len(str(caught.value)) < 1000
    assert {tenant.id for tenant in elsewhere.tenants.list()} == before
    assert {each.name for each in tmp_path.rglob("*")} == {"inner", "hostile.zip"}
    assert outside == {each for each in Path("/tmp").iterdir() if "evil" in each.name}
    assert not [thread for thread in set(threading.enumerate()) - threads if "mindia-import" in thread.name]
    elsewhere.maintenance.remove_deleted_tenants(staged_older_than=timedelta())
    assert isinstance(elsewhere.storage, LocalStorage)
    left = {folder.name for folder in elsewhere.storage.root.iterdir()}
    assert left <= {tenant.s3_bucket for tenant in elsewhere.tenants.list()}


def test_more_of_what_was_made_than_the_limit_is_refused(made: Made, elsewhere: Mindia, tmp_path: Path) -> None:
    def add(parts: Parts) -> None:
        assert parts.derivatives is not None
        parts.derivatives.append(parts.made("resize") | {"operations": "to_format-webp_quality-7"})

    path = changed(made, tmp_path / "many.zip", add)

    with pytest.raises(ArchiveError, match=r"line 6 of derivatives\.jsonl: the limit is 5 lines: raise max_items"):
        elsewhere.tenants.import_archive(path, keep_ids=False, max_items=5)
    assert elsewhere.tenants.import_archive(path, keep_ids=False, max_items=6).derivative_count == 6


def test_connections_that_break_at_any_commit_are_not_noticed_and_nothing_is_there_twice(
    made: Made, there_url: str, there: Host, tmp_path: Path
) -> None:
    with (
        Proxy(there_url) as proxy,
        mindia.connect(proxy.url, storage=LocalStorage(tmp_path / "there"), settings=QUICK) as behind,
    ):
        behind.check()
        for commit in range(100):
            proxy.cut_at(Words.COMMIT, Moment.ANSWERED, skip=commit)

            report = behind.tenants.import_archive(made.archive, keep_ids=False)

            imported = behind.library(report.tenant)
            if proxy.cuts_left:  # there are no more commits
                break
            assert report.derivative_count == 5
            assert rows(there, imported, "derivatives", "staged_objects", "tasks") == {"derivatives": 5, "tasks": 5}
            clip = imported.media.get(report.media_ids[made.clip.id], type=Video)
            assert clip.processing_status is ProcessingStatus.COMPLETED
    assert commit > 5


def test_a_stream_of_fragments_of_mp4_arrives_as_well(
    made: Made, application_url: str, roles: Roles, elsewhere: Mindia, tmp_path: Path
) -> None:
    settings = attrs.evolve(QUICK, worker_role=roles.worker, hls_segments="fmp4", hls_ladder=("48p@100k",))
    with mindia.connect(application_url, storage=LocalStorage(tmp_path / "here"), settings=settings) as app:
        library = app.library(app.tenants.create("Acme"))
        clip = library.media.add(samples.video(seconds=1), filename="clip.mp4")
        encode(library, clip)
        report = app.tenants.export(library.tenant_id, tmp_path / "a.zip")
        assert report.derivative_count == 1
        names = [file["name"] for file in Parts.of(report.path).made("hls")["files"]]

    imported = elsewhere.library(elsewhere.tenants.import_archive(report.path, keep_ids=False).tenant)

    assert isinstance(made.cat, Image)
    key = getattr(_item(imported, "clip.mp4"), "hls_master_key", "")
    bucket = elsewhere.tenants.get(imported.tenant_id).s3_bucket
    prefix = key.removesuffix(MASTER)
    assert [each.removeprefix(prefix) for each in listed(elsewhere.storage, bucket) if each.startswith(prefix)] == names
    assert any("init" in name for name in names)
