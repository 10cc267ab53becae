"""Speaking over the audio line: text goes to a synthesis session, its audio through the pacer."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

from voicecall import events as ev
from voicecall.errors import ProviderError
from voicecall.machine import Outcome
from voicecall.model import MessageState
from voicecall.tts import SpeechProvider, SpeechSession, Utterance
from voicecall_calls.conversation.ahead import WordsAhead
from voicecall_calls.conversation.line import AudioLine
from voicecall_calls.conversation.mouth import Asks, Mouth, Speech, SpeechTimes, Spoken, heard_part
from voicecall_calls.news import News

if TYPE_CHECKING:
    from voicecall_calls.engine.lane import CallLane

__all__ = ["LineMouth"]

_log = logging.getLogger("voicecall.calls")


class LineMouth(Mouth):
    """Speaks with a synthesis session that it keeps open; ``session`` is set while it is.

    ``message_lost`` is called when the first message could not be spoken. If it returns true, the
    record is not told: the conversation ends the call itself."""

    def __init__(
        self,
        lane: CallLane,
        line: AudioLine,
        *,
        synthesis_timeout_s: float,
        message_lost: Callable[[], bool] = lambda: False,
    ) -> None:
        self.lane = lane
        self.line = line
        self.seam = lane.host.seam
        self.synthesis_timeout_s = synthesis_timeout_s
        self.message_lost = message_lost
        self.session: SpeechSession | None = None
        self.said = deque[Sequence[str]](maxlen=2)
        """The sentences of the last two utterances, the newest last."""
        self._opened = News()
        self._holding: anyio.CancelScope | None = None
        self._ahead: WordsAhead | None = None

    async def hold(self, provider: SpeechProvider, voice: str | None) -> None:
        """Keep a session in the format of the line open until cancelled."""
        failures = 0
        while True:
            with anyio.CancelScope() as self._holding:
                try:
                    async with provider.session(voice, self.line.output_format) as session:
                        self._prepare(session)
                        # Until a socket is attached, the format is only the expected one.
                        await self.line.attached()
                        await anyio.lowlevel.checkpoint_if_cancelled()
                        self.opened(session)
                        try:
                            await anyio.sleep_forever()
                        finally:
                            self.session = None
                except ProviderError as error:
                    failures += 1
                    _log.warning(
                        "call %s: the speech session failed: %s", self.lane.record.call_id, error
                    )
                    await anyio.sleep(min(0.25 * 2**failures, 5.0))

    def _prepare(self, session: SpeechSession) -> None:
        """Have ``session`` synthesise the first message before there is a socket to play it."""
        message = self.lane.record.message
        if message is not None and message.state is MessageState.PENDING:
            self._ahead = WordsAhead(session, self.seam.new_id(), _as_sent(message.text))

    def prepared(self, session: SpeechSession, text: str) -> WordsAhead | None:
        """What ``session`` synthesised beforehand, if it is ``text``. Given once."""
        ahead, self._ahead = self._ahead, None
        return ahead if ahead is not None and ahead.is_of(session, _as_sent(text)) else None

    def renew(self) -> None:
        """The line has another format: replace the session."""
        if self._holding is not None:
            self.session = None
            self._holding.cancel()

    def opened(self, session: SpeechSession) -> None:
        self.session = session
        self._opened.tell()

    async def voice(self) -> SpeechSession:
        """Wait for the open session. Raises ``TimeoutError``."""
        with anyio.fail_after(self.synthesis_timeout_s):
            while (session := self.session) is None:
                await self._opened.wait()
        return session

    def begin(self, *, first_message: bool = False, asks: Asks = None) -> Speech:
        speech = _LineSpeech(self, self.seam.new_id(), first_message, asks)
        self.said.append(speech.sentences)
        return speech


def _as_sent(sentence: str) -> str:
    """``sentence`` with the space that separates it from the next."""
    return sentence + " "


class _LineSpeech(Speech):
    """An utterance on the line. The record is told when it begins and how it ended."""

    def __init__(
        self,
        mouth: LineMouth,
        utterance_id: str,
        first_message: bool,
        asks: Asks,
    ) -> None:
        self.id = utterance_id
        self.times = SpeechTimes()
        self._mouth = mouth
        self._first_message = first_message
        self._asks = asks
        self.sentences: list[str] = []
        self._begins: list[int] = []
        """Bytes of audio that had come when each sentence was sent."""
        self._utterance: Utterance | None = None
        self._flushed = False
        """The utterance has all of its text."""
        self._bytes = 0
        self._announced = self._refused = False
        self._error: str | None = None

    def write(self, item_id: str, audio: bytes) -> None:
        """The sink of the synthesis: count, then hand to the line."""
        self._bytes += len(audio)
        self._mouth.line.write(item_id, audio)

    async def send(self, sentence: str) -> None:
        if self._refused or self._error:
            return
        self.sentences.append(sentence)
        self._begins.append(self._bytes)
        if self._utterance is None:
            await self._start(sentence)
        if self._utterance is not None and not self._flushed:
            self._utterance.send(_as_sent(sentence))

    async def _start(self, sentence: str) -> None:
        try:
            await self._mouth.voice()
            await self._announce(sentence)
            if self._announced:
                if self._asks is not None:
                    self._asks()
                # Meanwhile the session may have been replaced or lost.
                self._begin_with(await self._mouth.voice(), sentence)
        except TimeoutError:
            self._error = "the speech provider was not ready in time"
            if self._first_message and not self._announced:
                # The record must count this attempt, or no other would be made.
                await self._announce(sentence)

    def _begin_with(self, session: SpeechSession, sentence: str) -> None:
        ahead = self._mouth.prepared(session, sentence) if self._first_message else None
        if ahead is None:
            self._utterance = session.utterance(self.id, self)
            return
        self._utterance, self._flushed = ahead.utterance, True
        ahead.into(self.id, self)

    async def _announce(self, sentence: str) -> None:
        """Tell the record that the utterance begins, which it may refuse."""
        applied = await self._mouth.lane.persist(
            ev.BotSpeaking(
                at=self._mouth.seam.now_ms(),
                utterance_id=self.id,
                text=sentence,
                first_message=self._first_message,
            )
        )
        self._announced = applied.outcome is Outcome.PROCESSED
        self._refused = not self._announced

    async def done(self) -> Spoken:
        if self._refused:
            return Spoken("", complete=False)
        if self._utterance is None:
            if self._error is None:
                return Spoken("")
            if self._announced:
                return await self._failed(self._error)
            return Spoken("", complete=False, ok=False, error=self._error)
        if not self._flushed:
            self._utterance.flush()
        try:
            await self._synthesised(self._utterance)
        except (ProviderError, TimeoutError) as error:
            return await self._failed(str(error) or "the synthesis took too long")
        self._mouth.line.finish(self.id)
        if not self._bytes:
            return await self._failed("the synthesis gave no audio")
        await self._mouth.line.played(self.id)
        if not self._mouth.line.size(self.id):
            return await self._failed("the line has another audio format now")
        return await self._over(Spoken(self._text))

    async def _synthesised(self, utterance: Utterance) -> None:
        """Wait for the synthesis to end. The timeout applies only while no audio comes."""
        while True:
            seen = self._bytes
            with anyio.move_on_after(self._mouth.synthesis_timeout_s):
                await utterance.done()
                return
            if self._bytes == seen:
                raise TimeoutError

    @property
    def _text(self) -> str:
        return " ".join(self.sentences)

    async def _failed(self, why: str) -> Spoken:
        heard = self._give_up()
        told = not (self._first_message and self._mouth.message_lost())
        return await self._over(Spoken(heard, complete=False, ok=False, error=why), told=told)

    async def stop(self) -> Spoken:
        if not self._announced:
            return Spoken("", complete=False)
        return await self._over(Spoken(self._give_up(), complete=False))

    def _give_up(self) -> str:
        """Stop speaking; return the text that was heard."""
        # Drop the audio first: the caller hears every millisecond until then.
        heard_ms = self._mouth.line.heard_ms(self.id)
        self._mouth.line.clear()
        told = self._utterance.cancel(heard_ms) if self._utterance is not None else ""
        return told if told is not None else self._estimate(heard_ms)

    def _estimate(self, heard_ms: float) -> str:
        """The words that fall into the heard part of the audio. Sentences that were sent after
        that part had come do not count."""
        heard = self._mouth.line.output_format.size(heard_ms)
        later = [begin for begin in self._begins if begin >= heard]
        said = self.sentences[: len(self.sentences) - len(later)]
        return heard_part(" ".join(said), heard, min(later, default=self._bytes))

    async def _over(self, spoken: Spoken, *, told: bool = True) -> Spoken:
        mouth = self._mouth
        self.times.first_byte = mouth.line.first_written(self.id)
        self.times.first_sent = mouth.line.first_sent(self.id)
        self.times.done = mouth.seam.now_ms()
        mouth.line.forget(self.id)
        if told:
            await mouth.lane.persist(
                ev.BotSpoke(
                    at=mouth.seam.now_ms(),
                    utterance_id=self.id,
                    heard=spoken.heard,
                    complete=spoken.complete,
                    ok=spoken.ok,
                )
            )
        return spoken
