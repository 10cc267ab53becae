"""The Twilio adapter's requests: what is sent, and what each failure means."""

from __future__ import annotations

import dataclasses
import itertools
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from voicecall import ProviderContext
from voicecall import events as ev
from voicecall import telephony as tel
from voicecall.errors import (
    AuthenticationFailed,
    OutcomeUnknown,
    ProviderUnavailable,
    RequestRejected,
)
from voicecall_mock.exchange import AnswerMode, Behaviour, Silent
from voicecall_testing.clock import VirtualSeam
from voicecall_testing.twilio import RestFault
from voicecall_twilio.client import LONGEST_REPLY
from voicecall_twilio.config import TwilioConfig
from voicecall_twilio.provider import TwilioProvider

from .twilio_desk import HERE, PHONE, Desk, answering, open_desk, patient_backend

pytestmark = [pytest.mark.integration, pytest.mark.anyio]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return patient_backend


CREATE = ("POST /Calls.json",)
LIST = ("GET /Calls.json",)


def trouble(desk: Desk, *faults: RestFault) -> None:
    desk.twilio.faults.rest = list(faults)


def query(desk: Desk, *known: str) -> tel.DialQuery:
    return tel.DialQuery(
        call_id="out-1",
        from_number=HERE,
        to_number=PHONE,
        placed_at=desk.twilio.seam.now_ms(),
        known=frozenset(known),
    )


def dialled(desk: Desk) -> int:
    return len(desk.entries("dialled"))


async def connected(desk: Desk) -> tel.CallRef:
    desk.twilio.set_phone(PHONE, (Silent(),))
    call = await desk.dial()
    await desk.event(ev.Answered)
    return call


# --- placing a call --------------------------------------------------------------------------


async def test_a_request_that_was_turned_away_is_sent_again() -> None:
    async with open_desk() as desk:
        trouble(desk, RestFault(status=429, paths=CREATE, times=3))
        call = await desk.dial()
        assert dialled(desk) == 1
        assert call.provider_call_id in desk.twilio.calls


async def test_too_many_requests_for_long_is_a_failure_and_no_call() -> None:
    async with open_desk() as desk:
        trouble(desk, RestFault(status=429, paths=CREATE))
        with pytest.raises(ProviderUnavailable) as caught:
            await desk.dial()
        assert (caught.value.status, caught.value.retryable) == (429, True)
        assert "code 20429" in str(caught.value)
        assert dialled(desk) == 0


async def test_a_call_that_is_turned_away_slowly_fails_while_the_engine_waits_for_it() -> None:
    async with open_desk() as desk:
        trouble(desk, RestFault(status=429, delay_ms=6000, paths=CREATE))
        began = desk.twilio.seam.monotonic()
        with pytest.raises(ProviderUnavailable, match="code 20429"):
            await desk.dial()
        # After 25 s it would count as one that may have been placed.
        assert desk.twilio.seam.monotonic() - began < 25
        assert len(desk.entries("request")) == 3


@pytest.mark.parametrize("turned_away", [0, 4])
async def test_a_call_that_is_over_before_its_turn_is_not_placed(turned_away: int) -> None:
    async with open_desk({"callsPerSecond": 0.5}) as desk:
        trouble(desk, RestFault(status=429, paths=CREATE, times=turned_away))
        wanted = True
        first = 0 if turned_away else 1
        if first:
            await desk.dial()
        async with anyio.create_task_group() as tasks:

            async def place() -> None:
                with pytest.raises(ProviderUnavailable, match="not sent"):
                    await desk.dial(wanted=lambda: wanted)

            tasks.start_soon(place)
            await anyio.sleep(0.3)
            wanted = False
        assert dialled(desk) == first


async def test_a_call_that_is_over_once_its_limit_was_refused_is_not_placed() -> None:
    async with open_desk(longest_call_s=300) as desk:
        wanted = [True, False]
        with pytest.raises(ProviderUnavailable, match="not sent"):
            await desk.dial(wanted=lambda: wanted.pop(0))
        assert dialled(desk) == 0
        assert len(desk.entries("request")) == 1


