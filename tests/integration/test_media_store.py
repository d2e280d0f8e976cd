"""Media go in from any source, come out as they went in, and whatever is refused leaves nothing behind."""

from __future__ import annotations

import base64
import hashlib
import io
import logging
import os
import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, BinaryIO, assert_type
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mindia
from mindia import (
    Audio,
    Document,
    Image,
    Library,
    LibraryTransaction,
    LocalStorage,
    Media,
    MediaKind,
    MediaPage,
    Mindia,
    ProcessingStatus,
    Settings,
    Tenant,
    Video,
)
from mindia._ids import uuid7
from mindia.domain.media import Metadata
from mindia.errors import (
    CorruptMediaError,
    DatabaseError,
    EmptyFileError,
    InvalidError,
    MindiaError,
    NotFoundError,
    ObjectNotFoundError,
    StagedObjectExpiredError,
    StorageError,
    TenantInactiveError,
    TooLargeError,
    TypeMismatchError,
    UnsupportedTypeError,
)
from mindia.testing import samples
from mindia.testing.storage import listed

Host = psycopg.Connection[tuple[Any, ...]]

TABLES = ["images", "videos", "audios", "documents", "search_documents", "tasks", "webhook_events", "deleted_objects"]


@pytest.fixture
def other(app: Mindia) -> Library:
    """Another tenant's library."""
    return app.library(app.tenants.create("Globex"))


