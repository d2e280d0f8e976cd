"""What may be connected to: forbidden addresses in all their forms, and the good ones beside them."""

# ruff: noqa: RUF001 - what looks like something else is what is tested

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterator, Sequence
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindia.delivery.addresses import _FORBIDDEN, Guard
from mindia.delivery.pinning import pinned_connector
from mindia.errors import ForbiddenAddressError, HostNotFoundError, InvalidError

FORBIDDEN_URLS = [
    # Loopback, in every form that some resolver or parser takes for it.
    "http://127.0.0.1/",
    "http://127.0.0.1:8080/hook",
    "http://127.255.255.254/",
    "http://2130706433/",
    "http://017700000001/",
    "http://0x7f000001/",
    "http://0x7f.0.0.1/",
    "http://0X7F.0.0.1/",
    "http://0177.0.0.1/",
    "http://0177.0.0.01/",
    "http://127.1/",
    "http://127.0.1/",
    "http://127.0.0.1./",
    "http://127.1./",
    "http://2130706433./",
    "http://0/",
    "http://0.0.0.0/",
    "http://00.00.00.00/",
    "http://0x0/",
    "http://0x/",
    "http://127.0.0.0x1/",
    "http://example.com.127/",
    "http://localhost/",
    "http://LOCALHOST/",
    "http://localhost./",
    "http://localhost:8080/",
    "http://foo.localhost/",
    "http://foo.LocalHost/",
    "http://localhost.localdomain/",
    "http://①②⑦.⓪.⓪.①/",
    "http://１２７.０.０.１/",
    "http://127。0。0。1/",
    "http://127．0．0．1/",
    "http://127｡0｡0｡1/",
    "http://١٢٧.٠.٠.١/",
    "http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ/",
    "http://ⓛocalhost/",
    "http://ｌｏｃａｌｈｏｓｔ/",
    "http://loc\u00adalhost/",
    "http://local\u200bhost/",
    "http://ℓocalhost/",
    "http://127.0.0.1\u3002/",
    "http://%31%32%37.0.0.1/",
    "http://127%2e0%2e0%2e1/",
    "http://[::1]/",
    "http://[::1]:8080/",
    "http://[0:0:0:0:0:0:0:1]/",
    "http://[0000:0000:0000:0000:0000:0000:0000:0001]/",
    "http://[::]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[0:0:0:0:0:ffff:7f00:1]/",
    "http://[::ffff:0:127.0.0.1]/",
    "http://[::127.0.0.1]/",
    "http://[::7f00:1]/",
    "http://[::1%25lo]/",
    "http://[::1%lo]/",
    "http://[::1]./",
    "http://[::1/",
    "http://::1/",
    # NAT64, 6to4, Teredo, ISATAP: an IPv4 address within an IPv6 one.
    "http://[64:ff9b::7f00:1]/",
    "http://[64:ff9b::169.254.169.254]/",
    "http://[64:ff9b:1::a9fe:a9fe]/",
    "http://[2002:7f00:1::]/",
    "http://[2002:a9fe:a9fe::1]/",
    "http://[2001:0:4136:e378:8000:63bf:3fff:fdd2]/",
    "http://[2001::1]/",
    "http://[fe80::5efe:127.0.0.1]/",
    # Metadata services of clouds.
    "http://169.254.169.254/latest/meta-data/",
    "http://169.254.170.2/",
    "http://0xa9fea9fe/",
    "http://2852039166/",
    "http://0251.0376.0251.0376/",
    "http://169.16689662/",
    "http://[::ffff:a9fe:a9fe]/",
    "http://[::ffff:169.254.169.254]/",
    "http://[fd00:ec2::254]/",
    "http://[fd20:ce::254]/",
    "http://168.63.129.16/",
    "http://100.100.100.200/",
    "http://192.0.0.192/",
    "http://metadata.google.internal/",
    "http://instance-data/",
    # Private and special networks.
    "http://10.0.0.1/",
    "http://10.255.255.255/",
    "http://172.16.0.1/",
    "http://172.31.255.255/",
    "http://192.168.1.1/",
    "http://100.64.0.1/",
    "http://100.127.255.255/",
    "http://198.18.0.1/",
    "http://198.19.255.255/",
    "http://192.0.2.1/",
    "http://198.51.100.1/",
    "http://203.0.113.1/",
    "http://192.88.99.1/",
    "http://224.0.0.1/",
    "http://239.255.255.255/",
    "http://240.0.0.1/",
    "http://255.255.255.255/",
    "http://[fc00::1]/",
    "http://[fd12:3456::1]/",
    "http://[fe80::1]/",
    "http://[fe80::1%25eth0]/",
    "http://[fec0::1]/",
    "http://[ff02::1]/",
    "http://[2001:db8::1]/",
    "http://[3fff::1]/",
    "http://[100::1]/",
    "http://[4000::1]/",
    "http://[5f00::1]/",
    # Names of a network of its own.
    "http://intranet/",
    "http://printer.local/",
    "http://db.internal/",
    "http://router.lan/",
    "http://nas.home.arpa/",
    # Who is meant depends on who reads.
    "http://user:secret@127.0.0.1/",
    "http://example.com@127.0.0.1/",
    "http://127.0.0.1@example.com/",
    "http://example.com:80@127.0.0.1/",
    "http://example.com%40127.0.0.1/",
    "http://example.com#@127.0.0.1/",
    "http://127.0.0.1#example.com/",
    "http://example.com\\@127.0.0.1/",
    "http://127.0.0.1\\.example.com/",
    "http:\\\\127.0.0.1/",
    "http:/127.0.0.1/",
    "http:127.0.0.1/",
    "//127.0.0.1/",
    "http:///127.0.0.1/",
    "http://127.0.0.1 .example.com/",
    "http://example.com\t/",
    "http://example.com\r\nHost: 127.0.0.1/",
    "http://example.com/\r\nX-Injected: 1",
    "http://example.com/\x00",
    " http://example.com/",
    "http://example.com./",
    "http://.example.com/",
    "http://example..com/",
    "http://-example.com/",
    "http://exa mple.com/",
    "http://example.com:/",
    "http://example.com:８０/",
    "http://example.com:-1/",
    "http://example.com:+80/",
    "http://example.com:80:80/",
    "http://example.com/a b",
    "http://example.com/ü",
    "http://straße.example/",
    "http://",
    "http://:80/",
    "http://@/",
    "",
    # Other schemes, and ports of other protocols.
    "ftp://example.com/",
    "file:///etc/passwd",
    "gopher://example.com/_",
    "dict://example.com:11211/",
    "ws://example.com/",
    "javascript:alert(1)",
    "data:text/plain,x",
    "unix:///run/docker.sock",
    "http+unix://%2Frun%2Fdocker.sock/",
    "http://example.com:0/",
    "http://example.com:22/",
    "http://example.com:25/",
    "http://example.com:53/",
    "http://example.com:2375/",
    "http://example.com:5432/",
    "http://example.com:6379/",
    "http://example.com:11211/",
    "http://example.com:65536/",
    "http://example.com:99999/",
]

