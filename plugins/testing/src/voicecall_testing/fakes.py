"""Scripted providers for tests: a carrier, a recogniser, a voice and an agent.

They use no network and wait only by ``anyio.sleep``, so that they run on virtual time
(:mod:`voicecall_testing.clock`). :mod:`voicecall_testing.harness` puts them together.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager

import anyio

from voicecall.agent import AgentBackend, AgentEvent, AgentTurn, Recollection, TextDelta
from voicecall.audio import MULAW_8K, AudioFormat
from voicecall.errors import ProviderError
from voicecall.transcription import (
    Final,
    Partial,
    SessionLost,
    SpeechEnded,
    SpeechStarted,
    TranscriptionEvent,
    TranscriptionOptions,
    TranscriptionProvider,
    TranscriptionSession,
)
from voicecall.tts import PlainSpeechProvider

from .fakecarrier import NATIVE, STREAMING, ScriptedCarrier, ScriptedCodec

__all__ = [
    "NATIVE",
    "STREAMING",
    "ScriptedAgentBackend",
    "ScriptedCarrier",
    "ScriptedCodec",
    "ScriptedSpeech",
    "ScriptedTranscription",
    "ScriptedTranscriptionSession",
]

_PIECE_MS = 100


# --- recognition -----------------------------------------------------------------------------


class ScriptedTranscriptionSession(TranscriptionSession):
    """A session of :class:`ScriptedTranscription`. ``audio`` is all that was sent."""

    def __init__(self, options: TranscriptionOptions) -> None:
        self.options = options
        self.audio = bytearray()
        self._in, self._out = anyio.create_memory_object_stream[TranscriptionEvent](1000)

    @property
    def at_ms(self) -> int:
        """Position on the audio clock."""
        return round(self.options.audio_format.duration_ms(len(self.audio)))

    def send_audio(self, audio: bytes) -> None:
        self.audio += audio

    def tell(self, event: TranscriptionEvent) -> None:
        self._in.send_nowait(event)

    def commit(self) -> None:
        """Does nothing: utterances end when the test says so."""

    async def finish(self) -> None:
        self._in.close()

    def close(self) -> None:
        self._in.close()
        self._out.close()

    async def __aiter__(self) -> AsyncIterator[TranscriptionEvent]:
        async for event in self._out:
            yield event


class ScriptedTranscription(TranscriptionProvider):
    """A recogniser whose newest session hears what the test says. The next sessions raise
    ``open_errors``, one each; opening takes ``open_delay_s``."""

    def __init__(self) -> None:
        self.sessions: list[ScriptedTranscriptionSession] = []
        self.open_errors: deque[ProviderError] = deque()
        self.open_delay_s = 0.0
        self._number = 0

    @asynccontextmanager
    async def session(
        self, options: TranscriptionOptions
    ) -> AsyncIterator[ScriptedTranscriptionSession]:
        await anyio.sleep(self.open_delay_s)
        if self.open_errors:
            raise self.open_errors.popleft()
        session = ScriptedTranscriptionSession(options)
        self.sessions.append(session)
        try:
            yield session
        finally:
            session.close()

    @property
    def current(self) -> ScriptedTranscriptionSession:
        """The newest session."""
        return self.sessions[-1]

    def started(self) -> None:
        """The caller begins to speak."""
        self._number += 1
        session = self.current
        session.tell(SpeechStarted(utterance=self._number, at_ms=session.at_ms))

    def partial(self, text: str) -> None:
        session = self.current
        session.tell(Partial(utterance=self._number, at_ms=session.at_ms, text=text))

    def final(self, text: str, confidence: float | None = None) -> None:
        """The utterance is over; if ``text`` is blank, it was not understood."""
        session = self.current
        session.tell(
            Final(utterance=self._number, at_ms=session.at_ms, text=text, confidence=confidence)
        )

    def ended(self) -> None:
        """The caller stops speaking."""
        session = self.current
        session.tell(SpeechEnded(utterance=self._number, at_ms=session.at_ms))

    def lost(self, reason: str = "gone", *, fatal: bool = True) -> None:
        self.current.tell(SessionLost(reason=reason, fatal=fatal))


# --- speech ----------------------------------------------------------------------------------


class ScriptedSpeech(PlainSpeechProvider):
    """A voice whose audio can be turned back into texts by :meth:`texts_in`: each text is one byte
    value, repeated for ``ms_per_char`` per character.

    The next texts raise ``errors``, one each; None lets a text pass. Texts in ``mute`` give no
    audio. The first audio of a text takes ``delay_s``.
    """

    def __init__(self, *, ms_per_char: int = 50) -> None:
        self.ms_per_char = ms_per_char
        self.delay_s = 0.0
        self.errors: deque[ProviderError | None] = deque()
        self.mute: set[str] = set()
        self.voices: list[str | None] = []
        self._bytes: dict[str, int] = {}

    @property
    def native_format(self) -> AudioFormat:
        return MULAW_8K

    def duration_s(self, text: str) -> float:
        """How many seconds ``text`` lasts."""
        return len(text.strip()) * self.ms_per_char / 1000

    async def synthesize(self, text: str, voice: str | None) -> AsyncIterator[bytes]:
        self.voices.append(voice)
        await anyio.sleep(self.delay_s)
        error = self.errors.popleft() if self.errors else None
        if error is not None:
            raise error
        said = text.strip()
        if said in self.mute:
            return
        # 0xff is silence; at most 255 different texts per test.
        value = self._bytes.setdefault(said, len(self._bytes) % 255)
        audio = bytes([value]) * MULAW_8K.size(len(said) * self.ms_per_char)
        piece = MULAW_8K.size(_PIECE_MS)
        for start in range(0, len(audio), piece):
            yield audio[start : start + piece]

    def texts_in(self, audio: bytes) -> list[tuple[str, float]]:
        """The texts in ``audio``, in order, each with the milliseconds it lasts."""
        names: Mapping[int, str] = {value: text for text, value in self._bytes.items()}
        runs: list[tuple[int, int]] = []
        for value in audio:
            if runs and runs[-1][0] == value:
                runs[-1] = (value, runs[-1][1] + 1)
            else:
                runs.append((value, 1))
        return [
            (names[value], MULAW_8K.duration_ms(count)) for value, count in runs if value in names
        ]


# --- the agent -------------------------------------------------------------------------------

Step = str | float | AgentEvent | Exception | SystemExit


class ScriptedAgentBackend(AgentBackend):
    """An agent that answers each turn by the next script of :meth:`then`, or by ``otherwise`` if
    none is left.

    A script consists of texts (deltas of the answer), numbers (seconds to wait), events, and
    exceptions to raise. If ``stops`` is false, its waits cannot be cancelled. ``turns`` are the
    turns that were asked. ``settled`` has pairs of a turn's text and what was heard of its answer;
    settling takes ``settle_takes_s``.

    :meth:`recall` returns ``known`` after ``recall_takes_s``, or raises ``recall_error`` if that is
    set; ``recalled`` holds its arguments: turn, sources, limit.
    """

    def __init__(self, *, otherwise: str = "Yes.") -> None:
        self.otherwise = otherwise
        self.turns: list[AgentTurn] = []
        self.settled: list[tuple[str, str]] = []
        self.settle_takes_s = 0.0
        self.stops = True
        self.known: list[Recollection] = []
        self.recall_takes_s = 0.0
        self.recall_error: Exception | SystemExit | None = None
        self.recalled: list[tuple[AgentTurn, Collection[str], int]] = []
        self._scripts: deque[tuple[Step, ...]] = deque()

    def then(self, *steps: Step) -> None:
        """Add the script of one more turn."""
        self._scripts.append(steps)

    @property
    def asked(self) -> list[str]:
        """The texts of the turns."""
        return [turn.text for turn in self.turns]

    async def reply(self, turn: AgentTurn) -> AsyncIterator[AgentEvent]:
        self.turns.append(turn)
        script = self._scripts.popleft() if self._scripts else (self.otherwise,)
        for step in script:
            if isinstance(step, str):
                yield TextDelta(step)
            elif isinstance(step, int | float):
                with anyio.CancelScope(shield=not self.stops):
                    await anyio.sleep(step)
            elif isinstance(step, Exception | SystemExit):
                raise step
            else:
                yield step

    async def recall(
        self, turn: AgentTurn, sources: Collection[str], limit: int
    ) -> Sequence[Recollection]:
        self.recalled.append((turn, sources, limit))
        await anyio.sleep(self.recall_takes_s)
        if self.recall_error is not None:
            raise self.recall_error
        return self.known

    async def settle(self, turn: AgentTurn, heard_text: str) -> None:
        self.settled.append((turn.text, heard_text))
        if self.settle_takes_s:
            await anyio.sleep(self.settle_takes_s)
