"""One call's trouble ends that call and no other: stores that fail, adapters with faults, and
what comes later than expected."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import anyio
import pytest

from voicecall import events as ev
from voicecall import telephony as tel
from voicecall.errors import OutcomeUnknown, ProviderUnavailable, RequestRejected, StoreError
from voicecall.model import CallMode, CallState, Direction, EndDetail, EndReason, MediaPath
from voicecall.realtime import ResponseDone, ResponseStarted, Transcript
from voicecall.store import Commit
from voicecall_calls.conversation.base import Conversation
from voicecall_calls.doors import AdmissionRefused
from voicecall_calls.engine.lane import CallLane
from voicecall_calls.engine.places import INBOUND_CAP, OUTBOUND_CAP
from voicecall_calls.operations import DialOptions
from voicecall_testing.clock import virtual_backend
from voicecall_testing.duplex import ScriptedRealtime
from voicecall_testing.fakes import NATIVE, STREAMING, ScriptedCarrier
from voicecall_testing.harness import CALLEE, CALLER, Phone, open_phone

from .realtime_room import open_realtime

pytestmark = [pytest.mark.integration, pytest.mark.anyio]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_backend


async def still_works(phone: Phone) -> None:
    """Assert that the engine still runs jobs of calls."""
    ran = anyio.Event()

    async def job() -> None:
        ran.set()

    phone.engine.spawn(job)
    await phone.settle()
    assert ran.is_set()


async def test_a_store_in_trouble_for_a_moment_costs_no_call_its_media_socket(
    tmp_path: Path,
) -> None:
    """Its token is used up, and no other one would be requested."""
    async with open_phone(tmp_path) as phone:
        phone.opens_streams = False
        await phone.call_in()
        (answer,) = phone.carrier.performed_of(tel.Answer)
        assert isinstance(answer, tel.Answer)
        assert answer.stream is not None
        phone.store.failures = 3
        await phone.attach(answer.stream.token)
        assert phone.record.stream_id == phone.socket.stream_id
        await phone.settle(5)
        assert phone.heard == ["Hello! How can I help you today?"]


async def test_a_store_in_trouble_for_a_moment_costs_no_call_that_loses_its_media_socket(
    tmp_path: Path,
) -> None:
    async with open_phone(tmp_path) as phone:
        await phone.call_in()
        await phone.settle(0.5)
        phone.store.failures = 2
        phone.socket.drop()
        await phone.settle(5)
        assert phone.record.live
        assert len(phone.sockets) == 2
        assert phone.record.stream_id == phone.socket.stream_id
        assert phone.said == [("bot", "Hello! How can I help you today?")]


async def test_a_media_socket_that_cannot_be_stored_is_refused(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        phone.opens_streams = False
        await phone.call_in()
        await phone.engine.issue_tokens(phone.record, ["token"])
        phone.store.failures = 1000
        with pytest.raises(AdmissionRefused, match="1013"):
            await phone.attach("token")
        assert phone.record.stream_id is None


async def test_an_end_waits_for_a_store_in_trouble_for_half_a_minute(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        phone.carrier.dial_errors.append(RequestRejected("no", provider="scripted"))
        record = await phone.operations.dial(DialOptions(to=CALLEE, message="Hello."))
        phone.store.failures = 1000
        await phone.settle(20)
        assert phone.record == record
        phone.store.failures = 0
        await phone.settle(20)
        assert phone.record.end_detail is EndDetail.DIAL_FAILED


async def test_a_store_that_stays_in_trouble_ends_the_call_as_soon_as_it_can(
    tmp_path: Path,
) -> None:
    async with open_phone(tmp_path, config={"maxDurationSeconds": 600}) as phone:
        await phone.call_in()
        await phone.settle(3)
        phone.store.failures = 1_000_000
        phone.hears("Hello there.")
        await phone.settle(300)
        phone.store.failures = 0
        broken = phone.lane
        assert broken.record.live
        await still_works(phone)
        await phone.settle(5)
        assert broken.record.end_detail is EndDetail.INTERNAL


async def test_what_stays_unstored_for_a_minute_is_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_phone(tmp_path) as phone:
        record = await phone.dial("Hello.")
        phone.carrier.status_of = tel.CallStatus(ev.CarrierStatus.LIVE)
        phone.store.failures = 1_000_000
        await phone.lane.bring(ev.CallerSaid(at=phone.now(), text="Hello?"))
        assert 60_000 <= phone.now() - record.started_at <= 63_000
        assert "CallerSaid is lost" in caplog.text


async def test_a_deadline_that_cannot_be_stored_is_logged_once_until_one_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_phone(tmp_path, config={"maxDurationSeconds": 30}) as phone:
        await phone.call_in()
        await phone.settle(3)
        broken = phone.lane
        phone.store.failures = 10_000
        await phone.settle(120)
        assert broken.record.live
        told = "tried again each second"
        assert len([text for text in caplog.messages if told in text]) == 1
        phone.store.failures = 0
        await phone.settle(10)
        assert broken.record.end_detail is EndDetail.MAX_DURATION
        await phone.call_in(provider_call_id="carrier-2")
        await phone.settle(3)
        phone.store.failures = 10_000
        await phone.settle(120)
        assert len([text for text in caplog.messages if told in text]) == 2


async def test_no_call_ends_for_the_figures_of_a_turn(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_phone(tmp_path) as phone:
        commit = phone.store.commit

        async def refuse_figures(what: Commit) -> None:
            if what.turns:
                raise StoreError("the disk is full")
            await commit(what)

        phone.store.commit = refuse_figures  # type: ignore[method-assign, assignment]
        await phone.call_in()
        await phone.settle(3)
        phone.hears("Hello there.")
        await phone.settle(5)
        assert phone.said[-1] == ("bot", "Yes.")
        assert phone.record.live
        assert "the figures of a turn could not be stored: the disk is full" in caplog.text
        assert phone.watcher.turns == []
        phone.store.commit = commit  # type: ignore[method-assign]
        phone.hears("And now?")
        await phone.settle(5)
        assert phone.watcher.turns == await phone.rows()
        assert len(phone.watcher.turns) == 1


async def test_a_look_up_waits_for_the_store(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        phone.carrier.dial_errors.append(OutcomeUnknown("cut", provider="scripted"))
        stored, refused = phone.engine.stored, [True, True]

        async def locked(any_id: str) -> object:
            if refused:
                refused.pop()
                raise StoreError("database is locked")
            return await stored(any_id)

        phone.engine.stored = locked  # type: ignore[method-assign, assignment]
        await phone.dial("Hello.")
        await phone.settle(20)
        assert not refused
        assert phone.record.aliases
        assert len(phone.carrier.dialled) == 1
        await still_works(phone)


async def test_a_look_up_outlasts_a_carrier_that_is_down_for_a_while(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        phone.carrier.dial_errors.append(OutcomeUnknown("cut", provider="scripted"))
        find, up_at = phone.carrier.find_dial, phone.now() + 10_000

        async def find_when_up(query: tel.DialQuery) -> str | None:
            if phone.now() < up_at:
                raise ProviderUnavailable("no way there", provider="scripted")
            return await find(query)

        phone.carrier.find_dial = find_when_up  # type: ignore[method-assign]
        await phone.dial("Hello.")
        await phone.settle(20)
        assert phone.record.provider_call_id == "carrier-1"
        assert phone.record.live


async def fault(*_: Any) -> Any:
    raise KeyError("sid")


async def test_a_task_of_the_engine_with_a_fault_says_so_and_stops_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_phone(tmp_path) as phone:
        phone.engine.spawn(fault)
        await phone.settle(1)
        assert "a task of a call failed" in caplog.text
        assert "KeyError: 'sid'" in caplog.text
        await still_works(phone)


async def test_an_adapter_with_a_fault_at_dialling_is_asked_what_became_of_it(
    tmp_path: Path,
) -> None:
    async with open_phone(tmp_path) as phone:
        place, phone.carrier.place_call = phone.carrier.place_call, fault  # type: ignore[method-assign, assignment]
        await phone.dial("Hello.")
        await phone.settle(60)
        assert (phone.record.end_reason, phone.record.end_detail) == (
            EndReason.FAILED,
            EndDetail.DIAL_UNKNOWN,
        )
        phone.carrier.place_call = place  # type: ignore[method-assign]
        await still_works(phone)


async def test_an_adapter_with_a_fault_at_hanging_up_is_tried_again(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await phone.dial("Hello.", CallMode.CONVERSATION)
        await phone.answer()
        await phone.settle(3)
        broken = phone.lane
        perform, phone.carrier.perform = phone.carrier.perform, fault  # type: ignore[method-assign, assignment]
        await broken.apply(ev.EndRequested(at=phone.engine.seam.now_ms()))
        await phone.settle(1)
        assert broken.record.live
        phone.carrier.perform = perform  # type: ignore[method-assign]
        await phone.settle(30)
        assert broken.record.state is CallState.HANGUP_BOT
        await still_works(phone)


async def test_a_store_with_a_fault_is_one_in_trouble(tmp_path: Path) -> None:
    async with open_phone(tmp_path, config={"maxDurationSeconds": 30}) as phone:
        await phone.call_in()
        await phone.settle(3)
        answered = phone.lane
        commit = phone.store.commit
        phone.store.commit = fault  # type: ignore[method-assign, assignment]
        with pytest.raises(StoreError, match="the store failed: KeyError"):
            await phone.dial("Hello.")
        assert await phone.engine.coordinator.holders(OUTBOUND_CAP) == 0
        await phone.settle(60)
        assert answered.record.live
        phone.store.commit = commit  # type: ignore[method-assign]
        await phone.settle(3)
        assert answered.record.end_detail is EndDetail.MAX_DURATION


class FaultyCarrier(ScriptedCarrier):
    """Has a fault at the next action of ``faulty``."""

    faulty: type[tel.Action] | None = None

    async def perform(self, call: tel.CallRef, action: tel.Action) -> None:
        if type(action) is self.faulty:
            self.faulty = None
            raise KeyError("sid")
        await super().perform(call, action)


@pytest.mark.parametrize("returned", [None, "", 4711])
async def test_an_adapter_that_returns_no_id_of_the_call_is_told_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, returned: Any
) -> None:
    class Nameless(ScriptedCarrier):
        async def place_call(self, request: tel.DialRequest) -> str:
            await super().place_call(request)
            return cast(str, returned)

    async with open_phone(tmp_path, carrier=Nameless()) as phone:
        await phone.dial("Hello.", CallMode.CONVERSATION)
        await phone.settle(1)
        assert phone.record.provider_call_id != returned
    assert "place_call must return the carrier's id of the call" in caplog.text


@pytest.mark.parametrize("returned", ["", 4711])
async def test_an_adapter_that_finds_no_id_of_the_call_is_told_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, returned: Any
) -> None:
    class Nameless(ScriptedCarrier):
        async def find_dial(self, query: tel.DialQuery) -> str | None:
            return cast(str, returned)

    async with open_phone(tmp_path, carrier=Nameless()) as phone:
        phone.carrier.dial_errors.append(OutcomeUnknown("cut", provider="scripted"))
        await phone.dial("Hello.")
        await phone.settle(60)
        assert phone.record.end_detail is EndDetail.DIAL_UNKNOWN
        assert phone.record.aliases == ()
    assert "find_dial must return the carrier's id of the call" in caplog.text


async def test_an_adapter_with_a_fault_at_tones_leaves_the_stream_as_it_was(tmp_path: Path) -> None:
    carrier = FaultyCarrier()
    async with open_phone(tmp_path, carrier=carrier) as phone:
        phone.takes_tones = False
        await phone.call_in()
        await phone.settle(3)
        before = phone.record.stream_id
        carrier.faulty = tel.PlayDigits
        with pytest.raises(OutcomeUnknown, match="the adapter failed: KeyError"):
            await phone.operations.dtmf(phone.record.call_id, "1")
        assert phone.record.stream_id == before
        await phone.settle(20)
        assert phone.record.live
        assert len(phone.sockets) == 1


async def test_an_adapter_with_a_fault_at_words_of_its_own_is_tried_again(tmp_path: Path) -> None:
    carrier = FaultyCarrier(NATIVE)
    async with open_phone(tmp_path, carrier=carrier, media=MediaPath.NATIVE) as phone:
        carrier.faulty = tel.Speak
        await phone.call_in()
        await phone.settle(5)
        assert phone.said == [("bot", phone.config.phrases.greeting)]
        carrier.faulty = tel.PlayDigits
        with pytest.raises(OutcomeUnknown, match="the adapter failed: KeyError"):
            await phone.operations.dtmf(phone.record.call_id, "1")
        assert phone.record.live


@pytest.mark.parametrize("said", [None, ev.CarrierStatus.ENDED, tel.CallStatus(cast(Any, "over"))])
async def test_an_adapter_that_returns_no_status_knows_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, said: Any
) -> None:
    async with open_phone(tmp_path) as phone:
        await phone.call_in()
        await phone.settle(3)
        phone.carrier.status_of = said
        phone.socket.drop()
        await phone.settle(1)
        assert phone.record.live
        assert len(phone.sockets) == 2
    assert f"status returns {said!r}, not a CallStatus" in caplog.text


async def test_an_adapter_with_a_fault_at_its_status_knows_nothing(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await phone.call_in()
        await phone.settle(3)
        quiet = phone.lane
        phone.carrier.status = fault  # type: ignore[method-assign, assignment]
        await phone.settle(phone.engine.policy.quiet_ms / 1000 + 1)
        assert quiet.record.live
        await still_works(phone)


@pytest.mark.parametrize("media", [MediaPath.STREAM, MediaPath.NATIVE])
async def test_a_conversation_that_cannot_be_made_ends_its_call(
    tmp_path: Path, media: MediaPath, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_phone(tmp_path, media=media) as phone:

        def make(lane: CallLane) -> Conversation:
            raise KeyError("voices")

        phone.engine.conversations = make
        await phone.dial("Hello.")
        reply = await phone.event(ev.Answered)
        assert reply.status == 200
        await phone.settle(3)
        assert phone.record.end_detail is EndDetail.INTERNAL
        assert phone.carrier.performed_of(tel.Hangup)
        assert "KeyError: 'voices'" in caplog.text
        await still_works(phone)


async def test_a_call_that_a_late_look_up_finds_is_hung_up(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        find, asked = phone.carrier.find_dial, 0

        async def place(request: tel.DialRequest) -> str:
            phone.carrier.dialled.append(request)
            await anyio.sleep(10)
            raise OutcomeUnknown("no reply", provider="scripted")

        async def found_late(query: tel.DialQuery) -> str | None:
            nonlocal asked
            asked += 1
            await anyio.sleep(20)
            if asked == 1:
                raise ProviderUnavailable("no way there", provider="scripted")
            return await find(query)

        phone.carrier.place_call = place  # type: ignore[method-assign]
        phone.carrier.find_dial = found_late  # type: ignore[method-assign]
        await phone.dial("Hello.")
        await phone.settle(60)
        assert phone.record.end_detail is EndDetail.DIAL_UNKNOWN
        assert phone.carrier.performed == [tel.Hangup()]


async def test_a_call_that_turns_up_behind_its_end_is_hung_up_though_that_fails_at_first(
    tmp_path: Path,
) -> None:
    async with open_phone(tmp_path) as phone:
        phone.carrier.dial_errors.append(OutcomeUnknown("no reply", provider="scripted"))

        async def nothing_found(query: tel.DialQuery) -> None:
            return None

        phone.carrier.find_dial = nothing_found  # type: ignore[method-assign]
        record = await phone.dial("Hello.")
        assert phone.record.end_detail is EndDetail.DIAL_UNKNOWN
        down = ProviderUnavailable("no way there", provider="scripted")
        phone.carrier.fail(tel.Hangup, down, down)
        await phone.event(ev.Ringing, call_id=record.call_id)
        for so_far, seconds in ((1, 0.9), (2, 1.9), (3, 20)):
            await phone.settle(seconds)
            assert phone.carrier.performed == [tel.Hangup()] * so_far


async def test_a_call_that_its_carrier_forgot_keeps_the_reason_of_its_end(tmp_path: Path) -> None:
    async with open_phone(tmp_path, config={"maxDurationSeconds": 30}) as phone:
        await phone.call_in()
        await phone.settle(3)
        trouble = [ProviderUnavailable("no way there", provider="scripted") for _ in range(6)]
        phone.carrier.fail(tel.Hangup, *trouble)
        await phone.settle(29)
        assert phone.record.ending is not None
        phone.carrier.status_of = tel.CallStatus(ev.CarrierStatus.NOT_FOUND)
        await phone.settle(60)
        assert phone.record.end_detail is EndDetail.MAX_DURATION


async def test_tones_before_the_conversation_are_no_ringing(tmp_path: Path) -> None:
    dials = ScriptedCarrier(replace(STREAMING, pre_connect_dtmf=True))
    async with open_phone(tmp_path, carrier=dials) as phone:
        await phone.dial("Hello.", dtmf_sequence="W" * 30 + "1#")
        await phone.event(ev.Ringing)
        # Picked up after 20 s; the carrier reports when the tones were played.
        await phone.settle(51)
        await phone.answer()
        await phone.settle(3)
        assert phone.record.answered_at is not None
        assert phone.heard == ["Hello."]


async def test_tones_of_a_minute_do_not_lose_the_call(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        phone.takes_tones = False
        await phone.call_in()
        await phone.settle(3)
        await phone.operations.dtmf(phone.record.call_id, "1" + "p" * 70 + "2")
        await phone.settle(5)
        assert phone.record.live
        assert phone.refused == []
        assert len(phone.sockets) == 2


async def test_a_call_that_ends_before_it_is_placed_keeps_its_reason(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:

        async def place_in_turn(request: tel.DialRequest) -> str:
            await anyio.sleep(10)
            assert not request.wanted()
            raise ProviderUnavailable("not sent", provider="scripted")

        phone.carrier.place_call = place_in_turn  # type: ignore[method-assign]
        await phone.dial("Hello.")
        await phone.lane.apply(ev.EndRequested(at=phone.now()))
        await phone.settle(20)
        assert phone.record.end_reason is EndReason.HANGUP_BOT
        assert phone.record.end_detail is EndDetail.REQUESTED


async def test_half_an_emoji_of_a_recogniser_ends_no_call(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await phone.call_in()
        await phone.settle(3)
        phone.hears("How are you \ud83d?")
        await phone.settle(6)
        assert phone.record.live
        assert ("user", "How are you \ufffd?") in phone.said
        assert phone.agent.asked == ["How are you \ufffd?"]


async def test_half_an_emoji_of_a_model_ends_no_call(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await phone.dial()
        await phone.answer()
        await phone.settle(0.1)
        model.current.tell(
            ResponseStarted("r1"), Transcript("assistant", "i1", "Fine \ud83d", final=False)
        )
        await phone.settle(0.01)
        model.current.write("i1", 500)
        model.current.tell(
            Transcript("assistant", "i1", "Fine \U0001f600", final=True),
            ResponseDone("r1", "completed", items=("i1",)),
        )
        await phone.settle(3)
        assert phone.record.live
        assert phone.said[-1] == ("bot", "Fine \U0001f600")


async def test_the_log_says_why_a_call_was_not_placed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_phone(tmp_path) as phone:
        refused = RequestRejected("code 21211 [RQ1]", provider="scripted")
        phone.carrier.dial_errors.append(refused)
        await phone.dial("Hello.")
        await phone.settle(1)
        assert phone.record.end_detail is EndDetail.DIAL_FAILED
    assert "not placed: scripted: code 21211 [RQ1]" in caplog.text


async def test_a_recogniser_that_never_opens_costs_no_greeting_and_ends_the_call(
    tmp_path: Path,
) -> None:
    async with open_phone(tmp_path) as phone:
        phone.stt.open_delay_s = 1e6
        await phone.call_in()
        await phone.settle(8)
        assert phone.record.live
        assert len(phone.heard) == 1
        await phone.settle(60)
        assert phone.record.end_detail is EndDetail.LISTENING_FAILED
        assert len(phone.heard) == 2


async def test_whoever_talks_into_the_goodbye_of_a_deaf_call_is_not_kept(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await phone.call_in()
        await phone.settle(3)
        phone.stt.open_errors.extend(
            ProviderUnavailable("no way there", provider="scripted") for _ in range(9)
        )
        phone.stt.lost()
        while phone.lane.record.utterance is None:
            await phone.settle(0.1)
        assert phone.lane.conversation is not None
        phone.lane.conversation.hush()
        await phone.settle(5)
        assert phone.record.end_detail is EndDetail.LISTENING_FAILED


async def test_a_voice_model_that_never_opens_ends_the_call(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    model.open_delay_s = 1e6
    async with open_realtime(tmp_path, model, realtime={"inactivityMs": 0}) as phone:
        await phone.dial()
        await phone.answer()
        await phone.settle(60)
        assert phone.record.end_detail is EndDetail.LISTENING_FAILED


async def test_a_call_whose_first_commit_was_stored_after_all_goes_on(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        phone.carrier.status_of = tel.CallStatus(ev.CarrierStatus.LIVE)
        commit, answers_lost = phone.store.commit, [True]

        async def commit_and_lose_the_answer(what: Commit) -> None:
            await commit(what)
            if answers_lost:
                answers_lost.pop()
                raise StoreError("whether the commit is stored is not known")

        phone.store.commit = commit_and_lose_the_answer  # type: ignore[method-assign, assignment]
        rings = phone.make(
            ev.Initiated,
            provider_call_id="carrier-1",
            direction=Direction.INBOUND,
            from_number=CALLER,
            to_number=CALLEE,
        )
        first = await phone.tell(rings)
        assert first.status == 200
        await phone.settle(3)
        # The carrier delivers again.
        assert await phone.tell(rings) == first
        assert phone.record.live
        assert phone.carrier.performed_of(tel.Answer)
        await phone.event(ev.CallEnded, reason=EndReason.HANGUP_USER)
        await phone.settle(1)
        assert phone.record.end_reason is EndReason.HANGUP_USER
        assert await phone.store.live() == []
        assert await phone.engine.coordinator.holders(INBOUND_CAP) == 0
