"""Replies to the Twilio adapter that come from proxies and the like instead of the API."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

from voicecall import ProviderContext
from voicecall import events as ev
from voicecall import telephony as tel
from voicecall.errors import AuthenticationFailed, OutcomeUnknown, ProviderUnavailable
from voicecall_twilio.config import TwilioConfig
from voicecall_twilio.provider import TwilioProvider

from .twilio_desk import HERE, PHONE, patient_backend

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

HOOK = "https://gateway.example/hook?callId=c-1"
CALL = tel.CallRef("c-1", "CA1", ("CA1",), HOOK)
DIAL = tel.DialRequest(
    call_id="c-1",
    from_number=HERE,
    to_number=PHONE,
    webhook_url=HOOK,
    ring_timeout_s=20,
    time_limit_s=330,
)


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return patient_backend


@asynccontextmanager
async def replying(*replies: bytes) -> AsyncIterator[str]:
    """The URL of a server whose requests get these replies, and the last one from then on."""
    rest = list(replies)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        # Closing with unread data would reset the connection.
        await reader.readexactly(int(head.partition(b"content-length:")[2].split(b"\r")[0] or 0))
        writer.write(rest.pop(0) if len(rest) > 1 else rest[0])
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@asynccontextmanager
async def adapter(api: str) -> AsyncIterator[TwilioProvider]:
    config = TwilioConfig(account_sid="AC01", auth_token="secret", api_base_url=api)
    provider = TwilioProvider(config, ProviderContext(Path("unused")))
    async with provider.lifespan():
        yield provider


@asynccontextmanager
async def answered_with(*replies: bytes) -> AsyncIterator[TwilioProvider]:
    """An adapter whose requests get these replies, and the last one from then on."""
    async with replying(*replies) as url, adapter(url) as provider:
        yield provider


def reply(status: str, body: bytes = b"", *headers: str, length: int | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}"]
    return "\r\n".join([*lines, *headers, "Connection: close", "", ""]).encode() + body


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (reply("200 OK", b'{"sid":"CA1"', length=400), "the connection broke"),
        (reply("200 OK", b"abcd", "Content-Encoding: gzip"), "the connection broke"),
        (reply("200 OK", b"<html></html>", "Content-Type: text/html"), "cannot be read"),
        (reply("302 Found", b"", "Location: https://login.example/"), "HTTP 302"),
        (reply("408 Request Timeout"), "HTTP 408"),
        (reply("502 Bad Gateway", b"<html></html>", "Content-Type: text/html"), "HTTP 502"),
    ],
    ids=["cut", "gzip", "html", "redirect", "408", "502"],
)
async def test_nobody_knows_what_such_a_reply_means(given: bytes, said: str) -> None:
    async with answered_with(given) as provider:
        with pytest.raises(OutcomeUnknown, match=said):
            await provider.place_call(DIAL)
        with pytest.raises(ProviderUnavailable, match=said):
            await provider.perform(CALL, tel.Hangup())
        assert await provider.status(CALL) == tel.CallStatus(ev.CarrierStatus.UNKNOWN)
        [probe] = await provider.probe(HOOK, [HERE])
        assert (probe.name, probe.ok) == ("credentials", False)
        assert said in probe.message


@pytest.mark.parametrize(
    "given",
    [
        reply("401 Unauthorized", b"<html></html>", "Content-Type: text/html"),
        reply("403 Forbidden", b'{"code":20003,"message":"Authenticate","status":403}'),
    ],
    ids=["401", "20003"],
)
async def test_credentials_are_refused_by_status_or_by_code(given: bytes) -> None:
    async with answered_with(given) as provider:
        with pytest.raises(AuthenticationFailed, match=r"twilio\.authToken are not accepted"):
            await provider.place_call(DIAL)


async def test_a_pause_that_is_asked_for_is_kept() -> None:
    busy = reply("429 Too Many Requests", b"", "Retry-After: 20")
    placed = reply("201 Created", b'{"sid":"CA2","status":"queued"}')
    async with answered_with(busy, busy, placed) as provider:
        began = anyio.current_time()
        assert await provider.place_call(DIAL) == "CA2"
        assert 40 <= anyio.current_time() - began < 60


async def test_a_pause_that_is_too_long_is_told_of() -> None:
    for status in ("429 Too Many Requests", "503 Service Unavailable"):
        async with answered_with(reply(status, b"", "Retry-After: 3600")) as provider:
            began = anyio.current_time()
            with pytest.raises(ProviderUnavailable, match="a pause of 3600 s"):
                await provider.perform(CALL, tel.Hangup())
            assert anyio.current_time() - began < 5


async def test_a_call_that_a_proxy_did_not_let_out_was_not_placed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closed = reply("407 Proxy Authentication Required")
    async with replying(closed) as proxy:
        for name in ("NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy", "https_proxy"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        async with adapter("https://api.twilio.example") as provider:
            with pytest.raises(ProviderUnavailable, match=r"cannot reach .*407"):
                await provider.place_call(DIAL)


async def test_a_call_to_an_address_that_no_request_can_have_was_not_placed() -> None:
    async with adapter("https://198.51.100.256") as provider:
        with pytest.raises(ProviderUnavailable, match=r"cannot reach .*InvalidURL"):
            await provider.place_call(DIAL)


async def test_a_call_that_nobody_takes_is_refused_while_the_engine_waits_for_it() -> None:
    came = 0

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal came
        came += 1
        await reader.read()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with adapter(f"https://127.0.0.1:{port}") as provider:
            began = anyio.current_time()
            with pytest.raises(ProviderUnavailable, match=r"cannot reach .*ConnectTimeout"):
                await provider.place_call(DIAL)
            # After 25 s it would count as one that may have been placed.
            assert anyio.current_time() - began < 20
            assert came == 3


class Ahead:
    """A clock that is ahead of the real one."""

    by_s = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.by_s


async def test_turns_of_a_conversation_share_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal opened
        opened += 1
        with suppress(asyncio.IncompleteReadError):
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{"sid":"CA1"}')
        writer.close()

    clock = Ahead()
    monkeypatch.setattr("httpcore._async.http11.time", clock)
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        async with adapter(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as provider:
            for clock.by_s, connections in ((0, 1), (20, 1), (40, 1), (75, 2)):
                await provider.status(CALL)
                assert opened == connections
