"""What comes while a commit takes its time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from voicecall.agent import EndCall
from voicecall.model import EndDetail
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
