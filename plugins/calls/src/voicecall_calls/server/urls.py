"""Who sent a request, and to which URL: pure functions over headers and addresses.

Forwarded headers count only if the configuration says so. Addresses are compared as numbers;
an IPv4-mapped IPv6 address (``::ffff:1.2.3.4``) counts as IPv4.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from urllib.parse import parse_qsl, urlsplit

from voicecall.errors import WebhookRejected

from .options import WebhookSecurity

__all__ = [
    "Trust",
    "headers_of",
    "host_name",
    "media_url",
    "normal_path",
    "other_urls",
    "parse_address",
    "parse_network",
    "query_of",
    "webhook_url",
]

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_LABEL = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_PORT = re.compile(r":([0-9]{1,5})\s*\Z")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_HOPS = "x-forwarded-for"
_MOST_PARAMETERS = 100
"""Limit for a query: each takes a few microseconds, before the signature has been checked."""
_FORWARDED_HOSTS = ("x-forwarded-host", "x-original-host", "ngrok-forwarded-host")


def headers_of(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Headers by lower-case name, each with its first value, except that all lines of
    ``x-forwarded-for`` are joined: a proxy may add its hop as another line, after one that the
    client has forged."""
    headers: dict[str, str] = {}
    for name, value in pairs:
        name = name.lower()
        if name == _HOPS and name in headers:
            headers[name] += f", {value}"
        else:
            headers.setdefault(name, value)
    return headers


def normal_path(path: str) -> str:
    """``path`` with surrounding blanks and one trailing slash removed, and a leading slash."""
    path = path.strip()
    if not path.startswith("/"):
        path = "/" + path
    return path[:-1] if len(path) > 1 and path.endswith("/") else path


def query_of(text: str) -> dict[str, str]:
    """The parameters of a query, each with its last value. Raises :exc:`WebhookRejected` (400) if
    there are too many."""
    try:
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=_MOST_PARAMETERS))
    except ValueError:
        why = f"a query of more than {_MOST_PARAMETERS} parameters"
        raise WebhookRejected(400, why) from None


def parse_address(text: str) -> Address | None:
    """An IP address as found in headers: with or without brackets, port and zone."""
    text = text.strip().strip('"')
    if text.startswith("["):
        text, bracket, _ = text[1:].partition("]")
        if not bracket:
            return None
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


# Only for addresses of sockets: header values may be long.
_peer_address = lru_cache(maxsize=1024)(parse_address)


@lru_cache(maxsize=1024)
def _peer_name(peer: str) -> str:
    address = parse_address(peer)
    return "unknown" if address is None else str(address)


def parse_network(text: str) -> Network:
    """An address or CIDR block. Raises ``ValueError``."""
    network = ip_network(text.strip(), strict=False)
    if isinstance(network, IPv6Network):
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return IPv4Network((mapped, network.prefixlen - 96))
    return network


def host_name(text: str) -> str | None:
    """The host in ``text`` (``host``, ``host:port``, ``[v6]:port``) in lower case, IPv6 with its
    brackets; None if it is not a valid host (RFC 1123 labels)."""
    text = text.strip().lower()
    if text.startswith("["):
        inner, bracket, _ = text[1:].partition("]")
        return f"[{inner}]" if bracket and _is_ipv6(inner) else None
    name = text.partition(":")[0]
    if text.count(":") > 1 or "@" in text or len(name) > 253:
        return None
    return name if _NAME.fullmatch(name) else None


def _port(text: str, scheme: str) -> str:
    """The port in a host header, in the form of a URL: empty for none or the scheme's default."""
    found = _PORT.search(text)
    if found is None or int(found[1]) in (_DEFAULT_PORTS[scheme], 0):
        return ""
    return f":{int(found[1])}"


def _is_ipv6(text: str) -> bool:
    if "%" in text:
        return False  # a zone, which may hold anything, has no place in a URL
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True


def _first(value: str) -> str:
    """The first element of a list-valued header."""
    return value.partition(",")[0].strip()


