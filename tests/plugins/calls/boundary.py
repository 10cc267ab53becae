"""A webhook and media listener with an engine that only takes notes, and carriers' requests."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

import anyio
import httpx
from tests.backstage import closed_backstage
from twilio.request_validator import RequestValidator

from voicecall import ProviderContext
from voicecall.events import CarrierEvent
from voicecall.media import MediaEvent, Started, Upgrade
from voicecall.seam import SystemSeam
from voicecall.telephony import TelephonyProvider, Verified, WebhookReply, WebhookRequest
from voicecall_calls.config import ServeConfig
from voicecall_calls.doors import AdmissionRefused, Attachment, MediaSocket
from voicecall_calls.server import CallServer, StreamOptions, WebhookSecurity
from voicecall_mock.config import MockConfig
from voicecall_mock.protocol import SIGNATURE_HEADER, TIMESTAMP_HEADER, sign
from voicecall_mock.provider import MockProvider
from voicecall_twilio.config import TwilioConfig
from voicecall_twilio.provider import TwilioProvider

__all__ = ["CARRIERS", "Carrier", "Desk", "Line", "answer_of", "listening", "make_server"]

TOKEN = "12345678901234567890123456789012"
FORM = "application/x-www-form-urlencoded; charset=UTF-8"
_serial = itertools.count(1)
_validator = RequestValidator(TOKEN)


@dataclass(frozen=True, slots=True)
class Carrier:
    """``signed``: the headers of a request for a URL with a body. ``ringing``: the body of one
    that says something new. ``mute``: a body, to be signed, in which no event can be read.
    ``start`` (token, call, stream), ``audio``: messages of its media streams."""

    provider: Callable[[], TelephonyProvider]
    signed: Callable[[str, bytes], dict[str, str]]
    ringing: Callable[[], bytes]
    mute: bytes
    start: Callable[[str, str, str], str]
    audio: Callable[[bytes], str]


def _mock_signed(url: str, body: bytes) -> dict[str, str]:
    at = str(SystemSeam().now_ms())
    return {TIMESTAMP_HEADER: at, SIGNATURE_HEADER: sign(TOKEN, at, url, body)}


def _mock_ringing() -> bytes:
    call = {"id": f"mk-{next(_serial)}", "direction": "inbound", "from": "+15550001111"}
    event = {"id": f"ev-{next(_serial)}", "type": "call.ringing", "at": 1}
    return json.dumps({**event, "call": {**call, "to": "+15550002222"}}).encode()


def _mock_audio(payload: bytes) -> str:
    encoded = base64.b64encode(payload).decode()
    return json.dumps({"event": "media", "payload": encoded, "at": 20})


def _twilio_signed(url: str, body: bytes) -> dict[str, str]:
    form = dict(parse_qsl(body.decode(), keep_blank_values=True))
    signature = _validator.compute_signature(url.partition("#")[0], form)
    return {"x-twilio-signature": signature, "content-type": FORM}


def _twilio_ringing() -> bytes:
    form = {"CallSid": f"CA{next(_serial):032}", "CallStatus": "ringing", "Direction": "inbound"}
    return urlencode({**form, "From": "+15550001111", "To": "+15550002222"}).encode()


def _twilio_start(token: str, call: str, stream: str) -> str:
    sound = {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}
    start = {"streamSid": stream, "callSid": call, "mediaFormat": sound}
    start["customParameters"] = {"token": token} if token else {}
    return json.dumps({"event": "start", "streamSid": stream, "start": start})


def _twilio_audio(payload: bytes) -> str:
    media = {"track": "inbound", "timestamp": "20", "payload": base64.b64encode(payload).decode()}
    return json.dumps({"event": "media", "streamSid": "MZ1", "media": media})


CARRIERS: Mapping[str, Carrier] = {
    "mock": Carrier(
        lambda: MockProvider(MockConfig(auth_token=TOKEN), ProviderContext(Path("unused"))),
        _mock_signed,
        _mock_ringing,
        b"[1, 2",
        lambda token, call, stream: json.dumps(
            {"event": "start", "stream": stream, "call": call, "token": token}
        ),
        _mock_audio,
    ),
    "twilio": Carrier(
        lambda: TwilioProvider(
            TwilioConfig(account_sid="AC1", auth_token=TOKEN), ProviderContext(Path("unused"))
        ),
        _twilio_signed,
        _twilio_ringing,
        b"CallStatus=ringing",
        _twilio_start,
        _twilio_audio,
    ),
}


class Line:
    """An admitted socket: its events, and whether it is over."""

    def __init__(self, socket: MediaSocket) -> None:
        self.socket = socket
        self.events: list[MediaEvent] = []
        self.over = anyio.Event()

    def received(self, event: MediaEvent) -> None:
        self.events.append(event)

    def closed(self) -> None:
        self.over.set()


@dataclass
class Desk:
    """Stands in for the engine: notes what it is given, knows one token, waits at the gate, and
    fails as often as it is told to. Without a ``reply`` each request gets a numbered one."""

    handled: list[tuple[WebhookRequest, Sequence[CarrierEvent]]] = field(default_factory=list)
    replies: dict[str, WebhookReply] = field(default_factory=dict)
    lines: list[Line] = field(default_factory=list)
    asked: int = 0
    waiting: int = 0
    failures: int = 0
    failure: Exception = field(default_factory=lambda: OSError("the disk is full"))
    reply: WebhookReply | None = None
    gate: anyio.Event = field(default_factory=anyio.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    async def recorded(
        self, verified: Verified, events: Sequence[CarrierEvent]
    ) -> WebhookReply | None:
        return self.replies.get(verified.key)

    async def handle(
        self, request: WebhookRequest, verified: Verified, events: Sequence[CarrierEvent]
    ) -> WebhookReply:
        self.waiting += 1
        await self.gate.wait()
        self.waiting -= 1
        if self.failures:
            self.failures -= 1
            raise self.failure
        self.handled.append((request, events))
        reply = self.reply or WebhookReply(body=f"reply {len(self.handled)}".encode())
        return self.replies.setdefault(verified.key, reply)

    async def admit(self, started: Started, upgrade: Upgrade, socket: MediaSocket) -> Attachment:
        self.asked += 1
        if started.token != "good":
            raise AdmissionRefused(1008, "Unknown call")
        line = Line(socket)
        self.lines.append(line)
        return line

    async def until_waiting(self, count: int) -> None:
        while self.waiting < count:
            await anyio.sleep(0.005)


def make_server(
    provider: TelephonyProvider,
    desk: Desk,
    *,
    security: WebhookSecurity | None = None,
    bind: str = "127.0.0.1",
    port: int = 0,
    public_url: str | None = None,
    **stream: Any,
) -> CallServer:
    """The real listener of a carrier, on a free port unless one is given."""
    return CallServer(
        provider,
        desk,
        serve=ServeConfig(port=port, bind=bind),
        stream=StreamOptions(**stream),
        security=security or WebhookSecurity(),
        seam=SystemSeam(),
        public_url=public_url,
    )


@asynccontextmanager
async def listening(
    provider: TelephonyProvider, desk: Desk | None = None, **options: Any
) -> AsyncIterator[tuple[CallServer, Desk, httpx.AsyncClient]]:
    """A listener as :func:`make_server` makes it, and a client for it."""
    desk = desk or Desk()
    server = make_server(provider, desk, **options)
    # Nothing is encrypted here, and loading certificates takes longer than most tests.
    http = httpx.AsyncClient(trust_env=False, timeout=20, verify=False)
    with anyio.fail_after(30):
        async with closed_backstage(server.run()), http as client:
            yield server, desk, client


async def answer_of(port: int, sent: bytes, host: str = "127.0.0.1") -> tuple[int, bytes]:
    """Send bytes over a new connection: the status of the answer, and the whole answer."""
    async with await anyio.connect_tcp(host, port) as stream:
        await stream.send(sent)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += await stream.receive()
    return int(answer.split()[1]), answer
