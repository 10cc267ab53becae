"""Twilio's emulator: refusals, lists and numbers of an account, seen by Twilio's own SDK."""

from __future__ import annotations

from typing import Any

import pytest
from twilio.base.exceptions import TwilioRestException

from voicecall_mock.exchange import Silent

pytestmark = [
    pytest.mark.integration,
    pytest.mark.anyio,
    pytest.mark.usefixtures("backstage"),
]

PHONE = "+15550002222"
HERE = "+15550100000"
CALLER = "+15550100001"
QUIET = (Silent(),)


@pytest.mark.parametrize(
    ("params", "status", "code"),
    [
        ({"to": ""}, 400, 21201),
        ({"from_": ""}, 400, 21213),
        ({"url": "nowhere"}, 400, 21205),
        ({"url": ""}, 400, 21205),
        ({"url": "http://a.example/voice webhook"}, 400, 21205),
        ({"to": "12"}, 400, 21211),
        ({"from_": "12"}, 400, 21212),
        ({"from_": "+15550109999"}, 400, 21210),
        ({"to": "+15005550001"}, 400, 21211),
        ({"to": "+15005550002"}, 400, 21214),
        ({"status_callback": "http://under_score.example/"}, 400, 21609),
        ({"status_callback_event": ["finished"]}, 400, 21626),
        ({"twiml": "x" * 4001}, 400, 32018),
        ({"send_digits": "1-2"}, 400, 21206),
        ({"timeout": 601}, 400, 20001),
        ({"method": "PUT"}, 400, 20001),
        ({"fallback_url": "nowhere"}, 400, 21205),
    ],
)
async def test_a_create_that_is_refused(
    customer: Any, params: dict[str, Any], status: int, code: int
) -> None:
    async with customer() as c:
        with pytest.raises(TwilioRestException) as refused:
            await c.dial(**params)
        assert (refused.value.status, refused.value.code) == (status, code)
        assert not c.twilio.calls


async def test_unknown_resources_and_wrong_credentials(customer: Any) -> None:
    async with customer(api_keys={"SK1": "secret-of-the-key"}) as c:
        with pytest.raises(TwilioRestException) as unknown:
            await c.sdk(lambda client: client.calls("CA" + 32 * "0").fetch())
        assert (unknown.value.status, unknown.value.code) == (404, 20404)
        for user, secret in [(None, "wrong"), ("SK1", "wrong"), ("SK2", "secret-of-the-key")]:
            with pytest.raises(TwilioRestException) as wrong:
                await c.sdk(lambda client: client.calls("CA1").fetch(), user, secret)
            assert (wrong.value.status, wrong.value.code) == (401, 20003)
        assert await c.sdk(lambda client: client.calls.list(), "SK1", "secret-of-the-key") == []


async def test_queued_calls_are_dialled_at_the_rate_of_the_account(customer: Any) -> None:
    async with customer(calls_per_second=0.01) as c:
        c.twilio.set_phone(PHONE, QUIET)
        first = await c.dial(twiml="<Response/>")
        assert await c.ended(first) == "completed"
        second = await c.dial(twiml="<Response/>")
        call = await c.sdk(lambda client: client.calls(second).fetch())
        assert (call.status, call.start_time) == ("queued", None)
        await c.sdk(lambda client: client.calls(second).update(status="canceled"))
        assert await c.ended(second) == "canceled"


async def test_calls_are_listed_by_pages_and_filters(customer: Any) -> None:
    async with customer() as c:
        sids = [await c.dial(twiml="<Response/>") for _ in range(3)]
        other = await c.dial(twiml="<Response/>", to="+15550003333")
        for sid in (*sids, other):
            await c.ended(sid)
        found = await c.sdk(lambda client: client.calls.list(page_size=2))
        assert [call.sid for call in found] == [other, *reversed(sids)]
        started = found[-1].start_time
        for filters, wanted in [
            ({"to": "+15550003333"}, [other]),
            ({"from_": HERE, "to": PHONE}, [*reversed(sids)]),
            ({"status": "busy"}, []),
            ({"start_time_after": started}, [other, *reversed(sids)]),
            ({"start_time_before": started.replace(year=2020)}, []),
        ]:
            found = await c.sdk(lambda client, f=filters: client.calls.list(**f))
            assert [call.sid for call in found] == wanted


async def test_numbers_are_listed_and_set(customer: Any) -> None:
    async with customer() as c:
        (number,) = await c.sdk(
            lambda client: client.incoming_phone_numbers.list(phone_number=HERE)
        )
        assert number.voice_url == f"{c.base}/voice"
        await c.sdk(
            lambda client: client.incoming_phone_numbers(number.sid).update(
                voice_url=f"{c.base}/other", voice_method="GET"
            )
        )
        fetched = await c.sdk(lambda client: client.incoming_phone_numbers(number.sid).fetch())
        assert (fetched.voice_url, fetched.voice_method) == (f"{c.base}/other", "GET")
        sid = c.twilio.dial_in(CALLER, HERE, QUIET)
        await c.ended(sid)
        (seen,) = c.at("/other")
        assert seen.method == "GET"
        assert seen.valid
        assert seen.params["CallSid"] == sid
        with pytest.raises(TwilioRestException):
            await c.sdk(lambda client: client.incoming_phone_numbers("PN1").fetch())


async def test_a_number_has_a_fallback(customer: Any) -> None:
    async with customer() as c:
        (number,) = await c.sdk(lambda client: client.incoming_phone_numbers.list())

        def update(**settings: str) -> Any:
            return c.sdk(
                lambda client: client.incoming_phone_numbers(number.sid).update(**settings)
            )

        for wrong, code in (({"voice_url": "nowhere"}, 21502), ({"voice_method": "PUT"}, 21403)):
            with pytest.raises(TwilioRestException) as refused:
                await update(**wrong)
            assert (refused.value.status, refused.value.code) == (400, code)
        await update(voice_fallback_url=f"{c.base}/spare")
        c.answer("/voice", 500)
        c.answer("/spare", "<Hangup/>")
        await c.ended(c.twilio.dial_in(CALLER, HERE, QUIET))
        (seen,) = c.at("/spare")
        assert (seen.params["ErrorCode"], seen.params["ErrorUrl"]) == ("11200", f"{c.base}/voice")


async def test_verified_numbers_are_listed_and_call(customer: Any) -> None:
    ours, other = "+15550777777", "+15550777778"
    async with customer(caller_ids=(ours, other)) as c:
        listed = await c.sdk(lambda client: client.outgoing_caller_ids.list())
        assert [each.phone_number for each in listed] == [ours, other]
        (found,) = await c.sdk(lambda client: client.outgoing_caller_ids.list(phone_number=ours))
        sid = await c.dial(twiml="<Response/>", from_=ours)
        await c.ended(sid)
        call = await c.sdk(lambda client: client.calls(sid).fetch())
        assert call.phone_number_sid == found.sid


async def test_a_shared_key_signs_with_sha256(customer: Any) -> None:
    async with customer(shared_key=("webhooks_sharedkey_1", "a-shared-secret")) as c:
        sid = c.twilio.dial_in(CALLER, HERE, QUIET)
        await c.ended(sid)
        (seen,) = c.seen
        assert seen.valid
        assert "HMAC_SHA256" in seen.headers["x-twilio-webhooks-signature-settings"]
