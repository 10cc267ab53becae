"""Both agent backends against the conformance suite for agents."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import cast

import pytest
from pydantic_ai.messages import TextPart, UserPromptPart

from voicecall.agent import AgentBackend
from voicecall_agents.history import SqliteHistory
from voicecall_agents.llm.backend import PydanticAgent
from voicecall_agents.llm.remembering import parse
from voicecall_agents.scripted import ScriptedAgent, ScriptedConfig
from voicecall_testing.contracts.agent import AgentContract, AgentFailureContract
from voicecall_testing.openai_stub import Fault, ModelReply, OpenAiStub

pytestmark = [pytest.mark.contract, pytest.mark.anyio]

MakeAgent = Callable[..., PydanticAgent]


class TestScripted(AgentContract):
    @pytest.fixture
    def backend(self) -> AgentBackend:
        return ScriptedAgent()

    @pytest.fixture
    def slow(self) -> AgentBackend:
        return ScriptedAgent(ScriptedConfig(word_delay_ms=600_000))

    async def remembered(
        self, backend: AgentBackend, session_key: str
    ) -> Sequence[tuple[str, str]]:
        history = cast(ScriptedAgent, backend).history(session_key)
        return [(one.text, one.reply) for one in history]


class TestPydanticAi(AgentContract, AgentFailureContract):
    @pytest.fixture
    async def backend(self, make_agent: MakeAgent) -> AsyncIterator[AgentBackend]:
        async with OpenAiStub().serve() as url:
            yield make_agent(url)

    @pytest.fixture
    async def slow(self, make_agent: MakeAgent) -> AsyncIterator[AgentBackend]:
        reply = ModelReply(text="One two three four.", fault=Fault.HANG_MIDWAY)
        async with OpenAiStub(default=reply).serve() as url:
            yield make_agent(url)

    @pytest.fixture
    async def failing(self, make_agent: MakeAgent) -> AsyncIterator[AgentBackend]:
        async with OpenAiStub(default=ModelReply(status=401)).serve() as url:
            yield make_agent(url)

    async def remembered(
        self, backend: AgentBackend, session_key: str
    ) -> Sequence[tuple[str, str]]:
        history = cast(PydanticAgent, backend)._history
        assert isinstance(history, SqliteHistory)
        turns = []
        for turn in await history.load(session_key, 100):
            parts = [part for message in parse(turn.messages) for part in message.parts]
            words = "".join(str(p.content) for p in parts if isinstance(p, UserPromptPart))
            answer = "".join(p.content for p in parts if isinstance(p, TextPart))
            turns.append((words, answer))
        return turns
