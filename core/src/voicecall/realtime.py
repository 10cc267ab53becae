"""Contract of a full-duplex voice model: caller audio in, speech and tool calls out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from .audio.formats import MULAW_8K, AudioFormat
from .media import AudioSink
from .providers import Provider

__all__ = [
    "Delegation",
    "Interrupted",
    "Interrupter",
    "RealtimeCapabilities",
    "RealtimeEvent",
    "RealtimeOptions",
    "RealtimeProvider",
    "RealtimeSession",
    "ResponseDone",
    "ResponseStarted",
    "SessionExpiring",
    "SessionLost",
    "SessionReset",
    "SpeechStarted",
    "SpeechStopped",
    "Tool",
    "ToolCall",
    "ToolCancelled",
    "Transcript",
    "Usage",
    "Verbatim",
]


class Interrupter(StrEnum):
    """Who notices that the caller interrupts."""

    CLIENT = "client"
    SERVER = "server"
    MODEL = "model"


class Verbatim(StrEnum):
    """Whether the model can be made to say given words: not at all, as the first thing of a
    session, or at any time. The host makes no difference between the last two yet."""

    NONE = "none"
    FIXTURE = "fixture"
    FORCED = "forced"


@dataclass(frozen=True, slots=True, kw_only=True)
class RealtimeCapabilities:
    """What a voice model can do. The host asks this, never the model's id.

    ``formats``: what a session takes and gives, best first; the line's own is chosen where it is
    among them, else the first, and the host converts.

    ``interrupts``: what stops the model's speech when the caller begins to speak. Where the
    operator allows interruptions, that is :class:`SpeechStarted` with ``SERVER``, and with
    ``CLIENT`` the host's own ear, so that :class:`SpeechStarted` only tells the time. With
    ``MODEL`` nothing but :class:`Interrupted` does it, which is obeyed with all three. Where
    something was being said, :meth:`RealtimeSession.interrupt` is called each time.

    ``verbatim``: with ``NONE`` the first message of a call is asked for by
    :meth:`RealtimeSession.greet`, otherwise by :meth:`RealtimeSession.say`; later words come by
    ``say`` with any.

    ``delegation``: the model is given no tools and sends :class:`Delegation` where it wants to
    know or do something. It cannot be made to consult the agent always.

    ``resumption``: the provider carries a session over its end by itself, so that
    :class:`SessionExpiring` is passed over. Without it the host leaves such a session, between two
    utterances if possible, and opens another with the call's history.

    ``heard_time`` (``interrupt`` can tell the model how much was heard) and ``continuous_audio``
    (silence must be sent too) are not used yet: the host tells and sends both always.
    """

    formats: tuple[AudioFormat, ...] = (MULAW_8K,)
    interrupts: Interrupter = Interrupter.SERVER
    heard_time: bool = True
    verbatim: Verbatim = Verbatim.NONE
    continuous_audio: bool = True
    delegation: bool = False
    resumption: bool = False


@dataclass(frozen=True, slots=True)
class Tool:
    """A function the model may call; ``parameters`` is a JSON schema."""

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RealtimeOptions:
    """``sink`` receives the model's speech in ``output_format``, item by item. ``language`` is not
    used yet: the host leaves it as it is."""

    sink: AudioSink
    input_format: AudioFormat = MULAW_8K
    output_format: AudioFormat = MULAW_8K
    instructions: str = ""
    tools: Sequence[Tool] = ()
    history: Sequence[tuple[str, str]] = ()
    language: str = "en-US"
    voice: str | None = None


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    at_ms: int


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    at_ms: int


@dataclass(frozen=True, slots=True)
class ResponseStarted:
    response: str


@dataclass(frozen=True, slots=True)
class ResponseDone:
    """All audio of the response was written before. ``items`` are the items that are complete
    with it; left empty, all that were written so far."""

    response: str
    status: Literal["completed", "cancelled", "failed", "incomplete"]
    error: str | None = None
    items: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The model accepted an interruption; the host clears what was not played, but for a greeting
    that is protected and the last words of a call."""


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was said in an item. Text that is not ``final`` may be a piece or cumulative."""

    role: Literal["user", "assistant"]
    item: str
    text: str
    final: bool


@dataclass(frozen=True, slots=True)
class ToolCall:
    id: str
    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ToolCancelled:
    id: str


@dataclass(frozen=True, slots=True)
class Delegation:
    """The model hands a request over instead of calling a function."""

    id: str
    request: str


@dataclass(frozen=True, slots=True)
class SessionExpiring:
    in_ms: int


@dataclass(frozen=True, slots=True)
class SessionReset:
    """The vendor started afresh; results of the old session are void."""


@dataclass(frozen=True, slots=True)
class SessionLost:
    reason: str
    fatal: bool


@dataclass(frozen=True, slots=True)
class Usage:
    values: Mapping[str, int] = field(default_factory=dict)


RealtimeEvent = (
    SpeechStarted
    | SpeechStopped
    | ResponseStarted
    | ResponseDone
    | Interrupted
    | Transcript
    | ToolCall
    | ToolCancelled
    | Delegation
    | SessionExpiring
    | SessionReset
    | SessionLost
    | Usage
)


class RealtimeSession(ABC):
    __slots__ = ()

    @abstractmethod
    def send_audio(self, audio: bytes) -> None:
        """Caller audio. Never blocks; bounded by time while not ready."""

    @abstractmethod
    async def greet(self, instructions: str) -> None:
        """Respond now, by these instructions. So a conversation is opened, and so the model is told
        at any later time of what it cannot hear, such as keys that were pressed."""

    @abstractmethod
    async def say(self, text: str) -> None:
        """Say this, as literally as the capability ``verbatim`` allows."""

    @abstractmethod
    async def add_context(self, text: str) -> None:
        """Something the model should know, without a response to it. Not used yet."""

    @abstractmethod
    def mute(self, muted: bool) -> None:
        """While muted, the model hears silence."""

    @abstractmethod
    async def interrupt(self, heard: Mapping[str, float]) -> None:
        """Stop the current output; ``heard`` gives the heard milliseconds of each item."""

    @abstractmethod
    async def tool_result(
        self,
        call_id: str,
        result: Any,
        *,
        will_continue: bool = False,
        when: Literal["now", "idle", "silent"] = "now",
    ) -> None:
        """Answer a tool call; ``will_continue`` announces another result for the same call."""

    @abstractmethod
    def __aiter__(self) -> AsyncIterator[RealtimeEvent]: ...


class RealtimeProvider(Provider):
    """A voice model. ``capabilities`` is an attribute, not a property."""

    capabilities: RealtimeCapabilities = RealtimeCapabilities()

    @abstractmethod
    def session(self, options: RealtimeOptions) -> AbstractAsyncContextManager[RealtimeSession]:
        """A session, ready when entered; cancelled, it ends within two seconds or is left behind.
        Raises :exc:`voicecall.errors.ProviderError`."""
