"""Having a voice model say given words, one text at a time, and ask for an answer to them."""

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
"""Words come no longer of a sound that began so long ago."""


class ModelSpeech:
    """One a call. Whoever comes while a text is spoken waits for its end."""

    def __init__(self, link: ModelLink, voice: ModelVoice) -> None:
        self._link = link
        self._voice = voice
        self._floor = anyio.Lock()

    async def say(
        self, text: str, patience_s: float, began: Callable[[], None] = lambda: None
    ) -> Ticket:
        """Have the model say ``text``; ``began`` is called when that begins. Returns once it was
        played or interrupted, or where the model began nothing within ``patience_s`` of what it
        was saying before. Raises ``CallNotReady`` while there is no session and while the call is
        being ended, and ``ProviderError`` where it fails."""
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
                # The session may be over, and with it a job of it that has this said.
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
        """Wait until the item of ``ticket`` begins or is given up, while audio comes at least every
        ``patience_s``: what a model says before it in real time may take long."""
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
        """There is no session."""
        return self._link.session is None

    def stop(self) -> None:
        """Break off what the model says."""
        self._voice.interrupt()

    async def quiet(self) -> None:
        """Wait until nothing is being said."""
        await self._voice.quiet()

    def part(self) -> None:
        """From now on the model says only what it is made to say. It hears silence: it would answer
        its caller, or fall silent, and what it answers would be taken for what it is to say."""
        self._voice.parting = True
        try:
            self._link.mute()
        except (Exception, SystemExit) as error:  # noqa: BLE001 (a model's code)
            reason = why_lost(error, "the voice model")
            _log.warning("call %s: the voice model cannot be muted: %s", self._link.call_id, reason)


class Requests:
    """What somebody outside of the call wants said, which waits a moment for a session, and while
    the caller is in the middle of something. ``closed`` is why nothing can be any more."""

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
        """Return when ``text`` was played or interrupted; it is not said where something before it
        is interrupted. Raises ``VoicecallError``."""
        self._check()
        interruptions = self._voice.interruptions
        async with self._turn:
            await let_finish(lambda: self._speech.away or self._caller_goes_on())
            if self._voice.interruptions != interruptions:
                self._check()
            else:
                await self._say(text)

    async def ask(self, prompt: str, timeout_s: float) -> str:
        """Say ``prompt`` and return the caller's next words. Where these interrupt what stands
        before it, they are no answer, and it is said again. Raises ``VoicecallError``."""
        self._check()
        with ExitStack() as open_question:
            async with self._turn:
                for _ in range(_TIMES_ASKED):
                    open_question.close()
                    # What is being said just now is no answer.
                    await let_finish(lambda: self._speech.away or self._words_come())
                    answer = open_question.enter_context(self._question.asked(prompt))
                    # Into the prompt an answer counts.
                    if await self._say(prompt, self._question.begins):
                        break
            self._question.begins()
            return await answer.wait(timeout_s)

    async def _say(self, text: str, began: Callable[[], None] = lambda: None) -> bool:
        """Whether anything of it was heard."""
        ticket = await self._speech.say(text, self._patience_s, began)
        self._check()
        if ticket.failed is not None:
            raise ProviderUnavailable(ticket.failed, provider="realtime")
        return ticket.item is not None and ticket.item.cut_ms != 0

    def _caller_goes_on(self) -> bool:
        caller = self._voice.caller
        return self._due(caller) and not caller.wordless

    def _words_come(self) -> bool:
        """Words of the caller's are not known yet, though they may be answered already."""
        caller, answered = self._voice.caller, self._voice.answered
        late = self._due(answered) and (caller.final or 0) < (answered.started or 0)
        return self._words.writing or self._due(caller) or late

    def _due(self, caller: CallerTimes) -> bool:
        """Whether words are due. A sound that came to none may have been nobody's."""
        return caller.speaks and self._seam.now_ms() - (caller.started or 0) < _SOUND_MS

    def _check(self) -> None:
        if self.closed is not None:
            raise CallNotReady(self.closed)
