"""Conversations over real sockets: callers who talk, interrupt, press keys and keep silent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from voicecall.agent import AgentEvent, AgentTurn, TextDelta
from voicecall.errors import CallNotReady
from voicecall.model import EndDetail, EndReason
from voicecall_mock.exchange import (
    HangUp,
    Interrupt,
    Say,
    Silent,
    WaitForSilence,
)
from voicecall_testing.fsk import encode

from .lab.carriers import CARRIERS
from .lab.puppets import Puppet
from .lab.town import GREETING, open_town, said, until

pytestmark = [pytest.mark.e2e, pytest.mark.anyio, pytest.mark.usefixtures("backstage")]

WAIT = WaitForSilence(300)
PHONE = "+15550100009"
STORY = "Once upon a time, there was a very small phone. It rang all day. Nobody ever came."


async def test_two_phones_talk_at_once(tmp_path: Path, carrier: str) -> None:
    agent = Puppet({"One?": "One.", "One!": "Bye 1.", "Two?": "Two.", "Two!": "Bye 2."})
    async with open_town(tmp_path, agent, carrier=carrier) as town:
        calls: dict[str, str] = {}

        async def talk(number: str, word: str, bye: str) -> None:
            carrier_id, record = await town.call(
                WAIT, Say(f"{word}?"), WAIT, Say(f"{word}!"), WAIT, HangUp(), number=number
            )
            calls[word] = record.call_id
            assert record.from_number == number
            assert record.end_reason is CARRIERS[carrier].left
            assert said(record) == [
                ("bot", GREETING, True),
                ("user", f"{word}?", True),
                ("bot", f"{word}.", True),
                ("user", f"{word}!", True),
                ("bot", bye, True),
            ]
            assert town.heard(carrier_id) == [GREETING, f"{word}.", bye]
            kinds = [(turn.kind, turn.failed) for turn in await town.turns(record)]
            assert kinds == [("message", None), ("reply", None), ("reply", None)]

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(talk, "+15550100001", "One", "Bye 1.")
            tasks.start_soon(talk, "+15550100002", "Two", "Bye 2.")
        assert len(set(calls.values())) == 2
        await town.nothing_left()


async def test_an_interruption_cuts_the_agent_off_and_is_answered(
    tmp_path: Path, carrier: str
) -> None:
    agent = Puppet({"Tell me.": STORY, "Stop it.": "Yes?"})
    async with open_town(tmp_path, agent, carrier=carrier) as town:
        carrier_id, record = await town.call(
            WAIT,
            Say("Tell me."),
            Interrupt(300, "Stop it."),
            WAIT,
            HangUp(),
        )
        lines = said(record)
        assert [line[0] for line in lines] == ["bot", "user", "bot", "user", "bot"]
        _, told, complete = lines[2]
        assert not complete
        assert told
        assert STORY.startswith(told)
        assert len(told) < len(STORY) / 2
        assert lines[3:] == [("user", "Stop it.", True), ("bot", "Yes?", True)]
        assert town.heard(carrier_id) == [GREETING, None, "Yes?"]
        assert agent.settled == [("Tell me.", told)]
        greeting, story, answer = await town.turns(record)
        assert story.barge_in_at is not None
        assert story.barge_in_stop_ms is not None
        assert greeting.barge_in_at is answer.barge_in_at is None
        assert len(town.carrier.stats(carrier_id).barge_in_stop_ms) == 1


async def test_an_acknowledgement_does_not_interrupt(tmp_path: Path, carrier: str) -> None:
    story = "Once upon a time, there was a very small phone. It rang."
    agent = Puppet({"Tell me.": story})
    async with open_town(
        tmp_path, agent, config={"bargeIn": {"minSpeechMs": 5000}}, carrier=carrier
    ) as town:
        carrier_id = town.call_in(WAIT, Say("Tell me."), Interrupt(100, "Uh huh."), Silent())
        record = await town.live(carrier_id)
        lane = town.engine.lanes[record.call_id]
        await until(lambda: said(lane.record)[-1:] == [("bot", story, True)])
        # Time enough for an answer, which must not come.
        await anyio.sleep(0.3)
        record = await town.hung_up(carrier_id)
        assert town.heard(carrier_id)[0] == GREETING
        assert None not in town.heard(carrier_id)
        assert said(record)[-1] == ("bot", story, True)
        assert agent.asked == ["Tell me."]


async def test_a_silent_caller_is_asked_and_then_left(tmp_path: Path, carrier: str) -> None:
    silence = {"promptAfterMs": 400, "prompts": 1}
    async with open_town(
        tmp_path, Puppet({}), config={"silence": silence}, carrier=carrier
    ) as town:
        carrier_id, record = await town.call(Silent())
        assert (record.end_reason, record.end_detail) == (EndReason.HANGUP_BOT, EndDetail.SILENCE)
        heard = [GREETING, "Are you still there?", "I will hang up now. Goodbye."]
        assert town.heard(carrier_id) == heard
        assert town.longest_silence_ms(carrier_id) < 400 + 3000
        await town.nothing_left()


async def test_keys_interrupt_and_are_answered(tmp_path: Path, carrier: str) -> None:
    agent = Puppet({"Tell me.": STORY, "12#": "Room 12."})
    async with open_town(tmp_path, agent, carrier=carrier) as town:
        carrier_id = town.call_in(WAIT, Say("Tell me."), Silent())
        record = await town.live(carrier_id)
        lane = town.engine.lanes[record.call_id]
        await until(lambda: town.heard(carrier_id) == [GREETING, None])
        await anyio.sleep(0.4)
        for key in "12#":
            town.carrier.calls[carrier_id].line.press(key)
            await anyio.sleep(0.1)
        await until(lambda: said(lane.record)[-1:] == [("bot", "Room 12.", True)])
        record = await town.hung_up(carrier_id)
        assert town.heard(carrier_id) == [GREETING, None, "Room 12."]
        assert said(record)[-1] == ("bot", "Room 12.", True)
        assert [(turn.text, turn.digits) for turn in agent.turns] == [
            ("Tell me.", ""),
            ("", "12#"),
        ]
        assert not said(record)[2][2]


async def test_words_into_the_greeting_do_not_cut_it_and_are_kept(
    tmp_path: Path, carrier: str
) -> None:
    greeting = "This is the clinic, and this is a rather long greeting."
    config = {"inboundGreeting": greeting, "bargeIn": {"greetingProtectionMs": 1500}}
    agent = Puppet({"The time?": "Noon."})
    question = Say("The time?", audio=encode("The time?"))
    async with open_town(tmp_path, agent, config=config, carrier=carrier) as town:
        carrier_id = town.call_in(Interrupt(0, "Hi."), Silent())
        lane = town.engine.lanes[(await town.live(carrier_id)).call_id]
        await until(lambda: ("bot", greeting, True) in said(lane.record))
        await until(lambda: ("user", "Hi.", True) in said(lane.record))
        await town.carrier.calls[carrier_id].line.say(question)
        await until(lambda: said(lane.record)[-1] == ("bot", "Noon.", True))
        record = await town.hung_up(carrier_id)
        assert town.heard(carrier_id) == [greeting, "Noon."]
        assert ("bot", greeting, True) in said(record)
        assert ("user", "Hi.", True) in said(record)
        assert agent.asked == ["The time?"]


async def test_a_greeting_may_be_interrupted_later_on(tmp_path: Path, carrier: str) -> None:
    config = {"inboundGreeting": STORY, "bargeIn": {"greetingProtectionMs": 100}}
    async with open_town(
        tmp_path, Puppet({"Stop.": "Yes?"}), config=config, carrier=carrier
    ) as town:
        carrier_id, record = await town.call(Interrupt(400, "Stop."), WAIT, HangUp())
        assert town.heard(carrier_id) == [None, "Yes?"]
        speaker, text, complete = said(record)[0]
        assert (speaker, complete) == ("bot", False)
        assert STORY.startswith(text)


async def test_the_agent_ends_the_call_when_its_words_were_heard(
    tmp_path: Path, carrier: str
) -> None:
    agent = Puppet({"Bye.": "Goodbye."}, end=["Bye."])
    async with open_town(tmp_path, agent, carrier=carrier) as town:
        carrier_id, record = await town.call(WAIT, Say("Bye."), Silent())
        assert (record.end_reason, record.end_detail) == (EndReason.HANGUP_BOT, EndDetail.AGENT)
        assert town.heard(carrier_id) == [GREETING, "Goodbye."]


async def test_what_was_not_understood_is_put_to_the_agent(tmp_path: Path, carrier: str) -> None:
    agent = Puppet({"": "Pardon?"})
    noise = sound_of_nothing()
    async with open_town(tmp_path, agent, carrier=carrier) as town:
        carrier_id, _ = await town.call(WAIT, Say("(mumbles)", noise), WAIT, HangUp())
        assert town.heard(carrier_id) == [GREETING, "Pardon?"]
        assert agent.asked == [""]


def sound_of_nothing() -> bytes:
    """A quarter of a second of a tone that is no text."""
    return (b"\x80" * 4 + b"\x00" * 4) * 250


# --- calls that we make ----------------------------------------------------------------------


async def test_a_notice_is_heard_once_and_then_hung_up(tmp_path: Path, carrier: str) -> None:
    async with open_town(tmp_path, Puppet({}), carrier=carrier) as town:
        town.carrier.set_phone(PHONE, (Silent(),))
        started = await town.rpc("start", to=PHONE, message="Your taxi waits.", mode="notify")
        record = await town.over(started["callId"])
        assert (record.end_reason, record.end_detail) == (EndReason.HANGUP_BOT, EndDetail.NOTIFIED)
        assert record.provider_call_id is not None
        assert town.heard(record.provider_call_id) == ["Your taxi waits."]
        assert said(record) == [("bot", "Your taxi waits.", True)]
        await town.nothing_left()


async def test_a_question_from_outside_owns_the_callers_next_turn(
    tmp_path: Path, carrier: str
) -> None:
    agent = Puppet({"Thank you.": "You are welcome."})
    nine = Say("At nine.", audio=encode("At nine."))
    async with open_town(tmp_path, agent, carrier=carrier) as town:
        town.carrier.set_phone(PHONE, (Silent(),))
        started = await town.rpc("start", to=PHONE, message="Hello.", mode="conversation")
        call_id = started["callId"]
        await until(lambda: bool(town.engine.lanes[call_id].record.transcript))
        await until(lambda: town.engine.lanes[call_id].record.utterance is None)
        async with anyio.create_task_group() as tasks:
            refused: list[str] = []

            async def ask_too() -> None:
                asked = ("bot", "When?", True)
                await until(lambda: asked in said(town.engine.lanes[call_id].record))
                with pytest.raises(CallNotReady) as caught:
                    await town.rpc("continue", callId=call_id, message="And where?")
                refused.append(str(caught.value))
                carrier_id = town.engine.lanes[call_id].record.provider_call_id
                assert carrier_id is not None
                await town.carrier.calls[carrier_id].line.say(nine)

            tasks.start_soon(ask_too)
            answer = await town.rpc("continue", callId=call_id, message="When?")
        assert answer == {"success": True, "transcript": "At nine."}
        assert refused == ["Already waiting for transcript"]
        assert agent.asked == []
        await town.rpc("end", callId=call_id)
        record = await town.over(call_id)
        assert said(record) == [
            ("bot", "Hello.", True),
            ("bot", "When?", True),
            ("user", "At nine.", True),
        ]
        assert [turn.kind for turn in await town.turns(record)] == ["message", "continue"]


async def test_a_call_may_be_ended_in_the_middle_of_a_sentence(
    tmp_path: Path, carrier: str
) -> None:
    agent = Puppet({"Tell me.": STORY})
    async with open_town(tmp_path, agent, carrier=carrier) as town:
        carrier_id = town.call_in(WAIT, Say("Tell me."), Silent())
        record = await town.live(carrier_id)
        lane = town.engine.lanes[record.call_id]
        await until(
            lambda: (
                lane.record.utterance is not None and lane.record.utterance.text.startswith("Once")
            )
        )
        await until(lambda: town.heard(carrier_id) == [GREETING, None])
        await anyio.sleep(0.4)
        await town.rpc("end", callId=record.call_id)
        record = await town.over(carrier_id)
        assert (record.end_reason, record.end_detail) == (EndReason.HANGUP_BOT, EndDetail.REQUESTED)
        assert town.heard(carrier_id) == [GREETING, None]
        _, told, complete = said(record)[-1]
        assert not complete
        assert STORY.startswith(told)
        await town.nothing_left()


async def test_sentences_are_spoken_as_the_agent_makes_them(tmp_path: Path, carrier: str) -> None:
    spoken = anyio.Event()

    async def slowly(turn: AgentTurn) -> AsyncIterator[AgentEvent]:
        yield TextDelta("This is the first. And ")
        await spoken.wait()
        yield TextDelta("that is the second.")

    async with open_town(tmp_path, Puppet({"Go on.": slowly}), carrier=carrier) as town:
        carrier_id = town.call_in(WAIT, Say("Go on."), WAIT, HangUp())
        await town.live(carrier_id)
        await until(lambda: "This is the first." in town.heard(carrier_id))
        spoken.set()
        record = await town.over(carrier_id)
        assert said(record)[-1][2]
        assert town.heard(carrier_id)[1:] == [
            "This is the first.",
            "And that is the second.",
        ]
