"""A registry of scripted providers, for tests of wiring and setup checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from voicecall import ProviderInfo, ProviderKind
from voicecall.configuring import ConfigModel
from voicecall.registry import Registry
from voicecall.telephony import TelephonyCapabilities
from voicecall.tunnel import TunnelCapabilities
from voicecall_calls.config import VoiceCallConfig
from voicecall_calls.wiring import Wiring, resolve
from voicecall_testing.fakes import NATIVE, STREAMING, ScriptedCarrier
from voicecall_testing.offering import offered


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
    """All providers above, except those of some kinds, and ``more``."""
    infos = [one for one in INFOS if one.kind not in without]
    return Registry(entries=[], extra=[offered(one) for one in (*infos, *more)])


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
