"""Keys pressed by callers: they interrupt conversations, not notifications, and are not lost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from voicecall import AudioFormat
from voicecall import events as ev
from voicecall.model import CallMode, EndDetail, MessageState
from voicecall.tts import SpeechSession
from voicecall_testing.clock import virtual_backend
from voicecall_testing.duplex import ScriptedRealtime
from voicecall_testing.fakes import ScriptedSpeech
from voicecall_testing.harness import open_phone

from .asking import asked
from .realtime_room import open_realtime

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

NOTICE = "Your parcel will be delivered on Monday between eight and ten."


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_backend


class SlowToOpen(ScriptedSpeech):
    """Takes two seconds before it can speak."""

    @asynccontextmanager
    async def session(
        self, voice: str | None, output_format: AudioFormat
    ) -> AsyncIterator[SpeechSession]:
        await anyio.sleep(2)
        async with super().session(voice, output_format) as session:
            yield session


@pytest.mark.parametrize("after_s", [0.5, 3.0])
async def test_a_notification_is_heard_whole_whatever_is_pressed(
    tmp_path: Path, after_s: float
) -> None:
    speech = SlowToOpen()
    async with open_phone(tmp_path, speech=speech) as phone:
        await phone.dial(NOTICE, CallMode.NOTIFY)
        await phone.answer()
        await phone.settle(after_s)
        await phone.event(ev.DigitsPressed, digits="1")
        await phone.settle(15)
        assert phone.said == [("bot", NOTICE)]
        assert phone.record.transcript[0].complete
        assert phone.record.message is not None
        assert phone.record.message.state is MessageState.DONE
        assert phone.record.end_detail is EndDetail.NOTIFIED


async def test_a_notification_of_a_model_is_not_broken_off_by_a_key(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await phone.dial(NOTICE, CallMode.NOTIFY)
        await phone.answer()
        await phone.settle(0.1)
        model.current.write("i1", 3000)
        await phone.settle(1)
        await phone.event(ev.DigitsPressed, digits="1")
        await phone.settle(0.1)
        assert model.current.interrupts == []
        assert phone.socket.clears == 0


@pytest.mark.parametrize("gap", [False, True])
async def test_keys_pressed_between_two_sessions_of_a_model_are_told_to_the_next(
    tmp_path: Path, gap: bool
) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await phone.dial()
        await phone.answer()
        await phone.settle(0.1)
        await phone.event(ev.DigitsPressed, digits="1")
        await phone.settle(0.85)
        if gap:
            model.current.end()
        await phone.settle(5)
        assert len(model.sessions) == 1 + gap
        [(kind, request)] = model.current.asked
        assert kind == "greet"
        assert "keys" in request
        assert "1" in request


async def test_keys_answer_a_question_that_a_model_was_made_to_ask(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await phone.dial()
        await phone.answer()
        await phone.settle(0.1)
        async with asked(phone, "Your number, please?") as answers:
            await phone.settle(2)
            for key in "42#":
                phone.socket.press(key)
        assert answers == ["42#"]
        # Whoever has asked goes on; the model need not answer as well.
        await phone.settle(3)
        assert model.current.asked == [("say", "Your number, please?")]
        phone.socket.press("7")
        await phone.settle(3)
        assert [kind for kind, _ in model.current.asked] == ["say", "greet"]