GOOD_URLS = {
    "https://example.com": "https://example.com/",
    "https://example.com/": "https://example.com/",
    "HTTPS://Example.COM/Path?Query=1&b=%20": "https://example.com/Path?Query=1&b=%20",
    "https://example.com?x=1": "https://example.com/?x=1",
    "https://example.com:8443/hook": "https://example.com:8443/hook",
    "http://example.com:80/": "http://example.com:80/",
    "https://a-b.c_d.example.co.uk/": "https://a-b.c_d.example.co.uk/",
    "https://xn--mnchen-3ya.example/": "https://xn--mnchen-3ya.example/",
    "https://münchen.example/": "https://xn--mnchen-3ya.example/",
    "https://1.1.1.1/": "https://1.1.1.1/",
    "https://[2606:4700:4700::1111]:443/": "https://[2606:4700:4700::1111]:443/",
    "https://[2606:4700:4700:0:0:0:0:1111]/": "https://[2606:4700:4700::1111]/",
    "https://4chan.example/": "https://4chan.example/",
    "https://0x7f.example/": "https://0x7f.example/",
    "https://example.com/a@b": "https://example.com/a@b",
    "https://example.com/[x]": "https://example.com/[x]",
}


@pytest.fixture
def guard() -> Guard:
    return Guard()


