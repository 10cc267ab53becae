"""A small customer of the emulated Twilio: serves documents and media sockets, and records all."""

from __future__ import annotations

import json
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl

import anyio
import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from tests.backstage import closed_backstage
from twilio.http.http_client import TwilioHttpClient
from twilio.request_validator import RequestValidator, get_signature_algorithm
from twilio.rest import Client
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from voicecall_mock.exchange.server import serve_app
from voicecall_testing.twilio import TwilioEmulator, TwilioOptions

PATIENCE_S = 15.0

FAST = TwilioOptions(
    answer_after_ms=10,
    answer_timeout_s=10.0,
    reorder_wait_ms=2000,
    word_ms=5,
    least_speech_ms=20,
    digit_ms=1,
    calls_per_second=1000.0,
    second_s=0.05,
    retry_pause_s=0.01,
)


@dataclass(frozen=True)
class Seen:
    """A request from the emulator. ``url``: as requested, with the query."""

    path: str
    url: str
    method: str
    params: dict[str, str]
    headers: dict[str, str]
    valid: bool

    @property
    def status(self) -> str:
        return self.params["CallStatus"]


class Socket:
    """One media socket that the emulator opened."""

    def __init__(self, socket: ServerConnection) -> None:
        self.socket = socket
        self.frames: list[dict[str, Any]] = []
        self.closed = False
        self.read = True
        request = socket.request
        assert request is not None
        self.signature = request.headers.get("x-twilio-signature", "")
        self.path = request.path

    async def run(self) -> None:
        try:
            async for message in self.socket:
                assert isinstance(message, str)
                self.frames.append(json.loads(message))
        except ConnectionClosed:
            pass
        self.closed = True

    def of(self, event: str) -> list[dict[str, Any]]:
        return [frame for frame in self.frames if frame["event"] == event]

    @property
    def sid(self) -> str:
        return str(self.of("start")[0]["streamSid"])

    async def send(self, event: str, **content: Any) -> None:
        frame = {"event": event, "streamSid": self.sid}
        await self.socket.send(json.dumps(frame | ({event: content} if content else {})))


async def until(condition: Callable[[], Any]) -> None:
    with anyio.fail_after(PATIENCE_S):
        while not condition():
            await anyio.sleep(0.005)


