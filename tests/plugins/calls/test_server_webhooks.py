"""Webhooks over real sockets, with the mock carrier's signatures."""

from __future__ import annotations

import hashlib
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import anyio
import anyio.abc
import httpx
import pytest

from voicecall.errors import ConfigError, StoreError, VoicecallError
from voicecall.events import Ringing
from voicecall.telephony import WebhookReply
from voicecall_calls.server import CallServer, WebhookSecurity

from .boundary import CARRIERS, TOKEN, Desk, answer_of, listening, make_server

pytestmark = [
    pytest.mark.integration,
    pytest.mark.anyio,
    pytest.mark.usefixtures("backstage"),
]

NUMBER = "+15550001111"
MOCK = CARRIERS["mock"]
REPLY = WebhookReply(body=b'{"actions": []}', content_type="application/json")


def desk() -> Desk:
    return Desk(reply=REPLY)


@asynccontextmanager
async def serving(
    security: WebhookSecurity | None = None,
) -> AsyncIterator[tuple[CallServer, Desk, httpx.AsyncClient]]:
    async with listening(MOCK.provider(), desk(), security=security) as served:
        yield served


def request_of(server: CallServer, body: bytes | None = None) -> httpx.Request:
    body = MOCK.ringing() if body is None else body
    url = server.local_url
    return httpx.Request("POST", url, content=body, headers=MOCK.signed(server.webhook_url, body))


async def test_strangers_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with serving() as (server, engine, client):
        for _ in range(70):
            assert (await client.post(server.local_url, content=b"{}")).status_code == 401
        refused = [r for r in caplog.records if "refused: 401" in r.getMessage()]
        assert len(refused) == 60
        assert (await client.get(server.local_url)).status_code == 405
        assert (await client.send(request_of(server))).status_code == 200
    assert len(engine.handled) == 1


async def test_a_signed_webhook_reaches_the_engine() -> None:
    async with serving() as (server, engine, client):
        body = MOCK.ringing()
        url = f"{server.local_url}?callId=c-1&x=1&x=2&empty="
        response = await client.post(url, content=body, headers=MOCK.signed(url, body))
        assert (response.status_code, response.json()) == (200, {"actions": []})
        assert response.headers["content-type"] == "application/json"
        [(request, events)] = engine.handled
        assert isinstance(events[0], Ringing)
        assert request.url == url
        assert request.query == {"callId": "c-1", "x": "2", "empty": ""}
        assert (request.method, request.body, request.client) == ("POST", body, "127.0.0.1")


async def test_the_public_url_is_what_is_signed() -> None:
    async with serving() as (server, engine, client):
        server.set_public_url("https://phone.example/api/voice/webhook")
        assert server.stream_url == "wss://phone.example/api/voice/stream"
        body = MOCK.ringing()
        headers = MOCK.signed(server.webhook_url + "?a=1", body)
        response = await client.post(server.local_url + "?a=1", content=body, headers=headers)
        assert response.status_code == 200
        response = await client.post(
            server.local_url, content=body, headers=MOCK.signed(server.local_url, body)
        )
        assert response.status_code == 401
        assert len(engine.handled) == 1


async def test_an_explicit_empty_body_and_headers_pass_as_they_are() -> None:
    async with serving() as (server, engine, client):
        engine.reply = WebhookReply(status=204, headers={"x-more": "yes"})
        response = await client.send(request_of(server))
        assert (response.status_code, response.content) == (204, b"")
        assert response.headers["x-more"] == "yes"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/voice/webhook/more", 404),
        ("POST", "/voice/webhooks", 404),
        ("POST", "/voice", 404),
        ("POST", "/voice/stream", 404),
        ("POST", "/healthz", 404),
        ("GET", "/healthz", 200),
        ("HEAD", "/healthz", 200),
        ("GET", "/voice/webhook", 405),
        ("GET", "/voice/webhook?voicecallChallenge=x", 405),
        ("PUT", "/voice/webhook/", 405),
        ("POST", "/voice/webhook/", 401),
    ],
)
async def test_paths_and_methods(method: str, path: str, status: int) -> None:
    async with serving() as (server, engine, client):
        url = f"http://127.0.0.1:{server.port}{path}"
        response = await client.request(method, url)
        assert response.status_code == status
        if status == 405:
            assert response.headers["allow"] == "POST"
        assert engine.handled == []


