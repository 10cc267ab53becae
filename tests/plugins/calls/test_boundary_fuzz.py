"""Fuzzed webhooks, headers and media messages: only documented answers and errors result."""

from __future__ import annotations

import ipaddress
import json
import logging
import os
import random
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import anyio
import pytest
from msgspec.structs import asdict
from starlette.types import Message as AsgiMessage

from voicecall.configuring import validate
from voicecall.errors import ConfigError, MediaProtocolError
from voicecall.events import CarrierEvent
from voicecall.media import MediaEvent, Started, Upgrade
from voicecall.seam import SystemSeam
from voicecall_calls.config import ServeConfig, WebhookSecurityConfig
from voicecall_calls.server import WebhookSecurity
from voicecall_calls.server.pipeline import WebhookApp
from voicecall_calls.server.urls import (
    Trust,
    headers_of,
    host_name,
    media_url,
    parse_address,
    webhook_url,
)

from .boundary import CARRIERS, Desk

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

LOCAL = "http://127.0.0.1:3334/voice/webhook"
PUBLIC = "https://p.example:8443/hook"


def damaged(chance: random.Random, sample: bytes, splinters: list[bytes]) -> bytes:
    """``sample`` after a few random cuts, changes and insertions."""
    text = bytearray(sample)
    for _ in range(chance.randrange(4)):
        at = chance.randrange(len(text) + 1)
        match chance.randrange(5):
            case 0 | 1:
                text[at:at] = chance.choice(splinters)
            case 2:
                del text[at : at + chance.randrange(1, 12)]
            case 3 if at < len(text):
                text[at] = chance.randrange(256)
            case _:
                other = chance.randrange(len(text) + 1)
                text[at:at] = text[other : other + chance.randrange(1, 40)]
    return bytes(text)


# --- webhooks: from the request's bytes to the carrier's events --------------------------------

_CALL = {"id": "mk-1", "direction": "inbound", "from": "+15550001111", "to": "+15550002222"}
_DETAILS: list[dict[str, Any]] = [
    {"type": "call.initiated"},
    {"type": "call.ringing"},
    {"type": "call.answered"},
    {"type": "call.speech", "text": "Grüße", "final": True, "confidence": 0.9, "token": "t"},
    {"type": "call.digits", "digits": "12#"},
    {"type": "call.playback", "utterance": "u-1", "ok": True},
    {"type": "call.stream-failed", "error": "refused", "stream": "st-1"},
    {"type": "call.error", "error": "busy", "retryable": False},
    {"type": "call.ended", "reason": "hangup-user"},
    {"type": "call.unheard-of"},
]
BODIES = {
    "mock": [
        json.dumps({"id": "ev-1", "at": 17, "call": {**_CALL, "reference": "c-1"}, **detail})
        for detail in _DETAILS
    ],
    "twilio": [
        "CallSid=CA01&From=%2B15550001234&To=%2B15550005678&CallStatus=ringing&Direction=inbound",
        "CallSid=CA01&CallStatus=in-progress&SpeechResult=Gr%C3%BC%C3%9Fe&Confidence=0.9&Digits=1",
        "CallSid=CA01&CallStatus=completed&CallDuration=300&SipResponseCode=200&SequenceNumber=3",
        "CallSid=CA01&CallbackSource=a&Timestamp=Sat%2C+21+Nov+2026+12%3A00%3A00+%2B0000",
        "CallSid=CA01&StreamSid=MZ01&StreamEvent=stream-error&StreamError=31920",
    ],
}
QUERIES = [
    b"",
    b"callId=c-1&type=status&limit=300",
    b"callId=c-1&type=turn&i=ab12&n=3&t=tok&s=1&u=u-1",
    b"callId=c-1&type=stream&i=ab12",
]
IN_BODIES = [
    b"%00", b"%", b"%zz", b"%ff", b"\xff\xfe", b"&", b"=", b"+", b"%ED%A0%80", b"CallSid=",
    b"CallStatus=completed", b"Timestamp=1", b"Confidence=nan", b"NaN", b"Infinity", b"1e999",
    b"-1", b"null", b"true", b"{", b"}", b"[", b"]", b'"', b"\\ud800", b"\\u0000", b"9" * 5000,
    b"[" * 3000, b'{"a":' * 3000, b'"at":1e400,', b'"call":null,', b'"call":[],', b'"id":{},',
    b'"direction":"up",', b'"reason":"why",', b"\x00", b"a" * 3000, b",", b":", b"\n",
]  # fmt: skip
IN_HEADERS = [
    b",", b";", b":", b" ", b"@", b"[", b"]", b"%", b"/", b"?", b"#", b"\x00", b"\x7f", b"\xff",
    b"::1", b"[::1]", b"::ffff:1.2.3.4", b"fe80::1%eth0", b"[::1%/x]:1", b"0", b"999.1.1.1", b"-",
    b"localhost", b"127.0.0.1", b"p.example", b"evil.example", b":443", b":80", b":0", b":99999",
    b":8443", b"https", b"http", b"unknown", b"for=1.1.1.1", b"\xc2\xb2", b"a" * 300, b"\t", b"\\",
]  # fmt: skip
STATUSES = {200, 400, 401, 404, 405, 413}


