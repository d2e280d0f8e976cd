"""Media go in from any source, and come out as they went in."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, BinaryIO, assert_type
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.integration.media_rows import Host, four_kinds, rolled_back, rows, sweep_all

from mindia import (
    Audio,
    Document,
    Image,
    Library,
    LocalStorage,
    Media,
    MediaKind,
    MediaPage,
    Mindia,
    ProcessingStatus,
    Tenant,
    Video,
)
from mindia._ids import uuid7
from mindia.domain.media import Metadata
from mindia.errors import (
    InvalidError,
    MindiaError,
    NotFoundError,
    ObjectNotFoundError,
    StagedObjectExpiredError,
    StorageError,
)
from mindia.testing import samples
from mindia.testing.storage import listed


@pytest.fixture
def other(app: Mindia) -> Library:
    """Another tenant's library."""
    return app.library(app.tenants.create("Globex"))


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
    words = " ".join(f"{number:x}" for number in range(2**28, 2**28 + 7_000))
    pages = [f"windowsill {number} {words[:2_000]}" for number in range(200)]

    item = library.media.add(samples.pdf(pages), filename="a.pdf", description=f"sunny {words}")

    assert [found.media for found in library.search("windowsill sunny")] == [item]
    assert library.media.get(item.id) == item


def test_a_description_that_is_too_long_is_refused(library: Library) -> None:
    assert library.media.add(samples.image(), description="é" * 32_768).description == "é" * 32_768
    with pytest.raises(InvalidError, match="65538 bytes; the limit is 65536"):
        library.media.add(samples.image(), description="é" * 32_769)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
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

    with host.transaction():
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