async def read_reply(stream: anyio.abc.ByteReceiveStream) -> bytes:
    reply = b""
    while b"\r\n\r\n" not in reply:
        reply += await stream.receive()
    return reply


async def test_missing_signature_headers_are_refused_before_the_body_is_read() -> None:
    async with serving() as (server, engine, _):
        async with await anyio.connect_tcp("127.0.0.1", server.port) as stream:
            await stream.send(
                b"POST /voice/webhook HTTP/1.1\r\nhost: x\r\nmock-timestamp: 1\r\n"
                b"content-length: 1000\r\n\r\n"
            )
            assert (await read_reply(stream)).startswith(b"HTTP/1.1 401 ")
        assert engine.handled == []


async def test_a_wrong_signature_is_refused_and_nothing_private_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    async with serving() as (server, engine, client):
        body = MOCK.ringing()
        url = f"{server.local_url}?secret=s3cr3t"
        headers = {**MOCK.signed(url, body), "mock-signature": "0" * 64}
        response = await client.post(url, content=body, headers=headers)
        assert (response.status_code, response.text) == (401, "Unauthorized")
        assert engine.handled == []
    ours = [r.getMessage() for r in caplog.records if r.name.startswith("voicecall")]
    assert any("127.0.0.1" in line and "wrong signature" in line for line in ours)
    assert not any("s3cr3t" in line or NUMBER in line or TOKEN in line for line in ours)


async def test_injected_forwarded_headers_do_not_make_a_signature_valid() -> None:
    security = WebhookSecurity(allowed_hosts=("phone.example",))
    async with serving(security) as (server, engine, client):
        body = MOCK.ringing()
        headers = MOCK.signed("https://evil.example/voice/webhook", body)
        headers["x-forwarded-host"] = "evil.example"
        response = await client.post(server.local_url, content=body, headers=headers)
        assert response.status_code == 401
        headers = MOCK.signed("https://phone.example/voice/webhook", body)
        headers["x-forwarded-host"] = "phone.example"
        response = await client.post(server.local_url, content=body, headers=headers)
        assert response.status_code == 200
        assert len(engine.handled) == 1


async def test_who_is_no_trusted_proxy_cannot_say_for_whom_it_asks() -> None:
    async with serving() as (server, engine, client):
        request = request_of(server)
        request.headers["x-forwarded-for"] = "198.51.100.1"
        assert (await client.send(request)).status_code == 200
        [(webhook, _)] = engine.handled
        assert webhook.client == "127.0.0.1"


async def test_a_body_that_cannot_be_read_is_400() -> None:
    async with serving() as (server, engine, client):
        response = await client.send(request_of(server, b"[1, 2"))
        assert (response.status_code, engine.handled) == (400, [])


@pytest.mark.parametrize("size", [64 * 1024 + 1, 900_000])
async def test_a_body_over_the_limit_is_answered(size: int) -> None:
    async with serving() as (server, engine, client):
        response = await client.send(request_of(server, b"x" * size))
        assert (response.status_code, engine.handled) == (413, [])
        assert (await client.send(request_of(server))).status_code == 200


async def test_a_body_over_the_limit_is_read_before_the_connection_closes() -> None:
    async with serving() as (server, _, _client):
        async with await anyio.connect_tcp("127.0.0.1", server.port) as stream:
            await stream.send(
                b"POST /voice/webhook HTTP/1.1\r\nhost: x\r\nmock-timestamp: 1\r\n"
                b"mock-signature: 0\r\ncontent-length: 200000\r\n\r\n" + b"x" * 100_000
            )
            early = b""
            with anyio.move_on_after(0.05):
                early = await stream.receive()
            assert early == b""
            await stream.send(b"x" * 100_000)
            reply = b"".join([part async for part in stream])
            assert reply.startswith(b"HTTP/1.1 413 ")
            assert b"connection: close" in reply


async def test_a_body_at_the_limit_is_taken() -> None:
    async with serving() as (server, _, client):
        body = MOCK.ringing()
        response = await client.send(request_of(server, body + b" " * (64 * 1024 - len(body))))
        assert response.status_code == 200


