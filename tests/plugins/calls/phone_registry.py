"""A registry of scripted providers, for tests of wiring and setup checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from voicecall import ProviderInfo, ProviderKind, hookimpl
from voicecall.configuring import ConfigModel
from voicecall.registry import Registry
from voicecall.telephony import TelephonyCapabilities
from voicecall.tunnel import TunnelCapabilities
from voicecall_calls.config import VoiceCallConfig
from voicecall_calls.wiring import Wiring, resolve
from voicecall_testing.fakes import NATIVE, STREAMING, ScriptedCarrier


class KeyConfig(ConfigModel):
    api_key: str = ""
    voice: str | None = None


def _make(config: object, context: object) -> object:
    return config


def info(
    kind: ProviderKind,
    provider_id: str,
    *,
    key: bool = False,
    capabilities: TelephonyCapabilities | TunnelCapabilities | None = None,
    **more: Any,
) -> ProviderInfo:
    """A provider; with ``key`` it needs ``apiKey`` or ``<ID>_KEY``."""

    def carrier(config: object, context: object) -> object:
        assert isinstance(capabilities, TelephonyCapabilities)
        return ScriptedCarrier(capabilities)

    return ProviderInfo(
        kind=kind,
        id=provider_id,
        label=provider_id.capitalize(),
        factory=carrier if kind is ProviderKind.TELEPHONY else _make,
        config_model=lambda: KeyConfig,
        required=("apiKey",) if key else (),
        secrets={"apiKey": f"{provider_id.upper()}_KEY"} if key else {},
        capabilities=capabilities,
        **more,
    )


class _Plugin:
    """Offers one provider under the hook of its kind."""

    def __init__(self, offered: ProviderInfo) -> None:
        self._offered = offered

    def _of(self, kind: ProviderKind) -> Sequence[ProviderInfo]:
        return [self._offered] if self._offered.kind is kind else []

    @hookimpl
    def voicecall_telephony_providers(self) -> Sequence[ProviderInfo]:
        return self._of(ProviderKind.TELEPHONY)

    @hookimpl
    def voicecall_transcription_providers(self) -> Sequence[ProviderInfo]:
        return self._of(ProviderKind.TRANSCRIPTION)

    @hookimpl
    def voicecall_tts_providers(self) -> Sequence[ProviderInfo]:
        return self._of(ProviderKind.TTS)

    @hookimpl
    def voicecall_realtime_providers(self) -> Sequence[ProviderInfo]:
        return self._of(ProviderKind.REALTIME)

    @hookimpl
    def voicecall_turn_detectors(self) -> Sequence[ProviderInfo]:
        return self._of(ProviderKind.TURN)

    @hookimpl
    def voicecall_tunnels(self) -> Sequence[ProviderInfo]:
        return self._of(ProviderKind.TUNNEL)

    @hookimpl
    def voicecall_agent_backends(self) -> Sequence[ProviderInfo]:
        return self._of(ProviderKind.AGENT)

    @hookimpl
    def voicecall_stores(self) -> Sequence[ProviderInfo]:
        return self._of(ProviderKind.STORE)


INFOS = (
    info(ProviderKind.TELEPHONY, "mock", capabilities=STREAMING),
    info(
        ProviderKind.TELEPHONY,
        "public",
        environ={"fromNumber": "PUBLIC_NUMBER"},
        key=True,
        capabilities=TelephonyCapabilities(native_speech=True, native_listening=True),
    ),
    info(ProviderKind.TELEPHONY, "plain", capabilities=NATIVE),
    info(ProviderKind.TRANSCRIPTION, "ears", key=True, auto_select_order=10),
    info(ProviderKind.TRANSCRIPTION, "other", key=True, auto_select_order=20),
    info(ProviderKind.TTS, "voice", key=True),
    info(ProviderKind.REALTIME, "full", key=True),
    info(ProviderKind.TURN, "alert", auto_select_order=10),
    info(ProviderKind.TURN, "drowsy", auto_select_order=20),
    info(ProviderKind.AGENT, "helper", auto_select_order=10),
    info(ProviderKind.AGENT, "model", key=True, auto_select_order=20),
)
KEYS = {"EARS_KEY": "k", "VOICE_KEY": "k", "FULL_KEY": "k"}


def registry(*without: ProviderKind, more: Sequence[ProviderInfo] = ()) -> Registry:
    """All providers above but those of some kinds, and ``more``."""
    offered = [one for one in INFOS if one.kind not in without]
    return Registry(
        entries=[],
        extra=[(i.kind.group, i.id, _Plugin(i)) for i in (*offered, *more)],
    )


def wire(
    *without: ProviderKind,
    environ: Mapping[str, str] | None = None,
    agents: Mapping[str, Any] | None = None,
    core_tts: Mapping[str, Any] | None = None,
    **config: Any,
) -> Wiring:
    """What a configuration selects."""
    return resolve(
        VoiceCallConfig.model_validate(config),
        registry=registry(*without),
        environ=environ or {},
        agents=agents or {},
        tts=core_tts or {},
    )
