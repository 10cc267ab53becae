"""Client addresses, URL reconstruction, limits: the pure part of the call server."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicecall_calls.exposure import WebhookSecurityConfig
from voicecall_calls.server.limits import InFlight
from voicecall_calls.server.options import WebhookSecurity
from voicecall_calls.server.urls import (
    Trust,
    headers_of,
    host_name,
    media_url,
    normal_path,
    parse_address,
    parse_network,
    webhook_url,
)

pytestmark = pytest.mark.unit

LOCAL = "http://127.0.0.1:3334/voice/webhook"


def trust(**security: Any) -> Trust:
    return Trust(WebhookSecurity(**security))


def url(
    headers: dict[str, str],
    *,
    peer: str | None = "10.0.0.1",
    target: str = "/voice/webhook?a=1",
    public_url: str | None = None,
    local_url: str = LOCAL,
    **security: Any,
) -> str | None:
    return webhook_url(
        target,
        headers,
        peer,
        trust=trust(**security),
        public_url=public_url,
        local_url=local_url,
    )


PROXIES = {
    "trust_forwarding_headers": True,
    "trusted_proxy_ips": ("10.0.0.0/8", "fd00::/8", "192.0.2.7"),
}


@pytest.mark.parametrize(
    ("peer", "headers", "client"),
    [
        ("203.0.113.9", {"x-forwarded-for": "1.1.1.1"}, "203.0.113.9"),
        ("10.0.0.1", {"x-forwarded-for": "1.1.1.1"}, "1.1.1.1"),
        ("::ffff:10.0.0.1", {"x-forwarded-for": "1.1.1.1"}, "1.1.1.1"),
        ("10.0.0.1", {"x-forwarded-for": "6.6.6.6, 1.1.1.1, 10.2.3.4"}, "1.1.1.1"),
        ("10.0.0.1", {"x-forwarded-for": "10.9.9.9, 10.2.3.4"}, "10.9.9.9"),
        ("10.0.0.1", {"x-forwarded-for": "1.1.1.1, ::ffff:10.2.3.4"}, "1.1.1.1"),
        ("10.0.0.1", {"x-forwarded-for": "1.1.1.1:5060, 192.0.2.7"}, "1.1.1.1"),
        ("fd00::1", {"x-forwarded-for": "[2001:db8::5]:443"}, "2001:db8::5"),
        ("10.0.0.1", {"x-forwarded-for": "1.1.1.1, nonsense"}, "10.0.0.1"),
        ("10.0.0.1", {"x-real-ip": "1.1.1.1"}, "1.1.1.1"),
        ("10.0.0.1", {"x-forwarded-for": "2.2.2.2", "x-real-ip": "1.1.1.1"}, "2.2.2.2"),
        ("10.0.0.1", {"x-real-ip": "nonsense"}, "10.0.0.1"),
        ("10.0.0.1", {}, "10.0.0.1"),
        ("::ffff:1.2.3.4", {}, "1.2.3.4"),
        (None, {"x-forwarded-for": "1.1.1.1"}, "unknown"),
    ],
)
def test_the_client_is_the_last_hop_that_is_no_proxy(
    peer: str | None, headers: dict[str, str], client: str
) -> None:
    assert trust(**PROXIES).client(peer, headers) == client


@pytest.mark.parametrize(
    "security",
    [
        {"trust_forwarding_headers": True},
        {"trusted_proxy_ips": ("10.0.0.0/8",)},
        {"trust_forwarding_headers": True, "trusted_proxy_ips": ("10.0.0.2",)},
    ],
)
def test_without_a_trusted_proxy_only_the_peer_counts(security: dict[str, Any]) -> None:
    assert trust(**security).client("10.0.0.1", {"x-forwarded-for": "1.1.1.1"}) == "10.0.0.1"


@given(st.text(max_size=60), st.text(max_size=20))
def test_no_header_makes_up_a_client_that_is_no_address(forwarded: str, real: str) -> None:
    client = trust(**PROXIES).client("10.0.0.1", {"x-forwarded-for": forwarded, "x-real-ip": real})
    assert str(ipaddress.ip_address(client)) == client


@given(st.lists(st.ip_addresses(v=4).map(str), max_size=4), st.ip_addresses(v=4).map(str))
def test_hops_that_a_client_invents_do_not_change_who_it_is(invented: list[str], real: str) -> None:
    address = ipaddress.ip_address(real)
    if any(address in parse_network(text) for text in PROXIES["trusted_proxy_ips"]):  # type: ignore[attr-defined]
        return
    hops = ", ".join([*invented, real, "10.1.1.1"])
    assert trust(**PROXIES).client("10.0.0.1", {"x-forwarded-for": hops}) == real


def test_a_hop_in_a_line_of_its_own_counts_like_one_in_the_list() -> None:
    lines = [("X-Forwarded-For", "6.6.6.6"), ("Host", "a"), ("x-forwarded-for", "1.1.1.1")]
    headers = headers_of([*lines, ("host", "b")])
    assert headers == {"x-forwarded-for": "6.6.6.6, 1.1.1.1", "host": "a"}
    assert trust(**PROXIES).client("10.0.0.1", headers) == "1.1.1.1"


def test_mapped_addresses_and_networks_are_ipv4() -> None:
    assert str(parse_address("::ffff:1.2.3.4")) == "1.2.3.4"
    assert str(parse_network("::ffff:10.0.0.0/104")) == "10.0.0.0/8"
    assert str(parse_network("::ffff:0:0/96")) == "0.0.0.0/0"
    assert str(parse_network("10.1.2.3/8")) == "10.0.0.0/8"
    for other in ("2001:db8::/32", "::/0", "::fffe:0:0/95", "::fffe:0:0/96"):
        assert str(parse_network(other)) == other
    assert parse_address("[::1") is None


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("Example.COM", "example.com"),
        ("example.com:8443", "example.com"),
        ("[2001:DB8::1]:443", "[2001:db8::1]"),
        ("[::1]", "[::1]"),
        ("[::1", None),
        ("[example.com]", None),
        ("[fe80::1%eth0]", None),
        ("[::1%/evil?]", None),
        ("2001:db8::1", None),
        ("user@example.com", None),
        ("example.com:secret@elsewhere.example", None),
        ("-bad.example", None),
        ("a" * 64 + ".example", None),
        (".".join(["a" * 60] * 5), None),
        ("", None),
        ("exa mple", None),
        ("example.com/path", None),
    ],
)
def test_host_names(text: str, host: str | None) -> None:
    assert host_name(text) == host


@given(st.text(max_size=80))
def test_a_host_name_is_stable_and_fits_into_a_url(text: str) -> None:
    host = host_name(text)
    if host is not None:
        assert host_name(host) == host
        assert not set(host) & set("/?#@\\ ,")


@given(st.from_regex(r"\s?\[?[a-zA-F0-9_:.-]{1,12}\]?(:[0-9]{1,5})?", fullmatch=True))
def test_hosts_that_the_configuration_allows_are_hosts(text: str) -> None:
    try:
        allowed = WebhookSecurityConfig(allowed_hosts=(text,))
    except ValueError:
        return
    assert [host_name(host) for host in allowed.allowed_hosts] != [None]


FORWARDED = {
    "host": "inner.example",
    "x-forwarded-host": "phone.example, inner.example",
    "x-forwarded-proto": "http,https",
}


@pytest.mark.parametrize(
    ("headers", "options", "expected"),
    [
        # nobody is trusted: Host, https
        (FORWARDED, {}, "https://inner.example/voice/webhook?a=1"),
        ({"host": "phone.example:8443"}, {}, "https://phone.example:8443/voice/webhook?a=1"),
        ({"host": "phone.example:80"}, {}, "https://phone.example:80/voice/webhook?a=1"),
        ({"host": "phone.example:x"}, {}, "https://phone.example/voice/webhook?a=1"),
        ({"host": "phone.example:0"}, {}, "https://phone.example/voice/webhook?a=1"),
        ({"host": "[2001:db8::1]:443"}, {}, "https://[2001:db8::1]/voice/webhook?a=1"),
        ({"host": "[2001:db8::1]:8443"}, {}, "https://[2001:db8::1]:8443/voice/webhook?a=1"),
        # forwarded headers are trusted
        (
            FORWARDED,
            {"trust_forwarding_headers": True},
            "http://phone.example/voice/webhook?a=1",
        ),
        (
            {**FORWARDED, "x-forwarded-host": "phone.example:80 , inner.example"},
            {"trust_forwarding_headers": True},
            "http://phone.example/voice/webhook?a=1",
        ),
        (
            {"x-forwarded-host": "[2001:DB8::1]:8443"},
            {"allowed_hosts": ("[2001:db8::1]",)},
            "https://[2001:db8::1]:8443/voice/webhook?a=1",
        ),
        (
            {**FORWARDED, "x-forwarded-proto": "gopher"},
            {"trust_forwarding_headers": True},
            "https://phone.example/voice/webhook?a=1",
        ),
        (
            {"host": "inner.example", "ngrok-forwarded-host": "x.ngrok.example"},
            {"trust_forwarding_headers": True},
            "https://x.ngrok.example/voice/webhook?a=1",
        ),
        (
            {**FORWARDED, "x-forwarded-host": "evil@x", "x-original-host": "phone.example"},
            {"trust_forwarding_headers": True},
            "http://phone.example/voice/webhook?a=1",
        ),
        # an allow-list stands in for trust, and holds for every source
        (
            FORWARDED,
            {"allowed_hosts": ("phone.example",)},
            "http://phone.example/voice/webhook?a=1",
        ),
        (
            FORWARDED,
            {"allowed_hosts": ("inner.example",)},
            "http://inner.example/voice/webhook?a=1",
        ),
        (FORWARDED, {"allowed_hosts": ("other.example",)}, None),
        (FORWARDED, {"allowed_hosts": ("not a host",)}, None),
        # only listed proxies
        (
            FORWARDED,
            {"trust_forwarding_headers": True, "trusted_proxy_ips": ("10.0.0.0/8",)},
            "http://phone.example/voice/webhook?a=1",
        ),
        (
            FORWARDED,
            {"trust_forwarding_headers": True, "trusted_proxy_ips": ("10.0.0.2",)},
            "https://inner.example/voice/webhook?a=1",
        ),
        (
            FORWARDED,
            {
                "peer": None,
                "trust_forwarding_headers": True,
                "trusted_proxy_ips": ("10.0.0.0/8",),
            },
            "https://inner.example/voice/webhook?a=1",
        ),
        # addressed to the listener itself
        ({"host": "127.0.0.1:3334"}, {}, "http://127.0.0.1:3334/voice/webhook?a=1"),
        ({"host": "127.0.0.1:3334"}, {"allowed_hosts": ("phone.example",)}, None),
        (
            {"host": "[::1]:3334"},
            {"local_url": "http://[::1]:3334/voice/webhook"},
            "http://[::1]:3334/voice/webhook?a=1",
        ),
        # nothing usable
        ({}, {}, None),
        # a public URL is known: its scheme, host, port and path, the request's query
        (
            FORWARDED,
            {"public_url": "https://h.example:8443/api/hook?b=2"},
            "https://h.example:8443/api/hook?a=1",
        ),
        (
            FORWARDED,
            {"public_url": "https://[2001:db8::1]/hook", "target": "/voice/webhook"},
            "https://[2001:db8::1]/hook",
        ),
    ],
)
def test_url_reconstruction(
    headers: dict[str, str], options: dict[str, Any], expected: str | None
) -> None:
    assert url(headers, **options) == expected


@given(st.dictionaries(st.sampled_from(["x-forwarded-host", "host"]), st.text(max_size=40)))
def test_no_header_leads_to_a_host_that_is_not_allowed(headers: dict[str, str]) -> None:
    built = url(headers, trust_forwarding_headers=True, allowed_hosts=("phone.example",))
    allowed = r"https://phone\.example(:[1-9][0-9]{0,4})?/voice/webhook\?a=1"
    assert built is None or re.fullmatch(allowed, built)


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        (LOCAL, "ws://127.0.0.1:3334/voice/stream"),
        ("https://h.example/voice/webhook", "wss://h.example/voice/stream"),
        ("https://h.example:8443/api/voice/webhook/", "wss://h.example:8443/api/voice/stream"),
        ("https://h.example/elsewhere", "wss://h.example/voice/stream"),
        ("https://[2001:db8::1]/x/voice/webhook", "wss://[2001:db8::1]/x/voice/stream"),
    ],
)
def test_media_urls_keep_a_proxy_prefix(base: str, expected: str) -> None:
    assert media_url(base, serve_path="/voice/webhook", stream_path="voice/stream/") == expected


@pytest.mark.parametrize(
    ("path", "normal"),
    [
        ("/a/b", "/a/b"),
        (" a/b/ ", "/a/b"),
        ("/", "/"),
        ("", "/"),
        ("/a//", "/a/"),
        ("/a b", "/a b"),
    ],
)
def test_normal_paths(path: str, normal: str) -> None:
    assert normal_path(path) == normal


@given(st.text(alphabet="ab", min_size=1, max_size=8))
def test_one_slash_at_either_end_makes_no_difference(name: str) -> None:
    assert normal_path(name) == normal_path(f"/{name}") == normal_path(f" {name}/ ") == f"/{name}"


@given(st.lists(st.tuples(st.booleans(), st.sampled_from("abc")), max_size=60))
def test_in_flight_counts_are_exact(steps: list[tuple[bool, str]]) -> None:
    limits = InFlight(per_client=2, total=4)
    held: list[str] = []
    for enter, client in steps:
        if enter:
            admitted = limits.enter(client)
            assert admitted == (len(held) < 4 and held.count(client) < 2)
            if admitted:
                held.append(client)
        elif client in held:
            held.remove(client)
            limits.leave(client)
        assert limits.total == len(held)
