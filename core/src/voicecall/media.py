"""Media sockets: one codec per socket, one line per call.

A :class:`MediaCodec` translates between a carrier's messages and media events. It is pure: no
clock, no socket, no task. The line that owns a call's audio outlives its sockets.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import msgspec

from .audio.formats import AudioFormat

__all__ = [
    "Audio",
    "AudioSink",
    "Cleared",
    "Dtmf",
    "MarkReached",
    "MediaCodec",
    "MediaError",
    "MediaEvent",
    "Message",
    "Started",
    "Stopped",
    "Upgrade",
]

Message = bytes | str


class AudioSink(Protocol):
    """Where a provider writes generated audio."""

    def write(self, item_id: str, audio: bytes) -> None:
        """Accept the next piece of audio of the item ``item_id``, in the agreed format. Never
        blocks. To be called in the event loop only, not from other threads."""
        ...


@dataclass(frozen=True, slots=True)
class Upgrade:
    """The HTTP request that opened a media socket. Header names are lower case; ``url`` is the
    public URL of the socket, as given to the carrier."""

    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    client: str
    url: str = ""


@dataclass(frozen=True, slots=True)
class Started:
    """The carrier's start message. ``token`` is the one-use token that admits the socket;
    ``provider_call_id`` is an id of the call that a webhook or the reply to the dial request has
    reported before. Caller audio arrives in ``input_format``, our audio is sent in
    ``output_format``."""

    token: str
    stream_id: str
    provider_call_id: str
    input_format: AudioFormat
    output_format: AudioFormat
    parameters: Mapping[str, str] = field(default_factory=dict)


class Audio(msgspec.Struct, gc=False):
    """Caller audio in the input format; ``timestamp_ms`` counts from the start of the stream."""

    # There is one for each frame: this and MarkReached are structs, made without Python code.

    payload: bytes
    timestamp_ms: int


@dataclass(frozen=True, slots=True)
class Dtmf:
    """The caller pressed keys."""

    digits: str


class MarkReached(msgspec.Struct, frozen=True, gc=False):
    """The carrier returned a mark: everything sent before it was played, or dropped by a clear."""

    name: str


@dataclass(frozen=True, slots=True)
class Cleared:
    """The carrier confirms that its buffer is empty. Not used yet: the host does not wait for
    it."""


@dataclass(frozen=True, slots=True)
class MediaError:
    """The carrier reports an error of the stream."""

    message: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """The carrier ends the stream."""

    reason: str = ""


MediaEvent = Started | Audio | Dtmf | MarkReached | Cleared | MediaError | Stopped


class MediaCodec(ABC):
    """The carrier's protocol on one media socket. One object per socket."""

    __slots__ = ()

    binary: ClassVar[bool] = False
    """Whether messages that are ``bytes`` are sent as binary frames. If not, they are sent as text
    and must be UTF-8."""

    @abstractmethod
    def decode(self, message: Message) -> MediaEvent | None:
        """The event in one message from the carrier; None if the message does not matter here.

        Raises :exc:`voicecall.errors.MediaProtocolError` if it violates the protocol.
        """

    def caller_audio(self, message: Message) -> bytes | None:
        """A fast path for audio, which arrives fifty times a second: the payload of a message that
        :meth:`decode` would return as :class:`Audio`. If this returns None, as it always does in a
        codec without a fast path, the message goes to :meth:`decode`. Must not raise."""
        return None

    @abstractmethod
    def audio(self, payload: bytes) -> Message:
        """The message that plays ``payload``, which is in the output format."""

    @abstractmethod
    def mark(self, name: str) -> Message | None:
        """The message that the carrier returns once everything before it was played; None if the
        carrier has no marks."""

    @abstractmethod
    def clear(self) -> Message | None:
        """The message that empties the carrier's playback buffer; None if the protocol has none."""

    def digits(self, digits: str) -> Message | None:
        """The message that plays keypad tones; None if the protocol has none."""
        return None
