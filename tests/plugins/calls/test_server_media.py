"""Media sockets over real connections, with the mock carrier's codec."""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest
from tests.backstage import closed_backstage
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from voicecall import MULAW_8K, ProviderContext
from voicecall.errors import WebhookRejected
from voicecall.events import CarrierEvent
from voicecall.media import (
    Audio,
    Dtmf,
    MarkReached,
    MediaCodec,
    MediaEvent,
    Message,
    Started,
    Upgrade,
)
from voicecall.seam import Seam, SystemSeam
from voicecall.telephony import Verified, WebhookReply, WebhookRequest
from voicecall_calls.config import ServeConfig
from voicecall_calls.doors import AdmissionRefused, Attachment, MediaSocket
from voicecall_calls.server import CallServer, StreamOptions, WebhookSecurity
from voicecall_calls.server.media import MediaServer
from voicecall_calls.server.sockets import MediaConnection
from voicecall_calls.server.upgrade import Refusal
from voicecall_mock.codec import MockCodec
from voicecall_mock.config import MockConfig
from voicecall_mock.provider import MockProvider

pytestmark = [
    pytest.mark.integration,
    pytest.mark.anyio,
    pytest.mark.usefixtures("backstage"),
]


class Line:
    """An attachment that notes what it gets and echoes audio."""

    def __init__(self, socket: MediaSocket, started: Started) -> None:
        self.socket = socket
        self.started = started
        self.events: list[MediaEvent] = []
        self.closed_told = 0
        self.over = anyio.Event()

    def received(self, event: MediaEvent) -> None:
        if event == Dtmf("#"):
            raise RuntimeError("the line is broken")
        self.events.append(event)
        if isinstance(event, Audio):
            self.socket.send(self.socket.codec.audio(event.payload))

    def closed(self) -> None:
        self.closed_told += 1
        self.over.set()


