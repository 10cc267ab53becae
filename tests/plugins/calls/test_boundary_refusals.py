"""What is refused at the webhooks, with which status: the same for every carrier."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

import anyio
import pytest

from voicecall import ProviderContext
from voicecall.errors import WebhookRejected
from voicecall.telephony import Verified, WebhookRequest
from voicecall_calls.server import CallServer, WebhookSecurity
from voicecall_mock.config import MockConfig
from voicecall_mock.provider import MockProvider

from .boundary import CARRIERS, Carrier, answer_of, listening

pytestmark = [
    pytest.mark.integration,
    pytest.mark.anyio,
    pytest.mark.usefixtures("backstage"),
]


@pytest.fixture(params=sorted(CARRIERS))
def carrier(request: pytest.FixtureRequest) -> Carrier:
    return CARRIERS[request.param]


def forged(headers: Mapping[str, str]) -> dict[str, str]:
    """The same headers with a signature of somebody else's."""
    name = next(name for name in headers if name.endswith("signature"))
    return {**headers, name: headers[name][:-4] + "AAA="}


def without_signature(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if not name.endswith("signature")}


async def test_each_request_that_is_wrong_has_its_status(
    carrier: Carrier, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with listening(carrier.provider()) as (server, desk, client):
        url, body = server.local_url, carrier.ringing()
        right, mute = carrier.signed(url, body), carrier.signed(url, carrier.mute)
        huge = b"a" * (64 * 1024 + 1)
        elsewhere = carrier.signed("https://phone.example/voice/webhook", body)
        requests: list[tuple[int, str, str, Mapping[str, str], bytes]] = [
            (404, "POST", f"{url}s", right, body),
            (404, "POST", f"{url}/more", right, body),
            (404, "GET", f"http://127.0.0.1:{server.port}/", {}, b""),
            (405, "GET", url, carrier.signed(url, b""), b""),
            (405, "PUT", url, right, body),
            (401, "POST", url, {}, body),
            (401, "POST", url, without_signature(right), body),
            (401, "POST", url, forged(right), body),
            (401, "POST", url, elsewhere, body),
            (401, "POST", f"{url}?callId=c-1", right, body),
            (401, "POST", url, right, body.replace(b"1111", b"9999")),
            (413, "POST", url, carrier.signed(url, huge), huge),
            (400, "POST", url, mute, carrier.mute),
        ]
        for status, method, target, headers, sent in requests:
            response = await client.request(method, target, headers=headers, content=sent)
            refusal = (response.status_code, response.text)
            assert refusal == (status, HTTPStatus(status).phrase), (method, target, headers)
            assert response.headers["content-type"].startswith("text/plain")
            assert (response.headers.get("allow") == "POST") is (status == 405)
        assert desk.handled == []
        for path in ("/voice/webhooks", "/voice/webhook/more", "/"):
            told = f"nothing is served at {path} (serve.path: /voice/webhook)"
            assert caplog.messages.count(told) == 1
        # Only what may be an attack, or a wrong setting, is a warning.
        for status, level in ((405, logging.INFO), (401, logging.WARNING), (413, logging.WARNING)):
            lines = [each for each in caplog.records if f" refused: {status}," in each.getMessage()]
            assert {line.levelno for line in lines} == {level}
        assert server.refused_webhooks == Counter(status for status, *_ in requests)
        # None of them has used anything up.
        response = await client.post(url, content=body, headers=right)
        assert (response.status_code, response.text) == (200, "reply 1")
        assert len(desk.handled) == 1


def head(server: CallServer, headers: Mapping[str, str], length: int, more: str = "") -> bytes:
    lines = [f"POST /voice/webhook HTTP/1.1\r\nhost: 127.0.0.1:{server.port}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, f"content-length: {length}{more}", "", ""]).encode()


async def test_an_unsigned_body_is_never_read(carrier: Carrier) -> None:
    async with listening(carrier.provider()) as (server, desk, _):
        for headers in ({}, without_signature(carrier.signed(server.local_url, b""))):
            # Nobody sends the body: whoever waited for it would answer 408, and late.
            status, _ = await answer_of(server.port, head(server, headers, 1000))
            assert status == 401
        assert desk.handled == []


async def test_a_body_that_does_not_come_is_408(carrier: Carrier) -> None:
    security = WebhookSecurity(body_timeout_s=0.05)
    async with listening(carrier.provider(), security=security) as (server, desk, _):
        signed = carrier.signed(server.local_url, b"")
        status, answer = await answer_of(server.port, head(server, signed, 1000) + b"{")
        assert status == 408
        assert b"connection: close" in answer
        assert desk.handled == []


async def test_an_announced_body_over_the_limit_is_413_before_it_is_sent(carrier: Carrier) -> None:
    async with listening(carrier.provider()) as (server, _, _client):
        signed = carrier.signed(server.local_url, b"")
        sent = head(server, signed, 70_000, "\r\nexpect: 100-continue")
        assert (await answer_of(server.port, sent))[0] == 413


async def test_the_ninth_webhook_at_once_is_429(carrier: Carrier) -> None:
    async with listening(carrier.provider()) as (server, desk, client):
        desk.gate = anyio.Event()
        statuses: list[int] = []

        async def post() -> None:
            body = carrier.ringing()
            headers = carrier.signed(server.local_url, body)
            response = await client.post(server.local_url, content=body, headers=headers)
            statuses.append(response.status_code)

        async with anyio.create_task_group() as tasks:
            for _ in range(8):
                tasks.start_soon(post)
            await desk.until_waiting(8)
            await post()
            assert statuses == [429]
            desk.gate.set()
        assert statuses == [429, *[200] * 8]
        assert len(desk.handled) == 8


async def test_a_repeated_webhook_gets_its_first_reply_and_has_no_effect(carrier: Carrier) -> None:
    async with listening(carrier.provider()) as (server, desk, client):
        body = carrier.ringing()
        headers = carrier.signed(server.local_url, body)
        for idempotency in ("a", "b"):
            # Headers that no signature covers do not make it another request.
            more = {**headers, "i-twilio-idempotency-token": idempotency}
            response = await client.post(server.local_url, content=body, headers=more)
            assert (response.status_code, response.text) == (200, "reply 1")
        assert len(desk.handled) == 1
        other = carrier.ringing()
        headers = carrier.signed(server.local_url, other)
        response = await client.post(server.local_url, content=other, headers=headers)
        assert response.text == "reply 2"


async def test_what_fails_is_500_and_works_when_it_comes_again(carrier: Carrier) -> None:
    async with listening(carrier.provider()) as (server, desk, client):
        desk.failures = 1
        body = carrier.ringing()
        headers = carrier.signed(server.local_url, body)
        response = await client.post(server.local_url, content=body, headers=headers)
        assert (response.status_code, response.text) == (500, HTTPStatus(500).phrase)
        response = await client.post(server.local_url, content=body, headers=headers)
        assert (response.status_code, response.text) == (200, "reply 1")


async def test_skipping_signatures_keeps_the_key_of_the_content(carrier: Carrier) -> None:
    security = WebhookSecurity(skip_signatures=True)
    async with listening(carrier.provider(), security=security) as (server, desk, client):
        body = carrier.ringing()
        kind = carrier.signed(server.local_url, body).get("content-type", "application/json")
        for _ in range(2):
            response = await client.post(
                server.local_url, content=body, headers={"content-type": kind}
            )
            assert (response.status_code, response.text) == (200, "reply 1")
        assert len(desk.handled) == 1


@pytest.mark.parametrize("skipped", [False, True])
@pytest.mark.parametrize("host", ["127.0.0.1", "rebound.example"])
async def test_a_web_page_is_no_carrier(carrier: Carrier, skipped: bool, host: str) -> None:
    """Browsers reach loopback, also under a name that leads there, and the default token of the
    mock exchange is known to every page. They name their page in what they post."""
    security = WebhookSecurity(skip_signatures=skipped)
    async with listening(carrier.provider(), security=security) as (server, desk, client):
        url, body = server.local_url, carrier.ringing()
        scheme = "https" if host == "rebound.example" else "http"
        signed = carrier.signed(f"{scheme}://{host}:{server.port}/voice/webhook", body)
        sent = {**signed, "host": f"{host}:{server.port}"}
        for origin in (f"http://{host}:{server.port}", "https://elsewhere.example", "null", ""):
            response = await client.post(url, content=body, headers={**sent, "origin": origin})
            assert (response.status_code, response.text) == (403, HTTPStatus(403).phrase)
        assert desk.handled == []
        assert (await client.post(url, content=body, headers=sent)).status_code == 200


class Nameless(MockProvider):
    """Finds every request genuine and cannot tell one from another."""

    def verify(self, request: WebhookRequest, now_ms: int) -> Verified:
        return Verified("")


async def test_a_genuine_request_without_an_identity_is_401() -> None:
    provider = Nameless(MockConfig(), ProviderContext(Path("unused")))
    carrier = CARRIERS["mock"]
    async with listening(provider) as (server, desk, client):
        body = carrier.ringing()
        headers: dict[str, Any] = carrier.signed(server.local_url, body)
        response = await client.post(server.local_url, content=body, headers=headers)
        assert (response.status_code, response.text) == (401, HTTPStatus(401).phrase)
        assert desk.handled == []


class Peculiar(MockProvider):
    """Refuses with a status that has no name."""

    def verify(self, request: WebhookRequest, now_ms: int) -> Verified:
        raise WebhookRejected(499, "not today", headers={"x-more": "yes"})


async def test_a_status_without_a_name_is_an_answer_too() -> None:
    provider = Peculiar(MockConfig(), ProviderContext(Path("unused")))
    carrier = CARRIERS["mock"]
    async with listening(provider) as (server, desk, client):
        body = carrier.ringing()
        headers: dict[str, Any] = carrier.signed(server.local_url, body)
        response = await client.post(server.local_url, content=body, headers=headers)
        assert (response.status_code, response.text) == (499, "Refused")
        assert response.headers["x-more"] == "yes"
        assert (desk.handled, server.refused_webhooks) == ([], {499: 1})
