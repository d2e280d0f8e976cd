"""A signed URL gives one item to whoever has it, for a while, and nothing else to anybody."""

from __future__ import annotations

import io
import re
import socket
import string
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from email.utils import parsedate_to_datetime
from http.client import HTTPMessage, HTTPResponse
from socketserver import ThreadingMixIn
from typing import Any, ClassVar
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit
from uuid import UUID
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.corpus.hostile_names import HOSTILE_NAMES
from tests.integration.library_calls import SETTINGS
from tests.integration.media_rows import Host, four_kinds, rolled_back

import mindia
from mindia import Library, Media, MemoryStorage, Mindia, Settings
from mindia._ids import uuid7
from mindia.domain.media import Disposition
from mindia.errors import InvalidError, NotFoundError, SignatureError
from mindia.services import signed_urls
from mindia.services.signed_urls import SignedUrl
from mindia.serving import MediaFiles
from mindia.testing import samples

TRUSTING = attrs.evolve(SETTINGS, isolate_parsers=False)

TINY = samples.image("PNG", width=2, height=2)


# A server


class QuietHandler(WSGIRequestHandler):
    """Keeps what would be printed about a request that failed."""

    failures: ClassVar[list[io.StringIO]]

    def log_message(self, *_: Any) -> None:
        pass

    def get_stderr(self) -> Any:
        self.failures.append(io.StringIO())
        return self.failures[-1]


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


@attrs.frozen
class Served:
    """An application that is served, below the path `/files/media`."""

    app: Mindia
    port: int

    def get(self, url: str | bytes, method: str = "GET", **headers: str) -> Answer:
        """Send a request as it is, however little it is one."""
        target = url if isinstance(url, bytes) else url.removeprefix(f"http://127.0.0.1:{self.port}").encode()
        lines = [method.encode() + b" " + target + b" HTTP/1.1", b"Host: 127.0.0.1", b"Connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}".encode() for name, value in headers.items()]
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            connection.sendall(b"\r\n".join([*lines, b"", b""]))
            response = HTTPResponse(connection, method=method)
            response.begin()
            with response:
                return Answer(response.status, response.headers, response.read())


@attrs.frozen
class Answer:
    status: int
    headers: HTTPMessage
    body: bytes


@pytest.fixture(scope="module")
def served(database_url: str) -> Iterator[Served]:
    class Handler(QuietHandler):
        failures: ClassVar[list[io.StringIO]] = []

    with Server(("127.0.0.1", 0), Handler) as server:
        port = server.server_port
        settings = attrs.evolve(TRUSTING, public_url=f"http://127.0.0.1:{port}/files/media")
        with mindia.connect(database_url, storage=MemoryStorage(), settings=settings) as app:
            server.set_app(validator(MediaFiles(app)))
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            try:
                yield Served(app, port)
            finally:
                server.shutdown()
                thread.join()
    assert [printed.getvalue() for printed in Handler.failures if printed.getvalue()] == [], "a request has failed"


@pytest.fixture
def library(served: Served) -> Library:
    return served.app.library(served.app.tenants.create("Acme"))


@pytest.fixture
def other(served: Served) -> Library:
    """Another tenant's library."""
    return served.app.library(served.app.tenants.create("Globex"))


@attrs.frozen
class Shared:
    """An item, its bytes, and its URL."""

    library: Library
    item: Media
    content: bytes
    url: str


@pytest.fixture(scope="module")
def shared(served: Served) -> Shared:
    library = served.app.library(served.app.tenants.create("Acme"))
    content = samples.wav(seconds=0.5)
    item = library.media.add(content, filename="tone.wav")
    return Shared(library, item, content, library.media.url(item))


