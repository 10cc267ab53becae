"""Options of the two servers: plain data, partly from the configuration."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["StreamOptions", "WebhookSecurity"]

KIB = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOptions:
    """Media sockets. A socket is pending until the engine admits it, which must happen within
    ``pre_start_timeout_ms``. The caps on pending sockets apply to unsigned handshakes.
    ``send_limit`` (bytes): how much may wait for a slow peer; ``frame_limit`` (bytes): the longest
    message."""

    path: str = "/voice/stream"
    pre_start_timeout_ms: int = 5000
    max_pending: int = 32
    max_pending_per_client: int = 4
    max_connections: int = 128
    send_limit: int = 1024 * KIB
    frame_limit: int = 64 * KIB


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookSecurity:
    """Which headers and senders to trust, and how much to accept.

    ``allowed_hosts``: host names that a webhook may be addressed to. ``trusted_proxy_ips``:
    addresses or CIDR blocks of reverse proxies. ``head_limit`` (request line and headers) and
    ``body_limit`` are in bytes. ``skip_signatures``: accept webhooks from anyone; for development
    only.
    """

    allowed_hosts: tuple[str, ...] = ()
    trust_forwarding_headers: bool = False
    trusted_proxy_ips: tuple[str, ...] = ()
    max_in_flight_per_client: int = 8
    max_in_flight: int = 64
    head_limit: int = 64 * KIB
    head_timeout_s: float = 10.0
    body_limit: int = 64 * KIB
    body_timeout_s: float = 5.0
    skip_signatures: bool = False
