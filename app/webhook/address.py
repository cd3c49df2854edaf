"""Where a webhook may be: the guard against requests forged in our name (SSRF).

A URL is judged twice. When it is declared, ``check_url`` takes it apart once, refuses every spelling that two parsers
could read differently, and puts it together again from its parts; names are not looked up then. When a connection is
made, ``Policy.allows`` judges the address that is really dialled (dial.py), whatever the name was a moment ago.

What counts as internal is a table of networks, not a property of ``ipaddress``: ``is_private``, ``is_global`` and the
like call multicast, NAT64, 6to4, IPv4-compatible or cloud-internal addresses public, each Python version others.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from app.domain.errors import InvalidField

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_URL = 2048
DEFAULT_PORTS = {"http": 80, "https": 443}

# The IANA special-purpose registry, multicast, and what clouds keep inside of public space.
INTERNAL_V4 = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network; 0.0.0.0 reaches loopback
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier NAT; Alibaba's metadata is in it
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure's wire server
        "169.254.0.0/16",  # link-local; the metadata address of most clouds
        "172.16.0.0/12",
        "192.0.0.0/24",  # IETF protocol assignments
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # AMT
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
# Of IPv6 only global unicast is public at all: outside it are ::, ::1, IPv4-compatible, NAT64, fc00::/7, link-local,
# site-local, multicast, discard-only and segment routing addresses.
GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
INTERNAL_V6 = tuple(
    ipaddress.IPv6Network(network)
    for network in (
        "2001::/23",  # IETF protocol assignments; Teredo, ORCHID, benchmarks are in it
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: an IPv4 address inside
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # documentation
    )
)
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")

_URL = re.compile(r"(?i:(?P<scheme>https?))://(?P<authority>[^/?#]*)(?P<rest>[^#]*)")
_AUTHORITY = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9_.-]+))(?::(?P<port>[1-9][0-9]{0,4}))?")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
# The last label of a name that resolvers take for a number: 127.1, 0x7f.1, 2130706433 (WHATWG: "ends in a number").
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f-\xa0\u2028\u2029\ud800-\udfff]")
# What may stand in a path or a query as it is; everything else is percent-encoded.
_PATH_SAFE = "!$%&'()*+,-./:;=?@[]_~"


@dataclass(frozen=True, slots=True)
class Policy:
    """``ports``: where a webhook may listen; ``allow``: internal networks it may be in all the same."""

    ports: Sequence[range]
    allow: Sequence[Network] = ()

    def allows(self, address: Address) -> bool:
        """Whether this address may be dialled. An IPv4-mapped address counts as what it maps to."""
        if isinstance(address, ipaddress.IPv6Address):
            if address.ipv4_mapped is not None:
                return self.allows(address.ipv4_mapped)
            if address in NAT64 and not self.allows(_last_four_bytes(address)):
                return False
        if any(address in network for network in self.allow):
            return True
        return is_public(address)

    def allows_port(self, port: int) -> bool:
        return any(port in ports for ports in self.ports)


@dataclass(frozen=True, slots=True)
class Target:
    """A URL taken apart. ``url`` is rebuilt from the parts: what is stored, shown and dialled."""

    url: str
    scheme: str
    host: str
    port: int


def is_public(address: Address) -> bool:
    """Whether an address is anybody's on the internet. An IPv4-mapped one counts as what it maps to."""
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in INTERNAL_V4)
    if address.ipv4_mapped is not None:
        return is_public(address.ipv4_mapped)
    return address in GLOBAL_V6 and not any(address in network for network in INTERNAL_V6)


def check_url(url: str, policy: Policy, field: str = "delivery.url") -> Target:
    """The target of a URL somebody declares. Raises InvalidField naming ``field``.

    Refused: schemes but http and https, userinfo, fragments, control characters, blanks, backslashes, hosts that are
    empty or not ASCII, numbers in other spellings than a dotted quad, internal addresses, ports outside the policy.
    """
    if len(url) > MAX_URL:
        raise InvalidField.of(field, f"must have at most {MAX_URL} characters")
    if _UNPRINTABLE.search(url) or "\\" in url:
        raise InvalidField.of(field, "must not contain blanks, control characters or backslashes")
    match = _URL.fullmatch(url)
    if match is None:
        raise InvalidField.of(field, "must be an absolute http:// or https:// URL without a fragment")
    scheme = match["scheme"].lower()
    host, port = _authority(match["authority"], field)
    if port is not None and not port <= 65535:
        raise InvalidField.of(field, "has a port above 65535")
    effective_port = port or DEFAULT_PORTS[scheme]
    if not policy.allows_port(effective_port):
        raise InvalidField.of(field, f"port {effective_port} is not one webhooks may be at")
    shown_host = _check_host(host, policy, field)
    rest = quote(match["rest"], safe=_PATH_SAFE)
    if rest.find("?") == len(rest) - 1:  # an empty query, which some send and some leave out
        rest = rest.removesuffix("?")
    path = rest if rest.startswith("/") else f"/{rest}"
    shown_port = "" if effective_port == DEFAULT_PORTS[scheme] else f":{effective_port}"
    return Target(f"{scheme}://{shown_host}{shown_port}{path}", scheme, shown_host.strip("[]"), effective_port)


def _authority(text: str, field: str) -> tuple[str | ipaddress.IPv6Address, int | None]:
    if "@" in text:
        raise InvalidField.of(field, "must not contain a user name or password; set an Authorization header instead")
    if not text.isascii():
        raise InvalidField.of(field, "must have an ASCII host; write an international name in its xn-- form")
    match = _AUTHORITY.fullmatch(text)
    if match is None:
        raise InvalidField.of(field, "must have a host name or an address, then optionally a colon and a port")
    port = int(match["port"]) if match["port"] else None
    if match["v6"] is None:
        return match["name"].lower(), port
    try:
        return ipaddress.IPv6Address(match["v6"]), port
    except ValueError:
        raise InvalidField.of(field, "has a host in brackets that is not an IPv6 address") from None


def _check_host(host: str | ipaddress.IPv6Address, policy: Policy, field: str) -> str:
    """The host as it is written in the rebuilt URL."""
    if isinstance(host, ipaddress.IPv6Address):
        _check_address(host, policy, field)
        return f"[{host.compressed}]"
    labels = host.removesuffix(".").split(".")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise InvalidField.of(field, "must have a valid host name")
    if _NUMBER.fullmatch(labels[-1]):
        try:
            # Strict: four decimal numbers without leading zeros. Resolvers read far more than that as an address.
            address = ipaddress.IPv4Address(host)
        except ValueError:
            raise InvalidField.of(field, "must write an IPv4 address as four decimal numbers") from None
        _check_address(address, policy, field)
    elif labels[-1] == "localhost" and not policy.allows(ipaddress.IPv4Address("127.0.0.1")):
        raise InvalidField.of(field, "must not be an internal or special-purpose address")
    return host


def _check_address(address: Address, policy: Policy, field: str) -> None:
    if not policy.allows(address):
        raise InvalidField.of(field, "must not be an internal or special-purpose address")


def _last_four_bytes(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address:
    return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
