"""Making the conversation of a call: native, streamed or held by a voice model."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

from voicecall.errors import VoicecallError
from voicecall.hosting import GatewayHost, ToolCall, ToolSpec
from voicecall.model import CallRecord, MediaPath
from voicecall.realtime import RealtimeProvider
from voicecall.selection import Selected, Selection
from voicecall.transcription import TranscriptionProvider
from voicecall.turn import TurnDetectorProvider
from voicecall_calls.config import CONFIG_PATH, VoiceCallConfig
from voicecall_calls.conversation.base import Conversation
from voicecall_calls.conversation.nativetalk import NativeConversation
from voicecall_calls.conversation.turntimes import KeepTurn
from voicecall_calls.engine.engine import CallEngine
from voicecall_calls.engine.lane import CallLane
from voicecall_calls.making import open_provider
from voicecall_calls.settings import SettingsBook
from voicecall_calls.troubles import Trouble
from voicecall_calls.wiring import Wiring, require

__all__ = ["Talking"]

_log = logging.getLogger("voicecall.calls")


class Talking:
    """Factory of conversations; ``book`` may be replaced while calls are live."""

    def __init__(
        self, host: GatewayHost, engine: CallEngine, book: SettingsBook, keep: KeepTurn
    ) -> None:
        self.book = book
        self._host = host
        self._engine = engine
        self._keep = keep
        self._transcription: TranscriptionProvider | None = None
        self._turn: TurnDetectorProvider | None = None
        self._model: RealtimeProvider | None = None
        self._trouble: Trouble
        """The failures of the recogniser or the voice model, once one of them is open."""

    async def open(self, stack: AsyncExitStack, wiring: Wiring) -> None:
        """Open the providers that all calls share."""
        _import_for(wiring.media)
        context = self._host.provider_context(CONFIG_PATH)
        if wiring.media is MediaPath.STREAM and wiring.transcription is not None:
            self._transcription = await open_provider(wiring.transcription, context, stack)
            self._trouble = self._trouble_of(wiring.transcription)
            if wiring.turn is not None and wiring.turn.outcome is Selection.OK:
                try:
                    self._turn = await open_provider(wiring.turn, context, stack)
                except VoicecallError as error:
                    _log.warning("%s; speech recognition alone interrupts", error)
        elif wiring.media is MediaPath.REALTIME and wiring.realtime is not None:
            self._model = await open_provider(wiring.realtime, context, stack)
            self._trouble = self._trouble_of(wiring.realtime)

    def _trouble_of(self, selected: Selected) -> Trouble:
        info, _ = require(selected)
        return self.book.troubles.of(info.kind, info.id)

    def longest_text(self, record: CallRecord) -> int | None:
        """Length in characters of the longest message that a call may be asked to speak; None if
        the call has no speech provider."""
        settings = self.book.for_call(record)
        if record.media is not MediaPath.STREAM or settings.speech is None:
            return None
        return settings.speech.max_text

    def _find_tool(self, name: str) -> ToolSpec | None:
        """A tool of the gateway, with credentials removed from its errors: a voice model may say
        them aloud."""
        spec = self._host.find_tool(name)
        if spec is None:
            return None
        handler = spec.handler

        async def use(arguments: Mapping[str, Any], call: ToolCall) -> Any:
            try:
                return await handler(arguments, call)
            except VoicecallError as error:
                raise VoicecallError(self._host.hide(str(error))) from None

        return replace(spec, handler=use)

    def __call__(self, lane: CallLane) -> Conversation:
        """The conversation of a call that was just connected."""
        settings = self.book.for_call(lane.record)
        provider = self._engine.provider
        media = lane.record.media
        if media is MediaPath.STREAM and self._transcription and settings.speech:
            from voicecall_calls.conversation.streaming import SpeechSet, StreamConversation

            return StreamConversation(
                lane,
                provider,
                SpeechSet(
                    self._transcription, settings.speech, self._trouble, settings.voice, self._turn
                ),
                settings.brain,
                config=_patient(settings.config, settings.speech.patience_s),
                keep=self._keep,
            )
        if media is MediaPath.REALTIME and self._model is not None:
            from voicecall_calls.conversation.lastwords import FallbackSpeech
            from voicecall_calls.conversation.realtime.conversation import RealtimeConversation

            speech = settings.speech
            fallback = FallbackSpeech(None, settings.voice)
            if speech is not None:
                fallback = FallbackSpeech(speech, settings.voice, speech.patience_s)
            return RealtimeConversation(
                lane,
                provider,
                self._model,
                settings.brain,
                config=settings.config,
                keep=self._keep,
                find_tool=self._find_tool,
                profile=self.book.wiring.agents.profile(settings.brain.agent_id),
                fallback=fallback,
                trouble=self._trouble,
            )
        return NativeConversation(
            lane,
            provider,
            settings.brain,
            voice=settings.voice,
            config=settings.config,
            keep=self._keep,
        )


def _import_for(media: MediaPath) -> None:
    """Import what conversations need before the first call: it takes up to 0.15 s, during which no
    call is heard, and months later the files may be of another version, or no descriptor free."""
    if media is MediaPath.STREAM:
        import voicecall_calls.conversation.streaming
    elif media is MediaPath.REALTIME:
        import voicecall_calls.conversation.realtime.conversation  # noqa: F401


def _patient(config: VoiceCallConfig, patience_s: float) -> VoiceCallConfig:
    """``config`` with a ``tts.timeoutMs`` that covers a whole chain of voices: each of them has
    its own timeout."""
    tts = config.tts.model_copy(update={"timeout_ms": round(patience_s * 1000)})
    return config.model_copy(update={"tts": tts})
