"""The first message of a realtime call, and its protection.

A caller's "hello?" during the first words must not stop them, so the voice model hears silence for
a moment. Pressed keys or sustained speech break this protection.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

from voicecall import events as ev
from voicecall.model import CallMode, EndDetail, MessageState
from voicecall.realtime import RealtimeSession, Verbatim
from voicecall_calls.config import BargeInConfig
from voicecall_calls.conversation.lastwords import Farewell
from voicecall_calls.conversation.losses import why_lost
from voicecall_calls.conversation.realtime.items import Ticket
from voicecall_calls.conversation.realtime.link import ModelLink
from voicecall_calls.conversation.realtime.voice import ModelVoice
from voicecall_calls.conversation.realtime.words import greeting

if TYPE_CHECKING:
    from voicecall_calls.engine.lane import CallLane

__all__ = ["Greeting"]

_log = logging.getLogger("voicecall.calls")
_FIRST_AUDIO_S = 15.0
_LONGEST_S = 30.0
_SUSTAINED_MS = 1000


class Greeting:
    """Has the first message spoken. ``protected``: the model hears silence and nothing interrupts
    it; ``changed`` is called when that begins or ends."""

    def __init__(
        self,
        lane: CallLane,
        link: ModelLink,
        voice: ModelVoice,
        farewell: Farewell,
        *,
        config: BargeInConfig,
        verbatim: Verbatim,
        changed: Callable[[], None],
    ) -> None:
        self.protected = False
        self._changed = changed
        self._lane = lane
        self._link = link
        self._voice = voice
        self._farewell = farewell
        self._seam = lane.host.seam
        self._config = config
        self._verbatim = verbatim
        self._asking = False
        self._void = False
        """The model has forgotten what was requested."""
        self._protection: anyio.CancelScope | None = None
        self._muted: RealtimeSession | None = None

    @property
    def pending(self) -> bool:
        """The first message has yet to be spoken."""
        message = self._lane.record.message
        return message is not None and message.state is MessageState.PENDING

    async def play(self, instructions: str, session: RealtimeSession) -> None:
        """Have the first message spoken, unless that is already in progress."""
        message = self._lane.record.message
        if message is None or self._asking or not self.pending or self._farewell.ends:
            return
        self._asking = True
        try:
            begins = await self._ask(message.text, instructions, session)
            if not begins and not self._farewell.ends:
                await self._failed(message.text)
        finally:
            self._asking = False

    async def _ask(self, text: str, instructions: str, session: RealtimeSession) -> bool:
        """Request the first message, and again if the vendor starts over before it begins. Returns
        whether it began."""
        ticket: Ticket | None = None
        try:
            with anyio.move_on_after(_FIRST_AUDIO_S):
                while ticket is None or (ticket.item is None and self._void):
                    self._void = False
                    ticket = self._voice.next_item(text)
                    self._link.do(partial(self._protect, ticket))
                    if self._verbatim is Verbatim.NONE:
                        await session.greet(greeting(instructions, text))
                    else:
                        await session.say(text)
                    await ticket.begun.wait()
            # The session may be over, which is not a failure of the greeting.
            await anyio.lowlevel.checkpoint_if_cancelled()
        except (Exception, SystemExit) as error:  # noqa: BLE001 (a model's code)
            why = why_lost(error, "the voice model")
            _log.warning("call %s: greeting: %s", self._lane.record.call_id, why)
        finally:
            if ticket is not None:
                self._voice.give_up(ticket)
        return ticket is not None and ticket.item is not None

    def reset(self) -> None:
        """The vendor has started over. Must be called before pending requests are given up."""
        self._void = True
        self.break_off()

    async def _failed(self, text: str) -> None:
        """Report the failure to the state machine, which has the message tried again. After the
        last attempt, say the last words instead: the state machine would end the call in
        silence."""
        message = self._lane.record.message
        if message and message.attempts + 1 >= self._lane.host.policy.message_attempts:
            self._farewell.begin(EndDetail.MESSAGE_FAILED)
            return
        key, now = self._seam.new_id(), self._seam.now_ms()
        await self._lane.persist(
            ev.BotSpeaking(at=now, utterance_id=key, text=text, first_message=True)
        )
        await self._lane.persist(
            ev.BotSpoke(at=now, utterance_id=key, heard="", complete=False, ok=False)
        )

    # --- protection -------------------------------------------------------------------------

    def session_opened(self) -> None:
        """Begin the protection before the message is requested: the model would otherwise answer
        what the caller has already said."""
        session = self._link.session
        if session is None or not self.pending or not self._protects or self._farewell.ends:
            return
        try:
            self._shield(session)
        except (Exception, SystemExit) as error:  # noqa: BLE001 (a model's code)
            why = why_lost(error, "the voice model")
            _log.warning("call %s: greeting: %s", self._lane.record.call_id, why)
            self.break_off()

    def broken_by_speech(self, lasted_ms: float) -> bool:
        """The caller has been speaking for ``lasted_ms``; whether that breaks the protection."""
        if not self._config.enabled or lasted_ms < _SUSTAINED_MS:
            return False
        self.break_off()
        return True

    def _set_protected(self, protected: bool) -> None:
        muted, self._muted = self._muted, None
        if muted is not None:
            try:
                # During a notification, and during the last words, the caller is not heard.
                muted.mute(self._lane.record.mode is CallMode.NOTIFY or self._farewell.begun)
            except (Exception, SystemExit) as error:  # noqa: BLE001 (a model's code)
                why = why_lost(error, "the voice model")
                _log.warning("call %s: greeting: %s", self._lane.record.call_id, why)
        self.protected = protected
        self._changed()

    @property
    def _protection_ms(self) -> int:
        return self._config.protection_ms(self._lane.record.direction)

    @property
    def _protects(self) -> bool:
        return not self._config.enabled or self._protection_ms > 0

    def _shield(self, session: RealtimeSession) -> None:
        if self._muted is not session:
            self._set_protected(True)
            self._muted = session
            session.mute(True)

    def break_off(self) -> None:
        protection, self._protection = self._protection, None
        self._set_protected(False)
        if protection is not None:
            protection.cancel()

    async def _protect(self, ticket: Ticket, session: RealtimeSession) -> None:
        """Protect the greeting until ``greetingProtectionMs`` after its first audio, or to its end
        if callers may not interrupt at all."""
        if not self._protects:
            return
        scope = self._protection = anyio.CancelScope(deadline=anyio.current_time() + _LONGEST_S)
        try:
            self._shield(session)
            with scope:
                await ticket.begun.wait()
                if ticket.item is not None:
                    limit = self._protection_ms / 1000 if self._config.enabled else None
                    with anyio.move_on_after(limit):
                        await ticket.done.wait()
        finally:
            if self._protection is scope:
                self.break_off()
