"""Transcription and synthesis are opened while the carrier's media socket is on its way."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from voicecall import events as ev
from voicecall.audio import MULAW_8K, PCM16_16K, AudioFormat
from voicecall.errors import CallNotReady, ProviderUnavailable
from voicecall.model import EndDetail
from voicecall.transcription import TranscriptionOptions
from voicecall.tts import SpeechSession
from voicecall.turn import TurnDetector, TurnDetectorProvider, TurnEvent
from voicecall_calls.config import PhrasesConfig
from voicecall_testing.clock import virtual_backend
from voicecall_testing.fakes import (
    STREAMING,
    ScriptedCarrier,
    ScriptedSpeech,
    ScriptedTranscription,
    ScriptedTranscriptionSession,
)
from voicecall_testing.harness import Phone, open_phone

from .asking import QUESTION, asked

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

SAY = PhrasesConfig()
RINGS_S = 2.0
"""How long the media socket takes in these stories."""


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_backend


class Log:
    """What was opened and closed, in order, with its format."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, AudioFormat]] = []

    def count(self, what: str) -> int:
        return sum(line[0] == what for line in self.lines)


class LoggedEars(ScriptedTranscription):
    def __init__(self, log: Log) -> None:
        super().__init__()
        self.log = log

    @asynccontextmanager
    async def session(
        self, options: TranscriptionOptions
    ) -> AsyncIterator[ScriptedTranscriptionSession]:
        async with super().session(options) as session:
            self.log.lines.append(("ears", options.audio_format))
            try:
                yield session
            finally:
                self.log.lines.append(("no ears", options.audio_format))


class LoggedVoice(ScriptedSpeech):
    def __init__(self, log: Log) -> None:
        super().__init__()
        self.log = log
        self.open_errors: list[ProviderUnavailable] = []

    @asynccontextmanager
    async def session(
        self, voice: str | None, audio_format: AudioFormat
    ) -> AsyncIterator[SpeechSession]:
        if self.open_errors:
            raise self.open_errors.pop()
        async with super().session(voice, audio_format) as session:
            self.log.lines.append(("voice", audio_format))
            try:
                yield session
            finally:
                self.log.lines.append(("no voice", audio_format))


class Detector(TurnDetector):
    """Detects no voice."""

    def __init__(self) -> None:
        self.audio = bytearray()

    def process(self, audio: bytes) -> tuple[TurnEvent, ...]:
        self.audio += audio
        return ()

    def reset(self) -> None:
        self.audio.clear()


class Detectors(TurnDetectorProvider):
    """``made`` of them, each with the format it was made for."""

    def __init__(self) -> None:
        self.made: list[tuple[AudioFormat, Detector]] = []

    def detector(self, audio_format: AudioFormat) -> TurnDetector:
        self.made.append((audio_format, Detector()))
        return self.made[-1][1]


class Story:
    """A call whose media socket the test opens."""

    def __init__(self, phone: Phone, log: Log, ears: LoggedEars, voice: LoggedVoice) -> None:
        self.phone = phone
        self.log = log
        self.ears = ears
        self.voice = voice

    async def ring(self) -> None:
        """The call is answered; the socket is not there yet."""
        self.phone.opens_streams = False
        await self.phone.call_in()
        await self.phone.settle(RINGS_S)

    async def attach(self) -> None:
        await self.phone.engine.issue_tokens(self.phone.record, ["here I am"])
        await self.phone.attach("here I am")

    @property
    def heard(self) -> list[str]:
        return [text for text, _ in self.voice.texts_in(bytes(self.phone.socket.heard))]

    def assert_greeted(self) -> None:
        """The whole greeting was heard, once, and nothing else."""
        assert self.heard == [SAY.greeting]
        assert self.heard_ms == round(self.voice.duration_s(SAY.greeting) * 1000)

    @property
    def heard_ms(self) -> float:
        """How long all that lasted."""
        return sum(ms for _, ms in self.voice.texts_in(bytes(self.phone.socket.heard)))


@asynccontextmanager
async def story(
    tmp_path: Path,
    *,
    expects: AudioFormat = MULAW_8K,
    turn: TurnDetectorProvider | None = None,
    config: Mapping[str, Any] | None = None,
) -> AsyncIterator[Story]:
    """The carrier's sockets bring mu-law, whatever is expected of them."""
    log = Log()
    ears, voice = LoggedEars(log), LoggedVoice(log)
    carrier = ScriptedCarrier(replace(STREAMING, codecs=(expects, MULAW_8K)))
    async with open_phone(
        tmp_path, carrier=carrier, transcription=ears, speech=voice, turn=turn, config=config
    ) as phone:
        yield Story(phone, log, ears, voice)


