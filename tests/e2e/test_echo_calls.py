"""Echo calls over the mock exchange: what the phone says comes back unchanged."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest

from voicecall.hosting import RpcCall
from voicecall.registry import Registry
from voicecall_gateway.config import config_from_tree
from voicecall_gateway.runtime import Gateway
from voicecall_mock.exchange import Exchange, ExchangeOptions
from voicecall_mock.exchange.script import DropSocket, Say, Wait

pytestmark = [pytest.mark.e2e, pytest.mark.anyio]

TOKEN = "a-token-of-the-test"
CALLER = "+15550100001"
HERE = "+15550100002"
SPEECH = bytes((n * 31 + n // 160) % 251 for n in range(8000))
SAID_AGAIN = (Say("a test sound", SPEECH), Wait(300)) * 8
"""In real time a busy machine may tear one repetition; it does not tear all of them."""


@dataclass
class Bench:
    exchange: Exchange
    gateway: Gateway
    published: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)

    async def rpc(self, method: str, params: dict[str, Any]) -> Any:
        handler = self.gateway.host.methods[method].handler
        scopes = frozenset({"operator.read", "operator.write"})
        return await handler(params, RpcCall("test", scopes))

    async def ended(self, call_id: str) -> None:
        """Wait until neither side has the call any more."""
        with anyio.fail_after(20):
            await self.exchange.ended(call_id)
            while (await self.rpc("voicecall.status", {}))["calls"]:
                await anyio.sleep(0.02)

    async def until(self, condition: Callable[[], bool]) -> None:
        with anyio.fail_after(20):
            while not condition():
                await anyio.sleep(0.02)

    def of(self, name: str) -> list[Mapping[str, Any]]:
        """What was published under a name."""
        return [data for one, data in self.published if one == name]

    def heard(self, call_id: str) -> bytes:
        return self.exchange.calls[call_id].line.recording.heard


@asynccontextmanager
async def bench(directory: Path, **phone: Any) -> AsyncIterator[Bench]:
    options = ExchangeOptions(auth_token=TOKEN, answer_after_ms=20)
    async with Exchange(options).serve() as exchange:
        config = {
            "provider": "mock",
            "mock": {"apiBaseUrl": exchange.base_url, "authToken": TOKEN},
            "inboundPolicy": "open",
            "serve": {"port": 0},
            "realtime": {"enabled": True, "provider": "echo"},
            **phone,
        }
        tree = {
            "gateway": {"port": 0},
            "plugins": {"entries": {"voice-call": {"config": config}}},
        }
        loaded = config_from_tree(tree, environ={}, source="test", state_dir=directory)
        gateway = Gateway(loaded, Registry())
        async with gateway.run():
            assert list(await gateway.wait_started()) == []
            here = Bench(exchange, gateway)
            gateway.host.subscribe(lambda name, data: here.published.append((name, data)))
            yield here


async def test_the_callers_audio_comes_back_bit_exact(tmp_path: Path) -> None:
    async with bench(tmp_path) as here:
        script = (Wait(1200), *SAID_AGAIN)
        call_id = here.exchange.dial_in(CALLER, HERE, script)
        await here.until(lambda: SPEECH in here.heard(call_id))
        here.exchange.calls[call_id].line.hang_up()
        await here.ended(call_id)
        assert SPEECH in here.heard(call_id)


async def test_an_echo_call_is_in_status_transcript_and_turns(tmp_path: Path) -> None:
    async with bench(tmp_path) as here:
        phone_id = here.exchange.dial_in(CALLER, HERE, ())
        # The words of the greeting, what was echoed before it, and a stretch of the caller's own.
        await here.until(lambda: len(here.of("voicecall.transcript")) >= 3)
        await here.until(lambda: len(here.of("voicecall.turn")) >= 2)
        here.exchange.calls[phone_id].line.hang_up()
        await here.ended(phone_id)
        status = await here.rpc("voicecall.status", {"callId": phone_id})
        assert status["call"]["state"] == "hangup-user"
        said = [entry["text"] for entry in here.of("voicecall.transcript")]
        assert len(said) >= 2
        assert set(said) == {"line check"}
        kinds = {row["kind"] for row in here.of("voicecall.turn")}
        assert kinds == {"realtime"}
        latency = await here.rpc("voicecall.latency", {})
        assert latency["turnLatency"]["count"] >= 2


async def test_an_echo_call_survives_a_broken_socket(tmp_path: Path) -> None:
    async with bench(tmp_path) as here:
        script = (Wait(1200), DropSocket(), Wait(800), *SAID_AGAIN)
        call_id = here.exchange.dial_in(CALLER, HERE, script)
        await here.until(lambda: SPEECH in here.heard(call_id))
        here.exchange.calls[call_id].line.hang_up()
        await here.ended(call_id)
        assert SPEECH in here.heard(call_id)
        (call,) = [data["call"] for data in here.of("voicecall.ended")]
        assert call["endReason"] == "hangup-user"


async def test_a_notification_through_the_echo_ends_by_itself(tmp_path: Path) -> None:
    async with bench(tmp_path, outbound={"notifyHangupDelaySec": 0}) as here:
        params = {"to": CALLER, "message": "Your line works.", "mode": "notify"}
        started = await here.rpc("voicecall.start", params)
        await here.until(lambda: bool(here.of("voicecall.ended")))
        (ended,) = here.of("voicecall.ended")
        assert ended["call"]["callId"] == started["callId"]
        assert ended["call"]["endDetail"] == "notified"