@dataclass
class Customer:
    """``answers``: bodies or HTTP error statuses by path; the last one of a path is repeated."""

    twilio: TwilioEmulator
    answers: dict[str, deque[str | int]] = field(default_factory=lambda: defaultdict(deque))
    seen: list[Seen] = field(default_factory=list)
    sockets: list[Socket] = field(default_factory=list)
    content_type: str = "text/xml"
    base: str = ""
    stream_url: str = ""

    def answer(self, path: str, *bodies: str | int) -> None:
        self.answers[path] = deque(
            f"<Response>{body}</Response>" if isinstance(body, str) else body for body in bodies
        )

    def at(self, path: str) -> list[Seen]:
        return [request for request in self.seen if request.path == path]

    async def first(self, path: str, count: int = 1) -> Seen:
        await until(lambda: len(self.at(path)) >= count)
        return self.at(path)[count - 1]

    async def socket(self, number: int = 1) -> Socket:
        await until(lambda: len(self.sockets) >= number and self.sockets[number - 1].of("start"))
        return self.sockets[number - 1]

    def stream(self, **parameters: str) -> str:
        inner = "".join(f'<Parameter name="{n}" value="{v}"/>' for n, v in parameters.items())
        return f'<Connect><Stream url="{self.stream_url}">{inner}</Stream></Connect>'

    async def dial(self, **params: Any) -> str:
        """Create a call with Twilio's SDK; its SID."""
        defaults = {"to": "+15550002222", "from_": "+15550100000"}
        if not {"url", "twiml"} & set(params):
            defaults["url"] = f"{self.base}/voice"
        call = await self.sdk(lambda client: client.calls.create(**(defaults | params)))
        return str(call.sid)

    async def sdk(
        self, use: Callable[[Client], Any], user: str | None = None, secret: str | None = None
    ) -> Any:
        """What ``use`` returns, run in a thread."""
        options = self.twilio.options

        def run() -> Any:
            http = Rewriting(self.twilio.base_url)
            with closing(http.session):
                return use(
                    Client(
                        user or options.account_sid,
                        secret or options.auth_token,
                        account_sid=options.account_sid,
                        http_client=http,
                    )
                )

        return await anyio.to_thread.run_sync(run)

    async def ended(self, sid: str) -> str:
        """Wait for the end; the status of the resource."""
        with anyio.fail_after(PATIENCE_S):
            await self.twilio.ended(sid)
        return self.twilio.calls[sid].status

    def heard(self, sid: str) -> list[tuple[str, bool]]:
        entries = self.twilio.ledger.entries("heard", call=sid)
        return [(entry["text"], entry["complete"]) for entry in entries]

    def codes(self, sid: str) -> list[int]:
        ledger = self.twilio.ledger
        found = [*ledger.entries("error", call=sid), *ledger.entries("warning", call=sid)]
        return [entry["code"] for entry in found]

    # --- the server ---------------------------------------------------------------------------

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        body = (await request.body()).decode()
        query = scope["query_string"].decode()
        url = self.base + scope["path"] + (f"?{query}" if query else "")
        params = dict(parse_qsl(body, keep_blank_values=True))
        signature = request.headers.get("x-twilio-signature", "")
        options = self.twilio.options
        algorithm = get_signature_algorithm(
            request.headers.get("x-twilio-webhooks-signature-settings")
        )
        secret = options.shared_key[1] if options.shared_key else options.auth_token
        valid = RequestValidator(secret).validate(url, params, signature, algorithm)
        shown = params or dict(parse_qsl(query, keep_blank_values=True))
        headers = dict(request.headers)
        self.seen.append(Seen(scope["path"], url, scope["method"], shown, headers, valid))
        await self._reply(scope["path"])(scope, receive, send)

    def _reply(self, path: str) -> ASGIApp:
        answers = self.answers[path]
        if not answers:
            return Response("<Response/>", media_type=self.content_type)
        answer = answers.popleft() if len(answers) > 1 else answers[0]
        if isinstance(answer, int):
            return Response(status_code=answer, headers={"Location": "/moved?to=1"})
        return Response(answer, media_type=self.content_type)

    async def take_socket(self, connection: ServerConnection) -> None:
        socket = Socket(connection)
        self.sockets.append(socket)
        await socket.run()


class Rewriting(TwilioHttpClient):  # type: ignore[misc]
    """Redirects requests for Twilio to the emulator."""

    def __init__(self, base_url: str) -> None:
        super().__init__(timeout=10)
        self.session.trust_env = False
        self._base_url = base_url

    def request(self, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
        return super().request(
            method, url.replace("https://api.twilio.com", self._base_url), *args, **kwargs
        )


@pytest.fixture
def customer() -> Any:
    """``async with customer(**options) as c``: an emulator and its customer."""

    @asynccontextmanager
    async def open_customer(speech: Any = None, **options: Any) -> AsyncIterator[Customer]:
        failure: Exception | None = None
        emulator = TwilioEmulator(replace(FAST, **options), speech=speech)
        async with closed_backstage(emulator.serve()) as twilio:
            mine = Customer(twilio)
            async with (
                closed_backstage(serve_app(mine, "127.0.0.1", 0)) as mine.base,
                serve(mine.take_socket, "127.0.0.1", 0, compression=None) as sockets,
            ):
                port = next(iter(sockets.sockets)).getsockname()[1]
                mine.stream_url = f"ws://127.0.0.1:{port}/media"
                twilio.set_voice_url(f"{mine.base}/voice")
                try:
                    yield mine
                except Exception as error:  # noqa: BLE001 (raised again outside of the groups)
                    failure = error
        if failure is not None:
            raise failure

    return open_customer
