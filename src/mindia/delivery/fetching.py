"""What stands at a URL that somebody else has written: read through the guard, within limits of size and time.

Each connection goes to an address that the guard has checked, also that of a redirect; TLS checks the host of the URL.
Neither proxies nor anything else is taken from the environment, no cookie is kept, nothing is unpacked.
"""

from __future__ import annotations

import io
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from http.client import HTTPConnection, HTTPException, HTTPResponse, IncompleteRead
from queue import Empty, Queue
from typing import Any, BinaryIO, cast
from urllib.parse import unquote, urljoin, urlsplit

import attrs

from mindia._version import __version__
from mindia.delivery.addresses import CheckedUrl, Endpoint, Guard
from mindia.errors import (
    DownloadError,
    DownloadFailedError,
    HostNotFoundError,
    MindiaError,
    TooLargeError,
)

_MAX_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_PASSING = (408, 425, 429, 500, 502, 503, 504)
"""Answers after which the same request may succeed later."""

_CONNECT_S = 10.0
_DRAIN = 1 << 16

_HEADERS = {
    "Accept": "*/*",
    "Accept-Encoding": "identity",
    "User-Agent": f"mindia/{__version__}",
    "Connection": "close",
}


@attrs.frozen(kw_only=True)
class FetchLimits:
    """How much of a server is put up with.

    Attributes:
        max_bytes: How many bytes there may be.
        timeout_s: How long all of it may take, with look-ups and redirects.
        idle_s: How long nothing may come.
    """

    max_bytes: int
    timeout_s: float
    idle_s: float = 15.0


@attrs.frozen(kw_only=True)
class Fetched:
    """What a server answers with.

    Attributes:
        file: The bytes, as they come.
        filename: As the server or the URL calls it, or nothing.
        content_type: As the server says, or None.
        url: Where it was in the end.
    """

    file: BinaryIO
    filename: str
    content_type: str | None
    url: str


@contextmanager
def fetched(url: str, *, guard: Guard, limits: FetchLimits, tls: ssl.SSLContext | None = None) -> Iterator[Fetched]:
    """Open what stands at a URL.

    Args:
        url: `http` or `https`.
        guard: What may be connected to.
        limits: How much is put up with; over reading, too.
        tls: What decides which certificates are right; the system's by default.

    Raises:
        InvalidError: It is no URL.
        ForbiddenAddressError: It, or where it leads on to, may not be connected to.
        TooLargeError: There are more bytes than are allowed.
        DownloadFailedError: The server cannot be reached, is too slow, or refuses for now.
        DownloadError: It has nothing there, or does not keep to HTTP.
    """
    deadline = _Deadline(limits)
    checked = guard.check_url(url)
    for _ in range(_MAX_REDIRECTS + 1):
        connection = _Connection(checked, guard, deadline, tls)
        try:
            response = connection.ask()
            where = _location(response, checked)
            if where is None:
                yield _answered(response, checked, limits, deadline)
                return
        finally:
            connection.close()
        following = guard.check_url(where)
        if checked.scheme == "https" and following.scheme != "https":
            raise DownloadError(f"{_shown(checked)} leads on from https to {following.scheme}")
        checked = following
    raise DownloadError(f"{url[:200]!r} leads on more than {_MAX_REDIRECTS} times")


class _Deadline:
    """The moment by which all is to be done, and how long may be waited for the next bytes until then."""

    def __init__(self, limits: FetchLimits) -> None:
        self._limits = limits
        self._ends_at = time.monotonic() + limits.timeout_s

    def wait_s(self, at_most: float | None = None) -> float:
        """Return how long may be waited now.

        Raises:
            TimeoutError: The time is over.
        """
        left = self._ends_at - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"it took longer than {self._limits.timeout_s:g} s")
        return min(left, self._limits.idle_s if at_most is None else at_most)