class Clock:
    """Stands for the module `time`."""

    def __init__(self, now: float) -> None:
        self.now = now

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock for what is signed, which stands still."""
    clock = Clock(1_700_000_000.9)
    monkeypatch.setattr(signed_urls, "time", clock)
    return clock


def is_refused(answer: Answer, status: int, reason: str) -> bool:
    """Tell whether an answer says no, and not a word more."""
    return (
        answer.status == status
        and answer.body == f"{reason}\n".encode()
        and answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        and answer.headers["X-Content-Type-Options"] == "nosniff"
        and answer.headers["Cache-Control"] == "no-store"
        and "ETag" not in answer.headers
        and "Content-Disposition" not in answer.headers
    )


# What is served


def test_every_kind_is_served_with_its_type_and_its_name(served: Served, library: Library) -> None:
    for item in four_kinds(library):
        answer = served.get(library.media.url(item))

        assert answer.status == 200
        assert answer.body == library.media.read(item)
        assert answer.headers["Content-Type"] == item.content_type
        assert answer.headers["Content-Length"] == str(item.file_size)
        assert answer.headers["Content-Disposition"] == (
            f"inline; filename=\"{item.filename}\"; filename*=UTF-8''{item.filename}"
        )
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Content-Security-Policy"] == "script-src 'none'"
        assert answer.headers["Accept-Ranges"] == "bytes"
        assert answer.headers["ETag"] == f'"{item.sha256}"'
        assert parsedate_to_datetime(answer.headers["Last-Modified"]) == item.uploaded_at.replace(microsecond=0)
        assert len(answer.headers.keys()) == len({*answer.headers.keys()})


def test_a_url_may_be_made_of_an_item_or_its_id_inside_a_transaction_too(served: Served, shared: Shared) -> None:
    with shared.library.transaction() as tx:
        urls = [shared.library.media.url(shared.item.id), tx.media.url(shared.item)]

    for url in urls:
        assert served.get(url).body == shared.content


def test_what_is_not_committed_is_not_served(served: Served, library: Library) -> None:
    with rolled_back(library) as tx:
        item = tx.media.add(TINY)
        url = tx.media.url(item)
        assert is_refused(served.get(url), 404, "not_found")
    assert is_refused(served.get(url), 404, "not_found")


@pytest.mark.parametrize("disposition", ["inline", "attachment", *Disposition])
def test_a_browser_is_told_whether_to_show_or_to_save_it(served: Served, shared: Shared, disposition: Any) -> None:
    answer = served.get(shared.library.media.url(shared.item, disposition=disposition))

    assert answer.headers["Content-Disposition"].startswith(f"{disposition}; filename=")
    assert answer.body == shared.content


STORED_NAMES = {
    "quotes": 'a".jpg"; filename="evil.exe',
    "backslash": 'a\\"b.jpg',
    "header": "a.jpg\r\nSet-Cookie: a=b",
    "answer": "a.jpg\r\n\r\n<script>alert(1)",
    "line feed": "a\nb.jpg",
    "control": "a\x01\x7f\x1b[2J\t.jpg",
    "right to left": "cat\u202egpj.exe",
    "accents": "é à ü.jpg",
    "cat": "猫🐈.jpg",
    "percent": "a%22%0d%0aX-Evil: 1.jpg",
    "dots and backslashes": "..\\..\\etc\\passwd",
    "question": "a?b=c&d#e;f.jpg",
    "spaces": " a  b ",
    "dots": "..",
    "dot": ".",
    "nothing": "",
    "long": "猫" * 255,
    "comma": "a,b;c='d'.jpg",
}
"""Such as somebody who writes to the tables may have left there."""


@pytest.mark.parametrize(
    "name",
    [*STORED_NAMES.values(), *(re.sub(r"[/\0]", "", handed_in) for handed_in, _ in HOSTILE_NAMES.values())],
    ids=lambda name: ascii(name)[:30],
)
def test_a_name_stays_within_its_header_whatever_is_in_it(
    served: Served, shared: Shared, host: Host, name: str
) -> None:
    stored = name.encode("utf-8", "replace").decode()[:255]
    item = shared.library.media.copy(shared.item)
    with host.transaction():
        host.execute("update mindia.audios set filename = %s where id = %s", (stored, item.id))
    url = shared.library.media.url(item)
    assert re.fullmatch(r"[!-~]+", url)

    answer = served.get(url)

    assert answer.status == 200
    assert answer.body == shared.content
    expected = {*served.get(shared.url).headers.keys()}
    assert {*answer.headers.keys()} == expected
    header = answer.headers.get_all("Content-Disposition")
    assert header is not None
    (only,) = header
    found = re.fullmatch(r"inline; filename=\"([ !#$&-\[\]-~]*)\"; filename\*=UTF-8''([A-Za-z0-9_.~%-]*)", only)
    assert found is not None
    assert unquote(found[2], errors="strict") == stored
    assert len(found[1]) == len(stored)


def test_an_etag_saves_sending_the_bytes_again(served: Served, shared: Shared) -> None:
    tag = f'"{shared.item.sha256}"'
    for known in (tag, f"W/{tag}", f'"other", {tag}', f'"other",{tag},W/"more"', "*", f" {tag} "):
        for method in ("GET", "HEAD"):
            answer = served.get(shared.url, method, If_None_Match=known)

            assert answer.status == 304
            assert answer.body == b""
            assert answer.headers["ETag"] == tag
            assert "max-age" in answer.headers["Cache-Control"]
            assert "Content-Type" not in answer.headers
    for known in ('"other"', shared.item.sha256, f'"{shared.item.sha256[:-1]}"', "", '"', tag.upper(), f"X{tag}"):
        assert served.get(shared.url, If_None_Match=known).body == shared.content


def test_an_etag_does_not_stand_for_a_signature(served: Served, shared: Shared) -> None:
    answer = served.get(changed(shared.url, signature="0" * 64), If_None_Match="*")

    assert is_refused(answer, 403, "signature")


@pytest.mark.parametrize("disposition", list(Disposition))
def test_a_head_request_has_the_headers_alone(served: Served, shared: Shared, disposition: Disposition) -> None:
    url = shared.library.media.url(shared.item, disposition=disposition)

    head, whole = served.get(url, "HEAD"), served.get(url)
    part = served.get(url, "HEAD", Range="bytes=0-3")

    assert head.status == part.status == whole.status == 200
    assert head.body == part.body == b""
    for answer in (head, part):
        assert {**answer.headers} | {"Date": "", "Cache-Control": ""} == {**whole.headers} | {
            "Date": "",
            "Cache-Control": "",
        }


def test_it_is_kept_by_caches_no_longer_than_the_url_works(
    served: Served, shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = Clock(1_700_000_000)
    monkeypatch.setattr(signed_urls, "time", now)
    monkeypatch.setattr("mindia.serving.time", now)
    url = shared.library.media.url(shared.item, expires_in=timedelta(minutes=5))
    assert served.get(url).headers["Cache-Control"] == "private, immutable, max-age=300"

    now.now += 299

    assert served.get(url).headers["Cache-Control"] == "private, immutable, max-age=1"


# Ranges

SIZE = 16_044


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        ("bytes=0-0", slice(0, 1)),
        ("bytes=0-3", slice(0, 4)),
        ("bytes=1000-8191", slice(1_000, 8_192)),
        ("bytes=5-", slice(5, None)),
        ("bytes=0-", slice(0, None)),
        (f"bytes=0-{SIZE - 1}", slice(0, None)),
        (f"bytes={SIZE - 1}-", slice(-1, None)),
        (f"bytes={SIZE - 1}-{SIZE + 5}", slice(-1, None)),
        (f"bytes={SIZE - 4}-{10**18}", slice(-4, None)),
        ("bytes=-1", slice(-1, None)),
        ("bytes=-100", slice(-100, None)),
        (f"bytes=-{SIZE}", slice(0, None)),
        (f"bytes=-{SIZE + 1}", slice(0, None)),
        (f"bytes=-{10**18}", slice(0, None)),
        ("bytes= 7-9 ", slice(7, 10)),
        ("bytes=007-009", slice(7, 10)),
    ],
)
def test_a_range_of_the_bytes_is_sent_by_itself(served: Served, shared: Shared, asked: str, part: slice) -> None:
    assert len(shared.content) == SIZE
    start, stop, _ = part.indices(SIZE)

    answer = served.get(shared.url, Range=asked)

    assert answer.status == 206
    assert answer.body == shared.content[part]
    assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{SIZE}"
    assert answer.headers["Content-Length"] == str(stop - start)
    assert answer.headers["Content-Type"] == shared.item.content_type
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    "asked", [f"bytes={SIZE}-", f"bytes={SIZE}-{SIZE}", f"bytes={10**18}-", "bytes=-0", "bytes=-000"]
)
def test_a_range_with_nothing_in_it_is_refused(served: Served, shared: Shared, asked: str) -> None:
    answer = served.get(shared.url, Range=asked)

    assert answer.status == 416
    assert answer.body == b""
    assert answer.headers["Content-Range"] == f"bytes */{SIZE}"
    assert answer.headers["Content-Length"] == "0"


@pytest.mark.parametrize(
    "asked",
    [
        "bytes=0-3,5-9", "bytes=0-3, -1", "bytes=5-2", "bytes=-", "bytes=", "bytes", "", "=", "0-3", "bytes 0-3",
        "bytes=a-b", "bytes=0x0-0x3", "bytes=+0-3", "bytes=0--3", "bytes=1.5-3", "bytes=1_0-2_0", "items=0-3",
        "bytes=0-3;", "bytes=0-3 0-3", f"bytes={10**30}-", "bytes=0-" + "9" * 5_000, "bytes=" + "0-0," * 1_000 + "0-0",
        "bytes=\u0660-\u0663", "bytes=²-³", "bytes=-²", "none", "bytes=0-3\x00",
    ],
    ids=lambda asked: ascii(asked)[:20],
)  # fmt: skip
def test_what_is_no_single_range_gives_the_whole(served: Served, shared: Shared, asked: str) -> None:
    answer = served.get(shared.url, Range=asked)

    assert answer.status == 200
    assert answer.body == shared.content
    assert "Content-Range" not in answer.headers


def test_a_range_of_what_was_something_else_is_the_whole(served: Served, shared: Shared) -> None:
    tag = f'"{shared.item.sha256}"'

    assert served.get(shared.url, Range="bytes=0-3", If_Range=tag).body == shared.content[:4]
    for former in ('"other"', f"W/{tag}", "Tue, 01 Nov 2022 00:00:00 GMT", ""):
        answer = served.get(shared.url, Range="bytes=0-3", If_Range=former)
        assert (answer.status, answer.body) == (200, shared.content)


@settings(max_examples=100, derandomize=True)
@given(
    st.one_of(
        st.text(string.digits + "-,=bytes ", max_size=12).map("bytes=".__add__),
        st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20),
        st.tuples(st.integers(0, SIZE + 5), st.integers(0, SIZE + 5)).map(lambda ends: f"bytes={ends[0]}-{ends[1]}"),
    )
)
def test_whatever_range_is_asked_for_what_comes_is_what_is_said(served: Served, shared: Shared, asked: str) -> None:
    answer = served.get(shared.url, Range=asked)

    assert len(answer.body) == int(answer.headers["Content-Length"])
    match answer.status:
        case 200:
            assert answer.body == shared.content
        case 206:
            start, end, size = map(int, re.findall(r"\d+", answer.headers["Content-Range"]))
            assert answer.body == shared.content[start : end + 1]
            assert size == SIZE
        case _:
            assert answer.status == 416


def test_many_may_read_at_once(served: Served, shared: Shared) -> None:
    def work(at: int) -> bool:
        answer = served.get(shared.url, Range=f"bytes={at * 100}-{at * 100 + 99}")
        return answer.body == shared.content[at * 100 : at * 100 + 100]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(64)))


# What is refused


@pytest.mark.parametrize("method", ["PATCH", "DELETE", "TRACE"])
def test_no_other_method_does_anything(served: Served, shared: Shared, method: str) -> None:
    answer = served.get(shared.url, method)

    assert is_refused(answer, 405, "no such method here")
    assert answer.headers["Allow"] == "GET, HEAD, POST, PUT, OPTIONS"


def changed(url: str, *, tenant: object = None, item: object = None, **query: object) -> str:
    """Return a URL with other parts in it."""
    parts = urlsplit(url)
    *above, tenant_id, media_id, filename = parts.path.split("/")
    path = "/".join([*above, str(tenant or tenant_id), str(item or media_id), filename])
    fields = {name: values[0] for name, values in parse_qs(parts.query).items()} | query
    return f"{parts.scheme}://{parts.netloc}{path}?{urlencode(fields)}"


def query_of(url: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


def test_a_head_request_is_refused_without_a_body(served: Served, shared: Shared) -> None:
    for url in (changed(shared.url, signature="0" * 64), changed(shared.url, expires=0), "/"):
        status, headers, body = answer_of(MediaFiles(served.app), url, REQUEST_METHOD="HEAD")

        assert status == "403 Forbidden"
        assert body == b""
        assert headers["Content-Length"] == str(len("signature\n"))


def test_every_part_that_is_signed_belongs_to_the_signature(served: Served, shared: Shared, other: Library) -> None:
    foreign = other.media.add(TINY)
    sibling = shared.library.media.add(TINY)
    own = query_of(shared.url)
    flipped = f"{int(own['signature'][0], 16) ^ 1:x}{own['signature'][1:]}"
    wrong = [
        changed(shared.url, tenant=other.tenant_id),
        changed(shared.url, tenant=uuid7()),
        changed(shared.url, item=sibling.id),
        changed(shared.url, item=uuid7()),
        changed(shared.url, item=foreign.id),
        changed(shared.url, tenant=foreign.tenant_id, item=foreign.id),
        changed(other.media.url(foreign), tenant=shared.item.tenant_id, item=shared.item.id),
        changed(shared.url, **query_of(other.media.url(foreign))),
        changed(shared.url, signature=query_of(shared.library.media.url(sibling))["signature"]),
        changed(shared.url, expires=int(own["expires"]) + 1),
        changed(shared.url, expires=int(own["expires"]) - 1),
        changed(shared.url, expires=9_999_999_999),
        changed(shared.url, disposition="attachment"),
        changed(shared.url, signature=flipped),
        changed(shared.url, signature=own["signature"][:-1]),
        changed(shared.url, signature=own["signature"] + "0"),
        changed(shared.url, signature=own["signature"].upper()),
        changed(shared.url, signature="0" * 64),
    ]
    for url in wrong:
        with pytest.raises(SignatureError, match="not right: it was changed, or signed with another key"):
            signed_urls.verify(url, settings=served.app.settings)
        assert is_refused(served.get(url), 403, "signature")


SIGNED = ("disposition", "expires", "signature")


@pytest.mark.parametrize("name", SIGNED)
@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "0",
        "-1",
        "1e9",
        "inline\n",
        "Inline",
        "ä",
        "²",
        "\u0661",
        "\0",
        "\ud800",
        "None",
        "[]",
        "1" * 20,
        "9" * 5_000,
        "+1",
    ],
    ids=lambda value: ascii(value)[:12],
)
def test_a_parameter_that_cannot_be_one_is_refused(served: Served, shared: Shared, name: str, value: str) -> None:
    fields = query_of(shared.url)
    rest = urlencode({key: kept for key, kept in fields.items() if key != name})
    path = shared.url.partition("?")[0]
    for url in (
        f"{path}?{rest}&{name}={quote(value, errors='surrogatepass')}",
        f"{path}?{name}={quote(value, errors='surrogatepass')}&{rest}",
    ):
        with pytest.raises(SignatureError):
            signed_urls.verify(url, settings=served.app.settings)
        assert is_refused(served.get(url), 403, "signature")


@pytest.mark.parametrize("name", SIGNED)
def test_a_parameter_is_there_once(served: Served, shared: Shared, name: str) -> None:
    fields = query_of(shared.url)
    path = shared.url.partition("?")[0]
    without = urlencode({key: value for key, value in fields.items() if key != name})
    whole = urlencode(fields)
    for query in (
        without,
        f"{whole}&{name}={fields[name]}",
        f"{whole}&{name}=x",
        f"{name}=x&{whole}",
        f"{without}&{name}",
        f"{without}&{name}[]={fields[name]}",
        f"{without};{name}={fields[name]}",
        f"{without}&{name.upper()}={fields[name]}",
    ):
        with pytest.raises(SignatureError):
            signed_urls.verify(f"{path}?{query}", settings=served.app.settings)
        assert is_refused(served.get(f"{path}?{query}"), 403, "signature")


NOTHING = [
    "",
    "/",
    "//",
    "///",
    "?",
    "/?",
    "#",
    "/a",
    "/a/b",
    "/a/b/c",
    "//a/b/c",
    "/../../etc/passwd",
    "*",
    "http:",
    "http://[",
]
STRANGE = [
    "/%00/%00/%00", "/\xff/\xfe/\xfd", "/%ff/%fe/%fd", "/%/%/%", "/a/b/c?" + "a=b&" * 10_000, "/a/b/c?=", "/a/b/c?&&&",
    "/a/b/c?a", "/a/b/c?disposition=inline&expires=1&signature=x", "/" + "a/" * 5_000, "/a/b/c?" + "%" * 1_000,
    "/a/b/c?disposition=inline&expires=9999999999&signature=" + "0" * 64, "/\ud800/b/c", "http://a]b/c/d/e",
    "/a/b/c?\ud800=1", "/{}/{}/c", "/urn:uuid:/b/c", "http://\u2100/a/b/c?x=1", "/\u0661/b/c",
    "/a/b/c?" + "&".join(f"{number}=1" for number in range(10_000)),
]  # fmt: skip


@pytest.mark.parametrize("url", [*NOTHING, *STRANGE], ids=lambda url: ascii(url)[:25])
def test_what_was_never_a_signed_url_is_refused(served: Served, url: str) -> None:
    with pytest.raises(SignatureError):
        signed_urls.verify(url, settings=served.app.settings)
    raw = url.encode("utf-8", "surrogatepass")
    if raw.startswith(b"/") and len(raw) < 60_000 and b"\xa0" not in raw:  # which the server takes for a space
        assert is_refused(served.get(raw), 403, "signature")


def test_more_parameters_than_anybody_needs_are_refused(served: Served, shared: Shared) -> None:
    more = "&".join(f"{number}=1" for number in range(10_000))
    for url in (f"{shared.url}&{more}", shared.url.replace("?", f"?{more}&")):
        with pytest.raises(SignatureError):
            signed_urls.verify(url, settings=served.app.settings)
    few = "&".join(f"{number}={'x' * 100}" for number in range(50))
    assert is_refused(served.get(f"{shared.url}&{few}"), 403, "signature")


def test_what_is_not_signed_may_be_changed(served: Served, shared: Shared) -> None:
    """The name is for people; what is before the tenant is the host's; others add parameters of theirs."""
    path, _, query = shared.url.removeprefix(f"http://127.0.0.1:{served.port}").partition("?")
    above, _ = path.rsplit("/", 1)
    inner = above.removeprefix("/files/media")
    for url in (
        f"{above}/other.exe?{query}",
        f"{above}/?{query}",
        f"{above}/%0d%0aX-Evil%3a1?{query}",
        f"{above}/%2e%2e?{query}",
        f"{inner}/tone.wav?{query}",
        f"/else/where{inner}/tone.wav?{query}",
        f"{path}?utm_source=x&{query}&gclid=y",
        f"{path}?{'&'.join(reversed(query.split('&')))}",
    ):
        answer = served.get(url)
        assert (answer.status, answer.body) == (200, shared.content)
        assert answer.headers["Content-Disposition"].count("tone.wav") == 2
        assert "X-Evil" not in answer.headers


