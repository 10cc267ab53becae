"""The model fails during a call: the caller hears a filler, an apology, and then a goodbye."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest

from voicecall.registry import Registry
from voicecall_gateway.config import config_from_tree
from voicecall_gateway.runtime import Gateway
from voicecall_mock.exchange import Exchange, ExchangeOptions, Say, Silent, WaitForSilence
from voicecall_testing.openai_stub import Fault, ModelReply, OpenAiStub, ToolUse

pytestmark = [pytest.mark.e2e, pytest.mark.anyio]

GREETING = "Good morning."
FILLER = "One moment, please."
REGRET = "Sorry, could you say that again?"
GOODBYE = "Something went wrong. Goodbye."
PATIENCE_S = 30
THINKING_MS = 450
"""The model's server takes so long before it fails: longer than the filler waits."""

EXCHANGE = ExchangeOptions(word_ms=20, least_speech_ms=60, recording_limit_s=0)
CALLER = (WaitForSilence(300), Say("What time is it?"), Silent())
AGAIN = Say("What time is it, please?")


@dataclass
class Phone:
    """A gateway with an agent, and one call to it."""

    exchange: Exchange
    transcript: list[tuple[str, str]] = field(default_factory=list)
    call: Mapping[str, Any] = field(default_factory=dict)
    over: anyio.Event = field(default_factory=anyio.Event)

    def listen(self, event: str, payload: Mapping[str, Any]) -> None:
        if event == "voicecall.transcript":
            self.transcript.append((payload["speaker"], payload["text"]))
        elif event == "voicecall.ended":
            self.call = payload["call"]
            self.over.set()

    async def finished(self, *, answer: str = REGRET) -> None:
        """The caller asks again when ``answer`` was heard, and stays to the end."""
        with anyio.fail_after(PATIENCE_S):
            heard = await self.exchange.ledger.wait_for("heard", text=answer)
            await self.exchange.calls[heard["call"]].line.say(AGAIN)
            await self.over.wait()

    @property
    def heard(self) -> list[str]:
        """What reached the caller's ear."""
        return [entry["text"] for entry in self.exchange.ledger.entries("heard")]


@asynccontextmanager
async def phone(
    state_dir: Path, model_url: str, *, answer_within_ms: int = 10_000
) -> AsyncIterator[Phone]:
    """A call comes in as soon as the gateway is ready."""
    async with Exchange(EXCHANGE).serve() as exchange:
        config = {
            "provider": "mock",
            "mock": {"apiBaseUrl": exchange.base_url},
            "serve": {"port": 0},
            "inboundPolicy": "open",
            "inboundGreeting": GREETING,
            "fillerAfterMs": 150,
            "responseTimeoutMs": answer_within_ms,
            "phrases": {"failed": GOODBYE},
        }
        agent = {"model": "openai:small", "baseUrl": model_url, "apiKey": "a-key"}
        tree = {
            "gateway": {"port": 0},
            "plugins": {"entries": {"voice-call": {"config": config}}},
            "agents": {
                "defaults": {"backend": "pydantic-ai"},
                "backends": {"pydantic-ai": agent},
            },
        }
        loaded = config_from_tree(tree, environ={}, state_dir=state_dir)
        gateway = Gateway(loaded, Registry(), environ={})
        async with gateway.run():
            assert list(await gateway.wait_started()) == []
            caller = Phone(exchange)
            gateway.host.subscribe(caller.listen)
            exchange.dial_in("+15550100001", "+15550100000", CALLER)
            yield caller


def check(caller: Phone, *, fillers: int = 2) -> None:
    """The caller was never left in silence, and heard why the call ends before it ended."""
    spoken = [text for speaker, text in caller.transcript if speaker == "bot"]
    assert caller.heard == spoken
    assert spoken[:3] == [GREETING, FILLER, REGRET]
    assert spoken.count(FILLER) >= fillers
    assert [text for text in spoken if text != FILLER] == [GREETING, REGRET, GOODBYE]
    asked = [text for speaker, text in caller.transcript if speaker == "user"]
    assert asked == ["What time is it?", "What time is it, please?"]
    assert caller.call["endReason"] == "error"


async def test_the_models_server_is_killed(tmp_path: Path) -> None:
    stub = OpenAiStub(default=ModelReply(fault=Fault.HANG))
    async with anyio.create_task_group() as tasks:
        killed = anyio.Event()
        listening = anyio.Event()

        async def model_server() -> None:
            async with stub.serve():
                listening.set()
                await killed.wait()

        tasks.start_soon(model_server)
        await listening.wait()
        async with phone(tmp_path, stub.base_url) as caller:
            with anyio.fail_after(PATIENCE_S):
                await caller.exchange.ledger.wait_for("heard", text=FILLER)
            killed.set()
            await caller.finished()
    check(caller, fillers=1)
    assert len(stub.requests) == 1


async def test_the_quota_is_used_up(tmp_path: Path) -> None:
    reply = ModelReply(status=429, code="insufficient_quota", first_delay_ms=THINKING_MS)
    stub = OpenAiStub(default=reply)
    async with stub.serve() as url, phone(tmp_path, url) as caller:
        await caller.finished()
    check(caller)
    # Asking again would be in vain.
    assert len(stub.requests) == 2


async def test_the_model_answers_garbage(tmp_path: Path) -> None:
    stub = OpenAiStub(default=ModelReply(body=b"data: <html>{\n\n", first_delay_ms=THINKING_MS))
    async with stub.serve() as url, phone(tmp_path, url) as caller:
        await caller.finished()
    check(caller)


async def test_the_model_hangs(tmp_path: Path) -> None:
    stub = OpenAiStub(default=ModelReply(fault=Fault.HANG))
    async with stub.serve() as url, phone(tmp_path, url, answer_within_ms=900) as caller:
        await caller.finished()
        with anyio.fail_after(10):
            for asked in stub.requests:
                await asked.hung_up.wait()
    check(caller)
    assert len(stub.requests) == 2


async def test_a_model_that_works_ends_the_call_itself(tmp_path: Path) -> None:
    """The same call with a working model, to show that the others fail for the right reason."""
    goodbye = ModelReply(text="Still noon. Goodbye.", tools=(ToolUse("voicecall_end_call"),))
    stub = OpenAiStub([ModelReply(text="It is noon."), goodbye])
    async with stub.serve() as url, phone(tmp_path, url) as caller:
        await caller.finished(answer="It is noon.")
    assert [text for text in caller.heard if text != FILLER] == [
        GREETING,
        "It is noon.",
        "Still noon. Goodbye.",
    ]
    assert caller.call["endReason"] == "hangup-bot"
    assert [request.said("assistant") for request in stub.requests] == [[], ["It is noon."]]
    [asked] = stub.requests[0].said("user")
    assert GREETING in asked
    assert asked.endswith("\n\nWhat time is it?")
    # What opened the call is known to its end, and told once.
    assert stub.requests[1].said("user") == [asked, "What time is it, please?"]