@pytest.fixture
def host(database_url: str) -> Iterator[Host]:
    """A connection of the host's own, each of whose statements sees what is committed."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def rows(host: Host, library: Library, *tables: str) -> dict[str, int]:
    """How many rows of the tenant there are, in the tables that have some."""
    found = {}
    for table in tables or TABLES:
        query = f"select count(*) from mindia.{table} where tenant_id = %s"
        counted = host.execute(query, (library.tenant_id,)).fetchone()
        assert counted is not None
        if counted[0]:
            found[table] = counted[0]
    return found


class Undo(Exception):  # noqa: N818 - what it does
    pass


@contextmanager
def rolled_back(library: Library) -> Iterator[LibraryTransaction]:
    """A transaction that is rolled back at its end."""
    with suppress(Undo), library.transaction() as tx:
        yield tx
        raise Undo


def sweep_all(app: Mindia) -> None:
    app.maintenance.sweep_staged(older_than=timedelta())
    app.maintenance.remove_deleted()


def four_kinds(library: Library) -> list[Media]:
    return [
        library.media.add(samples.image(), filename="a.jpg"),
        library.media.add(samples.video(seconds=0.2, audio_codec=None), filename="b.mp4"),
        library.media.add(samples.wav(seconds=0.1), filename="c.wav"),
        library.media.add(samples.pdf(), filename="d.pdf"),
    ]


# What goes in


class Named(io.BytesIO):
    name = "/some/where/cat.jpg"


class Numbered(io.BytesIO):
    name = 7


SOURCES: dict[str, tuple[Callable[[bytes, Path], Any], str]] = {
    "str path": (lambda _, path: str(path), "cat.jpg"),
    "path": (lambda _, path: path, "cat.jpg"),
    "bytes": (lambda content, _: content, "unnamed"),
    "bytearray": (lambda content, _: bytearray(content), "unnamed"),
    "memoryview": (lambda content, _: memoryview(content), "unnamed"),
    "memoryview with gaps": (
        lambda content, _: memoryview(bytes(byte for pair in zip(content, content, strict=True) for byte in pair))[::2],
        "unnamed",
    ),
    "buffered file": (lambda _, path: path.open("rb"), "cat.jpg"),
    "raw file": (lambda _, path: path.open("rb", buffering=0), "cat.jpg"),
    "file of a descriptor": (lambda _, path: os.fdopen(os.open(path, os.O_RDONLY), "rb"), "unnamed"),
    "BytesIO": (lambda content, _: io.BytesIO(content), "unnamed"),
    "file object with a name": (lambda content, _: Named(content), "cat.jpg"),
    "file object with a number": (lambda content, _: Numbered(content), "unnamed"),
}


@pytest.mark.parametrize(("make", "filename"), SOURCES.values(), ids=SOURCES)
def test_a_source_may_be_a_path_bytes_or_a_binary_file(
    library: Library, tmp_path: Path, make: Callable[[bytes, Path], Any], filename: str
) -> None:
    content = samples.image(width=33, height=22)
    path = tmp_path / "cat.jpg"
    path.write_bytes(content)
    source = make(content, path)

    item = library.media.add(source)

    assert isinstance(item, Image)
    assert (item.width, item.height) == (33, 22)
    assert item.filename == item.original_filename == filename
    assert item.content_type == "image/jpeg"
    assert item.file_size == len(content)
    assert item.sha256 == hashlib.sha256(content).hexdigest()
    assert library.media.read(item) == content
    if isinstance(source, io.IOBase):
        assert not source.closed, "it was opened by somebody else"
        source.close()


def test_a_file_is_read_from_its_position_to_its_end(library: Library) -> None:
    content = samples.image()
    file = io.BytesIO(b"header" + content)
    file.seek(6)

    item = library.media.add(file, filename="cat.jpg")

    assert library.media.read(item) == content
    assert file.tell() == 6 + len(content)


def test_the_filename_that_is_given_counts_more_than_that_of_the_file(library: Library, tmp_path: Path) -> None:
    path = tmp_path / "upload.tmp"
    path.write_bytes(samples.image())

    item = library.media.add(path, filename="../holiday/Cat on\u202e windowsill.jpg")

    assert item.filename == "Cat on windowsill.jpg"
    assert item.original_filename == "../holiday/Cat on\u202e windowsill.jpg"


@pytest.mark.parametrize(
    ("given_name", "filename", "original"),
    [
        ("a" * 4096 + ".jpg", "a" * 251 + ".jpg", "a" * 255),
        ("ca\0t.jpg", "cat.jpg", "ca\ufffdt.jpg"),
        ("cat\udcff.jpg", "cat.jpg", "cat?.jpg"),
        ("///", "unnamed", "///"),
        ("", "unnamed", "unnamed"),
        ("תמונה.jpg", "תמונה.jpg", "תמונה.jpg"),
    ],
    ids=["long", "NUL", "surrogate", "slashes", "empty", "right to left"],
)
def test_any_filename_can_be_stored(library: Library, given_name: str, filename: str, original: str) -> None:
    item = library.media.add(samples.image(), filename=given_name)

    assert (item.filename, item.original_filename) == (filename, original)
    assert library.media.get(item.id) == item


def test_a_path_that_is_not_unicode_is_a_path(library: Library, tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9.jpg"
    try:
        with open(path, "wb") as file:  # noqa: PTH123 - of bytes
            file.write(samples.image())
    except OSError:
        pytest.skip("this file system takes Unicode only")

    item = library.media.add(Path(os.fsdecode(path)))

    assert item.filename == "caf.jpg"
    assert library.media.get(item.id) == item


def test_what_add_returns_is_what_get_returns(library: Library) -> None:
    later = datetime.now(timezone(timedelta(hours=5))) + timedelta(days=1)
    metadata: Metadata = {"place": "Lisbon", "year": 2024, "tags": ["a", {"b": None}], "ratio": 1.5, "huge": 1e23}
    for made in (
        *four_kinds(library),
        library.media.add(samples.image(), filename="e.jpg", metadata=metadata, expires_at=later),
    ):
        assert library.media.get(made.id) == made
        assert made.uploaded_at.tzinfo is not None
        assert made.uploaded_at.utcoffset() == timedelta()
        assert made.updated_at == made.uploaded_at


def test_each_kind_has_its_facts(library: Library) -> None:
    image = library.media.add(samples.image(orientation=6), filename="a.jpg")
    video = library.media.add(samples.video(seconds=2.0), filename="b.mp4")
    audio = library.media.add(samples.wav(seconds=0.5, channels=2), filename="c.wav")
    document = library.media.add(samples.pdf(["one", "two"]), filename="d.pdf")

    assert isinstance(image, Image)
    assert (image.kind, image.width, image.height) == (MediaKind.IMAGE, 48, 64)
    assert isinstance(video, Video)
    assert (video.kind, video.width, video.height) == (MediaKind.VIDEO, 128, 96)
    assert video.duration == pytest.approx(2.0, abs=0.15)
    assert video.processing_status is ProcessingStatus.PENDING
    assert video.hls_master_key is None
    assert isinstance(audio, Audio)
    assert (audio.kind, audio.duration, audio.channels) == (MediaKind.AUDIO, 0.5, 2)
    assert (audio.sample_rate, audio.bitrate) == (16_000, 512_000)
    assert isinstance(document, Document)
    assert (document.kind, document.page_count) == (MediaKind.DOCUMENT, 2)


def test_the_same_bytes_twice_are_two_items(library: Library, tenant: Tenant, storage: LocalStorage) -> None:
    one, other = (library.media.add(samples.image(), filename="cat.jpg") for _ in range(2))

    assert one.id != other.id
    assert one.sha256 == other.sha256
    assert len(listed(storage, tenant.s3_bucket)) == 2


def test_many_threads_may_add_at_once(library: Library, tenant: Tenant, storage: LocalStorage) -> None:
    together = threading.Barrier(4)

    def work(number: int) -> list[Media]:
        together.wait(30)
        return [
            library.media.add(samples.image(width=number + 1), filename=f"{number}-{turn}.jpg") for turn in range(8)
        ]

    with ThreadPoolExecutor(4) as pool:
        added = [item for items in pool.map(work, range(4)) for item in items]

    assert len({item.id for item in added}) == 32
    assert {item.id for item in library.media.find(limit=100)} == {item.id for item in added}
    assert set(listed(storage, tenant.s3_bucket)) == {item.s3_key for item in added}
    for item in added:
        assert hashlib.sha256(library.media.read(item)).hexdigest() == item.sha256


# Staging


def test_what_was_staged_becomes_an_item_when_it_is_added(library: Library, host: Host) -> None:
    content = samples.image()
    staged = library.media.stage(content, filename="cat.jpg", content_type="image/jpeg")

    assert staged.kind is MediaKind.IMAGE
    assert (staged.filename, staged.content_type, staged.file_size) == ("cat.jpg", "image/jpeg", len(content))
    assert not library.media.find()
    assert rows(host, library) == {}
    with pytest.raises(NotFoundError):
        library.media.get(staged.id)

    item = library.media.add(staged, description="on a windowsill", metadata={"place": "Lisbon"})

    assert item.id == staged.id
    assert item.sha256 == staged.sha256
    assert item.metadata == {"place": "Lisbon"}
    assert library.media.read(item) == content
    assert [found.media for found in library.search("windowsill")] == [item]


def test_what_was_staged_can_be_added_by_another_process(app: Mindia, library: Library, tenant: Tenant) -> None:
    staged = pickle.loads(pickle.dumps(library.media.stage(samples.image(), filename="cat.jpg")))

    item = app.library(tenant.id).media.add(staged)

    assert library.media.get(item.id) == item


def test_what_was_staged_is_added_once(library: Library, tenant: Tenant, storage: LocalStorage) -> None:
    staged = library.media.stage(samples.image(), filename="cat.jpg")
    item = library.media.add(staged)

    with pytest.raises(StagedObjectExpiredError, match=r"'cat\.jpg'.*added already"):
        library.media.add(staged)

    assert library.media.find().items == (item,)
    assert library.media.read(item) == samples.image()
    assert list(listed(storage, tenant.s3_bucket)) == [item.s3_key]


def test_of_two_that_add_the_same_at_once_one_is_refused(library: Library) -> None:
    staged = library.media.stage(samples.image(), filename="cat.jpg")
    together = threading.Barrier(2)

    def work(_: int) -> Media | MindiaError:
        together.wait(30)
        try:
            return library.media.add(staged)
        except MindiaError as error:
            return error

    with ThreadPoolExecutor(2) as pool:
        ended = list(pool.map(work, range(2)))

    assert {type(each) for each in ended} == {Image, StagedObjectExpiredError}
    assert len(library.media.find()) == 1
    library.media.read(staged.id)


def test_what_another_tenant_staged_is_not_found(library: Library, other: Library) -> None:
    staged = library.media.stage(samples.image(), filename="cat.jpg")

    with pytest.raises(NotFoundError, match=str(staged.id)):
        other.media.add(staged)

    assert not other.media.find()
    library.media.add(staged)


def test_what_was_staged_and_swept_cannot_be_added(app: Mindia, library: Library) -> None:
    staged = library.media.stage(samples.image(), filename="cat.jpg")
    sweep_all(app)

    with pytest.raises(StagedObjectExpiredError, match="stage the bytes again"):
        library.media.add(staged)

    assert not library.media.find()


def test_what_was_staged_has_its_name_and_type_already(library: Library) -> None:
    staged = library.media.stage(samples.image(), filename="cat.jpg")

    with pytest.raises(InvalidError, match="settled by stage"):
        library.media.add(staged, filename="dog.jpg")
    with pytest.raises(InvalidError, match="settled by stage"):
        library.media.add(staged, content_type="image/jpeg")

    assert library.media.add(staged).filename == "cat.jpg"


def test_what_was_staged_and_not_added_goes_with_the_sweep(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, host: Host
) -> None:
    staged = library.media.stage(samples.image())
    assert list(listed(storage, tenant.s3_bucket)) == [f"originals/{staged.id}"]

    sweep_all(app)

    assert listed(storage, tenant.s3_bucket) == {}
    assert rows(host, library, "staged_objects") == {}


def test_a_staged_object_is_added_in_the_transaction_of_the_host(library: Library, host: Host) -> None:
    staged = library.media.stage(samples.image(), filename="cat.jpg")

    with library.transaction() as tx:
        item = tx.media.add(staged)
        assert tx.media.get(item.id) == item
        assert rows(host, library) == {}

    assert rows(host, library) == {"images": 1, "search_documents": 1, "tasks": 1}
    assert library.media.get(item.id) == item


# What comes out


def test_an_item_can_be_asked_for_by_its_kind(library: Library) -> None:
    image, video, audio, document = four_kinds(library)

    assert_type(library.media.get(image.id), Media)
    assert_type(library.media.get(image.id, type=Image), Image)
    assert_type(library.media.get(video.id, type=Video), Video)
    assert_type(library.media.get(audio.id, type=Audio), Audio)
    assert_type(library.media.get(document.id, type=Document), Document)
    assert_type(library.media.find(), MediaPage)
    assert_type(library.media.add(library.media.stage(samples.image())), Media)
    assert_type(library.media.open(image), BinaryIO).close()
    assert_type(library.media.read(image), bytes)

    kinds: list[type[Image] | type[Video] | type[Audio] | type[Document]] = [Image, Video, Audio, Document]
    for item in (image, video, audio, document):
        for kind in kinds:
            if isinstance(item, kind):
                assert library.media.get(item.id, type=kind) == item
            else:
                with pytest.raises(NotFoundError, match=f"there is no {kind.__name__.lower()} {item.id}"):
                    library.media.get(item.id, type=kind)


def test_what_is_not_there_or_is_another_tenants_is_not_found(library: Library, other: Library) -> None:
    theirs = other.media.add(samples.image(), filename="cat.jpg")
    calls: list[Callable[[UUID], object]] = [
        library.media.get,
        library.media.open,
        library.media.read,
        library.media.delete,
        lambda media_id: library.media.get(media_id, type=Image),
    ]

    for media_id in (uuid7(), theirs.id):
        for call in calls:
            with pytest.raises(NotFoundError, match=str(media_id)) as raised:
                call(media_id)
            assert isinstance(raised.value, LookupError)
    for call_with_item in (library.media.open, library.media.read, library.media.delete):
        with pytest.raises(NotFoundError, match=str(theirs.id)):
            call_with_item(theirs)

    assert not library.media.find()
    assert other.media.get(theirs.id) == theirs


def test_the_bytes_of_an_item_can_be_sought(library: Library) -> None:
    content = samples.image()
    item = library.media.add(content)

    with library.media.open(item.id) as file:
        assert file.read(4) == content[:4]
        file.seek(-10, os.SEEK_END)
        assert file.read() == content[-10:]
        file.seek(100)
        assert file.read(50) == content[100:150]


def test_bytes_that_are_gone_from_the_store_are_an_error_of_the_store(
    library: Library, tenant: Tenant, storage: LocalStorage
) -> None:
    item = library.media.add(samples.image())
    storage.delete(tenant.s3_bucket, [item.s3_key])

    with pytest.raises(ObjectNotFoundError, match=item.s3_key):
        library.media.open(item)
    with pytest.raises(StorageError):
        library.media.read(item)


def pages(library: Library, *, limit: int, kind: MediaKind | str | None = None) -> Iterator[MediaPage]:
    after = None
    while True:
        page = library.media.find(kind=kind, limit=limit, after=after)
        yield page
        after = page.next
        if after is None:
            return


def test_every_item_is_on_exactly_one_page_whatever_its_length(library: Library, other: Library) -> None:
    added = [item for _ in range(2) for item in four_kinds(library)]
    with library.transaction() as tx:  # all of one moment
        added += [tx.media.add(samples.image(), filename=f"{number}.jpg") for number in range(4)]
    four_kinds(other)
    newest_first = added[::-1]

    for limit in range(1, len(added) + 2):
        found = list(pages(library, limit=limit))

        assert [item for page in found for item in page] == newest_first
        assert [len(page) for page in found[:-1]] == [limit] * (len(found) - 1)
        assert 1 <= len(found[-1]) <= limit


@pytest.mark.parametrize("kind", list(MediaKind))
def test_items_can_be_found_by_kind(library: Library, kind: MediaKind) -> None:
    added = [item for _ in range(3) for item in four_kinds(library)]
    expected = [item for item in reversed(added) if item.kind is kind]

    assert list(library.media.find(kind=kind)) == expected
    assert list(library.media.find(kind=str(kind))) == expected
    for limit in (1, 2, 3):
        assert [item for page in pages(library, limit=limit, kind=kind) for item in page] == expected


def test_pages_are_stable_while_items_are_added_and_deleted(library: Library) -> None:
    added = [library.media.add(samples.image(), filename=f"{number}.jpg") for number in range(9)]
    seen: list[Media] = []

    for number, page in enumerate(pages(library, limit=2)):
        seen += page
        library.media.add(samples.image(), filename=f"later-{number}.jpg")
        if number == 1:
            library.media.delete(added[8])  # seen before
            library.media.delete(added[5])  # the place that the page ended at has another item
            library.media.delete(added[3])  # not seen yet

    assert seen == [item for item in reversed(added) if item != added[3]]


def test_a_place_survives_the_item_that_it_names(library: Library) -> None:
    added = [library.media.add(samples.image(), filename=f"{number}.jpg") for number in range(4)]
    first = library.media.find(limit=2)
    library.media.delete(first[1])

    assert list(library.media.find(limit=2, after=first.next)) == [added[1], added[0]]


def test_a_page_is_a_sequence(library: Library) -> None:
    assert library.media.find() == MediaPage(())
    added = four_kinds(library)
    page = library.media.find(limit=3)

    assert len(page) == 3
    assert page[0] == added[3]
    assert page[1:] == (added[2], added[1])
    assert list(page) == list(page.items)
    assert page.next is not None
    assert library.media.find(limit=4).next is None
    assert not library.media.find(after=library.media.find(limit=3, after=page.next).next or page.next).next


def place(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    "after",
    [
        "",
        " ",
        "nonsense",
        "äöü",
        "=====",
        "\0",
        place(""),
        place("now"),
        place(f"2024-01-01T00:00:00+00:00 {'x' * 36}"),
        place("2024-01-01T00:00:00+00:00"),
        place(f"2024-01-01T00:00:00 {uuid7()}"),
        place(f"2024-13-01T00:00:00+00:00 {uuid7()}"),
        place(f"{uuid7()} 2024-01-01T00:00:00+00:00"),
        place(f"2024-01-01T00:00:00+00:00 {uuid7()} 1"),
        place("' or 1=1 --"),
        base64.urlsafe_b64encode(b"\xff\xfe").decode(),
        "x" * 10_000,
    ],
)
def test_a_place_that_no_page_has_named_is_refused(library: Library, after: str) -> None:
    with pytest.raises(InvalidError, match="`next` of a page"):
        library.media.find(after=after)


@pytest.mark.parametrize("limit", [0, -1, 1001, 10**12])
def test_a_limit_out_of_range_is_refused(library: Library, limit: int) -> None:
    with pytest.raises(InvalidError, match=f"1 to 1000, not {limit}"):
        library.media.find(limit=limit)


@pytest.mark.parametrize("kind", ["", "picture", "Image", "images", "image'; drop table x"])
def test_a_kind_that_does_not_exist_is_refused(library: Library, kind: str) -> None:
    with pytest.raises(InvalidError, match="kind must be one of image, video, audio, document"):
        library.media.find(kind=kind)


# What is said about it


def test_description_and_metadata_are_stored_and_searched(app: Mindia, library: Library) -> None:
    library.media.add(samples.image(), filename="dog.jpg", description="a dog", metadata={"place": "Porto"})
    item = library.media.add(
        samples.image(),
        filename="IMG_0042.jpg",
        description="A cat sleeping on a windowsill",
        metadata={"place": "Lisbon", "people": ["Amália"], "inner": {"note": "birthday"}, "year": 1987},
    )

    for query in ("windowsill", "sleeps", "lisbon", "amália", "birthday", "1987"):
        assert [found.media for found in library.search(query)] == [item], query
    app.run_until_idle()
    assert library.search("cat windowsill")[0].media == item


def test_the_text_of_a_document_is_searched(library: Library) -> None:
    item = library.media.add(samples.pdf(["The quarterly report", "of the llama farm"]), filename="a.pdf")

    assert [found.media for found in library.search("llamas")] == [item]


@pytest.mark.parametrize(
    "description", ["a\0b windowsill", "\ud800 windowsill", "windowsill 🐈 \u202e\x01", "' \" \\ windowsill"]
)
def test_a_description_may_have_any_character(library: Library, description: str) -> None:
    item = library.media.add(samples.image(), description=description)

    assert [found.media for found in library.search("windowsill")] == [item]


def test_a_long_text_does_not_keep_an_item_out(library: Library) -> None:
    words = " ".join(f"{number:x}" for number in range(2**28, 2**28 + 150_000))

    item = library.media.add(samples.image(), description=f"windowsill {words}")

    assert [found.media for found in library.search("windowsill")] == [item]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.text(max_size=9), JSON, max_size=4))
def test_metadata_is_read_as_it_was_returned(library: Library, metadata: dict[str, Any]) -> None:
    staged = library.media.stage(samples.image(width=8, height=8))
    try:
        item = library.media.add(staged, metadata=metadata)
    except InvalidError:
        return

    assert library.media.get(item.id).metadata == item.metadata


# Expiry


def test_an_item_that_has_expired_is_never_found(app: Mindia, library: Library) -> None:
    item = library.media.add(
        samples.image(), filename="windowsill.jpg", expires_at=datetime.now(UTC) - timedelta(seconds=1)
    )

    def nothing_is_found() -> None:
        for call in (library.media.get, library.media.open, library.media.read, library.media.delete):
            with pytest.raises(NotFoundError, match=str(item.id)):
                call(item.id)
        assert not library.media.find()
        assert not library.media.find(kind="image")
        assert not library.search("windowsill")

    nothing_is_found()
    app.run_until_idle()
    nothing_is_found()


def test_an_item_is_found_until_it_expires(app: Mindia, library: Library, host: Host) -> None:
    item = library.media.add(
        samples.image(), filename="windowsill.jpg", expires_at=datetime.now(UTC) + timedelta(hours=1)
    )
    app.run_until_idle()
    assert library.media.get(item.id) == item
    assert list(library.media.find()) == [item]
    assert [found.media for found in library.search("windowsill")] == [item]

    host.execute("update mindia.images set expires_at = now() where id = %s", (item.id,))

    assert not library.media.find()
    assert not library.search("windowsill")
    assert not library.search("wndowsill")
    with pytest.raises(NotFoundError):
        library.media.get(item.id)


# Deletion


@pytest.mark.parametrize("by_id", [True, False], ids=["by id", "by item"])
def test_a_deleted_item_is_gone_at_once_and_its_bytes_soon_after(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, host: Host, by_id: bool
) -> None:
    kept, *gone = four_kinds(library)
    app.run_until_idle()

    for item in gone:
        library.media.delete(item.id if by_id else item)

    assert list(library.media.find()) == [kept]
    for item in gone:
        with pytest.raises(NotFoundError, match=str(item.id)):
            library.media.delete(item)
    assert rows(host, library, "images", "videos", "audios", "documents", "search_documents", "embeddings") == {
        "images": 1,
        "search_documents": 1,
        "embeddings": 1,
    }

    app.maintenance.remove_deleted()

    assert list(listed(storage, tenant.s3_bucket)) == [kept.s3_key]
    assert rows(host, library, "deleted_objects") == {}


def test_an_item_can_be_deleted_before_it_was_worked_on(app: Mindia, library: Library, host: Host) -> None:
    library.media.delete(library.media.add(samples.image(), filename="cat.jpg"))

    assert rows(host, library) == {"deleted_objects": 1}
    app.run_until_idle()
    assert rows(host, library) == {}


def test_a_deletion_that_is_rolled_back_has_not_happened(app: Mindia, library: Library) -> None:
    item = library.media.add(samples.image(), filename="cat.jpg")

    with rolled_back(library) as tx:
        tx.media.delete(item)
        with pytest.raises(NotFoundError):
            tx.media.get(item.id)

    app.run_until_idle()
    assert library.media.get(item.id) == item
    assert library.media.read(item) == samples.image()


# What is refused


class Unplugged(io.BytesIO):
    """Gives the beginning of a file, then fails."""

    def read(self, _: int | None = -1) -> bytes:
        return super().read(100) or self._fail()

    def _fail(self) -> bytes:
        raise OSError(5, "unplugged")


def endless(beginning: bytes) -> BinaryIO:
    class Endless(io.RawIOBase):
        given = 0

        def read(self, size: int = -1) -> bytes:
            assert 0 < size <= 1 << 20
            assert self.given < 50_000_000, "the source is read to an end that it has not"
            piece = beginning if not self.given else bytes(size)
            self.given += len(piece)
            return piece

    return Endless()  # type: ignore[return-value]  # it reads, that is enough


HALF_JPEG = samples.image()[: len(samples.image()) // 2]

REFUSED: dict[str, tuple[Callable[[Path], Any], dict[str, Any], type[Exception], str]] = {
    "empty": (lambda _: b"", {}, EmptyFileError, "'x.jpg' is empty"),
    "empty file": (lambda _: io.BytesIO(), {}, EmptyFileError, "'x.jpg' is empty"),
    "unknown type": (lambda _: b"MZ" + bytes(500), {}, UnsupportedTypeError, "'x.jpg' begins with b'MZ"),
    "unknown type, large": (lambda _: endless(b"MZ"), {}, UnsupportedTypeError, "'x.jpg' begins with b'MZ"),
    "svg called mp4": (lambda _: b"<svg/>", {"filename": "x.mp4"}, UnsupportedTypeError, "b'<svg"),
    "playlist called mp4": (lambda _: b"#EXTM3U\n/etc/passwd", {"filename": "x.mp4"}, UnsupportedTypeError, "EXTM3U"),
    "truncated": (lambda _: HALF_JPEG, {}, CorruptMediaError, "'x.jpg' cannot be read as image/jpeg"),
    "broken pdf": (lambda _: b"%PDF-1.4 broken", {"filename": "x.pdf"}, CorruptMediaError, "application/pdf"),
    "name of another type": (lambda _: samples.image("PNG"), {}, TypeMismatchError, "image/png"),
    "declared as another type": (
        lambda _: samples.image(), {"content_type": "image/png"}, TypeMismatchError, "declared as 'image/png'",
    ),
    "too many pixels": (
        lambda _: samples.image("PNG", width=2001, height=500), {"filename": "x.png"}, TooLargeError, "2001 x 500",
    ),
    "too many bytes": (lambda _: samples.image() + bytes(50_000), {}, TooLargeError, "limit for image is 50000"),
    "without end": (lambda _: endless(samples.image()), {}, TooLargeError, "limit for image is 50000"),
    "no such path": (lambda folder: folder / "none.jpg", {}, InvalidError, "none.jpg' cannot be read: No such file"),
    "folder": (lambda folder: folder, {}, InvalidError, "cannot be read: Is a directory"),
    "path with NUL": (lambda _: "a\0b.jpg", {}, InvalidError, "cannot be read"),
    "text": (lambda _: io.StringIO("text"), {}, InvalidError, "reading bytes"),
    "file in text mode": (lambda folder: (folder / "cat.jpg").open(encoding="utf-8"), {}, InvalidError, "mode 'rb'"),
    "number": (lambda _: 7, {}, InvalidError, "not int"),
    "none": (lambda _: None, {}, InvalidError, "not NoneType"),
    "list": (lambda _: [b"1"], {}, InvalidError, "not list"),
    "source that fails": (lambda _: Unplugged(samples.image()), {}, OSError, "unplugged"),
    "metadata with NUL": (lambda _: samples.image(), {"metadata": {"a": "\0"}}, InvalidError, "NUL"),
    "metadata without end": (
        lambda _: samples.image(), {"metadata": dict.fromkeys(map(str, range(10_000)))}, InvalidError, "10000 keys",
    ),
    "metadata that is none": (lambda _: samples.image(), {"metadata": ["a"]}, InvalidError, "not list"),
    "expiry without time zone": (
        lambda _: samples.image(), {"expires_at": datetime(2999, 1, 1)}, InvalidError, "time zone",  # noqa: DTZ001
    ),
}  # fmt: skip


@pytest.fixture
def strict(database_url: str, storage: LocalStorage, tmp_path: Path) -> Iterator[Mindia]:
    """An application of small limits, whose incoming bytes wait in a folder that can be looked into."""
    spool = tmp_path / "spool"
    spool.mkdir()
    limits = Settings(max_image_bytes=50_000, max_image_pixels=1_000_000, spool_folder=spool, spool_memory_bytes=1)
    with mindia.connect(database_url, storage=storage, settings=limits) as app:
        yield app


def add(library: Library, source: Any, options: dict[str, Any]) -> None:
    library.media.add(source, **options)


def stage(library: Library, source: Any, options: dict[str, Any]) -> None:
    library.media.stage(source, **options)


def add_in_a_transaction(library: Library, source: Any, options: dict[str, Any]) -> None:
    with library.transaction() as tx:
        try:
            tx.media.add(source, **options)
        finally:
            assert tx.connection.execute("select 1").fetchone() == (1,), "the transaction is not usable any more"


@pytest.mark.parametrize(
    ("way", "make", "options", "error", "message"),
    [
        pytest.param(way, *case, id=f"{way.__name__}-{name}")
        for way in (add, stage, add_in_a_transaction)
        for name, case in REFUSED.items()
        if way is not stage or case[1].keys() <= {"filename", "content_type"}
    ],
)
def test_what_is_refused_is_a_typed_error_and_leaves_nothing(
    strict: Mindia,
    storage: LocalStorage,
    host: Host,
    tmp_path: Path,
    way: Callable[[Library, Any, dict[str, Any]], None],
    make: Callable[[Path], Any],
    options: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    tenant = strict.tenants.create("Acme")
    library = strict.library(tenant)
    register(host, library, ["*"])
    (tmp_path / "cat.jpg").write_bytes(samples.image())
    source = make(tmp_path)

    with pytest.raises(error, match=message) as raised:
        way(library, source, {"filename": "x.jpg"} | options)

    assert isinstance(raised.value, MindiaError) or error is OSError
    assert rows(host, library, *TABLES, "staged_objects") == {}
    assert listed(storage, tenant.s3_bucket) == {}
    assert list((tmp_path / "spool").iterdir()) == []
    sweep_all(strict)
    assert listed(storage, tenant.s3_bucket) == {}
    if isinstance(source, io.IOBase):
        source.close()


def test_a_limit_is_that_of_the_settings(strict: Mindia) -> None:
    library = strict.library(strict.tenants.create("Acme"))
    content = samples.image()

    assert library.media.add(content + bytes(50_000 - len(content))).file_size == 50_000
    assert library.media.add(samples.wav(seconds=3), filename="long.wav").file_size > 50_000


def test_a_tenant_that_is_suspended_is_refused_before_a_byte_is_read(
    app: Mindia, library: Library, tenant: Tenant
) -> None:
    staged = library.media.stage(samples.image())
    item = library.media.add(samples.image())
    app.tenants.suspend(tenant.id)
    source = io.BytesIO(samples.image())
    calls: list[Callable[[], object]] = [
        lambda: library.media.add(source),
        lambda: library.media.stage(source),
        lambda: library.media.add(staged),
        lambda: library.media.get(item.id),
        lambda: library.media.find(),
        lambda: library.media.open(item),
        lambda: library.media.read(item),
        lambda: library.media.delete(item),
    ]

    for call in calls:
        with pytest.raises(TenantInactiveError):
            call()

    assert source.tell() == 0
    app.tenants.reactivate(tenant.id)
    assert library.media.get(item.id) == item
    library.media.add(staged)


def test_a_tenant_that_does_not_exist_is_refused_before_a_byte_is_read(app: Mindia) -> None:
    source = io.BytesIO(samples.image())

    with pytest.raises(NotFoundError):
        app.library(uuid7()).media.add(source)

    assert source.tell() == 0


def test_a_store_that_fails_leaves_no_item(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, host: Host
) -> None:
    storage.root.mkdir()
    (storage.root / tenant.s3_bucket).write_bytes(b"in the way")

    with pytest.raises(StorageError):
        library.media.add(samples.image())

    assert rows(host, library) == {}
    (storage.root / tenant.s3_bucket).unlink()
    sweep_all(app)
    assert rows(host, library, "staged_objects") == {}


def test_a_statement_that_fails_leaves_no_bytes(database_url: str, storage: LocalStorage, host: Host) -> None:
    with mindia.connect(database_url, storage=storage, settings=Settings(language="klingon")) as app:
        tenant = app.tenants.create("Acme")
        library = app.library(tenant)

        with pytest.raises(DatabaseError, match="klingon"):
            library.media.add(samples.image())

        assert listed(storage, tenant.s3_bucket) == {}
        assert rows(host, library, *TABLES, "staged_objects") == {}


def test_what_is_swept_while_it_is_being_added_leaves_no_bytes(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, host: Host
) -> None:
    for _ in range(2):  # keys are leased ahead: the next one is on record by now
        library.media.add(samples.image())
    kept = listed(storage, tenant.s3_bucket)
    assert rows(host, library, "staged_objects") == {"staged_objects": 1}
    sweep_all(app)

    with pytest.raises(StagedObjectExpiredError):
        library.media.add(samples.image())

    assert listed(storage, tenant.s3_bucket) == kept
    assert len(library.media.find()) == 2
    library.media.add(samples.image())


def test_a_tenant_that_is_suspended_meanwhile_keeps_no_bytes_after_the_sweep(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, caplog: pytest.LogCaptureFixture
) -> None:
    class Suspending(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            content = super().read(size)
            if not content:
                app.tenants.suspend(tenant.id)
            return content

    with caplog.at_level(logging.WARNING, "mindia.media"), pytest.raises(TenantInactiveError):
        library.media.add(Suspending(samples.image()))

    sweep_all(app)
    assert listed(storage, tenant.s3_bucket) == {}


def test_an_addition_that_is_rolled_back_has_not_happened(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, host: Host
) -> None:
    with rolled_back(library) as tx:
        item = tx.media.add(samples.image(), filename="cat.jpg")
        assert [found.media for found in tx.search("cat")] == [item]
        assert not library.search("cat")

    assert rows(host, library) == {}
    with pytest.raises(NotFoundError):
        library.media.get(item.id)
    sweep_all(app)
    assert listed(storage, tenant.s3_bucket) == {}


# What webhooks are told


def register(host: Host, library: Library, events: list[str], *, active: bool = True) -> UUID:
    webhook_id = uuid7()
    host.execute(
        "insert into mindia.webhooks (id, tenant_id, url, events, is_active) values (%s, %s, 'https://x', %s, %s)",
        (webhook_id, library.tenant_id, events, active),
    )
    return webhook_id


def told(host: Host, library: Library) -> list[tuple[Any, ...]]:
    """What is on record for the endpoints of the tenant, in the order of its making."""
    return host.execute(
        """select webhook_id, event_id, event_type, payload, delivery_status::text, retry_count, tenant_id
        from mindia.webhook_events where tenant_id = %s order by id""",
        (library.tenant_id,),
    ).fetchall()


@pytest.mark.parametrize(
    ("events", "uploaded", "deleted"),
    [
        (["image.uploaded"], True, False),
        (["image.deleted"], False, True),
        (["image.*"], True, True),
        (["*"], True, True),
        (["video.uploaded", "image.uploaded"], True, False),
        (["*", "image.*", "image.uploaded"], True, True),
        (["video.*"], False, False),
        (["image"], False, False),
        (["image."], False, False),
        (["image.uploaded.*"], False, False),
        (["*.uploaded"], False, False),
        (["IMAGE.*"], False, False),
        ([], False, False),
    ],
    ids=str,
)
def test_an_endpoint_is_told_what_it_has_subscribed_to(
    library: Library, host: Host, events: list[str], uploaded: bool, deleted: bool
) -> None:
    webhook_id = register(host, library, events)

    item = library.media.add(samples.image(), filename="cat.jpg")
    library.media.delete(item)

    expected = [name for name, wanted in (("image.uploaded", uploaded), ("image.deleted", deleted)) if wanted]
    assert [(row[0], row[2]) for row in told(host, library)] == [(webhook_id, name) for name in expected]


def test_no_one_else_is_told(library: Library, other: Library, host: Host) -> None:
    register(host, library, ["*"], active=False)
    register(host, other, ["*"])

    library.media.delete(library.media.add(samples.image()))

    assert told(host, library) == []
    assert told(host, other) == []


@pytest.mark.parametrize(
    ("make", "filename", "kind", "content_type"),
    [
        (samples.image, "a.jpg", "image", "image/jpeg"),
        (samples.video, "b.mp4", "video", "video/mp4"),
        (samples.wav, "c.wav", "audio", "audio/wav"),
        (samples.pdf, "d.pdf", "document", "application/pdf"),
    ],
)
def test_an_event_says_what_happened_to_which_item_and_when(
    library: Library, host: Host, make: Callable[[], bytes], filename: str, kind: str, content_type: str
) -> None:
    content = make()
    webhook_id = register(host, library, ["*"])

    before = datetime.now(UTC)
    item = library.media.add(content, filename=filename)
    library.media.delete(item)
    after = datetime.now(UTC)

    events = told(host, library)
    assert [event[2] for event in events] == [f"{kind}.uploaded", f"{kind}.deleted"]
    for event in events:
        found_webhook, event_id, event_type, payload, status, retry_count, tenant_id = event
        assert (found_webhook, status, retry_count, tenant_id) == (webhook_id, "pending", 0, library.tenant_id)
        assert payload.keys() == {"id", "type", "timestamp", "data"}
        assert UUID(payload["id"]) == event_id
        assert event_id.version == 7
        assert payload["type"] == event_type
        timestamp = datetime.fromisoformat(payload["timestamp"])
        assert timestamp.utcoffset() == timedelta()
        assert before <= timestamp <= after
        assert payload["data"] == {
            "media_id": str(item.id),
            "kind": kind,
            "filename": filename,
            "content_type": content_type,
            "file_size": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
    assert events[0][1] != events[1][1]


def test_all_endpoints_are_told_of_the_same_event(library: Library, host: Host) -> None:
    webhooks = {register(host, library, [pattern]) for pattern in ("*", "image.*", "image.uploaded")}

    library.media.add(samples.image())

    events = told(host, library)
    assert {event[0] for event in events} == webhooks
    assert len(events) == 3
    assert len({event[1] for event in events}) == 1
    assert all(event[3] == events[0][3] for event in events)


def test_an_event_is_written_with_its_item_or_not_at_all(library: Library, host: Host) -> None:
    register(host, library, ["*"])

    with rolled_back(library) as tx:
        tx.media.add(samples.image())
    assert told(host, library) == []

    with library.transaction() as tx:
        item = tx.media.add(samples.image())
        assert told(host, library) == []
    assert [event[2] for event in told(host, library)] == ["image.uploaded"]

    with rolled_back(library) as tx:
        tx.media.delete(item)
    assert [event[2] for event in told(host, library)] == ["image.uploaded"]


def test_what_fails_is_told_to_no_one(library: Library, host: Host) -> None:
    register(host, library, ["*"])
    staged = library.media.stage(samples.image())
    library.media.add(staged)

    with pytest.raises(StagedObjectExpiredError):
        library.media.add(staged)
    with pytest.raises(NotFoundError):
        library.media.delete(uuid7())

    assert len(told(host, library)) == 1
