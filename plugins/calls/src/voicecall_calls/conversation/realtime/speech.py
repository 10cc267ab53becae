"""Has a voice model say given texts, one at a time, and waits for answers to them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack

import anyio
import anyio.lowlevel

from voicecall.errors import CallNotReady, ProviderUnavailable, VoicecallError
from voicecall.seam import Seam
from voicecall_calls.conversation.losses import why_lost
from voicecall_calls.conversation.mouth import let_finish
from voicecall_calls.conversation.question import OpenQuestion
from voicecall_calls.conversation.realtime.caller import CallerWords
from voicecall_calls.conversation.realtime.items import Ticket
from voicecall_calls.conversation.realtime.link import ModelLink
from voicecall_calls.conversation.realtime.voice import ModelVoice
from voicecall_calls.conversation.turntimes import CallerTimes

__all__ = ["ModelSpeech", "Requests"]

_log = logging.getLogger("voicecall.calls")
_TIMES_ASKED = 3
_SOUND_MS = 20_000
"""No words are expected any more from a sound that began longer ago."""


class ModelSpeech:
    """Has the model say texts. One per call; a second text waits for the end of the first."""

    def __init__(self, link: ModelLink, voice: ModelVoice) -> None:
        self._link = link
        self._voice = voice
        self._floor = anyio.Lock()

    async def say(
        self, text: str, patience_s: float, began: Callable[[], None] = lambda: None
    ) -> Ticket:
        """Have the model say ``text``; ``began`` is called when it begins. Returns once the text
        was played or interrupted, or if the model did not begin within ``patience_s`` after what it
        was saying before. Raises ``CallNotReady`` if there is no session or the call is being
        ended, and ``ProviderError`` if the model fails."""
        async with self._floor:
            self._check()
            session = self._link.session
            if session is None:
                raise CallNotReady("No active voice model for this call")
            ticket = self._voice.next_item()
            try:
                await session.say(text)
                await self._begun(ticket, patience_s)
                if ticket.item is not None:
                    began()
                # The session may be over; if this is a job of the session, it must end too.
                await anyio.lowlevel.checkpoint_if_cancelled()
            except VoicecallError:
                raise
            except (Exception, SystemExit) as error:
                why = why_lost(error, "the voice model")
                raise ProviderUnavailable(why, provider="realtime") from error
            finally:
                self._voice.give_up(ticket)
            if ticket.item is not None:
                await ticket.done.wait()
            else:
                self._check()
            return ticket

    async def _begun(self, ticket: Ticket, patience_s: float) -> None:
        """Wait until the item of ``ticket`` begins or is given up, as long as audio keeps coming at
        least every ``patience_s``: what the model says first may take long, in real time."""
        while not ticket.begun.is_set():
            made = self._voice.made
            with anyio.move_on_after(patience_s):
                await ticket.begun.wait()
            if self._voice.made == made:
                return

    def _check(self) -> None:
        if self._voice.ended:
            raise CallNotReady("the call is being ended")

    @property
    def away(self) -> bool:
        """Whether there is no session."""
        return self._link.session is None

    def stop(self) -> None:
        """Break off what the model says."""
        self._voice.interrupt()

    async def quiet(self) -> None:
        """Wait until nothing is being said."""
        await self._voice.quiet()

    def part(self) -> None:
        """Let the model say only what is requested from now on. It hears silence: otherwise it
        would answer the caller, or fall silent, and its answer would be taken for the requested
        text."""
        self._voice.parting = True
        try:
            self._link.mute()
        except (Exception, SystemExit) as error:  # noqa: BLE001 (a model's code)
            reason = why_lost(error, "the voice model")
            _log.warning("call %s: the voice model cannot be muted: %s", self._link.call_id, reason)


class Requests:
    """Requests from outside the call (``speak`` and ``continue``). They wait a moment for a
    session, and while the caller is speaking. ``closed``: why no more can be said, once that is
    so."""

    def __init__(
        self,
        speech: ModelSpeech,
        voice: ModelVoice,
        words: CallerWords,
        question: OpenQuestion,
        seam: Seam,
        *,
        patience_s: float,
    ) -> None:
        self.closed: str | None = None
        self._speech = speech
        self._voice = voice
        self._words = words
        self._question = question
        self._seam = seam
        self._patience_s = patience_s
        self._turn = anyio.Lock()

    def close(self, why: str) -> None:
        self.closed = why
        self._question.fail(why)

    async def say(self, text: str) -> None:
        """Say ``text``. Returns when it was played or interrupted; it is not said if something
        before it is interrupted. Raises ``VoicecallError``."""
        self._check()
        interruptions = self._voice.interruptions
        async with self._turn:
            await let_finish(lambda: self._speech.away or self._caller_goes_on())
            if self._voice.interruptions != interruptions:
                self._check()
            else:
                await self._say(text)

    async def ask(self, prompt: str, timeout_s: float) -> str:
        """Say ``prompt`` and return the caller's next words. Words that interrupt what is said
        before the prompt are not an answer, and the prompt is said again. Raises
        ``VoicecallError``."""
        self._check()
        with ExitStack() as open_question:
            async with self._turn:
                for _ in range(_TIMES_ASKED):
                    open_question.close()
                    # What the caller is saying at this moment is not an answer.
                    await let_finish(lambda: self._speech.away or self._words_come())
                    answer = open_question.enter_context(self._question.asked(prompt))
                    # An answer counts from the beginning of the prompt on.
                    if await self._say(prompt, self._question.begins):
                        break
            self._question.begins()
            return await answer.wait(timeout_s)

    async def _say(self, text: str, began: Callable[[], None] = lambda: None) -> bool:
        """Say ``text``. Returns whether any of it was heard."""
        ticket = await self._speech.say(text, self._patience_s, began)
        self._check()
        if ticket.failed is not None:
            raise ProviderUnavailable(ticket.failed, provider="realtime")
        return ticket.item is not None and ticket.item.cut_ms != 0

    def _caller_goes_on(self) -> bool:
        caller = self._voice.caller
        return self._due(caller) and not caller.wordless

    def _words_come(self) -> bool:
        """Whether words of the caller are still to be reported, even if already answered."""
        caller, answered = self._voice.caller, self._voice.answered
        late = self._due(answered) and (caller.final or 0) < (answered.started or 0)
        return self._words.writing or self._due(caller) or late

    def _due(self, caller: CallerTimes) -> bool:
        """Whether words are still expected. A sound without words may not have been speech."""
        return caller.speaks and self._seam.now_ms() - (caller.started or 0) < _SOUND_MS

    def _check(self) -> None:
        if self.closed is not None:
            raise CallNotReady(self.closed)
