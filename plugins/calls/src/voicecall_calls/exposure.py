"""How the webhook server is reached from outside: its port, trusted headers, tunnels."""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, PositiveInt

from voicecall.configuring import ConfigModel, UrlPath, is_loopback
from voicecall.providers import ProviderInfo

__all__ = [
    "FUNNEL_PORTS",
    "ServeConfig",
    "TailscaleConfig",
    "TunnelConfig",
    "WebhookSecurityConfig",
    "comes_from_outside",
    "is_one_client",
    "is_public_url",
    "realtime_path",
    "tunnel_block",
    "tunnel_family",
]

FUNNEL_PORTS = (443, 8443, 10_000)
_LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[([0-9A-Fa-f:.]+)\])(?::[0-9]+)?")
_NUMBER = re.compile("[0-9]*|0x[0-9a-f]*")
_NO_NAME = re.compile(r"[\[\]:/?#@]")


def _bind(text: str) -> str:
    text = text.strip()
    try:
        ip_address(text)
    except ValueError:
        if not text or _NO_NAME.search(text):
            raise ValueError(
                "must be an IP address or a host name, without brackets and port"
            ) from None
    return text


class ServeConfig(ConfigModel):
    """The webhook and media server. Port 0 picks a free one."""

    port: int = Field(default=3334, ge=0, le=65535)
    bind: Annotated[str, AfterValidator(_bind)] = Field(default="127.0.0.1", min_length=1)
    path: UrlPath = "/voice/webhook"


class TunnelConfig(ConfigModel):
    """A tunnel that makes the webhook server public. ``provider`` is the id of an installed one,
    or ``none``. ``providers`` has blocks of tunnels by id; a key that begins with a tunnel's name
    belongs to that tunnel's block (``ngrokDomain`` is ``domain`` in ngrok's)."""

    provider: str = Field(default="none", min_length=1)
    providers: dict[str, dict[str, Any]] = Field(default_factory=dict, repr=False)
    ngrok_auth_token: str | None = Field(default=None, min_length=1, repr=False)
    ngrok_domain: str | None = Field(default=None, min_length=1)
    allow_ngrok_free_tier_loopback_bypass: bool = False


class TailscaleConfig(ConfigModel):
    """The older way to select a tunnel. ``port`` is the public HTTPS port; with a funnel: 443, 8443
    or 10000."""

    mode: Literal["off", "serve", "funnel"] = "off"
    port: int = Field(default=443, ge=1, le=65535)
    path: str = Field(default="/voice/webhook", min_length=1)


def tunnel_family(tunnel_id: str) -> str:
    """The prefix of a tunnel's keys in the older sections."""
    return tunnel_id.partition("-")[0]


def tunnel_block(
    tunnel_id: str, tunnel: TunnelConfig, tailscale: TailscaleConfig
) -> Mapping[str, Any]:
    """The configuration of a tunnel, merged from all the sections that may contain it."""
    family = tunnel_family(tunnel_id)
    block: dict[str, Any] = {}
    for key, value in tunnel.model_dump(by_alias=True, exclude_unset=True).items():
        own = key.removeprefix(family)
        if own != key and own[:1].isupper():
            block[own[0].lower() + own[1:]] = value
    if family == "tailscale":
        older = tailscale.model_dump(by_alias=True, exclude_unset=True, exclude={"mode"})
        block.update(older)
    return {**block, **tunnel.providers.get(tunnel_id, {})}


def _proxy_address(text: str) -> str:
    try:
        ip_network(text.strip(), strict=False)
    except ValueError:
        raise ValueError("must be an IP address or a CIDR block") from None
    return text


def _host(text: str) -> str:
    # Anything that cannot be the name in a Host header would never match.
    found = _HOST.fullmatch(text.strip())
    if found is None or (found[1] and not _is_ipv6(found[1])):
        raise ValueError("must be a host name, such as voice.example.com")
    return text


def _is_ipv6(text: str) -> bool:
    try:
        return ip_address(text).version == 6
    except ValueError:
        return False


ProxyAddress = Annotated[str, AfterValidator(_proxy_address)]
HostName = Annotated[str, AfterValidator(_host)]


class WebhookSecurityConfig(ConfigModel):
    """Whose forwarding headers are trusted, and how many webhooks may be in flight."""

    allowed_hosts: tuple[HostName, ...] = ()
    trust_forwarding_headers: bool = False
    trusted_proxy_ips: tuple[ProxyAddress, ...] = Field(default=(), alias="trustedProxyIPs")
    max_in_flight_per_client: PositiveInt = 8
    max_in_flight: PositiveInt = 64


def realtime_path(webhook_path: str) -> str:
    """The default path of voice models' media sockets for a webhook path."""
    path = webhook_path.rstrip("/") or "/voice"
    return f"{path.removesuffix('/webhook')}/stream/realtime"


def is_public_url(url: str) -> bool:
    """Whether a carrier on the internet may be able to reach ``url``: it is https, and its host is
    neither a private address nor a local name."""
    parts = urlsplit(url)
    host = (parts.hostname or "").removesuffix(".")
    if (
        parts.scheme != "https"
        or not host
        or host == "localhost"
        or host.endswith((".localhost", ".local", ".internal"))
    ):
        return False
    try:
        address = ip_address(host)
    except ValueError:
        _, dot, last = host.rpartition(".")
        # Resolvers take 127.1 and 0x7f.1 for addresses; no domain ends with a number.
        return bool(dot) and _NUMBER.fullmatch(last) is None
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_global)


def comes_from_outside(info: ProviderInfo, config: Any) -> bool:
    """Whether a carrier's webhooks come from the internet. With an ``apiBaseUrl`` on this machine,
    they come from an emulator."""
    host = urlsplit(getattr(config, "api_base_url", None) or "").hostname or ""
    return bool(info.capabilities.public_url) and not is_loopback(host)


def is_one_client(serve: ServeConfig, security: WebhookSecurityConfig) -> bool:
    """Whether all external clients share the limits of one: the server listens only on loopback,
    and trusts no tunnel or proxy there."""
    blocks = [ip_network(text.strip(), strict=False) for text in security.trusted_proxy_ips]
    trusted = security.trust_forwarding_headers and any(
        ip_address(address) in block for address in ("127.0.0.1", "::1") for block in blocks
    )
    return is_loopback(serve.bind) and not trusted
