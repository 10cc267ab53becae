"""Which media sockets are refused or closed, with which status or code: the same for every
carrier."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from voicecall.media import Audio, Started, Upgrade
from voicecall.seam import SystemSeam
from voicecall_calls.conversation.line import AudioLine
from voicecall_calls.doors import Attachment, MediaSocket
from voicecall_calls.server import CallServer, WebhookSecurity

from .boundary import CARRIERS, Carrier, Desk, listening

pytestmark = [
    pytest.mark.integration,
    pytest.mark.anyio,
    pytest.mark.usefixtures("backstage"),
]

SHORT = 200
"""A start timeout (ms) that is over soon."""
FRAME = b"\x7f" * 160
FRAMES = 110
"""At 20 ms each."""


@pytest.fixture(params=sorted(CARRIERS))
def carrier(request: pytest.FixtureRequest) -> Carrier:
    return CARRIERS[request.param]


TWILIO = CARRIERS["twilio"]


def dial(server: CallServer, path: str = "/voice/stream", **headers: str) -> connect:
    url = f"ws://127.0.0.1:{server.port}{path}"
    return connect(
        url,
        proxy=None,
        compression=None,
        additional_headers={name.replace("_", "-"): value for name, value in headers.items()},
    )


async def refusal(dialled: connect) -> tuple[int, str]:
    """Status and text of a handshake that is refused."""
    with pytest.raises(InvalidStatus) as caught:
        async with dialled:
            pytest.fail("let in")
    response = caught.value.response
    return response.status_code, bytes(response.body or b"").decode()


async def closed(client: ClientConnection) -> tuple[int | None, str | None]:
    """Code and reason with which the server closes."""
    with suppress(ConnectionClosed):
        while True:
            await client.recv()
    return client.close_code, client.close_reason


async def until_open(desk: Desk) -> None:
    while not desk.lines:
        await anyio.sleep(0.002)


# --- the handshake ---------------------------------------------------------------------------


async def test_other_paths_are_404(carrier: Carrier) -> None:
    async with listening(carrier.provider()) as (server, _, _client):
        for path in ("/", "/voice/streams", "/voice/stream/more", "/voice/webhook"):
            assert await refusal(dial(server, path)) == (404, "Not Found")


async def test_a_socket_that_finds_no_path_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="voicecall.calls.server")
    async with listening(TWILIO.provider()) as (server, _, client):
        assert (await refusal(dial(server, "/other/stream?token=s3cr3t")))[0] == 404
        # As a proxy asks that passes on no upgrade.
        url = f"http://127.0.0.1:{server.port}/voice/stream"
        assert (await client.get(f"{url}?token=s3cr3t")).status_code == 404
    elsewhere, plain = caplog.messages
    assert elsewhere == (
        "media socket of 127.0.0.1 refused: its path is /other/stream; media sockets are served at"
        " /voice/stream"
    )
    assert plain.startswith("no upgrade in a request at /voice/stream, the path of media sockets")


async def test_over_the_cap_sockets_are_503_and_who_is_in_stays_in(
    carrier: Carrier, caplog: pytest.LogCaptureFixture
) -> None:
    async with listening(carrier.provider(), max_connections=1) as (server, desk, _):
        async with dial(server) as client:
            await client.send(carrier.start("good", "CA1", "MZ1"))
            await until_open(desk)
            assert await refusal(dial(server)) == (503, "Too many media stream connections")
            told = "media socket of 127.0.0.1 refused: too many connections"
            assert caplog.messages == [told]
            await client.send(carrier.audio(b"\x7f" * 160))
            while not desk.lines[0].events:
                await anyio.sleep(0.002)
            assert desk.lines[0].events == [Audio(b"\x7f" * 160, 20)]


@pytest.mark.parametrize(
    ("public_url", "signed_url", "status"),
    [
        (None, "ws://127.0.0.1:{port}/voice/stream", 101),
        (None, "ws://127.0.0.1:{port}/voice/stream/", 101),
        (None, "ws://127.0.0.1:{port}/voice/streams", 401),
        (None, "wss://127.0.0.1:{port}/voice/stream", 401),
        ("https://p.example/a/voice/webhook", "wss://p.example/a/voice/stream", 101),
        ("https://p.example:8443/voice/webhook", "wss://p.example:8443/voice/stream", 101),
        ("https://[2001:db8::1]/voice/webhook", "wss://[2001:db8::1]/voice/stream", 101),
        ("https://p.example/voice/webhook", "wss://evil.example/voice/stream", 401),
        ("https://p.example/voice/webhook", "ws://127.0.0.1:{port}/voice/stream", 401),
    ],
)
async def test_a_signed_handshake_is_checked_over_the_url_that_was_given_out(
    public_url: str | None, signed_url: str, status: int
) -> None:
    async with listening(TWILIO.provider(), public_url=public_url) as (server, desk, _):
        signature = TWILIO.signed(signed_url.format(port=server.port), b"")["x-twilio-signature"]
        dialled = dial(server, x_twilio_signature=signature)
        if status == 401:
            assert await refusal(dialled) == (401, "Unauthorized")
            assert server.open_sockets == 0
            return
        async with dialled as client:
            await client.send(TWILIO.start("good", "CA1", "MZ1"))
            await until_open(desk)


async def test_the_reason_of_a_refusal_fits_into_a_line_of_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with listening(TWILIO.provider()) as (server, _, _client):
        headers = {
            "x_twilio_signature": "c2ln",
            "x_twilio_webhooks_signature_settings": "algorithm=" + "Z" * 10_000,
        }
        assert (await refusal(dial(server, **headers)))[0] == 401
    [line] = [each.getMessage() for each in caplog.records if "refused" in each.getMessage()]
    assert "unknown signature algorithm 'ZZZ" in line
    assert len(line) < 400


async def test_a_signed_handshake_needs_no_place_among_those_that_wait() -> None:
    async with listening(TWILIO.provider(), max_pending=1, max_connections=12) as (server, desk, _):
        signature = TWILIO.signed(server.stream_url, b"")["x-twilio-signature"]
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(dial(server))
            for _ in range(10):
                client = await stack.enter_async_context(dial(server, x_twilio_signature=signature))
                await client.send(TWILIO.start("good", "CA1", "MZ1"))
            while len(desk.lines) < 10:
                await anyio.sleep(0.002)
            assert (server.open_sockets, server.pending_sockets) == (11, 1)
            async with dial(server) as unsigned:
                assert (await closed(unsigned))[0] == 1013
            signed = await stack.enter_async_context(dial(server, x_twilio_signature=signature))
            assert (await refusal(dial(server, x_twilio_signature=signature)))[0] == 503
            await signed.close()


async def test_a_handshake_without_a_signature_is_let_in_by_its_token_alone() -> None:
    async with listening(TWILIO.provider()) as (server, desk, _):
        async with dial(server) as client:
            await client.send(TWILIO.start("good", "CA1", "MZ1"))
            await until_open(desk)
        async with dial(server) as client:
            await client.send(TWILIO.start("", "CA1", "MZ1"))
            assert await closed(client) == (1008, "Unknown call")
        assert await refusal(dial(server, x_twilio_signature="")) == (401, "Unauthorized")


async def test_where_signatures_are_skipped_the_token_is_asked_for_still() -> None:
    security = WebhookSecurity(skip_signatures=True)
    async with listening(TWILIO.provider(), security=security) as (server, desk, _):
        async with dial(server, x_twilio_signature="of-another-token") as client:
            await client.send(TWILIO.start("good", "CA1", "MZ1"))
            await until_open(desk)
        async with dial(server, x_twilio_signature="of-another-token") as client:
            await client.send(TWILIO.start("", "CA1", "MZ1"))
            assert await closed(client) == (1008, "Unknown call")


# --- the socket ------------------------------------------------------------------------------


@pytest.mark.parametrize("cap", ["max_pending", "max_pending_per_client"])
async def test_sockets_that_wait_for_their_start_are_capped(carrier: Carrier, cap: str) -> None:
    caps: dict[str, Any] = {cap: 2}
    async with listening(carrier.provider(), **caps) as (server, desk, _):
        async with dial(server) as first, dial(server):
            async with dial(server) as third:
                assert await closed(third) == (1013, "Too many pending media stream connections")
            await first.send(carrier.start("good", "CA1", "MZ1"))
            await until_open(desk)
            async with dial(server) as fourth:
                await (await fourth.ping())
                assert server.pending_sockets == 2


def cases(carrier: Carrier) -> Sequence[tuple[Sequence[str | bytes], int, str]]:
    start, audio = carrier.start, carrier.audio(b"\xff" * 160)
    return [
        ([], 1008, "Start timeout"),
        (["no json"], 1008, "Start timeout"),
        ([start("good", "", "MZ1")], 1008, "Start timeout"),
        ([start("good", "CA1", "")], 1008, "Start timeout"),
        ([audio], 1008, "Start expected"),
        ([start("bad", "CA1", "MZ1")], 1008, "Unknown call"),
        ([start("", "CA1", "MZ1")], 1008, "Unknown call"),
        ([start("good", "CA1", "MZ1"), start("good", "CA1", "MZ1")], 1008, "Duplicate start"),
        (["{"] * 50, 1008, "Too many malformed messages"),
        (["{}"] * 50, 1008, "Too many malformed messages"),
        ([b"\xff\x00"] * 50, 1008, "Too many malformed messages"),
        (["x" * 65_537], 1009, ""),
        ([start("good" + "x" * 65_537, "CA1", "MZ1")], 1009, ""),
    ]


@pytest.mark.parametrize("number", range(len(cases(TWILIO))))
async def test_each_way_to_be_closed_has_its_code(carrier: Carrier, number: int) -> None:
    messages, code, reason = cases(carrier)[number]
    wait = SHORT if reason == "Start timeout" else 5000
    async with listening(carrier.provider(), pre_start_timeout_ms=wait) as (server, desk, _):
        async with dial(server) as client:
            for message in messages:
                await client.send(message)
            closing = await closed(client)
            assert closing[0] == code
            assert reason in ("", closing[1])
        while server.open_sockets:
            await anyio.sleep(0.002)
        assert server.pending_sockets == 0
        # The engine was asked only about a whole start, and was told of each end.
        assert desk.asked == (1 if reason in ("Unknown call", "Duplicate start") else 0)
        for line in desk.lines:
            await line.over.wait()


async def test_a_message_over_the_limit_is_not_heard(carrier: Carrier) -> None:
    async with listening(carrier.provider()) as (server, desk, _):
        async with dial(server) as client:
            await client.send(carrier.start("good", "CA1", "MZ1"))
            await until_open(desk)
            await client.send(carrier.audio(b"\x7f" * 65_536))
            assert (await closed(client))[0] == 1009
        await desk.lines[0].over.wait()
        assert desk.lines[0].events == []


async def test_garbage_on_an_open_socket_is_passed_over(carrier: Carrier) -> None:
    async with listening(carrier.provider()) as (server, desk, _), dial(server) as client:
        await client.send(carrier.start("good", "CA1", "MZ1"))
        for garbage in ("", "{", "[]", "null", '{"event":7}', '{"event":"media"}', b"\x00\xff"):
            await client.send(garbage)
        await client.send(carrier.audio(b"\x01" * 160))
        await until_open(desk)
        while Audio(b"\x01" * 160, 20) not in desk.lines[0].events:
            await anyio.sleep(0.002)
        assert not desk.lines[0].over.is_set()


async def test_a_peer_that_never_reads_is_closed(carrier: Carrier) -> None:
    async with listening(carrier.provider(), send_limit=50_000) as (server, desk, _):
        async with dial(server) as client:
            await client.send(carrier.start("good", "CA1", "MZ1"))
            await until_open(desk)
            client.transport.pause_reading()
            [line] = desk.lines
            while line.socket.buffered <= 50_000:
                line.socket.send(line.socket.codec.audio(b"\xff" * 8000))
                await anyio.sleep(0)
            client.transport.resume_reading()
            assert await closed(client) == (1013, "Backpressure: send buffer exceeded")
        await line.over.wait()
        assert server.open_sockets == 0


# --- a call's line ---------------------------------------------------------------------------


def _line() -> AudioLine:
    seam = SystemSeam()
    return AudioLine(
        seam, call_id="c", marks=True, lost=lambda stream: None, digits=lambda *keys: None
    )


@dataclass
class EchoDesk(Desk):
    """Its one call returns the caller's audio."""

    line: AudioLine = field(default_factory=_line)

    async def admit(self, started: Started, upgrade: Upgrade, socket: MediaSocket) -> Attachment:
        attachment = self.line.attach(socket, started)
        self.line.listen(lambda audio: self.line.write("a", audio))
        return attachment


