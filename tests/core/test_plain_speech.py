"""Speech sessions over plain requests: cancelled, failing, and with samples cut in two."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from voicecall.audio import MULAW_8K, PCM16_8K, AudioFormat
from voicecall.errors import ProviderUnavailable
from voicecall.tts import PlainSpeechProvider, SpeechSession
from voicecall_testing.clock import virtual_backend

pytestmark = [pytest.mark.unit, pytest.mark.anyio]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_backend


class Reader(PlainSpeechProvider):
    """Yields ``pieces`` for every text without waiting, then raises ``error``."""

    def __init__(
        self, pieces: Iterable[bytes], error: Exception | SystemExit | None = None
    ) -> None:
        self.pieces = list(pieces)
        self.error = error
        self.format = MULAW_8K
        self.given = self.closed = 0

    @property
    def native_format(self) -> AudioFormat:
        return self.format

    async def synthesize(self, text: str, voice: str | None) -> AsyncIterator[bytes]:
        try:
            for piece in self.pieces:
                self.given += 1
                yield piece
            if self.error is not None:
                raise self.error
        finally:
            self.closed += 1


class Ear:
    """A sink."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def write(self, item_id: str, audio: bytes) -> None:
        self.pieces.append(audio)


async def test_one_that_never_waits_can_be_cancelled() -> None:
    reader, ear = Reader([bytes(160)] * 1000), Ear()
    async with reader.session(None, MULAW_8K) as session:
        utterance = session.utterance("item", ear)
        utterance.send("Good day.")
        utterance.flush()
        while len(ear.pieces) < 5:
            await anyio.lowlevel.checkpoint()
        written = len(ear.pieces)
        assert written < 10
        utterance.cancel(0.0)
        await utterance.done()
        assert len(ear.pieces) == written
        assert reader.closed == 1
        # Nothing of an utterance that is cancelled before it begins.
        utterance = session.utterance("item", ear)
        utterance.send("Good day.")
        utterance.cancel(0.0)
        await utterance.done()
        assert len(ear.pieces) == written


async def test_what_was_heard_is_known_text_by_text() -> None:
    texts = ["Good day to you.", "How are you?", "Well then."]
    reader = Reader([bytes(MULAW_8K.size(400))])
    async with reader.session(None, MULAW_8K) as session:
        utterance = session.utterance("item", Ear())
        for text in texts:
            utterance.send(text + " ")
        utterance.flush()
        await utterance.done()
        assert utterance.cancel(0.0) == ""
        assert utterance.cancel(200.0) == "Good day"
        assert utterance.cancel(400.0) == "Good day to you."
        assert utterance.cancel(667.0) == "Good day to you. How are"
        assert utterance.cancel(9000.0) == " ".join(texts)


@pytest.mark.parametrize(
    ("error", "raised"), [(KeyError("a mistake"), KeyError), (SystemExit(3), RuntimeError)]
)
async def test_one_that_breaks_off_has_not_spoken(
    error: Exception | SystemExit, raised: type[Exception]
) -> None:
    reader, ear = Reader([bytes(160)], error), Ear()
    opened: list[SpeechSession] = []

    lost: list[ExceptionGroup] = []

    async def hold() -> None:
        try:
            async with reader.session(None, MULAW_8K) as session:
                opened.append(session)
                await anyio.sleep_forever()
        except ExceptionGroup as group:
            lost.append(group)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hold)
        await anyio.sleep(1)
        utterance = opened[0].utterance("item", ear)
        utterance.send("Good day.")
        utterance.flush()
        with pytest.raises(ProviderUnavailable, match=f"Reader: {type(error).__name__}"):
            await utterance.done()
    assert ear.pieces == [bytes(160)]
    assert [type(error) for error in lost[0].exceptions] == [raised]


async def test_one_that_its_session_takes_with_it_has_not_spoken() -> None:
    reader = Reader([bytes(160)])
    async with reader.session(None, MULAW_8K) as session:
        utterance = session.utterance("item", Ear())
        utterance.send("Good day.")
        await anyio.sleep(1)
    with pytest.raises(ProviderUnavailable, match="Reader: the session ended"):
        await utterance.done()


async def test_samples_stay_whole_whatever_the_pieces_are() -> None:
    audio = bytes(range(200))
    reader, ear = Reader([audio[:3], audio[3:4], audio[4:5], audio[5:120], audio[120:]]), Ear()
    reader.format = PCM16_8K
    async with reader.session(None, PCM16_8K) as session:
        utterance = session.utterance("item", ear)
        utterance.send("Good day.")
        utterance.flush()
        await utterance.done()
    assert b"".join(ear.pieces) == audio
    assert all(len(piece) % 2 == 0 for piece in ear.pieces)
