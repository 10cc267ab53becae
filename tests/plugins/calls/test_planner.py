"""From effects to actions: first words, answers and media sockets, in the event's own step."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import pytest
from msgspec.structs import replace as changed

from voicecall import events as ev
from voicecall import machine as mc
from voicecall import telephony as tel
from voicecall.model import (
    CallMode,
    CallRecord,
    CallState,
    Direction,
    EndDetail,
    MediaPath,
    MessageState,
)
from voicecall.telephony import StreamPoint
from voicecall_calls.engine.planner import Plan, Planner
from voicecall_testing.fakes import NATIVE

pytestmark = pytest.mark.unit

POLICY = mc.CallPolicy()
URL = "wss://phone.test/voice/stream"


def planner(*points: StreamPoint, voice: str | None = "v") -> Planner:
    tokens, ids = count(1), count(1)
    return Planner(
        replace(NATIVE, stream=frozenset(points)),
        POLICY,
        stream_url=lambda: URL,
        new_token=lambda: f"token-{next(tokens)}",
        new_id=lambda: f"id-{next(ids)}",
        voice=lambda record: voice,
        speaks_at_dial=lambda words: False,
        end_silence_ms=700,
    )


def inbound(media: MediaPath) -> CallRecord:
    return mc.open_inbound(
        call_id="c",
        provider="scripted",
        event=ev.Initiated(at=1, key="k", provider_call_id="p", direction=Direction.INBOUND),
        media=media,
        greeting="Good morning.",
        policy=POLICY,
    )


def outbound(media: MediaPath, mode: CallMode = CallMode.CONVERSATION) -> CallRecord:
    return mc.open_outbound(
        call_id="c",
        provider="scripted",
        from_number="+1",
        to_number="+2",
        at=1,
        mode=mode,
        media=media,
        message="Good morning.",
        policy=POLICY,
    ).record


def plan_of(plans: Planner, record: CallRecord, event: ev.CallEvent) -> Plan:
    return plans.plan(mc.step(record, event, POLICY), event)


def initiated() -> ev.Initiated:
    return ev.Initiated(at=2, key="i", provider_call_id="p")


def answered() -> ev.Answered:
    return ev.Answered(at=3, key="a", provider_call_id="p")


def stream(number: int = 1) -> tel.StreamRequest:
    return tel.StreamRequest(URL, f"token-{number}")


@pytest.mark.parametrize("point", [StreamPoint.ANSWER, StreamPoint.DOCUMENT])
def test_the_answer_asks_for_the_stream_where_the_carrier_takes_it_there(
    point: StreamPoint,
) -> None:
    plans = planner(point, StreamPoint.COMMAND)
    plan = plan_of(plans, inbound(MediaPath.STREAM), initiated())
    assert plan.actions == [tel.Answer(stream())]
    assert plan.tokens == ["token-1"]
    plan = plan_of(plans, plan.record, answered())
    assert plan.actions == []
    assert mc.Connected() in plan.effects


def test_a_call_that_the_carrier_itself_carries_is_answered_without_a_stream() -> None:
    plan = plan_of(planner(StreamPoint.ANSWER), inbound(MediaPath.NATIVE), initiated())
    assert plan.actions == [tel.Answer(None)]
    assert plan.tokens == []


def test_a_carrier_that_cannot_limit_a_live_call_is_not_asked_to() -> None:
    plan = plan_of(planner(), inbound(MediaPath.NATIVE), answered())
    assert [type(action) for action in plan.actions] == [tel.Speak]
    plans = planner(StreamPoint.ANSWER)
    plan = plan_of(plans, inbound(MediaPath.STREAM), answered())
    plan = plan_of(plans, plan.record, ev.StreamAttached(at=4, stream_id="s"))
    assert plan.actions == []


def test_the_stream_is_commanded_after_the_answer_where_only_that_works() -> None:
    plans = planner(StreamPoint.COMMAND)
    plan = plan_of(plans, inbound(MediaPath.STREAM), initiated())
    assert plan.actions == [tel.Answer(None)]
    plan = plan_of(plans, plan.record, answered())
    assert plan.actions == [tel.AttachStream(stream())]
    assert plan.tokens == ["token-1"]


def test_an_outbound_call_gets_its_stream_when_it_is_answered() -> None:
    plan = plan_of(planner(StreamPoint.COMMAND), outbound(MediaPath.STREAM), answered())
    assert plan.actions == [tel.AttachStream(stream())]


def test_a_streamed_greeting_is_not_spoken_by_the_carrier() -> None:
    plan = plan_of(planner(StreamPoint.COMMAND), outbound(MediaPath.STREAM), answered())
    assert not [a for a in plan.actions if isinstance(a, tel.Speak | tel.Listen)]
    assert plan.record.message is not None
    assert plan.record.message.state is MessageState.PENDING


def test_native_first_words_and_listening_go_out_together() -> None:
    plan = plan_of(planner(), outbound(MediaPath.NATIVE), answered())
    listen = tel.Listen("token-1", 700)
    assert plan.actions == [tel.Speak("id-1", "Good morning.", "v", listen)]
    assert plan.tokens == []
    assert [type(event) for event in plan.events] == [
        ev.Answered,
        ev.ListenStarted,
        ev.BotSpeaking,
    ]
    assert plan.record.state is CallState.SPEAKING
    assert plan.record.listen_token == "token-1"
    assert plan.record.message is not None
    assert plan.record.message.state is MessageState.PLAYING


def test_a_notification_does_not_listen() -> None:
    plan = plan_of(planner(), outbound(MediaPath.NATIVE, CallMode.NOTIFY), answered())
    assert plan.actions == [tel.Speak("id-1", "Good morning.", "v", None)]
    assert plan.record.listen_token is None


def test_without_a_message_the_carrier_only_listens() -> None:
    record = changed(outbound(MediaPath.NATIVE), message=None)
    plan = plan_of(planner(), record, answered())
    assert plan.actions == [tel.Listen("token-1", 700)]
    assert plan.record.state is CallState.LISTENING


def test_a_second_sign_of_life_says_nothing_again() -> None:
    plans = planner()
    plan = plan_of(plans, outbound(MediaPath.NATIVE), answered())
    again = plan_of(plans, plan.record, ev.Active(at=4, key="b", provider_call_id="p"))
    assert again.actions == []


def test_a_refused_call_is_rejected() -> None:
    event = initiated()
    step = mc.refuse_inbound(call_id="c", provider="scripted", event=event, detail=EndDetail.POLICY)
    assert planner().plan(step, event).actions == [tel.Reject()]


@pytest.mark.parametrize("detail", [EndDetail.CAPACITY, EndDetail.SHUTDOWN])
def test_who_may_call_later_finds_the_line_busy(detail: EndDetail) -> None:
    event = initiated()
    step = mc.refuse_inbound(call_id="c", provider="scripted", event=event, detail=detail)
    assert planner().plan(step, event).actions == [tel.Reject(busy=True)]


def test_a_lost_stream_is_asked_for_again_with_a_new_token() -> None:
    plans = planner(StreamPoint.COMMAND)
    plan = plan_of(plans, outbound(MediaPath.STREAM), answered())
    plan = plan_of(plans, plan.record, ev.StreamAttached(at=4, stream_id="s"))
    plan = plan_of(plans, plan.record, ev.StreamDetached(at=5, stream_id="s"))
    assert plan.actions == [tel.AttachStream(stream(2))]
    assert plan.tokens == ["token-2"]


def test_a_recovered_call_gets_a_new_stream_and_no_second_greeting() -> None:
    plans = planner(StreamPoint.COMMAND)
    for media, actions in (
        (MediaPath.STREAM, [tel.AttachStream(stream(1))]),
        (MediaPath.NATIVE, []),
    ):
        record = mc.step(outbound(media), answered(), POLICY).record
        record = mc.step(record, ev.Recovered(at=5), POLICY).record
        status = ev.StatusReported(at=6, status=ev.CarrierStatus.CONNECTED)
        plan = plan_of(plans, record, status)
        assert plan.actions == actions
        assert mc.Connected(resumed=True) in plan.effects