@pytest.mark.parametrize("above", ["", "/%2e%2e", "/..", "//", "/a%2Fb"])
def test_a_path_with_another_part_in_it_is_refused(served: Served, shared: Shared, above: str) -> None:
    path, _, query = shared.url.removeprefix(f"http://127.0.0.1:{served.port}").partition("?")
    start, name = path.rsplit("/", 1)

    for url in (f"{start}{above}/a/{name}?{query}", f"{path}/a?{query}", f"{start}?{query}"):
        assert is_refused(served.get(url), 403, "signature")


# Until when


def test_a_url_works_as_long_as_was_asked_for_and_then_no_more(served: Served, shared: Shared, clock: Clock) -> None:
    began = clock.now
    for expires_in in (timedelta(seconds=1), timedelta(seconds=1.5), timedelta(hours=1), timedelta(days=365)):
        clock.now = began
        url = shared.library.media.url(shared.item, expires_in=expires_in)
        clock.now = began + expires_in.total_seconds()
        assert served.get(url).body == shared.content
        clock.now += 2
        with pytest.raises(SignatureError, match=r"expired: make another one with library\.media\.url"):
            signed_urls.verify(url, settings=served.app.settings)
        assert is_refused(served.get(url), 403, "signature")


def test_a_url_works_for_an_hour_where_nothing_else_is_said(shared: Shared, clock: Clock) -> None:
    url = shared.library.media.url(shared.item)

    granted = signed_urls.verify(url, settings=shared.library._app.settings)

    assert 3600 <= granted.expires_at - clock.now <= 3601


