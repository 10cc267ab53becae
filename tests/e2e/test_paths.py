"""Notifications, outbound and inbound calls, by each of the three paths and over each carrier."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest

from voicecall.agent import AgentEvent, AgentTurn, PressKeys
from voicecall.model import CallRecord, EndDetail, EndReason
from voicecall.tones import tones_ms
from voicecall_mock.exchange import HangUp, Press, Say, Silent, Wait, WaitForSilence

from .lab.carriers import CARRIERS
from .lab.puppets import Puppet
from .lab.town import CALLER, GREETING, Town, open_town, said, sound, until

pytestmark = [pytest.mark.e2e, pytest.mark.anyio, pytest.mark.usefixtures("backstage")]

PHONE = "+15550100009"
MESSAGE = "Your table by the window is ready."
CLASSIC: Mapping[str, Any] = {"streaming": {"enabled": False}}
REALTIME: Mapping[str, Any] = {
    "streaming": {"enabled": False},
    "realtime": {"enabled": True, "provider": "echo"},
}
WAIT = WaitForSilence(300)
TONE = bytes((n * 31 + n // 160) % 251 for n in range(4000))
# In real time a stall of the machine may tear one repetition: repeated until one is whole.
TONES = (Say("tone", audio=TONE), Wait(500)) * 8


def heard(town: Town, carrier_id: str) -> list[str]:
    """What the carrier's own voice said to a phone."""
    return [entry["text"] for entry in town.carrier.ledger.entries("heard", call=carrier_id)]


async def over(town: Town, started: Mapping[str, Any]) -> tuple[str, CallRecord]:
    """Wait for the end of an outbound call: the carrier's id and the final record."""
    record = await town.over(started["callId"])
    assert record.provider_call_id is not None
    return record.provider_call_id, record


# --- the carrier's own voice and recogniser --------------------------------------------------


async def test_a_notification_is_heard_once_and_then_the_call_ends(
    tmp_path: Path, carrier: str
) -> None:
    async with open_town(tmp_path, Puppet({}), config=CLASSIC, carrier=carrier) as town:
        town.carrier.set_phone(PHONE, (Silent(),))
        started = await town.rpc("start", to=PHONE, message=MESSAGE, mode="notify")
        carrier_id, record = await over(town, started)
        assert heard(town, carrier_id) == [MESSAGE]
        assert said(record) == [("bot", MESSAGE, True)]
        assert (record.end_reason, record.end_detail) == (EndReason.HANGUP_BOT, EndDetail.NOTIFIED)
        await town.nothing_left()


async def test_a_turn_based_conversation_with_a_phone_that_is_called(
    tmp_path: Path, carrier: str
) -> None:
    agent = Puppet({"What can you do?": "I can count.", "Count.": "One, two, three."})
    async with open_town(tmp_path, agent, config=CLASSIC, carrier=carrier) as town:
        script = (WAIT, Say("What can you do?"), WAIT, Say("Count."), Silent())
        town.carrier.set_phone(PHONE, script)
        started = await town.rpc("start", to=PHONE, message="Hello.", mode="conversation")
        lane = town.engine.lanes[started["callId"]]
        await until(lambda: said(lane.record)[-1:] == [("bot", "One, two, three.", True)])
        assert lane.record.provider_call_id is not None
        carrier_id = lane.record.provider_call_id
        record = await town.hung_up(carrier_id)
        assert heard(town, carrier_id) == ["Hello.", "I can count.", "One, two, three."]
        assert said(record) == [
            ("bot", "Hello.", True),
            ("user", "What can you do?", True),
            ("bot", "I can count.", True),
            ("user", "Count.", True),
            ("bot", "One, two, three.", True),
        ]
        assert record.end_reason is CARRIERS[carrier].left
        await town.nothing_left()


async def test_a_turn_based_conversation_with_a_caller(tmp_path: Path, carrier: str) -> None:
    agent = Puppet({"12#": "Room twelve.", "Goodbye.": "See you."}, end=["Goodbye."])
    async with open_town(tmp_path, agent, config=CLASSIC, carrier=carrier) as town:
        carrier_id, record = await town.call(
            WAIT, Say("Hello there."), WAIT, Press("12#"), WAIT, Say("Goodbye."), Silent()
        )
        assert heard(town, carrier_id) == [
            GREETING,
            "You said: Hello there.",
            "Room twelve.",
            "See you.",
        ]
        assert agent.asked == ["Hello there.", "12#", "Goodbye."]
        assert (record.end_reason, record.end_detail) == (EndReason.HANGUP_BOT, EndDetail.AGENT)
        await town.nothing_left()


