"""Models of the gateway's own configuration sections."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator

from voicecall.configuring import ConfigModel

__all__ = [
    "FOREIGN_ENTRY_KEYS",
    "FOREIGN_KEYS",
    "AuthSection",
    "GatewaySection",
    "PluginEntry",
    "PluginsSection",
    "ToolsSection",
    "url_host",
]

# OpenClaw's files can be used unchanged: these keys have a meaning there, and are ignored here.
FOREIGN_KEYS: dict[str, frozenset[str]] = {
    "gateway": frozenset(
        {
            "allowRealIpFallback",
            "channelHealthCheckMinutes",
            "channelMaxRestartsPerHour",
            "channelStaleEventThresholdMinutes",
            "controlUi",
            "customBindHost",
            "handshakeTimeoutMs",
            "http",
            "mode",
            "nodes",
            "push",
            "reload",
            "remote",
            "tailscale",
            "tls",
            "trustedProxies",
            "webchat",
        }
    ),
    "gateway.auth": frozenset({"allowTailscale", "password", "rateLimit", "trustedProxy"}),
    "plugins": frozenset({"enabled", "installs", "load", "slots"}),
}
FOREIGN_ENTRY_KEYS = frozenset({"apiKey", "env", "hooks", "llm", "subagent"})
"""The same for one value of ``plugins.entries``."""
_BIND_NAMES = {"loopback": "127.0.0.1", "localhost": "127.0.0.1", "lan": "0.0.0.0"}


class AuthSection(ConfigModel):
    """``gateway.auth``."""

    mode: Literal["token", "none"] = "token"
    token: str | None = Field(default=None, min_length=1, repr=False)

    @field_validator("token")
    @classmethod
    def _not_blank(cls, value: str | None) -> str | None:
        # HTTP headers cannot carry white space around a value, and variables often end with a line
        # break.
        token = value.strip() if value is not None else None
        if token == "":
            raise ValueError("must not be blank; remove the key to have a token generated")
        return token


class ToolsSection(ConfigModel):
    """``gateway.tools``: the tools that ``POST /tools/invoke`` may use. ``allow`` has no effect: in
    OpenClaw it lifts default denials, of which there are none here."""

    deny: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()


class GatewaySection(ConfigModel):
    """``gateway``: the admin port. ``bind`` is an IP address (or ``loopback``, ``localhost``,
    ``lan``), ``drainSeconds`` how long a stop waits for calls and requests under way."""

    port: int = Field(default=18790, ge=0, le=65535)
    bind: str = "127.0.0.1"
    auth: AuthSection = AuthSection()
    tools: ToolsSection = ToolsSection()
    drain_seconds: float = Field(default=10, ge=0, le=3600)

    @field_validator("bind")
    @classmethod
    def _address(cls, value: str) -> str:
        text = _BIND_NAMES.get(value.strip().lower(), value.strip())
        try:
            return str(ipaddress.ip_address(text))
        except ValueError:
            raise ValueError("must be an IP address such as 127.0.0.1 or 0.0.0.0") from None

    @property
    def is_loopback(self) -> bool:
        return ipaddress.ip_address(self.bind).is_loopback


class PluginEntry(ConfigModel):
    """One value of ``plugins.entries``; ``config`` belongs to the plugin."""

    enabled: bool = True
    config: Mapping[str, Any] = Field(default_factory=dict, repr=False)


class PluginsSection(ConfigModel):
    """``plugins``: ``allow`` (if set, only these are loaded) and ``deny`` are lists of ids."""

    entries: Mapping[str, PluginEntry] = Field(default_factory=dict)
    allow: tuple[str, ...] | None = None
    deny: tuple[str, ...] = ()


def url_host(bind: str) -> str:
    """The host for the URL of a socket that is bound to ``bind``."""
    address = ipaddress.ip_address(bind)
    if address.is_unspecified:
        return "127.0.0.1" if address.version == 4 else "[::1]"
    return f"[{address}]" if address.version == 6 else str(address)
