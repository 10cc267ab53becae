"""Speaking with the carrier's own voice and listening with its recogniser: no media socket."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

from voicecall import events as ev
from voicecall import telephony as tel
from voicecall.errors import ProviderError
from voicecall.machine import Outcome
from voicecall.model import CallMode
from voicecall_calls.conversation.mouth import Asks, Mouth, Speech, SpeechTimes, Spoken, heard_part
from voicecall_calls.conversation.replier import utter
from voicecall_calls.engine.asking import asked, reported_end
from voicecall_calls.spoken.pieces import pieces

if TYPE_CHECKING:
    from voicecall_calls.engine.lane import CallLane

__all__ = ["NativeMouth"]

_CHARACTER_MS = 65
"""Typical time in which a character is spoken."""


class NativeMouth(Mouth):
    """One speak action per utterance, which includes the listen action; several for a text that is
    too long for one."""

    at_once = False

    def __init__(
        self, lane: CallLane, provider: tel.TelephonyProvider, *, voice: str | None
    ) -> None:
        self.lane = lane
        self.provider = provider
        self.seam = lane.host.seam
        self.voice = voice
        self._awaited: dict[str, _NativeSpeech] = {}

    def begin(self, *, first_message: bool = False, asks: Asks = None) -> Speech:
        return _NativeSpeech(self, self.seam.new_id(), first_message, asks)

    def follow(self, utterance_id: str) -> Speech:
        """An utterance that the carrier is speaking already; the text sent to it is not spoken
        again."""
        speech = _NativeSpeech(self, utterance_id)
        speech.started = True
        speech.times.first_sent = self.seam.now_ms()
        self._awaited[utterance_id] = speech
        return speech

    def finished(self, utterance_id: str, ok: bool) -> None:
        """The carrier has finished an utterance."""
        speech = self._awaited.pop(utterance_id, None)
        if speech is not None:
            speech.ended(ok)

    def expect(self, speech: _NativeSpeech) -> None:
        self._awaited[speech.id] = speech

    async def replace(self) -> None:
        """Another utterance replaces those that the carrier may still be speaking."""
        for speech in [self._awaited.pop(key) for key in list(self._awaited)]:
            await speech.untold()


class _NativeSpeech(Speech):
    """An utterance that the carrier speaks, once all of its text is known."""

    def __init__(
        self,
        mouth: NativeMouth,
        utterance_id: str,
        first_message: bool = False,
        asks: Asks = None,
    ) -> None:
        self.id = utterance_id
        self.times = SpeechTimes()
        self.sentences: list[str] = []
        self.started = False
        self._mouth = mouth
        self._first_message = first_message
        self._asks = asks
        self._over = anyio.Event()
        self._ok = True
        self._before: list[str] = []
        """The pieces that were heard of a text that is too long for one action."""

    def ended(self, ok: bool) -> None:
        self._ok = ok
        self.times.done = self._mouth.seam.now_ms()
        self._over.set()

    async def send(self, sentence: str) -> None:
        self.sentences.append(sentence)

    @property
    def _text(self) -> str:
        return " ".join(self.sentences)

    async def done(self) -> Spoken:
        text = self._text
        if not text.strip():
            return Spoken("")
        longest = self._mouth.provider.capabilities.longest_speech
        if not self.started and longest is not None and len(text) > longest:
            return await self._in_pieces(list(pieces(text, longest)))
        return await self._spoken(text)

    async def _in_pieces(self, parts: list[str]) -> Spoken:
        """Speak ``parts`` one after the other. Only the last one listens, and counts as the first
        message."""
        for part in parts[:-1]:
            piece = _NativeSpeech(self._mouth, self._mouth.seam.new_id())
            spoken = await utter(piece, part, listens=False)
            if not (spoken.ok and spoken.complete):
                if self._first_message:
                    await self._give_up()
                break
            self._before.append(part)
        else:
            self.sentences = parts[-1:]
            spoken = await self._spoken(parts[-1])
        return replace(spoken, heard=" ".join([*self._before, spoken.heard]).strip())

    async def _give_up(self) -> None:
        """Record a failed attempt at the first message, or no other would be made."""
        lane, now = self._mouth.lane, self._mouth.seam.now_ms()
        await lane.persist(
            ev.BotSpeaking(at=now, utterance_id=self.id, text=self._text, first_message=True)
        )
        await lane.persist(
            ev.BotSpoke(at=now, utterance_id=self.id, heard="", complete=False, ok=False)
        )

    async def _spoken(self, text: str) -> Spoken:
        if not self.started:
            await anyio.lowlevel.checkpoint_if_cancelled()
            problem = None
            # Shielded: once the record has the utterance, it must reach the carrier or be undone.
            with anyio.CancelScope(shield=True):
                problem = await self._start(text)
            if problem is not None:
                return problem
        # The carrier's report of the end may get lost.
        with anyio.move_on_after(30 + 0.15 * len(text)):
            await self._over.wait()
            return Spoken(text if self._ok else "", ok=self._ok)
        await self._mouth.lane.persist(
            ev.BotSpoke(at=self._mouth.seam.now_ms(), utterance_id=self.id, heard=text)
        )
        return Spoken(text)

    async def _start(self, text: str) -> Spoken | None:
        """Have the carrier speak ``text``; returns how it ended if it is not spoken."""
        mouth = self._mouth
        lane = mouth.lane
        await mouth.replace()
        listen = None
        if lane.record.mode is CallMode.CONVERSATION and self.listens:
            # A question needs a new token: what the caller is saying now answers the old one.
            token = None if self._asks is not None else lane.record.listen_token
            listen = lane.host.planner.listen(token or mouth.seam.token())
            await lane.persist(ev.ListenStarted(at=mouth.seam.now_ms(), token=listen.token))
        applied = await lane.persist(
            ev.BotSpeaking(
                at=mouth.seam.now_ms(),
                utterance_id=self.id,
                text=text,
                first_message=self._first_message,
            )
        )
        if applied.outcome is not Outcome.PROCESSED:
            return Spoken("", complete=False)
        if lane.record.ending is not None:
            # The call began to end before.
            now = mouth.seam.now_ms()
            await lane.persist(
                ev.BotSpoke(at=now, utterance_id=self.id, heard="", complete=False, ok=False)
            )
            return Spoken("", complete=False)
        if self._asks is not None:
            self._asks()
        self.started = True
        mouth.expect(self)
        try:
            speak = tel.Speak(self.id, text, mouth.voice, listen)
            await asked(partial(mouth.provider.perform, lane.ref, speak))
        except ProviderError as error:
            if (end := await reported_end(lane, mouth.provider)) is not None:
                await lane.persist(end)
            mouth.finished(self.id, False)
            await lane.persist(
                ev.BotSpoke(at=mouth.seam.now_ms(), utterance_id=self.id, heard="", ok=False)
            )
            return Spoken("", complete=False, ok=False, error=str(error))
        self.times.first_byte = self.times.first_sent = mouth.seam.now_ms()
        return None

    async def stop(self) -> Spoken:
        # The carrier stops by itself when the caller speaks and reports that, but not what was
        # heard of the text.
        if not self.started:
            return Spoken(" ".join(self._before), complete=False)
        record = self._mouth.lane.record
        if record.terminal or record.ending is not None:
            await self.untold()
        heard = " ".join([*self._before, self._text])
        return Spoken(heard, complete=self._over.is_set())

    async def untold(self) -> None:
        """Record an estimate of what was heard if the end was not reported, since it will not be
        any more: a carrier that listens after speaking reports the end of both at once, and after
        the end of a call neither."""
        if self._over.is_set():
            return
        mouth, text = self._mouth, self._text
        now = mouth.seam.now_ms()
        lasted_ms, whole_ms = now - (self.times.first_sent or now), len(text) * _CHARACTER_MS
        complete = lasted_ms >= whole_ms
        heard = text if complete else heard_part(text, lasted_ms, whole_ms)
        await mouth.lane.persist(
            ev.BotSpoke(at=now, utterance_id=self.id, heard=heard, complete=complete)
        )
