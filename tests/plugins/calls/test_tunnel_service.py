"""A phone behind a tunnel: which URL carriers are given, and what happens without it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from tests.e2e.lab.puppets import PhonePlugin
from tests.ports import reserve_port

from voicecall import ProviderInfo, ProviderKind
from voicecall.errors import ConfigError, ProviderUnavailable
from voicecall.registry import Registry
from voicecall_calls.service import PhoneService
from voicecall_gateway.config import config_from_tree
from voicecall_gateway.runtime import Gateway
from voicecall_testing.clock import virtual_backend
from voicecall_testing.fakes import NATIVE, ScriptedCarrier
from voicecall_testing.offering import offered
from voicecall_testing.tunnels import ScriptedTunnel, offered_tunnel

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

PATHS = ("/voice/webhook", "/voice/stream")


class Carrier(ScriptedCarrier):
    """Records the URLs that it is given."""

    def __init__(self) -> None:
        super().__init__(replace(NATIVE, public_url=True))
        self.urls: list[str] = []
        self.told = anyio.Event()
        self.asked: list[str] = []
        self.slow: dict[str, anyio.Event] = {}
        """By URL: when the carrier has taken it."""
        self.away = False

    async def register_webhook(self, url: str) -> None:
        self.asked.append(url)
        if url in self.slow:
            await self.slow[url].wait()
        if self.away:
            raise ProviderUnavailable("down", provider="far")
        self.urls.append(url)
        self.told.set()


class Town(PhonePlugin):
    """Plugins of a gateway with a phone, a carrier of the internet and a tunnel."""

    def __init__(self) -> None:
        super().__init__()
        self.carrier = Carrier()
        self.tunnel = ScriptedTunnel(lambda port: f"https://one.example:{port}/")

    @asynccontextmanager
    async def gateway(self, directory: Path, **config: Any) -> AsyncIterator[Gateway]:
        far = ProviderInfo(
            kind=ProviderKind.TELEPHONY,
            id="far",
            label="Far",
            factory=lambda config, context: self.carrier,
            capabilities=self.carrier.capabilities,
        )
        registry = Registry(extra=[self.extra(), offered(far), offered_tunnel(self.tunnel)])
        phone = {"provider": "far", "serve": {"port": 0}, "tunnel": {"provider": "burrow"}}
        tree = {
            "gateway": {"port": 0, "drainSeconds": 0},
            "agents": {"defaults": {"backend": "scripted"}},
            "plugins": {"entries": {"voice-call": {"config": {**phone, **config}}}},
        }
        gateway = Gateway(config_from_tree(tree, environ={}, state_dir=directory), registry)
        async with gateway.run():
            await gateway.wait_started()
            yield gateway

    @property
    def phone(self) -> PhoneService:
        assert self.service is not None
        return self.service

    async def told(self, count: int) -> None:
        with anyio.fail_after(20):
            while len(self.carrier.urls) < count:
                await anyio.sleep(0.01)


async def test_carriers_are_given_the_url_of_the_tunnel(tmp_path: Path) -> None:
    town = Town()
    async with town.gateway(tmp_path) as gateway:
        assert gateway.problems() == []
        server = town.phone.server
        assert server is not None
        assert town.tunnel.opened == [(server.port, PATHS)]
        assert server.webhook_url == f"https://one.example:{server.port}/voice/webhook"
        assert server.stream_url == f"wss://one.example:{server.port}/voice/stream"
        town.tunnel.move("https://two.example")
        await town.told(2)
        assert server.webhook_url == "https://two.example/voice/webhook"
        first = f"https://one.example:{server.port}/voice/webhook"
        assert town.carrier.urls == [first, "https://two.example/voice/webhook"]
        # Lost, it is opened anew; meanwhile the gateway says so.
        town.tunnel.lose()
        with anyio.fail_after(20):
            while not gateway.problems():
                await anyio.sleep(0.01)
            assert gateway.problems() == ["no tunnel: Burrow: the tunnel was closed"]
            while gateway.problems():
                await anyio.sleep(0.01)
        await town.told(3)
        assert town.carrier.urls[-1] == first
    assert town.tunnel.closed == len(town.tunnel.opened) == 2


async def test_of_urls_that_follow_each_other_the_carrier_keeps_the_last(tmp_path: Path) -> None:
    town = Town()
    port = reserve_port()
    first, *later = (
        f"https://{name}/voice/webhook" for name in (f"one.example:{port}", "two.ex", "three.ex")
    )
    town.carrier.slow = {first: anyio.Event(), later[0]: anyio.Event()}

    async def moves_while_the_carrier_takes_its_time() -> None:
        for waits, url in zip((first, later[0]), later, strict=True):
            while waits not in town.carrier.asked:
                await anyio.sleep(0.01)
            town.tunnel.move(url.removesuffix("/voice/webhook"))
            while town.phone.server is not None and town.phone.server.webhook_url != url:
                await anyio.sleep(0.01)
            # By then it has been given any URL that was due meanwhile.
            await anyio.wait_all_tasks_blocked()
            town.carrier.slow[waits].set()

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(moves_while_the_carrier_takes_its_time)
            async with town.gateway(tmp_path, serve={"port": port}):
                await town.told(3)
                assert town.carrier.urls == [first, *later]


async def test_without_its_tunnel_the_setup_is_incomplete(tmp_path: Path) -> None:
    town = Town()
    town.tunnel.refusals = ["the token is wrong"]
    async with town.gateway(tmp_path) as gateway:
        reason = "no tunnel: scripted: the token is wrong"
        assert list(gateway.problems()) == [reason]
        with pytest.raises(ConfigError, match=reason):
            town.phone.operations()
        assert town.phone.server is None
        assert town.carrier.urls == []
    assert town.tunnel.closed == len(town.tunnel.opened) == 1


@pytest.mark.parametrize("anyio_backend", [virtual_backend])
async def test_a_tunnel_that_fails_at_the_start_is_tried_again(tmp_path: Path) -> None:
    town = Town()
    town.tunnel.refusals = ["first", "second", "third"]
    async with town.gateway(tmp_path) as gateway:
        for reason, pause in (("first", 1), ("second", 2), ("third", 4)):
            assert list(gateway.problems()) == [f"no tunnel: scripted: {reason}"]
            with pytest.raises(ConfigError, match=reason):
                town.phone.operations()
            await anyio.sleep(pause + 0.1)
        await town.carrier.told.wait()
        assert list(gateway.problems()) == []
        assert town.phone.operations() is not None
        assert town.phone.engine is not None
        assert town.phone.engine.accepting
        assert town.phone.server is not None
        assert town.carrier.urls == [f"https://one.example:{town.phone.server.port}/voice/webhook"]
        # After that it is a tunnel like any other.
        town.tunnel.lose()
        await anyio.sleep(0.5)
        assert list(gateway.problems()) == ["no tunnel: Burrow: the tunnel was closed"]
    assert town.tunnel.closed == len(town.tunnel.opened) == 4


@pytest.mark.parametrize("refusals", [[], ["first"]])
async def test_a_url_that_no_carrier_reaches_keeps_the_phone_down(
    tmp_path: Path, refusals: list[str]
) -> None:
    town = Town()
    town.tunnel.refusals = refusals
    town.tunnel.url_of = lambda port: "https://10.0.0.1"
    reason = (
        "plugins.entries.voice-call.config.publicUrl: Far cannot reach"
        " https://10.0.0.1/voice/webhook; set a public https URL"
    )
    async with town.gateway(tmp_path, serve={"port": reserve_port()}) as gateway:
        with anyio.fail_after(60):
            while not any(problem.endswith(reason) for problem in gateway.problems()):
                await anyio.sleep(0.01)
            assert town.carrier.urls == []
            with pytest.raises(ConfigError, match=reason):
                town.phone.operations()
            # What was begun is undone: the next start finds the port free.
            town.tunnel.url_of = lambda port: f"https://one.example:{port}"
            while town.phone.server is None or gateway.problems():
                await anyio.sleep(0.01)
        assert town.carrier.urls == [f"https://one.example:{town.phone.server.port}/voice/webhook"]
        assert town.phone.operations() is not None
    assert town.tunnel.closed == len(town.tunnel.opened)


@pytest.mark.parametrize("anyio_backend", [virtual_backend])
async def test_a_gateway_that_waits_for_its_tunnel_can_be_stopped(tmp_path: Path) -> None:
    town = Town()
    town.tunnel.stuck = True
    async with town.gateway(tmp_path) as gateway:
        assert list(gateway.problems()) == ["no tunnel: Burrow: not open after 30 s"]
        await anyio.sleep(600)
        assert town.phone.server is None
        assert len(town.tunnel.opened) > 5
    assert town.tunnel.closed == len(town.tunnel.opened)


@pytest.mark.parametrize("anyio_backend", [virtual_backend])
async def test_a_carrier_that_could_not_be_reached_is_given_the_newest_url(tmp_path: Path) -> None:
    town = Town()
    town.carrier.away = True
    async with town.gateway(tmp_path) as gateway:
        assert gateway.problems() == []
        town.tunnel.move("https://two.example")
        await anyio.sleep(0.5)
        two = "https://two.example/voice/webhook"
        assert town.carrier.asked[1:] == [two]
        town.carrier.away = False
        await anyio.sleep(0.4)
        assert town.carrier.urls == []
        await anyio.sleep(600)
    assert town.carrier.urls == [two]


async def test_a_carrier_of_this_machine_does_without(tmp_path: Path) -> None:
    town = Town()
    town.carrier.capabilities = replace(NATIVE, public_url=False)
    town.tunnel.refusals = ["the token is wrong"]
    async with town.gateway(tmp_path) as gateway:
        server = town.phone.server
        assert (gateway.problems(), server is not None) == ([], True)
        assert server is not None
        assert server.webhook_url == server.local_url
        # The next attempt succeeds.
        await town.told(2)
        assert town.carrier.urls == [
            server.local_url,
            f"https://one.example:{server.port}/voice/webhook",
        ]


async def test_a_public_url_needs_no_tunnel(tmp_path: Path) -> None:
    town = Town()
    url = "https://phone.example.com/voice/webhook"
    async with town.gateway(tmp_path, publicUrl=url) as gateway:
        assert gateway.problems() == []
        assert town.carrier.urls == [url]
    assert town.tunnel.opened == []
