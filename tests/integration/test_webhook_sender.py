"""Sending: hostile receivers on real sockets, certificates, and what is not taken from anywhere."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from tests.integration.hostile_receivers import (
    CASES,
    DELIVERED,
    FAILED,
    REJECTED,
    TIMED_OUT,
    Answer,
    Case,
    Receiver,
    running,
    says,
    says_and_hangs,
)

from mindia.delivery.addresses import Guard
from mindia.delivery.sender import Sender, SendResult, parse_retry_after

T = TypeVar("T")

BODY = b'{"type":"image.uploaded"}' + b" " * 200_000
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

_LOOPBACK = Guard(allow_private=["127.0.0.1/32"])
_LONGEST_S = 20.0
"""A limit of safety: a sender that hangs fails its test, and does not hang it."""


def _sender(guard: Guard = _LOOPBACK, **options: Any) -> Sender:
    return Sender(guard, **{"timeout_s": 1.0, "connect_timeout_s": 1.0, "grace_s": 0.2, **options})


def _run(work: Callable[[Sender], Awaitable[T]], sender: Sender | None = None) -> T:
    async def run() -> T:
        async with asyncio.timeout(_LONGEST_S), sender or _sender() as opened:
            return await work(opened)

    return asyncio.run(run())


async def _send(sender: Sender, url: str, body: bytes = BODY) -> SendResult:
    return await sender.send(url=url, body=body, headers={"webhook-id": "msg_1"})


@pytest.mark.parametrize("case", CASES, ids=[case.name.replace(" ", "-") for case in CASES])
def test_a_hostile_receiver_has_its_outcome_in_time_and_within_bounds(case: Case) -> None:
    async def work(sender: Sender) -> tuple[SendResult, Receiver]:
        async with running(case.behaviour, reads=case.reads) as receiver:
            return await _send(sender, receiver.url), receiver

    # What ends by its bytes has the time for them, however busy the machine is.
    patience_s = 15.0 if case.error_code == "too_much" else 1.0
    result, receiver = _run(work, _sender(_LOOPBACK, timeout_s=patience_s))

    assert (result.outcome, result.status_code, result.error_code) == (case.outcome, case.status_code, case.error_code)
    if case.response is not None or not result.response:
        assert result.response == case.response
    assert result.address in ("127.0.0.1", None)
    assert receiver.connections == 1
    assert receiver.written < 30_000_000  # what fits into the buffers of the system


def test_there_are_more_than_enough_hostile_receivers() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 25


def test_a_good_receiver_gets_the_bytes_and_headers() -> None:
    async def work(sender: Sender) -> tuple[SendResult, Receiver]:
        async with running(says(OK)) as receiver:
            return await _send(sender, receiver.url), receiver

    result, receiver = _run(work)

    assert result.outcome is DELIVERED
    assert (result.status_code, result.response, result.address) == (200, "ok", "127.0.0.1")
    (head,) = receiver.requests
    assert head.startswith(b"POST /hook HTTP/1.1\r\n")
    lines = head.lower().split(b"\r\n")
    for line in (b"webhook-id: msg_1", b"content-type: application/json", b"content-length: %d" % len(BODY)):
        assert line in lines
    assert any(line.startswith(b"user-agent: mindia/") for line in lines)


def test_connections_are_used_again_after_a_clean_answer() -> None:
    async def work(sender: Sender) -> Receiver:
        async with running(says(OK), path="keep") as receiver:
            for _ in range(5):
                assert (await _send(sender, receiver.url)).outcome is DELIVERED
            return receiver

    receiver = _run(work)

    assert (len(receiver.requests), receiver.connections) == (5, 1)


def test_a_connection_that_was_closed_meanwhile_is_made_anew() -> None:
    """The receiver answers each request on a connection that it then closes without saying so."""

    async def work(sender: Sender) -> tuple[list[SendResult], Receiver]:
        async with running(says(OK)) as receiver:
            return [await _send(sender, receiver.url) for _ in range(3)], receiver

    results, receiver = _run(work)

    assert [result.outcome for result in results] == [DELIVERED] * 3
    assert len(receiver.requests) == 3


def test_what_comes_unasked_is_not_taken_for_the_next_answer() -> None:
    async def twice(_: asyncio.StreamReader, answer: Answer) -> None:
        await answer.say(OK)
        await asyncio.sleep(0.05)
        await answer.say(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")

    async def work(sender: Sender) -> list[SendResult]:
        async with running(twice, path="keep") as receiver:
            results = []
            for _ in range(3):
                results.append(await _send(sender, receiver.url))
                await asyncio.sleep(0.1)
            return results

    assert [result.status_code for result in _run(work)] == [200, 200, 200]


def test_nobody_listens() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}/"
        result = _run(lambda sender: _send(sender, url))

    assert (result.outcome, result.error_code, result.status_code) == (FAILED, "connect_refused", None)


def test_a_connection_that_is_not_accepted_is_given_up() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        with socket.create_connection(address), socket.socket() as second:
            second.setblocking(False)
            second.connect_ex(address)
            result = _run(
                lambda sender: _send(sender, f"http://127.0.0.1:{address[1]}/"), _sender(connect_timeout_s=0.3)
            )

    assert (result.outcome, result.error_code) in ((TIMED_OUT, "connect_timeout"), (TIMED_OUT, "timeout"))


@pytest.mark.parametrize("url", ["http://127.0.0.1/", "http://169.254.169.254/", "ftp://example.com/", "http://[::1]/"])
def test_a_forbidden_address_is_an_outcome(url: str) -> None:
    result = _run(lambda sender: _send(sender, url), _sender(Guard()))

    assert (result.outcome, result.error_code, result.address) == (FAILED, "forbidden_address", None)


def _names(monkeypatch: pytest.MonkeyPatch, answer: Callable[[str], list[str]]) -> None:
    real = socket.getaddrinfo

    def look_up(host: str, port: int, *arguments: Any, **options: Any) -> list[Any]:
        if not host.endswith(".example.com"):
            return list(real(host, port, *arguments, **options))
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in answer(host)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


def test_a_name_that_comes_to_mean_something_else_is_refused_at_the_send(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [["127.0.0.1"], ["127.0.0.2"]]
    _names(monkeypatch, lambda _: answers.pop(0))

    async def work(sender: Sender) -> tuple[list[SendResult], Receiver]:
        async with running(says(OK)) as receiver:
            url = receiver.url.replace("127.0.0.1", "rebinding.example.com")
            results = [await _send(sender, url)]
            await asyncio.sleep(0.05)  # the receiver has closed the connection, and the sender has noticed
            return [*results, await _send(sender, url)], receiver

    (good, bad), receiver = _run(work)

    assert good.outcome is DELIVERED
    assert (bad.outcome, bad.error_code) == (FAILED, "forbidden_address")
    assert receiver.connections == 1


def test_a_name_that_is_not_there_is_an_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: str) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    _names(monkeypatch, fail)
    result = _run(lambda sender: _send(sender, "http://gone.example.com/"))

    assert (result.outcome, result.error_code) == (FAILED, "name_not_found")


def test_a_name_server_that_does_not_answer_holds_up_only_its_own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    release = threading.Event()
    asked: list[str] = []

    def answer(host: str) -> list[str]:
        asked.append(host)
        if host.startswith("slow"):
            release.wait(_LONGEST_S)
        return ["127.0.0.1"]

    _names(monkeypatch, answer)

    async def work(sender: Sender) -> list[SendResult]:
        async with running(says(OK)) as receiver:
            slow, quick = (receiver.url.replace("127.0.0.1", f"{name}.example.com") for name in ("slow", "quick"))
            return await asyncio.gather(*[_send(sender, slow) for _ in range(20)], _send(sender, quick))

    try:
        *slow, quick = _run(work, _sender(connect_timeout_s=0.3))
    finally:
        release.set()

    assert quick.outcome is DELIVERED
    assert {(each.outcome, each.error_code) for each in slow} == {(TIMED_OUT, "name_timeout")}
    assert asked.count("slow.example.com") == 1


def test_nothing_is_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password hunter2\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1/")

    async def work(sender: Sender) -> tuple[list[SendResult], Receiver]:
        answer = OK.replace(b"\r\n\r\n", b"\r\nSet-Cookie: a=b; Path=/\r\n\r\n")
        async with running(says(answer), path="keep") as receiver:
            return [await _send(sender, receiver.url) for _ in range(2)], receiver

    results, receiver = _run(work)

    assert [result.outcome for result in results] == [DELIVERED] * 2
    for head in receiver.requests:
        assert b"authorization" not in head.lower()
        assert b"cookie" not in head.lower()


def test_many_hanging_receivers_hold_up_nobody_else() -> None:
    async def work(sender: Sender) -> tuple[list[SendResult], list[SendResult]]:
        async with running(says_and_hangs(b"")) as hanging, running(says(OK)) as good:
            waiting = [asyncio.create_task(_send(sender, hanging.url, b"{}")) for _ in range(100)]
            quick = [await _send(sender, good.url) for _ in range(20)]
            done = [task for task in waiting if task.done()]
            assert not done
            return list(await asyncio.gather(*waiting)), quick

    hanging, quick = _run(work, _sender(timeout_s=3.0))

    assert {result.outcome for result in quick} == {DELIVERED}
    assert {result.outcome for result in hanging} == {TIMED_OUT}


def test_being_cancelled_ends_the_connection() -> None:
    async def work(sender: Sender) -> bytes:
        ended: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        async def behaviour(reader: asyncio.StreamReader, _: Answer) -> None:
            try:
                ended.set_result(await reader.read())
            except ConnectionError:
                ended.set_result(b"")

        async with running(behaviour) as receiver:
            sending = asyncio.create_task(_send(sender, receiver.url))
            while not receiver.requests:
                await asyncio.sleep(0.01)
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
            return await ended

    assert _run(work, _sender(timeout_s=_LONGEST_S)) == b""


NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120), (" 7 ", 7), ("0", 0), ("99999999999999999999999", 86_400), ("86401", 86_400),
        ("Fri, 02 Jan 2026 03:05:05 GMT", 60), ("Fri, 02 Jan 2026 03:03:05 GMT", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 86_400), ("Friday, 02-Jan-26 03:05:05 GMT", 60),
        (None, None), ("", None), ("-5", None), ("1.5", None), ("soon", None), ("١٢", None), ("0x10", None),
        ("1e3", None),
        ("Fri, 99 Jan 2026 03:05:05 GMT", None), ("Fri, 02 Jan 2026 99:99:99 GMT", None), ("5, 6", None),
        ("Fri, 02 Jan 0000 00:00:00 GMT", 0), ("1" * 5000, None), ("\x00", None), (",,,", None),
    ],
)  # fmt: skip
def test_retry_after_is_read_within_bounds(value: str | None, seconds: int | None) -> None:
    expected = None if seconds is None else timedelta(seconds=seconds)
    assert parse_retry_after(value, now=NOW) == expected


@pytest.mark.parametrize("status", [429, 503, 302, 410])
def test_a_receiver_is_heard_that_asks_to_be_left_alone(status: int) -> None:
    answer = b"HTTP/1.1 %d No\r\nRetry-After: 120\r\nContent-Length: 0\r\n\r\n" % status

    async def work(sender: Sender) -> SendResult:
        async with running(says(answer)) as receiver:
            return await _send(sender, receiver.url)

    result = _run(work)

    assert (result.outcome, result.status_code, result.retry_after) == (REJECTED, status, timedelta(minutes=2))


class Authority:
    """Makes certificates, good and bad ones."""

    def __init__(self, folder: Path) -> None:
        from cryptography.hazmat.primitives.asymmetric import ec

        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._certificate = self._make("the authority", self._key, days=1, is_authority=True)

    @property
    def trusting(self) -> ssl.SSLContext:
        from cryptography.hazmat.primitives.serialization import Encoding

        return ssl.create_default_context(cadata=self._certificate.public_bytes(Encoding.PEM).decode())

    def server(self, name: str, *, days: int = 1) -> ssl.SSLContext:
        """Return what a server of that name says that it is, until so many days from now."""
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        key = ec.generate_private_key(ec.SECP256R1())
        path = self._folder / "server.pem"
        path.write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            + self._make(name, key, days=days).public_bytes(Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context

    def _make(self, name: str, key: Any, *, days: int, is_authority: bool = False) -> Any:
        from cryptography import x509
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.x509.oid import NameOID

        def named(text: str) -> x509.Name:
            return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

        until = datetime.now(UTC) + timedelta(days=days)
        try:
            alternative: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(name))
        except ValueError:
            alternative = x509.DNSName(name.replace(" ", "-"))
        others = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
        usage = dict.fromkeys((*others, "encipher_only", "decipher_only"), False)
        return (
            x509.CertificateBuilder()
            .subject_name(named(name))
            .issuer_name(named("the authority"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(until - timedelta(days=30))
            .not_valid_after(until)
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(
                x509.KeyUsage(digital_signature=True, key_cert_sign=is_authority, crl_sign=is_authority, **usage),
                critical=True,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
            .sign(self._key, SHA256())
        )


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def _send_over_tls(server: ssl.SSLContext | None, sender: Sender) -> SendResult:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(len(BODY))
        writer.write(OK)
        await writer.drain()
        writer.close()

    async def work(opened: Sender) -> SendResult:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # a broken handshake is what is wanted
        listening = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=server)
        try:
            port = listening.sockets[0].getsockname()[1]
            return await _send(opened, f"https://127.0.0.1:{port}/")
        finally:
            listening.close()

    return _run(work, sender)


def test_a_certificate_of_the_right_name_is_trusted(authority: Authority) -> None:
    result = _send_over_tls(authority.server("127.0.0.1"), _sender(ssl_context=authority.trusting))

    assert (result.outcome, result.response) == (DELIVERED, "ok")


@pytest.mark.parametrize(("name", "days"), [("example.com", 1), ("127.0.0.2", 1), ("127.0.0.1", -1)])
def test_a_certificate_of_another_name_or_time_is_not(authority: Authority, name: str, days: int) -> None:
    result = _send_over_tls(authority.server(name, days=days), _sender(ssl_context=authority.trusting))

    assert (result.outcome, result.error_code, result.status_code) == (FAILED, "certificate", None)


def test_a_certificate_that_nobody_vouches_for_is_not(authority: Authority) -> None:
    result = _send_over_tls(authority.server("127.0.0.1"), _sender())

    assert (result.outcome, result.error_code) == (FAILED, "certificate")


def test_a_receiver_that_speaks_no_tls_is_an_outcome() -> None:
    async def work(sender: Sender) -> SendResult:
        async def banner(_: asyncio.StreamReader, answer: Answer) -> None:
            await answer.say(b"SSH-2.0-OpenSSH_9.2\r\n")

        async with running(banner, reads=False) as receiver:
            return await _send(sender, receiver.url.replace("http:", "https:"))

    result = _run(work)

    assert (result.outcome, result.error_code) == (FAILED, "tls")


def test_a_handshake_that_never_ends_is_given_up() -> None:
    async def work(sender: Sender) -> SendResult:
        async def silent(_: asyncio.StreamReader, __: Answer) -> None:
            await asyncio.sleep(3600)

        async with running(silent, reads=False) as receiver:
            return await _send(sender, receiver.url.replace("http:", "https:"))

    result = _run(work, _sender(connect_timeout_s=0.3))

    assert (result.outcome, result.error_code) == (TIMED_OUT, "connect_timeout")


def test_an_answer_that_is_too_long_to_keep_ends_no_other_request_on_its_connection() -> None:
    """The connection is free for others as soon as the answer is whole, before it is looked at."""
    long = b"HTTP/1.1 200 OK\r\nContent-Length: 6000\r\n\r\n" + b"x" * 6000

    async def work(sender: Sender) -> tuple[list[SendResult], Receiver]:
        async with running(says(long), path="keep") as receiver:
            results = await asyncio.gather(*[_send(sender, receiver.url, b"{}") for _ in range(100)])
            return results, receiver

    results, receiver = _run(work, _sender(timeout_s=_LONGEST_S))

    assert {(result.outcome, result.response) for result in results} == {(DELIVERED, "x" * 4096)}
    assert len(receiver.requests) == 100
