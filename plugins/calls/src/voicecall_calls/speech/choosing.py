"""The speech providers that a ``tts`` block selects: one that speaks, and those after it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from voicecall.errors import ConfigError
from voicecall.providers import ProviderInfo, ProviderKind
from voicecall.registry import Registry
from voicecall.selection import Selected, Selection, select
from voicecall_calls.speechconfig import TtsConfig

__all__ = ["VOICE_KEYS", "PassedOver", "SpeechChoice", "block_of", "choose_speech", "voice_of"]

VOICE_KEYS = ("speakerVoice", "speakerVoiceId", "voice", "voiceId")


@dataclass(frozen=True, slots=True)
class PassedOver:
    """A provider that cannot speak. ``message`` says what to change; ``asked``: the operator should
    be told, because the configuration names the provider or its code is broken."""

    message: str
    asked: bool


@dataclass(frozen=True, slots=True)
class SpeechChoice:
    """Speech for some calls: the merged ``tts`` block, the provider that speaks (or why none does),
    and those that take over, in order, if it fails."""

    tts: TtsConfig
    selected: Selected
    spares: tuple[Selected, ...] = ()
    passed_over: tuple[PassedOver, ...] = ()

    @property
    def chain(self) -> tuple[Selected, ...]:
        """Everything that can speak, in order."""
        return (self.selected, *self.spares) if self.selected.outcome is Selection.OK else ()

    @property
    def labels(self) -> list[str]:
        return [one.info.label for one in self.chain if one.info is not None]


def choose_speech(
    tts: TtsConfig,
    registry: Registry,
    environ: Mapping[str, str],
    named_at: str = "tts.provider",
    blocks_at: str = "tts.providers",
) -> SpeechChoice:
    """The chosen provider, then all other configured ones in order of automatic selection. A demo
    engine takes part only if it is chosen or has its own block, and then comes last. ``named_at``
    is the key that names the provider, ``blocks_at`` the key of the blocks, both for messages.

    Raises ``ConfigError`` if the chosen provider's block is invalid. Other providers with an
    invalid block, and any whose code is broken, are passed over."""
    first = select(
        registry,
        ProviderKind.TTS,
        tts.provider,
        tts.providers,
        environ,
        blocks_at,
        named_at=named_at,
    )
    if tts.provider is None and first.outcome is not Selection.OK:
        return SpeechChoice(tts, first)
    usable: list[Selected] = []
    passed: list[PassedOver] = []
    if first.outcome is Selection.OK:
        usable.append(first)
    else:
        passed.append(PassedOver(first.message, asked=True))
    for info in sorted(registry.load_all(ProviderKind.TTS), key=lambda info: info.demo):
        if _is_first(info, first, tts.provider):
            continue
        name = next((name for name in _names(info) if name in tts.providers), None)
        if info.demo and name is None:
            continue
        spare = _spare(name or info.id, tts, registry, environ, blocks_at)
        if spare.outcome is Selection.OK:
            usable.append(spare)
        else:
            broken = spare.outcome is Selection.MISSING_CONFIGURED_PROVIDER
            passed.append(PassedOver(spare.message, asked=broken or name is not None))
    if not usable:
        return SpeechChoice(tts, first)
    return SpeechChoice(tts, usable[0], tuple(usable[1:]), tuple(passed))


def _names(info: ProviderInfo) -> tuple[str, ...]:
    return (info.id, *info.aliases)


def _is_first(info: ProviderInfo, first: Selected, configured: str | None) -> bool:
    chosen = first.info.id if first.info is not None else configured
    return chosen in _names(info)


def _spare(
    name: str, tts: TtsConfig, registry: Registry, environ: Mapping[str, str], blocks_at: str
) -> Selected:
    try:
        return select(registry, ProviderKind.TTS, name, tts.providers, environ, blocks_at)
    except ConfigError as error:
        return Selected(Selection.PROVIDER_NOT_CONFIGURED, str(error))


def block_of(tts: TtsConfig, selected: Selected) -> Mapping[str, Any]:
    """The provider's block, under any of its names; if none is selected, the block of the
    configured id."""
    names = _names(selected.info) if selected.info is not None else (tts.provider or "",)
    merged: dict[str, Any] = {}
    for name in names:
        merged |= tts.providers.get(name, {})
    return merged


def voice_of(tts: TtsConfig, selected: Selected) -> str | None:
    """The voice named in the provider's block, if any."""
    block = block_of(tts, selected)
    for key in VOICE_KEYS:
        value = block.get(key)
        if isinstance(value, str) and value.strip():
            return value.strip()
    return None