def test_that_a_url_has_expired_is_told_only_to_who_had_a_right_one(shared: Shared, clock: Clock) -> None:
    url = shared.library.media.url(shared.item)
    clock.now += 10_000

    with pytest.raises(SignatureError, match="not right"):
        signed_urls.verify(changed(url, signature="0" * 64), settings=shared.library._app.settings)


@pytest.mark.parametrize(
    "expires_in",
    [
        timedelta(),
        timedelta(seconds=0.999),
        timedelta(seconds=-5),
        timedelta(days=366),
        timedelta.max,
        60,
        60.0,
        None,
        "1h",
    ],
)
def test_a_lifetime_is_from_a_second_to_a_year(shared: Shared, expires_in: Any) -> None:
    with pytest.raises(InvalidError, match=r"^expires_in must be .*a second to a year, not "):
        shared.library.media.url(shared.item, expires_in=expires_in)


@pytest.mark.parametrize("disposition", ["", "Inline", "inline; filename=x", "attachment\r\nX: 1", None, 5, []])
def test_a_disposition_that_does_not_exist_is_refused(shared: Shared, disposition: Any) -> None:
    with pytest.raises(InvalidError, match="disposition must be one of inline, attachment, not "):
        shared.library.media.url(shared.item, disposition=disposition)