async def test_a_silent_caller_is_asked_again_on_a_line_that_stays_open(
    tmp_path: Path, carrier: str
) -> None:
    config = {**CLASSIC, "silence": {"promptAfterMs": 800, "prompts": 2}}
    async with open_town(tmp_path, Puppet({}), config=config, carrier=carrier) as town:
        carrier_id, record = await town.call(Silent())
        asked = "Are you still there?"
        goodbye = "I will hang up now. Goodbye."
        assert heard(town, carrier_id) == [GREETING, asked, asked, goodbye]
        assert (record.end_reason, record.end_detail) == (EndReason.HANGUP_BOT, EndDetail.SILENCE)


async def test_who_is_not_let_in_is_told_so_and_who_finds_no_place_hears_that_it_is_busy(
    tmp_path: Path, carrier: str
) -> None:
    config = {
        **CLASSIC,
        "inboundPolicy": "allowlist",
        "allowFrom": [CALLER],
        "maxConcurrentInboundCalls": 1,
        "phrases": {"refused": "This line is private."},
    }
    async with open_town(tmp_path, Puppet({}), config=config, carrier=carrier) as town:
        stranger, refused = await town.call(Silent(), number=PHONE)
        assert refused.end_detail is EndDetail.POLICY
        assert heard(town, stranger) == ["This line is private."]
        first = town.call_in(Silent())
        await town.live(first)
        second, late = await town.call(Silent())
        assert late.end_detail is EndDetail.CAPACITY
        assert heard(town, second) == []
        (ended,) = town.carrier.ledger.entries("ended", call=second)
        assert ended["reason"] == EndReason.BUSY
        await town.hung_up(first)
        assert (await town.rpc("status"))["refused"]["calls"] == {"capacity": 1, "policy": 1}
        await town.nothing_left()


async def test_requests_from_outside_on_a_turn_based_call(tmp_path: Path, carrier: str) -> None:
    async with open_town(tmp_path, Puppet({}), config=CLASSIC, carrier=carrier) as town:
        town.carrier.set_phone(PHONE, (WAIT, Say("At nine."), Silent()))
        started = await town.rpc("start", to=PHONE, mode="conversation")
        call_id = started["callId"]
        await until(lambda: town.engine.lanes[call_id].record.answered_at is not None)
        answer = await town.rpc("continue", callId=call_id, message="When?")
        assert answer == {"success": True, "transcript": "At nine."}
        await town.rpc("dtmf", callId=call_id, digits="42#")
        # The next words do not cut the tones short.
        await town.rpc("speak", callId=call_id, message="One moment.")
        await town.rpc("end", callId=call_id)
        carrier_id, record = await over(town, started)
        assert heard(town, carrier_id) == ["When?", "One moment."]
        assert town.carrier.calls[carrier_id].line.digits_heard == "42#"
        assert (record.end_reason, record.end_detail) == (EndReason.HANGUP_BOT, EndDetail.REQUESTED)


async def test_keys_are_pressed_before_the_conversation(tmp_path: Path, carrier: str) -> None:
    async with open_town(tmp_path, Puppet({}), config=CLASSIC, carrier=carrier) as town:
        town.carrier.set_phone(PHONE, (WAIT, Say("Front desk."), WAIT, HangUp()))
        started = await town.rpc(
            "start", to=PHONE, message="Hello.", mode="conversation", dtmfSequence="w12#"
        )
        carrier_id, _ = await over(town, started)
        keys = town.carrier.ledger.entries("digits-heard", call=carrier_id)
        first = town.carrier.ledger.entries("heard", call=carrier_id)[0]
        assert "".join(entry["digits"] for entry in keys).strip("wW") == "12#"
        assert keys[0]["at"] <= first["at"]
        assert heard(town, carrier_id) == ["Hello.", "You said: Front desk."]


@pytest.mark.parametrize("path", [CLASSIC, {}], ids=["classic", "streaming"])
async def test_an_agent_presses_what_a_menu_asks_for(
    tmp_path: Path, carrier: str, path: Mapping[str, Any]
) -> None:
    async def presses(turn: AgentTurn) -> AsyncIterator[AgentEvent]:
        yield PressKeys("2w#")

    agent = Puppet({"Press two.": presses}, end=("Front desk.",))
    async with open_town(tmp_path, agent, config=path, carrier=carrier) as town:
        menu = (WAIT, Say("Press two."), Wait(3000), Say("Front desk."), Silent())
        town.carrier.set_phone(PHONE, menu)
        started = await town.rpc("start", to=PHONE, message="Hello.", mode="conversation")
        carrier_id, record = await over(town, started)
        assert [text for _, text, _ in said(record)] == [
            "Hello.",
            "Press two.",
            "Front desk.",
            "You said: Front desk.",
        ]
        assert town.carrier.calls[carrier_id].line.digits_heard.replace("w", "") == "2#"
        assert record.end_detail is EndDetail.AGENT
        await town.nothing_left()


# --- media sockets ---------------------------------------------------------------------------


