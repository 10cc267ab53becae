"""The gate between the caller's voice and the bot's: pauses, what ends them, and what they cost."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from voicecall.audio import MULAW_8K, AudioFormat
from voicecall.tts import SpeechSession
from voicecall.turn import (
    TurnDetector,
    TurnDetectorProvider,
    TurnEvent,
    VoiceStarted,
    VoiceStopped,
)
from voicecall_testing.clock import virtual_backend
from voicecall_testing.fakes import ScriptedSpeech
from voicecall_testing.harness import Phone, open_phone

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

STORY = "It was a dark and stormy night in the old town, and nobody was about."
LONG_STORY = " ".join([STORY] * 3)
SILENCE = MULAW_8K.silence * MULAW_8K.size(20)


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_backend


class Puppet(TurnDetector, TurnDetectorProvider):
    """Reports with the next audio what the test says; a voice 200 ms after it began."""

    def __init__(self) -> None:
        self.made = 0
        self._events: deque[TurnEvent] = deque()
        self._bytes = 0

    def detector(self, audio_format: AudioFormat) -> TurnDetector:
        self.made += 1
        return self

    def reset(self) -> None:
        self._bytes = 0

    def process(self, audio: bytes) -> tuple[TurnEvent, ...]:
        self._bytes += len(audio)
        events = tuple(self._events)
        self._events.clear()
        return events

    @property
    def _at_ms(self) -> int:
        return round(MULAW_8K.duration_ms(self._bytes))

    def started(self) -> None:
        self._events.append(VoiceStarted(max(self._at_ms - 180, 0)))

    def stopped(self, ago_ms: int = 0) -> None:
        self._events.append(VoiceStopped(self._at_ms - ago_ms))


class LateVoice(ScriptedSpeech):
    """Takes two seconds to open."""

    @asynccontextmanager
    async def session(
        self, voice: str | None, audio_format: AudioFormat
    ) -> AsyncIterator[SpeechSession]:
        await anyio.sleep(2)
        async with super().session(voice, audio_format) as session:
            yield session


class Room:
    def __init__(self, phone: Phone, detector: Puppet) -> None:
        self.phone = phone
        self.detector = detector

    async def listen(self, milliseconds: int) -> None:
        """The caller's line is open for so long."""
        await self.phone.socket.speak(SILENCE * (milliseconds // 20))

    async def story(self, text: str = STORY) -> None:
        """The bot has told a second of it."""
        self.phone.agent.then(text)
        self.phone.hears("Tell me a story.")
        await self.listen(1000)

    async def voice(self) -> None:
        """The caller has spoken for 260 ms, and goes on."""
        self.detector.started()
        await self.listen(80)

    @property
    def clears(self) -> int:
        return self.phone.socket.clears

    async def hears_more(self, milliseconds: int = 100) -> bool:
        """Whether the caller hears more of the bot within so long."""
        heard = len(self.phone.socket.heard)
        await self.listen(milliseconds)
        return len(self.phone.socket.heard) > heard


@asynccontextmanager
async def room(directory: Path, **barge_in: Any) -> AsyncIterator[Room]:
    detector = Puppet()
    async with open_phone(directory, turn=detector, config={"bargeIn": barge_in}) as phone:
        await phone.call_in()
        it = Room(phone, detector)
        await it.listen(3000)
        yield it


async def test_a_voice_pauses_the_bot_when_it_has_lasted(tmp_path: Path) -> None:
    async with room(tmp_path, minSpeechMs=300) as it:
        await it.story()
        it.detector.started()
        await it.listen(100)
        assert it.clears == 0
        await it.listen(40)
        assert it.clears == 1
        assert not await it.hears_more(400)


async def test_words_make_it_an_interruption_and_its_times_are_those_of_the_pause(
    tmp_path: Path,
) -> None:
    async with room(tmp_path) as it:
        await it.story()
        await it.voice()
        paused_at = it.phone.now() - 20
        assert it.clears == 1
        await it.listen(200)
        it.phone.stt.started()
        it.phone.stt.partial("Stop")
        await it.listen(100)
        it.phone.stt.final("Stop it.")
        it.phone.stt.ended()
        it.detector.stopped()
        await it.listen(3000)
        assert it.phone.agent.asked == ["Tell me a story.", "Stop it."]
        assert it.phone.heard[-1] == "Yes."
        entry = it.phone.record.transcript[2]
        assert not entry.complete
        assert it.phone.agent.settled == [("Tell me a story.", entry.text)]
        row = next(row for row in await it.phone.rows() if row.barge_in_at is not None)
        assert row.barge_in_at == pytest.approx(paused_at, abs=40)
        assert row.barge_in_stop_ms == pytest.approx(250, abs=20)


async def test_an_acknowledgement_lets_the_bot_go_on_at_once(tmp_path: Path) -> None:
    async with room(tmp_path) as it:
        await it.story()
        await it.voice()
        it.phone.stt.started()
        it.phone.stt.partial("mm-hm")
        await it.listen(100)
        it.detector.stopped()
        await it.listen(20)
        assert not await it.hears_more(200)
        it.phone.stt.final("Mm-hm.")
        it.phone.stt.ended()
        assert await it.hears_more(80)
        await it.listen(5000)
        assert it.phone.said[-1] == ("bot", STORY)
        assert dict(it.phone.tts.texts_in(bytes(it.phone.socket.heard)))[STORY] == pytest.approx(
            it.phone.tts.duration_s(STORY) * 1000, abs=1
        )


async def test_an_acknowledgement_by_a_voice_that_goes_on_is_not_its_end(tmp_path: Path) -> None:
    async with room(tmp_path) as it:
        await it.story()
        await it.voice()
        it.phone.hears("Mm-hm.")
        assert not await it.hears_more(400)
        it.detector.stopped()
        await it.listen(20)
        assert await it.hears_more(620)
        assert it.clears == 1


async def test_the_bot_goes_on_when_nobody_says_what_the_voice_was(tmp_path: Path) -> None:
    async with room(tmp_path) as it:
        await it.story()
        await it.voice()
        await it.listen(500)
        it.detector.stopped()
        await it.listen(20)
        assert not await it.hears_more(560)
        assert await it.hears_more(60)


async def test_a_voice_that_is_over_for_long_when_that_is_told_is_not_waited_for(
    tmp_path: Path,
) -> None:
    async with room(tmp_path) as it:
        await it.story()
        await it.voice()
        await it.listen(500)
        it.detector.stopped(400)
        await it.listen(20)
        assert not await it.hears_more(160)
        assert await it.hears_more(60)


async def test_a_second_voice_keeps_the_bot_paused(tmp_path: Path) -> None:
    async with room(tmp_path) as it:
        await it.story()
        await it.voice()
        it.detector.stopped()
        await it.listen(400)
        it.detector.started()
        await it.listen(1000)
        assert it.clears == 1
        it.detector.stopped()
        await it.listen(20)
        assert not await it.hears_more(560)
        assert await it.hears_more(60)


async def test_the_bot_goes_on_when_no_more_audio_comes(tmp_path: Path) -> None:
    async with room(tmp_path) as it:
        await it.story()
        await it.voice()
        heard = len(it.phone.socket.heard)
        await it.phone.settle(0.5)
        assert len(it.phone.socket.heard) == heard
        await it.phone.settle(0.2)
        assert len(it.phone.socket.heard) > heard


async def test_a_long_voice_interrupts_without_words_only_if_the_recogniser_agrees(
    tmp_path: Path,
) -> None:
    async with room(tmp_path) as it:
        await it.story()
        it.phone.stt.started()
        await it.voice()
        await it.listen(1000)
        assert it.phone.agent.settled == []
        await it.listen(400)
        assert [asked for asked, _ in it.phone.agent.settled] == ["Tell me a story."]


async def test_voices_without_words_do_not_make_the_bot_stutter(tmp_path: Path) -> None:
    async with room(tmp_path) as it:
        await it.story(LONG_STORY)
        for pauses in (1, 2, 3, 3, 3):
            await it.voice()
            assert it.clears == pauses
            it.detector.stopped()
            await it.listen(900)
        # Words interrupt as ever.
        it.phone.stt.started()
        it.phone.stt.partial("Stop")
        await it.listen(40)
        assert it.clears == 4
        it.phone.stt.final("Stop it.")
        it.phone.stt.ended()
        await it.listen(3000)
        assert it.phone.agent.asked == ["Tell me a story.", "Stop it."]
        # And in the next answer voices count again.
        await it.story()
        await it.voice()
        assert it.clears == 5


async def test_voices_without_words_that_are_far_between_pause_the_bot_each_time(
    tmp_path: Path,
) -> None:
    async with room(tmp_path) as it:
        await it.story(" ".join([LONG_STORY] * 2))
        for pauses in (1, 2, 3, 4):
            await it.voice()
            assert it.clears == pauses
            it.detector.stopped()
            await it.listen(5000)


async def test_a_television_does_not_silence_the_bot_for_long(tmp_path: Path) -> None:
    async with room(tmp_path) as it:
        await it.story()
        await it.voice()
        assert not await it.hears_more(3800)
        assert await it.hears_more(400)
        await it.listen(4000)
        assert it.clears == 1
        assert it.phone.said[-1] == ("bot", STORY)
        # What it drowns is over; the next voice counts again.
        it.detector.stopped()
        await it.story()
        await it.voice()
        assert it.clears == 2


async def test_long_voices_without_words_do_not_make_the_bot_stutter(tmp_path: Path) -> None:
    async with room(tmp_path) as it:
        await it.story(LONG_STORY)
        for pauses in (1, 2, 3, 3):
            await it.voice()
            assert it.clears == pauses
            await it.listen(4100)
            it.detector.stopped()
            await it.listen(100)
            assert await it.hears_more()


async def test_a_late_interruption_stops_the_bot_again(tmp_path: Path) -> None:
    async with room(tmp_path) as it:
        await it.story()
        await it.voice()
        it.phone.stt.started()
        it.detector.stopped()
        await it.listen(900)
        it.phone.stt.final("No.")
        it.phone.stt.ended()
        await it.listen(2000)
        assert it.clears == 2
        assert it.phone.agent.asked == ["Tell me a story.", "No."]
        assert it.phone.heard[-1] == "Yes."


async def test_a_pause_does_not_outlive_the_reply(tmp_path: Path) -> None:
    async with room(tmp_path) as it:
        await it.story()
        await it.voice()
        # The keys take the floor while the voice goes on.
        it.phone.socket.press("1")
        await it.listen(6000)
        assert it.phone.agent.turns[-1].digits == "1"
        assert it.phone.heard[-1] == "Yes."


async def test_a_protected_greeting_is_not_paused(tmp_path: Path) -> None:
    detector = Puppet()
    async with open_phone(tmp_path, turn=detector) as phone:
        await phone.call_in()
        it = Room(phone, detector)
        await it.listen(320)
        it.detector.started()
        await it.listen(2000)
        assert it.clears == 0
        assert len(phone.heard) == 1


async def test_words_that_were_interrupted_before_they_began_leave_no_pause_behind(
    tmp_path: Path,
) -> None:
    detector, voice = Puppet(), LateVoice()
    config = {"bargeIn": {"greetingProtectionMs": 0}}
    async with open_phone(tmp_path, turn=detector, speech=voice, config=config) as phone:
        await phone.call_in()
        it = Room(phone, detector)
        await it.listen(400)
        await it.voice()
        assert it.clears == 1
        phone.hears("Stop it.")
        detector.stopped()
        await it.listen(5000)
        assert phone.agent.asked == ["Stop it."]
        assert [text for text, _ in voice.texts_in(bytes(phone.socket.heard))] == ["Yes."]


async def test_with_barge_in_off_no_detector_is_made(tmp_path: Path) -> None:
    async with room(tmp_path, enabled=False) as it:
        await it.story()
        await it.voice()
        assert it.detector.made == 0
        assert it.clears == 0