# Of what


def test_a_deleted_item_is_served_no_more(served: Served, library: Library) -> None:
    item = library.media.add(TINY)
    url = library.media.url(item)
    assert served.get(url).body == TINY
    library.media.delete(item)

    assert is_refused(served.get(url), 404, "not_found")
    assert is_refused(served.get(url, If_None_Match=f'"{item.sha256}"'), 404, "not_found")
    assert is_refused(served.get(url, Range="bytes=0-3"), 404, "not_found")
    with pytest.raises(NotFoundError):
        library.media.url(item)


def test_an_item_that_has_expired_is_served_no_more(served: Served, library: Library, host: Host) -> None:
    item = library.media.add(TINY)
    url = library.media.url(item)
    with host.transaction():
        host.execute("update mindia.images set expires_at = clock_timestamp() where id = %s", (item.id,))

    assert is_refused(served.get(url), 404, "not_found")


def test_a_suspended_tenant_is_served_again_when_it_is_active_again(served: Served, library: Library) -> None:
    url = library.media.url(library.media.add(TINY))
    served.app.tenants.suspend(library.tenant_id)
    assert is_refused(served.get(url), 403, "tenant_inactive")
    assert is_refused(served.get(url, If_None_Match="*"), 403, "tenant_inactive")

    served.app.tenants.reactivate(library.tenant_id)
    assert served.get(url).body == TINY


