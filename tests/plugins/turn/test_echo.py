"""A caller's speakerphone that sends the bot's words back as an echo.

The recogniser understands the echo as well as the caller. It reports speech 150 ms after its
beginning, the words so far every 400 ms, and the whole text 700 ms after the end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from voicecall.audio import MULAW_8K
from voicecall.model import EndDetail
from voicecall_testing.clock import virtual_backend
from voicecall_testing.harness import Phone, open_phone

from .test_voicegate import Puppet

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

FRAME_MS = 20
SILENCE = MULAW_8K.silence * MULAW_8K.size(FRAME_MS)
VOICED_MS, STARTED_MS, PARTIAL_MS, FINAL_MS = 180, 150, 400, 700
STORY = (
    "It was a dark and stormy night in the old town. "
    "Rain fell in torrents, and nobody was about at this late hour. "
    "Only a single lamp burned behind the window of the old inn."
)
ASKED = "Tell me a story."


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_backend


class Speakerphone:
    """What the caller's phone sends: the bot's words of ``delay_ms`` ago, and the caller's."""

    def __init__(self, phone: Phone, detector: Puppet | None, delay_ms: int) -> None:
        self.phone = phone
        self._detector = detector
        self._on_the_way = deque[str]([""] * (delay_ms // FRAME_MS))
        self._spoken: dict[str, float] = {}
        self._answers = 0
        self._caller: deque[str] = deque()
        self._words: list[str] = []
        self._sound_ms = self._quiet_ms = 0
        self._heard = len(phone.socket.heard)

    def say(self, text: str) -> None:
        """The caller speaks, four words a second."""
        for word in text.split():
            self._caller.extend([word] + [f"{word} "] * (250 // FRAME_MS))

    async def ask(self, text: str) -> None:
        """The caller waits until the line is quiet, then speaks."""
        await self.listen(FINAL_MS)
        while self._words:
            await self.listen(FRAME_MS)
        self.phone.hears(text)

    async def listen(self, milliseconds: int) -> None:
        for _ in range(milliseconds // FRAME_MS):
            if self.phone.socket.close_code is not None:
                return
            self._on_the_way.append(self._played())
            self._recognise(self._on_the_way.popleft())
            await self.phone.socket.speak(SILENCE)

    def _played(self) -> str:
        """The word that was played within the last frame."""
        audio = bytes(self.phone.socket.heard[self._heard :])
        self._heard += len(audio)
        if len(self.phone.agent.asked) > self._answers:
            # What was given up begins anew when it is said again.
            self._answers = len(self.phone.agent.asked)
            self._spoken.clear()
        word = ""
        for text, ms in self.phone.tts.texts_in(audio):
            spoken = self._spoken.get(text, 0.0)
            if spoken >= len(text) * self.phone.tts.ms_per_char - 1:
                # It is said once more.
                spoken = 0.0
            self._spoken[text] = spoken + ms
            at = int(spoken / self.phone.tts.ms_per_char)
            word = f"{text[:at].rpartition(' ')[2]}{text[at:].partition(' ')[0]}{' ' * (at % 2)}"
        return word

    def _recognise(self, echo: str) -> None:
        sound = self._caller.popleft() if self._caller else echo
        word = sound.strip().strip(".,")
        stt = self.phone.stt
        if not word:
            if not self._words:
                return
            if self._quiet_ms == 0 and self._detector is not None and self._sound_ms > VOICED_MS:
                self._detector.stopped()
            self._quiet_ms += FRAME_MS
            if self._quiet_ms == FINAL_MS:
                stt.final(" ".join(self._words))
                stt.ended()
                self._words.clear()
                self._sound_ms = self._quiet_ms = 0
            return
        if not self._words or self._words[-1] != word:
            self._words.append(word)
        if self._quiet_ms and self._detector is not None:
            self._detector.started()
        self._quiet_ms = 0
        self._sound_ms += FRAME_MS
        if self._sound_ms == VOICED_MS and self._detector is not None:
            self._detector.started()
        if self._sound_ms == STARTED_MS // FRAME_MS * FRAME_MS:
            stt.started()
        elif self._sound_ms % PARTIAL_MS == 0:
            stt.partial(" ".join(self._words))


@asynccontextmanager
async def echoing(
    directory: Path, delay_ms: int, *, gated: bool = True, **config: Any
) -> AsyncIterator[Speakerphone]:
    """A call whose greeting is over. The bot answers everything with the story."""
    detector = Puppet() if gated else None
    async with open_phone(directory, turn=detector, config=config) as phone:
        phone.agent.otherwise = STORY
        await phone.call_in()
        line = Speakerphone(phone, detector, delay_ms)
        await line.listen(4000)
        yield line


def callers(phone: Phone) -> list[str]:
    return [text for who, text in phone.said if who == "user"]


@pytest.mark.parametrize(
    ("delay_ms", "how"),
    [
        *((delay_ms, {}) for delay_ms in (120, 300, 500)),
        *((delay_ms, {"gated": False}) for delay_ms in (120, 300, 500)),
        *((delay_ms, {"bargeIn": {"enabled": False}}) for delay_ms in (120, 300, 500)),
    ],
)
async def test_the_bot_does_not_answer_its_echo(
    tmp_path: Path, delay_ms: int, how: dict[str, Any]
) -> None:
    async with echoing(tmp_path, delay_ms, **how) as line:
        for _ in range(3):
            await line.ask(ASKED)
            await line.listen(14_000)
        assert set(line.phone.agent.asked) <= {ASKED, ""}
        assert set(callers(line.phone)) == {ASKED}
        # If sounds alone interrupt, the first answers may be lost.
        assert line.phone.said[-3:] == [("bot", STORY), ("user", ASKED), ("bot", STORY)]


@pytest.mark.parametrize("gated", [True, False], ids=["gated", "alone"])
async def test_the_caller_interrupts_by_words_on_such_a_line(tmp_path: Path, gated: bool) -> None:
    async with echoing(tmp_path, 300, gated=gated) as line:
        for _ in range(3):
            await line.ask(ASKED)
            await line.listen(14_000)
        await line.ask(ASKED)
        await line.listen(3000)
        clears = line.phone.socket.clears
        line.say("stop it please I want to talk to somebody else")
        await line.listen(4000)
        assert line.phone.socket.clears == clears + 1
        assert callers(line.phone)[-1].endswith("I want to talk to somebody else")


async def test_nobody_beside_an_echo_is_silence(tmp_path: Path) -> None:
    silence = {"promptAfterMs": 5000, "prompts": 2}
    async with echoing(tmp_path, 300, silence=silence) as line:
        await line.listen(60_000)
        assert line.phone.record.end_detail is EndDetail.SILENCE
        assert callers(line.phone) == []


@pytest.mark.parametrize("gated", [True, False], ids=["gated", "alone"])
async def test_an_echo_of_the_question_is_no_answer_to_it(tmp_path: Path, gated: bool) -> None:
    async with (
        echoing(tmp_path, 300, gated=gated) as line,
        anyio.create_task_group() as tasks,
    ):
        answers = []
        question = "Which of the two rooms shall I book for you?"

        async def ask() -> None:
            answers.append(await line.phone.operations.ask(line.phone.record.call_id, question))

        tasks.start_soon(ask)
        await line.listen(5000 if gated else 10_000)
        assert answers == []
        # If sounds alone interrupt, its echo may have broken it off before.
        assert line.phone.said[-1] == ("bot", question)
        line.say("the one by the sea")
        await line.listen(3000)
        assert answers == ["the one by the sea"]


async def test_an_answer_right_behind_the_question_may_repeat_it(tmp_path: Path) -> None:
    async with echoing(tmp_path, 300) as line, anyio.create_task_group() as tasks:
        for _ in range(3):
            await line.ask(ASKED)
            await line.listen(14_000)
        answers = []
        question = "Which one, the red one or the blue one?"

        async def ask() -> None:
            answers.append(await line.phone.operations.ask(line.phone.record.call_id, question))

        tasks.start_soon(ask)
        await line.listen(round(len(question) * line.phone.tts.ms_per_char) + 500)
        line.say("the blue one")
        await line.listen(3000)
        assert answers == ["Which one the red one or the blue one? the blue one"]
