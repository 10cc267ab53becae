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
    "PressKeys",
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
    """One turn of the caller: what they said or which keys they pressed.

    - ``turn_id``: the same if the turn is repeated; ``call_id``, ``agent_id``: whose turn it is
    - ``text``: what was said; empty if it was not understood. If a voice model asks on behalf of
      its caller, ``text`` is a prompt with the call so far and the question
    - ``digits``: the keys that were pressed
    - ``session_key``: the session whose history the turn belongs to
    - ``opening``: what was said on the call before this turn that the agent does not know yet,
      oldest first: the greeting, texts requested by clients, and, in brackets, what the
      caller said. Context, not instructions
    - ``direction``: ``inbound`` or ``outbound``; ``remote_number``: the other party's number
    - ``agent_name``: the agent's name, if configured
    - ``language``: the expected language, such as ``en-US``; empty if unknown, which is always the
      case so far
    - ``model``, ``system_prompt``: if not None, used instead of the backend's own
    - ``fallback_models``: tried in this order if ``model`` fails
    - ``allowed_tools``: names of the backend's tools that may be used, with ``*`` as a wildcard;
      None: all
    - ``owner``: whether the turn has the owner's rights; callers are strangers and have none
    - ``speculative``: the turn must have no effects and leave no history until it is repeated
      without this flag. Not used yet
    - ``thinking``, ``fast`` (the vendor's faster service): preferences; None: the backend decides
    - ``metadata``: if a voice model asks on behalf of its caller, ``question`` is the question
      alone, and ``toolPolicy`` says which of the ``allowed_tools`` may be used: all (``owner``),
      only those that look something up (``safe-read-only``), or none (``none``)
    """

    turn_id: str
    call_id: str
    session_key: str
    agent_id: str
    text: str
    digits: str = ""
    opening: tuple[str, ...] = ()
    direction: str = "inbound"
    remote_number: str = "unknown"
    language: str = ""
    model: str | None = None
    fallback_models: tuple[str, ...] = ()
    allowed_tools: tuple[str, ...] | None = None
    system_prompt: str | None = None
    owner: bool = False
    speculative: bool = False
    thinking: ThinkingLevel | None = None
    fast: bool | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    agent_name: str | None = None


@dataclass(frozen=True, slots=True)
class TextDelta:
    """The next piece of the answer: plain text, or a model's raw text that follows the
    spoken-output contract."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolActivity:
    """A tool has started (``running``) or is done. The text before it is spoken while the tool
    runs. Optional."""

    name: str
    running: bool


@dataclass(frozen=True, slots=True)
class EndCall:
    """End the call once the answer has been heard. ``reason`` is not used yet."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class PressKeys:
    """Press keys once the answer has been heard, for the menu of a machine. ``digits``: see
    :func:`voicecall.tones.check_digits`; those of several events are pressed one after the other. A
    caller who interrupts the answer also stops the keys. To say nothing and listen on, answer with
    a pause alone (``w``). Has no effect in an answer to a voice model, which presses keys by
    itself."""

    digits: str


@dataclass(frozen=True, slots=True)
class Recollection:
    """Something that the agent already knows; ``source`` is ``memory`` or ``sessions``."""

    source: str
    text: str


AgentEvent = TextDelta | ToolActivity | EndCall | PressKeys


class AgentBackend(Provider):
    """An agent."""

    @abstractmethod
    def reply(self, turn: AgentTurn) -> AsyncIterator[AgentEvent]:
        """The answer to ``turn``, event by event while it is being made; called for each turn. It
        must be complete within the phone's ``responseTimeoutMs``. An answer without text counts as
        failed, unless it presses keys or ends the call. An interruption cancels the task that
        iterates; a run that has not ended two seconds later is abandoned. Raises
        :exc:`voicecall.errors.ProviderError`."""

    async def settle(self, turn: AgentTurn, heard_text: str) -> None:
        """Correct the history: the caller heard only ``heard_text`` of the answer to ``turn``.
        Called after the caller or the end of the call interrupted it. With the carrier's own voice,
        it is not known how much was heard: all text given to that voice counts. The caller's next
        turn waits for this, at most five seconds."""
        return

    async def recall(
        self, turn: AgentTurn, sources: Collection[str], limit: int
    ) -> Sequence[Recollection]:
        """What the agent knows about ``turn.text``, without asking a model: at most ``limit``
        results, best first, from ``sources``. ``memory`` is what the agent wrote down, ``sessions``
        is what was said in the session of this turn, and in no other."""
        return ()

    async def forget(self, session_key: str) -> None:
        """Delete the history of a session. Not used yet."""
        return