def test_bytes_that_are_gone_are_not_served(served: Served, library: Library) -> None:
    item = library.media.add(TINY)
    url = library.media.url(item)
    bucket = served.app.tenants.get(library.tenant_id).s3_bucket
    served.app.storage.delete(bucket, [item.s3_key])

    assert is_refused(served.get(url), 404, "object_not_found")


# By which key


@pytest.mark.parametrize("key", ["not so very secret?", "NOT SO VERY SECRET", "x" * 100])
def test_a_url_of_another_key_is_refused(served: Served, shared: Shared, database_url: str, key: str) -> None:
    settings = attrs.evolve(served.app.settings, secret_key=key)
    with mindia.connect(database_url, storage=served.app.storage, settings=settings) as app:
        url = app.library(shared.item.tenant_id).media.url(shared.item)
        assert signed_urls.verify(url, settings=settings).media_id == shared.item.id
        with pytest.raises(SignatureError, match="another key"):
            signed_urls.verify(shared.url, settings=settings)

    assert is_refused(served.get(url), 403, "signature")


def test_another_process_with_the_same_key_serves_it(served: Served, shared: Shared, database_url: str) -> None:
    settings = Settings(secret_key=SETTINGS.secret_key)
    with mindia.connect(database_url, storage=served.app.storage, settings=settings) as app:
        status, headers, body = answer_of(MediaFiles(app), shared.url)

    assert status == "200 OK"
    assert body == shared.content
    assert headers["ETag"] == f'"{shared.item.sha256}"'


