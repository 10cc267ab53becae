"""A tiny gateway for the mock exchange: it takes webhooks and media sockets, returns actions."""

from __future__ import annotations

import dataclasses
import json
import math
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from tests.backstage import closed_backstage
from websockets.asyncio.server import ServerConnection, serve

from voicecall import PCM16_8K, AudioFormat, ProviderContext
from voicecall import telephony as tel
from voicecall.seam import SystemSeam
from voicecall.tts import PlainSpeechProvider
from voicecall_mock.codec import MockCodec
from voicecall_mock.config import MockConfig
from voicecall_mock.exchange import Exchange, ExchangeOptions
from voicecall_mock.exchange.server import serve_app
from voicecall_mock.provider import MockProvider

from .media_socket import Change, MediaSocket

TOKEN = "a-shared-token"

FAST = ExchangeOptions(
    auth_token=TOKEN,
    answer_after_ms=10,
    answer_timeout_s=10.0,
    webhook_timeout_s=10.0,
    redelivery_s=(0.02, 0.02, 0.02),
    reorder_wait_ms=5000,
    word_ms=5,
    least_speech_ms=20,
    digit_ms=1,
)


@pytest.fixture
def far_from_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The local time of this machine is nine hours ahead of UTC."""
    with monkeypatch.context() as changed:
        changed.setenv("TZ", "XYZ-9")
        time.tzset()
        yield
    time.tzset()


class ToneSpeech(PlainSpeechProvider):
    """A loud tone of 20 ms per character."""

    native_format: AudioFormat = PCM16_8K

    async def synthesize(self, text: str, voice: str | None) -> AsyncIterator[bytes]:
        for _ in text:
            wave = [int(9000 * math.sin(n * math.pi / 8)) for n in range(160)]
            yield struct.pack("<160h", *wave)


Reply = Callable[[Mapping[str, Any]], tuple[int, list[tel.Action]]]


@dataclass
class FakeGateway:
    """``replies``: actions, or a function, by event type. ``statuses``: the HTTP statuses that the
    next webhooks get instead."""

    exchange: Exchange
    provider: MockProvider
    url: str = ""
    media_url: str = ""
    replies: dict[str, list[tel.Action] | Reply] = field(default_factory=dict)
    statuses: list[int] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    sockets: list[MediaSocket] = field(default_factory=list)
    changed: Change = field(default_factory=Change)

    async def webhook(self, request: Request) -> Response:
        received = tel.WebhookRequest(
            method="POST",
            url=self.url,
            query={},
            headers=dict(request.headers),
            body=await request.body(),
            client="127.0.0.1",
        )
        now = SystemSeam().now_ms()
        self.keys.append(self.provider.verify(received, now).key)
        assert len(self.provider.parse(received, now)) == 1
        data = json.loads(received.body)
        self.events.append(data)
        self.changed.happened()
        if self.statuses and (status := self.statuses.pop(0)) != 200:
            return Response(status_code=status)
        reply = self.replies.get(data["type"], [])
        status, actions = (200, reply) if isinstance(reply, list) else reply(data)
        if status != 200:
            return Response(status_code=status)
        rendered = self.provider.render(received, None, actions).reply
        return Response(rendered.body, media_type=rendered.content_type)

    async def socket(self, connection: ServerConnection) -> None:
        fake = MediaSocket(connection, MockCodec())
        self.sockets.append(fake)
        self.changed.happened()
        await fake.run()

    def all(self, type_: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] == type_]

    @property
    def types(self) -> list[str]:
        return [event["type"] for event in self.events]

    async def event(self, type_: str, count: int = 1) -> dict[str, Any]:
        found: list[dict[str, Any]] = await self.changed.until(
            lambda: self.all(type_)[count - 1 : count]
        )
        return found[0]

    async def stream(self, count: int = 1) -> MediaSocket:
        await self.changed.until(lambda: len(self.sockets) >= count)
        return self.sockets[count - 1]

    def attach(self, token: str = "t-1") -> tel.AttachStream:
        return tel.AttachStream(tel.StreamRequest(self.media_url, token))

    async def dial(self, to: str = "+15550002222", **more: Any) -> tel.CallRef:
        reference = more.pop("call_id", "ours-1")
        request = {"ring_timeout_s": 5, "time_limit_s": 60, **more}
        carrier_id = await self.provider.place_call(
            tel.DialRequest(
                call_id=reference,
                from_number="+15550001111",
                to_number=to,
                webhook_url=self.url,
                **request,
            )
        )
        return tel.CallRef(reference, carrier_id)

    async def rest(self, method: str, path: str, body: Any = None) -> Any:
        return await self.provider._request(method, path, body)

    async def ended(self, call: tel.CallRef) -> str:
        with anyio.fail_after(10):
            return await self.exchange.ended(call.provider_call_id or "")


@pytest.fixture
def telephone() -> Any:
    """``async with telephone(**exchange options) as gateway``."""

    @asynccontextmanager
    async def open_telephone(speech: bool = True, **changes: Any) -> AsyncIterator[FakeGateway]:
        options = dataclasses.replace(FAST, **changes)
        async with AsyncExitStack() as stack:
            serving = Exchange(options, speech=ToneSpeech() if speech else None).serve()
            exchange = await stack.enter_async_context(closed_backstage(serving))
            config = MockConfig(api_base_url=exchange.base_url, auth_token=TOKEN)
            provider = MockProvider(config, ProviderContext(Path("unused")))
            await stack.enter_async_context(provider.lifespan())
            gateway = FakeGateway(exchange, provider)
            app = Starlette(routes=[Route("/hook", gateway.webhook, methods=["POST"])])
            hooks = closed_backstage(serve_app(app, "127.0.0.1", 0))
            base_url = await stack.enter_async_context(hooks)
            gateway.url = f"{base_url}/hook"
            server = await stack.enter_async_context(serve(gateway.socket, "127.0.0.1", 0))
            port = next(iter(server.sockets)).getsockname()[1]
            gateway.media_url = f"ws://127.0.0.1:{port}/media"
            yield gateway

    return open_telephone
