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
    """Who decides that the caller interrupts the model's speech; see
    :attr:`RealtimeCapabilities.interrupts`."""

    CLIENT = "client"
    SERVER = "server"
    MODEL = "model"


class Verbatim(StrEnum):
    """Whether the model can be made to say a given text: not at all (``NONE``), at the beginning of
    a session (``FIXTURE``), or at any time (``FORCED``). The host treats the last two alike."""

    NONE = "none"
    FIXTURE = "fixture"
    FORCED = "forced"


@dataclass(frozen=True, slots=True, kw_only=True)
class RealtimeCapabilities:
    """What a voice model can do. The host decides by this, never by the model's id.

    ``formats``: audio formats that a session accepts and produces, best first. If the line's format
    is among them, it is used; otherwise the first one is, and the host converts.

    ``interrupts``: what interrupts the model when the caller begins to speak, if that is allowed
    (:attr:`RealtimeOptions.interruptible`). With ``SERVER``, :class:`SpeechStarted` does. With
    ``CLIENT``, the host's own detection does, and :class:`SpeechStarted` only marks the time. With
    ``MODEL``, only :class:`Interrupted` does; this event also counts with the other two. If
    something was being said, the host then calls :meth:`RealtimeSession.interrupt`.

    ``verbatim``: with ``NONE``, the host requests the first message of a call by
    :meth:`RealtimeSession.greet`, otherwise by :meth:`RealtimeSession.say`. Later texts are always
    requested by ``say``.

    ``delegation``: the model gets no tools, and sends :class:`Delegation` when it wants to know or
    do something. It cannot be forced to consult the agent.

    ``resumption``: the provider itself continues a session that the vendor ends, and the host
    ignores :class:`SessionExpiring`. Without this capability, the host leaves the expiring session,
    between two utterances if possible, and opens another one with the call's history.

    ``heard_time`` (``interrupt`` can tell the model how much was heard) and ``continuous_audio``
    (silence must be sent, too) are not used yet: the host always does both.
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

    - ``sink`` receives the model's speech in ``output_format``, item by item. If a vendor's stream
      never pauses, the provider cuts it into items and leaves out the silence between them: the
      host waits for the end of an item before it hangs up or leaves a session
    - ``input_format``: format of the audio that ``send_audio`` gets
    - ``instructions``, ``tools``, ``voice``: for the model; if ``voice`` is None, the provider
      chooses
    - ``history``: what was said before, oldest first, as pairs of role (``user`` or ``assistant``)
      and text
    - ``language``: not used yet; the host leaves the default
    - ``interruptible``: the caller may interrupt the model. If not, the caller's speech must not
      end a response: if the vendor detects speech by itself, the provider disables that, or sends
      it silence while a response is being made. The host then does not act on
      :class:`SpeechStarted`, but still calls :meth:`RealtimeSession.interrupt` for other reasons,
      such as pressed keys
    """

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
    """The caller began to speak, ``at_ms`` milliseconds into the session's audio. If the vendor
    does not report this, the provider detects it itself: whatever interrupts the model, the host
    holds back texts that clients request while the caller speaks, and does not take this speech for
    the answer to a question that has not been asked yet."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    """The caller stopped speaking, ``at_ms`` milliseconds into the session's audio."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class ResponseStarted:
    """The model begins a response. ``response`` is its id, not empty and unique in this session;
    if the vendor has no ids, the provider counts. By this id, the host distinguishes a response
    that was already being made from the one it requested."""

    response: str


