"""The configuration of webhooks and media sockets reaches the server: each key is tested by its
effect."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from tests.backstage import closed_backstage
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from voicecall.seam import SystemSeam
from voicecall_calls.config import VoiceCallConfig
from voicecall_calls.server import CallServer
from voicecall_calls.server.challenge import CHALLENGE, CHALLENGE_LIMIT, answering
from voicecall_calls.server.configured import make_server

from .boundary import CARRIERS, Desk, answer_of

pytestmark = [
    pytest.mark.integration,
    pytest.mark.anyio,
    pytest.mark.usefixtures("backstage"),
]

MOCK = CARRIERS["mock"]
PROXY = {"trustForwardingHeaders": True, "trustedProxyIPs": ["127.0.0.1"]}


class Client:
    """Talks to a server that was made from a configuration."""

    def __init__(self, server: CallServer, http: httpx.AsyncClient) -> None:
        self.server = server
        self._http = http

    async def post(
        self, path: str = "/voice/webhook", *, signed: str | None = None, **headers: str
    ) -> int:
        """The status of a webhook, signed for ``signed``, else for where it is sent; "": for
        nothing."""
        url = f"http://127.0.0.1:{self.server.port}{path}"
        body = MOCK.ringing()
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if signed != "":
            given.update(MOCK.signed(signed or url, body))
        return (await self._http.post(url, content=body, headers=given)).status_code

    async def get(self, **options: Any) -> str:
        return (await self._http.get(self.server.local_url, **options)).text

    def dial(self, path: str = "/voice/stream", **headers: str) -> connect:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        url = f"ws://127.0.0.1:{self.server.port}{path}"
        return connect(url, proxy=None, compression=None, additional_headers=given)


@asynccontextmanager
async def serving(directory: Path, **config: Any) -> AsyncIterator[tuple[Client, Desk]]:
    desk = Desk()
    server = make_server(
        VoiceCallConfig.model_validate({"serve": {"port": 0}, **config}),
        MOCK.provider(),
        desk,
        seam=SystemSeam(),
        state_dir=directory,
    )
    http = httpx.AsyncClient(trust_env=False, timeout=20, verify=False)
    async with closed_backstage(server.run()), http:
        yield Client(server, http), desk


async def status_of(dialling: connect) -> int:
    with pytest.raises(InvalidStatus) as caught:
        await dialling
    return caught.value.response.status_code


async def closing_of(dialling: connect) -> int | None:
    async with dialling as socket:
        await socket.wait_closed()
    return socket.close_code


async def test_paths(tmp_path: Path) -> None:
    paths = {"serve": {"port": 0, "path": "/in/hook"}, "streaming": {"streamPath": "/in/stream"}}
    async with serving(tmp_path, **paths) as (client, _):
        assert await client.post("/in/hook") == 200
        assert await client.post() == 404
        async with client.dial("/in/stream"):
            assert await status_of(client.dial()) == 404
    async with serving(tmp_path, realtime={"enabled": True}) as (client, _):
        async with client.dial("/voice/stream/realtime"):
            assert await status_of(client.dial()) == 404


@pytest.mark.parametrize(("parameters", "status"), [(100, 200), (101, 400)])
async def test_a_challenge_is_looked_for_among_few_parameters(
    tmp_path: Path, parameters: int, status: int
) -> None:
    query = b"x=1&" * (parameters - 1) + b"voicecallChallenge=a"
    async with serving(tmp_path) as (client, _):
        sent = b"GET /voice/webhook?%b HTTP/1.1\r\nhost: a\r\n\r\n" % query
        assert (await answer_of(client.server.port, sent))[0] == status


async def test_a_public_url(tmp_path: Path) -> None:
    url = "https://phone.example/api/voice/webhook"
    async with serving(tmp_path, publicUrl=url) as (client, _):
        assert await client.post(signed=url) == 200
        assert await client.post() == 401


async def test_a_challenge_is_answered_with_this_machine_s_key_and_to_a_get_alone(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as (client, desk):
        answer = answering(tmp_path)
        for asked, signed in (("x", "x"), ("\u00fc" * 500, "\u00fc" * CHALLENGE_LIMIT)):
            assert await client.get(params={CHALLENGE: asked}) == answer(signed)
        assert await client.post(f"/voice/webhook?{CHALLENGE}=x", signed="") == 401
        assert desk.handled == []


async def test_whom_to_believe(tmp_path: Path) -> None:
    forwarded = "https://phone.example/voice/webhook"
    trusted = {"webhookSecurity": PROXY}
    listed = {"webhookSecurity": {**PROXY, "allowedHosts": ["other.example"]}}
    stranger = {"webhookSecurity": {**PROXY, "trustedProxyIPs": ["198.51.100.7"]}}
    for config, status in ((trusted, 200), (listed, 401), (stranger, 401), ({}, 401)):
        async with serving(tmp_path, **config) as (client, _):
            found = await client.post(signed=forwarded, x_forwarded_host="phone.example")
            assert found == status
    for skipped, status in ((True, 200), (False, 401)):
        async with serving(tmp_path, skipSignatureVerification=skipped) as (client, _):
            assert await client.post(signed="") == status


@pytest.mark.parametrize(
    ("key", "shared"), [("maxInFlight", True), ("maxInFlightPerClient", False)]
)
async def test_how_many_webhooks_at_once(tmp_path: Path, key: str, shared: bool) -> None:
    one, other = "198.51.100.1", "198.51.100.2"
    async with serving(tmp_path, webhookSecurity={**PROXY, key: 2}) as (client, desk):
        desk.gate = anyio.Event()
        statuses: list[int] = []

        async def post(source: str) -> None:
            statuses.append(await client.post(x_forwarded_for=source))

        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(post, one)
            await desk.until_waiting(2)
            await post(one)
            assert statuses == [429]
            if shared:
                await post(other)
            else:
                tasks.start_soon(post, other)
                await desk.until_waiting(3)
            desk.gate.set()
        assert statuses == ([429, 429, 200, 200] if shared else [429, 200, 200, 200])


async def test_how_many_media_sockets_at_once(tmp_path: Path) -> None:
    async with serving(tmp_path, streaming={"maxConnections": 1}) as (client, _):
        async with client.dial():
            assert await status_of(client.dial()) == 503


@pytest.mark.parametrize(
    ("key", "shared"), [("maxPendingConnections", True), ("maxPendingConnectionsPerIp", False)]
)
async def test_how_many_media_sockets_wait(tmp_path: Path, key: str, shared: bool) -> None:
    one, other = "198.51.100.1", "198.51.100.2"
    config = {"streaming": {key: 1}, "webhookSecurity": PROXY}
    async with serving(tmp_path, **config) as (client, _):
        async with client.dial(x_forwarded_for=one):
            assert await closing_of(client.dial(x_forwarded_for=one)) == 1013
            if shared:
                assert await closing_of(client.dial(x_forwarded_for=other)) == 1013
            else:
                async with client.dial(x_forwarded_for=other) as second:
                    await (await second.ping())