@pytest.mark.parametrize(
    ("missing", "told"),
    [("public_url", r"Settings\.public_url .*MediaFiles"), ("secret_key", r"Settings\.secret_key: .*token_urlsafe")],
)
def test_who_has_not_set_what_urls_need_is_told_what_to_set(
    served: Served, shared: Shared, database_url: str, missing: str, told: str
) -> None:
    lacking: dict[str, Any] = {missing: None}
    settings = attrs.evolve(served.app.settings, **lacking)
    with mindia.connect(database_url, storage=served.app.storage, settings=settings) as app:
        with pytest.raises(InvalidError, match=told):
            app.library(shared.item.tenant_id).media.url(shared.item)
        if missing == "secret_key":
            with pytest.raises(InvalidError, match=told):
                MediaFiles(app)


@pytest.mark.parametrize(
    "public_url",
    ["https://example.org", "https://example.org/", "https://example.org/a/b/", "http://[::1]:8000/m", "/media"],
)
def test_a_url_is_below_the_address_that_is_set(
    served: Served, shared: Shared, database_url: str, public_url: str
) -> None:
    settings = attrs.evolve(served.app.settings, public_url=public_url)
    with mindia.connect(database_url, storage=served.app.storage, settings=settings) as app:
        url = app.library(shared.item.tenant_id).media.url(shared.item)

    assert url.startswith(f"{public_url.rstrip('/')}/{shared.item.tenant_id}/{shared.item.id}/tone.wav?")
    assert signed_urls.verify(url, settings=settings).media_id == shared.item.id


def test_the_key_is_not_in_the_url_nor_used_as_it_is(shared: Shared) -> None:
    import hmac

    fields = query_of(shared.url)
    signed = "\n".join(
        [str(shared.item.tenant_id), str(shared.item.id), fields["disposition"], fields["expires"]]
    ).encode()
    key = SETTINGS.secret_key
    assert key is not None

    assert key not in unquote(shared.url)
    assert fields["signature"] != hmac.digest(key.encode(), signed, "sha256").hex()


# Whatever comes