class Engine:
    """Admits every token but ``bad`` and ``broken``, once ``gate`` is open; caller audio goes to
    ``listener``, where there is one."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.upgrades: list[Upgrade] = []
        self.listener: Callable[[bytes], None] | None = None
        self.gate = anyio.Event()
        self.gate.set()
        self.asked = anyio.Event()

    async def recorded(
        self, verified: Verified, events: Sequence[CarrierEvent]
    ) -> WebhookReply | None:
        return None

    async def handle(
        self, request: WebhookRequest, verified: Verified, events: Sequence[CarrierEvent]
    ) -> WebhookReply:
        return WebhookReply()

    async def admit(self, started: Started, upgrade: Upgrade, socket: MediaSocket) -> Attachment:
        self.upgrades.append(upgrade)
        self.asked.set()
        await self.gate.wait()
        if started.token == "bad":
            raise AdmissionRefused(1008, "Unknown call")
        if started.token == "broken":
            raise RuntimeError("no store")
        line = Line(socket, started)
        if self.listener is not None:
            socket.listen(self.listener)
        self.lines.append(line)
        return line


class BinaryCodec(MockCodec):
    binary = True


class CarefulCodec(MockCodec):
    """A codec that has messages without meaning, and a bug."""

    def decode(self, message: Message) -> MediaEvent | None:
        if message == "hello":
            return None
        if message == "bug":
            raise KeyError("bug")
        return super().decode(message)


class HastyCodec(MockCodec):
    """A codec whose fast path has a bug."""

    def caller_audio(self, message: Message) -> bytes | None:
        raise KeyError("bug")


class SilentCodec(MockCodec):
    """A codec that cannot say anything."""

    def audio(self, payload: bytes) -> Message:
        raise KeyError("bug")


class VagueCodec(MockCodec):
    """A codec that lets a start pass which does not name both call and stream."""

    def decode(self, message: Message) -> MediaEvent | None:
        stream, _, call = str(message).partition(" ")
        return Started("good", stream, call, MULAW_8K, MULAW_8K, {})


class BrokenCodec(MockCodec):
    def __init__(self) -> None:
        raise KeyError("bug")


class LeavingCodec(MockCodec):
    """A codec with one method that raises ``SystemExit``."""


class Carrier(MockProvider):
    codec: type[MockCodec] = CarefulCodec
    signed: Any = None

    def verify_upgrade(self, upgrade: Upgrade, now_ms: int) -> Any:
        if isinstance(self.signed, WebhookRejected):
            raise self.signed
        return self.signed

    def media_codec(self, upgrade: Upgrade) -> MediaCodec:
        return self.codec()


def make_server(
    engine: Engine,
    *,
    security: WebhookSecurity | None = None,
    codec: type[MockCodec] = CarefulCodec,
    signed: object = None,
    seam: Seam | None = None,
    **stream: Any,
) -> CallServer:
    provider = Carrier(MockConfig(), ProviderContext(Path("unused")))
    provider.codec = codec
    provider.signed = signed
    return CallServer(
        provider,
        engine,
        serve=ServeConfig(port=0),
        stream=StreamOptions(**stream),
        security=security or WebhookSecurity(),
        seam=seam or SystemSeam(),
    )


@asynccontextmanager
async def serving(
    *,
    security: WebhookSecurity | None = None,
    codec: type[MockCodec] = CarefulCodec,
    signed: object = None,
    **stream: Any,
) -> AsyncIterator[tuple[CallServer, Engine]]:
    engine = Engine()
    server = make_server(engine, security=security, codec=codec, signed=signed, **stream)
    with anyio.fail_after(30):
        async with closed_backstage(server.run()):
            yield server, engine


def dial(server: CallServer, path: str = "", **options: Any) -> connect:
    return connect(server.stream_url + path, proxy=None, compression=None, **options)


def start(token: str = "good", call: str = "mk-1", stream: str = "st-1") -> str:
    return json.dumps({"event": "start", "stream": stream, "call": call, "token": token})


def frame(payload: bytes, at: int = 0) -> str:
    return json.dumps({"event": "media", "payload": base64.b64encode(payload).decode(), "at": at})


def mark(name: str) -> str:
    return json.dumps({"event": "mark", "name": name})


async def close_of(client: ClientConnection) -> tuple[int, str]:
    try:
        while True:
            await client.recv()
    except ConnectionClosed as error:
        received = error.rcvd
    assert received is not None
    return received.code, received.reason


async def until_open(engine: Engine, count: int = 1) -> None:
    while len(engine.lines) < count:
        await anyio.sleep(0.002)


async def until_pending(server: CallServer, count: int) -> None:
    while server.pending_sockets != count:
        await anyio.sleep(0.002)


async def until_gone(server: CallServer) -> None:
    while server.open_sockets:
        await anyio.sleep(0.002)


async def test_two_hundred_frames_come_back_bit_exact() -> None:
    frames = [os.urandom(160) for _ in range(200)]
    async with serving() as (server, engine), dial(server) as client:
        await client.send(start())
        for number, payload in enumerate(frames):
            await client.send(frame(payload, number * 20))
        echoed = [json.loads(await client.recv()) for _ in frames]
        assert [base64.b64decode(message["payload"]) for message in echoed] == frames
        [line] = engine.lines
        assert line.events == [Audio(p, n * 20) for n, p in enumerate(frames)]
        assert line.started.provider_call_id == "mk-1"


@pytest.mark.parametrize(("codec", "kind"), [(MockCodec, str), (BinaryCodec, bytes)])
async def test_bytes_of_a_codec_are_text_unless_it_is_binary(
    codec: type[MockCodec], kind: type
) -> None:
    async with serving(codec=codec) as (server, _), dial(server) as client:
        await client.send(start().encode())
        await client.send(frame(b"x").encode())
        assert isinstance(await client.recv(), kind)


async def test_text_of_a_codec_stays_text() -> None:
    async with serving(codec=BinaryCodec) as (server, engine), dial(server) as client:
        await client.send(start())
        await until_open(engine)
        engine.lines[0].socket.send("grüße")
        assert await client.recv() == "grüße"
        assert engine.lines[0].socket.buffered == 0


async def test_what_comes_during_admission_is_delivered_in_order() -> None:
    async with serving() as (server, engine), dial(server) as client:
        engine.gate = anyio.Event()
        await client.send(start())
        await client.send(frame(b"a", 0))
        await client.send(mark("m"))
        await engine.asked.wait()
        await client.send(frame(b"b", 20))
        await (await client.ping())
        engine.gate.set()
        await client.send(frame(b"c", 40))
        for _ in range(3):
            await client.recv()
        assert engine.lines[0].events == [
            Audio(b"a", 0),
            MarkReached("m"),
            Audio(b"b", 20),
            Audio(b"c", 40),
        ]


async def test_what_is_kept_during_admission_is_bounded() -> None:
    async with serving() as (server, engine), dial(server) as client:
        engine.gate = anyio.Event()
        await client.send(start())
        for _ in range(30):
            await client.send(frame(b"x" * 40_000))
        assert await close_of(client) == (1013, "Too much data before admission")
        engine.gate.set()
        await until_open(engine)
        await engine.lines[0].over.wait()
        assert engine.lines[0].events == []


@pytest.mark.parametrize(
    ("messages", "close"),
    [
        ([frame(b"x")], (1008, "Start expected")),
        (["hello", mark("m")], (1008, "Start expected")),
        ([start(), start()], (1008, "Duplicate start")),
        ([start("bad")], (1008, "Unknown call")),
        ([start("broken")], (1011, "Internal error")),
        ([start(), json.dumps({"event": "digits", "digits": "#"})], (1011, "Internal error")),
        ([start(), "bug"], (1011, "Internal error")),
        (["{" * 10] * 50, (1008, "Too many malformed messages")),
        (["x" * 65_537], (1009, None)),
        ([["x" * 40_000, "y" * 40_000]], (1009, "Message too long")),
    ],
)
async def test_what_closes_a_socket(messages: list[Any], close: tuple[int, str | None]) -> None:
    async with serving() as (server, engine), dial(server) as client:
        for message in messages:
            await client.send(message)
        code, reason = await close_of(client)
        assert code == close[0]
        assert close[1] in (None, reason)
        await until_gone(server)
        assert [line.closed_told for line in engine.lines] == [1] * len(engine.lines)


async def test_a_carrier_that_tries_again_what_is_refused_fills_no_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="voicecall.calls.server")
    server = make_server(Engine())
    with anyio.fail_after(30):
        # Not closed backstage: what is left to say is said at the end.
        async with server.run():
            for _ in range(5):
                async with dial(server) as client:
                    await client.send(start("bad"))
                    await close_of(client)
    refused = [line for line in caplog.messages if "Unknown call" in line]
    first = "media socket of 127.0.0.1 closed: 1008 Unknown call"
    assert refused[0] == first
    assert refused[1:] == [f"{first} (4 more in 0 s)"]


class Ahead(SystemSeam):
    """A clock that may be ahead of the real one."""

    by_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.by_s


async def test_how_often_a_socket_was_refused_is_told_before_the_server_stops(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="voicecall.calls.server")
    seam = Ahead()
    server = make_server(Engine(), seam=seam)
    with anyio.fail_after(30):
        async with server.run():
            for _ in range(2):
                async with dial(server) as client:
                    await client.send(start("bad"))
                    await close_of(client)
            seam.by_s = 5
            while not any("Unknown call (1 more in " in line for line in caplog.messages):
                await anyio.sleep(0.01)


async def test_sockets_are_counted_that_are_not_let_in(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as (server, engine):
        assert await refusal(server, "/more") == (404, b"Not Found")
        for token in ("bad", "broken", "bad"):
            async with dial(server) as client:
                await client.send(start(token))
                await close_of(client)
        async with dial(server) as client:
            await client.send(start())
            await until_open(engine)
            await client.send(start())
            assert await close_of(client) == (1008, "Duplicate start")
        assert server.refused_sockets == {404: 1, 1008: 2, 1011: 1}
    assert caplog.messages.count("admission of a media socket failed") == 1


async def test_a_second_start_on_an_open_socket_closes_it() -> None:
    async with serving() as (server, engine), dial(server) as client:
        await client.send(start())
        await until_open(engine)
        await client.send(start())
        assert await close_of(client) == (1008, "Duplicate start")


@pytest.mark.parametrize("named", [" ", "st-1 ", " mk-1"])
async def test_a_start_that_names_not_both_call_and_stream_closes_the_socket(named: str) -> None:
    async with serving(codec=VagueCodec) as (server, engine), dial(server) as client:
        await client.send(named)
        assert await close_of(client) == (1008, "Start without call or stream")
        assert engine.lines == []


async def test_a_carrier_without_a_codec_for_a_socket_is_500(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving(codec=BrokenCodec) as (server, _):
        with pytest.raises(InvalidStatus) as caught:
            await dial(server)
        response = caught.value.response
        # Not what went wrong, which concerns nobody outside.
        assert (response.status_code, response.body) == (500, b"Internal Server Error")
        assert server.refused_sockets == {500: 1}
    assert "no codec for the media socket of 127.0.0.1" in caplog.text


@pytest.mark.parametrize("signed", [False, "yes", 0])
async def test_a_handshake_that_is_not_said_to_be_right_is_401(
    signed: object, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(signed=signed) as (server, _):
        with pytest.raises(InvalidStatus) as caught:
            await dial(server)
        assert caught.value.response.status_code == 401
    assert f"verify_upgrade returns {signed!r}" in caplog.text


@pytest.mark.parametrize(("status", "answered"), [(403, 403), (499, 401), (200, 401)])
async def test_a_handshake_is_refused_with_a_status_that_it_can_have(
    status: int, answered: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(signed=WebhookRejected(status, "not ours")) as (server, _):
        with pytest.raises(InvalidStatus) as caught:
            await dial(server)
        response = caught.value.response
        assert (response.status_code, response.body) == (answered, b"Unauthorized")
        assert server.refused_sockets == {answered: 1}
    assert "media socket of 127.0.0.1 refused: not ours" in caplog.text


async def test_a_fast_path_for_audio_that_fails_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving(codec=HastyCodec) as (server, engine), dial(server) as client:
        engine.listener = bytearray().extend
        await client.send(start())
        await until_open(engine)
        await client.send(frame(b"x"))
        assert await close_of(client) == (1011, "Internal error")
    assert "media codec failed" in caplog.text
    assert "KeyError: 'bug'" in caplog.text


@pytest.mark.parametrize("method", ["__init__", "decode", "caller_audio", "audio"])
async def test_a_codec_that_wants_to_exit_costs_its_socket_and_nothing_else(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave(*_: object) -> None:
        raise SystemExit(2)

    monkeypatch.setattr(LeavingCodec, method, leave)
    async with serving(codec=LeavingCodec) as (server, engine):
        engine.listener = bytearray().extend
        if method == "__init__":
            with pytest.raises(InvalidStatus) as caught:
                await dial(server)
            assert caught.value.response.status_code == 500
            return
        async with dial(server) as client:
            await client.send(start())
            if method != "decode":
                await until_open(engine)
                engine.lines[0].socket.play(b"x")
                await client.send(frame(b"x"))
            assert await close_of(client) == (1011, "Internal error")


async def test_a_codec_that_plays_no_audio_costs_its_socket_and_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving(codec=SilentCodec) as (server, engine), dial(server) as client:
        await client.send(start())
        await until_open(engine)
        for _ in range(3):
            engine.lines[0].socket.play(b"x")
        assert await close_of(client) == (1011, "Internal error")
    assert caplog.text.count("media codec failed") == 1


async def test_audio_goes_to_whoever_listens_last() -> None:
    heard: list[tuple[str, bytes]] = []
    news = anyio.Event()

    def note(who: str, audio: bytes) -> None:
        nonlocal news
        heard.append((who, audio))
        news.set()
        news = anyio.Event()

    def broken(audio: bytes) -> None:
        raise RuntimeError("the ear is broken")

    async with serving() as (server, engine), dial(server) as client:
        engine.listener = partial(note, "first")
        await client.send(start())
        await until_open(engine)
        socket = engine.lines[0].socket
        for who in ("first", "second"):
            came = news
            await client.send(frame(who.encode()))
            await came.wait()
            socket.listen(partial(note, "second"))
        assert heard == [("first", b"first"), ("second", b"second")]
        assert engine.lines[0].events == []
        socket.listen(broken)
        await client.send(frame(b"x"))
        assert await close_of(client) == (1011, "Internal error")


async def test_garbage_is_counted_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="voicecall.calls")
    async with serving() as (server, engine), dial(server) as client:
        for _ in range(24):
            await client.send("not json")
        await client.send(start())
        for _ in range(24):
            await client.send(b"\xff\x00")
        await client.send(frame(b"still here"))
        await client.recv()
        assert engine.lines[0].events == [Audio(b"still here", 0)]
        await client.close()
        await until_gone(server)
    lines = [record.getMessage() for record in caplog.records]
    assert len([line for line in lines if "malformed message on" in line]) == 1
    assert len([line for line in lines if "sent 48 malformed messages" in line]) == 1


async def test_a_socket_without_start_is_closed() -> None:
    async with serving(pre_start_timeout_ms=30) as (server, _), dial(server) as client:
        await client.send("hello")
        assert await close_of(client) == (1008, "Start timeout")
        await until_pending(server, 0)


async def test_admission_counts_as_waiting_for_the_start() -> None:
    async with serving(pre_start_timeout_ms=300) as (server, engine), dial(server) as client:
        engine.gate = anyio.Event()
        await client.send(start())
        assert await close_of(client) == (1008, "Start timeout")
        await until_gone(server)
        engine.gate.set()
        await until_open(engine)
        await engine.lines[0].over.wait()
        assert engine.lines[0].closed_told == 1


async def test_an_open_socket_outlives_the_start_timeout() -> None:
    async with serving(pre_start_timeout_ms=300) as (server, _), dial(server) as client:
        await client.send(start())
        await anyio.sleep(0.4)
        await client.send(frame(b"x"))
        assert json.loads(await client.recv())["event"] == "media"


async def test_a_socket_on_a_kept_connection_outlives_the_time_for_a_head() -> None:
    """Proxies that keep connections open it on one that has carried a webhook."""
    async with serving(security=WebhookSecurity(head_timeout_s=1)) as (server, _):
        async with await anyio.connect_tcp("127.0.0.1", server.port) as stream:
            await stream.send(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
            answer = b""
            while not answer.endswith(b"ok"):
                answer += await stream.receive()
            kept = stream.extra(anyio.abc.SocketAttribute.raw_socket)
            async with dial(server, sock=kept.dup()) as client:
                await client.send(start())
                await anyio.sleep(1.3)
                await client.send(frame(b"x"))
                assert json.loads(await client.recv())["event"] == "media"


async def test_no_socket_is_opened_before_an_answer_that_is_due() -> None:
    async with serving() as (server, _):
        async with await anyio.connect_tcp("127.0.0.1", server.port) as stream:
            await stream.send(
                b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
                b"GET /voice/stream HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\n"
                b"connection: Upgrade\r\nsec-websocket-version: 13\r\n"
                b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            answer = b""
            with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                while True:
                    answer += await stream.receive()
            assert b" 101 " not in answer
        assert server.open_sockets == 0


@pytest.mark.parametrize(
    "caps", [{"max_pending": 2}, {"max_pending_per_client": 2}, {"max_pending": 2, "path": "/m"}]
)
async def test_pending_sockets_are_capped_and_an_accepted_start_frees_a_place(
    caps: dict[str, Any],
) -> None:
    async with serving(**caps) as (server, engine):
        async with dial(server) as first, dial(server) as second:
            await until_pending(server, 2)
            async with dial(server) as third:
                assert await close_of(third) == (
                    1013,
                    "Too many pending media stream connections",
                )
            await first.send(start())
            await until_pending(server, 1)
            async with dial(server) as fourth:
                await fourth.send(start())
                await until_open(engine, 2)
                await until_pending(server, 1)
            await second.close()
            await until_pending(server, 0)


async def test_pending_caps_go_by_the_client_behind_a_trusted_proxy() -> None:
    security = WebhookSecurity(
        trust_forwarding_headers=True, trusted_proxy_ips=("127.0.0.1",), allowed_hosts=()
    )
    async with serving(security=security, max_pending_per_client=1) as (server, engine):
        one = {"x-forwarded-for": "198.51.100.1"}
        two = {"x-forwarded-for": "198.51.100.2"}
        async with (
            dial(server, additional_headers=one),
            dial(server, "?a=1", additional_headers=two) as other,
            dial(server, additional_headers=one) as refused,
        ):
            assert (await close_of(refused))[0] == 1013
            await other.send(start())
            await until_open(engine)
            [upgrade] = engine.upgrades
            assert (upgrade.client, upgrade.path) == ("198.51.100.2", "/voice/stream")
            assert (upgrade.query, upgrade.headers["x-forwarded-for"]) == (
                {"a": "1"},
                "198.51.100.2",
            )


async def refusal(server: CallServer, path: str = "") -> tuple[int, bytes]:
    with pytest.raises(InvalidStatus) as caught:
        async with dial(server, path):
            pytest.fail("let in")
    response = caught.value.response
    return response.status_code, bytes(response.body or b"")


async def test_upgrades_over_the_cap_or_elsewhere_are_refused() -> None:
    async with serving(max_connections=1) as (server, engine):
        assert await refusal(server, "/more") == (404, b"Not Found")
        async with dial(server) as client:
            await client.send(start())
            await until_open(engine)
            assert await refusal(server) == (503, b"Too many media stream connections")
            await client.send(frame(b"live calls go on"))
            await client.recv()
        await until_gone(server)


async def test_nobody_is_let_in_before_the_start_or_behind_the_end() -> None:
    media = MediaServer(
        Carrier(MockConfig(), ProviderContext(Path("unused"))),
        Engine(),
        StreamOptions(),
        url=lambda: "ws://127.0.0.1/voice/stream",
        seam=SystemSeam(),
        skip_signatures=False,
    )
    upgrade = Upgrade(path="/voice/stream", query={}, headers={}, client="198.51.100.1")
    for _ in range(2):
        assert media.upgrade(upgrade) == Refusal(503, "Shutting down")
        async with media.run():
            assert isinstance(media.upgrade(upgrade), MediaConnection)
    assert media.upgrade(upgrade) == Refusal(503, "Shutting down")


async def test_a_server_is_started_again() -> None:
    engine = Engine()
    server = make_server(engine)
    with anyio.fail_after(30):
        for number in (1, 2):
            async with server.run(), dial(server) as client:
                await client.send(start())
                await until_open(engine, number)


async def test_sockets_that_found_no_place_take_none_while_they_close() -> None:
    async with serving(max_pending=1, max_connections=2) as (server, engine):
        async with raw(server) as first, raw(server) as second, raw(server) as third:
            # They leave our close frame without an answer.
            for turned_away in (second, third):
                assert await turned_away.close_code() == 1013
            await first.send(0x81, start().encode())
            await until_open(engine)
            async with dial(server) as client:
                await client.send(start())
                await until_open(engine, 2)
                assert await refusal(server) == (503, b"Too many media stream connections")


async def test_fragments_are_joined_and_pings_answered_in_between() -> None:
    async with serving() as (server, engine), dial(server) as client:
        text = start()
        await client.send([text[:7], text[7:30], text[30:]])
        await (await client.ping())
        data = frame(b"in pieces").encode()
        await client.send([data[:10], data[10:]])
        await client.recv()
        assert engine.lines[0].events == [Audio(b"in pieces", 0)]


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """For peers that will not answer our close frame anyway."""
    monkeypatch.setattr("voicecall_calls.server.sockets.CLOSE_GRACE_S", 0.05)


# --- a raw client, for what a well-behaved one never does ----------------------------------------


class Raw:
    def __init__(self, stream: anyio.abc.SocketStream) -> None:
        self._stream = stream
        self._data = b""

    async def send(self, first: int, payload: bytes, *, masked: bool = True) -> None:
        size = len(payload)
        head = struct.pack("!BB", first, 128 * masked + (size if size < 126 else 126))
        head += struct.pack("!H", size) if size >= 126 else b""
        await self._stream.send(head + (b"\0\0\0\0" if masked else b"") + payload)

    async def handshake(self, server: CallServer, connection: str = "Upgrade") -> bytes:
        await self._stream.send(
            f"GET /voice/stream HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
            f"Upgrade: websocket\r\nConnection: {connection}\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )
        while b"\r\n\r\n" not in self._data:
            self._data += await self._stream.receive()
        head, _, self._data = self._data.partition(b"\r\n\r\n")
        return head

    async def close_code(self) -> int:
        while len(self._data) < 4:
            self._data += await self._stream.receive()
        assert self._data[0] == 0x88
        return int.from_bytes(self._data[2:4], "big")


@asynccontextmanager
async def raw(server: CallServer, connection: str = "Upgrade") -> AsyncIterator[Raw]:
    async with await anyio.connect_tcp("127.0.0.1", server.port) as stream:
        client = Raw(stream)
        assert b" 101 " in await client.handshake(server, connection)
        yield client


async def test_pings_and_pongs_may_come_between_fragments() -> None:
    async with serving() as (server, engine), raw(server) as client:
        text = start().encode()
        for first, payload in ((0x01, text[:9]), (0x89, b"?"), (0x8A, b"!"), (0x80, text[9:])):
            await client.send(first, payload)
        await until_open(engine)


@pytest.mark.parametrize("connection", ["keep-alive, Upgrade", "UPGRADE", "Upgrade,close"])
async def test_proxies_spell_the_connection_header_in_their_own_way(connection: str) -> None:
    async with serving() as (server, engine), raw(server, connection) as client:
        await client.send(0x81, start().encode())
        await until_open(engine)


async def test_the_head_of_a_socket_that_is_too_long_is_431(
    caplog: pytest.LogCaptureFixture,
) -> None:
    headers = {"x-long": "a" * 15_000}
    async with serving() as (server, engine), dial(server, additional_headers=headers) as client:
        await client.send(start())
        await until_open(engine)
        for length in (17_000, 60_000):
            headers = {f"x-{number}": "a" * 1_000 for number in range(length // 1_000)}
            with pytest.raises(InvalidStatus) as caught:
                async with dial(server, additional_headers=headers):
                    pass
            assert caught.value.response.status_code == 431
    text = "media socket of 127.0.0.1 refused: a head of more than 16384 bytes"
    assert [line for line in caplog.messages if "refused" in line] == [text] * 2


async def test_the_query_of_a_socket_has_few_parameters(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as (server, engine):
        async with dial(server, f"?{'x=1&' * 99}x=1") as client:
            await client.send(start())
            await until_open(engine)
        with pytest.raises(InvalidStatus) as caught:
            async with dial(server, f"?{'x=1&' * 100}x=1"):
                pass
        assert caught.value.response.status_code == 400
    text = "media socket of 127.0.0.1 refused: a query of more than 100 parameters"
    assert text in caplog.messages


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([(0xC1, b"x", True)], 1002),
        ([(0x80, b"x", True)], 1002),
        ([(0x01, b"x", True), (0x81, b"y", True)], 1002),
        ([(0x81, b"x", False)], 1002),
        ([(0x83, b"x", True)], 1002),
        ([(0x81, b"\xff\xfe", True)], 1007),
        ([(0x01, b"\xff", True), (0x80, b"\xfe", True)], 1007),
        ([(0x88, b"", True)], 1000),
        ([(0x88, b"\x03\xe9bye", True)], 1001),
    ],
)
@pytest.mark.usefixtures("short_grace")
async def test_broken_framing_closes_the_socket(
    frames: list[tuple[int, bytes, bool]], code: int
) -> None:
    async with serving() as (server, _), raw(server) as client:
        for first, payload, masked in frames:
            await client.send(first, payload, masked=masked)
        assert await client.close_code() == code
        await until_gone(server)


@pytest.mark.usefixtures("short_grace")
async def test_a_peer_that_never_answers_our_close_is_cut_off() -> None:
    async with serving() as (server, engine), raw(server) as client:
        await client.send(0x81, start().encode())
        await until_open(engine)
        line = engine.lines[0]
        line.socket.close(1000, "Done " + "x" * 200)
        line.socket.close(1011, "again")
        line.socket.send("into the void")
        await client.send(0x81, frame(b"too late").encode())
        assert await client.close_code() == 1000
        await line.over.wait()
        assert (line.events, line.closed_told) == ([], 1)


@pytest.mark.usefixtures("short_grace")
async def test_one_that_is_admitted_while_it_closes_is_cut_off_too() -> None:
    async with serving(pre_start_timeout_ms=300) as (server, engine), raw(server) as client:
        engine.gate = anyio.Event()
        await client.send(0x81, start().encode())
        assert await client.close_code() == 1008
        engine.gate.set()
        await until_open(engine)
        await engine.lines[0].over.wait()
        await until_gone(server)


@pytest.mark.usefixtures("short_grace")
@pytest.mark.parametrize("given", [{"send_limit": 10_000}, {"send_limit": 100_000}, {}])
async def test_a_client_that_does_not_read_is_closed(
    given: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="voicecall.calls")
    send_limit = given.get("send_limit", 1024 * 1024)
    async with serving(**given) as (server, engine), raw(server) as client:
        await client.send(0x81, start().encode())
        await until_open(engine)
        line = engine.lines[0]
        while "1013 Backpressure: send buffer exceeded" not in caplog.text:
            line.socket.send("x" * 9_000)
            assert line.socket.buffered <= send_limit + 9_100
            await anyio.sleep(0)
        await line.over.wait()
        assert line.closed_told == 1
        line.socket.send("still harmless")
        assert line.socket.buffered == 0


@pytest.mark.usefixtures("short_grace")
@pytest.mark.parametrize(("first", "payload"), [(0x83, b""), (0x88, b"\x03\xe8")])
async def test_a_stuck_client_that_breaks_the_protocol_or_says_goodbye_is_cut_off(
    first: int, payload: bytes
) -> None:
    async with serving() as (server, engine), raw(server) as client:
        await client.send(0x81, start().encode())
        await until_open(engine)
        line = engine.lines[0]
        while line.socket.buffered < 100_000:
            line.socket.send("x" * 9_000)
            await anyio.sleep(0)
        await client.send(first, payload)
        await line.over.wait()
        assert line.closed_told == 1


@pytest.mark.usefixtures("short_grace")
async def test_a_client_that_pings_and_does_not_read_is_closed() -> None:
    async with serving(send_limit=10_000) as (server, engine), raw(server) as client:
        await client.send(0x81, start().encode())
        await until_open(engine)
        line = engine.lines[0]
        while line.socket.buffered < 9_000:
            line.socket.send("x" * 400)
            await anyio.sleep(0)
        with anyio.move_on_after(10):
            while not line.over.is_set():
                with contextlib.suppress(anyio.BrokenResourceError):
                    await client.send(0x89, b"y" * 100)
                await anyio.sleep(0)
        assert line.closed_told == 1


@pytest.mark.usefixtures("short_grace")
async def test_a_stuck_client_that_hangs_up_one_way_is_cut_off() -> None:
    async with serving() as (server, engine):
        async with await anyio.connect_tcp("127.0.0.1", server.port) as stream:
            client = Raw(stream)
            await client.handshake(server)
            await client.send(0x81, start().encode())
            await until_open(engine)
            line = engine.lines[0]
            while line.socket.buffered < 100_000:
                line.socket.send("x" * 9_000)
                await anyio.sleep(0)
            await stream.send_eof()
            await line.over.wait()
            assert line.closed_told == 1


async def test_a_connection_that_breaks_is_told_once() -> None:
    async with serving() as (server, engine):
        async with raw(server) as client:
            await client.send(0x81, start().encode())
            await until_open(engine)
        await engine.lines[0].over.wait()
        await until_gone(server)
        assert engine.lines[0].closed_told == 1


async def test_a_line_that_fails_at_its_end_is_logged_and_costs_nobody_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def closed(line: Line) -> None:
        line.over.set()
        raise RuntimeError("the line is broken")

    monkeypatch.setattr(Line, "closed", closed)
    async with serving() as (server, engine), dial(server) as other:
        await other.send(start())
        await until_open(engine)
        async with dial(server) as client:
            await client.send(start())
            await until_open(engine, 2)
        await engine.lines[1].over.wait()
        await other.send(frame(b"x"))
        assert json.loads(await other.recv())["event"] == "media"
        assert server.open_sockets == 1
    assert caplog.text.count("closing a media attachment failed") >= 1


async def test_stopping_closes_every_socket_and_tells_every_line() -> None:
    async with serving() as (server, engine):
        pending = await dial(server)
        clients = [await dial(server) for _ in range(3)]
        for client in clients:
            await client.send(start())
        await until_open(engine, 3)
    for client in [pending, *clients]:
        assert await close_of(client) == (1001, "Going away")
    assert [line.closed_told for line in engine.lines] == [1, 1, 1]
    assert server.open_sockets == server.pending_sockets == 0


async def test_a_cancelled_owner_still_tells_every_line() -> None:
    engine = Engine()
    server = make_server(engine)
    async with contextlib.AsyncExitStack() as peers:
        with anyio.CancelScope() as scope, anyio.fail_after(30):
            async with server.run():
                client = await peers.enter_async_context(raw(server))
                await client.send(0x81, start().encode())
                await until_open(engine)
                scope.cancel()
                await anyio.sleep_forever()
        # The peer did not answer the close, so it was cut off.
        assert [line.closed_told for line in engine.lines] == [1]
        assert server.open_sockets == 0


async def test_stopping_takes_no_longer_than_its_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voicecall_calls.server.media.CLOSE_GRACE_S", 60)
    engine = Engine()
    server = make_server(engine)
    with anyio.fail_after(30):
        async with server.run():
            client = await dial(server)
            await client.send(start())
            await until_open(engine)
    assert await close_of(client) == (1001, "Going away")


async def test_stopping_does_not_wait_for_an_admission() -> None:
    async with serving() as (server, engine):
        engine.gate = anyio.Event()
        client = await dial(server)
        await client.send(start())
        await engine.asked.wait()
    assert await close_of(client) == (1001, "Going away")
    assert engine.lines == []
