"""The address of a stream gives all of its files to whoever has it, for a while, and nothing else to anybody."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any
from urllib.parse import urljoin, urlsplit
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import attrs
import pytest
from tests.integration.library_calls import SETTINGS

import mindia
from mindia import Library, LocalStorage, Media, MemoryStorage, Mindia, Video
from mindia.domain.tasks import VideoTranscode
from mindia.errors import InvalidError, NotFoundError, SignatureError
from mindia.services import signed_urls
from mindia.serving import MediaFiles
from mindia.testing import samples
from mindia.worker.context import TaskContext

CLIP = samples.video(seconds=2)


@attrs.frozen
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


def get(files: MediaFiles, url: str, *, method: str = "GET", **headers: str) -> Answer:
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "PATH_INFO": urlsplit(url).path,
        "SCRIPT_NAME": "",
        "QUERY_STRING": "",
    }
    setup_testing_defaults(environ)
    environ |= {f"HTTP_{name.upper()}": value for name, value in headers.items()}
    began: list[Any] = []

    def start_response(status: str, fields: list[tuple[str, str]], *_: object) -> Any:
        began[:] = [int(status[:3]), dict(fields)]
        return io.BytesIO().write

    body = validator(files)(environ, start_response)
    try:
        content = b"".join(body)
    finally:
        body.close()  # type: ignore[attr-defined]  # of the validator
    return Answer(began[0], began[1], content)


@pytest.fixture(scope="module")
def _made(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Mindia, Library, Media]]:
    settings = attrs.evolve(
        SETTINGS,
        isolate_parsers=False,
        hls_ladder=("48p@100k", "96p@300k"),
        hls_segment_s=1.0,
        hls_preset="ultrafast",
    )
    storage = LocalStorage(tmp_path_factory.mktemp("objects"))
    with mindia.connect(database_url, storage=storage, settings=settings) as app:
        library = app.library(app.tenants.create("Acme"))
        video = library.media.add(CLIP, filename="clip.mp4")
        encode(library, video)
        yield app, library, video


def encode(library: Library, video: Media) -> None:
    """Do what a worker does with the one task, whatever else other tests have left to be done."""
    task = library.media.transcode(video)
    library.media._transcode(VideoTranscode(video_id=video.id), TaskContext(task=task, tenant_library=library))
    library.tasks.cancel(task)


@pytest.fixture
def app(_made: tuple[Mindia, Library, Media]) -> Mindia:
    return _made[0]


@pytest.fixture
def library(_made: tuple[Mindia, Library, Media]) -> Library:
    return _made[1]


@pytest.fixture
def video(_made: tuple[Mindia, Library, Media]) -> Media:
    return _made[2]


@pytest.fixture
def files(app: Mindia) -> MediaFiles:
    return MediaFiles(app, allow_origins=["https://player.example"])


def test_a_player_comes_from_the_master_playlist_to_every_segment(
    files: MediaFiles, library: Library, video: Media
) -> None:
    master_url = library.media.hls_url(video)
    assert master_url.startswith("https://example.org/media/")

    master = get(files, master_url)
    assert (master.status, master.headers["Content-Type"]) == (200, "application/vnd.apple.mpegurl")
    variants = [line for line in master.body.decode().splitlines() if line and line[0] != "#"]
    assert len(variants) == 2
    for variant in variants:
        index_url = urljoin(master_url, variant)
        index = get(files, index_url)
        assert (index.status, index.headers["Content-Type"]) == (200, "application/vnd.apple.mpegurl")
        names = [line for line in index.body.decode().splitlines() if line and line[0] != "#"]
        assert len(names) == 2
        for name in names:
            segment = get(files, urljoin(index_url, name))
            assert (segment.status, segment.headers["Content-Type"]) == (200, "video/mp2t")
            assert len(segment.body) == int(segment.headers["Content-Length"]) > 188
            assert segment.body[::188].count(b"\x47") == len(segment.body) // 188
            assert segment.headers["X-Content-Type-Options"] == "nosniff"
            assert "immutable" in segment.headers["Cache-Control"]


def segment_url(library: Library, video: Media) -> str:
    return urljoin(library.media.hls_url(video), "48p/segment_000.ts")


def test_a_part_of_a_segment_is_given_and_one_that_is_known_is_not_sent(
    files: MediaFiles, library: Library, video: Media
) -> None:
    url = segment_url(library, video)
    whole = get(files, url)

    part = get(files, url, range="bytes=188-375")
    assert (part.status, part.body) == (206, whole.body[188:376])
    assert part.headers["Content-Range"] == f"bytes 188-375/{len(whole.body)}"
    assert get(files, url, range=f"bytes={len(whole.body)}-").status == 416
    known = get(files, url, if_none_match=whole.headers["ETag"])
    assert (known.status, known.body) == (304, b"")
    head = get(files, url, method="HEAD")
    assert (head.status, head.body, head.headers["Content-Length"]) == (200, b"", str(len(whole.body)))


def test_pages_of_the_sites_that_are_named_may_fetch_it(files: MediaFiles, library: Library, video: Media) -> None:
    url = segment_url(library, video)

    shared = get(files, url, origin="https://player.example")
    assert shared.headers["Access-Control-Allow-Origin"] == "https://player.example"
    assert "Access-Control-Allow-Origin" not in get(files, url, origin="https://elsewhere.example").headers
    assert shared.headers["Vary"] == "Origin"


def _signed_otherwise(url: str) -> str:
    return re.sub(r"(.)(?=/master)", lambda match: "0" if match[1] != "0" else "1", url)


CHANGES: dict[str, Callable[[str], str]] = {
    "above": lambda url: url.replace("master.m3u8", "../master.m3u8"),
    "far above": lambda url: url.replace("master.m3u8", "48p/../../../secret.ts"),
    "a slash more": lambda url: url.replace("master.m3u8", "48p/index.m3u8/"),
    "an empty part": lambda url: url.replace("master.m3u8", "48p//index.m3u8"),
    "no extension": lambda url: url.replace("master.m3u8", "48p/index"),
    "not a stream": lambda url: url.replace("/hls/", "/his/"),
    "for longer": lambda url: re.sub(r"/(\d+)-", lambda match: f"/{int(match[1]) + 1}-", url),
    "another signature": _signed_otherwise,
}


@pytest.mark.parametrize("name", CHANGES)
def test_an_address_that_was_changed_gives_nothing(
    files: MediaFiles, library: Library, video: Media, name: str
) -> None:
    url = library.media.hls_url(video)
    changed = CHANGES[name](url)
    assert changed != url
    assert get(files, changed).status == 403


def test_what_is_not_there_is_not_found(files: MediaFiles, library: Library, video: Media) -> None:
    url = library.media.hls_url(video)
    for name in ("48p/segment_999.ts", "720p/index.m3u8"):
        assert get(files, urljoin(url, name)).status == 404


def test_an_address_of_another_video_or_tenant_is_not_made_of_this_one(
    app: Mindia, files: MediaFiles, library: Library, video: Media
) -> None:
    url = library.media.hls_url(video)
    other = app.library(app.tenants.create("Globex"))
    theirs = other.media.add(CLIP)

    with pytest.raises(NotFoundError):
        other.media.hls_url(video)
    assert get(files, url.replace(str(library.tenant_id), str(other.tenant_id))).status == 403
    assert get(files, url.replace(str(video.id), str(theirs.id))).status == 403


def test_it_expires(app: Mindia, library: Library, video: Media, monkeypatch: pytest.MonkeyPatch) -> None:
    url = library.media.hls_url(video, expires_in=timedelta(minutes=1))
    path = urlsplit(url).path
    granted = signed_urls.verify_stream(path, settings=app.settings)
    assert granted.media_id == video.id

    monkeypatch.setattr("mindia.services.signed_urls.time.time", lambda: granted.expires_at + 1)
    with pytest.raises(SignatureError, match="expired"):
        signed_urls.verify_stream(path, settings=app.settings)
    with pytest.raises(InvalidError, match="expires_in"):
        library.media.hls_url(video, expires_in=timedelta(0))


def test_a_stream_that_another_one_has_taken_the_place_of_is_gone(app: Mindia, library: Library) -> None:
    files = MediaFiles(app)
    video = library.media.add(samples.video(seconds=1))
    encode(library, video)
    url = library.media.hls_url(video)
    assert get(files, url).status == 200

    library.media.delete(video)

    assert get(files, url).status == 404


class Signing(MemoryStorage):
    """A store that signs addresses, as S3 does."""

    def url(self, bucket: str, key: str, *, expires_in: timedelta, content_type: str, disposition: str) -> str | None:
        return f"https://{bucket}.s3.example/{key}?t={content_type}&d={disposition}&e={int(expires_in.total_seconds())}"

    def upload_form(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError

    begin_parts = part_url = uploaded_parts = complete_parts = abort_parts = upload_form


def test_segments_come_from_a_store_that_signs_addresses(app: Mindia, database_url: str) -> None:
    with mindia.connect(
        database_url, storage=Signing(), settings=attrs.evolve(app.settings, hls_segments="fmp4")
    ) as s3:
        library = s3.library(s3.tenants.create("Acme"))
        video = library.media.add(CLIP)
        encode(library, video)
        files = MediaFiles(s3)
        url = library.media.hls_url(video, expires_in=timedelta(minutes=30))

        master = get(files, url)
        index = get(files, urljoin(url, "96p/index.m3u8"))

        item = library.media.get(video.id, type=Video)
        prefix = str(item.hls_master_key).removesuffix("master.m3u8")
    assert "https" not in master.body.decode(), "the playlists come from us, who make their addresses"
    text = index.body.decode()
    assert len(index.body) == int(index.headers["Content-Length"])
    assert index.headers["Cache-Control"] == "private, no-cache"
    segments = [line for line in text.splitlines() if line and line[0] != "#"]
    assert len(segments) == 2
    for line in [*segments, re.search(r'URI="(.*)"', text)[1]]:  # type: ignore[index]
        assert re.fullmatch(rf"https://.*\.s3\.example/{prefix}96p/\w+\.(m4s|mp4)\?t=video/.*&d=inline&e=\d+", line)
        assert int(line.rpartition("=")[2]) <= 1801


def test_there_is_no_address_where_it_is_not_known_who_serves_it(
    database_url: str, app: Mindia, library: Library, video: Media
) -> None:
    settings = attrs.evolve(app.settings, public_url=None)
    with (
        mindia.connect(database_url, storage=app.storage, settings=settings) as bare,
        pytest.raises(InvalidError, match=r"Settings\.public_url"),
    ):
        bare.library(library.tenant_id).media.hls_url(video)