async def test_a_call_that_is_over_before_other_requests_are_is_not_placed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("voicecall_twilio.client.AT_ONCE", 1)
    async with open_desk() as desk:
        trouble(desk, RestFault(delay_ms=2000, paths=("GET /Calls/",)))
        wanted = True
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(desk.provider.status, desk.ref("out-0", "CA1"))
            await anyio.sleep(0.1)

            async def place() -> None:
                with pytest.raises(ProviderUnavailable, match="not sent"):
                    await desk.dial(wanted=lambda: wanted)

            tasks.start_soon(place)
            await anyio.sleep(0.3)
            wanted = False
        assert dialled(desk) == 0


@pytest.mark.parametrize(
    ("fault", "made"),
    [
        (RestFault(status=500, paths=CREATE), 0),
        (RestFault(status=502, paths=CREATE), 0),
        (RestFault(status=503, paths=CREATE), 0),
        (RestFault(ambiguous=True, paths=CREATE), 1),
        (RestFault(delay_ms=60_000, paths=CREATE), 1),
    ],
    ids=["500", "502", "503", "cut", "slow"],
)
async def test_a_dial_of_unknown_outcome_is_looked_up_and_never_repeated(
    fault: RestFault, made: int
) -> None:
    async with open_desk() as desk:
        desk.twilio.set_phone(PHONE, Behaviour(answer=AnswerMode.NO_ANSWER))
        trouble(desk, fault)
        asked = query(desk)
        with pytest.raises(OutcomeUnknown) as caught:
            await desk.dial()
        error = caught.value
        assert error.status == fault.status
        assert (error.request_id is None) is (fault.status is None)
        assert dialled(desk) == made
        found = await desk.provider.find_dial(asked)
        assert found == next(iter(desk.twilio.calls), None)
        looks = [entry for entry in desk.entries("request") if entry["method"] == "GET"]
        assert len(looks) == (1 if made else 3)
        assert dialled(desk) == made


@pytest.mark.parametrize("body", ["<html>Welcome</html>", "{}", '{"sid": 7}'])
async def test_a_reply_that_cannot_be_read_may_tell_of_a_call(body: str) -> None:
    async with answering(body) as config, open_desk(config) as desk:
        with pytest.raises(OutcomeUnknown, match="cannot be read"):
            await desk.dial()


async def test_a_reply_that_comes_byte_by_byte_is_not_waited_for() -> None:
    async with answering(" " * 200, pause_s=5) as config, open_desk(config) as desk:
        began = desk.twilio.seam.monotonic()
        with pytest.raises(OutcomeUnknown, match="no reply in time"):
            await desk.dial()
        with pytest.raises(OutcomeUnknown, match="no reply in time"):
            await desk.provider.find_dial(query(desk))
        assert desk.twilio.seam.monotonic() - began < 100


async def test_a_reply_without_end_is_not_read_to_it() -> None:
    # Else it would be the call, or the list of calls.
    body = '{"sid": "CA0123456789abcdef0123456789abcdef", "calls": []}' + " " * LONGEST_REPLY
    async with answering(body) as config, open_desk(config) as desk:
        with pytest.raises(OutcomeUnknown, match="a reply of more than"):
            await desk.dial()
        with pytest.raises(OutcomeUnknown, match="a reply of more than"):
            await desk.provider.find_dial(query(desk))


async def test_nobody_there_is_tried_again_a_little() -> None:
    async with open_desk({"apiBaseUrl": "http://127.0.0.1:9"}) as desk:
        began = desk.twilio.seam.monotonic()
        with pytest.raises(ProviderUnavailable) as caught:
            await desk.dial()
        assert caught.value.retryable
        assert desk.twilio.seam.monotonic() - began > 5


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"to_number": "+15005550001"}, 21211),
        ({"to_number": "+15005550003"}, 21215),
        ({"from_number": "+15550999999"}, 21210),
        ({"webhook_url": "nowhere"}, 21205),
    ],
)
async def test_a_refused_call_says_why(changes: dict[str, Any], code: int) -> None:
    async with open_desk() as desk:
        with pytest.raises(RequestRejected) as caught:
            await desk.dial(**changes)
        error = caught.value
        assert (error.provider, error.retryable, error.status) == ("twilio", False, 400)
        assert f"(code {code})" in str(error)
        assert error.request_id is not None
        assert error.request_id in str(error)


