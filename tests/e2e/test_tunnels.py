"""Calls through a tunnel: webhooks and media sockets arrive under its URL."""

from __future__ import annotations

from pathlib import Path

import pytest

from voicecall_mock.exchange import HangUp, Say, WaitForSilence
from voicecall_testing.tunnels import ScriptedTunnel, offered_tunnel

from .lab.puppets import Puppet
from .lab.town import GREETING, Town, open_town, said, until

pytestmark = [pytest.mark.e2e, pytest.mark.anyio]

WAIT = WaitForSilence(300)


async def talked(town: Town) -> None:
    _, record = await town.call(WAIT, Say("Hi."), WAIT, HangUp())
    assert said(record)[0] == ("bot", GREETING, True)
    assert said(record)[-1] == ("bot", "You said: Hi.", True)


async def test_calls_come_in_through_the_tunnel_and_follow_it(tmp_path: Path) -> None:
    tunnel = ScriptedTunnel()
    config = {"tunnel": {"provider": "burrow"}}
    extra = [offered_tunnel(tunnel)]
    async with open_town(tmp_path, Puppet({}), config=config, extra=extra) as town:
        server = town.service.server
        assert server is not None
        assert town.exchange.inbound_webhook == f"http://localhost:{server.port}/voice/webhook"
        assert server.stream_url == f"ws://localhost:{server.port}/voice/stream"
        await talked(town)
        moved = f"http://127.0.0.1:{server.port}"
        tunnel.move(moved)
        await until(lambda: town.exchange.inbound_webhook == f"{moved}/voice/webhook")
        await talked(town)
        await town.nothing_left()
    assert tunnel.closed == 1
