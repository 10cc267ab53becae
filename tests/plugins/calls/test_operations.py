"""What may be asked of the phone: guards, their order and words, and what is shown of a call."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from voicecall import events as ev
from voicecall import telephony as tel
from voicecall.errors import (
    CallNotActive,
    CallNotFound,
    CallNotReady,
    CapacityExceeded,
    ConfigError,
    InvalidRequest,
    OutcomeUnknown,
    ProviderUnavailable,
    RequestRejected,
    StoreError,
)
from voicecall.model import CallMode, EndDetail, MediaPath
from voicecall.store import DialReservation
from voicecall.tones import check_digits
from voicecall_calls.coordinator import MemoryCoordinator
from voicecall_calls.engine.places import OUTBOUND_CAP, Places
from voicecall_calls.operations import DialOptions, projection
from voicecall_testing.clock import virtual_backend
from voicecall_testing.fakes import NATIVE, ScriptedCarrier
from voicecall_testing.harness import CALLEE, CALLER, Phone, open_phone

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

TALK = CallMode.CONVERSATION


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_backend


async def taken(phone: Phone) -> int:
    return await phone.engine.coordinator.holders(OUTBOUND_CAP)


async def untouched(phone: Phone) -> bool:
    """Nothing was stored, dialled or taken."""
    return (
        not phone.carrier.dialled
        and not phone.engine.lanes
        and await taken(phone) == 0
        and not await phone.store.recent(10)
    )


# --- dial ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            DialOptions(to=None, dtmf_sequence="12a", mode=CallMode.NOTIFY),
            r"digits may only contain 0-9, \*, #, and the pauses w, W, p, P and comma",
        ),
        (
            DialOptions(to=None, dtmf_sequence="12", mode=CallMode.NOTIFY),
            "dtmfSequence requires conversation mode",
        ),
        (
            DialOptions(to=None, dtmf_sequence="12", mode=TALK),
            "scripted does not support pre-connect DTMF",
        ),
        (DialOptions(to=None, message="Hi."), "to is required"),
        (DialOptions(to="  ", message="Hi."), "to is required"),
        (DialOptions(to="12ab", message="Hi."), r"to must be a phone number in E\.164"),
        (DialOptions(to=CALLEE), "message is required in notify mode"),
        (DialOptions(to=CALLEE, message="  "), "message is required in notify mode"),
        (DialOptions(to=CALLEE, message="Hi.", session_key=" "), "sessionKey"),
        (
            DialOptions(to=CALLEE, message="Hi.", idempotency_key="k" * 257),
            "idempotencyKey may be at most 256 characters long",
        ),
    ],
)
async def test_what_is_wrong_is_told_before_anything_happens(
    tmp_path: Path, options: DialOptions, words: str
) -> None:
    async with open_phone(tmp_path) as phone:
        with pytest.raises(InvalidRequest, match=words):
            await phone.operations.dial(options)
        assert await untouched(phone)


async def test_a_stopping_phone_dials_no_more(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        phone.engine.accepting = False
        with pytest.raises(CallNotReady, match="stopping"):
            await phone.dial("Hello.")
        assert await untouched(phone)


async def test_the_number_is_normalised_and_may_come_from_the_configuration(
    tmp_path: Path,
) -> None:
    config = {"toNumber": "+1 555 000 3333", "maxConcurrentCalls": 2}
    async with open_phone(tmp_path, config=config) as phone:
        await phone.operations.dial(DialOptions(to="+1 (555) 000-1111", message="Hi."))
        await phone.operations.dial(DialOptions(to=None, message="Hi."))
        await phone.settle()
        assert [request.to_number for request in phone.carrier.dialled] == [
            CALLEE,
            "+15550003333",
        ]


async def test_only_numbers_that_are_allowed_are_called(tmp_path: Path) -> None:
    allowed = {"allowTo": ["+1 555 000 1111", "+4930*"]}
    async with open_phone(tmp_path, config={"outbound": allowed}) as phone:
        for number in ("+15550001112", "+155500011110", "+493", "+1555000111"):
            with pytest.raises(InvalidRequest, match="to is not allowed"):
                await phone.operations.dial(DialOptions(to=number, message="Hi."))
        assert await untouched(phone)
        await phone.operations.dial(DialOptions(to="+1 (555) 000-1111", message="Hi."))


async def test_a_real_carrier_needs_a_number_of_ours(tmp_path: Path) -> None:
    carrier = ScriptedCarrier(replace(NATIVE, from_number_required=True))
    async with open_phone(tmp_path, carrier=carrier) as phone:
        with pytest.raises(ConfigError, match="fromNumber"):
            await phone.dial("Hello.")
        assert await untouched(phone)


async def test_the_mode_is_the_configured_one_unless_given(tmp_path: Path) -> None:
    config = {"outbound": {"defaultMode": "conversation"}, "maxConcurrentCalls": 2}
    async with open_phone(tmp_path, config=config) as phone:
        first = await phone.operations.dial(DialOptions(to=CALLEE))
        second = await phone.operations.dial(
            DialOptions(to=CALLEE, message="Hi.", mode=CallMode.NOTIFY)
        )
        assert (first.mode, second.mode) == (TALK, CallMode.NOTIFY)


async def test_digits_before_the_connection_go_with_the_dial_request(tmp_path: Path) -> None:
    carrier = ScriptedCarrier(replace(NATIVE, pre_connect_dtmf=True))
    async with open_phone(tmp_path, media=MediaPath.NATIVE, carrier=carrier) as phone:
        record = await phone.dial("Hello.", dtmf_sequence="1w 2#")
        assert carrier.dialled[0].dtmf_sequence == "1w2#"
        assert record.mode is TALK
        assert record.message is not None


async def test_more_digits_than_the_carrier_takes_are_refused_before_dialling(
    tmp_path: Path,
) -> None:
    can = replace(NATIVE, pre_connect_dtmf=True, longest_pre_connect_dtmf=4)
    carrier = ScriptedCarrier(can)
    async with open_phone(tmp_path, media=MediaPath.NATIVE, carrier=carrier) as phone:
        with pytest.raises(InvalidRequest, match="dtmfSequence of at most 4 characters"):
            await phone.dial("Hello.", dtmf_sequence="1w2#3")
        assert carrier.dialled == []
        await phone.dial("Hello.", dtmf_sequence="1 w 2 #")
        assert carrier.dialled[0].dtmf_sequence == "1w2#"


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        # As clients write a wait of twelve seconds before a conference code.
        ("w" * 24 + "123456789012#", "W" * 12 + "123456789012#"),
        ("1w,p,w,#" + "2" * 22 + "www", "1WpW,#" + "2" * 22 + "Ww"),
        # Unchanged if it is short enough.
        ("w" * 20 + "1234567890#", "w" * 20 + "1234567890#"),
    ],
)
async def test_waits_before_digits_are_written_shorter_where_they_are_too_long(
    tmp_path: Path, given: str, sent: str
) -> None:
    can = replace(NATIVE, pre_connect_dtmf=True, longest_pre_connect_dtmf=32)
    carrier = ScriptedCarrier(can)
    async with open_phone(tmp_path, media=MediaPath.NATIVE, carrier=carrier) as phone:
        await phone.dial("Hello.", dtmf_sequence=given)
        assert carrier.dialled[0].dtmf_sequence == sent


async def test_no_more_calls_than_are_allowed(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await phone.dial("First.")
        with pytest.raises(CapacityExceeded, match=r"Maximum concurrent calls \(1\) reached"):
            await phone.dial("Second.")
        assert len(phone.carrier.dialled) == 1
        await phone.hang_up()
        await phone.dial("Third.")
        assert len(phone.carrier.dialled) == 2


async def test_no_more_calls_a_minute_than_are_allowed(tmp_path: Path) -> None:
    async with open_phone(tmp_path, config={"outbound": {"maxPerMinute": 2}}) as phone:
        for key in ("first", "second"):
            # One that fails at once leaves its place to the next.
            phone.carrier.dial_errors.append(RequestRejected("no", provider="scripted"))
            await phone.dial("Hello.", idempotency_key=key)
            await phone.settle(1)
        for _ in range(3):
            with pytest.raises(CapacityExceeded, match=r"Maximum calls per minute \(2\) reached"):
                await phone.dial("Hello.")
        # What was placed before is not placed again.
        await phone.dial("Hello.", idempotency_key="first")
        assert len(phone.carrier.dialled) == 2
        assert await phone.engine.coordinator.holders(OUTBOUND_CAP) == 0
        await phone.settle(60)
        await phone.dial("Hello.")
        assert len(phone.carrier.dialled) == 3


class RemoteCoordinator(MemoryCoordinator):
    """Takes a while for what it is asked; ``down`` for rates."""

    down = False

    async def release(self, name: str, holder: str) -> None:
        await anyio.sleep(0.1)
        await super().release(name, holder)

    async def allow(self, name: str, *, per_minute: int) -> bool:
        if self.down:
            raise ProviderUnavailable("no way there", provider="remote")
        await anyio.sleep(1)
        return await super().allow(name, per_minute=per_minute)


async def test_a_request_that_is_given_up_or_fails_keeps_no_place(tmp_path: Path) -> None:
    async with open_phone(tmp_path, config={"outbound": {"maxPerMinute": 9}}) as phone:
        coordinator = RemoteCoordinator(phone.seam)
        phone.engine.coordinator = coordinator
        phone.engine.places = Places(coordinator, lambda: phone.config, phone.engine.policy)
        with anyio.move_on_after(0.5):
            await phone.dial("Hello.")
        assert await untouched(phone)
        coordinator.down = True
        with pytest.raises(ProviderUnavailable, match="no way there"):
            await phone.dial("Hello.")
        assert await untouched(phone)
        coordinator.down = False
        await phone.dial("Hello.")
        assert await taken(phone) == 1


async def test_the_longest_call_keeps_its_place_to_its_end(tmp_path: Path) -> None:
    carrier = ScriptedCarrier(replace(NATIVE, pre_connect_dtmf=True))
    async with open_phone(tmp_path, media=MediaPath.NATIVE, carrier=carrier) as phone:
        carrier.delay_s, carrier.status_of = 29, tel.CallStatus(ev.CarrierStatus.LIVE)
        await phone.dial("Hello.", dtmf_sequence="W" * 100)
        await phone.settle(29 + 30 + 100 + 14)
        carrier.delay_s = 0
        carrier.fail(tel.Hangup, *[OutcomeUnknown("cut", provider="scripted") for _ in range(9)])
        await phone.answer()
        while phone.engine.lanes:
            assert await phone.engine.coordinator.holders(OUTBOUND_CAP) == 1
            await phone.settle(1)
        assert phone.record.end_detail is EndDetail.HANGUP_FAILED


async def test_calls_that_a_restart_finds_keep_their_places_under_a_lower_limit(
    tmp_path: Path,
) -> None:
    carrier = ScriptedCarrier(NATIVE)
    carrier.status_of = tel.CallStatus(ev.CarrierStatus.LIVE)
    async with open_phone(tmp_path, config={"maxConcurrentCalls": 2}, carrier=carrier) as phone:
        for _ in range(2):
            await phone.dial("Hello.")
    async with open_phone(tmp_path, carrier=carrier, seed=1) as phone:
        for call_id in list(phone.engine.lanes):
            with pytest.raises(CapacityExceeded, match=r"\(1\)"):
                await phone.dial("Another.")
            await phone.operations.end(call_id)
        await phone.dial("Another.")


async def test_inbound_calls_do_not_count_against_outbound_ones(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await phone.call_in(provider_call_id="inbound-1")
        await phone.dial("Hello.")
        assert len(phone.engine.lanes) == 2


async def test_concurrent_requests_do_not_slip_past_the_limit(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        refused: list[CapacityExceeded] = []

        async def dial() -> None:
            try:
                await phone.dial("Hello.")
            except CapacityExceeded as error:
                refused.append(error)

        async with anyio.create_task_group() as dialling:
            for _ in range(5):
                dialling.start_soon(dial)
        assert len(refused) == 4
        assert len(phone.carrier.dialled) == 1


async def test_a_call_that_cannot_be_stored_is_not_dialled_and_takes_no_place(
    tmp_path: Path,
) -> None:
    async with open_phone(tmp_path) as phone:
        phone.store.failures = 1
        with pytest.raises(StoreError):
            await phone.dial("Hello.")
        assert await untouched(phone)
        await phone.dial("Hello.")
        assert len(phone.carrier.dialled) == 1


async def test_one_idempotency_key_dials_once(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        ids: list[str] = []

        async def dial() -> None:
            ids.append((await phone.dial("Hello.", idempotency_key="7" * 256)).call_id)

        async with anyio.create_task_group() as dialling:
            dialling.start_soon(dial)
            dialling.start_soon(dial)
        await phone.hang_up()
        await dial()
        assert len(set(ids)) == 1
        assert len(ids) == 3
        assert len(phone.carrier.dialled) == 1


async def test_a_key_that_is_used_between_the_look_and_the_commit_dials_once(
    tmp_path: Path,
) -> None:
    asked = DialOptions(to=CALLEE, message="Hello.", idempotency_key="order-7")
    async with open_phone(tmp_path, config={"maxConcurrentCalls": 2}) as phone:
        first = await phone.operations.dial(asked)
        look, early = phone.store.reservation, [True]

        async def reservation(key: str) -> DialReservation | None:
            return None if early and early.pop() else await look(key)

        phone.store.reservation = reservation  # type: ignore[method-assign]
        assert (await phone.operations.dial(asked)).call_id == first.call_id
        assert await phone.engine.coordinator.holders(OUTBOUND_CAP) == 1
        await phone.settle(1)
        assert len(phone.carrier.dialled) == 1


@pytest.mark.parametrize("other", [{"to": "+15550003333"}, {"message": "Goodbye."}])
async def test_an_idempotency_key_is_not_for_another_call(
    tmp_path: Path, other: dict[str, Any]
) -> None:
    asked = DialOptions(to=CALLEE, message="Hello.", idempotency_key="order-7")
    async with open_phone(tmp_path) as phone:
        first = await phone.operations.dial(asked)
        for _ in range(2):
            with pytest.raises(InvalidRequest, match="used for another call"):
                await phone.operations.dial(replace(asked, **other))
            again = await phone.operations.dial(replace(asked, to="+1 555 000 1111"))
            assert again.call_id == first.call_id
            await phone.operations.end(first.call_id)
        assert len(phone.carrier.dialled) == 1


async def test_a_call_belongs_to_the_history_of_its_scope_or_key(tmp_path: Path) -> None:
    config = {"sessionScope": "per-call", "maxConcurrentCalls": 2}
    async with open_phone(tmp_path, config=config) as phone:
        first = await phone.dial("Hi.")
        second = await phone.dial("Hi.", session_key="Desk", requester_session_key="chat")
        assert first.session_key == f"agent:main:voice:call:{first.call_id}"
        assert second.session_key == "agent:main:desk"
        assert second.requester_session_key == "chat"


# --- live calls ------------------------------------------------------------------------------


async def test_requests_about_calls_that_nobody_knows(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        for request in (
            phone.operations.speak("nobody", "Hi."),
            phone.operations.ask("nobody", "Hi?"),
            phone.operations.dtmf("nobody", "1"),
            phone.operations.end("nobody"),
        ):
            with pytest.raises(CallNotFound, match="call not found: nobody"):
                await request
        assert await phone.operations.status("nobody") == {"found": False}


async def test_requests_about_a_call_that_is_over(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await phone.call_in()
        await phone.settle(3)
        await phone.hang_up()
        call_id = phone.record.call_id
        for request in (phone.operations.speak(call_id, "Hi."), phone.operations.ask(call_id, "?")):
            with pytest.raises(CallNotActive) as over:
                await request
            ended = r"\(hangup-user at \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00\)"
            assert re.fullmatch(f"call is not active: {call_id} {ended}", str(over.value))
        assert await phone.operations.end(call_id) == phone.record
        assert phone.carrier.performed_of(tel.Hangup) == []


async def test_a_call_that_still_rings_can_not_be_spoken_to(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        record = await phone.dial("Hello.")
        with pytest.raises(CallNotReady, match="not connected yet"):
            await phone.operations.speak(record.call_id, "Hi.")
        assert phone.record.answered_at is None


async def test_a_call_that_is_being_ended_takes_no_more_requests(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await phone.call_in()
        phone.carrier.delay_s = 5.0
        async with anyio.create_task_group() as ending:
            ending.start_soon(phone.operations.end, phone.record.call_id)
            await phone.settle(1)
            with pytest.raises(CallNotReady, match="ending"):
                await phone.operations.speak(phone.record.call_id, "Hi.")


async def test_whoever_ends_a_call_waits_half_a_minute_for_the_carrier(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await phone.call_in()
        phone.carrier.fail(
            tel.Hangup, *[OutcomeUnknown("cut", provider="scripted") for _ in range(9)]
        )
        phone.carrier.delay_s = 29
        began = phone.seam.monotonic()
        with pytest.raises(CallNotReady, match="the hang-up is still under way"):
            await phone.operations.end(phone.record.call_id)
        assert 30 <= phone.seam.monotonic() - began < 31


async def test_carrier_ids_are_understood_everywhere(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await phone.call_in()
        await phone.settle(3)
        await phone.operations.speak("carrier-1", " By the other name.\n")
        assert phone.said[-1] == ("bot", "By the other name.")
        status = await phone.operations.status("carrier-1")
        assert status["call"]["callId"] == phone.record.call_id
        await phone.operations.end("carrier-1")
        assert phone.record.terminal


@pytest.mark.parametrize("text", ["", "   "])
async def test_blank_words_are_refused(tmp_path: Path, text: str) -> None:
    async with open_phone(tmp_path) as phone:
        await phone.call_in()
        for request in (phone.operations.speak, phone.operations.ask):
            with pytest.raises(InvalidRequest, match="message is required"):
                await request(phone.record.call_id, text)


# --- keys ------------------------------------------------------------------------------------


def test_which_digits_may_be_sent() -> None:
    assert check_digits("0 1*#, wWpP") == "01*#,wWpP"
    assert check_digits("1" * 100) == "1" * 100
    for wrong in ("", "  ", "12a", "+1", "1;2", "1\n", "w" * 101):
        with pytest.raises(InvalidRequest):
            check_digits(wrong)


async def test_keypad_tones_go_through_the_stream_or_by_a_request(tmp_path: Path) -> None:
    async with open_phone(tmp_path / "stream") as phone:
        await phone.call_in()
        await phone.settle(1)
        await phone.operations.dtmf(phone.record.call_id, "12#")
        assert phone.socket.digits == ["12#"]
        assert phone.carrier.performed_of(tel.PlayDigits) == []
    async with open_phone(tmp_path / "native", media=MediaPath.NATIVE) as phone:
        await phone.call_in()
        await phone.settle(5)
        before = phone.said
        await phone.operations.dtmf(phone.record.call_id, "12#")
        token = phone.record.listen_token
        assert token is not None
        again = tel.Listen(token, phone.config.silence_timeout_ms)
        assert phone.carrier.performed_of(tel.PlayDigits) == [tel.PlayDigits("12#", listen=again)]
        assert phone.said == before
        phone.carrier.fail(tel.PlayDigits, ProviderUnavailable("busy", provider="scripted"))
        with pytest.raises(ProviderUnavailable):
            await phone.operations.dtmf(phone.record.call_id, "1")


async def test_a_carrier_without_tones_says_so(tmp_path: Path) -> None:
    carrier = ScriptedCarrier(replace(NATIVE, dtmf_out=False))
    async with open_phone(tmp_path, media=MediaPath.NATIVE, carrier=carrier) as phone:
        await phone.call_in()
        with pytest.raises(RequestRejected, match="DTMF is not supported"):
            await phone.operations.dtmf(phone.record.call_id, "1")
        assert phone.record.live


# --- status ----------------------------------------------------------------------------------


async def test_status_of_one_of_all_and_of_stored_calls(tmp_path: Path) -> None:
    async with open_phone(tmp_path, config={"maxConcurrentCalls": 2}) as phone:
        first = await phone.dial("Hello.")
        second = await phone.dial("Hello.")
        everything = await phone.operations.status(None)
        assert {call["callId"] for call in everything["calls"]} == {
            first.call_id,
            second.call_id,
        }
        await phone.operations.end(first.call_id)
        status = await phone.operations.status(first.call_id)
        assert status["found"]
        assert status["call"]["endReason"] == "hangup-bot"
        assert status["call"]["endDetail"] == "requested"
        assert len((await phone.operations.status(None))["calls"]) == 1


async def test_a_shown_call_has_no_numbers_and_no_words(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await phone.call_in()
        await phone.settle(3)
        phone.hears("My number is secret.")
        await phone.settle(2)
        shown = repr(projection(phone.record))
        for private in (CALLER, CALLEE, "secret", "5550002222"):
            assert private not in shown
