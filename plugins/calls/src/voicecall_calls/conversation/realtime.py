"""A conversation held by a full-duplex voice model on the call's line.

Caller audio goes to the model's session and the model's audio into the line, both by plain
calls. Here the two are kept in step with the record: who said what, what was heard, who may
interrupt, when it is over.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import anyio

from voicecall import events as ev
from voicecall import telephony as tel
from voicecall.audio import AudioFormat
from voicecall.errors import CallNotReady, ProviderUnavailable, RequestRejected
from voicecall.media import Started
from voicecall.model import CallMode, EndDetail, EndReason
from voicecall.realtime import (
    Delegation,
    Interrupted,
    Interrupter,
    RealtimeEvent,
    RealtimeOptions,
    RealtimeProvider,
    RealtimeSession,
    ResponseDone,
    ResponseStarted,
    SessionReset,
    SpeechStarted,
    SpeechStopped,
    ToolCall,
    ToolCancelled,
    Transcript,
    Usage,
)
from voicecall.seam import Seam
from voicecall_calls.config import VoiceCallConfig
from voicecall_calls.conversation import realtimewords as words
from voicecall_calls.conversation.base import Conversation
from voicecall_calls.conversation.dialogue import Brain, KeepTurn
from voicecall_calls.conversation.keys import CallerKeys
from voicecall_calls.conversation.line import AudioLine
from voicecall_calls.conversation.realtimecaller import CallerWords, MediaWatch
from voicecall_calls.conversation.realtimegate import SpeechGate
from voicecall_calls.conversation.realtimegreeting import Greeting
from voicecall_calls.conversation.realtimelink import ModelLink
from voicecall_calls.conversation.realtimetools import RealtimeTools
from voicecall_calls.conversation.realtimevoice import ModelVoice
from voicecall_calls.ports import Attachment, MediaSocket

if TYPE_CHECKING:
    from voicecall_calls.engine.lane import CallLane

__all__ = ["RealtimeConversation", "RealtimeModel"]

_log = logging.getLogger("voicecall.calls")
_FAILURES_BEFORE_END = 2


@dataclass(frozen=True, slots=True)
class RealtimeModel:
    """The voice model of realtime calls."""

    provider: RealtimeProvider
    voice: str | None = None


class RealtimeConversation(Conversation):
    def __init__(
        self,
        lane: CallLane,
        carrier: tel.TelephonyProvider,
        model: RealtimeModel,
        brain: Brain,
        *,
        config: VoiceCallConfig,
        keep: KeepTurn,
        seam: Seam,
    ) -> None:
        self.lane = lane
        self.config = config
        self.seam = seam
        self.usage: Counter[str] = Counter()
        self.line = AudioLine(
            seam,
            marks=carrier.capabilities.marks,
            lost=self._socket_lost,
            digits=self._digits_heard,
        )
        self.voice = ModelVoice(lane, self.line, seam, keep)
        self._words = CallerWords(lane, seam)
        self._carrier = carrier
        self._model = model
        self._capabilities = model.provider.capabilities
        self._link = ModelLink(
            model.provider,
            self.line,
            seam,
            options=self._options,
            opened=self._session_opened,
            closed=self._session_closed,
            event=self._take,
            quiet=self.voice.quiet,
        )
        self._tools = RealtimeTools(
            lane,
            brain,
            self.voice,
            config=config,
            seam=seam,
            do=self._link.do,
            settled=self._words.settled,
        )
        self._greeting = Greeting(
            lane,
            self.voice,
            seam,
            config=config.barge_in,
            verbatim=self._capabilities.verbatim,
            do=self._link.do,
        )
        self._gate = SpeechGate(self.line.input_format)
        self._gated = self._capabilities.interrupts is Interrupter.CLIENT
        self._keys = CallerKeys(self._tell_keys)
        self._media = MediaWatch(self.line, seam, config.realtime.inactivity_ms)
        self._floor = anyio.Lock()
        self._digit_count = 0
        self._failures = 0
        self._resumed = False
        self._closed: str | None = None
        self.line.listener = self._hear

    @property
    def _converses(self) -> bool:
        return self.lane.record.mode is CallMode.CONVERSATION

    # --- the line ---------------------------------------------------------------------------

    def attach(self, socket: MediaSocket, started: Started) -> Attachment:
        return self.line.attach(socket, started)

    def _socket_lost(self, stream_id: str) -> None:
        async def tell() -> None:
            await self.lane.apply(ev.StreamDetached(at=self.seam.now_ms(), stream_id=stream_id))

        self.lane.spawn(tell)

    def _digits_heard(self, stream_id: str, digits: str) -> None:
        record = self.lane.record
        self._digit_count += 1
        event = ev.DigitsPressed(
            at=self.seam.now_ms(),
            key=f"{stream_id}:digits:{self._digit_count}",
            provider_call_id=record.provider_call_id or "",
            call_id=record.call_id,
            digits=digits,
        )

        async def tell() -> None:
            await self.lane.apply(event)

        self.lane.spawn(tell)

    def _hear(self, audio: bytes) -> None:
        self._media.heard_at = self.seam.monotonic()
        if self._gated or self._greeting.protected:
            self._listen_in(audio)
        self._link.hear(audio)

    def _listen_in(self, audio: bytes) -> None:
        began = self._gate.hear(audio)
        if began:
            self.voice.caller.started = self.seam.now_ms()
        if self._greeting.protected:
            if self._greeting.broken_by_speech(self._gate.lasted_ms):
                self._interrupt()
        elif began and self._gated and self.config.barge_in.enabled:
            self._interrupt()

    # --- the tasks --------------------------------------------------------------------------

    async def run(self) -> None:
        await self.line.attached()
        self._gate = SpeechGate(self.line.input_format)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.line.run)
            tasks.start_soon(self.voice.run)
            tasks.start_soon(self._words.run)
            tasks.start_soon(self._watch_media)
            if self._converses:
                tasks.start_soon(self._keys.run)
            reason = await self._link.run()
            _log.warning("call %s: no voice model: %s", self.lane.record.call_id, reason)
            await self._end(EndReason.ERROR, EndDetail.LISTENING_FAILED)

    async def _end(self, reason: EndReason, detail: EndDetail) -> None:
        await self.lane.apply(ev.EndRequested(at=self.seam.now_ms(), reason=reason, detail=detail))

    async def _watch_media(self) -> None:
        """End a call whose carrier sends no audio any more."""
        await self._media.run()
        await self._end(EndReason.TIMEOUT, EndDetail.STREAM_LOST)

    # --- the session ------------------------------------------------------------------------

    @property
    def _function_tools(self) -> bool:
        return self._converses and not self._capabilities.delegation

    def _options(self) -> RealtimeOptions:
        return RealtimeOptions(
            sink=self.voice,
            input_format=self._format(self.line.input_format),
            output_format=self._format(self.line.output_format),
            instructions=self._instructions,
            tools=self._tools.declared() if self._function_tools else (),
            history=words.history(self.lane.record.transcript),
            voice=self._model.voice,
        )

    def _format(self, wanted: AudioFormat) -> AudioFormat:
        formats = self._capabilities.formats
        return wanted if wanted in formats else formats[0]

    @property
    def _instructions(self) -> str:
        return words.instructions(self.config.realtime, tools=self._function_tools)

    def _session_opened(self) -> None:
        self.voice.session_opened(self._format(self.line.output_format))
        session = self._link.session
        if session is not None and not self._converses:
            session.mute(True)
        self._link.do(self._open)

    def _session_closed(self) -> None:
        self.voice.session_closed()

    async def _open(self, session: RealtimeSession) -> None:
        if self._greeting.pending:
            await self._greeting.play(self._instructions, session)
        elif self._resumed and self._converses:
            self._resumed = False
            await session.say(self.config.phrases.resumed)

    # --- events of the session --------------------------------------------------------------

    def _take(self, event: RealtimeEvent) -> None:
        match event:
            case SpeechStarted():
                self.voice.caller.started = self.seam.now_ms()
                server = self._capabilities.interrupts is Interrupter.SERVER
                if server and self.config.barge_in.enabled:
                    self._interrupt()
            case SpeechStopped():
                self.voice.caller.ended = self.seam.now_ms()
            case Interrupted():
                self._interrupt()
            case ResponseStarted():
                self.voice.response_started()
            case ResponseDone():
                self._response_done(event)
            case Transcript(role="assistant", item=item, text=text, final=final):
                self.voice.text(item, text, final=final)
            case Transcript(text=text, final=final):
                if final and text.strip():
                    self._caller_said(text.strip())
            case ToolCall():
                self._tools.call(event)
            case ToolCancelled(id=call_id):
                self._tools.cancel(call_id)
            case Delegation():
                self._tools.delegate(event)
            case SessionReset():
                self._tools.cancel_all()
                self._greeting.break_off()
                self.voice.interrupt()
                self.voice.session_opened(self._format(self.line.output_format))
            case Usage(values=values):
                self.usage.update(values)
            case _:
                # The link takes what concerns the session itself.
                return

    def _interrupt(self) -> None:
        """The caller takes the floor, unless the greeting is protected or nothing is said."""
        if self._greeting.protected:
            return
        heard = self.voice.interrupt()
        if heard is not None:
            self._link.do(lambda session: session.interrupt(heard))

    def _response_done(self, event: ResponseDone) -> None:
        spoke = self.voice.response_done(event)
        if event.status != "failed":
            self._failures = 0
            return
        _log.warning("call %s: the model failed: %s", self.lane.record.call_id, event.error)
        if self._greeting.pending:
            return
        self._failures += 1
        if self._failures >= _FAILURES_BEFORE_END:
            self.lane.spawn(partial(self._end, EndReason.ERROR, EndDetail.AGENT_FAILED))
        elif not spoke:
            self._link.do(lambda session: session.say(self.config.phrases.not_understood))

    # --- what the caller said ---------------------------------------------------------------

    def _caller_said(self, text: str) -> None:
        self.voice.caller.final = self.seam.now_ms()
        self._words.say(text)

    # --- notifications ----------------------------------------------------------------------

    def caller_turn(self, text: str, confidence: float | None) -> None:
        self._words.answer(text)

    def caller_speaking(self) -> None:
        """The model hears for itself."""

    def playback_finished(self, utterance_id: str, ok: bool) -> None:
        """The carrier's own voice says nothing on a realtime call."""

    def keys_pressed(self, digits: str) -> None:
        self._greeting.break_off()
        self._interrupt()
        self._keys.press(digits)

    def _tell_keys(self, digits: str) -> None:
        request = words.pressed(self._instructions, digits)
        self._link.do(lambda session: session.greet(request))

    def play_message(self) -> None:
        self._link.do(partial(self._greeting.play, self._instructions))

    def resume(self) -> None:
        self._resumed = True

    def hush(self) -> None:
        self.voice.interrupt()

    def close(self, why: str) -> None:
        self._closed = why
        self.voice.close()
        self._words.close_question()
        self.line.close()
        if self.usage:
            _log.info("call %s: the model used %s", self.lane.record.call_id, dict(self.usage))

    # --- requests from outside --------------------------------------------------------------

    async def say(self, text: str) -> None:
        async with self._floor:
            session = self._link.session
            if self._closed is not None or session is None:
                raise CallNotReady(self._closed or "No active voice model for this call")
            ticket = self.voice.next_item()
            try:
                await session.say(text)
                with anyio.move_on_after(self.config.tts.timeout_ms / 1000):
                    await ticket.begun.wait()
            finally:
                self.voice.give_up(ticket)
            item = ticket.item
            if item is not None:
                await item.done.wait()
        if self._closed is not None:
            raise CallNotReady(self._closed)
        if item is None or item.error is not None:
            why = item.error if item is not None else None
            raise ProviderUnavailable(why or "the model said nothing", provider="realtime")

    async def ask(self, prompt: str, timeout_s: float) -> str:
        # Registered before the prompt is spoken: an early answer counts.
        question = self._words.ask()
        try:
            await self.say(prompt)
            with anyio.move_on_after(timeout_s):
                await question.done.wait()
        finally:
            self._words.close_question()
        if question.text is not None:
            return question.text
        if self._closed is not None:
            raise CallNotReady(self._closed)
        raise CallNotReady(f"Timed out waiting for transcript after {round(timeout_s * 1000)}ms")

    async def play_digits(self, digits: str) -> None:
        if self.line.send_digits(digits):
            return
        if not self._carrier.capabilities.dtmf_out:
            raise RequestRejected("keypad tones are not supported", provider="carrier")
        await self._carrier.perform(self.lane.ref, tel.PlayDigits(digits))
