"""Media sockets: one codec per socket, one line per call.

A :class:`MediaCodec` turns a carrier's messages into media events and back. It is pure: no
clock, no socket, no task. The line that owns a call's audio outlives the sockets.
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
    """Where generated audio goes."""

    def write(self, item_id: str, audio: bytes) -> None:
        """Accept the next piece of audio of ``item_id``, in the agreed format. Never blocks. For
        the event loop only, not for other threads."""
        ...


@dataclass(frozen=True, slots=True)
class Upgrade:
    """The HTTP request that opened a media socket. Header names are lower case; ``url`` is the
    public URL of the socket, as it was given to the carrier."""

    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    client: str
    url: str = ""


@dataclass(frozen=True, slots=True)
class Started:
    """The carrier's start message. ``token`` is the one-use token that admits the socket;
    ``provider_call_id`` is an id of the call that a webhook or the dial request has told before."""

    token: str
    stream_id: str
    provider_call_id: str
    input_format: AudioFormat
    output_format: AudioFormat
    parameters: Mapping[str, str] = field(default_factory=dict)


class Audio(msgspec.Struct, gc=False):
    """Caller audio in the input format; ``timestamp_ms`` counts from the start of the stream. There
    is one for each frame, so this, like :class:`MarkReached`, is made without Python code."""

    payload: bytes
    timestamp_ms: int


@dataclass(frozen=True, slots=True)
class Dtmf:
    """The caller pressed keys."""

    digits: str


class MarkReached(msgspec.Struct, frozen=True, gc=False):
    """Everything sent before the mark was played, or dropped by a clear."""

    name: str


@dataclass(frozen=True, slots=True)
class Cleared:
    """The carrier confirms that its buffer is empty. Not used yet: nobody waits for that."""


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
    """True: messages that are ``bytes`` are sent as binary. False: as text, in UTF-8."""

    @abstractmethod
    def decode(self, message: Message) -> MediaEvent | None:
        """The event in one message; None for one without meaning for us.

        Raises :exc:`voicecall.errors.MediaProtocolError` if it violates the protocol.
        """

    def caller_audio(self, message: Message) -> bytes | None:
        """A fast path for messages that arrive fifty times a second: the payload of a message
        that :meth:`decode` would return as :class:`Audio`. None: the message goes to
        :meth:`decode`, as all do in a codec without this fast path. Raises nothing."""
        return None

    @abstractmethod
    def audio(self, payload: bytes) -> Message:
        """A message that plays ``payload``, which is in the output format."""

    @abstractmethod
    def mark(self, name: str) -> Message | None:
        """A message that the carrier returns once everything before it was played; None if it has
        no marks."""

    @abstractmethod
    def clear(self) -> Message | None:
        """A message that empties the carrier's playback buffer; None if there is none."""

    def digits(self, digits: str) -> Message | None:
        """A message that plays keypad tones; None if there is none."""
        return None
