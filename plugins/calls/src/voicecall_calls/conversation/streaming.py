"""A conversation over a media socket: transcription, agent, synthesis, all on the line."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import anyio

from voicecall import events as ev
from voicecall import telephony as tel
from voicecall.media import Started
from voicecall.model import CallMode, EndDetail, EndReason
from voicecall.transcription import (
    Final,
    Partial,
    SpeechEnded,
    SpeechStarted,
    TranscriptionEvent,
    TranscriptionOptions,
    TranscriptionProvider,
)
from voicecall.tts import SpeechProvider
from voicecall.turn import TurnDetectorProvider
from voicecall_calls.config import VoiceCallConfig
from voicecall_calls.conversation.agentturn import Brain, TurnInput
from voicecall_calls.conversation.dialogue import Dialogue
from voicecall_calls.conversation.ear import Ear
from voicecall_calls.conversation.lastwords import FallbackSpeech, LastWords
from voicecall_calls.conversation.line import AudioLine
from voicecall_calls.conversation.linemouth import LineMouth
from voicecall_calls.conversation.linenews import LineNews
from voicecall_calls.conversation.ownwords import OwnWords
from voicecall_calls.conversation.tones import play_on_line
from voicecall_calls.conversation.turntaking import TurnTaking, Verdict
from voicecall_calls.conversation.turntimes import KeepTurn, TurnTimes
from voicecall_calls.conversation.voicegate import VoiceGate
from voicecall_calls.doors import Attachment, MediaSocket
from voicecall_calls.engine.phases import note_phases
from voicecall_calls.troubles import Trouble

if TYPE_CHECKING:
    from voicecall_calls.engine.lane import CallLane

__all__ = ["SpeechSet", "StreamConversation"]

_log = logging.getLogger("voicecall.calls")
_EAR_PATIENCE_S = 5.0
"""How long the greeting waits until the caller's answer to it can be heard."""


@dataclass(frozen=True, slots=True)
class SpeechSet:
    """The speech providers of streamed calls. ``trouble`` is the recogniser's. Without ``turn``
    only the recogniser reports that the caller speaks."""

    transcription: TranscriptionProvider
    speech: SpeechProvider
    trouble: Trouble
    voice: str | None = None
    turn: TurnDetectorProvider | None = None


