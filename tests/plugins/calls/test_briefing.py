"""What an agent learns of the call with its first turn."""

from __future__ import annotations

import pytest

from voicecall.model import (
    CallRecord,
    CallState,
    Direction,
    Speaker,
    TranscriptEntry,
)
from voicecall_calls.conversation.agentturn import Brain, Briefing, TurnInput
from voicecall_calls.troubles import Trouble
from voicecall_testing.clock import VirtualSeam
from voicecall_testing.fakes import ScriptedAgentBackend

pytestmark = pytest.mark.unit

BRAIN = Brain(ScriptedAgentBackend(), "main", None, 30.0, Trouble(VirtualSeam()))


def call(*said: tuple[str, str]) -> CallRecord:
    return CallRecord(
        call_id="c1",
        provider="mock",
        direction=Direction.INBOUND,
        state=CallState.LISTENING,
        from_number="+15550002222",
        to_number="+15550001111",
        started_at=0,
        transcript=tuple(
            TranscriptEntry(at, Speaker(speaker), text) for at, (speaker, text) in enumerate(said)
        ),
    )


def opening(briefing: Briefing, record: CallRecord, text: str) -> tuple[str, ...]:
    return briefing.turn(record, TurnInput(text), "t1").opening


def test_the_words_of_the_turn_itself_are_not_among_them() -> None:
    record = call(("bot", "Hello."), ("user", "Hi."), ("user", "I want"), ("user", "a taxi."))
    told = opening(Briefing(BRAIN), record, "I want a taxi.")
    assert told == ("Hello.", "(The other party: Hi.)")
    assert opening(Briefing(BRAIN), record, "Hi. I want a taxi.") == ("Hello.",)


def test_the_same_words_said_before_it_are() -> None:
    record = call(("user", "Hello?"), ("bot", "Hello."), ("user", "Hello?"))
    told = opening(Briefing(BRAIN), record, "Hello?")
    assert told == ("(The other party: Hello?)", "Hello.")


def test_keys_come_after_all_words() -> None:
    record = call(("bot", "Press one."), ("user", "What?"))
    told = Briefing(BRAIN).turn(record, TurnInput(digits="1"), "t1").opening
    assert told == ("Press one.", "(The other party: What?)")


def test_a_call_that_goes_on_after_a_restart_was_told_where_the_caller_has_spoken() -> None:
    spoken, silent = call(("bot", "Hello."), ("user", "Hi.")), call(("bot", "Hello."))
    for record, told in ((spoken, ()), (silent, ("Hello.",))):
        briefing = Briefing(BRAIN)
        briefing.taken_up(record)
        assert opening(briefing, record, "Yes.") == told
