"""Detection of the caller's speech before the voice model gets the audio."""

from __future__ import annotations

from collections.abc import Callable

from voicecall.audio import AudioFormat
from voicecall.seam import Seam
from voicecall_calls.conversation.realtime.gate import SpeechGate
from voicecall_calls.conversation.realtime.greeting import Greeting
from voicecall_calls.conversation.realtime.voice import ModelVoice

__all__ = ["AttentiveEar"]

_KEPT = 100
"""Number of the carrier's frames kept while speech lasts, usually of 20 ms each."""
_KEPT_QUIET = 5
"""Number of frames kept while no speech is detected."""


class AttentiveEar:
    """Passes the caller's audio to the model and detects speech in it.

    If ``interrupts`` is true, ``interrupt`` is called when speech begins, and again during that
    speech until it has stopped something. A protected greeting, during which the model hears
    silence, is only broken by longer speech, for every kind of model; the model is then given that
    speech from its beginning."""

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
        """The last frames that arrived while the greeting was protected."""
        self._stops: bool
        """The current speech has interrupted nothing yet, and will interrupt what the model begins
        to say. It does so only once: otherwise an endless noise would never let the model speak."""
        self.use(audio_format)

    def use(self, audio_format: AudioFormat) -> None:
        """Start over, with caller audio in this format."""
        self._format = audio_format
        self._gate = SpeechGate(audio_format)
        self._kept = []
        self._stops = False

    def turn_to(self, to_model: Callable[[bytes], None]) -> Callable[[bytes], None]:
        """Pass the caller's audio to ``to_model`` from now on. Returns the function that should get
        the audio that was kept until now."""
        self._to_model = to_model
        if not self._greeting.protected:
            return to_model
        self.use(self._format)
        return self.hear

    def listener(self, *, always: bool) -> Callable[[bytes], None]:
        """The function that should get the caller's audio: :meth:`hear` if it is needed
        (``always``, or while the greeting is protected), otherwise the model's own."""
        if self._greeting.protected:
            return self.hear
        self._kept = []
        return self.hear if always else self._to_model

    def hear(self, audio: bytes) -> None:
        """Take the next piece of caller audio."""
        began = self._gate.hear(audio)
        lasted_ms = self._gate.lasted_ms
        if self._greeting.protected:
            # The model hears silence: there will be no words from what does not break that.
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
        """Note that the caller has been speaking for ``lasted_ms``."""
        self._voice.caller.started = self._seam.now_ms() - round(lasted_ms)
