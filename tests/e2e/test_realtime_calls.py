"""Calls of a scripted voice model over the mock exchange: a whole gateway around it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest

from voicecall import ProviderContext, ProviderInfo, ProviderKind
from voicecall.errors import ProviderUnavailable
from voicecall.hosting import RpcCall, ToolSpec
from voicecall.hosting import ToolCall as ToolUse
from voicecall.realtime import ToolCall
from voicecall.registry import Registry
from voicecall_gateway.config import config_from_tree
from voicecall_gateway.runtime import Gateway
from voicecall_mock.exchange import Exchange, ExchangeOptions
from voicecall_mock.exchange.script import HangUp, Wait
from voicecall_testing.duplex import ScriptedRealtime
from voicecall_testing.fakes import ScriptedSpeech
from voicecall_testing.offering import offered

pytestmark = [pytest.mark.e2e, pytest.mark.anyio]

TOKEN = "a-token-of-the-test"
CALLER = "+15550100001"
HERE = "+15550100002"
SORRY = "Sorry, goodbye."
DOWN = ProviderUnavailable("down", provider="scripted")
BOOKING = {
    "type": "function",
    "name": "book",
    "description": "Book a table.",
    "parameters": {"type": "object", "properties": {"day": {"type": "string"}}},
}


def scripted(kind: ProviderKind, made: Any) -> tuple[str, str, object]:
    def make(config: Any, context: ProviderContext) -> Any:
        return made

    return offered(ProviderInfo(kind=kind, id="scripted", label="Scripted", factory=make))


@dataclass
class House:
    exchange: Exchange
    gateway: Gateway
    model: ScriptedRealtime
    voice: ScriptedSpeech

    def dial_in(self) -> str:
        return self.exchange.dial_in(CALLER, HERE, (Wait(15_000), HangUp()))

    async def session(self) -> None:
        """Wait until the voice model is there."""
        with anyio.fail_after(10):
            while not self.model.sessions:
                await anyio.sleep(0.01)

    async def ended(self, call_id: str) -> None:
        with anyio.fail_after(20):
            await self.exchange.ended(call_id)

    def told(self, call_id: str) -> list[str]:
        """What the exchange's own voice said."""
        return [text for kind, text in self.exchange.calls[call_id].line.log if kind == "heard"]


@asynccontextmanager
async def house(directory: Path, *, speaks: bool = False, **phone: Any) -> AsyncIterator[House]:
    """``speaks``: a synthesis provider is installed beside the voice model."""
    model, voice = ScriptedRealtime(), ScriptedSpeech(ms_per_char=20)
    model.answer_ms = 200.0
    options = ExchangeOptions(auth_token=TOKEN, answer_after_ms=20)
    extra = [scripted(ProviderKind.REALTIME, model)]
    if speaks:
        extra.append(scripted(ProviderKind.TTS, voice))
    registry = Registry(extra=extra)
    async with Exchange(options).serve() as exchange:
        config = {
            "provider": "mock",
            "mock": {"apiBaseUrl": exchange.base_url, "authToken": TOKEN},
            "inboundPolicy": "open",
            "serve": {"port": 0},
            "phrases": {"failed": SORRY},
            **phone,
        }
        config["realtime"] = {
            "enabled": True,
            "provider": "scripted",
            **phone.get("realtime", {}),
        }
        (directory / "workspace").mkdir()
        (directory / "workspace" / "SOUL.md").write_text("You like tea.")
        agent = {
            "id": "mira",
            "backend": "scripted",
            "workspace": str(directory / "workspace"),
            "identity": {"name": "Mira"},
        }
        tree = {
            "gateway": {"port": 0},
            "agents": {"list": [agent]},
            "plugins": {"entries": {"voice-call": {"config": config}}},
        }
        loaded = config_from_tree(tree, environ={}, source="test", state_dir=directory)
        gateway = Gateway(loaded, registry)
        async with gateway.run():
            assert list(await gateway.wait_started()) == []
            yield House(exchange, gateway, model, voice)


@pytest.mark.parametrize("speaks", [True, False])
async def test_a_lost_model_is_excused_by_another_voice(tmp_path: Path, speaks: bool) -> None:
    async with house(tmp_path, speaks=speaks) as here:
        call_id = here.dial_in()
        await here.session()
        here.model.open_errors.append(DOWN)
        here.model.current.end()
        await here.ended(call_id)
        recorded = here.exchange.calls[call_id].line.recording.heard
        synthesised = [text for text, _ in here.voice.texts_in(recorded)]
        assert (synthesised, here.told(call_id)) == (([SORRY], []) if speaks else ([], [SORRY]))
        status = here.gateway.host.methods["voicecall.status"].handler
        (failure,) = (await status({}, RpcCall("test", frozenset({"operator.read"}))))["failures"]
        assert (failure["kind"], failure["provider"]) == ("realtime", "scripted")
        assert (failure["reason"], failure["inARow"]) == ("ProviderUnavailable", 2)


async def test_the_model_knows_the_agent_and_uses_tools_of_the_gateway(tmp_path: Path) -> None:
    days: list[Any] = []

    async def book(arguments: Mapping[str, Any], use: ToolUse) -> Any:
        days.append((arguments["day"], use.agent_id))
        if arguments["day"] == "Sunday":
            raise ProviderUnavailable(f"wrong key {TOKEN}", provider="acme")
        return {"table": 7}

    realtime = {"tools": [BOOKING], "agentContext": {"enabled": True}}
    async with house(tmp_path, realtime=realtime, bargeIn={"enabled": False}) as here:
        here.gateway.host.register_tool(ToolSpec("book", "Book.", {"type": "object"}, book))
        call_id = here.dial_in()
        await here.session()
        session = here.model.current
        assert "Name: Mira" in session.options.instructions
        assert "You like tea." in session.options.instructions
        assert not session.options.interruptible
        session.tell(ToolCall("t1", "book", {"day": "Monday"}))
        with anyio.fail_after(5):
            while not session.results:
                await anyio.sleep(0.01)
        assert session.results == [("t1", {"result": {"table": 7}}, False)]
        assert days == [("Monday", "mira")]
        session.tell(ToolCall("t2", "book", {"day": "Sunday"}))
        with anyio.fail_after(5):
            while len(session.results) < 2:
                await anyio.sleep(0.01)
        # The model might say it aloud.
        assert session.results[1] == ("t2", {"error": "acme: wrong key ***"}, False)
        session.tell(ToolCall("t3", "voicecall_end_call", {}))
        await here.ended(call_id)
