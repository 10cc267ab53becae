"""Contract of an agent backend: one caller turn in, a stream of text out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from .providers import Provider

__all__ = [
    "AgentBackend",
    "AgentEvent",
    "AgentTurn",
    "EndCall",
    "Recollection",
    "TextDelta",
    "ThinkingLevel",
    "ToolActivity",
]

ThinkingLevel = Literal[
    "off", "minimal", "low", "medium", "high", "xhigh", "adaptive", "max", "ultra"
]
"""How hard a model thinks before it answers; ``adaptive`` leaves it to the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentTurn:
    """One thing the caller said (``text``, empty where it was not understood) or pressed
    (``digits``). ``opening`` holds what the bot said before the caller's first words: context,
    not instructions. ``model`` answers, or where it fails one of ``fallback_models``, in their
    order. ``allowed_tools`` names the tools of the backend that may be used, with ``*`` for any
    signs; None: all. A ``speculative`` turn has no effects and leaves no history until it comes
    again without the flag. ``owner`` is false for callers who rang us. ``thinking`` and ``fast``
    (the vendor's quicker service) are wishes; None leaves both to the backend."""

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
    fallback_models: tuple[str, ...] = ()
    allowed_tools: tuple[str, ...] | None = None
    system_prompt: str | None = None
    owner: bool = False
    speculative: bool = False
    thinking: ThinkingLevel | None = None
    fast: bool | None = None
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


@dataclass(frozen=True, slots=True)
class Recollection:
    """Something that is known already; ``source`` is ``memory`` or ``sessions``."""

    source: str
    text: str


AgentEvent = TextDelta | ToolActivity | EndCall


class AgentBackend(Provider):
    @abstractmethod
    def reply(self, turn: AgentTurn) -> AsyncIterator[AgentEvent]:
        """The answer, as it is made. Cancelling the task that iterates stops the run, which is left
        behind where it has not ended two seconds later. Raises
        :exc:`voicecall.errors.ProviderError`."""

    async def settle(self, turn: AgentTurn, heard_text: str) -> None:
        """Tells after an interruption what the caller really heard of the answer. The caller's next
        words wait for it, five seconds at most."""
        return

    async def recall(
        self, turn: AgentTurn, sources: Collection[str], limit: int
    ) -> Sequence[Recollection]:
        """What is known about ``turn.text``, best first, at most ``limit``, without asking a
        model. ``memory`` is what the agent wrote down, ``sessions`` what was said in the turn's own
        session and no other."""
        return ()

    async def forget(self, session_key: str) -> None:
        """Drop the history of a session."""
        return
