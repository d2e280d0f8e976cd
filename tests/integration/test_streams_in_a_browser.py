"""A stream plays to its end in a browser, by hls.js: where Chromium and hls.js are installed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from socketserver import ThreadingMixIn
from typing import Any
from urllib.parse import quote
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import attrs
import pytest
from tests.integration.library_calls import SETTINGS
from tools.browser import chromium

import mindia
from mindia import Library, LocalStorage, Mindia
from mindia.domain.tasks import VideoTranscode
from mindia.serving import MediaFiles
from mindia.testing import samples
from mindia.worker.context import TaskContext

_ROOT = Path(__file__).parents[2]
_PAGE = _ROOT / "tests" / "browser" / "page.html"
_PLAYER = Path(os.environ.get("MINDIA_TEST_HLS_JS", _ROOT / ".browser/node_modules/hls.js/dist/hls.min.js"))
_BROWSER = chromium()
_PLAYS_S = 60.0

pytestmark = [
    pytest.mark.skipif(_BROWSER is None, reason="Chromium is not installed: apt-get install chromium"),
    pytest.mark.skipif(not _PLAYER.exists(), reason="hls.js is not installed: npm install --prefix .browser hls.js"),
]


class QuietHandler(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


@attrs.frozen
class Site:
    """A page with a player, and the media behind it.

    Attributes:
        port: Where it is served.
        told: What the page tells, as JSON.
    """

    port: int
    told: SimpleQueue[bytes]

    @classmethod
    @contextmanager
    def of(cls, serving: list[MediaFiles]) -> Iterator[Site]:
        told: SimpleQueue[bytes] = SimpleQueue()
        pages = {
            "/": (_PAGE.read_bytes(), "text/html; charset=utf-8"),
            "/hls.js": (_PLAYER.read_bytes(), "text/javascript"),
        }

        def site(environ: dict[str, Any], start_response: Any) -> Any:
            path = environ["PATH_INFO"]
            if path.startswith("/media/"):
                return serving[0](environ, start_response)
            if path == "/told":
                told.put(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
            body, kind = pages.get(path, (b"", "text/plain"))
            start_response("200 OK", [("Content-Type", kind), ("Content-Length", str(len(body)))])
            return [body]

        server = Server(("127.0.0.1", 0), QuietHandler)
        server.set_app(site)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield cls(server.server_port, told)
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


@contextmanager
def browser(url: str, folder: Path) -> Iterator[None]:
    """Show a page in a browser without a window, which reaches nothing but this machine."""
    assert _BROWSER is not None
    command = [
        _BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--autoplay-policy=no-user-gesture-required", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        f"--user-data-dir={folder}", url,
    ]  # fmt: skip
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def encode(library: Library, content: bytes) -> str:
    video = library.media.add(content)
    task = library.media.transcode(video)
    library.media._transcode(VideoTranscode(video_id=video.id), TaskContext(task=task, tenant_library=library))
    library.tasks.cancel(task)
    return library.media.hls_url(video)


@pytest.mark.parametrize(
    ("segments", "audio_codec"),
    [
        ("ts", "aac"),
        ("fmp4", None),
        pytest.param("ts", None, marks=pytest.mark.slow),
        pytest.param("fmp4", "aac", marks=pytest.mark.slow),
    ],
)
def test_a_browser_plays_it_to_the_end(
    database_url: str, tmp_path: Path, segments: str, audio_codec: str | None
) -> None:
    serving: list[MediaFiles] = []
    with Site.of(serving) as site:
        settings = attrs.evolve(
            SETTINGS,
            isolate_parsers=False,
            public_url=f"http://127.0.0.1:{site.port}/media",
            hls_ladder=("144p@200k", "240p@400k"),
            hls_segments=segments,
            hls_segment_s=1.0,
        )
        with mindia.connect(database_url, storage=LocalStorage(tmp_path / "objects"), settings=settings) as app:
            serving.append(MediaFiles(app))
            clip = samples.video(width=426, height=240, seconds=4, frame_rate=25, audio_codec=audio_codec)
            url = encode(_library(app), clip)
            with browser(f"http://127.0.0.1:{site.port}/?url={quote(url, safe='')}", tmp_path / "profile"):
                try:
                    told = json.loads(site.told.get(timeout=_PLAYS_S))
                except Empty:
                    pytest.fail("the browser has not played it to its end")
    assert told["errors"] == []
    assert told["ended"]
    assert told["duration"] == pytest.approx(4, abs=0.3)
    assert told["at"] == pytest.approx(told["duration"], abs=0.3)
    assert [level[:2] for level in told["levels"]] == [[256, 144], [426, 240]]
    assert {bool(level[3]) for level in told["levels"]} == {audio_codec is not None}
    assert told["height"] == 240, "it has changed to the better variant on the way"
    assert told["segments"] >= 4


def _library(app: Mindia) -> Library:
    return app.library(app.tenants.create("Acme"))
