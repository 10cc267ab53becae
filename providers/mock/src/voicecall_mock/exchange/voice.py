"""The phones' voice: scripts are synthesised before a call, so that its audio never stalls."""

from __future__ import annotations

import anyio

from voicecall import MULAW_8K
from voicecall.errors import ProviderError
from voicecall.tts import SpeechProvider

from .ledger import Ledger
from .playback import FRAME
from .script import Script, Spoken

__all__ = ["Voice"]


class _Collector:
    def __init__(self) -> None:
        self.audio = bytearray()

    def write(self, item_id: str, audio: bytes) -> None:
        self.audio += audio


def _whole_frames(audio: bytes) -> bytes:
    return audio.ljust(-(-len(audio) // FRAME) * FRAME, b"\xff")


class Voice:
    """Clips by text. Without a speech provider only steps with their own audio are heard."""

    def __init__(self, speech: SpeechProvider | None, voice: str | None, ledger: Ledger) -> None:
        self._speech = speech
        self._voice = voice
        self._ledger = ledger
        self._clips: dict[str, bytes] = {}
        self._lock = anyio.Lock()

    async def prepare(self, script: Script) -> None:
        """Synthesise the texts of ``script`` that have no clip yet."""
        if self._speech is None:
            return
        async with self._lock:
            for step in script:
                if isinstance(step, Spoken) and not step.audio and step.text not in self._clips:
                    self._clips[step.text] = await self._synthesise(self._speech, step.text)

    async def _synthesise(self, speech: SpeechProvider, text: str) -> bytes:
        collector = _Collector()
        try:
            async with speech.session(self._voice, MULAW_8K) as session:
                utterance = session.utterance("clip", collector)
                utterance.send(text)
                utterance.flush()
                await utterance.done()
        except ProviderError as error:
            self._ledger.add("speech-failed", text=text, error=str(error))
        return _whole_frames(bytes(collector.audio))

    def clip(self, step: Spoken) -> bytes:
        """Mu-law audio of a step in whole frames; empty if there is no voice for it."""
        return _whole_frames(step.audio) or self._clips.get(step.text, b"")
