"""What the engine sees of a conversation."""

from __future__ import annotations

from abc import ABC, abstractmethod

from voicecall.media import Started
from voicecall.model import EndDetail
from voicecall_calls.doors import AdmissionRefused, Attachment, MediaSocket

__all__ = ["Conversation"]


class Conversation(ABC):
    """One a connected call. The notifications are plain calls, made after their event was
    committed; none of them blocks."""

    @abstractmethod
    async def run(self) -> None:
        """Hold the conversation until cancelled."""

    @abstractmethod
    def caller_turn(self, text: str) -> None:
        """The caller said something, which is in the transcript."""

    @abstractmethod
    def caller_speaking(self) -> None:
        """The caller is saying something that is not understood yet."""

    @abstractmethod
    def keys_pressed(self, digits: str) -> None: ...

    @abstractmethod
    def playback_finished(self, utterance_id: str, ok: bool) -> None:
        """The carrier's own voice is done with an utterance."""

    @abstractmethod
    def play_message(self) -> None:
        """Play the first message (again)."""

    def stream_missing(self, detail: EndDetail) -> None:
        """No media socket comes any more, where the call wants one: end it for ``detail``, behind
        last words that need none."""
        return

    @abstractmethod
    async def say(self, text: str) -> None:
        """Speak on somebody's request and return when it was played (or interrupted). Raises
        ``VoicecallError``."""

    @abstractmethod
    async def ask(self, prompt: str, timeout_s: float) -> str:
        """Speak ``prompt`` and return what the caller answers. Raises ``CallNotReady`` while
        another question is open or when no answer comes in time."""

    @abstractmethod
    async def play_digits(self, digits: str, *, last: bool = False) -> None:
        """Play keypad tones, where the carrier can (``dtmf_out``). ``last``: no words follow, and
        the call listens. Raises ``VoicecallError``."""

    @abstractmethod
    def resume(self) -> None:
        """Called before :meth:`run` for a call that was live before a restart."""

    def hush(self) -> None:
        """The call is being ended: stop speaking, so that the record learns what was heard."""
        return

    def attach(self, socket: MediaSocket, started: Started) -> Attachment:
        """A media socket of this call was admitted."""
        raise AdmissionRefused(1008, "This call has no media stream")

    @abstractmethod
    def close(self, why: str) -> None:
        """The call is over: fail whoever waits."""
