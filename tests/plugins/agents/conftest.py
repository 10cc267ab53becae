"""A model server on loopback, and the backend that uses it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from voicecall import ProviderContext
from voicecall.agent import AgentTurn
from voicecall_agents.llm.backend import PydanticAgent
from voicecall_agents.llm.config import LlmConfig

MakeAgent = Callable[..., PydanticAgent]


@pytest.fixture
def make_turn() -> Callable[..., AgentTurn]:
    """``make_turn(text, **fields)``."""

    def make(text: str = "Good morning.", **more: Any) -> AgentTurn:
        values = {"turn_id": "t1", "call_id": "c1", "session_key": "s1", "agent_id": "main"}
        return AgentTurn(text=text, **{**values, **more})

    return make


@pytest.fixture
def make_agent(tmp_path: Path) -> MakeAgent:
    """``make_agent(base URL, **configuration keys)``; its history is kept below ``tmp_path``."""

    def make(base_url: str, **config: Any) -> PydanticAgent:
        block = {"model": "openai:small", "apiKey": "a-key", "baseUrl": base_url, **config}
        return PydanticAgent(LlmConfig.model_validate(block), ProviderContext(tmp_path))

    return make