@pytest.mark.parametrize("digits", ["1x", "w" * 33, "12 3", "A"])
async def test_digits_that_twilio_would_not_take_are_refused_at_once(digits: str) -> None:
    async with open_desk() as desk:
        with pytest.raises(RequestRejected, match="32 keys and pauses"):
            await desk.dial(dtmf_sequence=digits)
        assert desk.entries("request") == []


async def test_as_many_digits_as_twilio_takes_are_sent() -> None:
    async with open_desk() as desk:
        desk.twilio.set_phone(PHONE, Behaviour(answer=AnswerMode.BUSY))
        await desk.dial(dtmf_sequence="1" * 32)
        assert dialled(desk) == 1


async def test_a_message_that_does_not_fit_is_refused_at_once() -> None:
    async with open_desk() as desk:
        with pytest.raises(RequestRejected, match="4000 characters"):
            await desk.dial(message=tel.Speak("u-1", "x" * 3990))
        assert desk.entries("request") == []


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"authToken": "wrong"}, "twilio.authToken"),
        ({"apiKeySid": "SK1", "apiKeySecret": "wrong"}, "twilio.apiKeySecret"),
    ],
)
async def test_wrong_credentials_name_their_keys(config: dict[str, str], named: str) -> None:
    async with open_desk(config) as desk:
        with pytest.raises(AuthenticationFailed, match=named) as caught:
            await desk.dial()
        assert caught.value.status == 401
        assert caught.value.request_id is not None
        assert "wrong" not in str(caught.value)


async def test_an_api_key_in_place_of_the_auth_token() -> None:
    config = {"apiKeySid": "SK1", "apiKeySecret": "key-secret"}
    async with open_desk(config, api_keys={"SK1": "key-secret"}) as desk:
        await desk.dial()
        # Webhooks are signed with the auth token still.
        await desk.event(ev.Initiated)
    # The auth token, which would be accepted, is not used for requests.
    async with open_desk(config, api_keys={"SK1": "another-secret"}) as desk:
        with pytest.raises(AuthenticationFailed, match=r"twilio\.apiKeySecret"):
            await desk.dial()


async def test_webhooks_signed_with_a_shared_key() -> None:
    config = {"webhooksSharedKey": "the-shared-secret"}
    async with open_desk(config, shared_key=("webhooks_sharedkey_1", "the-shared-secret")) as desk:
        await desk.dial()
        await desk.event(ev.Initiated)


async def test_calls_are_placed_at_the_accounts_pace() -> None:
    async with open_desk({"callsPerSecond": 2}) as desk:
        desk.twilio.set_phone(PHONE, Behaviour(answer=AnswerMode.BUSY))
        async with anyio.create_task_group() as tasks:
            for _ in range(6):
                tasks.start_soon(desk.dial)
        at = [entry["at"] for entry in desk.entries("dialled")]
        gaps = [later - earlier for earlier, later in itertools.pairwise(at)]
        assert len(gaps) == 5
        assert min(gaps) >= 490


async def test_a_call_that_would_wait_too_long_is_refused() -> None:
    async with open_desk({"callsPerSecond": 0.1}) as desk:
        desk.twilio.set_phone(PHONE, Behaviour(answer=AnswerMode.BUSY))
        outcomes: list[str] = []

        async def place() -> None:
            try:
                await desk.dial()
                outcomes.append("placed")
            except ProviderUnavailable:
                outcomes.append("refused")

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(place)
        assert sorted(outcomes) == ["placed"] * 3 + ["refused"] * 2


async def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    async with open_desk() as desk:
        await desk.dial()
        assert dialled(desk) == 1


# --- looking a call up -----------------------------------------------------------------------