async def test_the_sessions_are_there_before_the_socket(tmp_path: Path) -> None:
    async with story(tmp_path) as call:
        await call.ring()
        assert sorted(call.log.lines) == [("ears", MULAW_8K), ("voice", MULAW_8K)]
        # Nothing is said into a line without a socket.
        assert call.phone.record.utterance is None


async def test_the_greeting_is_synthesised_while_the_socket_is_on_its_way(tmp_path: Path) -> None:
    async with story(tmp_path) as call:
        call.voice.delay_s = RINGS_S - 0.5
        await call.ring()
        await call.attach()
        attached = call.phone.now()
        await call.phone.settle(3)
        call.assert_greeted()
        assert call.phone.said == [("bot", SAY.greeting)]
        assert len(call.voice.voices) == 1
        (row,) = await call.phone.rows()
        assert row.first_audio_sent == pytest.approx(attached, abs=1)


async def test_a_greeting_that_is_still_synthesised_goes_on_behind_the_socket(
    tmp_path: Path,
) -> None:
    async with story(tmp_path) as call:
        call.voice.delay_s = RINGS_S + 0.5
        await call.ring()
        await call.attach()
        attached = call.phone.now()
        await call.phone.settle(4)
        assert call.heard == [SAY.greeting]
        assert len(call.voice.voices) == 1
        (row,) = await call.phone.rows()
        assert row.first_audio_sent == pytest.approx(attached + 500, abs=10)


async def test_a_greeting_that_nobody_heard_is_interrupted_like_any_other(tmp_path: Path) -> None:
    """Speech that was synthesised beforehand counts from when it is played."""
    async with story(tmp_path, config={"bargeIn": {"greetingProtectionMs": 0}}) as call:
        await call.ring()
        await call.attach()
        await call.phone.settle(0.5)
        call.ears.started()
        call.ears.partial("Wait a moment")
        await call.phone.settle(0.1)
        call.ears.final("Wait a moment.")
        await call.phone.settle(3)
        (_, first), caller, answer = call.phone.said
        assert first
        assert SAY.greeting.startswith(first)
        assert first != SAY.greeting
        assert (caller, answer) == (("user", "Wait a moment."), ("bot", "Yes."))


async def test_a_greeting_that_cannot_be_synthesised_beforehand_is_tried_again(
    tmp_path: Path,
) -> None:
    async with story(tmp_path) as call:
        call.voice.errors.append(ProviderUnavailable("down", provider="scripted"))
        await call.ring()
        await call.attach()
        await call.phone.settle(4)
        assert call.heard == [SAY.greeting]
        assert call.phone.said == [("bot", SAY.greeting)]


async def test_the_first_audio_leaves_as_the_socket_attaches(tmp_path: Path) -> None:
    async with story(tmp_path) as call:
        call.ears.open_delay_s = 1.5
        await call.ring()
        await call.attach()
        attached = call.phone.now()
        await call.phone.settle(3)
        call.assert_greeted()
        (row,) = await call.phone.rows()
        # The wait for the socket is no part of the turn.
        assert row.at == attached
        assert row.first_audio_sent == pytest.approx(attached, abs=1)
        assert [line[0] for line in call.log.lines] == ["voice", "ears"]


async def test_the_greeting_waits_for_ears_that_are_slower_than_the_socket(tmp_path: Path) -> None:
    async with story(tmp_path) as call:
        call.ears.open_delay_s = 3.5
        await call.ring()
        await call.attach()
        attached = call.phone.now()
        await call.phone.socket.speak(b"\x11" * 800)
        await call.phone.settle(5)
        assert bytes(call.ears.current.audio) == b"\x11" * 800
        (row,) = await call.phone.rows()
        assert row.first_audio_sent is not None
        assert row.first_audio_sent - attached == pytest.approx(1500, abs=30)


@pytest.mark.parametrize("failures", [1, 3])
async def test_the_greeting_waits_for_no_second_attempt_to_hear(
    tmp_path: Path, failures: int
) -> None:
    """What the caller says into it is heard by the session that opens at last."""
    async with story(tmp_path) as call:
        call.ears.open_delay_s = 0.5
        call.ears.open_errors.extend([ProviderUnavailable("down", provider="x")] * failures)
        await call.phone.call_in()
        answered = call.phone.now()
        await call.phone.settle(1)
        await call.phone.socket.speak(b"\x11" * 800)
        await call.phone.settle(7)
        assert call.heard == [SAY.greeting]
        (row,) = await call.phone.rows()
        assert row.first_audio_sent is not None
        assert row.first_audio_sent - answered == pytest.approx(500, abs=50)
        assert bytes(call.ears.current.audio).endswith(b"\x11" * 800)
        call.ears.started()
        call.ears.final("Hello?")
        await call.phone.settle(3)
        assert call.phone.record.live
        assert len(call.heard) == 2


