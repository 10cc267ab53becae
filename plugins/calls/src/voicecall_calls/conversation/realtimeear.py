"""What is noticed of the caller's audio before the voice model hears it."""

from __future__ import annotations

from collections.abc import Callable

from voicecall.audio import AudioFormat
from voicecall.seam import Seam
from voicecall_calls.conversation.realtimegate import SpeechGate
from voicecall_calls.conversation.realtimegreeting import Greeting
from voicecall_calls.conversation.realtimevoice import ModelVoice

__all__ = ["AttentiveEar"]


class AttentiveEar:
    """Notices the caller's speech before ``to_model`` takes it. Where ``interrupts`` is true,
    ``interrupt`` is called then, but for a protected greeting: that takes longer speech, whatever
    the model does. ``failed`` is told why ``to_model`` did not take it."""

    def __init__(
        self,
        to_model: Callable[[bytes], None],
        voice: ModelVoice,
        greeting: Greeting,
        seam: Seam,
        *,
        audio_format: AudioFormat,
        interrupts: bool,
        interrupt: Callable[[], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self.to_model = to_model
        self._voice = voice
        self._greeting = greeting
        self._seam = seam
        self._interrupts = interrupts
        self._interrupt = interrupt
        self._failed = failed
        self.use(audio_format)

    def use(self, audio_format: AudioFormat) -> None:
        """The caller's audio comes in this format."""
        self._gate = SpeechGate(audio_format)

    def hear(self, audio: bytes) -> None:
        """The next caller audio."""
        began = self._gate.hear(audio)
        if began:
            self._voice.caller.started = self._seam.now_ms()
        if self._greeting.protected:
            if self._greeting.broken_by_speech(self._gate.lasted_ms):
                self._interrupt()
        elif began and self._interrupts:
            self._interrupt()
        try:
            self.to_model(audio)
        except Exception as error:  # noqa: BLE001 (a model's code can raise anything)
            self._failed(error)