class StreamConversation(Dialogue):
    """A dialogue over a media socket.

    Connects the line to the recogniser (:class:`Ear`), the synthesis (:class:`LineMouth`) and the
    rules of barge-in (:class:`TurnTaking`, :class:`VoiceGate`): recognised speech becomes turns,
    interruptions stop the bot."""

    def __init__(
        self,
        lane: CallLane,
        provider: tel.TelephonyProvider,
        speech: SpeechSet,
        brain: Brain,
        *,
        config: VoiceCallConfig,
        keep: KeepTurn,
    ) -> None:
        news = LineNews(lane)
        self.line = AudioLine(
            lane.host.seam,
            call_id=lane.record.call_id,
            marks=provider.capabilities.marks,
            lost=news.lost,
            digits=news.digits,
            expects=provider.capabilities.codecs[0],
        )
        self.line.began = self._audio_began
        mouth = LineMouth(
            lane,
            self.line,
            synthesis_timeout_s=config.tts.timeout_ms / 1000,
            message_lost=self._message_lost,
        )
        self._last_words = LastWords(lane, self.line, provider, FallbackSpeech())
        super().__init__(
            lane, mouth, brain, config=config, keep=keep, otherwise=self._last_words.say
        )
        self._line_mouth = mouth
        self._provider = provider
        self._speech = speech
        self._own_words = OwnWords(lambda: mouth.said)
        self._turns = TurnTaking(
            config.barge_in, gated=speech.turn is not None, own=self._own_words
        )
        self._protection_ms = 0
        """The protection of speech that has begun and has no audio yet."""
        self._gate: VoiceGate | None = None
        self._speech_began_ms: int | None = None
        self._speech_ended_ms: int | None = None
        self._untold = 0
        """Number of the caller's turns that are not in the record yet."""
        self._telling = asyncio.Lock()
        """Keeps them in order."""
        self._barge_in: tuple[int, int] | None = None
        """When the bot fell silent, and how long the caller had spoken by then (milliseconds)."""
        self._ear: Ear | None = None
        if lane.record.mode is CallMode.CONVERSATION:
            self._ear = Ear(
                speech.transcription,
                TranscriptionOptions(
                    audio_format=self.line.input_format, end_silence_ms=config.silence_timeout_ms
                ),
                self.seam,
                call_id=lane.record.call_id,
                heard=self._heard,
                deaf=self._deaf,
                trouble=speech.trouble,
            )
            # From the first frame on; :meth:`run` adds the gate.
            self.line.listen(self._ear.hear)

    # --- the line ---------------------------------------------------------------------------

    def attach(self, socket: MediaSocket, started: Started) -> Attachment:
        heard, spoken = self.line.input_format, self.line.output_format
        attachment = self.line.attach(socket, started)
        if self._ear is not None and self.line.input_format != heard:
            self._ear.expect(self.line.input_format)
            if self._gate is not None:
                self.line.listen(self._listener(self._ear))
        if self.line.output_format != spoken:
            self._line_mouth.renew()
        return attachment

    def close(self, why: str) -> None:
        super().close(why)
        self.line.close()

    async def run(self) -> None:
        """Open the sessions while the media socket is being connected; the rest waits for it."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._line_mouth.hold, self._speech.speech, self._speech.voice)
            if self._ear is not None:
                self.line.listen(self._listener(self._ear))
                tasks.start_soon(self._ear.run)
            await self.line.attached()
            tasks.start_soon(self.line.run)
            await super().run()

    def _listener(self, ear: Ear) -> Callable[[bytes], None]:
        """What gets the caller's audio: the recogniser, after the gate if there is one."""
        detectors = self._speech.turn
        # No gate any more if its detector has failed.
        if detectors is None or not (self.config.barge_in.enabled and self._turns.gated):
            return ear.hear
        audio_format = self.line.input_format
        try:
            detector = detectors.detector(audio_format)
        except (Exception, SystemExit):  # noqa: BLE001 (a detector's code can raise anything)
            _log.warning(
                "call %s: no voice detector; only recognised speech interrupts the bot",
                self.lane.record.call_id,
                exc_info=True,
            )
            self._turns.gated = False
            return ear.hear
        self._gate = gate = VoiceGate(
            detector,
            audio_format,
            self.line,
            self._turns,
            self.seam,
            spawn=self.lane.spawn,
            paused=self._silence.note,
            lasted=self._barge,
        )

        def listen(audio: bytes) -> None:
            gate.hear(audio)
            ear.hear(audio)

        return listen

    async def _ears_open(self) -> None:
        if self._ear is not None:
            with anyio.move_on_after(_EAR_PATIENCE_S):
                await self._ear.ready()
            note_phases(self.lane.record, f"transcription {self._ear.state}")

    # --- hearing ----------------------------------------------------------------------------

    def _heard(self, event: TranscriptionEvent) -> None:
        """Handle an event of the recogniser."""
        now = self.seam.monotonic()
        match event:
            case SpeechStarted(at_ms=at_ms):
                self._silence.note()
                # Speech is reported a while after it began.
                age = self._ear.age_s(at_ms) if self._ear is not None else 0.0
                self._speech_began_ms = self.seam.now_ms() - round(age * 1000)
                self._barge_in = None
                ask_at = self._turns.speech_started(now - age)
                if ask_at is not None:
                    self._ask_later(now - age, max(ask_at - now, 0.0))
            case Partial(text=text):
                own = self._own_words.repeated(text)
                self._silence.note(caller=not own)
                if not own and self._turns.partial(text):
                    self._barge()
            case Final(text=text, confidence=confidence):
                self._speech_ended_ms = self._speech_ended_ms or self.seam.now_ms()
                self._finished(text.strip(), confidence)
            case SpeechEnded():
                self._speech_ended_ms = self.seam.now_ms()
                if self._turns.speech_ended():
                    self.lane.spawn(self._go_on)
            case _:
                # Predictions of the end of a turn: for speculative replies, which are not made.
                return

    def _ask_later(self, began: float, wait_s: float) -> None:
        """Interrupt the bot if the speech that began at ``began`` still lasts after ``wait_s``."""

        async def job() -> None:
            await anyio.sleep(wait_s)
            if self._turns.speech_began == began and self._turns.lasted():
                self._barge()

        self.lane.spawn(job)

    def _barge(self) -> None:
        """An accepted interruption: only now is the reply given up."""
        now = self.seam.now_ms()
        pause = self._gate.interrupted() if self._gate is not None else None
        if pause is not None:
            ago_s, lasted_s = pause
            self._barge_in = (now - round(ago_s * 1000), round(lasted_s * 1000))
        else:
            self._barge_in = (now, now - (self._speech_began_ms or now))
        self._floor.interrupt()

    def _finished(self, text: str, confidence: float | None) -> None:
        """Handle a finished utterance of the caller according to its verdict."""
        own = self._own_words.repeated(text)
        self._silence.note(caller=not own)
        if own and self._own_words.came_back():
            _log.warning(
                "call %s: the line echoes the bot; from now on only words interrupt it",
                self.lane.record.call_id,
            )
        verdict = self._turns.final(text, owed=self._floor.lock.locked(), own=own)
        match verdict:
            case Verdict.DROP:
                if self._gate is not None:
                    self._gate.nothing_said()
                return
            case Verdict.NOT_UNDERSTOOD:
                self._not_understood()
                return
            case Verdict.TURN:
                if self._turns.bot_speaking and self._barge_in is None:
                    self._barge()
                else:
                    self._floor.interrupt()
            case Verdict.CONTEXT:
                pass
        event = ev.CallerSaid(
            at=self.seam.now_ms(),
            text=text,
            confidence=confidence,
            context=verdict is Verdict.CONTEXT,
        )

        async def tell() -> None:
            try:
                async with self._telling:
                    if verdict is Verdict.TURN:
                        # What the bot had said so far comes first in the transcript.
                        await self._floor.interrupted()
                    await self.lane.persist(event)
            finally:
                self._untold -= 1

        self._untold += 1
        self.lane.spawn(tell)

    async def _go_on(self) -> None:
        """A noise stopped the bot: treat it as not understood, unless the bot is busy again."""
        await self._floor.interrupted()
        if self._question.waits or not self._busy():
            self._not_understood()

    def _not_understood(self) -> None:
        """Repeat an unanswered question, or give the agent a turn without text."""
        if not self._question.waits:
            self._push(self._turn_input(""))
        elif self._question.unanswered:
            self.lane.spawn(self._repeat)

    def _deaf(self, reason: str) -> None:
        """Recognition is lost for good: tell the caller and end the call."""

        async def goodbye() -> None:
            _log.warning(
                "call %s: the caller cannot be heard: %s", self.lane.record.call_id, reason
            )
            # Recognition may have failed before the socket was connected.
            await self.line.attached()
            await self._stop_reply()
            phrase, detail = self.config.phrases.cannot_hear, EndDetail.LISTENING_FAILED
            await self._farewell(phrase, EndReason.ERROR, detail, deaf=True)

        self.lane.spawn(goodbye)

    # --- hooks of the dialogue --------------------------------------------------------------

    def _turn_input(self, text: str) -> TurnInput:
        began, ended = self._speech_began_ms, self._speech_ended_ms
        self._speech_began_ms = self._speech_ended_ms = None
        return TurnInput(
            text, heard_at=self.seam.now_ms(), speech_started=began, speech_ended=ended
        )

    def _bot_began(self, protection_ms: int = 0) -> None:
        # Protection counts from the first audio: before that there is nothing to interrupt.
        self._protection_ms = protection_ms
        self._turns.bot_began(self.seam.monotonic(), math.inf if protection_ms else 0)

    def _audio_began(self) -> None:
        self._own_words.sounds(self.seam.monotonic())
        if self._protection_ms:
            self._turns.bot_began(self.seam.monotonic(), self._protection_ms)
            self._protection_ms = 0

    def _bot_stopped(self) -> None:
        super()._bot_stopped()
        self._protection_ms = 0
        self._turns.bot_stopped()
        if self._gate is not None:
            self._gate.over()

    def _note_interruption(self, times: TurnTimes) -> None:
        if self._barge_in is not None:
            times.barge_in_at, times.barge_in_stop_ms = self._barge_in
            self._barge_in = None

    def playback_finished(self, utterance_id: str, ok: bool) -> None:
        super().playback_finished(utterance_id, ok)
        self._last_words.finished(utterance_id, ok)

    def stream_missing(self, detail: EndDetail) -> None:
        self._floor.interrupt()
        end, apology = self._last_words.end, self.config.phrases.failed
        self._parting.begin_with(partial(end, apology, detail, EndReason.HANGUP_BOT))

    def _caller_goes_on(self) -> bool:
        goes_on = self._untold > 0 or self._turns.caller_goes_on(self.seam.monotonic())
        return self._parting.over is None and goes_on

    def _busy(self) -> bool:
        # Not every recogniser reports text before the end of a long utterance.
        caller_speaks = self._untold > 0 or self._turns.caller_speaks(self.seam.monotonic())
        return caller_speaks or super()._busy()

    def _message_lost(self) -> bool:
        """After the last attempt at the first message, begin last words by another voice, since
        the record would end the call in silence. Whether they begin."""
        message = self.lane.record.message
        if message is None or message.attempts < self.lane.host.policy.message_attempts:
            return False
        phrase, detail = self.config.phrases.failed, EndDetail.MESSAGE_FAILED
        return self._provider.capabilities.native_speech and self._parting.begin_with(
            partial(self._last_words.end, phrase, detail)
        )

    async def play_digits(self, digits: str, *, last: bool = False) -> None:
        await play_on_line(self.lane, self._provider, self.line, digits)
