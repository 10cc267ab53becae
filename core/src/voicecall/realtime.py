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
    """Who decides that the caller interrupts the model's speech
    (:attr:`RealtimeCapabilities.interrupts`)."""

    CLIENT = "client"
    SERVER = "server"
    MODEL = "model"


class Verbatim(StrEnum):
    """Whether the model can be made to say given words: not at all (``NONE``), as the first thing
    of a session (``FIXTURE``), or at any time (``FORCED``). The host treats the last two alike."""

    NONE = "none"
    FIXTURE = "fixture"
    FORCED = "forced"


@dataclass(frozen=True, slots=True, kw_only=True)
class RealtimeCapabilities:
    """What a voice model can do. The host decides by this, never by the model's id.

    ``formats``: audio formats that a session accepts and produces, best first. If the line's own
    format is among them it is used, else the first, and the host converts.

    ``interrupts``: what stops the model's speech when the caller begins to speak, if the caller may
    interrupt it (:attr:`RealtimeOptions.interruptible`). With ``SERVER`` it is
    :class:`SpeechStarted`. With ``CLIENT`` it is the host's own detection, and
    :class:`SpeechStarted` only marks the time. With ``MODEL`` it is :class:`Interrupted` alone,
    which also counts with the other two. If something was being said, the host then calls
    :meth:`RealtimeSession.interrupt`.

    ``verbatim``: with ``NONE`` the host requests the first message of a call by
    :meth:`RealtimeSession.greet`, otherwise by :meth:`RealtimeSession.say`. Later words are always
    requested by ``say``.

    ``delegation``: the model gets no tools, and sends :class:`Delegation` when it wants to know or
    do something. It cannot be forced to consult the agent.

    ``resumption``: the provider itself continues a session beyond its end, so that the host ignores
    :class:`SessionExpiring`. Without it the host leaves such a session, between two utterances if
    possible, and opens another one with the call's history.

    ``heard_time`` (``interrupt`` can tell the model how much was heard) and ``continuous_audio``
    (silence must be sent too) are not used yet: the host always does both.
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
    """How to open a session.

    ``sink`` receives the model's speech in ``output_format``, item by item. If a vendor's stream
    never pauses, the provider cuts it into items without the silence between them: the host waits
    for their end before it hangs up or leaves a session. ``send_audio`` gets caller audio in
    ``input_format``. ``history`` is what was said before, oldest first: pairs of role (``user`` or
    ``assistant``) and text. ``language`` is not used yet: the host leaves the default.

    ``interruptible``: the caller may interrupt the model. If not, speech of the caller must end no
    response: a provider whose vendor detects speech by itself forbids it that, or lets it hear
    silence while a response is being made. The host does not act on :class:`SpeechStarted` then,
    but still calls :meth:`RealtimeSession.interrupt` for other reasons, such as pressed keys."""

    sink: AudioSink
    input_format: AudioFormat = MULAW_8K
    output_format: AudioFormat = MULAW_8K
    instructions: str = ""
    tools: Sequence[Tool] = ()
    history: Sequence[tuple[str, str]] = ()
    language: str = "en-US"
    voice: str | None = None
    interruptible: bool = True


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """The caller began to speak, at ``at_ms`` of the session's audio. Whatever interrupts the
    model: while the caller speaks, the host holds back what others want said, and takes no word for
    the answer to a question that has yet to be asked. If the vendor does not tell, the provider
    listens for itself."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    """The caller stopped speaking, at ``at_ms`` of the session's audio."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class ResponseStarted:
    """The model begins an answer. ``response`` is its id, not empty and no other's in this session:
    by it the host tells an answer that was being made from the one that it asked for behind it. If
    the vendor has none, the provider counts."""

    response: str


