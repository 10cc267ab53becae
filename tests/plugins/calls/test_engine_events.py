"""Webhooks of a carrier: admission, identity, deduplication, and commits that fail."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from voicecall import events as ev
from voicecall import telephony as tel
from voicecall.errors import ProviderUnavailable, StoreError
from voicecall.model import CallState, Direction, EndDetail, EndReason, MediaPath
from voicecall_calls.engine.phases import phases_of
from voicecall_calls.engine.places import INBOUND_CAP
from voicecall_calls.engine.replies import as_reply, recorded
from voicecall_testing.clock import virtual_backend
from voicecall_testing.contracts.records import ended
from voicecall_testing.fakes import NATIVE, ScriptedCarrier
from voicecall_testing.harness import CALLEE, CALLER, Phone, open_phone

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

NATIVELY = MediaPath.NATIVE
ALLOWLIST = {"inboundPolicy": "allowlist", "allowFrom": [CALLER]}


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_backend


def trouble() -> ProviderUnavailable:
    return ProviderUnavailable("no way there", provider="scripted")


def ring(phone: Phone, **more: Any) -> ev.CarrierEvent:
    values: dict[str, Any] = {
        "provider_call_id": "carrier-1",
        "direction": Direction.INBOUND,
        "from_number": CALLER,
        "to_number": CALLEE,
        **more,
    }
    return phone.make(ev.Initiated, **values)


# --- who is let in ---------------------------------------------------------------------------


@pytest.mark.parametrize("number", [None, "anonymous", "+995550002222", "2222"])
async def test_a_caller_who_is_not_listed_is_rejected(tmp_path: Path, number: str | None) -> None:
    async with open_phone(tmp_path, media=NATIVELY, config=ALLOWLIST) as phone:
        await phone.call_in(from_number=number)
        assert phone.carrier.performed == [tel.Reject()]
        assert phone.engine.lanes == {}
        record = await phone.store.find("scripted", "carrier-1")
        assert record is not None
        assert record.end_detail is EndDetail.POLICY
        assert record.refused
        assert await phone.engine.coordinator.holders(INBOUND_CAP) == 0


async def test_a_caller_who_is_not_let_in_may_be_told_so(tmp_path: Path) -> None:
    config = {**ALLOWLIST, "phrases": {"refused": "This line is private."}}
    async with open_phone(tmp_path, media=NATIVELY, config=config) as phone:
        await phone.call_in(from_number="+995550002222")
        assert phone.carrier.performed == [tel.Reject("This line is private.")]
        assert phone.engine.lanes == {}


async def test_a_listed_caller_is_admitted_answered_and_greeted(tmp_path: Path) -> None:
    async with open_phone(tmp_path, media=NATIVELY, config=ALLOWLIST) as phone:
        await phone.tell(ring(phone))
        assert phone.carrier.performed == [tel.Answer()]
        assert phone.record.state is CallState.RINGING
        assert phone.record.provider_call_id == "carrier-1"
        await phone.event(ev.Answered)
        assert phone.record.answered_at is not None
        assert len(phone.carrier.performed_of(tel.Speak)) == 1


async def test_half_a_character_of_an_address_keeps_nobody_out(tmp_path: Path) -> None:
    async with open_phone(tmp_path, media=NATIVELY) as phone:
        await phone.call_in(from_number="sip:\ud83d@a.example")
        assert phone.record.from_number == "sip:\ufffd@a.example"
        assert phone.record.answered_at is not None


async def test_a_rejected_call_is_hung_up_once_over_all_deliveries(tmp_path: Path) -> None:
    async with open_phone(tmp_path, media=NATIVELY, config={"inboundPolicy": "disabled"}) as phone:
        first = ring(phone, key="initiated-1")
        replies = [
            await phone.tell(first, key="request-a"),
            await phone.tell(first, key="request-b"),
            await phone.tell(ring(phone, key="initiated-2")),
            await phone.tell(phone.make(ev.Ringing, direction=Direction.INBOUND)),
        ]
        assert [reply.status for reply in replies] == [200] * 4
        assert phone.carrier.performed == [tel.Reject()]
        assert phone.engine.lanes == {}


async def test_a_refusal_that_fails_is_repeated_and_disturbs_nobody(tmp_path: Path) -> None:
    async with open_phone(tmp_path, media=NATIVELY, config={"inboundPolicy": "disabled"}) as phone:
        phone.carrier.fail(tel.Reject, *(trouble() for _ in range(4)))
        reply = await phone.tell(ring(phone))
        assert reply.status == 200
        await phone.settle(30)
        assert phone.carrier.performed == [tel.Reject()] * 5


async def test_inbound_calls_have_a_limit_of_their_own(tmp_path: Path) -> None:
    async with open_phone(tmp_path, config={"maxConcurrentInboundCalls": 1}) as phone:
        await phone.call_in()
        await phone.tell(ring(phone, provider_call_id="carrier-2"))
        assert len(phone.engine.lanes) == 1
        refused = await phone.store.find("scripted", "carrier-2")
        assert refused is not None
        assert refused.end_detail is EndDetail.CAPACITY
        assert refused.refused
        await phone.hang_up()
        await phone.tell(ring(phone, provider_call_id="carrier-3"))
        assert [lane.record.provider_call_id for lane in phone.engine.lanes.values()] == [
            "carrier-3"
        ]


async def test_a_stopping_gateway_takes_no_call(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        phone.engine.accepting = False
        await phone.tell(ring(phone))
        refused = await phone.store.find("scripted", "carrier-1")
        assert refused is not None
        assert refused.end_detail is EndDetail.SHUTDOWN
        assert refused.refused


async def test_a_carrier_whose_replies_steer_gets_everything_in_the_reply(tmp_path: Path) -> None:
    carrier = ScriptedCarrier(NATIVE, steers=True)
    async with open_phone(tmp_path, media=NATIVELY, carrier=carrier) as phone:
        reply = await phone.tell(ring(phone))
        assert reply.body == b'["Answer"]'
        reply = await phone.event(ev.Answered)
        assert reply.body == b'["Speak"]'
        assert carrier.performed == []
        # The same event in another request gets the same document and no second effect.
        await phone.settle(3)
        speech = phone.make(ev.SpeechHeard, text="Hello?")
        first = await phone.tell(speech)
        again = await phone.tell(speech)
        assert again.body == first.body
        assert phone.agent.asked == ["Hello?"]


async def test_the_reply_to_several_events_is_that_of_the_last_one(tmp_path: Path) -> None:
    carrier = ScriptedCarrier(NATIVE, steers=True)
    async with open_phone(tmp_path, media=NATIVELY, carrier=carrier) as phone:
        reply = await phone.tell(ring(phone), phone.make(ev.Answered))
        # What the first one asks for takes a request.
        assert carrier.performed == [tel.Answer()]
        assert reply.body == b'["Speak"]'


async def test_the_reply_to_a_webhook_without_events_is_kept_under_its_own_key(
    tmp_path: Path,
) -> None:
    async with open_phone(tmp_path, media=NATIVELY) as phone:
        reply = await phone.tell(key="request-a")
        assert as_reply(await phone.store.reply("request-a")) == reply


def test_a_reply_that_was_kept_is_the_one_that_was_given() -> None:
    reply = tel.WebhookReply(202, b"<x/>", "application/xml", {"x-a": "b"})
    assert as_reply(recorded(reply, "key", 5)) == reply


# --- whose event it is -----------------------------------------------------------------------


async def test_an_event_of_an_unknown_call_has_no_effect_and_keeps_its_key(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with open_phone(tmp_path) as phone:
        inbound: dict[str, Any] = {"direction": Direction.INBOUND, "provider_call_id": "other"}
        for event in (
            phone.make(ev.SpeechHeard, text="Hello?", key="k-1", **inbound),
            phone.make(ev.CallEnded, reason=EndReason.COMPLETED, key="k-2", **inbound),
            phone.make(ev.Initiated, provider_call_id="undirected", key="k-3"),
        ):
            reply = await phone.tell(event)
            assert reply.status == 200
            assert not await phone.store.is_processed(event.key)
        assert phone.engine.lanes == {}
        assert await phone.store.recent(1) == []
        assert phone.carrier.performed == []
        for told in ("SpeechHeard of other", "CallEnded of other", "Initiated of undirected"):
            assert f"unknown call is ignored: {told}" in caplog.text


async def test_an_outbound_call_that_we_did_not_place_is_not_ours(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await phone.tell(ring(phone, direction=Direction.OUTBOUND))
        assert phone.engine.lanes == {}
        assert await phone.store.find("scripted", "carrier-1") is None


async def test_equal_keys_are_one_event_whatever_the_request(tmp_path: Path) -> None:
    async with open_phone(tmp_path, media=NATIVELY) as phone:
        await phone.call_in()
        await phone.settle(3)
        for request in ("request-a", "request-b", "request-c"):
            speech = phone.make(ev.SpeechHeard, text="Hello?", key="speech-1")
            await phone.tell(speech, key=request)
        await phone.settle(3)
        assert phone.agent.asked == ["Hello?"]


async def test_a_new_carrier_id_is_added_and_both_lead_to_the_call(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        record = await phone.dial("Hello.")
        assert record.provider_call_id is None
        assert phone.record.provider_call_id == "carrier-1"
        known = phone.lane
        await phone.event(ev.Ringing, provider_call_id="leg-2", call_id=record.call_id)
        assert phone.record.provider_call_id == "leg-2"
        assert phone.record.aliases == ("carrier-1", "leg-2")
        for any_id in (record.call_id, "carrier-1", "leg-2"):
            lane = phone.engine.lane_of(any_id)
            assert lane is known


async def test_an_inbound_call_that_changes_its_carrier_id_is_no_second_call(
    tmp_path: Path,
) -> None:
    async with open_phone(tmp_path) as phone:
        await phone.call_in()
        known = phone.lane
        second = {"provider_call_id": "leg-2", "call_id": phone.record.call_id}
        await phone.event(ev.Active, direction=Direction.INBOUND, **second)
        assert phone.lane is known
        assert phone.record.aliases == ("carrier-1", "leg-2")


@pytest.mark.parametrize(
    ("over", "restart"),
    [(None, False), ("named", False), ("meant", False), ("named", True), ("meant", True)],
)
@pytest.mark.parametrize("named", ["first", "nobody"])
async def test_an_event_that_names_two_calls_has_no_effect(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, over: str | None, restart: bool, named: str
) -> None:
    """Also if one of the two is over, and if no call has our id."""
    async with AsyncExitStack() as stack:
        config = {"maxConcurrentCalls": 2}
        phone = await stack.enter_async_context(open_phone(tmp_path, config=config))
        calls = [await phone.dial("Hello."), await phone.dial("Hello.")]
        if over is not None:
            ended = "carrier-1" if over == "named" else "carrier-2"
            await phone.tell(
                phone.make(ev.CallEnded, provider_call_id=ended, reason=EndReason.BUSY)
            )
        if restart:
            await stack.aclose()
            phone = await stack.enter_async_context(open_phone(tmp_path, config=config, seed=1))
            await phone.settle(1)
        before = [await phone.engine.stored(call.call_id) for call in calls]
        call_id = calls[0].call_id if named == "first" else "no-such-call"
        reply = await phone.tell(
            phone.make(ev.Answered, provider_call_id="carrier-2", call_id=call_id)
        )
        assert reply.status == 200
        assert [await phone.engine.stored(call.call_id) for call in calls] == before
        told = f"the carrier's id carrier-2 and our id {call_id} are of different calls"
        assert told in caplog.text


@pytest.mark.parametrize("restart", [False, True])
async def test_late_events_of_a_finished_call_change_nothing(tmp_path: Path, restart: bool) -> None:
    async with open_phone(tmp_path, media=NATIVELY) as phone:
        await phone.call_in()
        await phone.settle(3)
        await phone.event(ev.Ringing, provider_call_id="leg-2", call_id=phone.record.call_id)
        await phone.hang_up()
        over = phone.record
        if not restart:
            await late(phone, over.call_id)
            assert await phone.store.load(over.call_id) == over
    if restart:
        async with open_phone(tmp_path, media=NATIVELY, seed=1) as phone:
            await late(phone, over.call_id)
            assert phone.carrier.performed == []
            assert await phone.store.load(over.call_id) == over


async def late(phone: Phone, call_id: str) -> None:
    """Everything that a carrier might still send, under each id of the call."""
    before = list(phone.carrier.performed)
    for carrier_id in ("carrier-1", "leg-2"):
        for kind, more in (
            (ev.Initiated, {"direction": Direction.INBOUND, "from_number": CALLER}),
            (ev.Answered, {"direction": Direction.INBOUND}),
            (ev.SpeechHeard, {"text": "Hello?", "direction": Direction.INBOUND}),
            (ev.CallEnded, {"reason": EndReason.FAILED, "call_id": call_id}),
        ):
            await phone.event(kind, provider_call_id=carrier_id, key=f"{kind}{carrier_id}", **more)
    assert phone.engine.lanes == {}
    assert phone.carrier.performed == before
    assert phone.agent.turns == []
    assert len(await phone.store.recent(10)) == 1


async def test_a_replayed_creation_makes_no_second_call_after_a_restart(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await phone.tell(ring(phone, key="initiated-1"))
        await phone.hang_up()
    async with open_phone(tmp_path, seed=1) as phone:
        await phone.tell(ring(phone, key="initiated-1"))
        assert phone.engine.lanes == {}
        assert len(await phone.store.recent(10)) == 1


# --- commits that fail -----------------------------------------------------------------------


async def test_what_was_not_stored_is_not_published_and_works_the_next_time(
    tmp_path: Path,
) -> None:
    async with open_phone(tmp_path, media=NATIVELY) as phone:
        event = ring(phone)
        phone.store.failures = 1
        with pytest.raises(StoreError):
            await phone.tell(event)
        assert phone.watcher.events == []
        assert phone.engine.lanes == {}
        assert phone.carrier.performed == []
        assert await phone.engine.coordinator.holders(INBOUND_CAP) == 0
        await phone.tell(event)
        assert phone.carrier.performed == [tel.Answer()]


@pytest.mark.parametrize("kind", ["answered", "speech", "end"])
async def test_side_effects_wait_for_the_commit(tmp_path: Path, kind: str) -> None:
    async with open_phone(tmp_path, media=NATIVELY) as phone:
        await phone.tell(ring(phone))
        if kind != "answered":
            await phone.event(ev.Answered)
            await phone.settle(3)
        event: ev.CarrierEvent = {
            "answered": lambda: phone.make(ev.Answered),
            "speech": lambda: phone.make(ev.SpeechHeard, text="Hello?"),
            "end": lambda: phone.make(ev.CallEnded, reason=EndReason.HANGUP_USER),
        }[kind]()
        before, performed = phone.record, list(phone.carrier.performed)
        phone.store.failures = 1
        with pytest.raises(StoreError):
            await phone.tell(event)
        await phone.settle(3)
        assert phone.record == before
        assert phone.carrier.performed == performed
        assert phone.agent.turns == []
        assert phone.watcher.ends == []
        await phone.tell(event)
        await phone.settle(3)
        assert phone.record != before


async def test_a_retryable_error_changes_nothing_and_may_come_again(tmp_path: Path) -> None:
    async with open_phone(tmp_path, media=NATIVELY) as phone:
        await phone.call_in()
        await phone.settle(3)
        before = phone.record
        failure = phone.make(ev.CallFailed, error="busy", retryable=True)
        await phone.tell(failure)
        assert phone.record == before
        assert not await phone.store.is_processed(failure.key)
        await phone.event(ev.CallFailed, error="gone")
        assert phone.record.end_reason is EndReason.ERROR


# --- life signs and logs ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["speech", "digits", "active"])
async def test_a_sign_of_life_before_the_answer_starts_the_clock(tmp_path: Path, kind: str) -> None:
    async with open_phone(tmp_path, media=NATIVELY, config={"maxDurationSeconds": 20}) as phone:
        await phone.tell(ring(phone))
        match kind:
            case "speech":
                await phone.event(ev.SpeechHeard, text="Hello?")
            case "digits":
                await phone.event(ev.DigitsPressed, digits="1")
            case _:
                await phone.event(ev.Active)
        assert phone.record.answered_at == pytest.approx(phone.now(), abs=20)
        await phone.settle(19)
        assert phone.record.live
        await phone.settle(2)
        assert phone.record.end_detail is EndDetail.MAX_DURATION


async def test_no_phone_number_appears_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stranger = "+15550007777"
    with caplog.at_level(logging.DEBUG):
        async with open_phone(tmp_path, config=ALLOWLIST) as phone:
            await phone.call_in(from_number=stranger)
            phone.watcher.ends.clear()
            phone.carrier.fail(tel.AttachStream, trouble())
            await phone.tell(ring(phone, provider_call_id="carrier-2"))
            await phone.event(ev.Answered, provider_call_id="carrier-2")
            await phone.dial("Hello.")
            await phone.tell(phone.make(ev.Ringing, provider_call_id="?", from_number=stranger))
            await phone.settle(20)
    ours = [r for r in caplog.records if r.name.startswith("voicecall")]
    assert len(ours) > 5
    for record in ours:
        text = record.getMessage()
        for number in (stranger, CALLER, CALLEE):
            assert number.lstrip("+") not in text


def test_the_log_names_the_end_of_a_call_once() -> None:
    record = ended("c", 7)
    before, end = ev.HangUpDone(at=5), ev.HangUpDone(at=7)
    assert [phases_of(record, event)[-1][:5] for event in (before, end)] == ["ended"] * 2
    assert phases_of(record, ev.BotSpoke(at=7, utterance_id="u", heard="Wait")) == []
    assert phases_of(record, ev.HangUpDone(at=8)) == []