async def test_an_announced_body_over_the_limit_is_never_asked_for() -> None:
    async with serving() as (server, _, _client):
        async with await anyio.connect_tcp("127.0.0.1", server.port) as stream:
            await stream.send(
                b"POST /voice/webhook HTTP/1.1\r\nhost: x\r\nmock-timestamp: 1\r\n"
                b"mock-signature: 0\r\nexpect: 100-continue\r\ncontent-length: 70000\r\n\r\n"
            )
            assert (await read_reply(stream)).startswith(b"HTTP/1.1 413 ")


async def test_an_announced_body_at_the_limit_is_asked_for() -> None:
    async with serving() as (server, _, _client):
        async with await anyio.connect_tcp("127.0.0.1", server.port) as stream:
            await stream.send(
                b"POST /voice/webhook HTTP/1.1\r\nhost: x\r\nmock-timestamp: 1\r\n"
                b"mock-signature: 0\r\nexpect: 100-continue\r\ncontent-length: 65536\r\n\r\n"
            )
            assert (await read_reply(stream)).startswith(b"HTTP/1.1 100 ")


SLOWLY = (
    b"POST /voice/webhook HTTP/1.1\r\nhost: x\r\nmock-timestamp: 1\r\n"
    b"mock-signature: 0\r\ncontent-length: 1000\r\n\r\n{"
)


async def test_a_slow_body_is_408_and_frees_its_place() -> None:
    security = WebhookSecurity(body_timeout_s=0.05, max_in_flight=1)
    async with serving(security) as (server, engine, client):
        async with await anyio.connect_tcp("127.0.0.1", server.port) as stream:
            await stream.send(SLOWLY)
            assert (await read_reply(stream)).startswith(b"HTTP/1.1 408 ")
        assert (await client.send(request_of(server))).status_code == 200
        assert len(engine.handled) == 1


HEADS = WebhookSecurity(head_timeout_s=0.4, head_limit=2000)


async def test_a_connection_that_sends_nothing_is_closed() -> None:
    async with serving(HEADS) as (server, _, _client):
        async with await anyio.connect_tcp("127.0.0.1", server.port) as stream:
            with pytest.raises(anyio.EndOfStream):
                await stream.receive()


@pytest.mark.parametrize("rest", [b"x", b"x" * 1000])
async def test_a_connection_that_goes_quiet_behind_its_answer_is_closed(rest: bytes) -> None:
    async with serving(HEADS) as (server, _, _client):
        async with await anyio.connect_tcp("127.0.0.1", server.port) as stream:
            # Unsigned, it is answered before its body comes.
            await stream.send(
                b"POST /voice/webhook HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n"
            )
            assert (await read_reply(stream)).startswith(b"HTTP/1.1 401 ")
            await stream.send(rest)
            with anyio.fail_after(3), pytest.raises(anyio.EndOfStream):
                await stream.receive()


@pytest.mark.parametrize("path", [b"/voice/webhook", b"/elsewhere"])
@pytest.mark.parametrize(
    ("start", "more"),
    [(b"0\r\n", b"a:\r\n"), (b"0\r\na: ", b"aaaa"), (b"", b"1;aaaaaa\r\nx\r\n")],
)
async def test_what_comes_behind_a_head_is_bounded(path: bytes, start: bytes, more: bytes) -> None:
    """Trailers, a long one, and chunks that are mostly head."""
    async with serving() as (server, engine, _):
        async with await anyio.connect_tcp("127.0.0.1", server.port) as stream:
            sent, piece = 0, more * 10_000
            await stream.send(
                b"POST %b HTTP/1.1\r\nhost: x\r\nmock-timestamp: 1\r\nmock-signature: x\r\n"
                b"transfer-encoding: chunked\r\n\r\n%b" % (path, start)
            )
            with suppress(anyio.BrokenResourceError):
                while sent < 16_000_000:
                    await stream.send(piece)
                    sent += len(piece)
            assert sent < 16_000_000
        assert engine.handled == []


async def test_a_trailer_is_no_header() -> None:
    async with serving() as (server, engine, _):
        body = MOCK.ringing()
        head = b"POST /voice/webhook HTTP/1.1\r\nhost: 127.0.0.1:%d\r\n" % server.port
        for name, value in MOCK.signed(server.webhook_url, body).items():
            head += f"{name}: {value}\r\n".encode()
        async with await anyio.connect_tcp("127.0.0.1", server.port) as stream:
            await stream.send(head + b"transfer-encoding: chunked\r\n\r\n")
            await stream.send(b"%x\r\n%b\r\n0\r\nx-more: 1\r\n\r\n" % (len(body), body))
            assert (await read_reply(stream)).startswith(b"HTTP/1.1 200 ")
        [(request, _)] = engine.handled
        assert (request.body, "x-more" in request.headers) == (body, False)


