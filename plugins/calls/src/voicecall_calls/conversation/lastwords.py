"""The last words of a call whose voice failed, by any voice that still works."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import anyio

from voicecall import events as ev
from voicecall import telephony as tel
from voicecall.errors import VoicecallError
from voicecall.model import CallMode, EndDetail, EndReason, MessageState
from voicecall.tts import SpeechProvider
from voicecall_calls.conversation.line import AudioLine
from voicecall_calls.conversation.linemouth import LineMouth
from voicecall_calls.conversation.native import NativeMouth
from voicecall_calls.conversation.replier import utter

if TYPE_CHECKING:
    from voicecall_calls.conversation.realtime.speech import ModelSpeech
    from voicecall_calls.engine.lane import CallLane

__all__ = ["FallbackSpeech", "Farewell", "LastWords"]

_log = logging.getLogger("voicecall.calls")
_MODEL_BEGINS_S = 3.0
_LONGEST_S = 30.0
_SECONDS_A_CHARACTER = 0.15
"""For a notification, which may take longer than ``_LONGEST_S``."""


@dataclass(frozen=True, slots=True)
class FallbackSpeech:
    """What speaks if the call's own voice cannot: a synthesis provider, if there is one that has
    not failed already, which must begin within ``patience_s``. ``voice`` is that provider's, or the
    carrier's if there is none."""

    provider: SpeechProvider | None = None
    voice: str | None = None
    patience_s: float = 8.0


class LastWords:
    """Speaks by the first of these that works: the voice of ``model``, the synthesis of
    ``fallback``, the carrier's voice, which may cost the call its media socket."""

    def __init__(
        self,
        lane: CallLane,
        line: AudioLine,
        carrier: tel.TelephonyProvider,
        fallback: FallbackSpeech,
        *,
        model: ModelSpeech | None = None,
    ) -> None:
        self._lane = lane
        self._line = line
        self._carrier = carrier
        self._seam = lane.host.seam
        self._fallback = fallback
        self._model = model
        native_voice = fallback.voice if fallback.provider is None else None
        self._native = NativeMouth(lane, carrier, voice=native_voice)

    def finished(self, utterance_id: str, ok: bool) -> None:
        """The carrier has finished an utterance."""
        self._native.finished(utterance_id, ok)

    async def say(self, text: str) -> bool:
        """Speak ``text``. Returns whether it was heard."""
        ways: tuple[Callable[[str], Awaitable[bool]], ...] = (
            self._by_model,
            self._by_synthesis,
            self._by_carrier,
        )
        for way in ways:
            if self._lane.record.ending is not None:
                break
            try:
                if await way(text):
                    return True
            except VoicecallError as error:
                _log.warning("call %s: the last words failed: %s", self._lane.record.call_id, error)
        return False

    async def end(
        self, apology: str, detail: EndDetail, reason: EndReason = EndReason.ERROR
    ) -> None:
        """Say ``apology``, or on a notification its message, and end the call. ``reason`` and
        ``detail`` say why it ends, unless the message was heard."""
        record = self._lane.record
        if record.mode is CallMode.CONVERSATION:
            await self.say(apology)
        elif record.message is not None and await self.say(record.message.text):
            await self._lane.end(EndReason.HANGUP_BOT, EndDetail.NOTIFIED)
            return
        await self._lane.end(reason, detail)

    async def _by_model(self, text: str) -> bool:
        if self._model is None or self._line.socket is None:
            return False
        with anyio.move_on_after(max(_LONGEST_S, _SECONDS_A_CHARACTER * len(text))):
            ticket = await self._model.say(text, _MODEL_BEGINS_S)
            item = ticket.item
            return item is not None and item.error is None and item.sounded
        self._model.stop()
        return False

    async def _by_synthesis(self, text: str) -> bool:
        provider, patience_s = self._fallback.provider, self._fallback.patience_s
        if provider is None or self._line.socket is None:
            return False
        mouth = LineMouth(self._lane, self._line, synthesis_timeout_s=patience_s)
        with anyio.move_on_after(patience_s) as opening:
            voice = provider.session(self._fallback.voice, self._line.output_format)
            async with voice as session:
                # From here on the mouth's own timeout applies.
                opening.deadline = math.inf
                mouth.opened(session)
                spoken = await utter(mouth.begin(), text)
                return spoken.ok
        return False

    async def _by_carrier(self, text: str) -> bool:
        if not self._carrier.capabilities.native_speech:
            return False
        await self._lane.persist(ev.StreamGivenUp(at=self._seam.now_ms()))
        spoken = await utter(self._native.begin(), text, listens=False)
        return spoken.ok


class Farewell:
    """Ends a call that cannot go on, after ``apology`` or the message of a notification that was
    not heard yet."""

    def __init__(self, lane: CallLane, model: ModelSpeech, words: LastWords, apology: str) -> None:
        self.begun = False
        self._lane = lane
        self._model = model
        self._words = words
        self._apology = apology

    @property
    def ends(self) -> bool:
        """Nothing new may begin: the last words are due, or the call is being ended."""
        return self.begun or self._lane.record.ending is not None

    def begin(
        self, detail: EndDetail, reason: EndReason = EndReason.ERROR, goodbye: str | None = None
    ) -> None:
        """Say the last words, ``goodbye`` in place of the apology if nothing went wrong, and end
        the call. Does nothing if that has begun or the call is being ended already."""
        if not self.ends:
            self.begun = True
            self._model.part()
            self._lane.spawn(partial(self._say_and_end, detail, reason, goodbye or self._apology))

    async def _say_and_end(self, detail: EndDetail, reason: EndReason, words: str) -> None:
        with anyio.move_on_after(_LONGEST_S) as rest:
            await self._model.quiet()
        if rest.cancelled_caught:
            self._model.stop()
        record = self._lane.record
        if (
            record.mode is CallMode.NOTIFY
            and record.message is not None
            and record.message.state is MessageState.DONE
        ):
            # It was heard; the call has its own deadline.
            return
        await self._words.end(words, detail, reason)
