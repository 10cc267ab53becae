"""Speech, goodbyes and requests that arrive while a commit is slow."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import anyio
import pytest

from voicecall import events as ev
from voicecall import telephony as tel
from voicecall.agent import EndCall
from voicecall.errors import CallNotReady
from voicecall.model import EndDetail, EndReason, MediaPath
from voicecall_testing.clock import virtual_backend
from voicecall_testing.harness import Phone, open_phone

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

QUESTION = "What time is it?"
ANSWER = "It is ten past nine."


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_backend


async def answered(phone: Phone) -> None:
    """An answer is heard to its end, and the store is slow to take that."""
    await phone.call_in()
    await phone.settle(5)
    phone.hears(QUESTION)
    await phone.settle(0.5)
    phone.store.delay_s = 1.0
    await phone.settle(0.7)
    assert phone.heard[-1] == ANSWER
    assert phone.record.utterance is not None


async def test_words_behind_the_end_of_an_answer_cut_nothing_off(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        phone.agent.then(ANSWER)
        await answered(phone)
        phone.hears("Thank you.")
        await phone.settle(6)
        phone.store.delay_s = 0
        await phone.settle(2)
        assert phone.agent.settled == []
        assert phone.said[1:] == [
            ("user", QUESTION),
            ("bot", ANSWER),
            ("user", "Thank you."),
            ("bot", "Yes."),
        ]
        assert all(entry.complete for entry in phone.record.transcript)


async def test_words_behind_a_goodbye_do_not_keep_the_call(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        phone.agent.then(ANSWER, EndCall())
        await answered(phone)
        phone.hears("Thank you.")
        await phone.settle(6)
        assert phone.said[1:] == [("user", QUESTION), ("bot", ANSWER), ("user", "Thank you.")]
        assert phone.record.end_detail is EndDetail.AGENT


async def until_over(phone: Phone, *jobs: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Begin the jobs one after another and then ask for the call's end, all with a slow store."""
    call_id = phone.record.call_id
    phone.store.delay_s = 0.5
    async with anyio.create_task_group() as tasks:
        for job in jobs:
            tasks.start_soon(job)
            await phone.settle(0.1)
        tasks.start_soon(phone.operations.end, call_id)
    assert phone.record.end_reason is EndReason.HANGUP_BOT


async def test_the_carrier_is_asked_for_no_words_behind_the_end(tmp_path: Path) -> None:
    async with open_phone(tmp_path, media=MediaPath.NATIVE) as phone:
        await phone.call_in()
        await phone.settle(5)
        call_id, spoken = phone.record.call_id, len(phone.carrier.performed_of(tel.Speak))

        async def speak() -> None:
            with pytest.raises(CallNotReady):
                await phone.operations.speak(call_id, "A word in between.")

        await until_over(phone, speak)
        assert len(phone.carrier.performed_of(tel.Speak)) == spoken
        assert phone.said == [("bot", phone.config.phrases.greeting)]


async def test_no_agent_is_asked_for_words_that_waited_for_others(tmp_path: Path) -> None:
    async with open_phone(tmp_path, media=MediaPath.NATIVE) as phone:
        await phone.call_in()
        await phone.settle(5)
        call_id, token = phone.record.call_id, phone.record.listen_token

        async def speak() -> None:
            with pytest.raises(CallNotReady):
                await phone.operations.speak(call_id, "A word in between.")

        async def ask() -> None:
            await phone.event(ev.SpeechHeard, text=QUESTION, turn_token=token)

        await until_over(phone, speak, ask)
        assert phone.said[-1] == ("user", QUESTION)
        assert phone.agent.turns == []