async def test_audio_comes_back_whole_and_with_few_marks(carrier: Carrier) -> None:
    desk = EchoDesk()
    async with listening(carrier.provider(), desk) as (server, _, _client):
        async with dial(server) as client:
            await client.send(carrier.start("good", "CA1", "MZ1"))
            came: list[str] = []
            for _ in range(FRAMES):
                await client.send(carrier.audio(FRAME))
                came.append(str(await client.recv()))
                await anyio.sleep(0.02)
            while sum("mark" not in message for message in came) < FRAMES:
                came.append(str(await client.recv()))
    marks = [message for message in came if json.loads(message)["event"] == "mark"]
    # One after 240 ms, then one a second.
    assert 2 <= len(marks) <= 4
    assert desk.line.pacer.size("a") == FRAMES * len(FRAME)


@pytest.mark.parametrize("error", [ConnectionResetError("the session is gone"), SystemExit(3)])
async def test_a_listener_that_fails_costs_no_socket_where_somebody_minds_it(
    carrier: Carrier, error: Exception | SystemExit
) -> None:
    desk = EchoDesk()
    failures: list[BaseException] = []

    def failed(error: BaseException) -> None:
        failures.append(error)
        desk.line.listen(lambda audio: desk.line.write("b", audio))

    def fails(audio: bytes) -> None:
        raise error

    async with listening(carrier.provider(), desk) as (server, _, _client):
        async with dial(server) as client:
            await client.send(carrier.start("good", "CA1", "MZ1"))
            await client.send(carrier.audio(FRAME))
            await client.recv()
            desk.line.failed = failed
            desk.line.listen(fails)
            await client.send(carrier.audio(FRAME))
            await client.send(carrier.audio(FRAME))
            await client.recv()
    assert failures == [error]
    assert desk.line.pacer.size("b") == len(FRAME)