class Trust:
    """The part of :class:`WebhookSecurity` that decides which peers and headers are trusted."""

    def __init__(self, security: WebhookSecurity) -> None:
        hosts = (host_name(text) for text in security.allowed_hosts)
        self._hosts = frozenset(host for host in hosts if host is not None)
        self._hosts_wanted = bool(security.allowed_hosts)
        self._headers = security.trust_forwarding_headers
        self._proxies = tuple(map(parse_network, security.trusted_proxy_ips))

    def client(self, peer: str | None, headers: Mapping[str, str]) -> str:
        """The client's address for limits and logs.

        Behind a trusted proxy: the last hop of ``x-forwarded-for`` that is not a trusted proxy
        (the first hop if all are), else ``x-real-ip``. Otherwise the socket's peer, or
        ``unknown`` if it has none.
        """
        address = _peer_address(peer or "") if self._headers else None
        if address is None or not self._is_proxy(address):
            return _peer_name(peer or "")
        forwarded = headers.get(_HOPS, "")
        if forwarded.strip():
            hop: Address | None = None
            for text in reversed(forwarded.split(",")):
                hop = parse_address(text)
                if hop is None or not self._is_proxy(hop):
                    break
            # If a hop cannot be parsed, the proxy's own address is all that is known.
            return str(hop or address)
        return str(parse_address(headers.get("x-real-ip", "")) or address)

    def forwards(self, peer: str | None) -> bool:
        """True if the forwarded host and scheme in this peer's requests are trusted."""
        if not (self._hosts_wanted or self._headers):
            return False
        if not self._proxies:
            return True
        address = _peer_address(peer or "")
        return address is not None and self._is_proxy(address)

    def allows(self, host: str) -> bool:
        """True if webhooks may be addressed to ``host``."""
        return not self._hosts_wanted or host in self._hosts

    def _is_proxy(self, address: Address) -> bool:
        return any(address in network for network in self._proxies)


def webhook_url(
    target: str,
    headers: Mapping[str, str],
    peer: str | None,
    *,
    trust: Trust,
    public_url: str | None,
    local_url: str,
) -> str | None:
    """The URL that the carrier signed; None if the request is addressed to a wrong host.

    ``target`` is the path and query of the request as received, ``local_url`` the URL of our own
    listener. If the public URL is known, it provides scheme, host and path (a proxy may map
    paths), and the request provides the query. Otherwise: the forwarded scheme and host if they
    are trusted, else the ``Host`` header, each with its port; the scheme is https unless the
    request is addressed to the listener itself.
    """
    _, mark, query = target.partition("?")
    if public_url is not None:
        parts = urlsplit(public_url)
        return f"{parts.scheme}://{parts.netloc}{parts.path}{mark}{query}"
    proto = "https"
    host: str | None = None
    if trust.forwards(peer):
        forwarded = _first(headers.get("x-forwarded-proto", "")).lower()
        proto = forwarded if forwarded in ("http", "https") else proto
        for name in _FORWARDED_HOSTS:
            written = _first(headers.get(name, ""))
            candidate = host_name(written)
            if candidate is not None and trust.allows(candidate):
                host = candidate + _port(written, proto)
                break
    if host is None:
        written = headers.get("host", "")
        host = host_name(written)
        if host is None or not trust.allows(host):
            return None
        local = urlsplit(local_url)
        if written.strip().lower() == local.netloc:
            proto, host = local.scheme, local.netloc
        else:
            host += _port(written, proto)
    return f"{proto}://{host}{target}"


def other_urls(target: str, headers: Mapping[str, str], public_url: str | None) -> list[str]:
    """All URLs to which a request may have been sent, regardless of trust and configuration. Only
    for explaining why a request was refused."""
    public = urlsplit(public_url or "")
    written = [_first(headers.get(name, "")) for name in ("host", *_FORWARDED_HOSTS)]
    path, mark, query = target.partition("?")
    paths = dict.fromkeys([path, public.path] if public_url else [path])
    found: list[str] = []
    for scheme in ("https", "http"):
        for text in dict.fromkeys([public.netloc, *written]):
            if (host := host_name(text)) is not None:
                origin = f"{scheme}://{host}{_port(text, scheme)}"
                found += [f"{origin}{each}{mark}{query}" for each in paths]
    return list(dict.fromkeys(found))


def media_url(base_url: str, *, serve_path: str, stream_path: str) -> str:
    """The URL of the media sockets that belongs to a webhook URL.

    A prefix before ``serve_path`` in the webhook URL's path (a proxy's) is kept. A path that does
    not end with ``serve_path`` has no known prefix.
    """
    parts = urlsplit(base_url)
    path = parts.path.rstrip("/")
    tail = normal_path(serve_path).rstrip("/")
    prefix = path[: len(path) - len(tail)] if path.endswith(tail) else ""
    scheme = "ws" if parts.scheme in ("http", "ws") else "wss"
    return f"{scheme}://{parts.netloc}{prefix}{normal_path(stream_path)}"
