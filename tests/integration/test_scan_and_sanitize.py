"""The host may look at bytes before they are stored, and have removed from them what nobody was to be told."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

import attrs
import psycopg
import pytest
from PIL import Image as Pillow
from tests.integration.media_rows import TABLES, Host, register, rows, sweep_all
from tests.integration.shared_bytes import QUICK, check_bytes
from tests.unit import media_with_metadata as made
from tests.unit.media_with_metadata import CANARY

import mindia
from mindia import (
    Image,
    Library,
    LocalStorage,
    Location,
    Media,
    MediaInput,
    MediaKind,
    Mindia,
    Settings,
    Tenant,
)
from mindia.domain.media import Candidate, ImageFacts
from mindia.errors import CorruptMediaError, MediaError, RejectedError, TypeMismatchError
from mindia.testing import samples
from mindia.testing.storage import listed

Scan = Callable[[BinaryIO, Candidate], object]


class Scanner:
    """Notes what it is called with, and does what the test says."""

    def __init__(self) -> None:
        self.seen: list[tuple[bytes, Candidate]] = []
        self.threads: set[int] = set()
        self.act: Scan = lambda _, __: None

    def __call__(self, file: BinaryIO, candidate: Candidate) -> None:
        assert file.tell() == 0
        self.seen.append((file.read(), candidate))
        self.threads.add(threading.get_ident())
        file.seek(0)
        self.act(file, candidate)


@pytest.fixture
def scanner() -> Scanner:
    return Scanner()


@pytest.fixture
def app(database_url: str, storage: LocalStorage, scanner: Scanner, tmp_path: Path) -> Iterator[Mindia]:
    spool = tmp_path / "spool"
    spool.mkdir()
    settings = attrs.evolve(QUICK, spool_folder=spool, spool_memory_bytes=2_000)
    with mindia.connect(database_url, storage=storage, settings=settings, scan=scanner) as app:
        yield app


@pytest.fixture
def nothing_is_left(
    library: Library, tenant: Tenant, storage: LocalStorage, host: Host, tmp_path: Path
) -> Callable[[], None]:
    register(host, library, ["*"])

    def check() -> None:
        assert list((tmp_path / "spool").iterdir()) == []
        assert rows(host, library, *TABLES, "staged_objects") == {}
        assert listed(storage, tenant.s3_bucket) == {}

    return check


def by_adding(library: Library, content: bytes, filename: str, **how: Any) -> None:
    library.media.add(content, filename=filename, **how)


def by_staging(library: Library, content: bytes, filename: str, **how: Any) -> None:
    library.media.stage(content, filename=filename, **how)


def in_a_transaction(library: Library, content: bytes, filename: str, **how: Any) -> None:
    with library.transaction() as tx:
        try:
            tx.media.add(content, filename=filename, **how)
        finally:
            assert tx.connection.execute("select 1").fetchone() == (1,), "the transaction is not usable any more"


def in_bulk(library: Library, content: bytes, filename: str, **how: Any) -> None:
    (result,) = library.media.add_many([MediaInput(content, filename=filename)], **how)
    if result.error is not None:
        raise result.error


WAYS = (by_adding, by_staging, in_a_transaction, in_bulk)
Way = Callable[..., None]
each_way = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)

FILES = {
    "cat.jpg": (samples.image(width=33), "image/jpeg", MediaKind.IMAGE),
    "film.mp4": (samples.video(seconds=0.2, audio_codec=None), "video/mp4", MediaKind.VIDEO),
    "bell.wav": (samples.wav(seconds=0.1), "audio/wav", MediaKind.AUDIO),
    "letter.pdf": (samples.pdf(["Dear Ada"], title="Letter"), "application/pdf", MediaKind.DOCUMENT),
}


# Scanning


@each_way
@pytest.mark.parametrize("filename", FILES)
def test_a_scan_sees_the_bytes_and_all_that_is_known_of_them_before_anything_is_stored(
    library: Library, tenant: Tenant, scanner: Scanner, nothing_is_left: Callable[[], None], way: Way, filename: str
) -> None:
    content, content_type, kind = FILES[filename]
    scanner.act = lambda _, __: nothing_is_left()

    way(library, content, f"../{filename}")

    ((seen, candidate),) = scanner.seen
    assert seen == content
    assert candidate.tenant_id == tenant.id
    assert (candidate.filename, candidate.content_type, candidate.kind) == (filename, content_type, kind)
    assert (candidate.file_size, candidate.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert candidate.facts.kind is kind
    if isinstance(candidate.facts, ImageFacts):
        assert candidate.facts.width == 33
    assert (threading.get_ident() in scanner.threads) == (way is not in_bulk)


@each_way
@pytest.mark.parametrize("filename", FILES)
def test_what_is_rejected_leaves_nothing(
    library: Library, scanner: Scanner, nothing_is_left: Callable[[], None], way: Way, filename: str
) -> None:
    rejected = RejectedError("a virus")

    def reject(_: BinaryIO, __: Candidate) -> None:
        raise rejected

    scanner.act = reject

    ways: list[dict[str, Any]] = [{}, {"sanitize": True}]
    for how in ways if way is by_staging else [*ways, {"on_duplicate": "link"}]:
        with pytest.raises(RejectedError) as raised:
            way(library, FILES[filename][0], filename, **how)
        assert raised.value is rejected
        nothing_is_left()

    assert isinstance(rejected, MediaError)
    assert (rejected.code, rejected.http_status, rejected.retryable) == ("rejected", 422, False)
    scanner.act = lambda _, __: None
    way(library, FILES[filename][0], filename)


@each_way
def test_whatever_else_a_scan_raises_passes_through_and_leaves_nothing(
    library: Library, scanner: Scanner, nothing_is_left: Callable[[], None], way: Way
) -> None:
    for error in (
        KeyError("of the host"),
        OSError(5, "unplugged"),
        TimeoutError("no answer"),
        psycopg.OperationalError("of the host's own database"),
        MemoryError(),
    ):

        def fail(_: BinaryIO, __: Candidate, error: Exception = error) -> None:
            raise error

        scanner.act = fail
        with pytest.raises(type(error)) as raised:
            way(library, *small("cat.jpg"))
        assert raised.value is error
        nothing_is_left()


def small(filename: str) -> tuple[bytes, str]:
    return FILES[filename][0], filename


def test_a_scan_is_not_asked_about_what_is_no_medium(
    library: Library, scanner: Scanner, nothing_is_left: Callable[[], None]
) -> None:
    for content, filename in (
        (samples.image()[:300], "cat.jpg"),
        (b"not media", "cat.jpg"),
        (samples.image(), "c.png"),
    ):
        with pytest.raises(MediaError):
            library.media.add(content, filename=filename)

    assert scanner.seen == []
    nothing_is_left()


def test_a_scan_is_asked_once_for_each_that_is_stored(library: Library, scanner: Scanner) -> None:
    staged = library.media.stage(samples.image())
    library.media.add(staged)
    item = library.media.get(staged.id)
    library.media.copy(item)
    library.media.update(item, filename="tiger.jpg")

    assert len(scanner.seen) == 1


@pytest.mark.parametrize("filename", FILES)
@pytest.mark.parametrize("sanitize", [False, True])
def test_a_scan_may_leave_the_file_wherever_it_likes(
    library: Library, scanner: Scanner, filename: str, sanitize: bool
) -> None:
    content, name = small(filename)
    acts: list[Scan] = [
        lambda file, _: file.seek(0, io.SEEK_END),
        lambda file, _: file.seek(10**9),
        lambda file, _: file.read(7),
        lambda file, _: list(file),
    ]
    for act in acts:
        scanner.act = act
        item = library.media.add(content, filename=name, sanitize=sanitize)
        assert hashlib.sha256(library.media.read(item)).hexdigest() == item.sha256
        assert sanitize or library.media.read(item) == content


@pytest.mark.parametrize("sanitize", [False, True])
def test_a_scan_can_neither_change_nor_close_what_is_stored(library: Library, scanner: Scanner, sanitize: bool) -> None:
    def decode(file: BinaryIO, _: Candidate) -> None:
        with Pillow.open(file) as picture:
            picture.load()
        picture.close()

    def overwrite(file: BinaryIO, _: Candidate) -> None:
        assert not file.writable()
        with pytest.raises(OSError, match="write"):
            file.write(b"changed")

    acts: list[Scan] = [
        lambda file, _: file.close(),
        lambda file, _: io.TextIOWrapper(file, encoding="latin-1").read(),
        decode,
        overwrite,
    ]
    for act in acts:
        scanner.act = act
        item = library.media.add(samples.image(), filename="cat.jpg", sanitize=sanitize)
        assert hashlib.sha256(library.media.read(item)).hexdigest() == item.sha256
        assert sanitize or library.media.read(item) == samples.image()


def test_of_many_each_is_scanned_for_itself(
    app: Mindia, library: Library, storage: LocalStorage, host: Host, scanner: Scanner
) -> None:
    def judge(file: BinaryIO, candidate: Candidate) -> None:
        if b"forbidden" in file.read():
            raise RejectedError(f"{candidate.filename} is not wanted here")
        if isinstance(candidate.facts, ImageFacts) and candidate.facts.width == 20:
            raise KeyError("of the host")

    scanner.act = judge
    sources: list[Any] = [
        samples.pdf(["a"]), samples.pdf(["forbidden"]), samples.image(width=20), samples.image(width=21),
        MediaInput(samples.pdf(["also forbidden"]), filename="b.pdf"),
    ]  # fmt: skip

    report = library.media.add_many(sources)

    assert [type(result.error) for result in report] == [
        type(None), RejectedError, KeyError, type(None), RejectedError,
    ]  # fmt: skip
    assert str(report[4].error) == "b.pdf is not wanted here"
    assert len(scanner.seen) == 5
    assert {item.id for item in check_bytes(app, library, storage, host)} == {item.id for item in report.added}


# Sanitizing


@contextmanager
def sanitizing(url: str, storage: LocalStorage, scanner: Scanner | None = None, **settings: Any) -> Iterator[Library]:
    """A library of its own application, whose settings are these."""
    with mindia.connect(url, storage=storage, settings=attrs.evolve(QUICK, **settings), scan=scanner) as app:
        yield app.library(app.tenants.create("Acme"))


TELLING: dict[str, Callable[[], bytes]] = {
    "cat.jpg": made.jpeg,
    "cat.png": made.png,
    "cat.gif": made.gif,
    "cat.webp": made.webp,
    "cat.avif": made.avif,
    "film.mp4": made.film,
    "film.mov": lambda: made.film("mov"),
    "song.m4a": made.song,
}


def check_sanitized(library: Library, item: Media, before: bytes) -> bytes:
    """Assert that what is stored tells nothing, is seen as before, and is what its row says; return it."""
    after = library.media.read(item)
    assert CANARY in before
    assert CANARY not in after
    assert "CANARY".encode("utf-16-le") not in after
    assert b"2024:05:06" not in after
    assert (item.file_size, item.sha256) == (len(after), hashlib.sha256(after).hexdigest())
    assert library.media.get(item.id) == item
    if isinstance(item, Image):
        assert made.frames(after) == made.frames(before)
    else:
        assert made.media(after) == made.media(before)
    return after


@pytest.mark.parametrize("on_disk", [False, True], ids=["in memory", "on disk"])
@pytest.mark.parametrize("filename", TELLING)
def test_what_is_stored_tells_nothing_and_shows_the_same(
    database_url: str, storage: LocalStorage, filename: str, on_disk: bool
) -> None:
    before = TELLING[filename]()
    with sanitizing(database_url, storage, spool_memory_bytes=1 if on_disk else 10**7) as library:
        plain = library.media.add(before, filename=filename)
        assert library.media.read(plain) == before

        item = library.media.add(before, filename=filename, sanitize=True)

        check_sanitized(library, item, before)
        assert item.sha256 != plain.sha256
        facts = ("width", "height", "duration", "bitrate", "taken_at", "camera", "title", "artist", "album")
        assert [getattr(item, fact, None) for fact in facts] == [getattr(plain, fact, None) for fact in facts]


def test_every_way_in_can_sanitize(database_url: str, storage: LocalStorage) -> None:
    content = made.jpeg(orientation=6)
    with sanitizing(database_url, storage) as library:
        with library.transaction() as tx:
            in_transaction = tx.media.add(io.BytesIO(content), filename="a.jpg", sanitize=True)
        bulk = library.media.add_many(
            [content, MediaInput(content), MediaInput(content, sanitize=True), MediaInput(content, sanitize=False)],
            sanitize=True,
        )
        assert not bulk.failed
        *sanitized, plain = bulk.added

        for item in (
            library.media.add(library.media.stage(content, sanitize=True)),
            library.media.add(iter([content]), sanitize=True),
            in_transaction,
            *sanitized,
        ):
            check_sanitized(library, item, content)
        assert library.media.read(plain) == content


def test_the_settings_say_whether_it_is_done_where_the_call_does_not(database_url: str, storage: LocalStorage) -> None:
    content = made.png()
    for default in (True, False):
        with sanitizing(database_url, storage, sanitize=default) as library:
            said = [library.media.add(content, sanitize=each) for each in (None, True, False)]
            said += library.media.add_many([content, MediaInput(content, sanitize=not default)]).added
            said += library.media.add_many([content], sanitize=not default).added

            assert [library.media.read(item) == content for item in said] == [
                not default, False, True, not default, default, default,
            ]  # fmt: skip


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_picture_stays_the_right_way_up_and_its_facts_are_known(
    database_url: str, storage: LocalStorage, orientation: int
) -> None:
    content = made.jpeg(orientation=orientation)
    with sanitizing(database_url, storage) as library:
        item = library.media.add(content, filename="a.jpg", sanitize=True)

        after = check_sanitized(library, item, content)
        assert isinstance(item, Image)
        assert (item.width, item.height) == ((43, 61) if orientation == 6 else (61, 43))
        with Pillow.open(io.BytesIO(after)) as picture:
            assert picture.getexif().get(0x0112, 1) == orientation
        assert item.taken_at == datetime(2024, 5, 6, 7, 8, 9)  # noqa: DTZ001 - the camera's own clock
        assert item.camera == "CANARY model"
        assert item.location is None
        assert [found.media for found in library.search("canary model")] == [item]


def test_where_a_picture_was_taken_is_known_where_that_is_wanted(database_url: str, storage: LocalStorage) -> None:
    place = Location(latitude=48.8567, longitude=2.3508, altitude=35.0)
    content = samples.image(location=place, camera="Lumix")
    for keep in (True, False):
        with sanitizing(database_url, storage, keep_location=keep, sanitize=True) as library:
            item = library.media.add(content, filename="a.jpg")

            assert isinstance(item, Image)
            assert library.media.get(item.id) == item
            if keep:
                assert item.location is not None
                assert item.location.latitude == pytest.approx(48.8567, abs=1e-6)
            else:
                assert item.location is None
            with Pillow.open(io.BytesIO(library.media.read(item))) as picture:
                assert not picture.getexif().get_ifd(0x8825)
            assert b"Lumix" not in library.media.read(item)


def test_what_has_nothing_to_tell_is_stored_as_it_is(database_url: str, storage: LocalStorage) -> None:
    buffer = io.BytesIO()
    made.picture().save(buffer, "PNG")
    with sanitizing(database_url, storage, sanitize=True) as library:
        for content in (buffer.getvalue(), samples.wav(seconds=0.1), samples.pdf(["a"], title="Letter")):
            item = library.media.add(content)
            assert library.media.read(item) == content
            assert item.sha256 == hashlib.sha256(content).hexdigest()


def test_a_scan_sees_what_came_in_and_not_what_is_left_of_it(
    database_url: str, storage: LocalStorage, scanner: Scanner
) -> None:
    content = made.jpeg()
    with sanitizing(database_url, storage, scanner, sanitize=True) as library:
        check_sanitized(library, library.media.add(content), content)

    ((seen, candidate),) = scanner.seen
    assert seen == content
    assert (candidate.file_size, candidate.sha256) == (len(content), hashlib.sha256(content).hexdigest())


def test_duplicates_are_those_of_what_is_stored(database_url: str, storage: LocalStorage) -> None:
    content = made.jpeg()
    with sanitizing(database_url, storage) as library:
        first = library.media.add(content, filename="a.jpg", sanitize=True, on_duplicate="error")

        assert library.media.add(content, sanitize=True, on_duplicate="return") == first
        assert library.media.add(library.media.read(first), on_duplicate="return") == first
        linked = library.media.add(content, filename="b.jpg", sanitize=True, on_duplicate="link")
        assert linked.s3_key == first.s3_key
        with pytest.raises(TypeMismatchError):
            library.media.add(content, filename="b.png", sanitize=True, on_duplicate="link")
        plain = library.media.add(content, sanitize=False, on_duplicate="error")
        assert library.media.read(plain) == content
        assert len(listed(storage, library._context.bucket())) == 2


def test_what_cannot_be_sanitized_is_refused_and_leaves_nothing(
    database_url: str, storage: LocalStorage, host: Host
) -> None:
    # What a sensor measured claims bytes that are none of the media; who only looks does not read them.
    content = samples.video(seconds=0.5).replace(b"soun", b"meta")
    at = content.rindex(b"stco") + 12
    content = content[:at] + bytes(4) + content[at + 4 :]
    with sanitizing(database_url, storage) as library:
        with pytest.raises(CorruptMediaError, match=r"film\.mp4"):
            library.media.add(content, filename="film.mp4", sanitize=True)

        assert rows(host, library, *TABLES, "staged_objects") == {}
        assert listed(storage, library._context.bucket()) == {}


def test_sanitizing_is_done_in_the_processes_of_the_parsers_too(database_url: str, storage: LocalStorage) -> None:
    with mindia.connect(database_url, storage=storage, settings=Settings(sanitize=True)) as app:
        library = app.library(app.tenants.create("Acme"))
        for filename in ("cat.jpg", "film.mp4"):
            content = TELLING[filename]()
            check_sanitized(library, library.media.add(content, filename=filename), content)
        sweep_all(app)
        assert len(listed(storage, library._context.bucket())) == 2
