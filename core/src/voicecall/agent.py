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
    """One thing that the caller said or pressed.

    - ``turn_id``: the same if the turn comes again; ``call_id``, ``agent_id``: whose turn it is
    - ``text``: what was said; empty if it was not understood. Where a voice model asks for its
      caller, it is a prompt with the call so far and the question, which is in ``metadata``
    - ``digits``: the keys that were pressed
    - ``session_key``: whose history the turn belongs to
    - ``opening``: what was said on the call before this turn, and the agent does not know: the
      greeting, or words from outside; in brackets what the caller said. Context, not instructions
    - ``direction``: ``inbound`` or ``outbound``; ``remote_number`` is the other party's
    - ``agent_name``: how the agent is called, if the configuration says so
    - ``language``: the one that is expected, such as ``en-US``; empty if nobody knows, as always so
      far
    - ``model``, ``system_prompt``: to be used in place of the backend's own, if not None
    - ``fallback_models``: tried in this order if ``model`` fails
    - ``allowed_tools``: which tools of the backend may be used, ``*`` being a wildcard; None: all
    - ``owner``: whether the turn has the owner's rights; callers, who are strangers, have not
    - ``speculative``: the turn must have no effects and leave no history until it comes again
      without this flag. Not used yet
    - ``thinking``, ``fast`` (the vendor's faster service): wishes; None leaves them to the backend
    - ``metadata``: where a voice model asks for its caller, with its ``question`` alone, and with
      ``toolPolicy``: a backend with tools uses all that ``allowed_tools`` leaves it if that is
      ``owner``, none if it is ``none``, and with ``safe-read-only`` those alone that look something
      up
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
    agent_name: str | None = None


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More of the answer: plain text, or a model's raw text that follows the spoken-output
    contract."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolActivity:
    """A tool has started (``running``) or is done. What was written before is spoken while it runs.
    It may be left out."""

    name: str
    running: bool


@dataclass(frozen=True, slots=True)
class EndCall:
    """The agent wants the call to end after its words were heard. ``reason`` is not used yet."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class PressKeys:
    """The agent wants keys pressed once its words were heard, as the menu of a machine asks.
    ``digits``: see :func:`voicecall.tones.check_digits`; those of several events come one after the
    other. Words of the caller that stop the answer stop the keys, too. A voice model presses keys
    by itself: in an answer to it this has no effect. A pause alone, ``w``, is an answer that says
    and presses nothing, to hear more."""

    digits: str


@dataclass(frozen=True, slots=True)
class Recollection:
    """Something that the agent knows already; ``source`` is ``memory`` or ``sessions``."""

    source: str
    text: str


AgentEvent = TextDelta | ToolActivity | EndCall | PressKeys


class AgentBackend(Provider):
    @abstractmethod
    def reply(self, turn: AgentTurn) -> AsyncIterator[AgentEvent]:
        """The answer to ``turn``, event by event while it is being made. It must be complete within
        the phone's ``responseTimeoutMs``; without a word it counts as failed, unless it presses
        keys or ends the call. An interruption cancels the task that iterates; a run that has not
        ended two seconds later is abandoned. Raises :exc:`voicecall.errors.ProviderError`."""

    async def settle(self, turn: AgentTurn, heard_text: str) -> None:
        """Called after an interruption, by the caller or by the end of the call: of the answer to
        ``turn``, the caller heard ``heard_text``. Where the carrier's own voice speaks, nobody
        knows how much, and all that it was given counts. The caller's next words wait for this,
        five seconds at most."""
        return

    async def recall(
        self, turn: AgentTurn, sources: Collection[str], limit: int
    ) -> Sequence[Recollection]:
        """What is known about ``turn.text``, without asking a model: at most ``limit`` results,
        best first, from ``sources``. ``memory`` is what the agent wrote down, ``sessions`` what was
        said in the turn's own session, and in no other."""
        return ()

    async def forget(self, session_key: str) -> None:
        """Delete the history of a session. Nothing calls it yet."""
        return
