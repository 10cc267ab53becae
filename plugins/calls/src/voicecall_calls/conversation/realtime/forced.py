"""Forced consultation of the agent, for ``consultPolicy: "always"``.

If the model has not called a tool a moment after the caller's words, its own answer is cut off and
the agent's answer is spoken instead.
"""

from __future__ import annotations

import logging
import math
from functools import partial
from typing import TYPE_CHECKING

import anyio

from voicecall.errors import VoicecallError
from voicecall.model import EndDetail, EndReason
from voicecall.realtime import RealtimeSession
from voicecall_calls.config import VoiceCallConfig
from voicecall_calls.conversation.lastwords import Farewell
from voicecall_calls.conversation.realtime.consult import Answer, Consults
from voicecall_calls.conversation.realtime.items import Ticket
from voicecall_calls.conversation.realtime.link import ModelLink
from voicecall_calls.conversation.realtime.speech import ModelSpeech
from voicecall_calls.conversation.realtime.voice import ModelVoice
from voicecall_calls.conversation.realtime.words import cut, is_small_talk

if TYPE_CHECKING:
    from voicecall_calls.engine.lane import CallLane

__all__ = ["ForcedConsult"]

_log = logging.getLogger("voicecall.calls")
_MODEL_CALLS_S = 0.2
_LATE_CALL_S = 2.0
_LONGEST_CHARS = 1800
_FAILURES_BEFORE_END = 2


class ForcedConsult:
    """Watches what the caller says and what the model calls, and consults the agent if the model
    does not."""

    def __init__(
        self,
        lane: CallLane,
        link: ModelLink,
        consults: Consults,
        voice: ModelVoice,
        speech: ModelSpeech,
        farewell: Farewell,
        *,
        config: VoiceCallConfig,
    ) -> None:
        self._lane = lane
        self._link = link
        self._consults = consults
        self._voice = voice
        self._speech = speech
        self._farewell = farewell
        self._phrases = config.phrases
        self._filler_s = config.filler_after_ms / 1000 or None
        self._begins_s = config.tts.timeout_ms / 1000
        self._seam = lane.host.seam
        self._turn_began = self._seam.monotonic()
        self._called_at = -math.inf
        self._delivered_until = -math.inf
        self._delivered_turn = -math.inf
        self._failures = 0
        self._scope = anyio.CancelScope()

    # --- notifications ----------------------------------------------------------------------

    def speech_started(self) -> None:
        """The caller has begun to speak: tool calls from now on belong to a new turn."""
        self._turn_began = self._seam.monotonic()

    def called(self) -> None:
        """The model has called a tool."""
        if not self.delivered:
            self._called_at = self._seam.monotonic()

    def heard(self, text: str) -> None:
        """The caller has said ``text``. A consultation for earlier words is dropped, unless the
        model itself is waiting for it."""
        if is_small_talk(text):
            return
        self.cancel()
        self._scope = scope = anyio.CancelScope()
        self._link.do(partial(self._judge, text, scope))

    def cancel(self) -> None:
        self._scope.cancel()
        self._delivered_until = -math.inf

    @property
    def delivered(self) -> bool:
        """The caller is hearing the agent's answer, or has just heard it, and has not begun to
        speak since: a tool call that asks for it is too late."""
        same_turn = self._turn_began == self._delivered_turn
        return same_turn and self._seam.monotonic() <= self._delivered_until

    # --- the consultation -------------------------------------------------------------------

    async def _judge(self, text: str, scope: anyio.CancelScope, session: RealtimeSession) -> None:
        with scope:
            await anyio.sleep(_MODEL_CALLS_S)
            acts = self._called_at >= self._turn_began
            self._turn_began = self._seam.monotonic()
            if acts or self._consults.current is not None or self._farewell.ends:
                return
            await session.interrupt(self._voice.drop())
            await self._consult(text, scope)

    async def _consult(self, text: str, scope: anyio.CancelScope) -> None:
        consult = self._consults.begin(text, speakable=True)
        with consult.attended():
            with anyio.move_on_after(self._filler_s):
                await consult.done.wait()
            needless = consult.done.is_set() or consult.calls or self._farewell.ends
            if self._phrases.filler and not needless:
                await self._say(self._phrases.filler)
            await consult.done.wait()
            if consult.calls or self._farewell.ends:
                # The model has asked for it after all and will speak it, or the call is ending.
                return
        self._delivered_until = math.inf
        self._delivered_turn = self._turn_began
        try:
            await self._deliver(consult.answer)
        finally:
            # An answer to earlier words does not count as one to later words.
            if not scope.cancel_called:
                self._delivered_until = self._seam.monotonic() + _LATE_CALL_S

    async def _deliver(self, answer: Answer) -> None:
        if answer.error is not None:
            await self._failed(answer.error)
            return
        text = cut(answer.text, _LONGEST_CHARS)
        before = self._voice.interruptions
        heard = True
        if text:
            ticket = await self._say(text)
            if ticket is None or ticket.failed is not None:
                await self._failed("it could not be spoken")
                return
            heard = ticket.item is not None
        self._failures = 0
        if answer.ends and heard and self._voice.interruptions == before:
            await self._lane.end(EndReason.HANGUP_BOT, EndDetail.AGENT)

    async def _say(self, text: str) -> Ticket | None:
        try:
            return await self._speech.say(text, self._begins_s)
        except VoicecallError as error:
            _log.warning("call %s: not spoken: %s", self._lane.record.call_id, error)
            return None

    async def _failed(self, why: str) -> None:
        self._failures += 1
        _log.warning("call %s: the agent gave no answer: %s", self._lane.record.call_id, why)
        if self._failures >= _FAILURES_BEFORE_END:
            self._farewell.begin(EndDetail.AGENT_FAILED)
        else:
            await self._say(self._phrases.not_understood)