@pytest.mark.parametrize("piece", [b"x-filler: 1\r\n", b"\r\n"])
async def test_a_head_that_comes_in_drops_is_408(piece: bytes) -> None:
    start = b"" if piece == b"\r\n" else b"POST /voice/webhook HTTP/1.1\r\n"
    async with serving(HEADS) as (server, engine, client):
        async with await anyio.connect_tcp("127.0.0.1", server.port) as stream:
            await stream.send(start)

            async def drip() -> None:
                with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                    while True:
                        await stream.send(piece)
                        await anyio.sleep(0.03)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(drip)
                assert (await read_reply(stream)).startswith(b"HTTP/1.1 408 ")
                tasks.cancel_scope.cancel()
        assert (await client.send(request_of(server))).status_code == 200
        assert len(engine.handled) == 1


async def test_the_next_head_of_a_kept_connection_is_bounded_too() -> None:
    async with serving(HEADS) as (server, engine, _):
        body = MOCK.ringing()
        headers = MOCK.signed(server.webhook_url, body)
        head = [f"{name}: {value}" for name, value in headers.items()]
        head = [f"POST /voice/webhook HTTP/1.1\r\nhost: 127.0.0.1:{server.port}", *head]
        whole = "\r\n".join([*head, f"content-length: {len(body)}", "", ""]).encode()
        async with await anyio.connect_tcp("127.0.0.1", server.port) as stream:
            # The body is not the head's concern, nor is the time that the engine takes.
            await stream.send(whole)
            await anyio.sleep(0.3)
            engine.gate = anyio.Event()
            await stream.send(body)
            await engine.until_waiting(1)
            await anyio.sleep(0.3)
            engine.gate.set()
            assert (await stream.receive()).startswith(b"HTTP/1.1 200 ")
            await stream.send(b"POST /voice")
            assert (await read_reply(stream)).startswith(b"HTTP/1.1 408 ")
        assert len(engine.handled) == 1


async def test_a_client_that_does_not_read_its_answer_is_cut_off() -> None:
    async with serving(WebhookSecurity(head_timeout_s=0.4)) as (server, engine, _):
        engine.reply = WebhookReply(body=b"x" * 16_000_000)
        body = MOCK.ringing()
        head = b"POST /voice/webhook HTTP/1.1\r\nhost: 127.0.0.1:%d\r\n" % server.port
        for name, value in MOCK.signed(server.webhook_url, body).items():
            head += f"{name}: {value}\r\n".encode()
        head += b"content-length: %d\r\n\r\n" % len(body)
        for pause_s in (0, 1.2):
            async with await anyio.connect_tcp("127.0.0.1", server.port) as stream:
                await stream.send(head + body)
                read = 0
                with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                    await anyio.sleep(pause_s)
                    while read < 16_000_000:
                        read += len(await stream.receive())
                assert (read < 16_000_000) is (pause_s > 0)


async def test_few_requests_at_once_are_taken_of_one_connection() -> None:
    request = b"GET /elsewhere HTTP/1.1\r\nhost: x\r\n\r\n"
    async with serving() as (server, _, _client):
        async with await anyio.connect_tcp("127.0.0.1", server.port) as stream:
            await stream.send(request * 5)
            few = b""
            while few.count(b"HTTP/1.1 404 ") < 5:
                few += await stream.receive()
            await stream.send(request * 1000)
            many = b""
            with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                while True:
                    many += await stream.receive()
        assert many.count(b"HTTP/1.1 404 ") < 20


