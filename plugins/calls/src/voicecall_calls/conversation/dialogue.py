"""The dialogue of a call: greeting, turns, questions from outside, silence, goodbye."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable

import anyio

from voicecall.errors import CallNotReady, ProviderUnavailable
from voicecall.model import CallMode, EndDetail, EndReason, MessageState
from voicecall_calls.config import VoiceCallConfig
from voicecall_calls.conversation.agentturn import Brain, Briefing, TurnInput, joined
from voicecall_calls.conversation.base import Conversation
from voicecall_calls.conversation.floor import Floor, Stoppable
from voicecall_calls.conversation.keys import CallerKeys
from voicecall_calls.conversation.mouth import Asks, Mouth, SpeechTimes, Spoken, let_finish
from voicecall_calls.conversation.parting import Parting
from voicecall_calls.conversation.question import OpenQuestion
from voicecall_calls.conversation.replier import Replier, Reply, utter
from voicecall_calls.conversation.silence import SilenceWatch
from voicecall_calls.conversation.tones import press
from voicecall_calls.conversation.turntimes import KeepTurn, TurnTimes
from voicecall_calls.engine.lane import CallLane

__all__ = ["Dialogue"]

_log = logging.getLogger("voicecall.calls")
_FAILURES_BEFORE_GOODBYE = 2


class Dialogue(Conversation):
    """A call whose turns are answered by an agent, whichever way its audio goes.

    Speaks the first message, answers the caller's inputs one at a time, puts questions from
    outside, speaks up when the caller is silent, and ends the call when that does not help or agent
    or speech keep failing. Subclasses connect it to a media socket or to a carrier that speaks."""

    def __init__(
        self,
        lane: CallLane,
        mouth: Mouth,
        brain: Brain,
        *,
        config: VoiceCallConfig,
        keep: KeepTurn,
        otherwise: Callable[[str], Awaitable[object]] | None = None,
    ) -> None:
        """``otherwise`` speaks if the mouth cannot."""
        self.lane = lane
        self.mouth = mouth
        self._briefing = Briefing(brain)
        self.config = config
        self._keep = keep
        self.seam = lane.host.seam
        self._replier = Replier(
            brain,
            mouth,
            self.seam,
            config=config,
            began=self._bot_began,
            caller_goes_on=self._caller_goes_on,
        )
        self._inputs: deque[TurnInput] = deque()
        self._input_came = anyio.Event()
        self._play = anyio.Event()
        self._floor = Floor(over=lambda: self._parting.over, left=self._bot_stopped)
        self._replying: Stoppable | None = None
        self._unasked: TurnInput | None = None
        """An input whose answer was stopped before the agent was asked."""
        self._question = OpenQuestion()
        self._resumed = False
        self._parting = Parting(lane, self._floor.lock, quiet=self._stop_reply, say=otherwise)
        self._agent_failures = self._speech_failures = 0
        self._keys = CallerKeys(self._keys_collected)
        self._silence = SilenceWatch(config.silence, self.seam, busy=self._busy)

    # --- notifications ----------------------------------------------------------------------

    def caller_turn(self, text: str) -> None:
        self._silence.note(caller=True)
        if self._question.answered(text):
            return
        if self.lane.record.mode is CallMode.CONVERSATION:
            self._push(self._turn_input(text))

    def _turn_input(self, text: str) -> TurnInput:
        now = self.seam.now_ms()
        return TurnInput(text, heard_at=now, speech_ended=now)

    def caller_speaking(self) -> None:
        self._silence.note(caller=True)

    def keys_pressed(self, digits: str) -> None:
        self._silence.note(caller=True)
        if self.lane.record.mode is CallMode.CONVERSATION:
            # Keys do not interrupt a notification.
            self._keys.press(digits)
            self._floor.interrupt()

    def playback_finished(self, utterance_id: str, ok: bool) -> None:
        self._silence.note()

    def play_message(self) -> None:
        self._play.set()

    def resume(self) -> None:
        self._resumed = True
        self._briefing.taken_up(self.lane.record)

    def close(self, why: str) -> None:
        self._parting.closed = why
        self._question.fail(why)
        self._floor.open()
        self._floor.interrupt()

    def hush(self) -> None:
        self._floor.interrupt()

    def _push(self, turn: TurnInput) -> None:
        if not self._parting.begun and self._parting.over is None:
            self._inputs.append(turn)
            self._input_came.set()

    # --- hooks for the streamed conversation ------------------------------------------------

    def _bot_began(self, protection_ms: int = 0) -> None:
        """The bot begins to speak."""

    def _bot_stopped(self) -> None:
        """The bot is silent again."""
        self._silence.note()

    def _note_interruption(self, times: TurnTimes) -> None:
        """Put the times of a barge-in into those of the interrupted turn."""

    def _caller_goes_on(self) -> bool:
        """Whether the caller is in the middle of something that the bot should not talk into."""
        return False

    async def _ears_open(self) -> None:
        """Wait until the caller can be heard, before the greeting."""

    # --- the tasks --------------------------------------------------------------------------

    async def run(self) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._message_loop)
            if self.lane.record.mode is CallMode.CONVERSATION:
                tasks.start_soon(self._silence.run, self._ask_again, self._give_up)
                self._keys.begin(self.lane.spawn)
            while True:
                await self._input_came.wait()
                self._input_came = anyio.Event()
                while self._inputs:
                    self._unasked = None
                    await self._stop_reply()
                    turn = joined(self._inputs, self._unasked)
                    self._replying = reply = Stoppable()
                    tasks.start_soon(self._answer, turn, reply)

    async def _message_loop(self) -> None:
        """Speak the first message, and again whenever the state machine wants it."""
        await self._ears_open()
        self._floor.open()
        await self._open()
        while True:
            await self._play.wait()
            self._play = anyio.Event()
            await self._say_message()

    async def _open(self) -> None:
        message = self.lane.record.message
        if message is not None and message.state is MessageState.PENDING:
            await self._say_message()
        elif self._resumed and self.lane.record.mode is CallMode.CONVERSATION:
            await self._say(self.config.phrases.resumed)

    async def _say_message(self) -> None:
        message = self.lane.record.message
        if message is None or message.state is not MessageState.PENDING:
            return
        began = self.seam.now_ms()
        async with self._floor.taken():
            self._bot_began(self.config.barge_in.protection_ms(self.lane.record.direction))
            speech = self.mouth.begin(first_message=True)
            self._log_failure(await utter(speech, message.text))
            times = TurnTimes(self.lane.record.call_id, self.seam.new_id(), "message", began)
            await self._keep(times.row(speech.times))

    async def _stop_reply(self) -> None:
        """Cancel the running reply and wait until it is over."""
        while (reply := self._replying) is not None:
            reply.scope.cancel()
            with anyio.CancelScope(shield=True):
                await reply.over.wait()
            # Another task that waited here may have begun the next one.
            if self._replying is reply:
                self._replying = None

    # --- answering --------------------------------------------------------------------------

    async def _answer(self, turn: TurnInput, reply: Stoppable) -> None:
        try:
            with reply.scope:
                await self._answer_now(turn)
        finally:
            reply.over.set()

    async def _answer_now(self, turn: TurnInput) -> None:
        times = TurnTimes(
            self.lane.record.call_id,
            self.seam.new_id(),
            "reply",
            turn.heard_at,
            speech_started=turn.speech_started,
            speech_ended=turn.speech_ended,
            stt_final=turn.heard_at,
        )
        reply = Reply()
        interrupted = True
        try:
            async with self._floor.taken():
                agent_turn = self._briefing.turn(self.lane.record, turn, times.turn_id)
                await self._replier.run(agent_turn, times, reply)
                interrupted = False
        finally:
            if times.agent_start is not None and (reply.spoken or not reply.failed):
                self._briefing.taken(self.lane.record)
            if interrupted:
                self._note_interruption(times)
                self._unasked = turn if times.agent_start is None else None
            with anyio.CancelScope(shield=True):
                await self._keep(times.row(reply.times))
        if not interrupted:
            await self._after_reply(reply)

    async def _after_reply(self, reply: Reply) -> None:
        """Do what follows from a reply that was not interrupted: press keys, end the call, or
        apologise for a failure."""
        spoken = reply.spoken
        if spoken is not None and not spoken.ok:
            self._log_failure(spoken)
            await self._speech_failed()
            return
        reply.failed = await press(self.lane, reply.to_press) or reply.failed
        if reply.end_call and (spoken is None or spoken.complete):
            await self.lane.end(EndReason.HANGUP_BOT, EndDetail.AGENT)
            return
        if (spoken is not None or reply.keys) and reply.failed is None:
            self._agent_failures = self._speech_failures = 0
            return
        self._agent_failures += 1
        _log.warning("call %s: the agent failed: %s", self.lane.record.call_id, reply.failed)
        if self._agent_failures < _FAILURES_BEFORE_GOODBYE:
            await self._say(self.config.phrases.not_understood)
        else:
            phrase = self.config.phrases.failed
            await self._farewell(phrase, EndReason.ERROR, EndDetail.AGENT_FAILED)

    # --- saying things ----------------------------------------------------------------------

    async def _say(self, text: str, *, asks: Asks = None) -> Spoken:
        """Speak when the floor is free. An interruption, even before that, is a normal end."""
        if asks is None:
            await let_finish(self._caller_goes_on)
        spoken = await self._speak(text, asks=asks)
        if spoken.ok:
            self._speech_failures = 0
            return spoken
        if asks is not None:
            self._question.withdraw()
        await self._speech_failed()
        return spoken

    async def _speak(self, text: str, *, asks: Asks = None, last: bool = False) -> Spoken:
        """Speak when the floor is free. ``last``: the call ends after it."""
        spoken = Spoken("", complete=False)
        interruptions = self._floor.interruptions
        async with self._floor.taken():
            if self._floor.interruptions != interruptions and not (asks or last):
                return spoken
            self._bot_began()
            spoken = await utter(self.mouth.begin(asks=asks), text, listens=not last)
        self._log_failure(spoken)
        return spoken

    def _log_failure(self, spoken: Spoken) -> None:
        if not spoken.ok:
            why = spoken.error or "the carrier could not play it"
            _log.warning("call %s: speech failed: %s", self.lane.record.call_id, why)

    async def _speech_failed(self) -> None:
        """Ask the caller to say it again; after the second failure in a row, end the call."""
        self._speech_failures += 1
        if self._speech_failures >= _FAILURES_BEFORE_GOODBYE:
            self._parting.begin(
                self.config.phrases.failed, EndReason.ERROR, EndDetail.SPEECH_FAILED
            )
        elif self._parting.closed is None:
            await self._say(self.config.phrases.not_understood)

    async def _farewell(
        self, text: str, reason: EndReason, detail: EndDetail, *, deaf: bool = False
    ) -> bool:
        """Say goodbye, then hang up, even if it could not be said. False if a caller who can be
        heard interrupts it: the call goes on."""
        spoken = await self._speak(text, last=True)
        if not spoken.ok:
            self._parting.begin(text, reason, detail)
        elif spoken.complete or deaf or self._parting.closed is not None:
            await self.lane.end(reason, detail)
        else:
            return False
        return True

    # --- requests from outside --------------------------------------------------------------

    async def say(self, text: str, *, asks: Asks = None) -> None:
        spoken = await self._say(text, asks=asks)
        over = self._parting.closed if spoken.complete else self._parting.over
        if over is not None:
            raise CallNotReady(over)
        if not spoken.ok:
            raise ProviderUnavailable(spoken.error or "speech failed", provider="speech")

    async def ask(self, prompt: str, timeout_s: float) -> str:
        call_id, now = self.lane.record.call_id, self.seam.now_ms()
        times = TurnTimes(call_id, self.seam.new_id(), "continue", now)
        # What the caller is saying now is not an answer.
        await let_finish(self._caller_goes_on)
        try:
            with self._question.asked(prompt) as answer:
                await self._stop_reply()
                async with self._floor.lock:
                    pass
                # Nor is what the caller said over the bot's speech before the prompt.
                await let_finish(self._caller_goes_on)
                await self.say(prompt, asks=self._question.begins)
                self._question.begins()
                asked = SpeechTimes(done=self.seam.now_ms())
                text = await answer.wait(timeout_s)
        finally:
            self._silence.note()
        times.stt_final = self.seam.now_ms()
        await self._keep(times.row(asked))
        return text

    async def _repeat(self) -> None:
        """Ask the open question again: the caller may have heard only a part of it."""
        await let_finish(self._caller_goes_on)
        if self._question.again():
            await self._say(self._question.prompt)

    # --- keys and silence -------------------------------------------------------------------

    def _keys_collected(self, digits: str) -> None:
        """Take keys as the answer to an open question, or else as a turn."""
        if digits and not self._question.answered(digits):
            self._push(TurnInput(digits=digits, heard_at=self.seam.now_ms()))

    def _busy(self) -> bool:
        """Whether the bot speaks or prepares an answer, or a question is open."""
        return self._floor.lock.locked() or self._question.waits

    async def _ask_again(self) -> None:
        await self._say(self.config.phrases.still_there)

    async def _give_up(self) -> bool:
        phrase = self.config.phrases.goodbye
        return await self._farewell(phrase, EndReason.HANGUP_BOT, EndDetail.SILENCE)
