"""A conversation held by a full-duplex voice model on the call's line.

Caller audio goes to the model's session and the model's audio to the line, both by plain calls.
This module keeps the record in step: who said what, what was heard, who interrupted, how it ended.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from voicecall import telephony as tel
from voicecall.media import Started
from voicecall.model import CallMode, EndDetail, EndReason
from voicecall.realtime import (
    Delegation,
    Interrupted,
    Interrupter,
    RealtimeEvent,
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
from voicecall_calls.agentprofile import AgentProfile
from voicecall_calls.config import VoiceCallConfig
from voicecall_calls.conversation.agentturn import Brain
from voicecall_calls.conversation.base import Conversation
from voicecall_calls.conversation.keys import CallerKeys
from voicecall_calls.conversation.lastwords import FallbackSpeech, Farewell, LastWords
from voicecall_calls.conversation.line import AudioLine
from voicecall_calls.conversation.linenews import LineNews
from voicecall_calls.conversation.question import OpenQuestion
from voicecall_calls.conversation.realtime import words
from voicecall_calls.conversation.realtime.breaks import Breaks
from voicecall_calls.conversation.realtime.caller import CallerWords, MediaWatch
from voicecall_calls.conversation.realtime.consult import Consults
from voicecall_calls.conversation.realtime.ear import AttentiveEar
from voicecall_calls.conversation.realtime.failures import Failures
from voicecall_calls.conversation.realtime.forced import ForcedConsult
from voicecall_calls.conversation.realtime.greeting import Greeting
from voicecall_calls.conversation.realtime.idle import IdleWatch
from voicecall_calls.conversation.realtime.link import ModelLink
from voicecall_calls.conversation.realtime.speech import ModelSpeech, Requests
from voicecall_calls.conversation.realtime.terms import SessionTerms
from voicecall_calls.conversation.realtime.tools import FindTool, RealtimeTools
from voicecall_calls.conversation.realtime.voice import ModelVoice
from voicecall_calls.conversation.tones import play_on_line
from voicecall_calls.conversation.turntimes import KeepTurn
from voicecall_calls.doors import Attachment, MediaSocket
from voicecall_calls.troubles import Trouble

if TYPE_CHECKING:
    from voicecall_calls.engine.lane import CallLane

__all__ = ["RealtimeConversation"]

_log = logging.getLogger("voicecall.calls")


class RealtimeConversation(Conversation):
    def __init__(
        self,
        lane: CallLane,
        carrier: tel.TelephonyProvider,
        model: RealtimeProvider,
        brain: Brain,
        *,
        config: VoiceCallConfig,
        keep: KeepTurn,
        find_tool: FindTool,
        profile: AgentProfile | None,
        fallback: FallbackSpeech,
        trouble: Trouble,
    ) -> None:
        self.lane = lane
        self.config = config
        self.seam = seam = lane.host.seam
        self.usage: Counter[str] = Counter()
        news = LineNews(lane)
        self.line = AudioLine(
            seam,
            call_id=lane.record.call_id,
            marks=carrier.capabilities.marks,
            lost=news.lost,
            digits=news.digits,
            expects=carrier.capabilities.codecs[0],
        )
        self._question = OpenQuestion()
        self._words = CallerWords(lane, self._question)
        self.voice = ModelVoice(lane, self.line, self._words, keep)
        self._carrier = carrier
        self._capabilities = model.capabilities
        self._terms = SessionTerms(
            lane,
            self.line,
            self.voice,
            self._capabilities,
            config,
            tools=lambda: self._tools.declared(),
        )
        self._link = ModelLink(
            model,
            self.line,
            seam,
            trouble=trouble,
            options=self._terms.options,
            opened=self._session_opened,
            closed=self._session_closed,
            event=self._take,
            listen=self._listen,
            pause=self._pause,
            lost=lambda: self._farewell.begin(EndDetail.LISTENING_FAILED),
        )
        if not self._converses:
            self._link.mute()
        speech = ModelSpeech(self._link, self.voice)
        self._requests = Requests(
            speech,
            self.voice,
            self._words,
            self._question,
            seam,
            patience_s=config.tts.timeout_ms / 1000,
        )
        self._last_words = LastWords(lane, self.line, carrier, fallback, model=speech)
        self._farewell = Farewell(lane, speech, self._last_words, config.phrases.failed)
        consults = Consults(lane, self._link, self._words, brain, config=config.realtime)
        self._forced = None
        always = words.consults_always(config.realtime)
        if always and self._capabilities.delegation:
            _log.warning("consultPolicy always cannot be enforced on a model that delegates")
        elif always and self._converses:
            self._forced = ForcedConsult(
                lane, self._link, consults, self.voice, speech, self._farewell, config=config
            )
        self._tools = RealtimeTools(
            lane,
            self._link,
            self.voice,
            consults,
            self._forced,
            self._farewell,
            config=config,
            find=find_tool,
        )
        self._breaks = Breaks(self.voice, consults, self._tools, seam)
        self._greeting = Greeting(
            lane,
            self._link,
            self.voice,
            self._farewell,
            config=config.barge_in,
            verbatim=self._capabilities.verbatim,
            changed=self._choose_ear,
        )
        self._failures = Failures(
            lane, self._link, self._greeting, self._farewell, config.phrases.not_understood
        )
        self._keys = CallerKeys(self._tell_keys)
        silent = partial(lane.end, EndReason.TIMEOUT, EndDetail.STREAM_LOST)
        self._media = MediaWatch(
            self.line, seam, config.realtime.inactivity_ms, lost=partial(lane.spawn, silent)
        )
        goodbye = partial(
            self._farewell.begin, EndDetail.SILENCE, EndReason.HANGUP_BOT, config.phrases.goodbye
        )
        idle_ms = config.realtime.idle_hangup_ms if self._converses else None
        self._idle = IdleWatch(
            self.line, self.voice, self._tools, consults, self._question, seam, idle_ms, goodbye
        )
        self._profile = profile
        self._resumed = False
        self._notices = self._capabilities.interrupts is Interrupter.CLIENT
        """The model leaves the detection of the caller's speech to the host."""
        self._ear = AttentiveEar(
            self._link.keep,
            self.voice,
            self._greeting,
            seam,
            audio_format=self.line.input_format,
            interrupts=self._notices and config.barge_in.enabled,
            interrupt=self._interrupt,
        )
        self._choose_ear()

    @property
    def _converses(self) -> bool:
        return self.lane.record.mode is CallMode.CONVERSATION

    # --- the line ---------------------------------------------------------------------------

    def _listen(self, to_model: Callable[[bytes], None]) -> Callable[[bytes], None]:
        waited = self._ear.turn_to(to_model)
        self._choose_ear()
        return waited

    def _choose_ear(self) -> None:
        self.line.listen(self._ear.listener(always=self._notices))

    def attach(self, socket: MediaSocket, started: Started) -> Attachment:
        line = self.line
        formats = started.input_format, started.output_format
        same = formats == (line.input_format, line.output_format)
        if not same:
            # The session, and what is being said, have the old formats.
            self._breaks.broke(cuts=True)
            self._link.reopen()
            self.voice.interrupt()
        attachment = line.attach(socket, started)
        if not same:
            self._ear.use(line.input_format)
        return attachment

    # --- the tasks --------------------------------------------------------------------------

    async def run(self) -> None:
        if self._profile is not None:
            self._terms.about = await self._profile.told(self.config.realtime.agent_context)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._link.run)
            await self.line.attached()
            self._link.begin()
            with self._media.watching(), self._idle.watching():
                tasks.start_soon(self.line.run)
                await self.voice.run()

    # --- the session ------------------------------------------------------------------------

    def _session_opened(self) -> None:
        if self._converses:
            self._keys.begin(self.lane.spawn)
        self._greeting.session_opened()
        self._link.do(self._open)

    async def _pause(self) -> None:
        """Wait until a session can be left: the next one would start its work and tools anew."""
        await self.voice.pause()
        while self._tools.busy or self.voice.answering or self.voice.asked:
            await self._tools.idle()
            await self.voice.pause()

    def _session_closed(self) -> None:
        self._failures.session_closed()
        self._greeting.break_off()
        self._keys.pause()
        self._breaks.broke()
        self._tools.forget()
        self.voice.session_closed()

    async def _open(self, session: RealtimeSession) -> None:
        owes = self._breaks.owes()
        if self._farewell.ends:
            return
        if self._greeting.pending:
            await self._greeting.play(self._terms.instructions, session)
        elif self._converses and self._resumed:
            self._resumed = False
            await session.say(self.config.phrases.resumed)
        elif self._converses and owes:
            if self._forced is None:
                await session.greet(words.interrupted(self._terms.instructions))
            else:
                await session.say(self.config.phrases.not_understood)

    # --- events of the session --------------------------------------------------------------

    def _take(self, event: RealtimeEvent) -> None:
        match event:
            case SpeechStarted():
                self.voice.caller.started = self.seam.now_ms()
                if self._forced is not None:
                    self._forced.speech_started()
                server = self._capabilities.interrupts is Interrupter.SERVER
                if server and self.config.barge_in.enabled:
                    self._interrupt()
            case SpeechStopped():
                self.voice.caller.ended = self.seam.now_ms()
            case Interrupted():
                self._interrupt()
            case ResponseStarted(response=response):
                self.voice.response_started(response)
            case ResponseDone():
                self._failures.response_done(event, spoke=self.voice.response_done(event))
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
                self._breaks.broke(cuts=True)
                self._tools.cancel_all()
                self._greeting.reset()
                self.voice.interrupt()
                self.voice.session_reset()
                self._link.do(self._open)
            case Usage(values=values):
                # Some values are nested, and after a failure there may be none.
                told: Mapping[str, Any] = values or {}
                self.usage.update({name: n for name, n in told.items() if isinstance(n, int)})
            case _:
                # The link handles events about the session itself.
                return

    def _interrupt(self) -> bool:
        """Stop the model because the caller speaks, unless the greeting is protected or the last
        words are being said. Returns whether anything was stopped."""
        if self._greeting.protected or self._farewell.ends:
            return False
        if (heard := self.voice.interrupt()) is None:
            return False
        self._link.do(lambda session: session.interrupt(heard))
        return True

    # --- what the caller said ---------------------------------------------------------------

    def _caller_said(self, text: str) -> None:
        self.voice.caller_said()
        # An answer to an open question goes to whoever asked, and not to the agent too.
        asked = self._question.waits
        self._words.say(text)
        if self._forced is not None and not asked:
            self._forced.heard(text)

    # --- notifications ----------------------------------------------------------------------

    def caller_turn(self, text: str) -> None:
        self._question.answered(text)

    def caller_speaking(self) -> None:
        """Nothing to do: the model hears for itself."""

    def playback_finished(self, utterance_id: str, ok: bool) -> None:
        self._last_words.finished(utterance_id, ok)

    def stream_missing(self, detail: EndDetail) -> None:
        self.voice.interrupt()
        self._farewell.begin(detail, EndReason.HANGUP_BOT)

    def keys_pressed(self, digits: str) -> None:
        if self._converses:
            # Keys do not interrupt a notification.
            self._greeting.break_off()
            self._interrupt()
            self._keys.press(digits)

    def _tell_keys(self, digits: str) -> None:
        """Answer an open question with the keys, or else let the model respond to them."""
        if self._question.answered(digits):
            return
        if not self._farewell.ends:
            request = words.pressed(self._terms.instructions, digits)
            self._link.do(lambda session: session.greet(request))

    def play_message(self) -> None:
        if not self._farewell.ends:
            self._link.do(partial(self._greeting.play, self._terms.instructions))

    def resume(self) -> None:
        self._resumed = True

    def hush(self) -> None:
        self.voice.hush()
        self._tools.cancel_all()

    def close(self, why: str) -> None:
        self._requests.close(why)
        self.voice.close()
        self.line.close()
        if self.usage:
            _log.info("call %s: the model used %s", self.lane.record.call_id, dict(self.usage))

    # --- requests from outside --------------------------------------------------------------

    async def say(self, text: str) -> None:
        await self._requests.say(text)

    async def ask(self, prompt: str, timeout_s: float) -> str:
        return await self._requests.ask(prompt, timeout_s)

    async def play_digits(self, digits: str, *, last: bool = False) -> None:
        await play_on_line(self.lane, self._carrier, self.line, digits)