async def test_nothing_is_said_before_the_greeting(tmp_path: Path) -> None:
    async with story(tmp_path) as call:
        phone = call.phone
        call.ears.open_delay_s = 3.5
        await call.ring()
        call_id = phone.record.call_id
        async with anyio.create_task_group() as speaking:
            speaking.start_soon(phone.operations.speak, call_id, "Before the socket.")
            await phone.settle(0.1)
            await call.attach()
            # It still waits for transcription.
            async with asked(phone) as answers:
                await phone.settle(7)
                assert call.heard == [SAY.greeting, "Before the socket.", QUESTION]
                call.ears.started()
                call.ears.final("Anna.")
        assert answers == ["Anna."]


@pytest.mark.parametrize("asks", [False, True])
async def test_a_call_that_ends_before_its_greeting_rejects_words_that_wait(
    tmp_path: Path, asks: bool
) -> None:
    async with story(tmp_path) as call:
        await call.ring()
        call_id, operations = call.phone.record.call_id, call.phone.operations
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call.phone.hang_up)
            with pytest.raises(CallNotReady, match="Call ended"):
                await (operations.ask if asks else operations.speak)(call_id, "Who is there?")


async def test_sessions_for_another_format_are_opened_anew(tmp_path: Path) -> None:
    async with story(tmp_path, expects=PCM16_16K) as call:
        await call.ring()
        assert sorted(call.log.lines) == [("ears", PCM16_16K), ("voice", PCM16_16K)]
        call.ears.open_delay_s = 0.5
        await call.attach()
        await call.phone.socket.speak(b"\x11" * 800)
        await call.phone.settle(4)
        closed = [("no ears", PCM16_16K), ("no voice", PCM16_16K)]
        opened = [("ears", MULAW_8K), ("voice", MULAW_8K)]
        assert sorted(call.log.lines[2:]) == sorted(closed + opened)
        assert bytes(call.ears.current.audio) == b"\x11" * 800
        call.assert_greeted()
        call.ears.started()
        call.ears.final("Hello?")
        call.ears.ended()
        await call.phone.settle(3)
        assert call.phone.said == [("bot", SAY.greeting), ("user", "Hello?"), ("bot", "Yes.")]


async def test_another_format_in_the_middle_of_a_call_takes_other_sessions(
    tmp_path: Path,
) -> None:
    async with story(tmp_path) as call:
        await call.ring()
        await call.attach()
        await call.phone.settle(3)
        call.phone.audio_format = PCM16_16K
        call.phone.socket.drop()
        await call.phone.settle(1)
        call.ears.open_delay_s = 0.5
        call.voice.open_errors.append(ProviderUnavailable("not yet", provider="scripted"))
        await call.attach()
        # What is to be said waits for a voice in that format.
        await call.phone.operations.speak(call.phone.record.call_id, "One moment.")
        assert call.log.lines[-2:] == [("voice", PCM16_16K), ("ears", PCM16_16K)]
        call.ears.started()
        call.ears.final("Hello?")
        call.ears.ended()
        await call.phone.settle(3)
        assert call.phone.said[1:] == [("bot", "One moment."), ("user", "Hello?"), ("bot", "Yes.")]
        said_s = call.voice.duration_s("One moment.") + call.voice.duration_s("Yes.")
        assert len(call.phone.socket.heard) == pytest.approx(
            PCM16_16K.size(said_s * 1000), rel=0.01
        )


async def test_what_another_format_cuts_off_is_apologised_for(tmp_path: Path) -> None:
    async with story(tmp_path) as call:
        await call.ring()
        await call.attach()
        await call.phone.settle(3)
        call.phone.agent.then("It was a dark and stormy night in the old town.")
        call.ears.started()
        call.ears.final("Tell me a story.")
        call.ears.ended()
        await call.phone.settle(1)
        call.phone.audio_format = PCM16_16K
        call.phone.socket.drop()
        await call.phone.settle(0.5)
        await call.attach()
        await call.phone.settle(4)
        said = [("user", "Tell me a story."), ("bot", SAY.not_understood)]
        assert call.phone.said[1:] == said
        assert call.phone.agent.settled == [("Tell me a story.", "")]