class Door:
    """The webhook application of a carrier, without sockets."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.carrier = CARRIERS[name]
        self.desk = Desk()
        self.app = WebhookApp(
            self.carrier.provider(),
            self.desk,
            serve=ServeConfig(),
            media_path="/voice/stream",
            security=WebhookSecurity(max_in_flight=1, max_in_flight_per_client=1),
            trust=Trust(WebhookSecurity()),
            seam=SystemSeam(),
        )
        self.app.public_url = PUBLIC
        self.app.local_url = LOCAL
        self.seen: set[int] = set()

    async def knock(self, chance: random.Random) -> None:
        body = damaged(chance, chance.choice(BODIES[self.name]).encode(), IN_BODIES)
        query = damaged(chance, chance.choice(QUERIES), [*IN_BODIES[:10], *IN_HEADERS])
        url = PUBLIC + ("?" + query.decode("latin-1") if query else "")
        try:
            headers = self.carrier.signed(url, body)
        except UnicodeDecodeError:
            # The carrier's own library signs text; bytes that are none get a signature of others.
            headers = self.carrier.signed(url, b"")
        lines = [(name.encode(), value.encode()) for name, value in headers.items()]
        if chance.random() < 0.1:
            at = chance.randrange(len(lines))
            name, value = lines[at]
            lines[at] = (name, damaged(chance, value, IN_HEADERS))
        lines.append((b"x-forwarded-for", damaged(chance, b"1.1.1.1, 10.0.0.1", IN_HEADERS)))
        path = b"/voice/webhook"
        scope: dict[str, Any] = {
            "type": "http",
            "method": chance.choices(["POST", "GET", "PUT"], [50, 1, 1])[0],
            "path": path.decode() + chance.choices(["", "/", "x", "\udcff"], [50, 2, 1, 1])[0],
            "raw_path": path,
            "query_string": query,
            "headers": lines,
            "client": chance.choices([("127.0.0.1", 1), ("::1", 1), None], [8, 1, 1])[0],
        }
        parts = [{"type": "http.request", "body": body, "more_body": False}]
        sent: list[AsgiMessage] = []

        async def receive() -> AsgiMessage:
            return parts.pop()

        async def send(message: AsgiMessage) -> None:
            sent.append(message)

        handled = len(self.desk.handled)
        await self.app(scope, receive, send)
        start, content = sent
        status = start["status"]
        assert status in STATUSES, (status, body)
        assert isinstance(content["body"], bytes)
        self.seen.add(status)
        for _, events in self.desk.handled[handled:]:
            assert status == 200
            for event in events:
                assert isinstance(event, CarrierEvent)
                assert event.provider_call_id
                assert event.key
                # What is no Unicode could not be stored.
                texts = [v for v in asdict(event).values() if isinstance(v, str)]
                assert "".join(texts).encode()
        if len(self.desk.handled) > 1000:
            self.desk.handled.clear()
            self.desk.replies.clear()


# --- whom and what forwarded headers tell ------------------------------------------------------

HEADERS = {
    b"host": [b"127.0.0.1:3334", b"p.example", b"p.example:8443", b"[2001:db8::1]:443"],
    b"x-forwarded-for": [b"1.1.1.1", b"6.6.6.6, 1.1.1.1:5060, 10.2.3.4", b"[2001:db8::5]:443"],
    b"x-real-ip": [b"1.1.1.1", b"::ffff:1.1.1.1"],
    b"x-forwarded-host": [b"p.example, inner.example", b"[2001:db8::1]:8443", b"P.EXAMPLE:443"],
    b"x-original-host": [b"p.example"],
    b"ngrok-forwarded-host": [b"a1b2.ngrok-free.app"],
    b"x-forwarded-proto": [b"https", b"http,https"],
}
TARGETS = [b"/voice/webhook", b"/voice/webhook?callId=c-1&type=status", b"/voice/webhook/?a=%20"]
TRUSTS = [
    Trust(WebhookSecurity()),
    Trust(WebhookSecurity(trust_forwarding_headers=True)),
    Trust(WebhookSecurity(allowed_hosts=("p.example", "[2001:db8::1]", "not a host"))),
    Trust(
        WebhookSecurity(
            trust_forwarding_headers=True,
            trusted_proxy_ips=("10.0.0.0/8", "127.0.0.1", "fd00::/8", "::ffff:192.0.2.0/120"),
            allowed_hosts=("p.example",),
        )
    ),
]
LISTED = {"p.example", "[2001:db8::1]"}
_AUTHORITY = re.compile(r"([a-z0-9.-]+|\[[0-9a-f:.]+\])(:[1-9][0-9]{0,4})?")


def forwarding(chance: random.Random) -> None:
    number = chance.randrange(len(TRUSTS))
    trust = TRUSTS[number]
    pairs = []
    for name in chance.choices(list(HEADERS), k=chance.randrange(8)):
        value = damaged(chance, chance.choice(HEADERS[name]), IN_HEADERS)
        pairs.append((name.decode(), value.decode("latin-1")))
    headers = headers_of(pairs)
    peer = damaged(chance, b"10.0.0.1", IN_HEADERS).decode("latin-1")
    peer = chance.choice(["10.0.0.1", "fd00::1", "203.0.113.9", peer])
    client = trust.client(peer, headers)
    assert client == "unknown" or str(ipaddress.ip_address(client)) == client
    if number != 3:
        # Without a list of proxies nobody's word counts.
        assert client in ("unknown", str(parse_address(peer)))
    target = damaged(chance, chance.choice(TARGETS), IN_HEADERS).decode("latin-1")
    known = chance.choice([None, None, PUBLIC])
    url = webhook_url(target, headers, peer, trust=trust, public_url=known, local_url=LOCAL)
    if known is not None:
        assert url is not None
        assert url == PUBLIC + target[target.find("?") :] * ("?" in target)
        return
    if url is None:
        return
    assert url.endswith(target)
    scheme, _, authority = url.removesuffix(target).partition("://")
    assert scheme in ("http", "https")
    assert _AUTHORITY.fullmatch(authority), url
    host = host_name(authority)
    assert host is not None
    assert urlsplit(f"{scheme}://{authority}").hostname == host.strip("[]")
    if number >= 2:
        assert host in LISTED
    assert (
        media_url(
            f"{scheme}://{authority}/a/voice/webhook",
            serve_path="/voice/webhook",
            stream_path="/voice/stream",
        )
        == f"{'ws' if scheme == 'http' else 'wss'}://{authority}/a/voice/stream"
    )


def configuring(chance: random.Random) -> None:
    samples = [b"10.0.0.0/8", b"::1", b"::ffff:10.0.0.0/104", b"fd00::/8"]
    text = damaged(chance, chance.choice(samples), [*IN_HEADERS, b"/33", b"/129", b"/-1"])
    hosts = damaged(chance, b"p.example", IN_HEADERS).decode("latin-1")
    block = {"trustedProxyIPs": [text.decode("latin-1")], "allowedHosts": [hosts]}
    with suppress(ConfigError):
        given = validate(WebhookSecurityConfig, block, "webhookSecurity")
        trust = Trust(
            WebhookSecurity(
                trust_forwarding_headers=True,
                trusted_proxy_ips=given.trusted_proxy_ips,
                allowed_hosts=given.allowed_hosts,
            )
        )
        client = trust.client("10.0.0.1", {"x-forwarded-for": "1.1.1.1"})
        assert client in ("1.1.1.1", "10.0.0.1")
        assert not trust.allows("evil.example") or host_name(hosts) == "evil.example"


# --- media messages ----------------------------------------------------------------------------

FRAMES = {
    name: [
        carrier.start("tok", "CA1", "MZ1").encode(),
        carrier.audio(b"\x7f" * 24).encode(),
        b'{"event":"connected","protocol":"Call","version":"1.0.0"}',
        b'{"event":"mark","streamSid":"MZ1","mark":{"name":"m-1"},"name":"m-1"}',
        b'{"event":"dtmf","streamSid":"MZ1","dtmf":{"track":"inbound_track","digit":"1"}}',
        b'{"event":"digits","digits":"1"}',
        b'{"event":"stop","streamSid":"MZ1","stop":{"callSid":"CA1"},"reason":"hangup"}',
    ]
    for name, carrier in CARRIERS.items()
}
PROVIDERS = {name: carrier.provider() for name, carrier in CARRIERS.items()}


def streaming(chance: random.Random) -> None:
    name = chance.choice(list(CARRIERS))
    codec = PROVIDERS[name].media_codec(Upgrade("/voice/stream", {}, {}, "203.0.113.9"))
    for _ in range(2):
        whole = damaged(chance, chance.choice(FRAMES[name]), IN_BODIES)
        message = whole if chance.random() < 0.1 else whole.decode("utf-8", "replace")
        try:
            event = codec.decode(message)
        except MediaProtocolError:
            continue
        assert event is None or isinstance(event, MediaEvent)
        if isinstance(event, Started):
            assert event.provider_call_id
            assert event.stream_id
        assert codec.audio(b"\xff" * 160)


# --- how often ---------------------------------------------------------------------------------


def fuzz(parser: Callable[[random.Random], None], count: int, seed: int) -> None:
    chance = random.Random(seed)
    for number in range(count):
        try:
            parser(chance)
        except Exception as error:
            error.add_note(f"seed {seed}, number {number}")
            raise


async def fuzz_webhooks(name: str, count: int, seed: int) -> set[int]:
    """The statuses that were seen."""
    chance, door = random.Random(seed), Door(name)
    # A line in the log for each of so many refusals would take most of the time.
    logging.getLogger("voicecall_calls").setLevel(logging.ERROR)
    try:
        for number in range(count):
            try:
                with anyio.fail_after(30):
                    await door.knock(chance)
            except Exception as error:
                error.add_note(f"seed {seed}, number {number}")
                raise
    finally:
        logging.getLogger("voicecall_calls").setLevel(logging.NOTSET)
    return door.seen


PARSERS = [forwarding, configuring, streaming]


@pytest.mark.parametrize("name", sorted(CARRIERS))
async def test_any_webhook_has_a_documented_answer(name: str) -> None:
    assert await fuzz_webhooks(name, 2500, 11) >= {200, 400, 401, 404, 405}


@pytest.mark.parametrize("parser", PARSERS)
def test_headers_and_messages_have_only_documented_errors(
    parser: Callable[[random.Random], None],
) -> None:
    fuzz(parser, 3000, 12)


def _share(parts: int) -> int:
    return int(os.environ.get("VOICECALL_FUZZ_COUNT", "1000000")) // parts


@pytest.mark.soak
@pytest.mark.parametrize("name", sorted(CARRIERS))
async def test_many_webhooks_have_documented_answers(name: str) -> None:
    await fuzz_webhooks(name, _share(5), random.SystemRandom().randrange(10**9))


@pytest.mark.soak
@pytest.mark.parametrize("parser", PARSERS)
def test_many_headers_and_messages_have_only_documented_errors(
    parser: Callable[[random.Random], None],
) -> None:
    fuzz(parser, _share(5), random.SystemRandom().randrange(10**9))