@pytest.mark.parametrize("url", FORBIDDEN_URLS, ids=range(len(FORBIDDEN_URLS)))
def test_a_url_that_leads_elsewhere_is_refused(guard: Guard, url: str) -> None:
    with pytest.raises(InvalidError):
        guard.check_url(url)


def test_there_are_more_than_enough_forbidden_urls() -> None:
    assert len(set(FORBIDDEN_URLS)) == len(FORBIDDEN_URLS) >= 80


@pytest.mark.parametrize("url", GOOD_URLS, ids=range(len(GOOD_URLS)))
def test_a_good_url_is_taken_in_one_form(guard: Guard, url: str) -> None:
    checked = guard.check_url(url)

    assert checked.url == GOOD_URLS[url]
    assert guard.check_url(checked.url) == checked


@pytest.mark.parametrize("url", [None, b"https://example.com/", 5, "https://example.com/" + "a" * 3000])
def test_what_is_no_text_or_too_long_is_refused(guard: Guard, url: Any) -> None:
    with pytest.raises(InvalidError, match="at most 2048"):
        guard.check_url(url)


def test_the_message_shows_no_password(guard: Guard) -> None:
    with pytest.raises(InvalidError, match="a name or password before its host") as raised:
        guard.check_url("https://user:hunter2@example.com/")
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("network", _FORBIDDEN, ids=str)
def test_a_network_of_the_table_is_forbidden_from_its_first_to_its_last_address(guard: Guard, network: Any) -> None:
    for address in (network[0], network[-1]):
        with pytest.raises(ForbiddenAddressError, match="may not be connected to"):
            guard.check_address(address)
        with pytest.raises(ForbiddenAddressError):
            guard.check_address(str(address))


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0",
     "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0", "192.167.255.255", "192.169.0.0",
     "198.17.255.255", "198.20.0.0", "223.255.255.255", "168.63.129.15", "168.63.129.17",
     "2001:200::1", "2003::1", "2606:4700::1111", "2a00:1450::1"],
)  # fmt: skip
def test_what_lies_beside_the_forbidden_networks_is_not_forbidden(guard: Guard, address: str) -> None:
    assert str(guard.check_address(address)) == address


@given(st.ip_addresses(v=4))
def test_no_form_of_an_ipv4_address_that_is_embedded_in_ipv6_passes(address: ipaddress.IPv4Address) -> None:
    number = int(address)
    for embedded in (
        number,  # IPv4-compatible
        0xFFFF << 32 | number,  # mapped
        0xFFFF << 48 | number,  # translated
        0x64FF9B << 96 | number,  # NAT64
        0x2002 << 112 | number << 80,  # 6to4
        0x20010000 << 96 | ~number & 0xFFFFFFFF,  # Teredo
    ):
        with pytest.raises(ForbiddenAddressError):
            Guard().check_address(ipaddress.IPv6Address(embedded))


@given(st.ip_addresses(v=4, network="127.0.0.0/8"), st.sampled_from(["{}", "{:#x}", "0{:o}", "0x{:032x}"]))
def test_an_ipv4_address_as_one_number_is_refused(address: ipaddress.IPv4Address, form: str) -> None:
    with pytest.raises(ForbiddenAddressError):
        Guard(allow_private=True).check_url(f"http://{form.format(int(address))}/")


@given(st.text(max_size=40))
def test_whatever_stands_in_a_url_it_is_refused_or_taken_with_an_error_of_ours(text: str) -> None:
    for url in (text, f"http://{text}", f"http://{text}/", f"https://example.com{text}"):
        try:
            checked = Guard().check_url(url)
        except InvalidError:
            continue
        assert checked.url.isascii()
        assert Guard().check_url(checked.url) == checked