ITEM = UUID("01900000-0000-7000-8000-000000000001")
TENANT = UUID("01900000-0000-7000-8000-000000000002")


def signed(expires_at: int = 4_000_000_000) -> tuple[str, SignedUrl]:
    """Return a URL of an item that is not there, and what it grants."""
    granted = SignedUrl(tenant_id=TENANT, media_id=ITEM, disposition=Disposition.INLINE, expires_at=expires_at)
    signature = signed_urls._signature(granted, TRUSTING)
    query = {"disposition": "inline", "expires": str(expires_at), "signature": signature}
    return f"https://example.org/media/{TENANT}/{ITEM}/cat.jpg?{urlencode(query)}", granted


@settings(max_examples=500, derandomize=True)
@given(
    st.one_of(
        st.text(max_size=60),
        st.text(st.characters(), max_size=30).map(lambda text: f"/{TENANT}/{ITEM}/{text}"),
        st.text(string.printable + "\ud800\0²", max_size=40).map(lambda text: f"/{TENANT}/{ITEM}/a?{text}"),
        st.lists(st.tuples(st.sampled_from([*SIGNED, "a", ""]), st.text(st.characters(), max_size=5)), max_size=5).map(
            lambda fields: f"/{TENANT}/{ITEM}/a?" + "&".join(f"{name}={value}" for name, value in fields)
        ),
    )
)
def test_no_text_that_nobody_has_signed_is_taken_for_a_signed_url(text: str) -> None:
    with pytest.raises(SignatureError):
        signed_urls.verify(text, settings=TRUSTING)


@settings(max_examples=500, derandomize=True)
@given(
    at=st.integers(0, 300),
    removed=st.integers(0, 3),
    put=st.text(st.sampled_from(string.printable + "é²\0\ud800\u0661"), max_size=3),
)
def test_a_url_that_was_changed_gives_what_it_gave_or_nothing(at: int, removed: int, put: str) -> None:
    url, granted = signed()
    other = url[:at] + put + url[at + removed :]

    try:
        found = signed_urls.verify(other, settings=TRUSTING)
    except SignatureError:
        return
    assert found == granted


def answer_of(files: MediaFiles, url: str, **environ: Any) -> tuple[str, Mapping[str, str], bytes]:
    """Call the application as a server does."""
    parts = urlsplit(url)
    here: dict[str, Any] = {
        "PATH_INFO": unquote(parts.path, "latin-1"),
        "QUERY_STRING": parts.query,
        **environ,
    }
    setup_testing_defaults(here)
    started: list[tuple[str, list[tuple[str, str]]]] = []

    def start_response(status: str, headers: list[tuple[str, str]], _: Any = None) -> Any:
        started.append((status, headers))

    body = files(here, start_response)
    try:
        content = b"".join(body)
    finally:
        getattr(body, "close", lambda: None)()
    ((status, headers),) = started
    return status, dict(headers), content


def test_a_server_that_says_next_to_nothing_is_answered(served: Served) -> None:
    started: list[str] = []
    for environ in ({"REQUEST_METHOD": "GET"}, {"REQUEST_METHOD": "GET", "PATH_INFO": "", "QUERY_STRING": ""}):
        body = MediaFiles(served.app)(environ, lambda status, _: started.append(status))
        assert b"".join(body) == b"signature\n"
    assert started == ["403 Forbidden"] * 2


def test_who_goes_away_early_leaves_no_file_open(served: Served, shared: Shared) -> None:
    opened: list[io.BytesIO] = []

    class Watched(MemoryStorage):
        def open(self, bucket: str, key: str) -> Any:
            opened.append(io.BytesIO(served.app.storage.open(bucket, key).read()))
            return opened[-1]

    parts = urlsplit(shared.url)
    environ: dict[str, Any] = {"PATH_INFO": unquote(parts.path), "QUERY_STRING": parts.query}
    setup_testing_defaults(environ)
    with mindia.connect(served.app._database._source, storage=Watched(), settings=served.app.settings) as app:
        for read in (False, True):
            body: Any = MediaFiles(app)(environ, lambda *_: None)
            if read:
                assert next(iter(body)) == shared.content
            assert not opened[-1].closed
            body.close()
            assert opened[-1].closed
        before = len(opened)
        for quiet in ({"REQUEST_METHOD": "HEAD"}, {"HTTP_IF_NONE_MATCH": "*"}, {"HTTP_RANGE": f"bytes={SIZE}-"}):
            assert b"".join(MediaFiles(app)(environ | quiet, lambda *_: None)) == b""
        assert len(opened) == before, "no bytes are wanted"
