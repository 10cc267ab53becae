"""One answer of the agent: tokens in, sentences out, never silent for long."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import anyio
import anyio.abc
import anyio.lowlevel
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from voicecall.agent import AgentTurn, EndCall, PressKeys, TextDelta, ToolActivity
from voicecall.errors import InvalidRequest, ProviderError
from voicecall.seam import Seam
from voicecall.tones import check_digits
from voicecall_calls.apart import apart
from voicecall_calls.config import VoiceCallConfig
from voicecall_calls.conversation.agentturn import Brain, settle
from voicecall_calls.conversation.losses import kind_of
from voicecall_calls.conversation.mouth import Mouth, Speech, SpeechTimes, Spoken, let_finish
from voicecall_calls.conversation.turntimes import TurnTimes
from voicecall_calls.spoken import SpokenStream

__all__ = ["Replier", "Reply", "utter"]

_log = logging.getLogger("voicecall.calls")
_FILLER_AGAIN_S = 8.0


@dataclass(slots=True)
class Reply:
    """What became of a turn. ``spoken`` is None if the agent said nothing."""

    spoken: Spoken | None = None
    times: SpeechTimes | None = None
    keys: str = ""
    """Keys that the agent wants pressed once its answer was heard."""
    end_call: bool = False
    failed: str | None = None

    @property
    def to_press(self) -> str:
        heard = self.spoken is None or self.spoken.complete
        return self.keys if heard and self.failed is None else ""


async def utter(speech: Speech, text: str, *, listens: bool = True) -> Spoken:
    """Speak one text. If cancelled (an interruption), stop the speech first."""
    speech.listens = listens
    try:
        await speech.send(text)
        return await speech.done()
    except anyio.get_cancelled_exc_class():
        with anyio.CancelScope(shield=True):
            await speech.stop()
        raise


class Replier:
    """Runs the agent for a turn and speaks its answer as it comes, with fillers while it is late.

    ``began`` is called when a filler or the answer begins to be spoken. No filler begins while
    ``caller_goes_on`` returns true, and the answer waits some seconds for it."""

    def __init__(
        self,
        brain: Brain,
        mouth: Mouth,
        seam: Seam,
        *,
        config: VoiceCallConfig,
        began: Callable[[], None],
        caller_goes_on: Callable[[], bool],
    ) -> None:
        self._backend = brain.backend
        self._mouth = mouth
        self._seam = seam
        self._timeout_s = brain.timeout_s
        self._trouble = brain.trouble
        self._filler_after_s = config.filler_after_ms / 1000
        self._filler = config.phrases.filler if config.filler_after_ms else ""
        self._began = began
        self._caller_goes_on = caller_goes_on

    async def run(self, turn: AgentTurn, times: TurnTimes, reply: Reply) -> None:
        """Fill ``reply``. If cancelled, stop speaking and tell the agent what was heard; ``reply``
        then has what is known so far."""
        # If this is cancelled already, the agent must not begin an answer.
        await anyio.lowlevel.checkpoint_if_cancelled()
        sentences_in, sentences = anyio.create_memory_object_stream[str](1000)
        speech: Speech | None = None
        try:
            async with anyio.create_task_group() as tasks:
                run = partial(self._generate, turn, times, sentences_in, reply)
                tasks.start_soon(apart, run, "the agent")
                # Both ends: if this is cancelled at once, the agent's task never runs.
                with sentences_in, sentences:
                    first = await self._first(sentences, times)
                    if first is not None:
                        # A caller who speaks again may be dictating a number: the text, once it
                        # is known, cancels this reply.
                        await let_finish(self._caller_goes_on)
                        self._began()
                        speech = self._mouth.begin()
                        reply.times = speech.times
                        await speech.send(first)
                        await self._rest(speech, sentences, times)
                        speech.listens = not (reply.end_call or reply.keys)
                        reply.spoken = await speech.done()
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                if speech is not None:
                    reply.spoken = await speech.stop()
                heard = reply.spoken.heard if reply.spoken is not None else ""
                await settle(self._backend, turn, heard)
            raise
        if reply.spoken is not None and not reply.spoken.complete:
            await settle(self._backend, turn, reply.spoken.heard)

    async def _generate(
        self,
        turn: AgentTurn,
        times: TurnTimes,
        sentences: MemoryObjectSendStream[str],
        reply: Reply,
    ) -> None:
        """Run the agent. Sentences are passed on as soon as they are complete; for a mouth that
        speaks none before the last, all together, so that fillers can be spoken until then."""
        stream = SpokenStream()
        said: list[str] = []

        async def hand_on(ready: list[str]) -> None:
            said.extend(ready)
            if self._mouth.at_once:
                for sentence in ready:
                    await sentences.send(sentence)

        why = "nothing said"
        times.agent_start = self._seam.now_ms()
        with sentences:
            try:
                with anyio.fail_after(self._timeout_s):
                    async for event in self._backend.reply(turn):
                        if isinstance(event, TextDelta):
                            times.first_token = times.first_token or self._seam.now_ms()
                            await hand_on(stream.feed(event.text))
                        elif isinstance(event, EndCall):
                            reply.end_call = True
                        elif isinstance(event, PressKeys):
                            reply.keys = check_digits(reply.keys + event.digits)
                        elif isinstance(event, ToolActivity):
                            if event.running:
                                # "I will look that up" is of no use after the look-up.
                                await hand_on(stream.pause())
                        else:
                            raise TypeError(f"{type(event).__name__} is not an event of an agent")
            except TimeoutError as error:
                reply.failed, why = f"no answer within {self._timeout_s:g} s", kind_of(error)
            except (ProviderError, InvalidRequest) as error:
                reply.failed, why = str(error), kind_of(error)
            except (Exception, SystemExit) as error:  # noqa: BLE001 (an agent's code)
                _log.exception("call %s: the agent failed", turn.call_id)
                reply.failed, why = repr(error), kind_of(error)
            await hand_on(stream.finish())
            if not self._mouth.at_once:
                for sentence in said:
                    await sentences.send(sentence)
            reply.end_call = reply.end_call or stream.end_requested
            if not (said or reply.keys or reply.end_call):
                reply.failed = reply.failed or "it said nothing"
            if reply.failed:
                self._trouble.failed(turn.call_id, why)
            else:
                self._trouble.worked()
            times.agent_done = self._seam.now_ms()
            times.failed = reply.failed

    async def _rest(
        self, speech: Speech, sentences: MemoryObjectReceiveStream[str], times: TurnTimes
    ) -> None:
        """Speak the sentences after the first, and a filler whenever the next one takes long."""
        while True:
            sentence: str | None = None
            with anyio.move_on_after(_FILLER_AGAIN_S):
                try:
                    sentence = await sentences.receive()
                except anyio.EndOfStream:
                    return
            if sentence is not None:
                # Outside the time limit, which would lose the sentence.
                await speech.send(sentence)
            elif self._filler and not self._caller_goes_on():
                times.filler = True
                await speech.send(self._filler)

    async def _first(
        self, sentences: MemoryObjectReceiveStream[str], times: TurnTimes
    ) -> str | None:
        """The first sentence, None if there is none. Speaks fillers while it takes long."""
        wait = self._filler_after_s or self._timeout_s
        while True:
            with anyio.move_on_after(wait):
                try:
                    return await sentences.receive()
                except anyio.EndOfStream:
                    return None
            if self._filler:
                if self._caller_goes_on():
                    continue
                times.filler = True
                # From here on the bot speaks: an acknowledgement is not a turn.
                self._began()
                # A carrier that listened with the filler might wait for a reply to it; it listens
                # with the answer.
                await utter(self._mouth.begin(), self._filler, listens=False)
            wait = _FILLER_AGAIN_S
