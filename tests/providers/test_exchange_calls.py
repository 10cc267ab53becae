"""The mock exchange without media: ringing, webhooks, actions, native speech, faults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from tests.backstage import closed_backstage

from voicecall import ProviderContext
from voicecall import telephony as tel
from voicecall.errors import OutcomeUnknown, ProviderUnavailable, RequestRejected
from voicecall.events import CarrierStatus
from voicecall.model import EndReason
from voicecall_mock.config import MockConfig
from voicecall_mock.exchange import (
    AnswerMode,
    Behaviour,
    HangUp,
    HangUpMidWord,
    Interrupt,
    NoWebhook,
    Press,
    Say,
    Silent,
    Wait,
    WaitForSilence,
    script_to_json,
)
from voicecall_mock.exchange.server import serve_app
from voicecall_mock.provider import MockProvider

pytestmark = [
    pytest.mark.integration,
    pytest.mark.anyio,
    pytest.mark.usefixtures("backstage"),
]

PHONE = "+15550002222"
QUIET = (Silent(),)


def _query(call_id: str) -> tel.DialQuery:
    return tel.DialQuery(call_id=call_id, from_number="+15550001111", to_number=PHONE, placed_at=0)


async def test_a_called_phone_rings_answers_and_is_hung_up(telephone: Any) -> None:
    async with telephone() as gateway:
        gateway.exchange.set_phone(PHONE, QUIET)
        call = await gateway.dial()
        answered = await gateway.event("call.answered")
        assert answered["call"]["reference"] == "ours-1"
        assert (await gateway.provider.status(call)).status is CarrierStatus.CONNECTED
        await gateway.provider.perform(call, tel.Hangup())
        assert (await gateway.event("call.ended"))["reason"] == "completed"
        assert gateway.types == ["call.ringing", "call.answered", "call.ended"]
        status = await gateway.provider.status(call)
        assert status == tel.CallStatus(CarrierStatus.ENDED, EndReason.COMPLETED)
        with pytest.raises(RequestRejected):
            await gateway.provider.perform(call, tel.Speak("u", "Too late."))
        assert len(set(gateway.keys)) == 3


@pytest.mark.parametrize(
    ("answer", "reason", "rings"),
    [
        (AnswerMode.BUSY, "busy", False),
        (AnswerMode.REJECT, "busy", True),
        (AnswerMode.NO_ANSWER, "no-answer", True),
        (AnswerMode.UNREACHABLE, "failed", False),
    ],
)
async def test_a_phone_that_is_not_answered(
    telephone: Any, answer: AnswerMode, reason: str, rings: bool
) -> None:
    async with telephone() as gateway:
        gateway.exchange.set_phone(PHONE, Behaviour(answer=answer, after_ms=5))
        patient = answer is not AnswerMode.NO_ANSWER
        call = await gateway.dial(ring_timeout_s=10 if patient else 0.1)
        assert await gateway.ended(call) == reason
        assert (await gateway.event("call.ended"))["reason"] == reason
        assert gateway.types == (["call.ringing"] if rings else []) + ["call.ended"]


async def test_a_ringing_call_can_only_be_hung_up(telephone: Any) -> None:
    async with telephone() as gateway:
        gateway.exchange.set_phone(PHONE, Behaviour(answer=AnswerMode.NO_ANSWER))
        call = await gateway.dial()
        with pytest.raises(RequestRejected):
            await gateway.provider.perform(call, tel.Speak("u", "Too early."))
        assert (await gateway.provider.status(call)).status is CarrierStatus.LIVE
        await gateway.provider.perform(call, tel.Hangup())
        assert (await gateway.event("call.ended"))["reason"] == "completed"
        with pytest.raises(RequestRejected):
            await gateway.dial(dtmf_sequence="not digits")


async def test_an_inbound_call_is_answered_by_the_reply(telephone: Any) -> None:
    async with telephone() as gateway:
        with pytest.raises(NoWebhook):
            gateway.exchange.dial_in(PHONE, "+15550001111", QUIET)
        await gateway.provider.register_webhook(gateway.url)
        gateway.replies["call.initiated"] = [
            tel.Answer(),
            tel.Speak("u-1", "Good morning to you.", listen=tel.Listen("turn-1")),
        ]
        script = (WaitForSilence(), Say("I want a pizza.", partial="I want"), HangUp())
        call_id = gateway.exchange.dial_in(PHONE, "+15550001111", script)
        assert (await gateway.event("call.ended"))["reason"] == "hangup-user"
        assert gateway.types == [
            "call.initiated",
            "call.answered",
            "call.playback",
            "call.speech",
            "call.speech",
            "call.ended",
        ]
        partial, final = gateway.all("call.speech")
        assert (partial["text"], partial["final"], partial["token"]) == ("I want", False, "turn-1")
        assert (final["text"], final["final"], final["token"]) == (
            "I want a pizza.",
            True,
            "turn-1",
        )
        assert gateway.exchange.stats(call_id).log == (
            ("heard", "Good morning to you."),
            ("said", "I want a pizza."),
        )


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ([tel.Reject("We are closed.")], "completed"),
        ([tel.Reject(busy=True)], "busy"),
        ([], "no-answer"),
    ],
)
async def test_an_inbound_call_that_is_not_taken(
    telephone: Any, reply: list[tel.Action], reason: str
) -> None:
    async with telephone(answer_timeout_s=0.2 if not reply else 10) as gateway:
        await gateway.provider.register_webhook(gateway.url)
        gateway.replies["call.initiated"] = reply
        gateway.exchange.dial_in(PHONE, "+15550001111", QUIET)
        assert (await gateway.event("call.ended"))["reason"] == reason
        assert not gateway.all("call.answered")


async def test_an_action_that_is_refused_leaves_the_rest_of_the_reply(telephone: Any) -> None:
    async with telephone() as gateway:
        await gateway.provider.register_webhook(gateway.url)
        gateway.replies["call.initiated"] = [tel.Listen("too soon"), tel.Answer()]
        call_id = gateway.exchange.dial_in(PHONE, "+15550001111", QUIET)
        await gateway.event("call.answered")
        (refused,) = gateway.exchange.ledger.entries("action-refused", call=call_id)
        assert refused["action"] == "Listen"


async def test_of_too_many_calls_one_that_is_over_is_forgotten(telephone: Any) -> None:
    async with telephone(keep_calls=1) as gateway:
        gateway.exchange.set_phone(PHONE, QUIET)
        over = await gateway.dial()
        await gateway.provider.perform(over, tel.Hangup())
        await gateway.ended(over)
        live = [(await gateway.dial(call_id=f"live-{n}")).provider_call_id for n in range(2)]
        assert list(gateway.exchange.calls) == live


async def test_a_failed_delivery_is_repeated_with_the_same_id(telephone: Any) -> None:
    async with telephone() as gateway:
        gateway.exchange.set_phone(PHONE, (HangUp(),))
        gateway.statuses = [500, 503]
        call = await gateway.dial()
        await gateway.event("call.ended")
        assert gateway.types == ["call.ringing"] * 3 + ["call.answered", "call.ended"]
        assert len({event["id"] for event in gateway.all("call.ringing")}) == 1
        attempts = gateway.exchange.ledger.entries(
            "webhook", call=call.provider_call_id, type="call.ringing"
        )
        assert [(entry["attempt"], entry["status"]) for entry in attempts] == [
            (1, 500),
            (2, 503),
            (3, 200),
        ]


async def test_a_refused_delivery_is_final_and_a_hopeless_one_given_up(telephone: Any) -> None:
    async with telephone() as gateway:
        gateway.exchange.set_phone(PHONE, (HangUp(),))
        gateway.statuses = [404, 500, 500, 500, 500]
        await gateway.dial()
        await gateway.event("call.ended")
        assert gateway.types == ["call.ringing"] + ["call.answered"] * 4 + ["call.ended"]
        given_up = gateway.exchange.ledger.entries("webhook-given-up")
        assert [entry["type"] for entry in given_up] == ["call.answered"]


async def test_duplicates_do_not_act_twice(telephone: Any) -> None:
    async with telephone() as gateway:
        await gateway.rest("POST", "/v1/faults", {"webhooks": {"duplicate": True}})
        gateway.exchange.set_phone(PHONE, (WaitForSilence(), Wait(100), HangUp()))
        gateway.replies["call.answered"] = [tel.Speak("u-1", "Only once.")]
        call = await gateway.dial()
        await gateway.event("call.ended", 2)
        assert [gateway.types.count(kind) for kind in dict.fromkeys(gateway.types)] == [2, 2, 2, 2]
        assert len({event["id"] for event in gateway.events}) == 4
        assert gateway.exchange.stats(call.provider_call_id).log == (("heard", "Only once."),)


async def test_lost_and_reordered_webhooks(telephone: Any) -> None:
    async with telephone() as gateway:
        faults = {"webhooks": {"lose": 1, "delayMs": 5, "types": ["call.answered"]}}
        await gateway.rest("POST", "/v1/faults", faults)
        gateway.exchange.set_phone(PHONE, (HangUp(),))
        await gateway.dial()
        await gateway.event("call.ended")
        assert gateway.types == ["call.ringing", "call.ended"]
        faults = {"webhooks": {"reorder": 1, "types": ["call.ringing"]}}
        await gateway.rest("POST", "/v1/faults", faults)
        gateway.events.clear()
        await gateway.dial()
        await gateway.event("call.ended")
        assert gateway.types == ["call.answered", "call.ringing", "call.ended"]


async def test_an_ambiguous_dial_is_found_by_its_reference(telephone: Any) -> None:
    async with telephone() as gateway:
        faults = {"rest": {"ambiguous": True, "paths": ["POST /v1/calls"], "times": 1}}
        await gateway.rest("POST", "/v1/faults", faults)
        gateway.exchange.set_phone(PHONE, QUIET)
        with pytest.raises(OutcomeUnknown):
            await gateway.dial(call_id="ours-7")
        found = await gateway.provider.find_dial(_query("ours-7"))
        assert found in gateway.exchange.calls
        assert await gateway.provider.find_dial(_query("ours-8")) is None


async def test_failing_rest(telephone: Any) -> None:
    async with telephone() as gateway:
        await gateway.rest("POST", "/v1/faults", {"rest": {"status": 503, "times": 1}})
        with pytest.raises(ProviderUnavailable):
            await gateway.dial()
        assert not gateway.exchange.calls
        await gateway.dial()


async def test_the_time_limit_ends_a_call_whose_gateway_is_gone(telephone: Any) -> None:
    async with telephone() as gateway:
        gateway.exchange.set_phone(PHONE, QUIET)
        gateway.statuses = [500] * 100
        call = await gateway.dial(time_limit_s=0.2)
        assert await gateway.ended(call) == "completed"


async def test_a_phone_loses_patience_and_hangs_up_mid_word(telephone: Any) -> None:
    async with telephone() as gateway:
        gateway.exchange.set_phone(PHONE, Behaviour(QUIET, patience_s=0.1))
        assert await gateway.ended(await gateway.dial()) == "hangup-user"
        gateway.exchange.set_phone(PHONE, (HangUpMidWord("I wanted to", 20),))
        assert await gateway.ended(await gateway.dial()) == "hangup-user"
        assert not gateway.all("call.speech")


async def test_dialled_digits_come_before_anything_else(telephone: Any) -> None:
    async with telephone() as gateway:
        gateway.exchange.set_phone(PHONE, (WaitForSilence(), Press("42#"), HangUp()))
        gateway.replies["call.answered"] = [tel.Speak("u-1", "Hello."), tel.PlayDigits("7")]
        call = await gateway.dial(dtmf_sequence="w12")
        assert (await gateway.event("call.digits"))["digits"] == "42#"
        await gateway.event("call.ended")
        stats = gateway.exchange.stats(call.provider_call_id)
        assert (stats.digits_heard, stats.digits_pressed) == ("w127", "42#")
        kinds = [entry["kind"] for entry in gateway.exchange.ledger.entries()]
        assert kinds.index("digits-heard") < kinds.index("heard")


async def test_interrupting_native_speech_stops_it(telephone: Any) -> None:
    async with telephone() as gateway:
        gateway.exchange.set_phone(PHONE, (Interrupt(10, "Stop!"), HangUp()))
        gateway.replies["call.answered"] = [
            tel.Speak("u-1", "blah " * 10_000, listen=tel.Listen("turn-1"))
        ]
        call = await gateway.dial()
        speech = await gateway.event("call.speech")
        assert (speech["text"], speech["token"]) == ("Stop!", "turn-1")
        assert gateway.types.index("call.playback") < gateway.types.index("call.speech")
        heard = gateway.exchange.ledger.entries("heard", call=call.provider_call_id)
        assert [entry["complete"] for entry in heard] == [False]


async def test_the_default_phone_takes_turns(telephone: Any) -> None:
    async with telephone() as gateway:
        gateway.replies["call.answered"] = [
            tel.Speak("u-1", "Who is there?", listen=tel.Listen("turn-1"))
        ]

        def again(event: Any) -> tuple[int, list[tel.Action]]:
            more = tel.Speak("u-2", "I see.", listen=tel.Listen("turn-2"))
            return 200, [tel.Hangup()] if event["token"] == "turn-2" else [more]

        gateway.replies["call.speech"] = again
        call = await gateway.dial()
        assert await gateway.ended(call) == "completed"
        first, second = gateway.all("call.speech")
        assert first["text"] == "I heard you. Please go on."
        assert second["text"] != first["text"]


@pytest.mark.parametrize("body", [b"{", b"[1]", b"[" * 100_000], ids=["open", "list", "deep"])
async def test_a_reply_that_cannot_be_read_changes_nothing(telephone: Any, body: bytes) -> None:
    async def answer(request: Request) -> Response:
        return Response(body)

    app = Starlette(routes=[Route("/hook", answer, methods=["POST"])])
    hooks = closed_backstage(serve_app(app, "127.0.0.1", 0))
    async with telephone() as gateway, hooks as base_url:
        gateway.url = f"{base_url}/hook"
        gateway.exchange.set_phone(PHONE, QUIET)
        call = await gateway.dial()
        with anyio.fail_after(10):
            await gateway.exchange.ledger.wait_for("reply-malformed", count=2)
        await gateway.provider.perform(call, tel.Hangup())
        assert await gateway.ended(call) == "completed"


async def test_rest_rules(telephone: Any) -> None:
    async with telephone() as gateway:
        async with httpx.AsyncClient(base_url=gateway.exchange.base_url, trust_env=False) as http:
            assert (await http.get("/v1/ledger")).status_code == 401
            http.headers["authorization"] = "Bearer a-shared-token"
            assert (await http.get("/v1/calls/mk-0")).status_code == 404
            for content in (b"{", b"[" * 100_000):
                assert (await http.post("/v1/calls", content=content)).status_code == 400
            assert (await http.post("/v1/calls", json={"from": "+1"})).status_code == 400
            assert (await http.post("/v1/faults", json={"dragons": 1})).status_code == 400
            bad = {"script": [{"do": "fly"}]}
            assert (await http.put("/v1/phones/+1", json=bad)).status_code == 400
            assert (await http.post("/v1/phones/+1/dial", json={"to": "+2"})).status_code == 409
            steps = {"script": script_to_json(QUIET)}
            assert (await http.put(f"/v1/phones/{PHONE}", json=steps)).status_code == 200
            call = await gateway.dial()
            actions = f"/v1/calls/{call.provider_call_id}/actions"
            assert (await http.post(actions, json={"action": "dance"})).status_code == 400
            assert (await http.post(actions, json={"action": "hangup"})).status_code == 200
            assert (await http.post(actions, json={"action": "hangup"})).status_code == 409
            path = f"/v1/ledger?call={call.provider_call_id}"
            await gateway.exchange.ledger.wait_for("webhook", type="call.ended")
            report = (await http.get(path)).json()
            kinds = {entry["kind"] for entry in report["entries"]}
            assert {"dialled", "action", "ended", "webhook"} <= kinds
            assert report["calls"][0]["reason"] == "completed"


async def test_phones_dial_in_over_rest(telephone: Any) -> None:
    async with telephone() as gateway:
        await gateway.provider.register_webhook(gateway.url)
        gateway.replies["call.initiated"] = [tel.Answer()]
        body = {"to": "+15550001111", "script": [{"do": "press", "digits": "1"}, {"do": "hang-up"}]}
        response = await gateway.rest("POST", f"/v1/phones/{PHONE}/dial", body)
        with anyio.fail_after(5):
            assert await gateway.exchange.ended(response.json()["id"]) == "hangup-user"
        assert (await gateway.event("call.digits"))["call"]["from"] == PHONE


async def test_where_there_is_no_exchange_nothing_is_registered(telephone: Any) -> None:
    async with telephone() as gateway:
        elsewhere = f"{gateway.exchange.base_url}/elsewhere"
        config = MockConfig(api_base_url=elsewhere, auth_token=gateway.exchange.options.auth_token)
        provider = MockProvider(config, ProviderContext(Path("unused")))
        async with provider.lifespan():
            with pytest.raises(RequestRejected, match="Not Found"):
                await provider.register_webhook(gateway.url)
            with pytest.raises(RequestRejected, match="Not Found"):
                await provider.find_dial(_query("ours-1"))


async def test_a_carrier_without_a_url_brings_its_own_exchange(tmp_path: Path) -> None:
    provider = MockProvider(MockConfig(), ProviderContext(tmp_path))
    async with provider.lifespan():
        provider.exchange.set_phone(PHONE, Behaviour(answer=AnswerMode.UNREACHABLE))
        request = tel.DialRequest(
            call_id="ours-1",
            from_number="+15550001111",
            to_number=PHONE,
            webhook_url="http://127.0.0.1:1/nobody",
            ring_timeout_s=5,
            time_limit_s=5,
        )
        call_id = await provider.place_call(request)
        with anyio.fail_after(5):
            assert await provider.exchange.ended(call_id) == "failed"
    assert provider.exchange is None
