"""What stands at a URL is read through the guard, within limits, whatever its server does."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from mindia.delivery.addresses import Guard
from mindia.delivery.fetching import FetchLimits, fetched
from mindia.errors import (
    DownloadError,
    DownloadFailedError,
    ForbiddenAddressError,
    InvalidError,
    MindiaError,
    TooLargeError,
)

LOOPBACK = Guard(allow_private=["127.0.0.0/8"])
LIMITS = FetchLimits(max_bytes=1000, timeout_s=20, idle_s=10)

Script = Callable[[socket.socket, bytes], object]


class Hostile:
    """A server that says to each request what a script of its own says."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[bytes] = []
        self.ended = threading.Event()
        self._tls = tls
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.url = f"http{'s' * (tls is not None)}://127.0.0.1:{self.port}/pictures/cat.jpg"
        self.script: Script = lambda connection, _: connection.sendall(ok(b"content"))
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.settimeout(20)
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            with connection:
                request = b""
                while b"\r\n\r\n" not in request and (content := connection.recv(4096)):
                    request += content
                self.requests.append(request)
                self.script(connection, request)

    def close(self) -> None:
        self.ended.set()
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for thread in self._threads:
            thread.join(30)


@pytest.fixture
def server() -> Iterator[Hostile]:
    server = Hostile()
    yield server
    server.close()


def ok(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def says(server: Hostile, answer: bytes) -> None:
    server.script = lambda connection, _: connection.sendall(answer)


def read(url: str, *, guard: Guard = LOOPBACK, limits: FetchLimits = LIMITS, **arguments: Any) -> bytes:
    with fetched(url, guard=guard, limits=limits, **arguments) as found:
        return b"".join(iter(lambda: found.file.read(100), b""))


@pytest.mark.parametrize(
    "answer",
    [
        ok(b"content"),
        ok(b"content", "Content-Length: 7"),
        ok(b"content and more", "Content-Length: 7"),
        ok(b"3\r\ncon\r\n4;x=y\r\ntent\r\n0\r\nTrailer: z\r\n\r\n", "Transfer-Encoding: chunked"),
        b"HTTP/1.1 100 Continue\r\n\r\n" + ok(b"content"),
        ok(b"content", "Content-Encoding: identity"),
    ],
    ids=["until the end", "length", "more than its length", "chunked", "continue", "identity"],
)
def test_what_is_there_is_read(server: Hostile, answer: bytes) -> None:
    says(server, answer)
    assert read(server.url) == b"content"


def test_the_request_says_no_more_than_it_has_to(server: Hostile, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert read(f"{server.url}?size=large&x=%20") == b"content"

    (request,) = server.requests
    head, *headers = request.decode().removesuffix("\r\n\r\n").split("\r\n")
    assert head == "GET /pictures/cat.jpg?size=large&x=%20 HTTP/1.1"
    assert {header.partition(":")[0] for header in headers} == {
        "Host", "Accept", "Accept-Encoding", "User-Agent", "Connection",
    }  # fmt: skip
    assert f"Host: 127.0.0.1:{server.port}" in headers
    assert "Accept-Encoding: identity" in headers


@pytest.mark.parametrize(
    ("header", "path", "filename"),
    [
        ("", "/a/cat%20at%20night.jpg", "cat at night.jpg"),
        ('Content-Disposition: attachment; filename="dog.jpg"', "/a/cat.jpg", "dog.jpg"),
        ("Content-Disposition: inline; filename*=UTF-8''c%C3%A4t.jpg", "/a", "cät.jpg"),
        ("Content-Disposition: inline", "/a/cat.jpg", "cat.jpg"),
        ("Content-Disposition: ;;;=\x80", "/a/cat.jpg", "cat.jpg"),
        ("", "/", ""),
    ],
)
def test_it_is_called_as_the_server_says_or_the_url(server: Hostile, header: str, path: str, filename: str) -> None:
    says(server, ok(b"x", *filter(None, [header])))
    with fetched(f"http://127.0.0.1:{server.port}{path}", guard=LOOPBACK, limits=LIMITS) as found:
        assert found.filename == filename


# Where it leads


@pytest.mark.parametrize("guard", [Guard(), Guard(allow_private=["10.0.0.0/8"])], ids=["none", "another network"])
def test_a_private_address_is_not_connected_to(server: Hostile, guard: Guard) -> None:
    for url in (server.url, f"http://localhost:{server.port}/", f"http://[::ffff:127.0.0.1]:{server.port}/"):
        with pytest.raises((ForbiddenAddressError, DownloadError)):
            read(url, guard=guard)
    assert server.requests == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "where", ["/other.jpg", "other.jpg", "//127.0.0.1:{port}/other.jpg", "http://127.0.0.1:{port}/o?a=b#c"]
)
def test_a_redirect_is_followed(server: Hostile, status: int, where: str) -> None:
    def script(connection: socket.socket, _: bytes) -> None:
        is_first = len(server.requests) == 1
        location = f"Location: {where.format(port=server.port)}"
        connection.sendall(ok(b"", location, status=f"{status} x") if is_first else ok(b"there"))

    server.script = script
    assert read(server.url) == b"there"
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    "where",
    [
        "http://169.254.169.254/latest/meta-data/", "http://10.0.0.1/", "http://[::1]/", "http://2130706433/",
        "file:///etc/passwd", "ftp://127.0.0.1/", "gopher://127.0.0.1:6379/_x", "http://127.0.0.1:6379/",
        "http://user:password@127.0.0.1/", "http://0/", "http://127.0.0.1\\@10.0.0.1/", "data:text/plain,x",
        "javascript:alert(1)", "http://metadata.google.internal/",
    ],
)  # fmt: skip
def test_a_redirect_is_held_to_the_guard(server: Hostile, where: str) -> None:
    guard = Guard(allow_private=["127.0.0.1/32"])
    says(server, ok(b"", f"Location: {where}", status="302 Found"))

    with pytest.raises((InvalidError, DownloadError)):
        read(server.url, guard=guard)
    assert len(server.requests) == 1