@pytest.mark.parametrize("at_once", [False, True])
async def test_the_body_of_an_upgrade_is_no_request(at_once: bool) -> None:
    async with serving() as (server, engine, _):
        request = request_of(server)
        smuggled = b"POST /voice/webhook HTTP/1.1\r\n"
        for name, value in request.headers.raw:
            smuggled += name + b": " + value + b"\r\n"
        smuggled += b"\r\n" + request.content
        head = b"POST /elsewhere HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: h2c\r\n"
        head += b"content-length: %d\r\n\r\n" % len(smuggled)
        async with await anyio.connect_tcp("127.0.0.1", server.port) as stream:
            await stream.send(head)
            if not at_once:
                assert (await read_reply(stream)).startswith(b"HTTP/1.1 404 ")
            with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                await stream.send(smuggled)
                while True:
                    await stream.receive()
        assert engine.handled == []


async def test_a_request_behind_another_one_has_the_engine_s_time() -> None:
    async with serving(HEADS) as (server, engine, _):
        body = MOCK.ringing()
        head = b"POST /voice/webhook HTTP/1.1\r\nhost: 127.0.0.1:%d\r\n" % server.port
        for name, value in MOCK.signed(server.webhook_url, body).items():
            head += f"{name}: {value}\r\n".encode()
        head += b"content-length: %d\r\n\r\n" % len(body)
        engine.gate = anyio.Event()
        async with await anyio.connect_tcp("127.0.0.1", server.port) as stream:
            await stream.send(b"GET /elsewhere HTTP/1.1\r\nhost: x\r\n\r\n" + head)
            assert (await read_reply(stream)).startswith(b"HTTP/1.1 404 ")
            await stream.send(body)
            await engine.until_waiting(1)
            await anyio.sleep(0.3)
            engine.gate.set()
            assert (await stream.receive()).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "headers", [b"x-long: " + b"a" * 2000, b"".join(b"x-%d: 1\r\n" % n for n in range(250))]
)
async def test_a_head_that_is_too_long_is_431(headers: bytes) -> None:
    async with serving(WebhookSecurity(head_limit=2000)) as (server, engine, client):
        async with await anyio.connect_tcp("127.0.0.1", server.port) as stream:
            await stream.send(b"POST /voice/webhook HTTP/1.1\r\nhost: x\r\n" + headers)
            assert (await read_reply(stream)).startswith(b"HTTP/1.1 431 ")
        assert (await client.send(request_of(server))).status_code == 200
        assert len(engine.handled) == 1