async def test_another_format_takes_another_detector_of_voices(tmp_path: Path) -> None:
    turn = Detectors()
    async with story(tmp_path, turn=turn) as call:
        await call.ring()
        await call.attach()
        await call.phone.socket.speak(b"\x11" * 160)
        call.phone.audio_format = PCM16_16K
        call.phone.socket.drop()
        await call.phone.settle(1)
        await call.attach()
        await call.phone.socket.speak(b"\x22" * 640)
    heard = [(audio_format, bytes(detector.audio)) for audio_format, detector in turn.made]
    assert heard == [(MULAW_8K, b"\x11" * 160), (PCM16_16K, b"\x22" * 640)]


async def test_a_session_that_is_being_opened_in_another_format_is_not_used(tmp_path: Path) -> None:
    async with story(tmp_path, expects=PCM16_16K) as call:
        call.ears.open_delay_s = RINGS_S + 1.0
        await call.ring()
        await call.attach()
        await call.phone.settle(RINGS_S + 4.0)
        assert [line for line in call.log.lines if line[0] == "ears"] == [("ears", MULAW_8K)]
        assert call.heard[0] == SAY.greeting


async def test_a_socket_in_the_same_format_keeps_the_sessions(tmp_path: Path) -> None:
    async with story(tmp_path) as call:
        await call.ring()
        await call.attach()
        await call.phone.settle(3)
        call.phone.opens_streams = True
        call.phone.socket.drop()
        await call.phone.settle(2)
        assert len(call.phone.sockets) == 2
        assert sorted(line[0] for line in call.log.lines) == ["ears", "voice"]


async def test_a_stream_that_never_comes_ends_the_call_and_its_sessions(tmp_path: Path) -> None:
    async with story(tmp_path) as call:
        await call.ring()
        await call.phone.settle(60)
        assert call.phone.record.end_detail is EndDetail.STREAM_NEVER_STARTED
        assert not call.phone.engine.lanes
        assert call.log.count("no ears") == call.log.count("ears") == 1
        assert call.log.count("no voice") == call.log.count("voice") == 1
        assert call.phone.said == [("bot", PhrasesConfig().failed)]


async def test_a_call_that_ends_before_its_socket_closes_its_sessions(tmp_path: Path) -> None:
    async with story(tmp_path) as call:
        await call.ring()
        await call.phone.hang_up()
        await call.phone.settle(1)
        assert call.log.count("no ears") == call.log.count("no voice") == 1


async def test_a_voice_that_is_late_is_ready_for_the_socket(tmp_path: Path) -> None:
    async with story(tmp_path) as call:
        call.voice.open_errors.append(ProviderUnavailable("not yet", provider="scripted"))
        await call.ring()
        await call.attach()
        await call.phone.settle(3)
        assert call.heard == [SAY.greeting]
        (row,) = await call.phone.rows()
        assert row.first_audio_sent == pytest.approx(row.at, abs=1)


async def test_a_voice_is_looked_for_every_few_seconds(tmp_path: Path) -> None:
    async with story(tmp_path) as call:
        call.voice.open_errors.extend([ProviderUnavailable("down", provider="scripted")] * 9)
        call.phone.opens_streams = False
        await call.phone.dial()
        await call.phone.answer()
        await call.attach()
        await call.phone.settle(40)
        await call.phone.operations.speak(call.phone.record.call_id, "Here I am.")
        assert call.heard == ["Here I am."]


async def test_ears_that_fail_before_the_socket_are_told_of_behind_it(tmp_path: Path) -> None:
    async with story(tmp_path) as call:
        call.ears.open_errors.extend([ProviderUnavailable("gone", provider="scripted")] * 4)
        await call.ring()
        await call.phone.settle(5)
        assert call.phone.record.live
        assert call.phone.record.utterance is None
        await call.attach()
        await call.phone.settle(15)
        assert call.heard[-1] == SAY.cannot_hear
        assert call.phone.record.end_detail is EndDetail.LISTENING_FAILED


async def test_silence_counts_from_the_socket_on(tmp_path: Path) -> None:
    config = {"silence": {"promptAfterMs": 4000, "prompts": 3}}
    async with story(tmp_path, config=config) as call:
        call.phone.opens_streams = False
        await call.phone.call_in()
        await call.phone.settle(5)
        assert not any(isinstance(event, ev.BotSpeaking) for event in call.phone.watcher.events)
        await call.attach()
        await call.phone.settle(10)
        assert call.phone.said == [("bot", SAY.greeting), ("bot", SAY.still_there)]
        greeted, *_ = (e for e in call.phone.watcher.events if isinstance(e, ev.BotSpoke))
        _, asked, *_ = (e for e in call.phone.watcher.events if isinstance(e, ev.BotSpeaking))
        assert asked.at - greeted.at >= 4000
