"""Whatever a file does to its parser: a typed error or an item, and no harm to anything else."""

from __future__ import annotations

import io
import math
import resource
import socket
import sys
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import psycopg
import pytest
from PIL import Image
from tests.conftest import own_parsers
from tests.corpus.canary import Guard, guarded
from tests.corpus.damaged import WHOLE, cut_off, turned
from tests.corpus.hostile import HostileFile
from tests.corpus.hostile_audio import AUDIO, BUSY_AUDIO
from tests.corpus.hostile_documents import BUSY_DOCUMENTS, DOCUMENTS
from tests.corpus.hostile_images import BUSY_IMAGES, IMAGES
from tests.corpus.hostile_mp4 import MOVIES
from tests.corpus.hostile_names import HOSTILE_NAMES
from tests.corpus.hostile_others import OTHERS
from tests.corpus.hostile_video import VIDEOS
from tests.integration.media_rows import Host, rows

import mindia
from mindia import Library, LocalStorage, Media, Mindia, Settings
from mindia.errors import (
    CorruptMediaError,
    MediaError,
    MindiaError,
    TooLargeError,
    TypeMismatchError,
    UnsupportedTypeError,
)
from mindia.media.isolation import ParserPool
from mindia.testing import samples
from mindia.testing.storage import listed

HOSTILE: dict[str, HostileFile] = IMAGES | MOVIES | VIDEOS | AUDIO | DOCUMENTS | OTHERS
BUSY: dict[str, HostileFile] = BUSY_IMAGES | BUSY_AUDIO | BUSY_DOCUMENTS

MAX_PARSER_BYTES = 512_000_000
MAX_INTEGER = 2**31 - 1
GOOD = samples.image()
WITH_METADATA = (".jpg", ".png", ".gif", ".webp", ".avif", ".mp4", ".mov", ".m4a")
"""Names of those types from which metadata can be removed."""


def peak(who: int) -> int:
    """Return the most memory that this process had, or one of its children that have ended, in bytes."""
    return resource.getrusage(who).ru_maxrss * (1024 if sys.platform == "linux" else 1)


