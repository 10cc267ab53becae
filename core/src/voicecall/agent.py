"""Contract of an agent backend: one caller turn in, a stream of text out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .providers import Provider

__all__ = ["AgentBackend", "AgentEvent", "AgentTurn", "EndCall", "TextDelta", "ToolActivity"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentTurn:
    """One thing the caller said (``text``, empty where it was not understood) or pressed
    (``digits``). ``opening`` holds what the bot said before the caller's first words: context,
    not instructions. A ``speculative`` turn has no effects and leaves no history until it comes
    again without the flag. ``owner`` is false for callers who rang us."""

    turn_id: str
    call_id: str
    session_key: str
    agent_id: str
    text: str
    digits: str = ""
    opening: tuple[str, ...] = ()
    direction: str = "inbound"
    remote_number: str = "unknown"
    language: str = "en-US"
    model: str | None = None
    system_prompt: str | None = None
    owner: bool = False
    speculative: bool = False
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More of the answer; raw model text in the spoken-output contract or plain text."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolActivity:
    """A tool is being used (``running``) or is done."""

    name: str
    running: bool


@dataclass(frozen=True, slots=True)
class EndCall:
    """The agent wants the call to end once its words were heard."""

    reason: str = ""


AgentEvent = TextDelta | ToolActivity | EndCall


class AgentBackend(Provider):
    @abstractmethod
    def reply(self, turn: AgentTurn) -> AsyncIterator[AgentEvent]:
        """The answer, as it is made. Cancelling the task that iterates stops the run. Raises
        :exc:`voicecall.errors.ProviderError`."""

    async def settle(self, turn: AgentTurn, heard_text: str) -> None:
        """Tells after an interruption what the caller really heard of the answer."""
        return

    async def forget(self, session_key: str) -> None:
        """Drop the history of a session."""
        return
