"""A tiny gateway for Twilio's emulator: it takes webhooks and media sockets, returns documents."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request as Handshake
from websockets.http11 import Response as Refusal

from voicecall import ProviderContext, media
from voicecall import events as ev
from voicecall import telephony as tel
from voicecall.errors import WebhookRejected
from voicecall_mock.exchange.server import serve_app
from voicecall_testing.clock import VirtualSeam, VirtualTimeLoop
from voicecall_testing.twilio import TwilioEmulator, TwilioOptions
from voicecall_twilio.config import TwilioConfig
from voicecall_twilio.provider import TwilioProvider

from .media_socket import Change, MediaSocket

_OF_SOCKETS = (31901, 31920, 31921)
"""What Twilio notes when a media socket cannot be opened, or is closed by us."""

HERE = "+15550100000"
PHONE = "+15550002222"
CALLER = "+15550003333"

patient_backend: tuple[str, dict[str, Any]] = (
    "asyncio",
    {"loop_factory": lambda: VirtualTimeLoop(socket_wait=0.003)},
)
"""Virtual time that gives real sockets a moment."""

E = TypeVar("E", bound=ev.CarrierEvent)
Answer = Callable[[Any], Sequence[tel.Action]]


@dataclass
class Desk:
    """``answers``: the actions of a reply, by type of event."""

    twilio: TwilioEmulator
    provider: TwilioProvider
    url: str = ""
    media_url: str = ""
    answers: dict[type[ev.CarrierEvent], Answer] = field(default_factory=dict)
    events: list[ev.CarrierEvent] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    sockets: list[MediaSocket] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    changed: Change = field(default_factory=Change)

    # --- the server -------------------------------------------------------------------------

    async def webhook(self, asked: Request) -> Response:
        query = asked.scope["query_string"].decode()
        request = tel.WebhookRequest(
            method="POST",
            url=f"{self.url}?{query}" if query else self.url,
            query=dict(asked.query_params),
            headers={name.lower(): value for name, value in asked.headers.items()},
            body=await asked.body(),
            client="127.0.0.1",
        )
        if self.statuses and (status := self.statuses.pop(0)) != 200:
            return Response(status_code=status)
        now = self.twilio.seam.now_ms()
        self.keys.append(self.provider.verify(request, now).key)
        found = self.provider.parse(request, now)
        actions: list[tel.Action] = []
        call = None
        for event in found:
            self.events.append(event)
            answer = self.answers.get(type(event))
            actions += answer(event) if answer is not None else ()
            call = self.ref(event.call_id or "in-1", event.provider_call_id)
        self.changed.happened()
        rendered = self.provider.render(request, call, actions)
        for action in rendered.rest:
            assert call is not None
            await self.provider.perform(call, action)
        reply = rendered.reply
        return Response(reply.body, reply.status, {"content-type": reply.content_type})

    async def admit(self, connection: ServerConnection, asked: Handshake) -> Refusal | None:
        headers = {name.lower(): value for name, value in asked.headers.raw_items()}
        upgrade = media.Upgrade("/media", {}, headers, "127.0.0.1", self.media_url)
        assert "x-twilio-signature" in headers
        try:
            self.provider.verify_upgrade(upgrade, self.twilio.seam.now_ms())
        except WebhookRejected as refused:
            return connection.respond(HTTPStatus(refused.status), "refused")
        return None

    async def socket(self, connection: ServerConnection) -> None:
        upgrade = media.Upgrade("/media", {}, {}, "127.0.0.1")
        fake = MediaSocket(connection, self.provider.media_codec(upgrade))
        self.sockets.append(fake)
        self.changed.happened()
        await fake.run()

    # --- what tests do ----------------------------------------------------------------------

    def ref(self, call_id: str, sid: str | None) -> tel.CallRef:
        url = f"{self.url}?callId={call_id}"
        return tel.CallRef(call_id, sid, (sid,) if sid else (), url)

    def dialling(self, **changes: Any) -> tel.DialRequest:
        request = tel.DialRequest(
            call_id="out-1",
            from_number=HERE,
            to_number=PHONE,
            webhook_url=f"{self.url}?callId=out-1",
            ring_timeout_s=20,
            time_limit_s=330,
        )
        return dataclasses.replace(request, **changes)

    async def dial(self, **changes: Any) -> tel.CallRef:
        request = self.dialling(**changes)
        return self.ref(request.call_id, await self.provider.place_call(request))

    def attach(self, token: str = "t-1") -> tel.StreamRequest:
        return tel.StreamRequest(self.media_url, token)

    def all(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]

    async def event(self, kind: type[E], count: int = 1) -> E:
        found: list[E] = await self.changed.until(lambda: self.all(kind)[count - 1 : count])
        return found[0]

    async def stream(self, count: int = 1) -> MediaSocket:
        await self.changed.until(lambda: len(self.sockets) >= count)
        return self.sockets[count - 1]

    def heard(self, call: tel.CallRef) -> list[str]:
        """What the phone heard, sentence by sentence."""
        return [entry["text"] for entry in self.entries("heard", call) if entry["complete"]]

    def entries(self, kind: str, call: tel.CallRef | None = None) -> list[Mapping[str, Any]]:
        sid = None if call is None else call.provider_call_id
        return [entry for entry in self.twilio.ledger.entries(call=sid) if entry["kind"] == kind]


def footprint(value: object, path: str = "") -> set[tuple[str, str]]:
    """The objects that the adapter is made of, with the sizes of its collections."""
    found = {(path, type(value).__name__)}
    if isinstance(value, Mapping):
        found.add((path, f"{len(value)}"))
        for key, item in value.items():
            found |= footprint(item, f"{path}[{key!r}]")
    elif isinstance(value, list | tuple | set | frozenset):
        found.add((path, f"{len(value)}"))
    elif type(value).__module__.startswith("voicecall_twilio"):
        names = getattr(value, "__slots__", None) or getattr(value, "__dict__", {})
        for name in names:
            found |= footprint(getattr(value, name), f"{path}.{name}")
    return found


@asynccontextmanager
async def open_desk(
    config: Mapping[str, Any] | None = None, *, noted: Sequence[int] = _OF_SOCKETS, **options: Any
) -> AsyncIterator[Desk]:
    """The emulator, an adapter and the gateway. In the end the adapter is as it was before the
    first call. ``noted``: the errors and warnings that Twilio may note."""
    seam = VirtualSeam()
    async with AsyncExitStack() as stack:
        given = {"calls_per_second": 50.0, **options}
        twilio = TwilioEmulator(TwilioOptions(**given), seam=seam)
        await stack.enter_async_context(twilio.serve())
        values = {
            "accountSid": twilio.options.account_sid,
            "authToken": twilio.options.auth_token,
            "apiBaseUrl": twilio.base_url,
            "callsPerSecond": 50,
            **(config or {}),
        }
        provider = TwilioProvider(
            TwilioConfig.model_validate(values), ProviderContext(Path("unused"), seam=seam)
        )
        await stack.enter_async_context(provider.lifespan())
        desk = Desk(twilio, provider)
        app = Starlette(routes=[Route("/hook", desk.webhook, methods=["POST"])])
        base = await stack.enter_async_context(serve_app(app, "127.0.0.1", 0))
        desk.url = f"{base}/hook"
        server = await stack.enter_async_context(
            serve(desk.socket, "127.0.0.1", 0, process_request=desk.admit, ping_interval=None)
        )
        port = next(iter(server.sockets)).getsockname()[1]
        desk.media_url = f"ws://127.0.0.1:{port}/media"
        twilio.set_voice_url(
            provider.number_urls(desk.url)["A call comes in"],
            status_callback=provider.number_urls(desk.url)["Call status changes"],
        )
        before = footprint(provider)
        yield desk
        assert footprint(provider) == before
        trouble = desk.entries("error") + desk.entries("warning")
        assert [entry for entry in trouble if entry["code"] not in noted] == []
        assert desk.entries("parameters-ignored") == []


@asynccontextmanager
async def answering(body: str, *, pause_s: float = 0.0) -> AsyncIterator[dict[str, Any]]:
    """Configuration for an API that answers everything with ``body``, optionally with a pause
    before each character."""

    async def slowly() -> AsyncIterator[str]:
        for character in body:
            await anyio.sleep(pause_s)
            yield character

    async def answer(request: Request) -> Response:
        return StreamingResponse(slowly()) if pause_s else Response(body)

    app = Starlette(routes=[Route("/{path:path}", answer, methods=["GET", "POST"])])
    async with serve_app(app, "127.0.0.1", 0) as url:
        yield {"apiBaseUrl": url}