async def test_calls_that_cannot_be_the_one_are_passed_over() -> None:
    async with open_desk() as desk:
        desk.twilio.set_phone(PHONE, Behaviour(answer=AnswerMode.NO_ANSWER))
        old = await desk.dial()
        await anyio.sleep(40)
        asked = query(desk)
        assert await desk.provider.find_dial(asked) is None
        known = await desk.dial()
        assert known.provider_call_id is not None
        assert old.provider_call_id is not None
        assert await desk.provider.find_dial(query(desk, known.provider_call_id)) is None
        assert await desk.provider.find_dial(asked) == known.provider_call_id


async def test_a_call_that_is_not_listed_at_once_is_found_some_seconds_later() -> None:
    async with open_desk() as desk:
        desk.twilio.set_phone(PHONE, Behaviour(answer=AnswerMode.NO_ANSWER))
        asked, found = query(desk), []

        async def look() -> None:
            found.append(await desk.provider.find_dial(asked))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(look)
            await anyio.sleep(2)
            call = await desk.dial()
        assert found == [call.provider_call_id]


async def test_calls_between_other_numbers_are_not_the_one() -> None:
    async with open_desk() as desk:
        desk.twilio.set_phone(PHONE, Behaviour(answer=AnswerMode.NO_ANSWER))
        call = await desk.dial()
        asked = query(desk)
        for other in (
            dataclasses.replace(asked, to_number=HERE),
            dataclasses.replace(asked, from_number=PHONE),
        ):
            assert await desk.provider.find_dial(other) is None
        assert await desk.provider.find_dial(asked) == call.provider_call_id


async def test_two_calls_that_may_be_the_one_are_no_answer() -> None:
    async with open_desk() as desk:
        desk.twilio.set_phone(PHONE, Behaviour(answer=AnswerMode.NO_ANSWER))
        await desk.dial()
        await desk.dial()
        with pytest.raises(OutcomeUnknown, match="2 calls"):
            await desk.provider.find_dial(query(desk))


async def test_a_list_that_cannot_be_had_is_no_answer() -> None:
    async with open_desk() as desk:
        trouble(desk, RestFault(status=503, paths=LIST))
        with pytest.raises(OutcomeUnknown) as caught:
            await desk.provider.find_dial(query(desk))
        assert caught.value.request_id is not None
        assert caught.value.request_id in str(caught.value)


async def test_many_calls_are_looked_through_page_by_page() -> None:
    async with open_desk({"callsPerSecond": 1000}, calls_per_second=1000.0) as desk:
        desk.twilio.set_phone(PHONE, Behaviour(answer=AnswerMode.BUSY))
        asked = query(desk)
        for _ in range(13):
            async with anyio.create_task_group() as tasks:
                for _ in range(10):
                    tasks.start_soon(desk.dial)
        sids = [entry["call"] for entry in desk.entries("dialled")]
        assert len(sids) == 130
        for wanted in (sids[0], sids[-1]):
            others = frozenset(sids) - {wanted}
            found = await desk.provider.find_dial(dataclasses.replace(asked, known=others))
            assert found == wanted
        assert len([e for e in desk.entries("request") if e["method"] == "GET"]) == 4


async def test_a_call_that_is_not_made_yet_may_be_the_one() -> None:
    queued = {"sid": "CA1", "status": "queued", "direction": "outbound-api", "date_created": None}
    called = {**queued, "sid": "CA2", "direction": "inbound"}
    page = json.dumps({"calls": [called, queued], "next_page_uri": None})
    async with answering(page) as config, open_desk(config) as desk:
        assert await desk.provider.find_dial(query(desk)) == "CA1"