@dataclass(frozen=True, slots=True)
class ResponseDone:
    """The response is over, and all its audio has been written. ``items`` are the items that it
    completes; if empty, all that were written so far and that no earlier response completed."""

    response: str
    status: Literal["completed", "cancelled", "failed", "incomplete"]
    error: str | None = None
    items: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The model accepted an interruption. The host clears what was not played, except a protected
    greeting and the last words of a call."""


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was said in an item. Text that is not ``final`` may be the next piece, or all so far.
    The caller's final texts come in the order in which they were said; an answer may come before
    the words that it answers."""

    role: Literal["user", "assistant"]
    item: str
    text: str
    final: bool


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The model calls a function. The answer is :meth:`RealtimeSession.tool_result` with ``id``,
    an error if ``arguments`` are no mapping; what cannot be parsed the provider refuses itself. A
    call that is told twice in a session is carried out once."""

    id: str
    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ToolCancelled:
    """The model no longer wants the result of the call ``id``."""

    id: str


@dataclass(frozen=True, slots=True)
class Delegation:
    """The model hands over a request instead of calling a function; it is answered like a
    :class:`ToolCall`."""

    id: str
    request: str


@dataclass(frozen=True, slots=True)
class SessionExpiring:
    """The vendor will end the session in ``in_ms`` milliseconds."""

    in_ms: int


@dataclass(frozen=True, slots=True)
class SessionReset:
    """The vendor started over; results of the old session are void. The provider gets no newer
    history for it: if the vendor has forgotten the conversation, a fatal :class:`SessionLost` lets
    the host open a session that knows it."""


@dataclass(frozen=True, slots=True)
class SessionLost:
    """The vendor is gone. If ``fatal``, the host opens another session; else it waits for the
    provider to recover this one, without limit: a provider that cannot tells a fatal loss in the
    end, and one that can ends a response that broke off with :class:`ResponseDone`."""

    reason: str
    fatal: bool


@dataclass(frozen=True, slots=True)
class Usage:
    """What the vendor counts, by its own names (such as tokens). The host adds up the figures of a
    call; what is no whole number it leaves out."""

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
    """An open session. Audio that it writes to the sink is there at once, an event only when the
    host has read it. So a provider lets the host run after each event (``await
    anyio.lowlevel.checkpoint()``): if messages come in a heap, an interruption would otherwise also
    stop the answer that follows it."""

    __slots__ = ()

    @abstractmethod
    def send_audio(self, audio: bytes) -> None:
        """Caller audio in ``input_format``. A plain function that never blocks. Audio that cannot
        be sent yet is kept, up to a limited time."""

    @abstractmethod
    async def greet(self, instructions: str) -> None:
        """Let the model respond now, following these instructions. This opens a conversation, and
        later tells the model what it cannot hear, such as pressed keys. They begin with those of
        the session (``RealtimeOptions.instructions``), which some vendors would replace by them.
        While a response is being made, this one follows it."""

    @abstractmethod
    async def say(self, text: str) -> None:
        """Let the model say this, as literally as the capability ``verbatim`` allows, behind a
        response that is being made."""

    @abstractmethod
    async def add_context(self, text: str) -> None:
        """Tell the model something without asking for a response. Not used yet."""

    @abstractmethod
    def mute(self, muted: bool) -> None:
        """While muted, the model hears silence. The host asks for that while a greeting is
        protected and from the last words of a call on, and throughout a notification."""

    @abstractmethod
    async def interrupt(self, heard: Mapping[str, float]) -> None:
        """Stop the current output, also of a response that cannot be heard yet. ``heard``: item id
        -> milliseconds of it that were heard, for each item that is cut off. The response counts as
        over: what is asked for next does not wait until a vendor that cannot be stopped has made
        the rest, which is dropped."""

    @abstractmethod
    async def tool_result(
        self,
        call_id: str,
        result: Any,
        *,
        will_continue: bool = False,
        when: Literal["now", "idle", "silent"] = "now",
    ) -> None:
        """Answer the tool call or delegation ``call_id`` with ``result``, which is JSON-ready.

        ``will_continue`` announces another result for the same call. With a vendor that takes one
        result for each call, the provider passes this one over, or has the model say something in
        its place. ``when`` says when the model should respond to it: at once, when nothing is being
        said, or not at all; the host does not use ``idle`` yet."""

    @abstractmethod
    def __aiter__(self) -> AsyncIterator[RealtimeEvent]: ...


class RealtimeProvider(Provider):
    """A voice model. ``capabilities`` is an attribute, not a property."""

    capabilities: RealtimeCapabilities = RealtimeCapabilities()

    @abstractmethod
    def session(self, options: RealtimeOptions) -> AbstractAsyncContextManager[RealtimeSession]:
        """A session that is ready when entered. If cancelled, it must end within two seconds, or it
        is abandoned. Raises :exc:`voicecall.errors.ProviderError`."""
