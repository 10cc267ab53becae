"""Calls whose store fails for a while, on virtual time: they wait for it and go on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from voicecall import events as ev
from voicecall.agent import EndCall
from voicecall.model import CallState, EndDetail, MediaPath
from voicecall_testing.clock import virtual_backend
from voicecall_testing.duplex import ScriptedRealtime
from voicecall_testing.harness import Phone, open_phone

from .realtime_room import open_realtime

pytestmark = [pytest.mark.integration, pytest.mark.anyio]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_backend


@asynccontextmanager
async def in_conversation(phone: Phone) -> AsyncIterator[None]:
    """The greeting of an inbound call was heard; the call survives the body."""
    await phone.call_in()
    await phone.settle(5)
    lane = phone.lane
    yield
    assert phone.lane is lane
    assert lane.record.ending is None


async def outage(phone: Phone, seconds: float) -> None:
    phone.store.failures = 1_000_000
    await phone.settle(seconds)
    phone.store.failures = 0


@pytest.mark.parametrize("seconds", [0.1, 5, 50])
async def test_a_caller_is_answered_when_the_store_works_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, seconds: float
) -> None:
    async with open_phone(tmp_path) as phone, in_conversation(phone):
        greeting = phone.said
        phone.store.failures = 1_000_000
        phone.hears("What are your hours?")
        await phone.settle(0.05)
        phone.hears("On Sunday.")
        await outage(phone, seconds)
        # Nothing was said that is not stored, and nobody was asked whether they are there.
        assert phone.said == greeting
        await phone.settle(10)
        assert phone.said[1:3] == [("user", "What are your hours?"), ("user", "On Sunday.")]
        assert phone.said[3:] == [("bot", "Yes.")]
        assert phone.heard[-1] == "Yes."
        assert "CallerSaid not stored" in caplog.text


async def test_an_answer_that_was_being_spoken_is_recorded_when_the_store_works_again(
    tmp_path: Path,
) -> None:
    async with open_phone(tmp_path) as phone, in_conversation(phone):
        phone.agent.then("We are open from eight until six on every day of the week.")
        phone.hears("What are your hours?")
        while phone.lane.record.utterance is None:
            await phone.settle(0.1)
        await outage(phone, 20)
        await phone.settle(5)
        assert phone.said[-1] == (
            "bot",
            "We are open from eight until six on every day of the week.",
        )
        phone.hears("Thank you.")
        await phone.settle(5)
        assert phone.said[-2:] == [("user", "Thank you."), ("bot", "Yes.")]


async def test_an_interruption_while_the_store_fails_is_recorded_later(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone, in_conversation(phone):
        text = "We are open from eight until six on every day of the week but Sunday."
        phone.agent.then(text)
        phone.hears("What are your hours?")
        while phone.lane.record.utterance is None:
            await phone.settle(0.1)
        await phone.settle(1)
        phone.store.failures = 1_000_000
        phone.hears("Wait, I have another question.")
        await phone.settle(10)
        phone.store.failures = 0
        await phone.settle(10)
        speakers = [speaker for speaker, _ in phone.said]
        assert speakers == ["bot", "user", "bot", "user", "bot"]
        cut = phone.said[2][1]
        assert cut
        assert text.startswith(cut)
        assert len(cut) < len(text)


async def test_the_agent_ends_the_call_when_the_store_works_again(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await phone.call_in()
        await phone.settle(5)
        phone.agent.then("Goodbye.", EndCall())
        phone.hears("Goodbye.")
        while phone.lane.record.utterance is None:
            await phone.settle(0.1)
        await outage(phone, 20)
        await phone.settle(10)
        assert phone.record.state is CallState.HANGUP_BOT
        assert phone.record.end_detail is EndDetail.AGENT


async def test_a_turn_of_a_carrier_that_speaks_goes_on_when_the_store_works_again(
    tmp_path: Path,
) -> None:
    async with open_phone(tmp_path, media=MediaPath.NATIVE) as phone, in_conversation(phone):
        # The agent thinks while the store begins to fail.
        phone.agent.then(2.0, "Yes.")
        await phone.event(ev.SpeechHeard, text="What are your hours?")
        await outage(phone, 20)
        await phone.settle(5)
        # A filler may come before the answer.
        assert phone.said[1] == ("user", "What are your hours?")
        assert phone.said[-1] == ("bot", "Yes.")


async def test_a_voice_model_is_recorded_when_the_store_works_again(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone, in_conversation(phone):
        before = phone.said
        phone.store.failures = 1_000_000
        model.current.hears("What are your hours?")
        model.current.speak("From eight until six.", 1500)
        await outage(phone, 20)
        await phone.settle(5)
        assert phone.said == [
            *before,
            ("user", "What are your hours?"),
            ("bot", "From eight until six."),
        ]


@pytest.mark.parametrize("media", [MediaPath.STREAM, MediaPath.NATIVE])
async def test_a_gateway_that_stops_does_not_wait_for_its_store(
    tmp_path: Path, media: MediaPath
) -> None:
    with anyio.fail_after(20):
        async with open_phone(tmp_path, media=media) as phone:
            await phone.call_in()
            await phone.settle(5)
            phone.agent.then(1.0, "Yes.")
            if media is MediaPath.NATIVE:
                await phone.event(ev.SpeechHeard, text="What are your hours?")
            else:
                phone.hears("What are your hours?")
            await phone.settle(0.5)
            phone.store.failures = 1_000_000
            await phone.settle(5)
        assert phone.watcher.ends == []
