"""Caller audio on its way from the line to the voice model, and what is noticed on the way."""

from __future__ import annotations

from collections.abc import Callable

from voicecall.audio import AudioFormat
from voicecall.seam import Seam
from voicecall_calls.conversation.realtimecaller import MediaWatch
from voicecall_calls.conversation.realtimegate import SpeechGate
from voicecall_calls.conversation.realtimegreeting import Greeting
from voicecall_calls.conversation.realtimelink import ModelLink
from voicecall_calls.conversation.realtimevoice import ModelVoice

__all__ = ["ModelEar"]


class ModelEar:
    """``notices``: the model leaves it to us to notice that the caller speaks. Where ``interrupts``
    is true, ``interrupt`` is called then, but for a protected greeting: that takes longer speech,
    whatever the model does."""

    # As in the pacer: a frame should touch little memory.
    __slots__ = (
        "_gate",
        "_greeting",
        "_interrupt",
        "_interrupts",
        "_link",
        "_monotonic",
        "_notices",
        "_seam",
        "_voice",
        "_watch",
    )

    def __init__(
        self,
        link: ModelLink,
        voice: ModelVoice,
        greeting: Greeting,
        watch: MediaWatch,
        seam: Seam,
        *,
        audio_format: AudioFormat,
        notices: bool,
        interrupts: bool,
        interrupt: Callable[[], None],
    ) -> None:
        self._link = link
        self._voice = voice
        self._greeting = greeting
        self._watch = watch
        self._seam = seam
        self._monotonic = seam.monotonic
        self._notices = notices
        self._interrupts = interrupts
        self._interrupt = interrupt
        self.use(audio_format)

    def use(self, audio_format: AudioFormat) -> None:
        """The caller's audio comes in this format."""
        self._gate = SpeechGate(audio_format)

    def hear(self, audio: bytes) -> None:
        """The next caller audio."""
        monotonic, hear = self._monotonic, self._link.hear
        self._watch.heard_at = monotonic()
        if self._notices or self._greeting.protected:
            self._listen_in(audio)
        hear(audio)

    def _listen_in(self, audio: bytes) -> None:
        began = self._gate.hear(audio)
        if began:
            self._voice.caller.started = self._seam.now_ms()
        if self._greeting.protected:
            if self._greeting.broken_by_speech(self._gate.lasted_ms):
                self._interrupt()
        elif began and self._interrupts:
            self._interrupt()
