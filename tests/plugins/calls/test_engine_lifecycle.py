"""Outbound calls and ends: dialling, caps, deadlines, hang-ups that fail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from voicecall import events as ev
from voicecall import telephony as tel
from voicecall.errors import (
    CallNotReady,
    OutcomeUnknown,
    ProviderError,
    ProviderTimeout,
    ProviderUnavailable,
    RequestRejected,
)
from voicecall.model import (
    CallMode,
    CallRecord,
    CallState,
    Direction,
    EndDetail,
    EndReason,
    MediaPath,
    MessageState,
)
from voicecall.store import Commit
from voicecall_calls.engine.places import INBOUND_CAP, OUTBOUND_CAP
from voicecall_testing.clock import virtual_backend
from voicecall_testing.contracts.records import call_record
from voicecall_testing.harness import CALLER, Phone, open_phone

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

NATIVELY = MediaPath.NATIVE


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_backend


def trouble() -> ProviderUnavailable:
    return ProviderUnavailable("no way there", provider="scripted")


async def places(phone: Phone) -> int:
    coordinator = phone.engine.coordinator
    return await coordinator.holders(OUTBOUND_CAP) + await coordinator.holders(INBOUND_CAP)


def message_state(phone: Phone) -> MessageState | None:
    return phone.record.message.state if phone.record.message else None


async def connected(phone: Phone) -> None:
    await phone.call_in()
    await phone.settle(3)


# --- dialling --------------------------------------------------------------------------------


async def test_the_message_is_spoken_when_the_call_is_answered(tmp_path: Path) -> None:
    async with open_phone(tmp_path, media=NATIVELY) as phone:
        record = await phone.dial("Good morning.")
        (request,) = phone.carrier.dialled
        assert request.call_id == record.call_id
        assert request.webhook_url.endswith(f"?callId={record.call_id}")
        assert request.ring_timeout_s == 30
        assert request.time_limit_s == 330
        await phone.event(ev.Ringing)
        assert phone.carrier.performed == []
        await phone.answer()
        await phone.settle(2)
        assert phone.said == [("bot", "Good morning.")]
        await phone.event(ev.Active)
        await phone.settle(2)
        assert phone.said == [("bot", "Good morning.")]


async def test_a_streamed_message_is_not_spoken_before_the_stream(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        phone.opens_streams = False
        await phone.dial("Good morning.")
        await phone.answer()
        await phone.settle(3)
        assert phone.carrier.performed_of(tel.Speak) == []
        assert message_state(phone) is MessageState.PENDING
        (attach,) = phone.carrier.performed_of(tel.AttachStream)
        assert isinstance(attach, tel.AttachStream)
        await phone.attach(attach.stream.token)
        await phone.settle(2)
        assert phone.heard == ["Good morning."]
        assert message_state(phone) is MessageState.DONE


async def test_a_notice_hangs_up_after_its_delay(tmp_path: Path) -> None:
    config = {"outbound": {"notifyHangupDelaySec": 5}}
    async with open_phone(tmp_path, media=NATIVELY, config=config) as phone:
        await phone.dial("Your parcel is here.", CallMode.NOTIFY)
        await phone.answer()
        await phone.settle(5.9)
        assert phone.record.live
        await phone.settle(0.3)
        assert phone.record.end_reason is EndReason.HANGUP_BOT
        assert phone.record.end_detail is EndDetail.NOTIFIED
        speak = phone.carrier.performed_of(tel.Speak)[0]
        assert isinstance(speak, tel.Speak)
        assert speak.listen is None


async def test_a_refused_dial_is_a_failed_call_and_frees_its_place(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        phone.carrier.dial_errors.append(RequestRejected("bad number", provider="scripted"))
        await phone.dial("Hello.")
        assert phone.record.end_reason is EndReason.FAILED
        assert phone.record.end_detail is EndDetail.DIAL_FAILED
        assert phone.record.end_note == "scripted: bad number"
        assert await places(phone) == 0
        # A request that still waits for its turn is not sent.
        assert not phone.carrier.dialled[0].wanted()


@pytest.mark.parametrize("error", [OutcomeUnknown, ProviderTimeout])
async def test_a_dial_of_unknown_outcome_is_looked_up_and_never_repeated(
    tmp_path: Path, error: type[ProviderError]
) -> None:
    async with open_phone(tmp_path, media=NATIVELY) as phone:
        phone.carrier.dial_errors.append(error("cut off", provider="scripted"))
        await phone.dial("Hello.")
        assert phone.record.provider_call_id == "carrier-1"
        assert len(phone.carrier.dialled) == 1
        await phone.settle(3)
        assert phone.said == [("bot", "Hello.")]


async def test_an_end_during_the_dial_hangs_up_as_soon_as_it_is_known(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        phone.carrier.delay_s = 5.0
        record = await phone.dial("Hello.")
        ended = await phone.operations.end(record.call_id)
        assert ended.end_reason is EndReason.HANGUP_BOT
        assert phone.carrier.performed == [tel.Hangup()]
        assert len(phone.carrier.dialled) == 1
        assert await places(phone) == 0


@pytest.mark.parametrize("told", [True, False])
async def test_nobody_answers(tmp_path: Path, told: bool, caplog: pytest.LogCaptureFixture) -> None:
    async with open_phone(tmp_path) as phone:
        phone.carrier.status_of = tel.CallStatus(ev.CarrierStatus.LIVE)
        await phone.dial("Hello.")
        if told:
            await phone.event(ev.Ringing)
        await phone.settle(50)
        assert phone.record.end_reason is EndReason.NO_ANSWER
        assert phone.carrier.performed == [tel.Hangup()]
        # The reports of a silent carrier may not reach us.
        asked = f"nor an answer; can it reach {phone.carrier.dialled[0].webhook_url}?"
        assert caplog.text.count(asked) == (0 if told else 1)


# --- deadlines -------------------------------------------------------------------------------


async def test_the_longest_call_ends(tmp_path: Path) -> None:
    async with open_phone(tmp_path, config={"maxDurationSeconds": 30}) as phone:
        await phone.call_in()
        await phone.settle(29)
        assert phone.record.live
        await phone.settle(2)
        assert phone.record.end_reason is EndReason.TIMEOUT
        assert phone.record.end_detail is EndDetail.MAX_DURATION
        ended = phone.record.ended_at
        await phone.settle(60)
        assert phone.record.ended_at == ended


@pytest.mark.parametrize("hours", [-100, 100])
async def test_a_clock_that_is_set_neither_ends_nor_lengthens_a_call(
    tmp_path: Path, hours: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_phone(tmp_path, config={"maxDurationSeconds": 120}) as phone:
        await phone.call_in(provider_call_id="from-outside")
        await phone.settle(3)
        phone.seam.set_wall_clock(hours * 3_600_000)
        await phone.settle(100)
        phone.hears("Still here?")
        await phone.settle(5)
        assert phone.said[-1] == ("bot", "Yes.")
        await phone.settle(25)
        assert not phone.engine.lanes
        assert caplog.text.count("the clock was set") == 1
        # The old time is no longer used.
        phone.carrier.status_of = tel.CallStatus(ev.CarrierStatus.LIVE)
        placed = await phone.dial("Hello.")
        assert abs(placed.started_at - phone.now()) < 1000
        phone.seam.set_wall_clock(-hours * 3_600_000)
        await phone.settle(60)
        details = [end.end_detail for end in phone.watcher.ends]
        assert details == [EndDetail.MAX_DURATION, EndDetail.RING_TIMEOUT]
        assert caplog.text.count("the clock was set") == 2


@pytest.mark.parametrize("seconds", [0, 40])
async def test_the_reaper(tmp_path: Path, seconds: int) -> None:
    config = {"staleCallReaperSeconds": seconds}
    async with open_phone(tmp_path, media=NATIVELY, config=config) as phone:
        await phone.tell(
            phone.make(
                ev.Initiated,
                provider_call_id="carrier-1",
                direction=Direction.INBOUND,
                from_number=CALLER,
            )
        )
        await phone.settle(39)
        assert phone.record.live
        await phone.settle(3)
        if seconds:
            assert phone.record.end_detail is EndDetail.REAPER
        else:
            assert phone.record.live


async def test_a_call_keeps_its_place_however_long_it_rings_and_lasts(tmp_path: Path) -> None:
    config = {"ringTimeoutMs": 600_000, "maxDurationSeconds": 600}
    async with open_phone(tmp_path, media=NATIVELY, config=config) as phone:
        phone.carrier.status_of = tel.CallStatus(ev.CarrierStatus.LIVE)
        await phone.dial("Good morning.")
        await phone.settle(599)
        await phone.answer()
        await phone.settle(599)
        assert phone.record.live
        assert await places(phone) == 1
        await phone.settle(30)
        assert await places(phone) == 0


async def test_the_reaper_leaves_an_answered_call_alone(tmp_path: Path) -> None:
    config = {"staleCallReaperSeconds": 40}
    async with open_phone(tmp_path, media=NATIVELY, config=config) as phone:
        await connected(phone)
        await phone.settle(120)
        assert phone.record.live


async def test_a_deadline_that_cannot_be_stored_stands(tmp_path: Path) -> None:
    async with open_phone(tmp_path, media=NATIVELY, config={"maxDurationSeconds": 30}) as phone:
        await connected(phone)
        await phone.settle(26)
        phone.store.failures = 3
        await phone.settle(2)
        assert phone.record.live
        await phone.settle(4)
        assert phone.record.end_detail is EndDetail.MAX_DURATION


# --- ends ------------------------------------------------------------------------------------


async def test_parallel_ends_share_one_hang_up_and_one_result(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await connected(phone)
        phone.carrier.delay_s = 1.0
        call_id = phone.record.call_id
        results: list[CallRecord] = []

        async def end() -> None:
            results.append(await phone.operations.end(call_id))

        async with anyio.create_task_group() as ending:
            for _ in range(4):
                ending.start_soon(end)
        assert phone.carrier.performed_of(tel.Hangup) == [tel.Hangup()]
        assert len(set(map(id, results))) == 1
        assert len(results) == 4
        assert results[0].end_detail is EndDetail.REQUESTED
        assert await phone.operations.end(call_id) == results[0]


async def test_a_hang_up_that_fails_is_repeated(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await connected(phone)
        phone.carrier.fail(tel.Hangup, trouble(), trouble())
        ended = await phone.operations.end(phone.record.call_id)
        assert ended.end_reason is EndReason.HANGUP_BOT
        assert len(phone.carrier.performed_of(tel.Hangup)) == 3
        assert await places(phone) == 0


async def test_a_hang_up_that_never_works_ends_in_the_books_at_last(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await connected(phone)
        phone.carrier.fail(tel.Hangup, *[trouble() for _ in range(20)])
        ended = await phone.operations.end(phone.record.call_id)
        assert ended.end_detail is EndDetail.HANGUP_FAILED
        assert await places(phone) == 0


async def test_a_call_that_goes_on_behind_hang_ups_that_failed_is_hung_up_again(
    tmp_path: Path,
) -> None:
    """A carrier that is out of order for a while: its webhooks tell when it works again."""
    async with open_phone(tmp_path, media=NATIVELY) as phone:
        await phone.call_in()
        await phone.settle(3)
        phone.carrier.fail(tel.Hangup, *[trouble() for _ in range(5)])
        ended = await phone.operations.end(phone.record.call_id)
        assert ended.end_detail is EndDetail.HANGUP_FAILED
        await phone.settle(10)
        assert len(phone.carrier.performed_of(tel.Hangup)) == 5
        await phone.event(ev.SpeechHeard, text="Is anybody there?")
        assert len(phone.carrier.performed_of(tel.Hangup)) == 6
        await phone.event(ev.CallEnded, reason=EndReason.COMPLETED)
        assert len(phone.carrier.performed_of(tel.Hangup)) == 6


async def test_all_calls_are_hung_up_and_no_other_is_taken(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await connected(phone)
        call_id = phone.record.call_id
        phone.opens_streams = False
        other = {"provider_call_id": "carrier-2", "direction": Direction.INBOUND}
        await phone.tell(phone.make(ev.Initiated, from_number=CALLER, **other))
        assert len(phone.engine.lanes) == 2
        await phone.engine.hang_up_all(5)
        assert phone.engine.lanes == {}
        assert len(phone.carrier.performed_of(tel.Hangup)) == 2
        ended = await phone.store.load(call_id)
        assert ended is not None
        assert (ended.end_reason, ended.end_detail) == (EndReason.HANGUP_BOT, EndDetail.SHUTDOWN)
        assert not phone.engine.accepting


async def test_a_call_that_cannot_be_hung_up_is_left_to_the_next_start(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await connected(phone)
        phone.carrier.delay_s = 60.0
        with anyio.fail_after(6):
            await phone.engine.hang_up_all(5)
        [stored] = await phone.store.live()
        assert stored.ending is not None


async def test_calls_of_another_carrier_are_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = call_record("theirs", provider="another")
    async with open_phone(tmp_path) as phone:
        await phone.store.commit(Commit(record=theirs))
    async with open_phone(tmp_path, seed=1) as phone:
        await phone.settle(2 * 3600)
        assert not phone.engine.lanes
        assert await phone.store.live() == [theirs]
        assert phone.carrier.performed == []
    assert "call theirs belongs to carrier another, which is not running" in caplog.text


@pytest.mark.parametrize("media", [MediaPath.STREAM, MediaPath.NATIVE])
async def test_whoever_takes_a_call_that_is_being_ended_hears_nothing(
    tmp_path: Path, media: MediaPath
) -> None:
    async with open_phone(tmp_path, media=media) as phone:
        await phone.dial("Hello.", CallMode.CONVERSATION)
        phone.carrier.fail(tel.Hangup, trouble(), trouble())
        lane = phone.lane
        await lane.apply(ev.EndRequested(at=phone.now()))
        await phone.answer()
        await phone.settle(20)
        assert lane.record.end_detail is EndDetail.REQUESTED
        assert lane.record.transcript == ()
        assert set(map(type, phone.carrier.performed)) == {tel.Hangup}


async def test_a_hang_up_that_fails_because_the_call_is_over(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await connected(phone)
        phone.carrier.fail(tel.Hangup, trouble(), trouble(), trouble())
        phone.carrier.status_of = tel.CallStatus(ev.CarrierStatus.ENDED)
        ended = await phone.operations.end(phone.record.call_id)
        assert ended.end_reason is EndReason.HANGUP_BOT
        assert len(phone.carrier.performed_of(tel.Hangup)) == 2


async def test_the_carriers_end_during_our_hang_up_keeps_its_reason_and_time(
    tmp_path: Path,
) -> None:
    async with open_phone(tmp_path) as phone:
        await connected(phone)
        phone.carrier.delay_s = 2.0
        async with anyio.create_task_group() as ending:
            ending.start_soon(phone.operations.end, phone.record.call_id)
            await phone.settle(1)
            at = phone.now()
            await phone.event(ev.CallEnded, reason=EndReason.HANGUP_USER)
        assert phone.record.end_reason is EndReason.HANGUP_USER
        assert phone.record.ended_at == at
        await phone.settle(5)
        assert phone.record.ended_at == at


async def test_an_end_is_told_once_and_leaves_nothing_behind(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await connected(phone)
        ids = (phone.record.call_id, "carrier-1")
        await phone.hang_up()
        await phone.settle(1)
        assert len(phone.watcher.ends) == 1
        assert phone.engine.lanes == {}
        assert [phone.engine.lane_of(one) for one in ids] == [None, None]
        assert not phone.engine.carrier_ids()
        assert phone.socket.close_code == 1000
        assert await places(phone) == 0
        assert await phone.store.live() == []


async def test_the_tasks_of_a_call_end_with_it(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        ran: list[str] = []

        async def job() -> None:
            ran.append("begun")
            await anyio.sleep(5)
            ran.append("over")

        before = asyncio.all_tasks()
        await connected(phone)
        lane = phone.lane
        lane.spawn(job)
        await phone.hang_up()
        lane.spawn(job)
        await phone.settle(10)
        assert ran == ["begun"]
        assert asyncio.all_tasks() == before


async def test_a_refused_call_leaves_no_task(tmp_path: Path) -> None:
    async with open_phone(tmp_path, config={"inboundPolicy": "disabled"}) as phone:
        before = asyncio.all_tasks()
        await phone.call_in()
        await phone.settle(1)
        assert phone.carrier.performed_of(tel.Reject)
        assert asyncio.all_tasks() == before


@pytest.mark.parametrize("at_once", [False, True])
async def test_a_webhook_behind_the_stop_of_the_engine_is_answered(
    tmp_path: Path, at_once: bool
) -> None:
    replies: list[tel.WebhookReply] = []
    with anyio.CancelScope() as scope:
        async with open_phone(tmp_path) as phone:
            await connected(phone)

            async def tell() -> None:
                # The stop closes the media socket, which its carrier has something to say about.
                with anyio.CancelScope(shield=True):
                    while phone.socket.close_code is None:
                        await phone.settle()
                    await phone.settle(1)
                    replies.append(await phone.event(ev.DigitsPressed, digits="5"))

            phone.tasks.start_soon(tell)
            await phone.settle()
            if at_once:
                scope.cancel()
                await anyio.sleep_forever()
    assert [reply.status for reply in replies] == [200]
    async with open_phone(tmp_path) as phone:
        assert phone.record.live


async def test_words_that_the_stop_of_the_engine_catches_are_rejected(tmp_path: Path) -> None:
    rejected: list[str] = []
    async with open_phone(tmp_path) as phone:
        await connected(phone)
        # The stop comes while the record is told that they begin.
        phone.store.delay_s = 0.5

        async def speak() -> None:
            with anyio.CancelScope(shield=True):
                with pytest.raises(CallNotReady) as caught:
                    await phone.operations.speak(phone.record.call_id, "One moment.")
                rejected.append(str(caught.value))

        phone.tasks.start_soon(speak)
        await phone.settle(0.1)
    assert rejected == ["the gateway stopped"]


# --- trouble with actions --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "reason", "detail"),
    [
        (tel.Answer, EndReason.FAILED, EndDetail.CARRIER),
        (tel.Listen, EndReason.ERROR, EndDetail.LISTENING_FAILED),
    ],
)
async def test_an_action_without_which_there_is_no_call(
    tmp_path: Path, action: type[tel.Action], reason: EndReason, detail: EndDetail
) -> None:
    async with open_phone(tmp_path, media=NATIVELY) as phone:
        phone.carrier.fail(action, trouble())
        if action is tel.Answer:
            await phone.call_in()
        else:
            await phone.dial(None)
            await phone.answer()
        await phone.settle(1)
        assert phone.record.end_reason is reason
        assert phone.record.end_detail is detail


async def test_one_calls_trouble_is_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_phone(tmp_path, media=NATIVELY, config={"maxConcurrentCalls": 2}) as phone:
        first = await phone.dial("First.")
        second = await phone.dial("Second.")
        make = phone.engine.conversations
        assert make is not None

        def broken(make: Callable[..., Any] = make) -> Callable[..., Any]:
            def conversation(lane: Any) -> Any:
                talk = make(lane)
                if lane.record.call_id == first.call_id:

                    async def run() -> None:
                        raise ZeroDivisionError("a fault of our own")

                    monkeypatch.setattr(talk, "run", run)
                return talk

            return conversation

        phone.engine.conversations = broken()
        for number in (1, 2):
            await phone.event(ev.Answered, provider_call_id=f"carrier-{number}")
        await phone.settle(3)
        assert [end.call_id for end in phone.watcher.ends] == [first.call_id]
        assert phone.watcher.ends[0].end_detail is EndDetail.INTERNAL
        alive = phone.engine.lane_of(second.call_id)
        assert alive is not None
        assert alive.record.state is CallState.LISTENING
