"""What is noticed of the caller's audio before the voice model hears it."""

from __future__ import annotations

from collections.abc import Callable

from voicecall.audio import AudioFormat
from voicecall.seam import Seam
from voicecall_calls.conversation.realtime.gate import SpeechGate
from voicecall_calls.conversation.realtime.greeting import Greeting
from voicecall_calls.conversation.realtime.voice import ModelVoice

__all__ = ["AttentiveEar"]

_KEPT = 100
"""So many pieces of the carrier, most often of 20 ms."""
_KEPT_QUIET = 5
"""And so many from before speech is noticed."""


class AttentiveEar:
    """Notices the caller's speech before a model takes it. Where ``interrupts`` is true,
    ``interrupt`` is called then, and again until it stops something, but for a protected greeting:
    that takes longer speech, whatever the model does. Speech that breaks the protection, in which
    the model hears silence, is then given to it from its beginning."""

    def __init__(
        self,
        to_model: Callable[[bytes], None],
        voice: ModelVoice,
        greeting: Greeting,
        seam: Seam,
        *,
        audio_format: AudioFormat,
        interrupts: bool,
        interrupt: Callable[[], bool],
    ) -> None:
        self._to_model = to_model
        self._voice = voice
        self._greeting = greeting
        self._seam = seam
        self._interrupts = interrupts
        self._interrupt = interrupt
        self._kept: list[bytes]
        """The end of what came while the greeting was protected."""
        self._stops: bool
        """What the model begins while the present speech goes on is interrupted by it. Only once: a
        noise that does not end would never let it speak."""
        self.use(audio_format)

    def use(self, audio_format: AudioFormat) -> None:
        """The caller's audio comes in this format."""
        self._format = audio_format
        self._gate = SpeechGate(audio_format)
        self._kept = []
        self._stops = False

    def turn_to(self, to_model: Callable[[bytes], None]) -> Callable[[bytes], None]:
        """``to_model`` takes the caller's audio from now on; who is to get what waited for that."""
        self._to_model = to_model
        if not self._greeting.protected:
            return to_model
        self.use(self._format)
        return self.hear

    def listener(self, *, always: bool) -> Callable[[bytes], None]:
        """Who takes the caller's audio from now on: this, where it is needed (``always`` or while
        the greeting is protected), else the model itself."""
        if self._greeting.protected:
            return self.hear
        self._kept = []
        return self.hear if always else self._to_model

    def hear(self, audio: bytes) -> None:
        """The next caller audio."""
        began = self._gate.hear(audio)
        lasted_ms = self._gate.lasted_ms
        if self._greeting.protected:
            # The model hears silence: of what does not break that, no words will come.
            self._kept.append(audio)
            del self._kept[: -_KEPT if lasted_ms else -_KEPT_QUIET]
            kept = self._kept
            if self._greeting.broken_by_speech(lasted_ms):
                self._speaks(lasted_ms)
                self._interrupt()
                audio = b"".join(kept)
        elif began:
            self._speaks(lasted_ms)
            self._stops = self._interrupts and not self._interrupt()
        elif self._stops:
            self._go_on(lasted_ms)
        self._to_model(audio)

    def _go_on(self, lasted_ms: float) -> None:
        if not lasted_ms:
            self._stops = False
        elif self._gate.loud and self._interrupt():
            self._stops = False
            self._speaks(lasted_ms)

    def _speaks(self, lasted_ms: float) -> None:
        """The caller does, for so long already."""
        self._voice.caller.started = self._seam.now_ms() - round(lasted_ms)
