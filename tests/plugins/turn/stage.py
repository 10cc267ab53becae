"""A call in which the bot tells a story while the caller's line carries clips, on virtual time.

The carrier is the test phone: it plays what comes and discards what it is told to clear. The
recogniser is a stand-in with the delays of a good one: it reports speech 150 ms after its
beginning, the first words 500 ms after it, and the whole text 800 ms after the end.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from voicecall.audio import MULAW_8K
from voicecall.media import Audio, Message
from voicecall.turn import TurnDetectorProvider
from voicecall_testing.fakes import ScriptedCodec
from voicecall_testing.harness import Phone, open_phone

from .clips import Clip, background

__all__ = ["STORY_MS", "Stage", "Trial", "open_stage"]

_SENTENCE = "It was a dark and stormy night in the old town."
_STORY = " ".join([_SENTENCE] * 3)
STORY_MS = len(_SENTENCE) * 3 * 50
"""How long a story lasts; the spaces between its sentences are not spoken."""
_ANSWER = "Yes."
_FRAME_MS = 20
_FRAME = MULAW_8K.size(_FRAME_MS)
_BACKGROUND = 15.0
_LEAD_MS = 800
_TAIL_MS = 2000
_STARTED_MS, _PARTIAL_MS, _FINAL_MS = 150, 500, 800


@dataclass(frozen=True, slots=True)
class Trial:
    """What became of a story with a clip over it. Times are milliseconds, None where it did not
    happen: ``cleared`` from the first audible sample of the clip to the carrier's clear,
    ``resumed`` from its last one until more of the story was heard.

    ``told_ms`` is how much of the story was heard in all, ``after_ms`` how much of it was sent or
    heard after the first clear. ``answered``: the bot answered the clip.
    """

    clip: Clip
    cleared: float | None
    resumed: float | None
    told_ms: float
    after_ms: float
    answered: bool


class Stage:
    """A connected call whose greeting is over."""

    def __init__(self, phone: Phone) -> None:
        self.phone = phone
        self._seed = 0
        self._codec = ScriptedCodec()

    async def quiet(self, milliseconds: int) -> None:
        """The caller's line carries its background only."""
        await self.phone.socket.speak(self._background(milliseconds))

    def _background(self, milliseconds: int) -> bytes:
        self._seed += 1
        return b"".join(background(milliseconds, _BACKGROUND, self._seed))

    async def tell(self, story: str = _STORY) -> None:
        """The bot has begun a story."""
        self.phone.agent.then(story)
        self.phone.hears("Tell me a story.")
        await self.quiet(_LEAD_MS)

    async def over(self) -> None:
        """Wait until the bot is silent."""
        heard = -1
        while heard != len(self.phone.socket.heard):
            heard = len(self.phone.socket.heard)
            await self.quiet(1000)

    async def trial(self, clip: Clip) -> Trial:
        """One story with ``clip`` over it. The recogniser understands speech and ignores noise."""
        socket = self.phone.socket
        heard_from, turns = len(socket.heard), len(self.phone.agent.turns)
        await self.tell()
        sent_from = len(socket.sent)
        cleared = resumed = None
        silent_from = len(socket.heard)
        news = self._recognition(clip)
        audio = clip.audio + self._background(_TAIL_MS)
        for start in range(0, len(audio) - _FRAME + 1, _FRAME):
            # A frame arrives when its last sample has been spoken.
            now = MULAW_8K.duration_ms(start + _FRAME)
            while news and news[0][0] <= now:
                news.pop(0)[1]()
            clears = socket.clears
            await socket.speak(audio[start : start + _FRAME])
            if cleared is None and socket.clears > clears:
                cleared = now - clip.begins_ms
                silent_from = len(socket.heard)
            elif resumed is None and cleared is not None and len(socket.heard) > silent_from:
                resumed = now - clip.ends_ms
        await self.over()
        answered = len(self.phone.agent.turns) > turns + 1
        after_ms = 0.0
        if cleared is not None:
            after_ms = self._story_ms(self._sent_after_clear(socket.sent[sent_from:]))
            after_ms += self._story_ms(bytes(socket.heard[silent_from:]))
        return Trial(
            clip,
            cleared,
            # What is heard next of an interrupted bot is its answer.
            None if answered else resumed,
            self._story_ms(bytes(socket.heard[heard_from:])),
            after_ms,
            answered,
        )

    def _recognition(self, clip: Clip) -> list[tuple[float, Callable[[], None]]]:
        """Report a clip as the recogniser does, with its delays."""
        stt = self.phone.stt
        if not clip.text:
            return []

        def final() -> None:
            stt.final(clip.text)
            stt.ended()

        first = clip.text.split()[0]
        return [
            (clip.begins_ms + _STARTED_MS, stt.started),
            (clip.begins_ms + _PARTIAL_MS, lambda: stt.partial(first)),
            (clip.ends_ms + _FINAL_MS, final),
        ]

    def _story_ms(self, audio: bytes) -> float:
        return sum(ms for text, ms in self.phone.tts.texts_in(audio) if text in _STORY)

    def _sent_after_clear(self, messages: list[Message]) -> bytes:
        events = [self._codec.decode(message) for message in messages]
        first = events.index(None)
        return b"".join(event.payload for event in events[first:] if isinstance(event, Audio))


@asynccontextmanager
async def open_stage(directory: Path, turn: TurnDetectorProvider | None) -> AsyncIterator[Stage]:
    config = {"maxDurationSeconds": 100_000}
    async with open_phone(directory, turn=turn, config=config) as phone:
        await phone.call_in()
        stage = Stage(phone)
        await stage.over()
        yield stage
