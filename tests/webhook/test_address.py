"""The guard at declare time: nothing of the corpus in ssrf.json passes, and what is public does.

literals: addresses that are not anybody's on the internet; spellings: hosts that some resolver reads as an internal
address; forms: URLs that two parsers read differently, or that are not web addresses at all; public: what each URL has
to be rebuilt as.
"""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from yarl import URL

from app.domain.errors import InvalidField
from app.webhook.address import INTERNAL_V4, Policy, check_url, is_public

CORPUS = json.loads((Path(__file__).parent / "ssrf.json").read_text())
PORTS = (range(80, 81), range(443, 444), range(1024, 65536))
POLICY = Policy(PORTS)


def policy(*networks: str) -> Policy:
    return Policy(PORTS, tuple(ipaddress.ip_network(network) for network in networks))


def in_url(address: str) -> str:
    return f"http://[{address}]/" if ":" in address else f"http://{address}/"


HOSTILE = [
    *(in_url(address) for address in CORPUS["literals"]),
    *(f"http://{host}/" for host in CORPUS["spellings"]),
    *CORPUS["forms"],
]


def test_the_corpus_is_as_large_as_promised() -> None:
    assert len(CORPUS["literals"]) >= 55
    assert len(CORPUS["spellings"]) >= 24
    assert len(CORPUS["forms"]) >= 26
    assert len(set(HOSTILE)) == len(HOSTILE)


@pytest.mark.parametrize("url", HOSTILE, ids=ascii)
def test_no_hostile_url_can_be_declared(url: str) -> None:
    with pytest.raises(InvalidField) as refused:
        check_url(url, POLICY, "hooks.onDead")
    assert refused.value.faults[0].field == "hooks.onDead"


@pytest.mark.parametrize("address", CORPUS["literals"])
def test_s23_no_internal_address_is_allowed_at_connect(address: str) -> None:
    assert not POLICY.allows(ipaddress.ip_address(address))


@pytest.mark.parametrize(("url", "rebuilt"), CORPUS["public"].items(), ids=ascii)
def test_a_public_url_is_rebuilt_from_its_parts(url: str, rebuilt: str) -> None:
    target = check_url(url, POLICY)
    assert target.url == rebuilt
    assert check_url(rebuilt, POLICY) == target


@pytest.mark.parametrize("field", ["delivery.url", "hooks.onAck"])
def test_a_url_that_is_too_long_is_refused(field: str) -> None:
    check_url("http://hooks.example.com/" + "x" * 2000, POLICY, field)
    with pytest.raises(InvalidField):
        check_url("http://hooks.example.com/" + "x" * 2100, POLICY, field)


def test_networks_can_be_allowed_one_by_one() -> None:
    loopback = policy("127.0.0.0/8", "::1/128")
    for url in ("http://127.0.0.1:8080/", "http://[::1]:8080/", "http://localhost:8080/", "http://[::ffff:127.0.0.1]/"):
        check_url(url, loopback)
    for url in ("http://10.0.0.1/", "http://169.254.169.254/", "http://0.0.0.0/", "http://[::]/", "http://127.1/"):
        with pytest.raises(InvalidField):
            check_url(url, loopback)
    check_url("http://10.1.2.3/", policy("10.1.0.0/16"))
    with pytest.raises(InvalidField):
        check_url("http://10.2.0.1/", policy("10.1.0.0/16"))


def test_s25_allowing_nat64_does_not_allow_what_is_internal_behind_it() -> None:
    nat64 = policy("64:ff9b::/96")
    assert nat64.allows(ipaddress.ip_address("64:ff9b::8.8.8.8"))
    assert not nat64.allows(ipaddress.ip_address("64:ff9b::169.254.169.254"))


def test_an_allowed_network_does_not_open_other_ports() -> None:
    with pytest.raises(InvalidField):
        check_url("http://127.0.0.1:22/", policy("127.0.0.0/8"))


@given(st.ip_addresses(v=4), st.booleans())
def test_a_mapped_address_counts_as_what_it_maps_to(address: ipaddress.IPv4Address, compressed: bool) -> None:
    mapped = ipaddress.IPv6Address(f"::ffff:{address}")
    assert is_public(mapped) == is_public(address)
    text = mapped.compressed if compressed else mapped.exploded
    if is_public(address):
        check_url(in_url(text), POLICY)
    else:
        with pytest.raises(InvalidField):
            check_url(in_url(text), POLICY)


@pytest.mark.parametrize("network", INTERNAL_V4, ids=str)
def test_s25_both_ends_of_every_internal_network_are_internal(network: ipaddress.IPv4Network) -> None:
    assert not is_public(network[0])
    assert not is_public(network[-1])


@given(st.ip_addresses())
def test_what_the_standard_library_calls_private_is_never_public(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped  # which the standard library does not do before 3.13
    if address.is_private or address.is_multicast or address.is_reserved or address.is_link_local:
        assert not is_public(address)


PIECES = st.sampled_from(
    [
        *("http://", "https://", "HTTP://", "//", "/", "\\", "@", "#", "?", ":", "%", "%2f", "%00", "[", "]", "."),
        *("::1", "127.0.0.1", "0x7f", "2130706433", "127.1", "localhost", "hooks.example.com", "a", ".."),
        *("80", "22", "8080", "é", "。", "①", "_", "-", ";", ",", "&", "=", "{", "|", "^", "*"),
        *("\t", "\r\n", " ", "\u00ad", "\ud800"),
    ]
)


@settings(max_examples=2000)
@given(st.lists(PIECES, max_size=8).map("".join).map(lambda rest: f"http://{rest}") | st.text(max_size=60))
@example("http://hooks.example.com?")
@example('http://hooks.example.com/[]{}|^`"<>')
def test_s26_every_parser_agrees_on_what_passes(url: str) -> None:
    """Whatever passes means one host and one port, to us, the standard library, httpx and the client that dials."""
    try:
        target = check_url(url, POLICY)
    except InvalidField:
        return
    split, client, other = urlsplit(target.url), URL(target.url, encoded=True), httpx.URL(target.url)
    default = 443 if target.scheme == "https" else 80
    assert split.hostname == client.raw_host == target.host
    assert other.raw_host.decode() == target.host
    assert (split.port or default) == client.port == (other.port or default) == target.port
    assert not split.username
    assert not client.raw_user
    assert str(client) == target.url
    assert POLICY.allows_port(target.port)