@pytest.mark.parametrize("where", ["{url}", "/again"])
def test_redirects_that_do_not_end_are_left(server: Hostile, where: str) -> None:
    says(server, ok(b"", "Location: " + where.format(url=server.url), status="302 Found"))
    with pytest.raises(DownloadError, match="more than 5 times"):
        read(server.url)
    assert len(server.requests) == 6


def test_a_name_that_means_something_else_the_second_time_is_not_looked_up_twice(
    server: Hostile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer that was checked is the one that is connected to."""
    answers = iter(["127.0.0.1", "10.0.0.1"])
    looked_up: list[str] = []

    def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        looked_up.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert read(f"http://rebinding.example.org:{server.port}/") == b"content"
    assert looked_up == ["rebinding.example.org"]
    assert f"Host: rebinding.example.org:{server.port}".encode() in server.requests[0]


def test_a_name_with_one_forbidden_address_is_refused(server: Hostile, monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(_: str, port: int, **__: Any) -> list[Any]:
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in ("127.0.0.1", "169.254.169.254")
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(ForbiddenAddressError):
        read(f"http://two.example.org:{server.port}/")
    assert server.requests == []


def test_a_look_up_that_hangs_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: ended.wait(20) and [])
    try:
        with pytest.raises(DownloadFailedError, match="looked up"):
            read("http://slow.example.org/", limits=FetchLimits(max_bytes=1, timeout_s=0.2))
    finally:
        ended.set()


# What it says


@pytest.mark.parametrize("status", [204, 206, 304, 400, 401, 403, 404, 410, 418])
def test_an_answer_without_a_file_is_no_file(server: Hostile, status: int) -> None:
    says(server, ok(b"", "Content-Length: 0", status=f"{status} nothing"))
    with pytest.raises(DownloadError, match=str(status)) as raised:
        read(f"{server.url}?token=secret")
    assert not raised.value.retryable
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_an_answer_that_may_pass_is_told_from_others(server: Hostile, status: int) -> None:
    says(server, ok(b"", "Content-Length: 0", status=f"{status} later"))
    with pytest.raises(DownloadFailedError) as raised:
        read(server.url)
    assert raised.value.retryable


@pytest.mark.parametrize(
    "answer",
    [
        b"", b"junk", b"HTTP/1.1\r\n\r\n", b"HTTP/1.1 abc OK\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x16\x03\x01\x00\x02",
        ok(b"x", "A" * 70_000 + ": b"), ok(b"x", *(f"A{number}: b" for number in range(200))),
        ok(b"zz\r\nx\r\n", "Transfer-Encoding: chunked"), ok(b"5\r\nabc", "Transfer-Encoding: chunked"),
        ok(b"", "Transfer-Encoding: chunked"), ok(b"abc", "Content-Length: 5"), ok(b"x", "Content-Encoding: gzip"),
        ok(b"", status="302 Found"), ok(b"", "Location: http://[", status="302 Found"),
        ok(b"", "Location: http://\xff\xfe/", status="302 Found"),
    ],
    ids=[
        "nothing", "junk", "half a line", "no number", "ssh", "tls", "long header", "many headers", "no chunk",
        "cut chunk", "no chunks", "cut body", "packed", "nowhere", "broken", "latin",
    ],
)  # fmt: skip
def test_what_is_no_answer_is_an_error_of_ours(server: Hostile, answer: bytes) -> None:
    says(server, answer)
    with pytest.raises((DownloadError, InvalidError)):
        read(server.url)


@pytest.mark.parametrize(
    "answer",
    [
        ok(b"", "Content-Length: 1001"),
        ok(b"", "Content-Length: 99999999999999999999999"),
        ok(b"x" * 1001),
        ok(b"3e9\r\n" + b"x" * 1001 + b"\r\n0\r\n\r\n", "Transfer-Encoding: chunked"),
    ],
    ids=["said", "said with many digits", "not said", "chunked"],
)
def test_more_than_is_allowed_is_not_read(server: Hostile, answer: bytes) -> None:
    says(server, answer)
    with pytest.raises(TooLargeError):
        read(server.url)


def test_a_body_without_end_is_left(server: Hostile) -> None:
    def script(connection: socket.socket, _: bytes) -> None:
        connection.sendall(ok(b""))
        while not server.ended.is_set():
            connection.sendall(bytes(65536))

    server.script = script
    with pytest.raises(TooLargeError):
        read(server.url, limits=FetchLimits(max_bytes=10_000_000, timeout_s=20))


def _drip(server: Hostile, before: bytes, piece: bytes) -> None:
    def script(connection: socket.socket, _: bytes) -> None:
        connection.sendall(before)
        while not server.ended.wait(0.02):
            connection.sendall(piece)

    server.script = script


@pytest.mark.parametrize(
    ("before", "piece"),
    [
        (b"", b"H"),
        (b"HTTP/1.1 200 OK\r\nA: ", b"b"),
        (b"HTTP/1.1 200 OK\r\n", b"A: b\r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (ok(b""), b"x"),
        (ok(b"", "Transfer-Encoding: chunked"), b"1\r\nx\r\n"),
    ],
    ids=["status", "header", "headers", "continue", "body", "chunks"],
)
def test_a_server_that_drips_is_left_when_the_time_is_over(server: Hostile, before: bytes, piece: bytes) -> None:
    _drip(server, before, piece)
    with pytest.raises((DownloadFailedError, DownloadError)):
        read(server.url, limits=FetchLimits(max_bytes=10**6, timeout_s=0.5, idle_s=0.3))


@pytest.mark.parametrize("before", [b"", b"HTTP/1.1 200 OK\r\n", ok(b"x"), ok(b"x", "Content-Length: 9")])
def test_a_server_that_says_no_more_is_left(server: Hostile, before: bytes) -> None:
    def script(connection: socket.socket, _: bytes) -> None:
        connection.sendall(before)
        server.ended.wait(20)

    server.script = script
    with pytest.raises(DownloadFailedError, match="slow"):
        read(server.url, limits=FetchLimits(max_bytes=1000, timeout_s=20, idle_s=0.2))


def test_nobody_there_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(DownloadFailedError, match="cannot be reached"):
        read(f"http://127.0.0.1:{port}/")


def _open_files() -> int:
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.is_dir() else 0


def test_no_socket_stays_open(server: Hostile) -> None:
    open_before = _open_files()
    for answer in (ok(b"x"), b"junk", ok(b"", status="404 x"), ok(b"x" * 2000)):
        says(server, answer)
        with suppress(MindiaError):
            read(server.url)
    with fetched(server.url, guard=LOOPBACK, limits=LIMITS):
        pass  # without reading
    deadline = time.monotonic() + 20
    while _open_files() > open_before:
        assert time.monotonic() < deadline


# TLS


@contextmanager
def certified(tmp_path: Any, name: str) -> Iterator[tuple[Hostile, ssl.SSLContext]]:
    """A server with a certificate for a name, and what trusts it."""
    from datetime import UTC, datetime, timedelta

    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "certificate.pem"
    path.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(path)
    server = Hostile(tls)
    try:
        yield server, ssl.create_default_context(cafile=str(path))
    finally:
        server.close()


def _all_names_are_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        socket, "getaddrinfo",
        lambda _, port, **__: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))],
    )  # fmt: skip


def test_tls_checks_the_host_of_the_url_and_not_the_address(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _all_names_are_here(monkeypatch)
    with certified(tmp_path, "pictures.example.org") as (server, trusting):
        assert read(f"https://pictures.example.org:{server.port}/", tls=trusting) == b"content"
        with pytest.raises(DownloadError, match="certificate"):
            read(f"https://other.example.org:{server.port}/", tls=trusting)
        with pytest.raises(DownloadError, match="certificate"):
            read(f"https://pictures.example.org:{server.port}/")
    assert len(server.requests) == 1


def test_a_redirect_does_not_lead_out_of_tls(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _all_names_are_here(monkeypatch)
    with certified(tmp_path, "pictures.example.org") as (server, trusting):
        says(server, ok(b"", f"Location: http://pictures.example.org:{server.port}/", status="302 Found"))
        with pytest.raises(DownloadError, match="from https to http"):
            read(f"https://pictures.example.org:{server.port}/", tls=trusting)