async def test_a_streamed_conversation_with_a_phone_that_is_called(
    tmp_path: Path, carrier: str
) -> None:
    agent = Puppet({"One.": "1.", "Two.": "2."})
    async with open_town(tmp_path, agent, carrier=carrier) as town:
        town.carrier.set_phone(PHONE, (WAIT, Say("One."), WAIT, Say("Two."), WAIT, HangUp()))
        started = await town.rpc("start", to=PHONE, message="Hello.", mode="conversation")
        carrier_id, record = await over(town, started)
        assert town.heard(carrier_id) == ["Hello.", "1.", "2."]
        assert record.end_reason is CARRIERS[carrier].left
        await town.nothing_left()


async def test_keypad_tones_leave_a_streamed_conversation_alone(
    tmp_path: Path, carrier: str
) -> None:
    agent = Puppet({"One.": "1."})
    async with open_town(tmp_path, agent, carrier=carrier) as town:
        town.carrier.set_phone(PHONE, (WAIT, Say("One."), Silent()))
        started = await town.rpc("start", to=PHONE, message="Hello.", mode="conversation")
        call_id = started["callId"]
        record = town.engine.lanes[call_id].record
        await until(lambda: town.engine.lanes[call_id].record.provider_call_id is not None)
        carrier_id = town.engine.lanes[call_id].record.provider_call_id
        assert carrier_id is not None
        await until(lambda: said(town.engine.lanes[call_id].record)[-1:] == [("bot", "1.", True)])
        await town.rpc("dtmf", callId=call_id, digits="12#")
        await town.rpc("dtmf", callId=call_id, digits="3")
        await town.rpc("speak", callId=call_id, message="There?")
        await town.rpc("end", callId=call_id)
        record = await town.over(call_id)
        assert town.heard(carrier_id) == ["Hello.", "1.", "There?"]
        assert [text for _, text, _ in said(record)] == [
            "Hello.",
            "One.",
            "1.",
            "There?",
        ]
        assert town.carrier.calls[carrier_id].line.digits_heard == "12#3"
        await town.nothing_left()


async def test_a_story_goes_on_behind_keypad_tones(tmp_path: Path, carrier: str) -> None:
    sentences = [f"This is number {n} of them." for n in range(4)]
    story = " ".join(sentences)
    async with open_town(tmp_path, Puppet({"Tell me.": story}), carrier=carrier) as town:
        carrier_id = town.call_in(WAIT, Say("Tell me."), Silent())
        record = await town.live(carrier_id)
        lane = town.engine.lanes[record.call_id]
        await until(lambda: len(said(lane.record)) == 2)
        begun = len(town.heard_pcm(carrier_id))
        await anyio.sleep(0.6)
        await town.rpc("dtmf", callId=record.call_id, digits="12")
        await until(lambda: lane.record.utterance is None)
        await town.rpc("end", callId=record.call_id)
        record = await town.over(carrier_id)
        assert town.carrier.calls[carrier_id].line.digits_heard == "12"
        assert said(record)[-1] == ("bot", story, True)
        # All of it was heard, no more of it twice than was on its way without a mark, and with at
        # most a second of silence beyond the tones.
        wanted = sum(len(sound(sentence)) for sentence in sentences) // 16
        voiced, silent = sounds(town.heard_pcm(carrier_id)[begun:])
        assert wanted - 40 <= voiced <= wanted + 300
        assert silent <= tones_ms("12") + 1000


def sounds(pcm: bytes) -> tuple[int, int]:
    """How much sound there is, and the longest silence inside of it; milliseconds."""
    voiced = longest = run = 0
    for start in range(0, len(pcm), 320):
        if any(pcm[start : start + 320]):
            longest = max(longest, run) if voiced else 0
            voiced, run = voiced + 20, 0
        else:
            run += 20
    return voiced, longest


@pytest.mark.parametrize("direction", ["inbound", "outbound"])
async def test_a_realtime_call_returns_the_callers_audio(
    tmp_path: Path, carrier: str, direction: str
) -> None:
    script = (Wait(2000), *TONES, Silent())
    async with open_town(tmp_path, Puppet({}), config=REALTIME, carrier=carrier) as town:
        if direction == "inbound":
            carrier_id = town.call_in(*script, number=CALLER)
        else:
            town.carrier.set_phone(PHONE, script)
            started = await town.rpc("start", to=PHONE, mode="conversation")
            lane = town.engine.lanes[started["callId"]]
            await until(lambda: lane.record.provider_call_id is not None)
            carrier_id = lane.record.provider_call_id or ""
        await until(lambda: TONE in town.carrier.calls[carrier_id].line.recording.heard)
        record = await town.hung_up(carrier_id)
        assert TONE in town.carrier.calls[carrier_id].line.recording.heard
        assert record.end_reason is CARRIERS[carrier].left
        await town.nothing_left()