@attrs.frozen
class Intake:
    """An application that takes in files, and what can be seen of it from outside."""

    app: Mindia
    storage: LocalStorage
    host: Host
    guard: Guard
    peak_before: int = attrs.field(factory=partial(peak, resource.RUSAGE_CHILDREN))

    def library(self) -> Library:
        """Return the library of a new tenant."""
        return self.app.library(self.app.tenants.create("Acme"))

    def stored(self, library: Library) -> dict[str, int]:
        """Return the keys and sizes of what is stored for the tenant."""
        return listed(self.storage, self.app.tenants.get(library.tenant_id).s3_bucket)

    def add(self, library: Library, content: bytes, filename: str, **options: Any) -> Media | MediaError:
        """Take in a file; what comes of it is an item that makes sense, or an error that names the file."""
        try:
            item = library.media.add(content, filename=filename, **options)
        except MindiaError as error:
            assert isinstance(error, MediaError), f"it is no error of a file: {error!r}"  # noqa: PT017 - or none at all
            assert repr(filename) in str(error), "the error does not say which file it was"  # noqa: PT017 - likewise
            return error
        assert_plausible(item)
        assert library.media.read(item) == content or "sanitize" in options
        return item

    def assert_holds(self, library: Library, *found: Media | MediaError) -> None:
        """Of what was taken in there are rows and bytes, of what was refused there are none."""
        items = [each for each in found if not isinstance(each, MediaError)]
        assert self.stored(library) == {item.s3_key: item.file_size for item in items}
        counted = rows(self.host, library)
        assert sum(counted.get(table, 0) for table in ("images", "videos", "audios", "documents")) == len(items)
        assert counted.get("search_documents", 0) == len(items)
        assert items or counted == {}

    def assert_unharmed(self, library: Library) -> None:
        """Nothing was touched that must not be, and the next file is taken in."""
        assert self.guard.touched() == []
        assert self.peak_of_parsers() <= MAX_PARSER_BYTES
        assert library.media.add(GOOD, filename="good.jpg").content_type == "image/jpeg"
        ended = [child.pid for child in self.parsers()._children if child._process.poll() is not None]
        assert ended == []

    def parsers(self) -> ParserPool:
        """Return the pool of parsers, from which there is nothing to be seen from outside."""
        assert isinstance(self.app._prober, ParserPool)
        return self.app._prober

    def peak_of_parsers(self) -> int:
        """Return the most memory that one of the parsers has had so far, in bytes, those that have ended included."""
        ended = peak(resource.RUSAGE_CHILDREN)
        # Until its program is started, a process counts the memory of its parent as its own.
        peaks = [ended if ended > max(peak(resource.RUSAGE_SELF), self.peak_before) else 0]
        if sys.platform == "linux":
            for child in self.parsers()._children:
                status = Path(f"/proc/{child.pid}/status").read_text()
                peaks += [int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:")]
        return max(peaks)


def assert_plausible(item: Media) -> None:
    """The facts are such as a file can have."""
    for name in ("width", "height", "channels", "sample_rate", "bitrate", "page_count"):
        assert 1 <= getattr(item, name, 1) <= MAX_INTEGER, f"{name} of {item}"
    duration = getattr(item, "duration", 1.0)
    assert math.isfinite(duration), item
    assert duration >= 0, item


@pytest.fixture(scope="module")
def intake(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Intake]:
    storage = LocalStorage(tmp_path_factory.mktemp("objects"))
    with (
        own_parsers(),
        guarded(tmp_path_factory.mktemp("canary")) as guard,
        psycopg.connect(database_url) as host,
        mindia.connect(database_url, storage=storage) as app,
    ):
        yield Intake(app, storage, host, guard)


@pytest.fixture(scope="module")
def impatient(intake: Intake, database_url: str) -> Iterator[Intake]:
    """Gives up on a file after a second."""
    settings = Settings(parser_timeout=timedelta(seconds=1))
    with mindia.connect(database_url, storage=intake.storage, settings=settings) as app:
        yield attrs.evolve(intake, app=app)


def assert_as_expected(file: HostileFile, found: Media | MediaError) -> None:
    if isinstance(found, MediaError):
        assert isinstance(found, file.refused), f"refused: {found!r}"
    else:
        assert found.content_type == file.accepted, f"taken in: {found}"


def test_a_canary_that_is_touched_tells(tmp_path: Path) -> None:
    """Otherwise what follows would test nothing."""
    with guarded(tmp_path) as guard:
        assert guard.touched() == []
        guard.canary.path.read_bytes()
        with socket.create_connection(("127.0.0.1", guard.canary.port)):
            expected = ["connected to the port", "opened the file"]
            assert guard.touched() == (expected if sys.platform == "linux" else expected[:1])
        assert guard.touched() == []


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_by_a_typed_error_or_taken_in_and_does_no_harm(intake: Intake, name: str) -> None:
    file = HOSTILE[name]
    library = intake.library()

    found = intake.add(library, file.make(intake.guard.canary), file.filename)

    assert_as_expected(file, found)
    intake.assert_holds(library, found)
    intake.assert_unharmed(library)


@pytest.mark.parametrize("name", BUSY)
def test_a_file_that_would_keep_its_parser_busy_for_long_is_given_up_on(impatient: Intake, name: str) -> None:
    file = BUSY[name]
    library = impatient.library()

    found = impatient.add(library, file.make(impatient.guard.canary), file.filename)

    assert_as_expected(file, found)
    impatient.assert_holds(library, found)
    impatient.assert_unharmed(library)


@pytest.mark.parametrize("filename", WHOLE)
def test_a_file_that_is_cut_off_is_refused_by_a_typed_error_or_taken_in_as_what_it_is(
    intake: Intake, filename: str
) -> None:
    library = intake.library()
    whole = library.media.add(WHOLE[filename](), filename=filename)

    found = {name: intake.add(library, content, filename) for name, content in cut_off(filename)}

    for name, each in found.items():
        if isinstance(each, MediaError):
            assert isinstance(each, CorruptMediaError | UnsupportedTypeError), f"{name}: {each!r}"
        else:
            assert each.kind is whole.kind, name
    intake.assert_holds(library, whole, *found.values())
    intake.assert_unharmed(library)


@pytest.mark.parametrize("filename", WHOLE)
def test_a_file_whose_bits_are_turned_is_refused_by_a_typed_error_or_taken_in(intake: Intake, filename: str) -> None:
    library = intake.library()

    found = [intake.add(library, content, filename) for _, content in turned(filename, times=24)]

    intake.assert_holds(library, *found)
    intake.assert_unharmed(library)


@pytest.mark.parametrize("filename", [filename for filename in WHOLE if filename.endswith(WITH_METADATA)])
def test_a_damaged_file_without_its_metadata_is_refused_or_can_be_read_as_before(intake: Intake, filename: str) -> None:
    library = intake.library()
    found = []

    for name, content in turned(filename, times=24):
        found.append(intake.add(library, content, filename, sanitize=True))
        if not isinstance(found[-1], MediaError):
            found.append(intake.add(library, library.media.read(found[-1]), filename))
            assert not isinstance(found[-1], MediaError), f"{name} was taken in, and cannot be read: {found[-1]!r}"

    intake.assert_holds(library, *found)
    intake.assert_unharmed(library)


@pytest.mark.parametrize("what", HOSTILE_NAMES)
def test_a_hostile_filename_is_cleaned_and_leads_nowhere(intake: Intake, what: str) -> None:
    given, cleaned = HOSTILE_NAMES[what]
    library = intake.library()

    item = library.media.add(GOOD, filename=given)

    assert item.filename == cleaned
    assert len(item.original_filename) <= 255
    assert library.media.get(item.id) == item
    assert intake.stored(library) == {item.s3_key: len(GOOD)}
    assert item.s3_key == f"originals/{item.id}"
    with pytest.raises(UnsupportedTypeError) as refused:
        library.media.add(b"evil", filename=given)
    assert repr(cleaned) in str(refused.value)


@pytest.mark.parametrize(
    "declared",
    ["text/html", "image/svg+xml", "image/png", "image/jpeg\r\nX-Evil: 1", "image/jpeg\0", "\ud83d", "a" * 200_000],
    ids=["page", "drawing", "another image", "header", "NUL", "half a character", "200 kB"],
)
def test_a_hostile_declared_type_is_refused_as_a_contradiction(intake: Intake, declared: str) -> None:
    library = intake.library()

    with pytest.raises(TypeMismatchError, match=r"'x\.jpg'"):
        library.media.add(GOOD, filename="x.jpg", content_type=declared)

    intake.assert_unharmed(library)


def test_files_that_ask_their_parser_for_too_much_memory_take_none_from_the_next_file(
    intake: Intake, database_url: str
) -> None:
    greedy, modest = picture("AVIF", 4_000, speed=10), picture("PNG", 3_000, compress_level=1)
    settings = Settings(parser_memory_bytes=80_000_000)
    with mindia.connect(database_url, storage=intake.storage, settings=settings) as app:
        library = app.library(app.tenants.create("Acme"))
        library.media.add(modest, filename="before.png")

        for _ in range(8):
            with pytest.raises((CorruptMediaError, TooLargeError), match="greedy"):
                library.media.add(greedy, filename="greedy.avif")

        for _ in range(Settings().parser_processes + 1):
            assert library.media.add(modest, filename="after.png").content_type == "image/png"


def picture(image_format: str, side: int, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), "teal").save(buffer, image_format, **options)
    return buffer.getvalue()