@dataclass(frozen=True, slots=True)
class ResponseDone:
    """The response is over, and all its audio has been written. ``items`` are the items that it
    completes; if empty, these are all items written so far that no earlier response completed."""

    response: str
    status: Literal["completed", "cancelled", "failed", "incomplete"]
    error: str | None = None
    items: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The model was interrupted. The host discards the audio that was not played yet, except that
    of a protected greeting and of the last words of a call."""


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was said in an item. A text that is not ``final`` may be the next piece, or the whole
    text so far. The caller's final texts come in the order in which they were said; the text of a
    response may come before the text that it responds to."""

    role: Literal["user", "assistant"]
    item: str
    text: str
    final: bool


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The model calls a function; the host answers by :meth:`RealtimeSession.tool_result` with
    ``id``, and with an error if ``arguments`` is not a mapping. The provider itself refuses
    arguments that it cannot parse. A call reported twice in a session is carried out once."""

    id: str
    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ToolCancelled:
    """The model no longer wants the result of the call ``id``."""

    id: str


@dataclass(frozen=True, slots=True)
class Delegation:
    """The model delegates a request instead of calling a function; the host answers it like a
    :class:`ToolCall`."""

    id: str
    request: str


@dataclass(frozen=True, slots=True)
class SessionExpiring:
    """The vendor will end the session in ``in_ms`` milliseconds."""

    in_ms: int


@dataclass(frozen=True, slots=True)
class SessionReset:
    """The vendor started over; results for earlier tool calls are void. The host does not send the
    history again: if the vendor has forgotten the conversation, send a fatal :class:`SessionLost`
    instead, so that the host opens a session with the history."""


@dataclass(frozen=True, slots=True)
class SessionLost:
    """The connection to the vendor is lost. If ``fatal``, the host opens another session. Otherwise
    it waits without limit for the provider to recover this one. A provider that succeeds ends a
    response that broke off with :class:`ResponseDone`; a provider that gives up reports a fatal
    loss."""

    reason: str
    fatal: bool


@dataclass(frozen=True, slots=True)
class Usage:
    """Usage figures, such as tokens, by the vendor's own names. The host adds them up for the call,
    and ignores values that are not whole numbers."""

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
    """An open session. Audio written to the sink arrives at once, but an event only when the host
    reads it. A provider must therefore let the host run after each event (``await
    anyio.lowlevel.checkpoint()``): otherwise, if several messages come at once, an interruption
    would also stop the response that follows it."""

    __slots__ = ()

    @abstractmethod
    def send_audio(self, audio: bytes) -> None:
        """Accept caller audio in ``input_format``; called for every frame of a call. A plain
        function that never blocks. Audio that cannot be sent yet is kept, up to a limit."""

    @abstractmethod
    async def greet(self, instructions: str) -> None:
        """Let the model respond now, following ``instructions``; if a response is being made, this
        one follows it. Called to open a conversation, and later to report what the model cannot
        hear, such as pressed keys. The text includes ``RealtimeOptions.instructions``, because some
        vendors replace the session's instructions by those of a response."""

    @abstractmethod
    async def say(self, text: str) -> None:
        """Let the model say ``text``, as literally as the capability ``verbatim`` allows; if a
        response is being made, this follows it."""

    @abstractmethod
    async def add_context(self, text: str) -> None:
        """Tell the model something without asking for a response. Not used yet."""

    @abstractmethod
    def mute(self, muted: bool) -> None:
        """While muted, let the model hear silence. The host mutes it during a protected greeting,
        throughout a notification, and once the last words of a call have begun."""

    @abstractmethod
    async def interrupt(self, heard: Mapping[str, float]) -> None:
        """Stop the current output, including a response that is not audible yet. ``heard`` maps the
        id of each item that is cut off to the milliseconds of it that were heard. The response
        counts as over: if the vendor cannot be stopped, drop the rest of it, and do not let the
        next request wait for that."""

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

        ``will_continue``: another result for the same call will follow. If the vendor accepts only
        one result per call, the provider ignores this one, or lets the model say something instead.
        ``when``: when the model should respond: at once (``now``), when nothing is being said
        (``idle``, not used yet), or not at all (``silent``)."""

    @abstractmethod
    def __aiter__(self) -> AsyncIterator[RealtimeEvent]:
        """The events of the session, until it ends."""
        ...


class RealtimeProvider(Provider):
    """A voice model. ``capabilities`` is an attribute, not a property."""

    capabilities: RealtimeCapabilities = RealtimeCapabilities()

    @abstractmethod
    def session(self, options: RealtimeOptions) -> AbstractAsyncContextManager[RealtimeSession]:
        """A session for one call, ready when entered; the host opens it at the beginning of a call
        and after a loss. If cancelled, it must end within two seconds, or the host abandons it.
        Raises :exc:`voicecall.errors.ProviderError`."""
