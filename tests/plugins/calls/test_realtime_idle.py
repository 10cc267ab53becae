"""A call on which neither the caller nor the voice model says anything any more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from voicecall.model import CallMode, EndDetail, EndReason
from voicecall.realtime import ResponseStarted, SpeechStarted, SpeechStopped, ToolCall
from voicecall_calls.config import PhrasesConfig
from voicecall_testing.clock import virtual_backend
from voicecall_testing.duplex import ScriptedRealtime
from voicecall_testing.harness import Phone

from .asking import asked
from .realtime_room import open_realtime

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

GOODBYE = PhrasesConfig().goodbye
IDLE: dict[str, Any] = {"inactivityMs": 0, "idleHangupMs": 20_000}


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_backend


async def answered(phone: Phone) -> None:
    await phone.dial()
    await phone.answer()
    await phone.settle(0.1)


def ended(phone: Phone) -> tuple[EndReason | None, EndDetail | None]:
    return phone.record.end_reason, phone.record.end_detail


async def test_the_call_ends_behind_a_goodbye(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model, realtime=IDLE) as phone:
        await answered(phone)
        model.current.hears("Bye.")
        model.current.speak("Goodbye then.", 2000)
        # The model forgets to hang up.
        await phone.settle(21)
        assert phone.record.live
        await phone.settle(4)
        assert phone.said[-2:] == [("bot", "Goodbye then."), ("bot", GOODBYE)]
        assert ended(phone) == (EndReason.HANGUP_BOT, EndDetail.SILENCE)


async def test_without_the_key_nobody_is_hung_up_on(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model, realtime={"inactivityMs": 0}) as phone:
        await answered(phone)
        await phone.settle(120)
        assert phone.record.live


async def test_a_caller_who_speaks_for_long_is_not_idle(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model, realtime=IDLE) as phone:
        await answered(phone)
        await phone.settle(15)
        model.current.tell(SpeechStarted(0))
        await phone.settle(40)
        model.current.tell(SpeechStopped(0))
        await phone.settle(18)
        assert phone.record.live
        await phone.settle(5)
        assert ended(phone) == (EndReason.HANGUP_BOT, EndDetail.SILENCE)


async def test_speech_that_never_ends_counts_for_a_minute(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model, realtime=IDLE) as phone:
        await answered(phone)
        model.current.tell(SpeechStarted(0))
        await phone.settle(78)
        assert phone.record.live
        await phone.settle(6)
        assert phone.record.terminal


async def test_a_long_answer_is_heard_to_its_end(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model, realtime=IDLE) as phone:
        await answered(phone)
        model.current.speak("It was a dark and stormy night.", 90_000)
        await phone.settle(109)
        assert phone.record.live
        await phone.settle(5)
        assert phone.record.terminal


async def test_an_agent_at_work_is_waited_for(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    config: dict[str, Any] = {"realtime": IDLE, "responseTimeoutMs": 60_000}
    async with open_realtime(tmp_path, model, **config) as phone:
        await answered(phone)
        phone.agent.then(50, "It is noon.")
        model.current.tell(
            ToolCall("1", "voicecall_agent_consult", {"question": "What time is it?"})
        )
        await phone.settle(68)
        assert phone.record.live
        await phone.settle(25)
        assert phone.record.terminal


async def test_an_answer_that_is_being_made_is_waited_for(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model, realtime=IDLE) as phone:
        await answered(phone)
        model.current.tell(ResponseStarted("slow"))
        await phone.settle(60)
        assert phone.record.live


async def test_an_open_question_is_waited_for(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model, realtime=IDLE) as phone:
        await answered(phone)
        async with asked(phone) as answers:
            await phone.settle(60)
            assert phone.record.live
            model.current.hears("Anna.")
            await phone.settle(0.1)
        assert answers == ["Anna."]


async def test_a_notification_has_its_own_end(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    config: dict[str, Any] = {
        "realtime": {**IDLE, "idleHangupMs": 1000},
        "outbound": {"notifyHangupDelaySec": 5},
    }
    async with open_realtime(tmp_path, model, **config) as phone:
        await phone.dial("Your table is free.", mode=CallMode.NOTIFY)
        await phone.answer()
        await phone.settle(10)
        assert [speaker for speaker, _ in phone.said] == ["bot"]
        assert ended(phone) == (EndReason.HANGUP_BOT, EndDetail.NOTIFIED)