@pytest.mark.usefixtures("far_from_utc")
@pytest.mark.parametrize("zone", ["+0000", "-0000", "+0200"])
async def test_a_call_is_as_old_as_its_date_says_wherever_the_gateway_is(zone: str) -> None:
    now = datetime.fromtimestamp(VirtualSeam().now_ms() // 1000, UTC)
    local = now + timedelta(hours=int(zone[1:3]))

    def listed(sid: str, made: datetime) -> dict[str, str]:
        date = f"{made:%a, %d %b %Y %H:%M:%S} {zone}"
        return {"sid": sid, "direction": "outbound-api", "date_created": date}

    old = listed("CA1", local - timedelta(minutes=5))
    page = json.dumps({"calls": [listed("CA2", local), old]})
    async with answering(page) as config, open_desk(config) as desk:
        assert await desk.provider.find_dial(query(desk)) == "CA2"


async def test_more_calls_than_can_be_looked_through_are_no_answer() -> None:
    page = json.dumps({"calls": [], "next_page_uri": "/2010-04-01/Accounts/AC1/Calls.json?Page=1"})
    async with answering(page) as config, open_desk(config) as desk:
        with pytest.raises(OutcomeUnknown, match="too many calls to search"):
            await desk.provider.find_dial(query(desk))


# --- a live call -----------------------------------------------------------------------------


async def test_a_call_that_is_over_is_hung_up_with_success() -> None:
    async with open_desk() as desk:
        call = await connected(desk)
        await desk.provider.perform(call, tel.Hangup())
        await desk.event(ev.CallEnded)
        for action in (
            tel.Hangup(),
            tel.Reject(),
            tel.Reject(busy=True),
            tel.Reject("No."),
            tel.StopListening(),
        ):
            await desk.provider.perform(call, action)
        for other in (tel.Speak("u-1", "Hello"), tel.AttachStream(desk.attach())):
            with pytest.raises(RequestRejected, match="the call is over") as caught:
                await desk.provider.perform(call, other)
            assert (caught.value.status, caught.value.request_id is None) == (400, False)
        unknown = desk.ref("out-1", "CA" + "0" * 32)
        await desk.provider.perform(unknown, tel.Hangup())


@pytest.mark.parametrize("action", [tel.Hangup(), tel.StopListening(), tel.Speak("u-1", "Hello")])
async def test_a_refusal_for_another_reason_does_not_mean_that_a_call_is_over(
    action: tel.Action,
) -> None:
    async with open_desk() as desk:
        call = await connected(desk)
        trouble(desk, RestFault(status=403, times=1))
        with pytest.raises(RequestRejected, match="HTTP 403") as caught:
            await desk.provider.perform(call, action)
        assert "the call is over" not in str(caught.value)
        await desk.provider.perform(call, tel.Hangup())


async def test_a_call_that_rings_can_be_ended() -> None:
    async with open_desk() as desk:
        desk.twilio.set_phone(PHONE, Behaviour(answer=AnswerMode.NO_ANSWER))
        call = await desk.dial()
        await desk.event(ev.Ringing)
        assert (await desk.provider.status(call)).status is ev.CarrierStatus.LIVE
        await desk.provider.perform(call, tel.Hangup())
        end = await desk.event(ev.CallEnded)
        assert end.reason.value == "hangup-bot"


@pytest.mark.parametrize("action", [tel.StopListening(), tel.PlayDigits("12")])
async def test_a_call_goes_on_behind_a_command_that_leads_nowhere(action: tel.Action) -> None:
    async with open_desk() as desk:
        call = await connected(desk)
        before = len(desk.all(ev.Active))
        await desk.provider.perform(call, action)
        # The line is held, and asks what to do.
        await desk.event(ev.Active, before + 2)
        assert (await desk.provider.status(call)).status is ev.CarrierStatus.CONNECTED
        await desk.provider.perform(call, tel.Hangup())


async def test_words_that_just_fit_into_a_request_are_said() -> None:
    async with open_desk() as desk:
        call = await connected(desk)
        with pytest.raises(RequestRejected, match="characters of TwiML") as caught:
            await desk.provider.perform(call, tel.Speak("u-1", "x" * 4000))
        needed = int(str(caught.value).split(" characters")[0].split()[-1])
        fitting = 4000 - (needed - 4000)
        with pytest.raises(RequestRejected, match="needs 4001 characters"):
            await desk.provider.perform(call, tel.Speak("u-1", "x" * (fitting + 1)))
        await desk.provider.perform(call, tel.Speak("u-1", "x" * fitting))
        assert len(desk.entries("update", call)) == 1
        await desk.provider.perform(call, tel.Hangup())


async def test_words_for_a_call_that_is_answered_a_moment_later() -> None:
    async with open_desk() as desk:
        desk.twilio.set_phone(PHONE, Behaviour(script=(Silent(),), after_ms=600))
        call = await desk.dial()
        await desk.event(ev.Ringing)
        await desk.provider.perform(call, tel.Speak("u-1", "Hello."))
        await desk.event(ev.PlaybackEnded)
        assert desk.heard(call) == ["Hello."]
        await desk.provider.perform(call, tel.Hangup())


@pytest.mark.parametrize(
    "action",
    [
        tel.Speak("u-1", "x" * 4000),
        tel.Speak("u-1", "x" * 20_000),
        tel.PlayDigits("1x"),
        tel.PlayDigits(""),
    ],
)
async def test_actions_that_cannot_be_carried_out(action: tel.Action) -> None:
    async with open_desk() as desk:
        with pytest.raises(RequestRejected, match=type(action).__name__):
            await desk.provider.perform(desk.ref("out-1", "CA1"), action)
        assert desk.entries("request") == []


async def test_a_call_without_its_ids_is_refused() -> None:
    async with open_desk() as desk:
        with pytest.raises(RequestRejected, match="CallSid"):
            await desk.provider.perform(desk.ref("out-1", None), tel.Hangup())
        with pytest.raises(RequestRejected, match="webhook URL"):
            await desk.provider.perform(tel.CallRef("out-1", "CA1"), tel.Speak("u-1", "Hello"))
        status = await desk.provider.status(desk.ref("out-1", None))
        assert status.status is ev.CarrierStatus.UNKNOWN


@pytest.mark.parametrize(
    "fault", [RestFault(status=502, times=1), RestFault(ambiguous=True, times=1)]
)
async def test_a_hang_up_may_be_sent_twice_and_words_may_not(fault: RestFault) -> None:
    async with open_desk() as desk:
        call = await connected(desk)
        trouble(desk, fault)
        with pytest.raises(OutcomeUnknown):
            await desk.provider.perform(call, tel.Speak("u-1", "Hello."))
        assert len(desk.entries("update", call)) == (1 if fault.ambiguous else 0)
        for ending in (tel.Reject(), tel.Hangup()):
            fault.times = 1
            await desk.provider.perform(call, ending)
        await desk.event(ev.CallEnded)


@pytest.mark.parametrize("turned_away", range(5))
async def test_what_is_turned_away_and_then_fails_is_given_up(turned_away: int) -> None:
    async with open_desk() as desk:
        trouble(desk, RestFault(status=429, times=turned_away), RestFault(status=503))
        with anyio.fail_after(120), pytest.raises(ProviderUnavailable) as caught:
            await desk.provider.perform(desk.ref("out-1", "CA1"), tel.Hangup())
        assert caught.value.status == 503
        assert len(desk.entries("request")) == max(2, turned_away + 1)


async def test_the_state_of_a_call() -> None:
    async with open_desk() as desk:
        call = await connected(desk)
        assert (await desk.provider.status(call)).status is ev.CarrierStatus.CONNECTED
        for fault in (RestFault(status=500), RestFault(status=404), RestFault(ambiguous=True)):
            trouble(desk, fault)
            assert (await desk.provider.status(call)).status is ev.CarrierStatus.UNKNOWN
        trouble(desk, RestFault(status=503, times=1))
        assert (await desk.provider.status(call)).status is ev.CarrierStatus.CONNECTED
        unknown = desk.ref("out-1", "CA" + "0" * 32)
        assert (await desk.provider.status(unknown)).status is ev.CarrierStatus.NOT_FOUND
        await desk.provider.perform(call, tel.Hangup())
        status = await desk.provider.status(call)
        assert status.status is ev.CarrierStatus.ENDED


async def test_wrong_credentials_are_no_state() -> None:
    async with open_desk({"authToken": "wrong"}) as desk:
        with pytest.raises(AuthenticationFailed):
            await desk.provider.status(desk.ref("out-1", "CA1"))


async def test_nothing_is_sent_before_the_lifespan() -> None:
    config = TwilioConfig(account_sid="AC1", auth_token="secret")
    provider = TwilioProvider(config, ProviderContext(Path("unused")))
    with pytest.raises(ProviderUnavailable, match="not running"):
        await provider.perform(tel.CallRef("out-1", "CA1"), tel.Hangup())
