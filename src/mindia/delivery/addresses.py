"""Which URLs, names and addresses may be connected to, where somebody else has written the URL.

The standard library's `is_global` is no help: it lets Azure's 168.63.129.16, multicast, 6to4, NAT64 and a dozen other
ranges pass. So the table is ours, and of IPv6 only what is global unicast is let through at all.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import attrs

from mindia.config import Settings
from mindia.errors import ForbiddenAddressError, HostNotFoundError, InvalidError

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

_MAX_URL = 2048

_FORBIDDEN = {
    ip_network(network): name
    for network, name in (
        ("0.0.0.0/8", "this host"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "shared by carriers"),
        ("127.0.0.0/8", "loopback"),
        ("168.63.129.16/32", "the wire server of Azure"),
        ("169.254.0.0/16", "link-local, metadata of clouds"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "protocol assignments"),
        ("192.0.2.0/24", "documentation"),
        ("192.31.196.0/24", "AS112"),
        ("192.52.193.0/24", "AMT"),
        ("192.88.99.0/24", "6to4 relays"),
        ("192.168.0.0/16", "private"),
        ("192.175.48.0/24", "AS112"),
        ("198.18.0.0/15", "benchmarks"),
        ("198.51.100.0/24", "documentation"),
        ("203.0.113.0/24", "documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved, broadcast"),
        ("::/128", "this host"),
        ("::1/128", "loopback"),
        ("::/96", "IPv4-compatible"),
        ("::ffff:0:0/96", "IPv4-mapped"),
        ("::ffff:0:0:0/96", "IPv4-translated"),
        ("64:ff9b::/96", "NAT64"),
        ("64:ff9b:1::/48", "local NAT64"),
        ("100::/64", "discarded"),
        ("100:0:0:1::/64", "dummy"),
        ("2001::/32", "Teredo"),
        ("2001::/23", "protocol assignments"),
        ("2001:db8::/32", "documentation"),
        ("2002::/16", "6to4"),
        ("2620:4f:8000::/48", "AS112"),
        ("3ffe::/16", "6bone"),
        ("3fff::/20", "documentation"),
        ("5f00::/16", "segment routing"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "site-local"),
        ("ff00::/8", "multicast"),
    )
}

_GLOBAL_V6 = IPv6Network("2000::/3")

_PRIVATE = tuple(
    ip_network(network)
    for network in (
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "::1/128",
        "fc00::/7",
    )
)

_METADATA = frozenset(ip_address(address) for address in ("100.100.100.200", "fd00:ec2::254", "fd20:ce::254"))
"""What clouds tell their machines, in networks that are private otherwise: Alibaba, AWS, Google."""

# Ports of other protocols, whose servers could take a request for something of their own: those that browsers refuse,
# and those of databases, brokers and orchestrators.
_OTHER_PORTS = frozenset({
    1433, 1521, 1719, 1720, 1723, 1883, 2049, 2181, 2375, 2376, 2379, 2380, 3306, 3389, 3659, 4045, 4190, 5060, 5061,
    5432, 5672, 5900, 6000, 6379, 6443, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 8500, 9042, 9092, 9200, 9300,
    10080, 10250, 10255, 11211, 27017, 61613,
})  # fmt: skip
_FIRST_FREE_PORT = 1024
_LAST_PORT = 65535
_DEFAULT_PORTS = {"http": 80, "https": 443}

_URL = re.compile(r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]*)://(?P<authority>[^/?#\\]*)(?P<rest>[/?][!-\[\]-~]*)?", re.ASCII)
_AUTHORITY = re.compile(r"(?P<host>\[[^\[\]]*\]|[^:\[\]]*)(?P<port>:[0-9]{1,5})?", re.ASCII)
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)", re.ASCII)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)
_MAX_NAME = 253
_LOCAL_ENDS = (".localhost", ".local", ".localdomain", ".internal", ".intranet", ".lan", ".home.arpa")


@attrs.frozen(kw_only=True)
class CheckedUrl:
    """A URL that was found to be allowed, so far as can be told without looking up its name.

    Attributes:
        url: In the one form that is sent: scheme and host in small letters, the host in ASCII.
        scheme: `http` or `https`.
        host: A name, or an address without brackets.
        port: Of the URL, or that of its scheme.
        address: The address that stands in the place of a name; None for a name.
    """

    url: str
    scheme: str
    host: str
    port: int
    address: IPAddress | None


@attrs.frozen(kw_only=True)
class Endpoint:
    """Where a socket may connect to.

    Attributes:
        family: `AF_INET` or `AF_INET6`.
        address: One that was checked.
        port: Its port.
    """

    family: socket.AddressFamily
    address: IPAddress
    port: int

    @property
    def sockaddr(self) -> tuple[str, int]:
        """What `socket.connect` takes."""
        return str(self.address), self.port


class Guard:
    """Tells what may be connected to. Holds nothing but its rules; thread-safe.

    Args:
        allow_private: Networks that are let through although they are forbidden (`["10.2.0.0/16"]`), or True for
            loopback and all private ones: for development, tests, and receivers in the same network. Metadata services
            of clouds and everything else of the table stay forbidden, unless their network is named.
        schemes: The schemes that are allowed.
        ports: The ports that are allowed; by default 80, 443, and those from 1024 on that belong to no other protocol.

    Raises:
        InvalidError: A network cannot be read.
    """

    def __init__(
        self,
        *,
        allow_private: bool | Iterable[str] = False,
        schemes: Iterable[str] = ("http", "https"),
        ports: Iterable[int] | None = None,
    ) -> None:
        self._allows_private = allow_private is True
        self._allowed = () if isinstance(allow_private, bool) else tuple(_network(text) for text in allow_private)
        self._schemes = frozenset(schemes)
        self._ports = None if ports is None else frozenset(ports)

    @classmethod
    def of(cls, settings: Settings) -> Guard:
        """Return the guard of webhooks."""
        return cls(
            allow_private=settings.webhook_allow_private,
            schemes=("https",) if settings.webhook_https_only else ("http", "https"),
        )

    def __repr__(self) -> str:
        allowed = self._allows_private or [str(network) for network in self._allowed]
        return f"Guard(allow_private={allowed!r}, schemes={sorted(self._schemes)!r})"

    @property
    def allows_some_private(self) -> bool:
        """Whether anything of the table is let through, and with it names that mean something only here."""
        return self._allows_private or bool(self._allowed)

    def check_url(self, url: str) -> CheckedUrl:
        """Check all of a URL that can be told without a look-up.

        Raises:
            InvalidError: It is no URL that a request could be sent to without doubt about what it means.
            ForbiddenAddressError: Its scheme, port, name or address is not allowed.
        """
        if not isinstance(url, str) or len(url) > _MAX_URL:
            raise InvalidError(f"a URL is a string of at most {_MAX_URL} characters, not {_shown(url)}")
        match = _URL.fullmatch(url)
        authority = _AUTHORITY.fullmatch(match["authority"]) if match is not None else None
        if match is None or authority is None:
            raise InvalidError(f"{_shown(url)} is not a URL to send to: {_why_not(url)}")
        scheme = match["scheme"].lower()
        if scheme not in self._schemes or scheme not in _DEFAULT_PORTS:
            raise ForbiddenAddressError(
                f"the scheme of {_shown(url)} is not allowed: write {' or '.join(sorted(self._schemes))}"
            )
        host, address = self._checked_host(authority["host"], url)
        port = int(authority["port"][1:]) if authority["port"] else _DEFAULT_PORTS[scheme]
        self._check_port(port, url)
        shown = f"[{host}]" if isinstance(address, IPv6Address) else host
        rest = match["rest"] or "/"
        return CheckedUrl(
            url=f"{scheme}://{shown}{authority['port'] or ''}{rest if rest[0] == '/' else '/' + rest}",
            scheme=scheme,
            host=host,
            port=port,
            address=address,
        )

    def check_address(self, address: str | IPAddress) -> IPAddress:
        """Return an address that may be connected to.

        Raises:
            ForbiddenAddressError: It may not, or is no address in its usual form.
        """
        try:
            checked = ip_address(address)
        except ValueError:
            raise ForbiddenAddressError(f"{_shown(address)} is not an address in its usual form") from None
        why = self._why_forbidden(checked)
        if why is not None:
            raise ForbiddenAddressError(f"the address {checked} may not be connected to ({why})")
        return checked

    def resolve(self, host: str, port: int) -> list[Endpoint]:
        """Look up a name, or take an address, and check all that comes. Blocks; connect to nothing else afterwards.

        Raises:
            ForbiddenAddressError: One of the addresses is forbidden: then none of them is trusted.
            HostNotFoundError: There is no address, or the look-up failed.
        """
        try:
            answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
        except (OSError, UnicodeError) as error:
            raise HostNotFoundError(f"the name {_shown(host)} cannot be looked up: {error}") from error
        endpoints: list[Endpoint] = []
        for family, _, _, _, sockaddr in answers:
            try:
                address = self.check_address(str(sockaddr[0]))
            except ForbiddenAddressError as error:
                raise ForbiddenAddressError(f"{_shown(host)}: {error}") from None
            endpoint = Endpoint(family=family, address=address, port=port)
            if endpoint not in endpoints:
                endpoints.append(endpoint)
        if not endpoints:
            raise HostNotFoundError(f"the name {_shown(host)} has no address")
        return endpoints

    def check(self, url: str) -> CheckedUrl:
        """Check a URL and what its name means now. A name that cannot be looked up passes: it is checked at each use.

        Raises:
            InvalidError: As for `check_url`.
            ForbiddenAddressError: As for `check_url` and `resolve`.
        """
        checked = self.check_url(url)
        with suppress(HostNotFoundError):
            self.resolve(checked.host, checked.port)
        return checked

    def connect(self, host: str, port: int, *, timeout_s: float) -> socket.socket:
        """Look up, check, and connect to what was checked: what a client of its own puts its TLS and HTTP upon.

        Raises:
            ForbiddenAddressError: As for `resolve`.
            HostNotFoundError: As for `resolve`.
            OSError: None of the addresses can be reached.
        """
        endpoints = self.resolve(host, port)
        failed: OSError | None = None
        for endpoint in endpoints:
            connected = socket.socket(endpoint.family, socket.SOCK_STREAM)
            try:
                connected.settimeout(timeout_s)
                connected.connect(endpoint.sockaddr)
            except OSError as error:
                connected.close()
                failed = error
            else:
                return connected
        assert failed is not None
        raise failed

    def _checked_host(self, text: str, url: str) -> tuple[str, IPAddress | None]:
        if text.startswith("["):
            literal = text[1:-1]
            if "%" in literal:
                raise ForbiddenAddressError(f"the address in {_shown(url)} has a zone: it means something only here")
            try:
                address: IPAddress = IPv6Address(literal)
            except ValueError:
                raise InvalidError(f"{_shown(url)} has no IPv6 address between its brackets") from None
            return str(self.check_address(address)), address
        host = _in_ascii(text, url)
        labels = host.split(".")
        if _NUMBER.fullmatch(labels[-1] or (labels[-2] if len(labels) > 1 else "")):
            # Whatever else the system's resolver would make of it: 2130706433, 0177.1, 0x7f.0.0.1 are all 127.0.0.1.
            try:
                address = IPv4Address(host)
            except ValueError:
                raise ForbiddenAddressError(
                    f"the host of {_shown(url)} is a number, but no IPv4 address in its usual form"
                ) from None
            return str(self.check_address(address)), address
        if len(host) > _MAX_NAME or not all(_LABEL.fullmatch(label) for label in labels):
            raise InvalidError(f"the host of {_shown(url)} is not a name: letters, digits, hyphens, no dot at its end")
        is_local = len(labels) == 1 or host.endswith(_LOCAL_ENDS)
        if is_local and not self.allows_some_private:
            raise ForbiddenAddressError(f"the name {host!r} means something only in a network of its own")
        return host, None

    def _check_port(self, port: int, url: str) -> None:
        if self._ports is not None:
            is_allowed = port in self._ports
        else:
            is_allowed = port in _DEFAULT_PORTS.values() or (
                _FIRST_FREE_PORT <= port <= _LAST_PORT and port not in _OTHER_PORTS
            )
        if not is_allowed:
            raise ForbiddenAddressError(f"the port {port} of {_shown(url)} is not allowed")

    def _why_forbidden(self, address: IPAddress) -> str | None:
        if isinstance(address, IPv6Address) and address.scope_id is not None:
            return "it has a zone"
        if any(address in network for network in self._allowed):
            return None
        if self._allows_private and address not in _METADATA and any(address in network for network in _PRIVATE):
            return None
        for network, name in _FORBIDDEN.items():
            if address in network:
                return name
        if isinstance(address, IPv6Address) and address not in _GLOBAL_V6:
            return "not global unicast"
        return None


def _network(text: str) -> IPNetwork:
    try:
        return ip_network(text)
    except ValueError as error:
        raise InvalidError(f"allow_private names networks such as '10.2.0.0/16', not {text!r}: {error}") from None


def _in_ascii(host: str, url: str) -> str:
    """Return a host in ASCII. What looks like something else, digits and dots above all, is no letter of a name."""
    if host.isascii():
        return host.lower()
    with suppress(UnicodeError):
        encoded = host.encode("idna")
        if all(each.isascii() or each.isalpha() for each in host) and encoded.decode("idna") == host.lower():
            return encoded.decode("ascii").lower()
    raise ForbiddenAddressError(f"the host of {_shown(url)} is not plain: write it in ASCII (xn--…)")


def _why_not(url: str) -> str:
    if "@" in url.partition("://")[2].partition("/")[0]:
        return "a name or password before its host is not allowed; the signature says who sends"
    if "#" in url:
        return "a fragment (#…) is never sent"
    if "\\" in url:
        return "a backslash means a different host to different readers"
    if not url.isprintable() or " " in url:
        return "spaces and control characters must be percent-encoded"
    return "write it as https://host:port/path, with what is not ASCII in its path percent-encoded"


def _shown(value: object) -> str:
    """Return a value as it may stand in a message: without a password, and not endless."""
    text = re.sub(r"//[^/@]*@", "//***@", value) if isinstance(value, str) else value
    shown = repr(text)
    return shown if len(shown) <= 200 else shown[:200] + "…"
