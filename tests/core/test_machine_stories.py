"""Whole calls through the state machine: events, the state after each, and the effects."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial

import pytest
from msgspec.structs import replace

from voicecall import events as ev
from voicecall import machine as mc
from voicecall.model import (
    CallMode,
    CallRecord,
    DeadlineKind,
    Direction,
    EndDetail,
    EndReason,
    MediaPath,
    MessageState,
    Speaker,
)
from voicecall.tones import tones_ms

pytestmark = pytest.mark.unit

POLICY = mc.CallPolicy()
ID = "P1"

Row = tuple[ev.CallEvent, str, Sequence[mc.Effect]]


def outbound(
    mode: CallMode = CallMode.CONVERSATION, media: MediaPath = MediaPath.NATIVE
) -> CallRecord:
    opened = mc.open_outbound(
        call_id="c",
        provider="p",
        from_number="+1",
        to_number="+2",
        at=0,
        mode=mode,
        media=media,
        message="Hello.",
        policy=POLICY,
    )
    assert opened.effects == (mc.Dial(),)
    return opened.record


def inbound(media: MediaPath = MediaPath.NATIVE) -> CallRecord:
    event = ev.Initiated(at=0, key="0", provider_call_id=ID, from_number="+3", to_number="+1")
    return mc.open_inbound(
        call_id="c", provider="p", event=event, media=media, greeting="Hello.", policy=POLICY
    )


def tell(record: CallRecord, *rows: Row) -> CallRecord:
    for number, (event, state, effects) in enumerate(rows):
        result = mc.step(record, event, POLICY)
        where = f"row {number}: {event}"
        assert result.record.state == state, where
        assert list(result.effects) == list(effects), where
        record = result.record
    return record


def accepted(at: int) -> ev.DialAccepted:
    return ev.DialAccepted(at=at, provider_call_id=ID)


def ringing(at: int) -> ev.Ringing:
    return ev.Ringing(at=at, key=f"r{at}", provider_call_id=ID)


def answered(at: int) -> ev.Answered:
    return ev.Answered(at=at, key=f"a{at}", provider_call_id=ID)


def ended(at: int, reason: EndReason = EndReason.COMPLETED) -> ev.CallEnded:
    return ev.CallEnded(at=at, key=f"e{at}", provider_call_id=ID, reason=reason)


def heard(at: int, text: str, token: str | None = None, final: bool = True) -> ev.SpeechHeard:
    return ev.SpeechHeard(
        at=at, key=f"s{at}", provider_call_id=ID, text=text, turn_token=token, final=final
    )


def says(at: int, utterance: str, text: str, first: bool = False) -> ev.BotSpeaking:
    return ev.BotSpeaking(at=at, utterance_id=utterance, text=text, first_message=first)


def due(at: int, kind: DeadlineKind) -> ev.DeadlineDue:
    return ev.DeadlineDue(at=at, kind=kind)


def test_a_notification() -> None:
    record = tell(
        outbound(CallMode.NOTIFY),
        (accepted(100), "initiated", []),
        (ringing(200), "ringing", []),
        (answered(5_000), "answered", [mc.Connected()]),
        (says(5_100, "u1", "Hello.", first=True), "speaking", []),
        (
            ev.PlaybackEnded(at=7_000, key="p", provider_call_id=ID, utterance_id="u1"),
            "listening",
            [mc.PlaybackFinished("u1", True)],
        ),
        (due(9_999, DeadlineKind.NOTIFY_HANGUP), "listening", []),
        (due(10_000, DeadlineKind.NOTIFY_HANGUP), "listening", [mc.HangUp()]),
        (ev.HangUpDone(at=10_100), "hangup-bot", [mc.Release()]),
        (ended(10_200), "hangup-bot", []),
    )
    assert record.end_detail is EndDetail.NOTIFIED
    assert record.ended_at == 10_100
    assert record.message is not None
    assert record.message.state is MessageState.DONE
    assert [(e.speaker, e.text) for e in record.transcript] == [(Speaker.BOT, "Hello.")]


def test_a_notification_cut_short() -> None:
    record = tell(
        outbound(CallMode.NOTIFY, MediaPath.STREAM),
        (accepted(100), "initiated", []),
        (ev.StreamAttached(at=5_000, stream_id="s1"), "active", [mc.Connected()]),
        (says(5_100, "u1", "Hello.", first=True), "speaking", []),
        (ended(7_000, EndReason.HANGUP_USER), "hangup-user", [mc.Release()]),
        (ev.BotSpoke(at=7_010, utterance_id="u1", heard="Hel", complete=False), "hangup-user", []),
    )
    assert record.message is not None
    assert record.message.state is MessageState.FAILED
    assert [e.text for e in record.transcript] == ["Hel"]


def test_a_notification_that_we_end_before_it_was_told_has_failed() -> None:
    record = tell(
        outbound(CallMode.NOTIFY, MediaPath.STREAM),
        (accepted(100), "initiated", []),
        (ev.StreamAttached(at=5_000, stream_id="s1"), "active", [mc.Connected()]),
        (says(5_100, "u1", "Hello.", first=True), "speaking", []),
        (ev.EndRequested(at=6_000), "speaking", [mc.HangUp()]),
        (ev.BotSpoke(at=6_010, utterance_id="u1", heard="Hel", complete=False), "listening", []),
        (ev.HangUpDone(at=6_100), "hangup-bot", [mc.Release()]),
    )
    assert record.message is not None
    assert record.message.state is MessageState.FAILED


def test_a_notification_that_breaks_off_is_said_once_more() -> None:
    record = tell(
        outbound(CallMode.NOTIFY, MediaPath.STREAM),
        (accepted(100), "initiated", []),
        (ev.StreamAttached(at=5_000, stream_id="s1"), "active", [mc.Connected()]),
        (says(5_100, "u1", "Hello.", first=True), "speaking", []),
        (ev.BotSpoke(at=6_000, utterance_id="u1", heard="Hel", complete=False), "listening", []),
        (due(7_000, DeadlineKind.MESSAGE), "listening", [mc.PlayMessage()]),
        (says(7_100, "u2", "Hello.", first=True), "speaking", []),
        (ev.BotSpoke(at=8_000, utterance_id="u2", heard="Hel", complete=False), "listening", []),
        (due(11_000, DeadlineKind.NOTIFY_HANGUP), "listening", [mc.HangUp()]),
    )
    assert record.message is not None
    assert (record.message.state, record.message.attempts) == (MessageState.DONE, 2)


def test_a_notification_that_nobody_answers_has_failed() -> None:
    record = tell(
        outbound(CallMode.NOTIFY),
        (accepted(100), "initiated", []),
        (ended(30_000, EndReason.NO_ANSWER), "no-answer", [mc.Release()]),
    )
    assert record.message is not None
    assert (record.message.state, record.message.attempts) == (MessageState.FAILED, 0)


def test_a_notification_told_by_another_voice() -> None:
    notified = ev.EndRequested(at=9_000, reason=EndReason.HANGUP_BOT, detail=EndDetail.NOTIFIED)
    record = tell(
        outbound(CallMode.NOTIFY, MediaPath.STREAM),
        (accepted(100), "initiated", []),
        (ev.StreamAttached(at=5_000, stream_id="s1"), "active", [mc.Connected()]),
        (says(5_100, "u1", "Hello.", first=True), "speaking", []),
        (ev.StreamGivenUp(at=6_000), "speaking", []),
        (says(6_100, "u2", "Hello."), "speaking", []),
        (notified, "speaking", [mc.HangUp()]),
        (ended(9_500), "hangup-bot", [mc.Release()]),
    )
    assert record.message is not None
    assert record.message.state is MessageState.DONE


def test_a_conversation() -> None:
    record = tell(
        outbound(),
        (accepted(0), "initiated", []),
        (answered(1_000), "answered", [mc.Connected()]),
        (says(1_100, "u1", "Hello.", first=True), "speaking", []),
        (ev.BotSpoke(at=2_000, utterance_id="u1", heard="Hello."), "listening", []),
        (ev.ListenStarted(at=2_001, token="t1"), "listening", []),
        (heard(3_000, "what is", "t1", final=False), "listening", [mc.CallerSpeaking()]),
        (heard(3_500, " what is new? ", "t1"), "listening", [mc.CallerTurn("what is new?")]),
        (says(4_000, "u2", "Nothing at all."), "speaking", []),
        (
            ev.BotSpoke(at=4_500, utterance_id="u2", heard="Nothing", complete=False),
            "listening",
            [],
        ),
        (
            ev.DigitsPressed(at=5_000, key="d", provider_call_id=ID, digits="9#"),
            "listening",
            [mc.KeysPressed("9#")],
        ),
        (ended(6_000, EndReason.HANGUP_USER), "hangup-user", [mc.Release()]),
    )
    assert [(e.speaker.value, e.text, e.complete) for e in record.transcript] == [
        ("bot", "Hello.", True),
        ("user", "what is new?", True),
        ("bot", "Nothing", False),
    ]
    assert record.end_detail is EndDetail.CARRIER
    assert record.answered_at == 1_000
    assert record.message is not None
    assert record.message.state is MessageState.DONE


def test_an_inbound_call_over_a_media_stream() -> None:
    record = tell(
        inbound(MediaPath.STREAM),
        (ev.Initiated(at=0, key="0", provider_call_id=ID), "ringing", [mc.AnswerCall()]),
        (answered(500), "answered", [mc.Connected()]),
        (ev.StreamAttached(at=800, stream_id="s1"), "active", []),
        (says(900, "u1", "Hello.", first=True), "speaking", []),
        (ev.BotSpoke(at=1_900, utterance_id="u1", heard="Hello."), "listening", []),
        (ev.CallerSaid(at=3_000, text="bye"), "listening", [mc.CallerTurn("bye")]),
        (ev.EndRequested(at=3_500, detail=EndDetail.AGENT), "listening", [mc.HangUp()]),
        (ev.HangUpDone(at=3_600), "hangup-bot", [mc.Release()]),
    )
    assert record.end_detail is EndDetail.AGENT
    assert record.remote_number == "+3"


def test_who_calls_whom_as_far_as_the_carrier_tells() -> None:
    known = inbound()
    assert (known.from_number, known.to_number) == ("+3", "+1")
    assert (known.direction, known.aliases) == (Direction.INBOUND, (ID,))
    told = ev.Initiated(at=0, key="0", provider_call_id=ID, from_number="+3", to_number="+1")
    refused = mc.refuse_inbound(
        call_id="c", provider="p", event=told, detail=EndDetail.POLICY
    ).record
    assert (refused.from_number, refused.to_number) == ("+3", "+1")
    event = ev.Initiated(at=0, key="0", provider_call_id=ID)
    record = mc.open_inbound(
        call_id="c", provider="p", event=event, media=MediaPath.NATIVE, greeting=None, policy=POLICY
    )
    assert (record.from_number, record.to_number) == ("unknown", "unknown")
    assert record.direction is Direction.INBOUND


@pytest.mark.parametrize("reason", [EndReason.BUSY, EndReason.NO_ANSWER, EndReason.FAILED])
def test_nobody_takes_the_call(reason: EndReason) -> None:
    record = tell(
        outbound(),
        (accepted(0), "initiated", []),
        (ringing(10), "ringing", []),
        (ended(20, reason), reason.value, [mc.Release()]),
    )
    assert record.answered_at is None


def test_the_ring_timeout_is_ours_where_the_carrier_has_none() -> None:
    record = tell(
        outbound(),
        (accepted(0), "initiated", []),
        (ringing(10), "ringing", []),
        (due(44_999, DeadlineKind.RING), "ringing", []),
        (due(45_000, DeadlineKind.RING), "ringing", [mc.HangUp()]),
        (ev.HangUpDone(at=45_100), "no-answer", [mc.Release()]),
    )
    assert record.end_detail is EndDetail.RING_TIMEOUT


def test_the_carrier_is_asked_before_a_call_counts_as_not_answered() -> None:
    rings = tell(outbound(), (accepted(0), "initiated", []), (ringing(10), "ringing", []))
    asked = tell(
        rings,
        (due(42_999, DeadlineKind.PROBE), "ringing", []),
        (due(43_000, DeadlineKind.PROBE), "ringing", [mc.ProbeStatus()]),
    )
    says = partial(ev.StatusReported, at=43_200)
    over = says(status=ev.CarrierStatus.ENDED, reason=EndReason.BUSY)
    tell(asked, (over, "busy", [mc.Release()]))
    talks = tell(
        asked,
        (says(status=ev.CarrierStatus.CONNECTED), "answered", [mc.Connected()]),
        (due(45_000, DeadlineKind.RING), "answered", []),
    )
    assert talks.answered_at == 43_200
    tell(
        asked,
        (says(status=ev.CarrierStatus.LIVE), "ringing", []),
        (due(45_000, DeadlineKind.RING), "ringing", [mc.HangUp()]),
    )
    # Without an answer the call is not left to ring.
    tell(asked, (due(45_000, DeadlineKind.RING), "ringing", [mc.HangUp()]))


def test_a_stream_is_lost_and_comes_back() -> None:
    record = tell(
        outbound(media=MediaPath.STREAM),
        (accepted(0), "initiated", []),
        (answered(100), "answered", [mc.Connected()]),
        (ev.StreamAttached(at=200, stream_id="s1"), "active", []),
        (ev.StreamDetached(at=5_000, stream_id="s1"), "active", [mc.ReattachStream()]),
        (ev.StreamAttached(at=5_500, stream_id="s2"), "active", []),
        (ev.StreamDetached(at=5_600, stream_id="s1"), "active", []),
        (due(8_000, DeadlineKind.STREAM), "active", []),
    )
    assert record.stream_id == "s2"
    assert record.ending is None


def test_the_end_of_a_stream_that_died_with_us_asks_for_no_second_one() -> None:
    failed = ev.StreamFailed(at=5_100, key="f", provider_call_id=ID, error="gone", stream_id="s1")
    connected = ev.StatusReported(at=5_200, status=ev.CarrierStatus.CONNECTED)
    record = tell(
        inbound(MediaPath.STREAM),
        (ev.StreamAttached(at=200, stream_id="s1"), "active", [mc.Connected()]),
        (ev.Recovered(at=5_000), "active", [mc.ProbeStatus()]),
        (failed, "active", []),
        (connected, "active", [mc.Connected(resumed=True)]),
        (replace(failed, at=5_300, key="f2"), "active", []),
    )
    assert DeadlineKind.STREAM in record.deadlines


def test_a_stream_that_the_carrier_is_done_with_is_lost_while_it_is_the_calls() -> None:
    def stopped(at: int, stream: str) -> ev.StreamStopped:
        return ev.StreamStopped(at=at, key=f"x{at}", provider_call_id=ID, stream_id=stream)

    record = tell(
        inbound(MediaPath.STREAM),
        (stopped(100, "s0"), "ringing", []),
        (ev.StreamAttached(at=200, stream_id="s1"), "active", [mc.Connected()]),
        (stopped(5_000, "s1"), "active", [mc.ReattachStream()]),
        (ev.StreamDetached(at=5_100, stream_id="s1"), "active", []),
        (ev.StreamAttached(at=5_500, stream_id="s2"), "active", []),
        (stopped(5_600, "s1"), "active", []),
        (ev.StreamDetached(at=9_000, stream_id="s2"), "active", [mc.ReattachStream()]),
        (stopped(9_100, "s2"), "active", []),
        (ev.StreamAttached(at=9_500, stream_id="s3"), "active", []),
        (ev.EndRequested(at=9_600), "active", [mc.HangUp()]),
        (stopped(9_700, "s3"), "active", []),
        (ended(9_800, EndReason.COMPLETED), "hangup-bot", [mc.Release()]),
        (stopped(9_900, "s3"), "hangup-bot", []),
    )
    assert record.end_detail is EndDetail.REQUESTED


def test_a_stream_is_lost_for_good() -> None:
    record = tell(
        inbound(MediaPath.REALTIME),
        (ev.StreamAttached(at=200, stream_id="s1"), "active", [mc.Connected()]),
        (ev.StreamDetached(at=5_000, stream_id="s1"), "active", [mc.ReattachStream()]),
        (due(6_999, DeadlineKind.STREAM), "active", []),
        (due(7_000, DeadlineKind.STREAM), "active", [mc.HangUp()]),
        (ev.HangUpDone(at=7_100), "hangup-bot", [mc.Release()]),
    )
    assert record.end_detail is EndDetail.STREAM_LOST


def test_a_stream_that_is_given_up_is_not_asked_for_again() -> None:
    record = tell(
        inbound(MediaPath.REALTIME),
        (ev.StreamAttached(at=200, stream_id="s1"), "active", [mc.Connected()]),
        (ev.StreamGivenUp(at=5_000), "active", []),
        (ev.StreamGivenUp(at=5_000), "active", []),
        (ev.BotSpeaking(at=5_000, utterance_id="u", text="Goodbye."), "speaking", []),
        (ev.StreamDetached(at=5_100, stream_id="s1"), "speaking", []),
        (
            ev.StreamFailed(at=5_100, key="f", provider_call_id=ID, error="closed"),
            "speaking",
            [],
        ),
        # Another stream was on its way.
        (ev.StreamAttached(at=5_200, stream_id="s2"), "speaking", []),
        (ev.StreamDetached(at=5_300, stream_id="s2"), "speaking", []),
    )
    assert record.media is MediaPath.NATIVE
    assert DeadlineKind.STREAM not in record.deadlines


def test_a_stream_that_is_swapped_is_waited_for_as_long_as_a_first_one() -> None:
    record = tell(
        inbound(MediaPath.STREAM),
        (ev.StreamAttached(at=200, stream_id="s1"), "active", [mc.Connected()]),
        (ev.StreamSwapping(at=1_000, busy_ms=400), "active", []),
        (ev.StreamDetached(at=1_100, stream_id="s1"), "active", []),
        (due(11_399, DeadlineKind.STREAM), "active", []),
    )
    tell(record, (due(11_400, DeadlineKind.STREAM), "active", [mc.HangUp()]))
    back = tell(record, (ev.StreamAttached(at=2_000, stream_id="s2"), "active", []))
    assert DeadlineKind.STREAM not in back.deadlines


@pytest.mark.parametrize("mode", CallMode)
def test_a_stream_that_never_starts(mode: CallMode) -> None:
    record = tell(
        outbound(mode, MediaPath.STREAM),
        (accepted(0), "initiated", []),
        (answered(100), "answered", [mc.Connected()]),
        (due(10_099, DeadlineKind.STREAM), "answered", []),
        (due(10_100, DeadlineKind.STREAM), "answered", [mc.HangUp()]),
        (ev.HangUpDone(at=10_200), "hangup-bot", [mc.Release()]),
    )
    assert record.end_detail is EndDetail.STREAM_NEVER_STARTED


SPEAKING_CARRIER = dataclasses.replace(POLICY, carrier_speaks=True)


def test_a_carrier_with_a_voice_says_something_before_a_call_without_a_stream_ends() -> None:
    record = tell(
        outbound(media=MediaPath.STREAM),
        (accepted(0), "initiated", []),
        (answered(100), "answered", [mc.Connected()]),
    )
    missing = mc.StreamMissing(EndDetail.STREAM_NEVER_STARTED)
    step = mc.step(record, due(10_100, DeadlineKind.STREAM), SPEAKING_CARRIER)
    assert step.effects == (missing,)
    assert step.record.deadlines[DeadlineKind.LAST_WORDS] == 70_100
    told = tell(step.record, (due(70_100, DeadlineKind.LAST_WORDS), "answered", [mc.HangUp()]))
    assert told.ending is not None
    assert told.ending.reason is EndReason.HANGUP_BOT
    # A stream that comes after all is used.
    back = tell(step.record, (ev.StreamAttached(at=11_000, stream_id="s1"), "active", []))
    assert DeadlineKind.LAST_WORDS not in back.deadlines


def test_a_carrier_with_a_voice_says_nothing_to_whom_it_does_not_reach() -> None:
    unanswered = tell(
        inbound(MediaPath.STREAM),
        (
            ev.StreamFailed(at=100, key="f", provider_call_id=ID),
            "ringing",
            [mc.ReattachStream()],
        ),
    )
    result = mc.step(unanswered, due(2_100, DeadlineKind.STREAM), SPEAKING_CARRIER)
    assert result.effects == (mc.HangUp(),)
    assert result.record.ending is not None
    assert result.record.ending.detail is EndDetail.STREAM_NEVER_STARTED


@pytest.mark.parametrize("mode", CallMode)
def test_a_carrier_with_a_voice_says_nothing_on_a_call_that_is_being_ended(mode: CallMode) -> None:
    record = tell(
        outbound(mode, MediaPath.STREAM),
        (accepted(0), "initiated", []),
        (answered(100), "answered", [mc.Connected()]),
        (ev.EndRequested(at=200), "answered", [mc.HangUp()]),
    )
    assert mc.step(record, due(10_100, DeadlineKind.STREAM), SPEAKING_CARRIER).effects == ()


def test_a_call_that_is_being_ended_is_not_answered() -> None:
    tell(
        inbound(),
        (ev.EndRequested(at=100), "ringing", [mc.HangUp()]),
        (ev.Initiated(at=200, key="again", provider_call_id=ID), "ringing", []),
    )


def test_what_a_notification_has_still_to_tell_has_its_time() -> None:
    def stream_due(state: MessageState) -> mc.Step:
        record = outbound(CallMode.NOTIFY, MediaPath.STREAM)
        record = tell(
            record,
            (accepted(0), "initiated", []),
            (answered(100), "answered", [mc.Connected()]),
        )
        assert record.message is not None
        record = replace(record, message=replace(record.message, state=state, text="x" * 500))
        return mc.step(record, due(10_100, DeadlineKind.STREAM), SPEAKING_CARRIER)

    for state in (MessageState.PENDING, MessageState.PLAYING):
        step = stream_due(state)
        assert step.effects == (mc.StreamMissing(EndDetail.STREAM_NEVER_STARTED),)
        assert step.record.deadlines[DeadlineKind.LAST_WORDS] == 70_100 + 60_000
    assert stream_due(MessageState.DONE).effects == (mc.HangUp(),)


def test_the_carriers_end_during_our_hang_up_keeps_its_reason() -> None:
    record = tell(
        outbound(),
        (accepted(0), "initiated", []),
        (answered(100), "answered", [mc.Connected()]),
        (ev.EndRequested(at=200), "answered", [mc.HangUp()]),
        (ended(250, EndReason.HANGUP_USER), "hangup-user", [mc.Release()]),
        (ev.HangUpDone(at=300), "hangup-user", []),
    )
    assert (record.ended_at, record.end_detail) == (250, EndDetail.CARRIER)


def test_a_plain_completed_during_our_hang_up_is_our_end() -> None:
    record = tell(
        outbound(),
        (answered(100), "answered", [mc.Connected()]),
        (ev.EndRequested(at=200), "answered", [mc.HangUp()]),
        (ended(250), "hangup-bot", [mc.Release()]),
    )
    assert record.end_detail is EndDetail.REQUESTED


def test_a_carrier_that_tells_of_our_hang_up_does_not_know_why() -> None:
    record = tell(
        outbound(),
        (accepted(0), "initiated", []),
        (ringing(10), "ringing", []),
        (due(45_000, DeadlineKind.RING), "ringing", [mc.HangUp()]),
        (ended(45_050, EndReason.HANGUP_BOT), "no-answer", [mc.Release()]),
    )
    assert record.end_detail is EndDetail.RING_TIMEOUT


def test_the_longest_call() -> None:
    record = tell(
        outbound(),
        (answered(100), "answered", [mc.Connected()]),
        (due(300_100, DeadlineKind.MAX_DURATION), "answered", [mc.HangUp()]),
        (ev.HangUpFailed(at=300_200, error="503"), "answered", []),
        (due(301_200, DeadlineKind.HANGUP), "answered", [mc.HangUp()]),
        (ev.HangUpDone(at=301_300), "timeout", [mc.Release()]),
    )
    assert record.end_detail is EndDetail.MAX_DURATION


def test_the_longest_call_that_nobody_answers() -> None:
    tell(
        inbound(),
        (due(329_999, DeadlineKind.MAX_DURATION), "ringing", []),
        (due(330_000, DeadlineKind.MAX_DURATION), "ringing", [mc.HangUp()]),
    )
    tell(
        outbound(),
        (accepted(100), "initiated", []),
        (due(359_999, DeadlineKind.MAX_DURATION), "initiated", []),
        (due(360_000, DeadlineKind.MAX_DURATION), "initiated", [mc.HangUp()]),
    )


def test_the_reaper_may_be_turned_off() -> None:
    record = mc.open_inbound(
        call_id="c",
        provider="p",
        event=ringing(0),
        media=MediaPath.NATIVE,
        greeting=None,
        policy=mc.CallPolicy(unanswered_ms=0),
    )
    assert set(record.deadlines) == {DeadlineKind.MAX_DURATION, DeadlineKind.PROBE}


def test_the_reaper_takes_calls_that_nobody_answered() -> None:
    record = tell(
        inbound(),
        (due(119_999, DeadlineKind.UNANSWERED), "ringing", []),
        (due(120_000, DeadlineKind.UNANSWERED), "ringing", [mc.HangUp()]),
        (ev.HangUpDone(at=120_100), "hangup-bot", [mc.Release()]),
    )
    assert record.end_detail is EndDetail.REAPER


@pytest.mark.parametrize(
    "sign", [answered(100), heard(100, "hi"), ev.StreamAttached(at=100, stream_id="s1")]
)
def test_the_reaper_never_takes_a_call_that_lives(sign: ev.CallEvent) -> None:
    record = mc.step(inbound(), sign, POLICY).record
    assert DeadlineKind.UNANSWERED not in record.deadlines
    after = mc.step(record, due(10**9, DeadlineKind.UNANSWERED), POLICY)
    assert (after.record, after.effects) == (record, ())


def test_speech_that_answers_another_question_does_not_count() -> None:
    record = tell(
        outbound(),
        (answered(100), "answered", [mc.Connected()]),
        (ev.ListenStarted(at=200, token="t2"), "listening", []),
        (heard(300, "too late", "t1"), "listening", []),
        (heard(400, "in time", "t2"), "listening", [mc.CallerTurn("in time")]),
        # No question is open any more.
        (heard(500, "and more", "t2"), "listening", [mc.CallerTurn("and more")]),
    )
    assert [entry.text for entry in record.transcript] == ["in time", "and more"]


def test_a_lost_stream_that_is_given_up_has_no_deadline() -> None:
    record = tell(
        inbound(MediaPath.STREAM),
        (ev.StreamAttached(at=200, stream_id="s1"), "active", [mc.Connected()]),
        (ev.StreamDetached(at=5_000, stream_id="s1"), "active", [mc.ReattachStream()]),
        (ev.StreamGivenUp(at=5_100), "active", []),
    )
    assert DeadlineKind.STREAM not in record.deadlines


def test_words_that_are_context_are_no_turn() -> None:
    record = tell(
        inbound(MediaPath.STREAM),
        (answered(100), "answered", [mc.Connected()]),
        (ev.CallerSaid(at=200, text="Hello?", context=True), "listening", []),
    )
    assert [entry.text for entry in record.transcript] == ["Hello?"]


def test_what_the_carrier_repeats_is_passed_over() -> None:
    spoken = ev.PlaybackEnded(at=600, key="q", provider_call_id=ID, utterance_id="u2")
    record = tell(
        inbound(),
        (ev.Initiated(at=0, key="0", provider_call_id=ID), "ringing", [mc.AnswerCall()]),
        (answered(100), "answered", [mc.Connected()]),
        (ev.Initiated(at=200, key="1", provider_call_id=ID), "answered", []),
        (ringing(300), "answered", []),
        (says(400, "u2", "Well."), "speaking", []),
        (
            ev.PlaybackEnded(at=500, key="p", provider_call_id=ID, utterance_id="u1"),
            "speaking",
            [],
        ),
        (spoken, "listening", [mc.PlaybackFinished("u2", True)]),
        (replace(spoken, at=700, key="r"), "listening", []),
    )
    assert [entry.text for entry in record.transcript] == ["Well."]


def test_what_was_heard_of_failed_speech_is_part_of_the_transcript() -> None:
    failed = ev.PlaybackEnded(at=700, key="p", provider_call_id=ID, utterance_id="u2", ok=False)
    record = tell(
        inbound(),
        (answered(100), "answered", [mc.Connected()]),
        (says(400, "u1", "Well, well."), "speaking", []),
        (
            ev.BotSpoke(at=500, utterance_id="u1", heard="Well,", complete=False, ok=False),
            "listening",
            [],
        ),
        (says(600, "u2", "Once more."), "speaking", []),
        (failed, "listening", [mc.PlaybackFinished("u2", False)]),
    )
    assert [(entry.text, entry.complete) for entry in record.transcript] == [("Well,", False)]


def test_what_was_not_heard_at_all_is_no_part_of_the_transcript() -> None:
    record = tell(
        inbound(),
        (answered(100), "answered", [mc.Connected()]),
        (says(400, "u1", "Well."), "speaking", []),
        (ev.BotSpoke(at=500, utterance_id="u1", heard=" ", complete=False), "listening", []),
    )
    assert record.transcript == ()


def test_speech_of_a_carrier_without_tokens_always_counts() -> None:
    tell(
        outbound(),
        (answered(100), "answered", [mc.Connected()]),
        (ev.ListenStarted(at=200, token="t2"), "listening", []),
        (heard(300, "Hello?"), "listening", [mc.CallerTurn("Hello?")]),
    )


def test_a_first_message_that_cannot_be_played_ends_the_call() -> None:
    record = tell(
        outbound(),
        (answered(100), "answered", [mc.Connected()]),
        (says(200, "u", "Hello.", first=True), "speaking", []),
        (ev.BotSpoke(at=300, utterance_id="u", heard="", ok=False), "listening", []),
        (due(1_299, DeadlineKind.MESSAGE), "listening", []),
        (due(1_300, DeadlineKind.MESSAGE), "listening", [mc.PlayMessage()]),
        (says(1_400, "u", "Hello.", first=True), "speaking", []),
        (
            ev.BotSpoke(at=1_500, utterance_id="u", heard="", ok=False),
            "listening",
            [mc.HangUp()],
        ),
        (ev.HangUpDone(at=1_600), "error", [mc.Release()]),
    )
    assert record.end_detail is EndDetail.MESSAGE_FAILED


def test_a_first_message_that_other_speech_displaced_is_tried_again() -> None:
    tell(
        outbound(CallMode.NOTIFY),
        (answered(0), "answered", [mc.Connected()]),
        (says(0, "u1", "Hello.", first=True), "speaking", []),
        (says(100, "u2", "Sorry."), "speaking", []),
        (ev.BotSpoke(at=900, utterance_id="u2", heard="Sorry."), "listening", []),
        (due(60_720, DeadlineKind.MESSAGE), "listening", []),
        (due(61_720, DeadlineKind.MESSAGE), "listening", [mc.PlayMessage()]),
    )


def test_a_greeting_that_the_caller_interrupts_is_not_said_again() -> None:
    record = tell(
        inbound(MediaPath.STREAM),
        (ev.StreamAttached(at=200, stream_id="s1"), "active", [mc.Connected()]),
        (says(300, "u", "Hello.", first=True), "speaking", []),
        (ev.BotSpoke(at=400, utterance_id="u", heard="Hel", complete=False), "listening", []),
    )
    assert record.message is not None
    assert (record.message.state, record.message.attempts) == (MessageState.DONE, 1)
    assert DeadlineKind.MESSAGE not in record.deadlines


def test_a_longer_first_message_has_longer_to_be_played() -> None:
    record = tell(outbound(), (answered(0), "answered", [mc.Connected()]))
    for text, at in (("Hello.", 60_920), ("Hello. " * 100, 144_200)):
        spoken = mc.step(record, says(200, "u", text, first=True), POLICY).record
        assert spoken.deadlines[DeadlineKind.MESSAGE] == at


def test_the_end_of_speech_that_was_displaced_is_not_that_of_the_present_one() -> None:
    record = tell(
        outbound(),
        (answered(0), "answered", [mc.Connected()]),
        (says(100, "u1", "Well."), "speaking", []),
        (says(200, "u2", "Sorry."), "speaking", []),
        (ev.BotSpoke(at=300, utterance_id="u1", heard="Well."), "speaking", []),
    )
    late = ev.PlaybackEnded(at=400, key="p", provider_call_id=ID, utterance_id="u1")
    assert mc.step(record, late, POLICY).outcome is mc.Outcome.IGNORED
    assert record.utterance is not None
    assert (record.utterance.id, record.transcript) == ("u2", ())


def test_a_greeting_whose_end_is_never_told_is_said_once_more() -> None:
    tell(
        outbound(),
        (answered(0), "answered", [mc.Connected()]),
        (says(0, "u1", "Hello.", first=True), "speaking", []),
        (due(60_719, DeadlineKind.MESSAGE), "speaking", []),
        (due(60_720, DeadlineKind.MESSAGE), "listening", []),
        (due(61_720, DeadlineKind.MESSAGE), "listening", [mc.PlayMessage()]),
    )


def test_an_end_asked_for_while_the_dial_is_under_way() -> None:
    record = tell(
        outbound(),
        (ev.EndRequested(at=10), "initiated", []),
        (accepted(500), "initiated", [mc.HangUp()]),
        (ev.HangUpDone(at=600), "hangup-bot", [mc.Release()]),
    )
    assert record.aliases == (ID,)


def test_a_dial_of_unknown_outcome_is_looked_up_and_never_repeated() -> None:
    record = tell(
        outbound(),
        (ev.DialUncertain(at=10, error="timeout"), "initiated", [mc.LookUpDial()]),
        (ev.DialLookedUp(at=20, provider_call_id=ID), "initiated", [mc.ProbeStatus()]),
        (ringing(30), "ringing", []),
    )
    assert DeadlineKind.RING in record.deadlines
    gone = tell(
        outbound(),
        (ev.DialUncertain(at=10, error="timeout"), "initiated", [mc.LookUpDial()]),
        (ev.DialLookedUp(at=20, provider_call_id=None), "failed", [mc.Release()]),
    )
    assert gone.end_detail is EndDetail.DIAL_UNKNOWN


def test_a_dial_of_unknown_outcome_is_looked_up_also_behind_its_deadline() -> None:
    tell(
        outbound(),
        (due(30_000, DeadlineKind.DIAL), "failed", [mc.Release()]),
        (ev.DialUncertain(at=25_000, error="timeout"), "failed", [mc.LookUpDial()]),
        (ev.DialLookedUp(at=31_000, provider_call_id=ID), "failed", [mc.HangUp()]),
        (ev.DialUncertain(at=25_000, error="timeout"), "failed", []),
    )


@pytest.mark.parametrize(
    "uncertain", [ev.DialUncertain(at=25_000, error="timeout"), ev.Recovered(at=25_000)]
)
def test_a_call_that_is_ended_is_not_over_before_it_was_looked_up(uncertain: ev.CallEvent) -> None:
    ended = tell(
        outbound(),
        (ev.EndRequested(at=10), "initiated", []),
        (uncertain, "initiated", [mc.LookUpDial()]),
        (due(54_999, DeadlineKind.HANGUP), "initiated", []),
    )
    tell(
        ended,
        (ev.DialLookedUp(at=55_000, provider_call_id=ID), "initiated", [mc.HangUp()]),
        (ev.HangUpDone(at=55_100), "hangup-bot", [mc.Release()]),
    )
    tell(ended, (due(55_000, DeadlineKind.HANGUP), "hangup-bot", [mc.Release()]))


def test_a_restart_in_the_middle_of_a_streamed_call() -> None:
    live = ev.StatusReported(at=5_100, status=ev.CarrierStatus.CONNECTED)
    record = tell(
        inbound(MediaPath.STREAM),
        (ev.StreamAttached(at=200, stream_id="s1"), "active", [mc.Connected()]),
        (says(300, "u1", "Hello.", first=True), "speaking", []),
        (ev.Recovered(at=5_000), "speaking", [mc.ProbeStatus()]),
        (live, "speaking", [mc.Connected(resumed=True)]),
        (ev.StreamAttached(at=6_000, stream_id="s2"), "speaking", []),
    )
    assert record.message is not None
    assert record.message.state is MessageState.PENDING
    assert record.utterance is None
    assert not record.recovering
    assert DeadlineKind.STREAM not in record.deadlines


def test_a_greeting_that_was_said_before_a_restart_is_not_said_again() -> None:
    record = tell(
        inbound(MediaPath.STREAM),
        (ev.StreamAttached(at=200, stream_id="s1"), "active", [mc.Connected()]),
        (says(300, "u1", "Hello.", first=True), "speaking", []),
        (ev.BotSpoke(at=900, utterance_id="u1", heard="Hello."), "listening", []),
        (ev.Recovered(at=5_000), "listening", [mc.ProbeStatus()]),
    )
    assert record.message is not None
    assert record.message.state is MessageState.DONE


def test_after_a_restart_a_media_socket_is_waited_for_where_the_call_has_one() -> None:
    connected = ev.StatusReported(at=5_100, status=ev.CarrierStatus.CONNECTED)
    streamed = tell(
        inbound(MediaPath.STREAM),
        (ev.StreamAttached(at=200, stream_id="s1"), "active", [mc.Connected()]),
        (ev.Recovered(at=5_000), "active", [mc.ProbeStatus()]),
        (connected, "active", [mc.Connected(resumed=True)]),
    )
    assert streamed.deadlines[DeadlineKind.STREAM] == 5_100 + POLICY.stream_start_ms
    native = tell(
        inbound(),
        (answered(100), "answered", [mc.Connected()]),
        (ev.Recovered(at=5_000), "answered", [mc.ProbeStatus()]),
        (connected, "answered", [mc.Connected(resumed=True)]),
    )
    assert DeadlineKind.STREAM not in native.deadlines


def test_calls_that_we_place_are_not_answered_by_us() -> None:
    tell(
        outbound(),
        (accepted(0), "initiated", []),
        (ev.Initiated(at=10, key="i", provider_call_id=ID), "initiated", []),
        (ev.Recovered(at=5_000), "initiated", [mc.ProbeStatus()]),
        (ev.StatusReported(at=5_100, status=ev.CarrierStatus.LIVE), "initiated", []),
    )


@pytest.mark.parametrize("late", [DeadlineKind.RING, DeadlineKind.MAX_DURATION])
def test_what_fell_due_while_nobody_watched_waits_for_the_carriers_word(
    late: DeadlineKind,
) -> None:
    record = tell(
        outbound(),
        (accepted(0), "initiated", []),
        (ringing(10), "ringing", []),
    )
    if late is DeadlineKind.MAX_DURATION:
        record = tell(record, (answered(20), "answered", [mc.Connected()]))
    busy = ev.StatusReported(at=900_300, status=ev.CarrierStatus.ENDED, reason=EndReason.BUSY)
    waiting = tell(
        record,
        (ev.Recovered(at=900_000), record.state.value, [mc.ProbeStatus()]),
        (due(900_200, late), record.state.value, []),
    )
    over = tell(waiting, (busy, "busy", [mc.Release()]))
    assert over.end_detail is EndDetail.CARRIER
    # If the carrier does not know, the deadline stands.
    tell(waiting, (due(902_000, late), record.state.value, [mc.HangUp()]))


def test_a_clock_that_was_set_back_lengthens_no_call() -> None:
    day = 24 * 3_600_000
    record = tell(
        outbound(CallMode.NOTIFY, MediaPath.STREAM),
        (accepted(day), "initiated", []),
        (ev.StreamAttached(at=day, stream_id="s1"), "active", [mc.Connected()]),
        (says(day, "u1", "Hello.", first=True), "speaking", []),
        (ev.BotSpoke(at=day, utterance_id="u1", heard="Hello."), "listening", []),
    )
    again = tell(record, (ev.Recovered(at=500), "listening", [mc.ProbeStatus()]))
    longest = POLICY.dial_ms + POLICY.ring_timeout_ms + POLICY.unanswered_ms
    longest += POLICY.max_duration_ms
    assert set(again.deadlines) == set(record.deadlines)
    assert set(again.deadlines.values()) == {500 + longest}
    # A clock that is set forward, or corrected, moves nothing.
    later = tell(record, (ev.Recovered(at=day + 500), "listening", [mc.ProbeStatus()]))
    assert later.deadlines == record.deadlines


def test_a_restart_after_the_carrier_ended_the_call() -> None:
    gone = ev.StatusReported(at=5_100, status=ev.CarrierStatus.ENDED, reason=EndReason.HANGUP_USER)
    record = tell(
        outbound(),
        (answered(0), "answered", [mc.Connected()]),
        (ev.Recovered(at=5_000), "answered", [mc.ProbeStatus()]),
        (gone, "hangup-user", [mc.Release()]),
    )
    assert not record.recovering


def test_a_quiet_call_is_asked_about_and_only_news_of_the_carrier_put_that_off() -> None:
    uncertain = ev.DialUncertain(at=0, error="timeout")
    record = tell(outbound(), (uncertain, "initiated", [mc.LookUpDial()]))
    assert DeadlineKind.PROBE not in record.deadlines
    record = tell(record, (accepted(100), "initiated", []))
    # Also if no webhook ever comes.
    tell(record, (due(43_100, DeadlineKind.PROBE), "initiated", [mc.ProbeStatus()]))
    assert inbound().deadlines[DeadlineKind.PROBE] == POLICY.quiet_ms
    record = tell(
        record,
        (answered(1_000), "answered", [mc.Connected()]),
        (says(50_000, "u1", "Hello.", first=True), "speaking", []),
        (due(60_999, DeadlineKind.PROBE), "speaking", []),
        (due(61_000, DeadlineKind.PROBE), "speaking", [mc.ProbeStatus()]),
        (ev.StatusReported(at=61_500, status=ev.CarrierStatus.UNKNOWN), "speaking", []),
        (due(120_999, DeadlineKind.PROBE), "speaking", []),
        (due(121_000, DeadlineKind.PROBE), "speaking", [mc.ProbeStatus()]),
        (ev.StatusReported(at=122_000, status=ev.CarrierStatus.CONNECTED), "speaking", []),
        (due(181_999, DeadlineKind.PROBE), "speaking", []),
        (due(182_000, DeadlineKind.PROBE), "speaking", [mc.ProbeStatus()]),
    )
    assert record.live


def test_every_id_that_the_carrier_has_for_a_call_is_kept() -> None:
    other = replace(ringing(20), provider_call_id="P2")
    record = tell(outbound(), (accepted(10), "initiated", []), (other, "ringing", []))
    assert (record.provider_call_id, record.aliases) == ("P2", (ID, "P2"))
    # The id of the dial request is the older one, however late its reply comes.
    record = tell(outbound(), (other, "ringing", []), (accepted(30), "ringing", []))
    assert (record.provider_call_id, record.aliases) == ("P2", ("P2", ID))


def test_another_id_of_a_call_asks_for_no_second_word_after_a_restart() -> None:
    tell(
        outbound(),
        (ev.Recovered(at=5_000), "initiated", [mc.LookUpDial()]),
        (ev.DialLookedUp(at=5_010, provider_call_id=ID), "initiated", [mc.ProbeStatus()]),
        (replace(ringing(5_020), provider_call_id="P2"), "ringing", []),
    )


def test_a_call_that_turns_up_too_late_is_hung_up_with_every_sign_of_life() -> None:
    tell(
        outbound(),
        (due(29_999, DeadlineKind.DIAL), "initiated", []),
        (due(30_000, DeadlineKind.DIAL), "failed", [mc.Release()]),
        (ringing(31_000), "failed", [mc.HangUp()]),
        (answered(32_000), "failed", [mc.HangUp()]),
        (ended(33_000), "failed", []),
    )


def test_a_refused_dial_of_a_call_that_rings_was_no_refusal() -> None:
    record = tell(
        outbound(),
        (ringing(10), "ringing", []),
        (ev.DialRefused(at=20, error="no"), "ringing", []),
        (ev.DialLookedUp(at=30, provider_call_id=None), "ringing", []),
    )
    assert record.live


def test_keypad_tones_are_no_part_of_the_time_to_ring() -> None:
    dialled = replace(outbound(), dtmf_sequence="wwww1")
    tones = tones_ms("wwww1")
    assert tones > 2_000
    tell(
        dialled,
        (accepted(0), "initiated", []),
        (due(45_000 + tones - 1, DeadlineKind.RING), "initiated", []),
        (due(45_000 + tones, DeadlineKind.RING), "initiated", [mc.HangUp()]),
    )


def test_a_call_that_was_given_up_while_it_was_dialled_is_hung_up_until_it_is_over() -> None:
    record = tell(
        outbound(),
        (ev.EndRequested(at=10), "initiated", []),
        (accepted(500), "initiated", [mc.HangUp()]),
        (replace(ringing(600), provider_call_id="P2"), "ringing", []),
        (due(10_499, DeadlineKind.HANGUP), "ringing", []),
        (due(10_500, DeadlineKind.HANGUP), "ringing", [mc.HangUp()]),
        (due(10**9, DeadlineKind.DIAL), "ringing", []),
    )
    assert record.live
    placed = tell(outbound(), (accepted(0), "initiated", []))
    ending = tell(placed, (ev.EndRequested(at=10), "initiated", [mc.HangUp()]))
    assert ending.deadlines[DeadlineKind.HANGUP] == 10_010
    tell(
        outbound(),
        (ev.EndRequested(at=10), "initiated", []),
        (ev.DialUncertain(at=500, error="timeout"), "initiated", [mc.LookUpDial()]),
        (ev.DialLookedUp(at=600, provider_call_id=ID), "initiated", [mc.HangUp()]),
    )


@pytest.mark.parametrize("refused", [False, True])
def test_a_hang_up_is_asked_for_so_often_and_no_more(refused: bool) -> None:
    record = tell(outbound(), (answered(0), "answered", [mc.Connected()]))
    result = mc.step(record, ev.EndRequested(at=1_000), POLICY)
    requests = 0
    while result.record.live:
        requests += result.effects.count(mc.HangUp())
        at = result.record.deadlines[DeadlineKind.HANGUP]
        if refused:
            result = mc.step(result.record, ev.HangUpFailed(at=at - 1, error="503"), POLICY)
            at = result.record.deadlines.get(DeadlineKind.HANGUP, at)
        result = mc.step(result.record, due(at, DeadlineKind.HANGUP), POLICY)
    assert requests == POLICY.hangup_attempts
    assert result.record.end_reason is EndReason.ERROR
    assert result.record.end_detail is EndDetail.HANGUP_FAILED
    # After the last refusal there is nothing to wait for.
    assert result.record.end_note == ("503" if refused else None)


def test_a_carrier_that_refuses_twice_to_hang_up_is_asked_about_the_call() -> None:
    tell(
        outbound(),
        (answered(0), "answered", [mc.Connected()]),
        (ev.EndRequested(at=1_000), "answered", [mc.HangUp()]),
        (due(10_999, DeadlineKind.HANGUP), "answered", []),
        (ev.HangUpFailed(at=11_000, error="503"), "answered", []),
        (due(12_000, DeadlineKind.HANGUP), "answered", [mc.HangUp()]),
        (ev.HangUpFailed(at=12_100, error="503"), "answered", [mc.ProbeStatus()]),
        (due(14_099, DeadlineKind.HANGUP), "answered", []),
        (due(14_100, DeadlineKind.HANGUP), "answered", [mc.HangUp()]),
        # A carrier that does not answer is given longer.
        (due(24_099, DeadlineKind.HANGUP), "answered", []),
        (due(24_100, DeadlineKind.HANGUP), "answered", [mc.HangUp()]),
    )


def test_a_carrier_that_knows_nothing_after_a_restart_is_asked_again() -> None:
    tell(
        inbound(),
        (ev.Initiated(at=0, key="0", provider_call_id=ID), "ringing", [mc.AnswerCall()]),
        (ev.Recovered(at=5_000), "ringing", [mc.ProbeStatus()]),
        (ev.StatusReported(at=5_100, status=ev.CarrierStatus.UNKNOWN), "ringing", []),
        (due(10_099, DeadlineKind.PROBE), "ringing", []),
        (due(10_100, DeadlineKind.PROBE), "ringing", [mc.ProbeStatus()]),
        # Our answer may never have reached the carrier.
        (
            ev.StatusReported(at=10_200, status=ev.CarrierStatus.LIVE),
            "ringing",
            [mc.AnswerCall()],
        ),
        (ev.StatusReported(at=10_300, status=ev.CarrierStatus.LIVE), "ringing", []),
    )


def test_a_restart_while_the_dial_is_under_way_leaves_time_to_look_it_up() -> None:
    tell(
        outbound(),
        (ev.Recovered(at=900_000), "initiated", [mc.LookUpDial()]),
        (due(929_999, DeadlineKind.DIAL), "initiated", []),
        (due(930_000, DeadlineKind.DIAL), "failed", [mc.Release()]),
    )


def test_a_call_that_was_answered_while_nobody_watched_begins_only_now() -> None:
    tell(
        outbound(),
        (accepted(0), "initiated", []),
        (ev.Recovered(at=5_000), "initiated", [mc.ProbeStatus()]),
        (
            ev.StatusReported(at=5_100, status=ev.CarrierStatus.CONNECTED),
            "answered",
            [mc.Connected()],
        ),
    )
    tell(
        inbound(),
        (ev.Initiated(at=0, key="0", provider_call_id=ID), "ringing", [mc.AnswerCall()]),
        (ev.Recovered(at=5_000), "ringing", [mc.ProbeStatus()]),
        (
            ev.StatusReported(at=5_100, status=ev.CarrierStatus.CONNECTED),
            "answered",
            [mc.Connected()],
        ),
    )


def test_another_id_of_a_call_that_rings_lets_it_ring_no_longer() -> None:
    record = tell(outbound(), (accepted(0), "initiated", []))
    again = tell(record, (ev.DialAccepted(at=9_000, provider_call_id="P2"), "initiated", []))
    assert again.deadlines == record.deadlines
    assert DeadlineKind.RING in again.deadlines


def test_a_stream_that_is_back_before_the_carriers_word_is_not_waited_for() -> None:
    record = tell(
        inbound(MediaPath.STREAM),
        (ev.StreamAttached(at=200, stream_id="s1"), "active", [mc.Connected()]),
        (ev.Recovered(at=5_000), "active", [mc.ProbeStatus()]),
        (ev.StreamAttached(at=5_050, stream_id="s2"), "active", []),
        (
            ev.StatusReported(at=5_100, status=ev.CarrierStatus.CONNECTED),
            "active",
            [mc.Connected(resumed=True)],
        ),
    )
    assert record.stream_id == "s2"
    assert DeadlineKind.STREAM not in record.deadlines


def test_a_first_message_that_the_carrier_speaks_goes_on_over_a_restart() -> None:
    connected = ev.StatusReported(at=5_100, status=ev.CarrierStatus.CONNECTED)
    record = tell(
        inbound(),
        (answered(100), "answered", [mc.Connected()]),
        (says(200, "u1", "Hello.", first=True), "speaking", []),
        (ev.Recovered(at=5_000), "speaking", [mc.ProbeStatus()]),
        (connected, "speaking", [mc.Connected(resumed=True)]),
    )
    assert record.message is not None
    assert record.message.state is MessageState.PLAYING
    record = tell(
        record,
        (
            ev.PlaybackEnded(at=5_200, key="p", provider_call_id=ID, utterance_id="u1"),
            "listening",
            [mc.PlaybackFinished("u1", True)],
        ),
        # Anything else that it was to say may never have reached it.
        (says(5_300, "u2", "Well."), "speaking", []),
        (ev.Recovered(at=6_000), "speaking", [mc.ProbeStatus()]),
        (
            ev.PlaybackEnded(at=6_200, key="q", provider_call_id=ID, utterance_id="u2"),
            "speaking",
            [],
        ),
    )
    assert record.message is not None
    assert record.message.state is MessageState.DONE
    assert [entry.text for entry in record.transcript] == ["Hello."]


def test_a_carrier_that_tells_of_a_failed_stream_may_mean_one_that_is_known_to_be_lost() -> None:
    def failed(at: int, stream: str | None) -> ev.StreamFailed:
        return ev.StreamFailed(
            at=at, key=f"f{at}", provider_call_id=ID, error="gone", stream_id=stream
        )

    tell(
        inbound(MediaPath.STREAM),
        (ev.StreamAttached(at=200, stream_id="s1"), "active", [mc.Connected()]),
        (failed(300, "s0"), "active", []),
        (failed(400, "s1"), "active", [mc.ReattachStream()]),
        (failed(500, "s1"), "active", []),
        (ev.StreamAttached(at=600, stream_id="s2"), "active", []),
        (failed(700, "s1"), "active", []),
        (failed(800, None), "active", [mc.ReattachStream()]),
        (failed(900, "s2"), "active", []),
        # Late news of the previous stream, while the next one is on its way.
        (failed(1_000, "s1"), "active", []),
        (failed(1_100, "s3"), "active", [mc.ReattachStream()]),
    )


def test_late_news_of_a_stream_cut_no_keypad_tones_short() -> None:
    failed = ev.StreamFailed(at=9_100, key="f", provider_call_id=ID, error="gone", stream_id="s1")
    tell(
        inbound(MediaPath.STREAM),
        (ev.StreamAttached(at=200, stream_id="s1"), "active", [mc.Connected()]),
        (ev.StreamDetached(at=5_000, stream_id="s1"), "active", [mc.ReattachStream()]),
        (ev.StreamAttached(at=5_500, stream_id="s2"), "active", []),
        (ev.StreamSwapping(at=9_000, busy_ms=3_000), "active", []),
        (failed, "active", []),
    )


def test_news_of_streams_means_nothing_where_none_is_wanted() -> None:
    failed = ev.StreamFailed(at=900, key="f", provider_call_id=ID, error="gone")
    swap = ev.StreamSwapping(at=900, busy_ms=3_000)
    native = tell(inbound(), (answered(100), "answered", [mc.Connected()]))
    attached = tell(
        inbound(MediaPath.STREAM),
        (ev.StreamAttached(at=200, stream_id="s1"), "active", [mc.Connected()]),
    )
    ending = tell(attached, (ev.EndRequested(at=300), "active", [mc.HangUp()]))
    lost = tell(
        attached,
        (ev.StreamDetached(at=800, stream_id="s1"), "active", [mc.ReattachStream()]),
    )
    for record, event in (
        (native, failed),
        (native, swap),
        (ending, failed),
        (ending, swap),
        (lost, swap),
    ):
        assert mc.step(record, event, POLICY) == mc.Step(record, outcome=mc.Outcome.IGNORED)


def test_a_failure_that_the_carrier_may_mend_ends_no_call() -> None:
    def failed(retryable: bool) -> ev.CallFailed:
        return ev.CallFailed(
            at=900, key="f", provider_call_id=ID, error="no route", retryable=retryable
        )

    record = tell(outbound(), (accepted(100), "initiated", []))
    assert mc.step(record, failed(True), POLICY).outcome is mc.Outcome.RETRYABLE
    over = tell(record, (failed(False), "error", [mc.Release()]))
    assert (over.end_detail, over.end_note) == (EndDetail.CARRIER, "no route")


def test_few_of_the_streams_that_were_lost_are_remembered() -> None:
    record = tell(
        inbound(MediaPath.STREAM),
        (ev.StreamAttached(at=200, stream_id="s0"), "active", [mc.Connected()]),
    )
    for number in range(1, 30):
        record = tell(
            record,
            (
                ev.StreamDetached(at=300, stream_id=f"s{number - 1}"),
                "active",
                [mc.ReattachStream()],
            ),
            (ev.StreamAttached(at=300, stream_id=f"s{number}"), "active", []),
        )
    assert len(record.earlier_stream_ids) == 8


def test_what_means_nothing_any_more_is_ignored() -> None:
    record = tell(outbound(), (accepted(100), "initiated", []))
    late: list[ev.CallEvent] = [
        ev.DialRefused(at=200, error="no"),
        ev.DialUncertain(at=200, error="timeout"),
        ev.DialLookedUp(at=200, provider_call_id=None),
        ev.HangUpDone(at=200),
        ev.HangUpFailed(at=200, error="no"),
        ev.StreamDetached(at=200, stream_id="s1"),
        ev.BotSpoke(at=200, utterance_id="u1", heard="Well."),
    ]
    for event in late:
        assert mc.step(record, event, POLICY) == mc.Step(record, outcome=mc.Outcome.IGNORED)
    ending = tell(record, (ev.EndRequested(at=300), "initiated", [mc.HangUp()]))
    again = mc.step(ending, ev.EndRequested(at=400), POLICY)
    assert again == mc.Step(ending, outcome=mc.Outcome.IGNORED)