class Names:
    """A name server whose answers are made up."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        self._answers: dict[str, list[list[str]]] = {}
        monkeypatch.setattr(socket, "getaddrinfo", self._look_up)

    def answer(self, name: str, *answers: Sequence[str]) -> None:
        """Have each look-up get the next one of the answers; the last one stays."""
        self._answers[name] = [list(answer) for answer in answers]

    def _look_up(self, host: str, port: int, **_: object) -> list[tuple[Any, ...]]:
        self.asked.append(host)
        answers = self._answers.get(host)
        if answers is None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        return [
            (socket.AF_INET6 if ":" in each else socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port))
            for each in answer
        ]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    return Names(monkeypatch)


def test_all_addresses_of_a_name_are_returned_once(guard: Guard, names: Names) -> None:
    names.answer("example.com", ["1.1.1.1", "2606:4700::1", "1.1.1.1"])

    endpoints = guard.resolve("example.com", 443)

    assert [endpoint.sockaddr for endpoint in endpoints] == [("1.1.1.1", 443), ("2606:4700::1", 443)]


@pytest.mark.parametrize(
    "answer",
    [["127.0.0.1"], ["1.1.1.1", "10.0.0.1"], ["10.0.0.1", "1.1.1.1"], ["1.1.1.1", "::1"], ["1.1.1.1", "::ffff:1.1.1.1"],
     ["fe80::1%eth0"], ["64:ff9b::101:101"], ["169.254.169.254"]],
)  # fmt: skip
def test_a_name_with_one_forbidden_address_is_not_trusted_at_all(guard: Guard, names: Names, answer: list[str]) -> None:
    names.answer("mixed.example.com", answer)

    with pytest.raises(ForbiddenAddressError, match=r"mixed\.example\.com"):
        guard.resolve("mixed.example.com", 443)
    with pytest.raises(ForbiddenAddressError, match=r"mixed\.example\.com"):
        guard.check("https://mixed.example.com/")


def test_a_name_that_cannot_be_looked_up_is_no_reason_to_refuse_its_url(guard: Guard, names: Names) -> None:
    assert guard.check("https://gone.example.com/").host == "gone.example.com"
    with pytest.raises(HostNotFoundError, match=r"gone\.example\.com"):
        guard.resolve("gone.example.com", 443)
    assert names.asked == ["gone.example.com", "gone.example.com"]


def test_a_name_without_an_address_is_not_found(guard: Guard, names: Names) -> None:
    names.answer("empty.example.com", [])

    with pytest.raises(HostNotFoundError, match="has no address"):
        guard.resolve("empty.example.com", 443)


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "192.168.1.1", "100.64.0.1", "::1", "fd12::1"])
def test_private_networks_are_let_through_where_that_is_wanted(address: str) -> None:
    assert Guard(allow_private=True).check_address(address)
    with pytest.raises(ForbiddenAddressError):
        Guard(allow_private=False).check_address(address)


@pytest.mark.parametrize(
    "address",
    ["169.254.169.254", "fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "0.0.0.0", "::", "::ffff:127.0.0.1",
     "224.0.0.1", "fe80::1", "168.63.129.16", "::1%lo"],
)  # fmt: skip
def test_the_rest_stays_forbidden_where_private_networks_are_let_through(address: str) -> None:
    with pytest.raises(ForbiddenAddressError):
        Guard(allow_private=True).check_address(address)


def test_a_network_is_let_through_by_name_and_nothing_beside_it() -> None:
    guard = Guard(allow_private=["10.2.0.0/16", "169.254.169.254/32"])

    assert guard.check_url("http://10.2.3.4:8080/").address == ipaddress.ip_address("10.2.3.4")
    assert guard.check_address("169.254.169.254")
    for address in ("10.3.0.1", "127.0.0.1", "169.254.169.253", "::1"):
        with pytest.raises(ForbiddenAddressError):
            guard.check_address(address)


@pytest.mark.parametrize("network", ["10.0.0.1/8", "ten", "10.0.0.0/33", ""])
def test_what_is_no_network_is_refused(network: str) -> None:
    with pytest.raises(InvalidError, match="allow_private names networks"):
        Guard(allow_private=[network])


def test_names_of_a_network_of_its_own_are_taken_where_private_ones_are() -> None:
    guard = Guard(allow_private=["172.18.0.0/16"])

    assert guard.check_url("http://receiver:8080/hook").host == "receiver"
    assert guard.check_url("http://app.internal/").host == "app.internal"


def test_schemes_and_ports_can_be_restricted() -> None:
    guard = Guard(schemes=["https"], ports=[443, 8443])

    assert guard.check_url("https://example.com:8443/").port == 8443
    with pytest.raises(ForbiddenAddressError, match="write https"):
        guard.check_url("http://example.com/")
    with pytest.raises(ForbiddenAddressError, match="the port 9443"):
        guard.check_url("https://example.com:9443/")


class Listener:
    """A listener on loopback that tells whether anybody has connected."""

    def __init__(self, family: socket.AddressFamily, address: str) -> None:
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.bind((address, 0))
        self.socket.listen()
        self.socket.setblocking(False)
        self.port: int = self.socket.getsockname()[1]

    @property
    def was_reached(self) -> bool:
        try:
            connection, _ = self.socket.accept()
        except BlockingIOError:
            return False
        connection.close()
        return True


@pytest.fixture
def listener() -> Iterator[Listener]:
    listener = Listener(socket.AF_INET, "127.0.0.1")
    yield listener
    listener.socket.close()


async def _get(guard: Guard, url: str) -> int:
    connector = pinned_connector(guard, lookup_timeout_s=5)
    async with aiohttp.ClientSession(connector=connector) as session, session.get(url) as response:
        return response.status


_BYPASSES = ["127.0.0.1", "127.1", "2130706433", "0x7f.0.0.1", "[::ffff:127.0.0.1]", "①②⑦.⓪.⓪.①",
             "rebinding.example.com", "mixed.example.com", "localhost"]  # fmt: skip


@pytest.mark.parametrize("host", _BYPASSES, ids=range(len(_BYPASSES)))
def test_not_one_packet_reaches_a_forbidden_listener(host: str, listener: Listener, names: Names) -> None:
    names.answer("rebinding.example.com", ["127.0.0.1"])
    names.answer("mixed.example.com", ["1.1.1.1", "127.0.0.1"])
    names.answer("localhost", ["127.0.0.1"])
    names.answer("0x7f.0.0.1", ["127.0.0.1"])

    with pytest.raises((ForbiddenAddressError, aiohttp.ClientError)):  # of whichever part notices it first
        asyncio.run(_get(Guard(), f"http://{host}:{listener.port}/"))

    assert not listener.was_reached


def test_the_listener_would_be_reached_by_what_is_allowed(listener: Listener, names: Names) -> None:
    names.answer("receiver.example.com", ["127.0.0.1"])
    with Guard(allow_private=True).connect("receiver.example.com", listener.port, timeout_s=5):
        pass
    assert listener.was_reached


def test_a_name_that_changes_between_look_ups_is_held_to_what_was_checked(listener: Listener, names: Names) -> None:
    """The answer of the registration is good, the one of the send is not: it is the latter that counts."""
    guard = Guard()
    names.answer("rebinding.example.com", ["1.1.1.1"], ["127.0.0.1"])
    guard.check(f"http://rebinding.example.com:{listener.port}/")

    with pytest.raises(ForbiddenAddressError):
        guard.connect("rebinding.example.com", listener.port, timeout_s=5)

    assert not listener.was_reached


def test_a_name_is_looked_up_once_and_connected_to_what_that_said(listener: Listener, names: Names) -> None:
    """A second look-up, by whoever connects, would get another answer."""
    names.answer("rebinding.example.com", ["127.0.0.1"], ["1.1.1.1"])

    with Guard(allow_private=["127.0.0.1/32"]).connect("rebinding.example.com", listener.port, timeout_s=5):
        assert listener.was_reached
    assert names.asked == ["rebinding.example.com"]


def test_the_next_address_is_tried_where_one_cannot_be_reached(listener: Listener, names: Names) -> None:
    names.answer("two.example.com", ["127.0.0.2", "127.0.0.1"])

    with Guard(allow_private=True).connect("two.example.com", listener.port, timeout_s=5) as connected:
        assert connected.getpeername() == ("127.0.0.1", listener.port)