class _Connection:
    """One connection for one request."""

    def __init__(self, url: CheckedUrl, guard: Guard, deadline: _Deadline, tls: ssl.SSLContext | None) -> None:
        self._url = url
        self._guard = guard
        self._deadline = deadline
        self._tls = tls
        self._http: HTTPConnection | None = None
        self._response: HTTPResponse | None = None

    def ask(self) -> HTTPResponse:
        """Send the request and return the answer, whose body is not read yet."""
        url = self._url
        with _typed(url):
            opened = self._connected()
            try:
                if url.scheme == "https":
                    context = self._tls or ssl.create_default_context()
                    opened.settimeout(self._deadline.wait_s(_CONNECT_S))
                    opened = context.wrap_socket(opened, server_hostname=url.host)
            except BaseException:
                opened.close()
                raise
            http = self._http = HTTPConnection(url.host, url.port)
            # http.client reads line by line, each with a time of its own: here all of them share one.
            http.sock = cast("Any", _Socket(opened, self._deadline))
            split = urlsplit(url.url)
            target = (split.path or "/") + (f"?{split.query}" if split.query else "")
            http.putrequest("GET", target, skip_host=True, skip_accept_encoding=True)
            http.putheader("Host", split.netloc)
            for name, value in _HEADERS.items():
                http.putheader(name, value)
            http.endheaders()
            self._response = http.getresponse()
            return self._response

    def _connected(self) -> socket.socket:
        """Connect to the first address of those that were checked that can be reached."""
        failed: OSError | None = None
        for endpoint in self._looked_up():
            opened = socket.socket(endpoint.family, socket.SOCK_STREAM)
            try:
                opened.settimeout(self._deadline.wait_s(_CONNECT_S))
                opened.connect(endpoint.sockaddr)
            except OSError as error:
                opened.close()
                failed = error
            else:
                return opened
        assert failed is not None, "a name that was looked up has an address"
        raise failed

    def _looked_up(self) -> list[Endpoint]:
        """Look up the name in a thread, since a look-up cannot be called off: one that hangs is left behind."""
        answers: Queue[list[Endpoint] | Exception] = Queue()

        def look_up() -> None:
            try:
                answers.put(self._guard.resolve(self._url.host, self._url.port))
            except Exception as error:  # noqa: BLE001 - handed over to who waits
                answers.put(error)

        threading.Thread(target=look_up, name="mindia-lookup", daemon=True).start()
        try:
            answer = answers.get(timeout=self._deadline.wait_s(_CONNECT_S))
        except Empty:
            raise TimeoutError(f"the name {self._url.host!r} is still being looked up") from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        if self._response is not None:
            self._response.close()
        if self._http is not None:
            self._http.close()


class _Socket:
    """A socket as http.client uses one, whose waiting ends by the deadline."""

    def __init__(self, opened: socket.socket, deadline: _Deadline) -> None:
        self._opened = opened
        self._deadline = deadline
        self._users = 1

    def sendall(self, content: bytes) -> None:
        self._opened.settimeout(self._deadline.wait_s())
        self._opened.sendall(content)

    def makefile(self, mode: str) -> io.BufferedReader:  # noqa: ARG002 - of a socket
        self._users += 1
        return io.BufferedReader(_Incoming(self._opened, self._deadline, self.close))

    def close(self) -> None:
        self._users -= 1
        if self._users == 0:
            self._opened.close()


class _Incoming(io.RawIOBase):
    def __init__(self, opened: socket.socket, deadline: _Deadline, close: Any) -> None:
        self._opened = opened
        self._deadline = deadline
        self._close = close

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._opened.settimeout(self._deadline.wait_s())
        return self._opened.recv_into(buffer)

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._close()


