"""Which providers a configuration selects. Shared by the running service and the setup checks."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from voicecall.configuring import deep_merge, validate
from voicecall.errors import ConfigError
from voicecall.model import MediaPath
from voicecall.providers import ProviderKind
from voicecall.registry import Registry
from voicecall.selection import Selected, Selection, select
from voicecall_calls.agents import AgentChoice, choose_agent
from voicecall_calls.config import TtsConfig, VoiceCallConfig

__all__ = ["CONFIG_PATH", "PLUGIN_ID", "Wiring", "is_public_url", "require", "resolve"]

PLUGIN_ID = "voice-call"
CONFIG_PATH = "plugins.entries.voice-call.config"


@dataclass(slots=True)
class Wiring:
    """``problems`` keep the phone from running; ``notes`` are worth a warning."""

    config: VoiceCallConfig
    tts: TtsConfig
    carrier: Selected
    agent: AgentChoice
    backend: Selected
    transcription: Selected | None = None
    speech: Selected | None = None
    realtime: Selected | None = None
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def media(self) -> MediaPath:
        """How calls are carried."""
        if self.realtime is not None and self.realtime.outcome is Selection.OK:
            return MediaPath.REALTIME
        usable = (
            self.transcription is not None
            and self.transcription.outcome is Selection.OK
            and self.speech is not None
            and self.speech.outcome is Selection.OK
        )
        return MediaPath.STREAM if usable else MediaPath.NATIVE


def resolve(
    config: VoiceCallConfig,
    *,
    registry: Registry,
    environ: Mapping[str, str],
    agents: Mapping[str, Any],
    tts: Mapping[str, Any],
) -> Wiring:
    """Select every provider. Raises ``ConfigError`` only for a block that is wrong in itself."""
    carrier = select(
        registry, ProviderKind.TELEPHONY, config.provider, config.carriers, environ, CONFIG_PATH
    )
    agent = choose_agent(agents, config.agent_id)
    backend = select(
        registry, ProviderKind.AGENT, agent.backend, agent.backends, environ, "agents.backends"
    )
    merged = _merged_tts(config, tts)
    wiring = Wiring(config, merged, carrier, agent, backend)
    if carrier.outcome is not Selection.OK:
        wiring.problems.append(carrier.message)
    if backend.outcome is not Selection.OK:
        wiring.problems.append(backend.message)
    _check_carrier(wiring)
    if config.streaming.enabled:
        _select_streaming(wiring, registry, environ)
    if config.realtime.enabled:
        _select_realtime(wiring, registry, environ)
    installed = set(registry.ids(ProviderKind.TELEPHONY))
    for block in sorted(set(config.carriers) - installed):
        wiring.notes.append(f"{CONFIG_PATH}.{block} is passed over: no such carrier is installed")
    if config.inbound_policy == "allowlist" and not config.allow_from:
        wiring.notes.append(f"{CONFIG_PATH}.allowFrom is empty: every inbound call is refused")
    return wiring


def _merged_tts(config: VoiceCallConfig, section: Mapping[str, Any]) -> TtsConfig:
    own = config.tts.model_dump(by_alias=True, exclude_unset=True)
    known = {field.alias or name for name, field in TtsConfig.model_fields.items()}
    core = {key: value for key, value in section.items() if key in known}
    return validate(TtsConfig, deep_merge(core, own), "tts")


def _check_carrier(wiring: Wiring) -> None:
    info = wiring.carrier.info
    if info is None:
        return
    config = wiring.config
    if info.capabilities.from_number_required and config.from_number is None:
        wiring.problems.append(f"{CONFIG_PATH}.fromNumber is required by {info.label}")
    for name, mode in (("streaming", config.streaming), ("realtime", config.realtime)):
        if mode.enabled and not info.capabilities.stream:
            wiring.problems.append(
                f"{CONFIG_PATH}.{name}.enabled: {info.label} has no media streams"
            )


def _select_streaming(wiring: Wiring, registry: Registry, environ: Mapping[str, str]) -> None:
    streaming = wiring.config.streaming
    wiring.transcription = select(
        registry,
        ProviderKind.TRANSCRIPTION,
        streaming.provider,
        streaming.providers,
        environ,
        f"{CONFIG_PATH}.streaming.providers",
    )
    wiring.speech = select(
        registry,
        ProviderKind.TTS,
        wiring.tts.provider,
        wiring.tts.providers,
        environ,
        "tts.providers",
    )
    wiring.notes.extend(
        f"streaming stays off: {selected.message}"
        for selected in (wiring.transcription, wiring.speech)
        if selected.outcome is not Selection.OK
    )


def _select_realtime(wiring: Wiring, registry: Registry, environ: Mapping[str, str]) -> None:
    realtime = wiring.config.realtime
    wiring.realtime = select(
        registry,
        ProviderKind.REALTIME,
        realtime.provider,
        realtime.providers,
        environ,
        f"{CONFIG_PATH}.realtime.providers",
    )
    if wiring.realtime.outcome is not Selection.OK:
        wiring.notes.append(f"realtime stays off: {wiring.realtime.message}")
    elif wiring.config.inbound_policy == "disabled":
        wiring.notes.append(
            f"{CONFIG_PATH}.realtime serves outbound calls only: inboundPolicy is disabled"
        )


def is_public_url(url: str) -> bool:
    """Whether a carrier on the internet may reach ``url``: its host is no private address and
    no local name."""
    host = urlsplit(url).hostname or ""
    if not host or host == "localhost" or host.endswith((".localhost", ".local", ".internal")):
        return False
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "." in host
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_global)


def require(selected: Selected) -> tuple[Any, Any]:
    """Info and configuration of a selection. Raises ``ConfigError`` with its message."""
    if selected.info is None:
        raise ConfigError(selected.message)
    return selected.info, selected.config
