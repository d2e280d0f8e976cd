"""Much is stored while its parser is at work on it, and nothing of what is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import attrs
import pytest
from tests.integration.library_calls import SETTINGS

import mindia
from mindia import Library, MemoryStorage, Mindia
from mindia.errors import CorruptMediaError, StorageUnavailableError, TooLargeError
from mindia.testing import samples

VIDEO, PICTURE = samples.video(), samples.image("PNG", width=300, height=200)


class WatchedStorage(MemoryStorage):
    """Notes what is stored as which type, and how many bytes it was given; fails where it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.types: list[str] = []
        self.given = 0
        self.error: Exception | None = None
        self.meanwhile: Callable[[], object] | None = None

    def put(self, bucket: str, key: str, source: BinaryIO, *, content_type: str, **more: Any) -> None:
        if self.error is not None:
            raise self.error
        if meanwhile := self.meanwhile:
            self.meanwhile = None
            meanwhile()
        super().put(bucket, key, _Counted(source, self), content_type=content_type, **more)  # type: ignore[arg-type]  # it reads
        self.types.append(content_type)


class _Counted:
    def __init__(self, source: BinaryIO, storage: WatchedStorage) -> None:
        self._source = source
        self._storage = storage

    def read(self, size: int = -1) -> bytes:
        content = self._source.read(size)
        self._storage.given += len(content)
        return content


@pytest.fixture
def storage() -> WatchedStorage:
    return WatchedStorage()


@pytest.fixture(params=[True, False], ids=["in children", "in process"])
def app(database_url: str, storage: WatchedStorage, request: pytest.FixtureRequest) -> Iterator[Mindia]:
    settings = attrs.evolve(
        SETTINGS, spool_memory_bytes=100, isolate_parsers=request.param, parser_processes=1, max_audio_bytes=50_000
    )
    with mindia.connect(database_url, storage=storage, settings=settings) as app:
        yield app


@pytest.fixture
def library(app: Mindia) -> Library:
    return app.library(app.tenants.create("Acme"))


def _stored(app: Mindia, library: Library, storage: WatchedStorage) -> list[str]:
    return [each.key for each in storage.list(app.tenants.get(library.tenant_id).s3_bucket)]


@pytest.mark.parametrize(
    ("filename", "content", "content_type"),
    [
        ("clip.mp4", VIDEO, "video/mp4"),
        ("tone.wav", samples.wav(), "audio/wav"),
        ("picture.png", PICTURE, "image/png"),
        ("paper.pdf", samples.pdf(["A page."] * 20), "application/pdf"),
    ],
)
def test_it_is_stored_once_as_it_is(
    library: Library, storage: WatchedStorage, filename: str, content: bytes, content_type: str
) -> None:
    item = library.media.add(content, filename=filename)

    assert item.content_type == content_type
    assert storage.types == [content_type]
    assert library.media.read(item) == content


def test_a_video_without_pictures_is_stored_as_what_it_turns_out_to_be(
    app: Mindia, library: Library, storage: WatchedStorage
) -> None:
    item = library.media.add(samples.audio("mp4", codec="aac"), filename="tone.m4a")

    assert item.content_type == "audio/mp4"
    assert storage.types[-1] == "audio/mp4"
    assert _stored(app, library, storage) == [item.s3_key]


@pytest.mark.parametrize(
    ("filename", "content", "error"),
    [
        ("half.mp4", VIDEO[: len(VIDEO) // 2], CorruptMediaError),
        ("half.png", PICTURE[: len(PICTURE) // 2], CorruptMediaError),
        ("long.m4a", samples.audio("mp4", codec="aac", seconds=20.0), TooLargeError),
    ],
)
def test_of_what_is_refused_the_store_never_gets_the_end(
    app: Mindia, library: Library, storage: WatchedStorage, filename: str, content: bytes, error: type[Exception]
) -> None:
    with pytest.raises(error):
        library.media.add(content, filename=filename)

    assert storage.types == []
    assert storage.given < len(content)
    assert _stored(app, library, storage) == []
    assert library.media.count() == 0


def test_a_store_that_fails_leaves_the_parser_as_it_was(app: Mindia, library: Library, storage: WatchedStorage) -> None:
    storage.error = StorageUnavailableError("put: no route to the server")
    with pytest.raises(StorageUnavailableError, match="no route"):
        library.media.add(VIDEO, filename="clip.mp4")
    storage.error = None

    item = library.media.add(VIDEO, filename="clip.mp4")

    assert _stored(app, library, storage) == [item.s3_key]


def test_a_store_that_is_slow_holds_up_no_parser(library: Library, storage: WatchedStorage) -> None:
    storage.meanwhile = lambda: library.media.add(PICTURE, filename="picture.png")

    library.media.add(VIDEO, filename="clip.mp4")

    assert storage.types == ["image/png", "video/mp4"]
