"""Media sockets: one codec a carrier, one line a call.

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
    """Where generated audio goes. ``write`` never blocks and never waits."""

    def write(self, item_id: str, audio: bytes) -> None:
        """Take the next piece of audio of ``item_id``, in the format agreed beforehand."""
        ...


@dataclass(frozen=True, slots=True)
class Upgrade:
    """The HTTP request that opened a media socket. Header names are lower case; ``url`` is the
    public URL of the socket as we wrote it for the carrier."""

    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    client: str
    url: str = ""


@dataclass(frozen=True, slots=True)
class Started:
    """The carrier's start message. ``token`` is the one-use token that admits the socket."""

    token: str
    stream_id: str
    provider_call_id: str
    input_format: AudioFormat
    output_format: AudioFormat
    parameters: Mapping[str, str] = field(default_factory=dict)


class Audio(msgspec.Struct, gc=False):
    """Caller audio; ``timestamp_ms`` counts from the start of the stream. There is one for each
    frame, so this, like :class:`MarkReached`, is made without Python code."""

    payload: bytes
    timestamp_ms: int


@dataclass(frozen=True, slots=True)
class Dtmf:
    digits: str


class MarkReached(msgspec.Struct, frozen=True, gc=False):
    """Everything sent before the mark was played (or thrown away by a clear)."""

    name: str


@dataclass(frozen=True, slots=True)
class Cleared:
    """The carrier confirms that its buffer is empty. Not used yet: marks tell that."""


@dataclass(frozen=True, slots=True)
class MediaError:
    message: str


@dataclass(frozen=True, slots=True)
class Stopped:
    reason: str = ""


MediaEvent = Started | Audio | Dtmf | MarkReached | Cleared | MediaError | Stopped


class MediaCodec(ABC):
    """One object a socket."""

    __slots__ = ()

    binary: ClassVar[bool] = False
    """Messages that are ``bytes`` go out as binary ones; else as text, which they then are."""

    @abstractmethod
    def decode(self, message: Message) -> MediaEvent | None:
        """The event in one message; None for one that carries nothing for us.

        Raises :exc:`voicecall.errors.MediaProtocolError` for what is not of the protocol.
        """

    def caller_audio(self, message: Message) -> bytes | None:
        """The quick way for what comes fifty times a second: the payload of a message that
        :meth:`decode` gives as :class:`Audio`. None for any other, and for one that is to be
        decoded first, which a codec may leave all of them to. Raises nothing."""
        return None

    @abstractmethod
    def audio(self, payload: bytes) -> Message:
        """A message that plays ``payload``, which is in the output format."""

    @abstractmethod
    def mark(self, name: str) -> Message | None:
        """A message that comes back once everything before it was played; None without marks."""

    @abstractmethod
    def clear(self) -> Message | None:
        """A message that empties the carrier's playback buffer; None where it cannot."""

    def digits(self, digits: str) -> Message | None:
        """A message that plays keypad tones; None where the carrier has none."""
        return None
