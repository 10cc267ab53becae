"""Keeping a tunnel open: back-off, changes of the URL, tunnels that break. On virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from voicecall.errors import ProviderUnavailable
from voicecall_calls.tunnelling import TunnelKeeper
from voicecall_testing.clock import VirtualSeam, virtual_backend
from voicecall_testing.tunnels import ScriptedTunnel

pytestmark = [pytest.mark.unit, pytest.mark.anyio]

PATHS = ("/voice/webhook", "/voice/stream")


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_backend


class Kept:
    """A kept tunnel, the URLs that it reported, and when it was opened."""

    def __init__(self, tunnel: ScriptedTunnel) -> None:
        self.tunnel = tunnel
        self.urls: list[str] = []
        self.seam = VirtualSeam()
        self.keeper = TunnelKeeper(
            tunnel, "Burrow", self.seam, port=3334, paths=PATHS, on_url=self.urls.append
        )

    def trouble(self) -> str | None:
        return self.keeper.problem

    async def openings(self, count: int) -> list[float]:
        """Seconds between the next ``count`` openings."""
        found, last = [], self.seam.monotonic()
        for _ in range(count):
            before = len(self.tunnel.opened)
            while len(self.tunnel.opened) == before:
                await anyio.sleep(0.5)
            found.append(self.seam.monotonic() - last)
            last = self.seam.monotonic()
        return found


@asynccontextmanager
async def kept(tunnel: ScriptedTunnel) -> AsyncIterator[Kept]:
    found = Kept(tunnel)
    async with found.keeper.run():
        yield found
    assert tunnel.closed == len(tunnel.opened)


async def test_an_open_tunnel_tells_its_url_and_its_changes() -> None:
    tunnel = ScriptedTunnel()
    async with kept(tunnel) as phone:
        assert phone.urls == ["http://localhost:3334"]
        assert phone.trouble() is None
        assert tunnel.opened == [(3334, PATHS)]
        for url in ("https://one.example", "https://one.example", "https://two.example"):
            tunnel.move(url)
            await anyio.sleep(1)
        assert phone.urls[1:] == ["https://one.example", "https://two.example"]
        assert (len(tunnel.opened), tunnel.closed) == (1, 0)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (None, "Burrow: the tunnel was closed"),
        (ProviderUnavailable("no route", provider="burrow"), "burrow: no route"),
        (RuntimeError("boom"), "Burrow: internal error (RuntimeError), see the log"),
        (SystemExit(3), "Burrow: internal error (SystemExit), see the log"),
    ],
)
async def test_a_lost_tunnel_is_opened_again(error: BaseException | None, words: str) -> None:
    tunnel = ScriptedTunnel()
    async with kept(tunnel) as phone:
        tunnel.lose(error)
        await anyio.sleep(0.5)
        assert phone.trouble() == f"no tunnel: {words}"
        tunnel.url_of = lambda port: f"https://again.example:{port}"
        await anyio.sleep(1)
        assert phone.trouble() is None
        assert phone.urls == ["http://localhost:3334", "https://again.example:3334"]
        assert tunnel.closed == 1


async def test_waits_grow_to_a_minute_and_start_over_after_a_tunnel_that_held() -> None:
    tunnel = ScriptedTunnel()
    tunnel.refusals = ["busy"] * 9
    async with kept(tunnel) as phone:
        assert phone.trouble() == "no tunnel: scripted: busy"
        assert phone.urls == []
        assert await phone.openings(9) == [1, 2, 4, 8, 16, 32, 60, 60, 60]
        assert phone.trouble() is None
        await anyio.sleep(600)
        tunnel.lose()
        assert await phone.openings(1) == [1]
        # The waits go on growing after a tunnel that did not hold.
        tunnel.lose()
        assert await phone.openings(1) == [2]


async def test_a_tunnel_that_never_gets_a_url_is_given_up() -> None:
    tunnel = ScriptedTunnel()
    tunnel.stuck = True
    begun = VirtualSeam().monotonic()
    async with kept(tunnel) as phone:
        assert phone.seam.monotonic() - begun == 30
        assert phone.trouble() == "no tunnel: Burrow: not open after 30 s"
        assert tunnel.closed == 1
        tunnel.stuck = False
        await anyio.sleep(1)
        assert phone.trouble() is None
        # Once it is open there is no limit.
        await anyio.sleep(3600)
        assert len(tunnel.opened) == 2