class _Body:
    """Reads the body of an answer, as far as it may go."""

    def __init__(self, response: HTTPResponse, url: CheckedUrl, limits: FetchLimits, deadline: _Deadline) -> None:
        self._response = response
        self._url = url
        self._limits = limits
        self._deadline = deadline
        self._left: int | None = response.length
        self._count = 0

    def read(self, size: int = -1) -> bytes:
        wanted = _DRAIN if size < 0 else size
        with _typed(self._url):
            self._deadline.wait_s()
            content = self._response.read1(wanted)
        self._count += len(content)
        if self._count > self._limits.max_bytes:
            raise _too_large(self._url, self._limits)
        if self._left is not None and not content and self._count < self._left:
            raise DownloadFailedError(f"{_shown(self._url)} broke off: {self._count} of {self._left} bytes have come")
        return content


def _answered(response: HTTPResponse, url: CheckedUrl, limits: FetchLimits, deadline: _Deadline) -> Fetched:
    """Return what a server has there.

    Raises:
        DownloadError: It has nothing, or not as it is.
        TooLargeError: It says that it has too much.
    """
    if response.status != 200:
        kind = DownloadFailedError if response.status in _PASSING else DownloadError
        raise kind(f"{_shown(url)} answers {response.status} {response.reason[:80]!r}")
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding != "identity":
        raise DownloadError(f"{_shown(url)} comes as {encoding[:40]!r}, although it was asked for as it is")
    if response.length is not None and response.length > limits.max_bytes:
        raise _too_large(url, limits)
    return Fetched(
        file=cast("BinaryIO", _Body(response, url, limits, deadline)),
        filename=_filename(response, url),
        content_type=response.headers.get("Content-Type"),
        url=url.url,
    )


def _location(response: HTTPResponse, url: CheckedUrl) -> str | None:
    if response.status not in _REDIRECTS:
        return None
    where = response.headers.get("Location", "")
    if not where:
        raise DownloadError(f"{_shown(url)} answers {response.status}, and does not say where it is")
    try:
        # As bytes of headers come: what is not ASCII is written in percent signs.
        plain = re.sub(r"[^!-~]", lambda match: "".join(f"%{byte:02X}" for byte in match[0].encode("latin-1")), where)
        return urljoin(url.url, plain).partition("#")[0]
    except (ValueError, UnicodeError) as error:
        raise DownloadError(f"{_shown(url)} leads on to {where[:200]!r}, which is no URL") from error


def _filename(response: HTTPResponse, url: CheckedUrl) -> str:
    """Return the name that a server gives (RFC 6266), or else the last part of the path."""
    header = Message()
    header["Content-Disposition"] = response.headers.get("Content-Disposition", "")
    return header.get_filename("") or unquote(urlsplit(url.url).path.rpartition("/")[2])


@contextmanager
def _typed(url: CheckedUrl) -> Iterator[None]:
    try:
        yield
    except HostNotFoundError as error:
        raise DownloadFailedError(f"{_shown(url)} cannot be reached: {error}") from error
    except MindiaError:
        raise
    except TimeoutError as error:
        raise DownloadFailedError(f"{_shown(url)} is too slow: {error}") from error
    except ssl.SSLCertVerificationError as error:
        raise DownloadError(f"{_shown(url)} has no certificate that is right for it: {error.verify_message}") from error
    except OSError as error:
        raise DownloadFailedError(f"{_shown(url)} cannot be reached: {error.strerror or error}") from error
    except IncompleteRead as error:
        raise DownloadFailedError(f"{_shown(url)} broke off") from error
    except HTTPException as error:
        raise DownloadError(f"{_shown(url)} does not answer in HTTP: {type(error).__name__}") from error
    except ValueError as error:  # of http.client, over lengths that are none
        raise DownloadError(f"{_shown(url)} does not answer in HTTP: {error}") from error


def _too_large(url: CheckedUrl, limits: FetchLimits) -> TooLargeError:
    return TooLargeError(f"{_shown(url)} has more than {limits.max_bytes} bytes")


def _shown(url: CheckedUrl) -> str:
    """Return a URL without its query, which may hold a secret."""
    return repr(url.url.partition("?")[0][:200])
