"""What the engine sees of a conversation."""

from __future__ import annotations

from abc import ABC, abstractmethod

from voicecall.media import Started
from voicecall.model import EndDetail
from voicecall_calls.doors import AdmissionRefused, Attachment, MediaSocket

__all__ = ["Conversation"]


class Conversation(ABC):
    """The conversation of one connected call. The engine notifies it by plain calls, which do not
    block, after the event was committed."""

    @abstractmethod
    async def run(self) -> None:
        """Hold the conversation until cancelled."""

    @abstractmethod
    def caller_turn(self, text: str) -> None:
        """The caller said ``text``; the transcript has it already."""

    @abstractmethod
    def caller_speaking(self) -> None:
        """The caller is speaking; the text is not known yet."""

    @abstractmethod
    def keys_pressed(self, digits: str) -> None: ...

    @abstractmethod
    def playback_finished(self, utterance_id: str, ok: bool) -> None:
        """The carrier has finished speaking an utterance with its own voice."""

    @abstractmethod
    def play_message(self) -> None:
        """Play the first message (again)."""

    def stream_missing(self, detail: EndDetail) -> None:
        """The media socket that the call needs will not come: end the call for ``detail``, after
        last words that need no socket."""
        return

    @abstractmethod
    async def say(self, text: str) -> None:
        """Speak ``text``, as requested from outside; return when it was played or interrupted.
        Raises ``VoicecallError``."""

    @abstractmethod
    async def ask(self, prompt: str, timeout_s: float) -> str:
        """Speak ``prompt`` and return the caller's answer. Raises ``CallNotReady`` if another
        question is open or no answer comes in time."""

    @abstractmethod
    async def play_digits(self, digits: str, *, last: bool = False) -> None:
        """Play keypad tones, if the carrier can (``dtmf_out``). ``last``: nothing is said after
        them, and the call listens. Raises ``VoicecallError``."""

    @abstractmethod
    def resume(self) -> None:
        """Called before :meth:`run` for a call that was live before a restart."""

    def hush(self) -> None:
        """The call is being ended: stop speaking and tell the record what was heard."""
        return

    def attach(self, socket: MediaSocket, started: Started) -> Attachment:
        """A media socket of this call was admitted."""
        raise AdmissionRefused(1008, "This call has no media stream")

    @abstractmethod
    def close(self, why: str) -> None:
        """The call is over: pending requests fail for ``why``."""
