"""Twilio's emulator: redelivery of webhooks, and faults on request."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import certifi
import httpx
import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from twilio.base.exceptions import TwilioRestException

from voicecall.model import EndReason
from voicecall.seam import SystemSeam
from voicecall_mock.exchange import HangUp, Silent, Wait
from voicecall_mock.exchange.faults import FaultError
from voicecall_mock.exchange.ledger import Ledger
from voicecall_testing.twilio import Faults, RestFault, SocketFault, WebhookFault
from voicecall_testing.twilio.delivery import Endpoint, Signer, WebhookSender, is_http_url
from voicecall_testing.twilio.options import TwilioOptions

pytestmark = [
    pytest.mark.integration,
    pytest.mark.anyio,
    pytest.mark.usefixtures("backstage"),
]

PHONE = "+15550002222"
HERE = "+15550100000"
CALLER = "+15550100001"
QUIET = (Silent(),)
ALL = ["initiated", "ringing", "answered", "completed"]


# --- redelivery ------------------------------------------------------------------------------


def test_overrides_ride_in_the_fragment() -> None:
    plain = Endpoint.of("https://a.example/b?c=d")
    assert plain == Endpoint(
        "https://a.example/b?c=d", ct=5000, rt=15_000, tt=15_000, rc=1, rp=frozenset({"ct"})
    )
    asked = Endpoint.of("https://a.example/b?c=d#rc=3&rp=4xx,rt&ct=200&rt=300&tt=1000")
    assert asked == Endpoint(
        "https://a.example/b?c=d", ct=200, rt=300, tt=1000, rc=3, rp=frozenset({"4xx", "rt"})
    )
    out_of_range = Endpoint.of("https://a.example/b?c=d#rc=6&ct=50&rt=99999&tt=x&rp=sometimes")
    assert out_of_range == plain


def test_the_authority_that_the_environment_names_is_trusted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    end = "-----END CERTIFICATE-----"
    first, _, _ = Path(certifi.where()).read_text(encoding="utf-8").partition(end)
    (tmp_path / "ca.pem").write_text(first + end, encoding="utf-8")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    options, seam = TwilioOptions(), SystemSeam()
    sender = WebhookSender(options, seam, Faults(), Ledger(seam), Signer(options))
    assert len(sender.trust.get_ca_certs()) == 1


def test_what_is_retried() -> None:
    assert Endpoint.of("https://a/#rp=all").retries("4xx")
    assert Endpoint.of("https://a/#rp=4xx,5xx").retries("5xx")
    assert not Endpoint.of("https://a/#rp=4xx,5xx").retries("ct")
    assert Endpoint.of("https://a/").retries("ct")
    assert not Endpoint.of("https://a/").retries("5xx")


@given(st.text())
def test_any_text_is_a_url_or_none(text: str) -> None:
    assert is_http_url(text) in (True, False)
    assert Endpoint.of("https://a.example/#" + text).rc in range(6)


async def test_errors_are_retried_as_the_url_asks(customer: Any) -> None:
    async with customer() as c:
        c.answer("/voice", 500, 404, "<Say>At last.</Say>")
        sid = await c.dial(url=f"{c.base}/voice?call=1#rc=3&rp=all")
        assert await c.ended(sid) == "completed"
        requests_seen = c.at("/voice")
        assert len(requests_seen) == 3
        assert all(seen.valid for seen in requests_seen)
        assert all(seen.url.endswith("/voice?call=1") for seen in requests_seen)
        assert len({seen.headers["i-twilio-idempotency-token"] for seen in requests_seen}) == 1
        assert c.heard(sid) == [("At last.", True)]


async def test_by_default_only_a_failed_connection_is_retried(customer: Any) -> None:
    async with customer() as c:
        c.answer("/status", 500)
        sid = await c.dial(twiml="<Response/>", status_callback=f"{c.base}/status")
        await c.ended(sid)
        await c.twilio.ledger.wait_for("webhook-given-up", call=sid)
        assert len(c.at("/status")) == 1
        refused = await c.dial(url="http://127.0.0.1:9/")
        await c.ended(refused)
        attempts = c.twilio.ledger.entries("webhook", call=refused, type="voice")
        assert [entry["attempt"] for entry in attempts] == [1, 2]
        assert c.codes(refused) == [11200]


async def test_a_redirect_of_http_is_followed(customer: Any) -> None:
    async with customer() as c:
        c.answer("/voice", 307)
        c.answer("/moved", "<Say>Here.</Say>")
        sid = await c.dial()
        await c.ended(sid)
        (moved,) = c.at("/moved")
        assert moved.valid
        assert moved.params["CallSid"] == sid
        assert c.heard(sid) == [("Here.", True)]


@pytest.mark.parametrize(
    ("overrides", "attempts", "error"),
    [
        ("rt=100", [1], "ReadTimeout"),
        ("rt=100&rc=2&rp=rt", [1, 2, 3], "ReadTimeout"),
        ("tt=100", [], "total timeout"),
    ],
)
async def test_a_server_that_never_answers_is_given_up(
    customer: Any, overrides: str, attempts: list[int], error: str
) -> None:
    async with customer() as c, await anyio.create_tcp_listener(local_host="127.0.0.1") as silent:
        c.answer("/spare", "<Say>From the spare.</Say>")
        port = silent.extra(anyio.abc.SocketAttribute.local_port)
        url = f"http://127.0.0.1:{port}/voice#{overrides}"
        sid = await c.dial(url=url, fallback_url=f"{c.base}/spare")
        await c.ended(sid)
        tried = c.twilio.ledger.entries("webhook", call=sid, type="voice")
        assert [entry["attempt"] for entry in tried] == attempts
        (given_up,) = c.twilio.ledger.entries("webhook-given-up", call=sid)
        assert error in given_up["error"]
        assert c.codes(sid) == [11200]
        assert c.heard(sid) == [("From the spare.", True)]


@pytest.mark.parametrize(
    ("first", "then", "seen", "code"),
    [
        (308, "<Say>Here.</Say>", 0, 11216),
        (304, "<Say>Here.</Say>", 0, 11216),
        (302, 302, 4, 11215),
    ],
)
async def test_a_redirect_of_http_that_leads_nowhere_is_an_error(
    customer: Any, first: int, then: str | int, seen: int, code: int
) -> None:
    async with customer() as c:
        c.answer("/voice", first)
        c.answer("/moved", then)
        c.answer("/spare", "<Say>From the spare.</Say>")
        sid = await c.dial(fallback_url=f"{c.base}/spare")
        await c.ended(sid)
        assert len(c.at("/moved")) == seen
        assert c.codes(sid) == [code]
        assert c.at("/spare")[0].params["ErrorCode"] == str(code)


# --- webhooks --------------------------------------------------------------------------------


async def test_lost_and_duplicate_webhooks(customer: Any) -> None:
    async with customer() as c:
        c.twilio.faults.webhooks = WebhookFault(duplicate=1.0)
        c.answer("/voice", "<Say>Once.</Say>")
        sid = await c.dial(status_callback=f"{c.base}/status")
        await c.ended(sid)
        await c.first("/status", 2)
        assert len(c.at("/voice")) == 2
        assert c.heard(sid) == [("Once.", True)]
        first, second = c.at("/status")
        assert first.params == second.params
        c.twilio.faults.webhooks = WebhookFault(lose=1.0, types=frozenset({"status"}))
        lost = await c.dial(status_callback=f"{c.base}/status")
        await c.ended(lost)
        await c.twilio.ledger.wait_for("webhook-lost", call=lost)
        assert len(c.at("/status")) == 2
        assert len(c.at("/voice")) == 3
        c.twilio.faults.webhooks = WebhookFault(lose=1.0)
        silent = await c.dial()
        await c.ended(silent)
        assert c.codes(silent) == [11200]


async def test_late_and_reordered_callbacks(customer: Any) -> None:
    async with customer() as c:
        c.twilio.faults.webhooks = WebhookFault(reorder=1.0)
        sid = await c.dial(
            twiml="<Response/>", status_callback=f"{c.base}/status", status_callback_event=ALL
        )
        await c.ended(sid)
        await c.first("/status", 4)
        numbers = [seen.params["SequenceNumber"] for seen in c.at("/status")]
        assert numbers == ["1", "0", "3", "2"]
        c.twilio.faults.webhooks = WebhookFault(late=1.0, late_s=0.3)
        sid = await c.dial(
            twiml="<Response/>", status_callback=f"{c.base}/late", status_callback_event=ALL
        )
        await c.ended(sid)
        await c.first("/late", 4)
        assert {seen.params["SequenceNumber"] for seen in c.at("/late")} == {"0", "1", "2", "3"}


def test_the_dice_fall_the_same_with_the_same_seed() -> None:
    def thrown(seed: int) -> list[bool]:
        faults = Faults(seed)
        return [faults.happens(0.5) for _ in range(50)]

    assert thrown(1) == thrown(1) != thrown(2)
    assert not any(Faults(3).happens(0.0) for _ in range(50))


async def test_sockets_break_by_chance(customer: Any) -> None:
    async with customer() as c:
        c.twilio.faults.sockets = SocketFault(drop=1.0, within_s=0.1)
        c.answer("/voice", c.stream() + "<Say>It broke.</Say>")
        sid = c.twilio.dial_in(CALLER, HERE, QUIET)
        await c.ended(sid)
        assert c.twilio.ledger.entries("stream-dropped", call=sid)
        assert c.heard(sid) == [("It broke.", True)]


async def test_many_calls_under_every_fault_come_to_their_ends(customer: Any) -> None:
    async with customer(seed=7) as c:
        c.twilio.set_voice_url(
            f"{c.base}/voice#rc=3&rp=all", status_callback=f"{c.base}/status#rc=3&rp=all"
        )
        c.answer("/voice", "<Say>Hello there.</Say>" + c.stream() + "<Say>It broke.</Say>")
        c.twilio.faults.webhooks = WebhookFault(
            duplicate=0.1, late=0.1, late_s=0.3, reorder=0.1, lose=0.1
        )
        c.twilio.faults.sockets = SocketFault(drop=0.5, stall=0.1, within_s=0.3)
        before = asyncio.all_tasks()
        sids = [
            c.twilio.dial_in(f"+1555010{number:04d}", HERE, (Wait(4000), HangUp()))
            for number in range(40)
        ]
        reasons = [await c.twilio.ended(sid) for sid in sids]
        ledger = c.twilio.ledger
        with anyio.fail_after(15):
            while not asyncio.all_tasks() <= before:
                await anyio.sleep(0.01)
        for sid, reason in zip(sids, reasons, strict=True):
            (ended,) = ledger.entries("ended", call=sid)
            assert ended["reason"] == reason
            served = ledger.entries("webhook", call=sid, type="voice", status=200)
            assert (reason is EndReason.ERROR) is not bool(served)
            if reason is EndReason.COMPLETED:
                assert ledger.entries("stream-dropped", call=sid)
            opened = ledger.entries("stream-opened", call=sid)
            assert len(opened) == len(ledger.entries("stream-closed", call=sid)) == bool(served)
            told = ledger.entries("webhook", call=sid, type="status", status=200)
            assert told or ledger.entries("webhook-lost", call=sid, type="status")
        assert ledger.entries("stream-dropped")
        assert all(seen.valid for seen in c.seen)


# --- REST ------------------------------------------------------------------------------------


async def test_rest_errors_by_path_and_times(customer: Any) -> None:
    async with customer() as c:
        c.twilio.faults.rest = [
            RestFault(status=429, paths=("POST /Calls.json",), times=1),
            RestFault(status=500, paths=("GET /Calls/",), times=1),
        ]
        with pytest.raises(TwilioRestException) as busy:
            await c.dial()
        assert (busy.value.status, busy.value.code) == (429, 20429)
        sid = await c.dial(twiml="<Response/>")
        with pytest.raises(TwilioRestException) as broken:
            await c.sdk(lambda client: client.calls(sid).fetch())
        assert (broken.value.status, broken.value.code) == (500, 20500)
        assert (await c.sdk(lambda client: client.calls(sid).fetch())).sid == sid
        assert len(c.twilio.calls) == 1


async def test_an_ambiguous_create_is_carried_out_without_an_answer(customer: Any) -> None:
    async with customer() as c:
        c.twilio.faults.rest = [RestFault(ambiguous=True, paths=("POST /Calls.json",), times=1)]
        with pytest.raises(requests.exceptions.ConnectionError):
            await c.dial(twiml="<Response/>")
        (sid,) = c.twilio.calls
        assert await c.ended(sid) == "completed"
        (found,) = await c.sdk(lambda client: client.calls.list(to=PHONE, from_=HERE))
        assert found.sid == sid


async def test_a_slow_answer_to_what_was_carried_out_at_once(customer: Any) -> None:
    async with customer() as c:
        c.twilio.faults.rest = [RestFault(delay_ms=30_000, paths=("POST /Calls.json",), times=1)]
        options = c.twilio.options

        async def create() -> None:
            async with httpx.AsyncClient(trust_env=False) as client:
                await client.post(
                    f"{c.twilio.base_url}/2010-04-01/Accounts/{options.account_sid}/Calls.json",
                    data={"To": PHONE, "From": HERE, "Twiml": "<Response/>"},
                    auth=(options.account_sid, options.auth_token),
                )
                raise AssertionError("the answer came early")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(create)
            await c.twilio.ledger.wait_for("ended")
            tasks.cancel_scope.cancel()
        assert len(c.twilio.calls) == 1


async def test_every_answer_names_its_request(customer: Any) -> None:
    async with customer() as c:
        async with httpx.AsyncClient(trust_env=False) as client:
            seen = set()
            for auth in ((c.twilio.options.account_sid, c.twilio.options.auth_token), ("a", "b")):
                reply = await client.get(f"{c.twilio.base_url}/2010-04-01", auth=auth)
                assert reply.headers["content-type"] == "application/json"
                seen.add(reply.headers["twilio-request-id"])
        assert len(seen) == 2
        assert all(len(name) == 34 and name.startswith("RQ") for name in seen)


# --- the control -----------------------------------------------------------------------------


async def test_a_person_controls_it_over_http(customer: Any) -> None:
    async with customer() as c:
        options = c.twilio.options
        async with httpx.AsyncClient(
            base_url=f"{c.twilio.base_url}/emulator",
            auth=(options.account_sid, options.auth_token),
            trust_env=False,
        ) as person:
            c.answer("/mine", '<Gather input="speech"><Say>Yes?</Say></Gather>')
            reply = await person.post("/dial-in", json={"voiceUrl": f"{c.base}/mine"})
            assert reply.status_code == 201
            sid = reply.json()["id"]
            await c.first("/mine", 2)
            assert c.at("/mine")[1].params["SpeechResult"]
            c.twilio.calls[sid].hang_up()
            await c.ended(sid)
            ledger = (await person.get("/ledger", params={"call": sid})).json()
            assert {entry["kind"] for entry in ledger["entries"]} >= {"dialled", "said", "ended"}
            assert ledger["calls"][0]["status"] == "completed"
            assert (await person.get(f"/calls/{sid}/recording")).content.startswith(b"RIFF")
            assert (await person.put(f"/phones/{PHONE}", json={"answer": "busy"})).is_success
            assert await c.ended(await c.dial()) == "busy"
            faults = {"webhooks": {"lose": 0.5}, "rest": [{"status": 503}], "sockets": {}}
            assert (await person.post("/faults", json=faults)).is_success
            assert c.twilio.faults.webhooks.lose == 0.5
            with pytest.raises(TwilioRestException) as broken:
                await c.dial()
            assert broken.value.status == 503
            for path, body in [
                ("/faults", {"weather": {}}),
                ("/dial-in", {"script": 1}),
                ("/dial-in", []),
                ("/dial-in", {"from": None}),
                ("/dial-in", {"answer": "busy"}),
                (f"/calls/{sid}/socket", {"fault": "melt"}),
            ]:
                assert (await person.post(path, json=body)).status_code == 400
            assert (await person.post("/dial-in", content=b"[" * 100_000)).status_code == 400
            assert (await person.post("/dial-in", json={"to": "+1999"})).status_code == 409
            gone = await person.post(f"/calls/{sid}/socket", json={"fault": "drop"})
            assert gone.status_code == 404
        async with httpx.AsyncClient(trust_env=False) as stranger:
            assert (await stranger.get(f"{c.twilio.base_url}/emulator/ledger")).status_code == 401


@pytest.mark.parametrize(
    "data",
    [
        [],
        {"rest": {}},
        {"rest": [{"status": 200}]},
        {"rest": [{"times": math.inf}]},
        {"webhooks": {"late": -1}},
        {"webhooks": {"lose": math.nan}},
        {"sockets": 1},
    ],
)
def test_faults_that_cannot_be_read(data: Any) -> None:
    faults = Faults()
    with pytest.raises(FaultError):
        faults.replace(data)
    assert not faults.rest