async def test_a_target_that_is_too_long_is_never_unescaped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Unescaping 60 KiB without escapes takes a tenth of a second, in which no call is heard."""
    async with serving() as (server, _, _client):
        for more, status in ((8191, 404), (8192, 400), (60_000, 400)):
            for target in (b"/" + b"%" * more, b"/?" + b"%" * (more - 1)):
                request = b"GET %b HTTP/1.1\r\nhost: x\r\n\r\n" % target
                assert (await answer_of(server.port, request))[0] == status
    text = "request from 127.0.0.1 refused: a path and query of more than 8192 bytes"
    assert caplog.messages.count(text) == 4


async def test_a_query_has_few_parameters() -> None:
    """Each costs something, and they are read before the signature is checked."""
    async with serving() as (server, engine, client):
        for count, status in ((100, 200), (101, 400), (2000, 400)):
            url, body = f"{server.local_url}?{'x=1&' * (count - 1)}x=1", MOCK.ringing()
            answer = await client.post(url, content=body, headers=MOCK.signed(url, body))
            assert answer.status_code == status
        assert len(engine.handled) == 1


async def test_a_request_without_a_whole_head_is_logged_and_silence_is_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving(HEADS) as (server, _, _client):
        for sent in (b"", b"POST /voice?a=s3cr3t", b"GET / HTTP/1.1\r\nx: " + b"a" * 2000):
            async with await anyio.connect_tcp("127.0.0.1", server.port) as stream:
                await stream.send(sent)
                with suppress(anyio.EndOfStream):
                    while True:
                        await stream.receive()
    assert caplog.messages == [
        "request from 127.0.0.1 refused: no complete head in 0.4 s",
        "request from 127.0.0.1 refused: a head of more than 2000 bytes",
    ]


async def test_a_client_that_hangs_up_in_its_body_frees_its_place(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    async with serving(WebhookSecurity(max_in_flight=1)) as (server, engine, client):
        async with await anyio.connect_tcp("127.0.0.1", server.port) as stream:
            await stream.send(SLOWLY)
            await anyio.sleep(0.05)
        while not any("disconnected" in record.getMessage() for record in caplog.records):
            await anyio.sleep(0.005)
        engine.gate = anyio.Event()
        statuses: list[int] = []

        async def post() -> None:
            statuses.append((await client.send(request_of(server))).status_code)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(post)
            await engine.until_waiting(1)
            await post()
            assert statuses == [429]
            engine.gate.set()
        assert statuses == [429, 200]
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.mark.parametrize(
    ("security", "places"),
    [(WebhookSecurity(), 8), (WebhookSecurity(max_in_flight=3), 3)],
)
async def test_one_more_than_the_places_is_429(security: WebhookSecurity, places: int) -> None:
    async with serving(security) as (server, engine, client):
        engine.gate = anyio.Event()
        statuses: list[int] = []

        async def post() -> None:
            statuses.append((await client.send(request_of(server))).status_code)

        async with anyio.create_task_group() as tasks:
            for _ in range(places):
                tasks.start_soon(post)
            await engine.until_waiting(places)
            refused = await client.send(request_of(server))
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
            engine.gate.set()
        assert statuses == [200] * places
        assert (await client.send(request_of(server))).status_code == 200


async def test_places_are_counted_by_the_client_behind_a_trusted_proxy() -> None:
    security = WebhookSecurity(
        trust_forwarding_headers=True,
        trusted_proxy_ips=("127.0.0.0/8",),
        max_in_flight_per_client=1,
    )
    async with serving(security) as (server, engine, client):
        engine.gate = anyio.Event()
        statuses: dict[str, int] = {}

        async def post(source: str) -> None:
            request = request_of(server)
            request.headers["x-forwarded-for"] = source
            statuses[source] = (await client.send(request)).status_code

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(post, "198.51.100.1")
            tasks.start_soon(post, "198.51.100.2")
            await engine.until_waiting(2)
            await post("9.9.9.9, 198.51.100.1")
            engine.gate.set()
        assert statuses == {
            "198.51.100.1": 200,
            "198.51.100.2": 200,
            "9.9.9.9, 198.51.100.1": 429,
        }


async def test_a_replay_gets_the_recorded_reply_and_has_no_effect() -> None:
    async with serving() as (server, engine, client):
        request = request_of(server)
        first = await client.send(request)
        engine.reply = WebhookReply(body=b"another")
        again = await client.send(request)
        assert (again.status_code, again.content) == (first.status_code, first.content)
        assert len(engine.handled) == 1


async def test_concurrent_duplicates_are_handled_once() -> None:
    async with serving() as (server, engine, client):
        engine.gate = anyio.Event()
        request = request_of(server)
        bodies: list[bytes] = []

        async def post() -> None:
            bodies.append((await client.send(request)).content)

        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(post)
            await engine.until_waiting(1)
            await anyio.sleep(0.05)
            assert engine.waiting == 1
            engine.gate.set()
        assert bodies == [REPLY.body] * 4
        assert len(engine.handled) == 1


async def test_a_duplicate_of_a_failed_request_is_handled() -> None:
    async with serving() as (server, engine, client):
        engine.gate = anyio.Event()
        engine.failures = 1
        request = request_of(server)
        statuses: list[int] = []

        async def post() -> None:
            statuses.append((await client.send(request)).status_code)

        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(post)
            await engine.until_waiting(1)
            engine.gate.set()
        assert sorted(statuses) == [200, 200, 200, 500]
        assert len(engine.handled) == 1


async def test_a_failure_is_500_and_the_redelivery_is_handled() -> None:
    async with serving() as (server, engine, client):
        engine.failures = 1
        request = request_of(server)
        assert (await client.send(request)).status_code == 500
        assert engine.handled == []
        assert (await client.send(request)).status_code == 200
        assert len(engine.handled) == 1


async def test_a_webhook_that_cannot_be_stored_is_logged_in_one_sentence(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving() as (server, engine, client):
        engine.failures = 1
        engine.failure = StoreError("the disk is full")
        request = request_of(server)
        assert (await client.send(request)).status_code == 500
        (failed,) = (record for record in caplog.records if record.levelno == logging.ERROR)
        assert failed.getMessage() == "webhook from 127.0.0.1 failed: the disk is full"
        assert failed.exc_info is None
        assert (await client.send(request)).status_code == 200


@pytest.mark.parametrize("method", ["verify", "parse"])
async def test_an_adapter_that_wants_to_exit_fails_one_webhook(
    method: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def leave(*_: object) -> None:
        raise SystemExit(2)

    provider = MOCK.provider()
    monkeypatch.setattr(provider, method, leave)
    async with listening(provider, desk()) as (server, engine, client):
        request = request_of(server)
        assert (await client.send(request)).status_code == 500
        assert "webhook from 127.0.0.1 failed" in caplog.text
        monkeypatch.undo()
        assert (await client.send(request)).status_code == 200
        assert len(engine.handled) == 1


async def test_webhooks_in_flight_finish_while_the_server_stops() -> None:
    engine = desk()
    engine.gate = anyio.Event()
    server = make_server(MOCK.provider(), engine)
    async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
        statuses: list[int] = []

        async def post() -> None:
            statuses.append((await client.send(request_of(server))).status_code)

        async with anyio.create_task_group() as tasks:
            async with server.run():
                tasks.start_soon(post)
                await engine.until_waiting(1)
                engine.gate.set()
        assert statuses == [200]


async def test_a_client_that_does_not_read_its_answer_outlives_no_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("voicecall_calls.server.server.GRACE_S", 0.1)
    engine = desk()
    engine.reply = WebhookReply(body=b"x" * 16_000_000)
    server = make_server(MOCK.provider(), engine)
    read = 0
    with anyio.fail_after(30):
        async with server.run():
            request = request_of(server)
            head = b"POST /voice/webhook HTTP/1.1\r\n"
            for name, value in request.headers.raw:
                head += name + b": " + value + b"\r\n"
            stream = await anyio.connect_tcp("127.0.0.1", server.port)
            await stream.send(head + b"\r\n" + request.content)
            while not engine.handled:
                await anyio.sleep(0.005)
        async with stream:
            with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                while read < 16_000_000:
                    read += len(await stream.receive())
    assert read < 16_000_000


async def test_a_cancelled_owner_still_frees_the_port() -> None:
    engine = desk()
    server = make_server(MOCK.provider(), engine)
    with anyio.CancelScope() as scope:
        async with server.run():
            scope.cancel()
            await anyio.sleep_forever()
    with socket.create_server(("127.0.0.1", server.port)):
        pass


async def test_a_busy_port_is_told_in_one_sentence() -> None:
    async with serving() as (server, _, _client):
        with pytest.raises(VoicecallError) as caught:
            async with make_server(MOCK.provider(), desk(), port=server.port).run():
                pytest.fail("two servers on one port")
        assert f"port {server.port} on 127.0.0.1 is already in use" in str(caught.value)
        assert "serve.port" in str(caught.value)


@pytest.mark.parametrize(
    ("bind", "words"),
    [
        ("203.0.113.9", r"serve\.bind: cannot listen on 203\.0\.113\.9 port 0: "),
        ("no..such.host", r"serve\.bind: cannot listen on 'no\.\.such\.host': "),
    ],
)
async def test_an_address_that_is_not_this_machine_s_is_told_with_its_key(
    bind: str, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        async with make_server(MOCK.provider(), desk(), bind=bind).run():
            pytest.fail("there is no such address here")


async def test_the_server_can_be_started_again() -> None:
    engine = desk()
    server = make_server(MOCK.provider(), engine)
    for _ in range(2):
        async with server.run(), httpx.AsyncClient(trust_env=False) as client:
            assert (await client.send(request_of(server))).status_code == 200
    assert len(engine.handled) == 2


async def test_without_the_check_of_signatures_a_repeated_webhook_still_has_no_effect() -> None:
    async with serving(WebhookSecurity(skip_signatures=True)) as (server, engine, client):
        body = MOCK.ringing()
        for _ in range(2):
            response = await client.post(server.local_url, content=body)
            assert (response.status_code, response.json()) == (200, {"actions": []})
        assert len(engine.handled) == 1
        signature = {"mock-timestamp": "1", "mock-signature": "wrong"}
        await client.post(server.local_url, content=body, headers=signature)
        assert len(engine.handled) == 1
        await client.post(f"{server.local_url}?callId=c-1", content=body)
        await client.post(server.local_url, content=MOCK.ringing())
        assert len(engine.handled) == 3
        url = server.local_url
        wanted = hashlib.sha256(f"POST\n{url}\n".encode() + body).hexdigest()
        assert wanted in engine.replies
