"""Providers that tests control, and the plugins that bring them into a registry."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio

from voicecall import ProviderContext, ProviderInfo, ProviderKind, hookimpl
from voicecall.agent import AgentBackend, AgentEvent, AgentTurn, EndCall, TextDelta
from voicecall.configuring import ConfigModel
from voicecall.errors import ProviderUnavailable
from voicecall.hosting import GatewayHost, PluginInfo, Service
from voicecall.transcription import (
    Final,
    SessionLost,
    TranscriptionEvent,
    TranscriptionOptions,
    TranscriptionProvider,
    TranscriptionSession,
)
from voicecall_calls import plugin as phone_plugin
from voicecall_calls.service import PhoneService
from voicecall_testing.offering import offered
from voicecall_testing.speech import FskSpeech, FskTranscription

__all__ = [
    "BrittleSpeech",
    "BrittleTranscription",
    "Extra",
    "PhonePlugin",
    "Puppet",
    "RecordingSpeech",
    "Reply",
    "VoiceBlock",
    "hang",
    "provider_plugin",
]

Extra = tuple[str, str, object]
"""Group, id and module, as :class:`voicecall.registry.Registry` takes it."""

Reply = Callable[[AgentTurn], AsyncIterator[AgentEvent]]
"""Answers a turn; a plain text is a reply of one piece."""


class Puppet(AgentBackend):
    """Answers what the caller said (or the keys pressed) from a table; repeats anything else.
    ``end`` holds the texts whose answer ends the call."""

    def __init__(self, replies: Mapping[str, str | Reply], *, end: Sequence[str] = ()) -> None:
        self._replies = replies
        self._end = end
        self.turns: list[AgentTurn] = []
        self.settled: list[tuple[str, str]] = []

    @property
    def asked(self) -> list[str]:
        """What the agent was asked, in order."""
        return [turn.digits or turn.text for turn in self.turns]

    async def reply(self, turn: AgentTurn) -> AsyncIterator[AgentEvent]:
        self.turns.append(turn)
        said = turn.digits or turn.text
        found = self._replies.get(said, f"You said: {said}")
        if isinstance(found, str):
            yield TextDelta(found)
        else:
            async for event in found(turn):
                yield event
        if said in self._end:
            yield EndCall("asked for")

    async def settle(self, turn: AgentTurn, heard_text: str) -> None:
        self.settled.append((turn.digits or turn.text, heard_text))


@dataclass
class BrittleSpeech(FskSpeech):
    """Works for the texts in ``only`` (None: all) and fails for others."""

    only: Sequence[str] | None = None
    refused: int = 0

    async def synthesize(self, text: str, voice: str | None) -> AsyncIterator[bytes]:
        if self.only is not None and text.strip() not in self.only:
            self.refused += 1
            raise ProviderUnavailable("the voice is gone", provider="brittle")
        async for audio in super().synthesize(text, voice):
            yield audio


class RecordingSpeech(FskSpeech):
    """``spoken`` holds the voice and text of every request."""

    def __init__(self) -> None:
        self.spoken: list[tuple[str | None, str]] = []

    async def synthesize(self, text: str, voice: str | None) -> AsyncIterator[bytes]:
        self.spoken.append((voice, text.strip()))
        async for audio in super().synthesize(text, voice):
            yield audio


class BrittleTranscription(TranscriptionProvider):
    """The first ``len(finals)`` sessions are lost, each after that many Finals; ``last`` says
    whether there is another session after them."""

    def __init__(self, finals: Sequence[int], *, last: bool) -> None:
        self._finals = finals
        self._last = last
        self._inner = FskTranscription()
        self.sessions = 0

    @asynccontextmanager
    async def session(self, options: TranscriptionOptions) -> AsyncIterator[TranscriptionSession]:
        self.sessions += 1
        if self.sessions > len(self._finals) and not self._last:
            raise ProviderUnavailable("the recogniser is gone", provider="brittle")
        async with self._inner.session(options) as inner:
            if self.sessions > len(self._finals):
                yield inner
            else:
                yield _MortalSession(inner, self._finals[self.sessions - 1])


class _MortalSession(TranscriptionSession):
    def __init__(self, inner: TranscriptionSession, finals: int) -> None:
        self._inner = inner
        self._left = finals

    def send_audio(self, audio: bytes) -> None:
        self._inner.send_audio(audio)

    def commit(self) -> None:
        self._inner.commit()

    async def finish(self) -> None:
        await self._inner.finish()

    async def __aiter__(self) -> AsyncIterator[TranscriptionEvent]:
        async for event in self._inner:
            yield event
            self._left -= isinstance(event, Final)
            if self._left == 0:
                break
        yield SessionLost(reason="the connection broke", fatal=True)


async def hang(turn: AgentTurn) -> AsyncIterator[AgentEvent]:
    """An agent that never says anything."""
    await anyio.sleep_forever()
    yield TextDelta("never")


# --- plugins ---------------------------------------------------------------------------------


class VoiceBlock(ConfigModel):
    """Configuration of a speech provider for tests."""

    api_key: str | None = None
    speaker_voice: str | None = None


def provider_plugin(
    kind: ProviderKind,
    provider_id: str,
    provider: object,
    *,
    config_model: type[ConfigModel] | None = None,
    made: list[Any] | None = None,
) -> Extra:
    """A plugin whose factory returns ``provider``; it adds its configuration to ``made``."""

    def factory(config: Any, context: ProviderContext) -> object:
        if made is not None:
            made.append(config)
        return provider

    info = ProviderInfo(
        kind=kind,
        id=provider_id,
        label=provider_id,
        factory=factory,
        config_model=None if config_model is None else lambda: config_model,
        secrets={} if config_model is None else {"apiKey": "PUPPET_KEY"},
    )
    return offered(info)


class PhonePlugin:
    """The phone's own plugin; ``service`` is the phone that it made."""

    def __init__(self) -> None:
        self.service: PhoneService | None = None

    @hookimpl
    def voicecall_plugin_info(self) -> PluginInfo:
        info: PluginInfo = phone_plugin.voicecall_plugin_info()
        return info

    @hookimpl
    def voicecall_services(self, host: GatewayHost) -> Sequence[Service]:
        self.service = PhoneService(host)
        return [self.service]

    def extra(self) -> Extra:
        return "voicecall.gateway", phone_plugin.PLUGIN_ID, self
