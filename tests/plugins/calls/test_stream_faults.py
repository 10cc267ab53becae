"""A voice detector that fails: the recogniser alone then reports that the caller speaks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from voicecall.audio import AudioFormat
from voicecall.turn import TurnDetector, TurnDetectorProvider, TurnEvent, VoiceStarted
from voicecall_calls.config import PhrasesConfig
from voicecall_testing.clock import virtual_backend
from voicecall_testing.harness import Phone, open_phone

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

SAY = PhrasesConfig()
FRAME = b"\x20" * 160


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_backend


class Detector(TurnDetector):
    """Hears a voice in its first frame, and raises ``fault`` at the frame ``breaks_at``."""

    def __init__(self, breaks_at: int, fault: BaseException) -> None:
        self.breaks_at = breaks_at
        self.fault = fault
        self.frames = 0

    def process(self, audio: bytes) -> tuple[TurnEvent, ...]:
        self.frames += 1
        if self.frames == self.breaks_at:
            raise self.fault
        return (VoiceStarted(0),) if self.frames == 1 else ()

    def reset(self) -> None:
        self.frames = 0


class Detectors(TurnDetectorProvider):
    def __init__(self, breaks_at: int, fault: BaseException) -> None:
        self.made: list[Detector] = []
        self.breaks_at = breaks_at
        self.fault = fault

    def detector(self, audio_format: AudioFormat) -> TurnDetector:
        if not self.breaks_at:
            raise self.fault
        self.made.append(Detector(self.breaks_at, self.fault))
        return self.made[-1]


async def speaks(phone: Phone, seconds: float) -> None:
    for _ in range(round(seconds * 50)):
        await phone.socket.speak(FRAME)


async def interrupts(phone: Phone) -> None:
    """Speech that lasts interrupts the bot, without a word."""
    phone.agent.then("A long answer, in many words, that nobody wants to hear to its end.")
    phone.hears("Hello?")
    await phone.settle(0.5)
    began = phone.now()
    phone.stt.started()
    await speaks(phone, 1.5)
    phone.stt.final("Wait.")
    phone.stt.ended()
    await phone.settle(3)
    assert ("user", "Wait.") in phone.said
    (row,) = [row for row in await phone.rows() if row.barge_in_at is not None]
    assert row.barge_in_at == pytest.approx(began + 250, abs=20)
    assert row.barge_in_stop_ms == pytest.approx(250, abs=20)
    heard = [text for speaker, text in phone.said if speaker == "bot"][1]
    assert "to its end" not in heard


FAULTS = [KeyError("a mistake"), SystemExit(3)]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("breaks_at", [1, 40])
async def test_one_that_breaks_is_done_without_for_the_rest_of_the_call(
    tmp_path: Path, breaks_at: int, fault: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    detectors = Detectors(breaks_at, fault)
    async with open_phone(tmp_path, turn=detectors) as phone:
        await phone.call_in()
        await phone.settle(0.2)
        # It may have paused the bot when it breaks, which then goes on at once.
        await speaks(phone, 1.0)
        await phone.settle(5)
        assert phone.said == [("bot", SAY.greeting)]
        assert len(phone.stt.current.audio) == 50 * len(FRAME)
        await interrupts(phone)
        assert [detector.frames for detector in detectors.made] == [breaks_at]
        assert len(phone.sockets) == 1
    assert caplog.text.count("the voice detector failed") == 1


@pytest.mark.parametrize("fault", FAULTS)
async def test_one_that_cannot_be_made_is_done_without(
    tmp_path: Path, fault: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_phone(tmp_path, turn=Detectors(0, fault)) as phone:
        await phone.call_in()
        await phone.settle(3)
        assert phone.said == [("bot", SAY.greeting)]
        await interrupts(phone)
    assert caplog.text.count("no voice detector; only recognised speech interrupts the bot") == 1
