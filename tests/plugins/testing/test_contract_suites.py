"""The conformance suites fail for providers that do not conform."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest

from voicecall.agent import AgentBackend
from voicecall.audio import MULAW_8K, PCM16_16K, AudioFormat
from voicecall.errors import ProviderUnavailable
from voicecall.media import AudioSink
from voicecall.realtime import (
    RealtimeEvent,
    RealtimeOptions,
    RealtimeProvider,
    RealtimeSession,
    ResponseDone,
    ResponseStarted,
    SessionLost,
)
from voicecall.transcription import (
    Final,
    SpeechStarted,
    TranscriptionEvent,
    TranscriptionOptions,
    TranscriptionProvider,
    TranscriptionSession,
)
from voicecall.tts import SpeechProvider, SpeechSession, Utterance
from voicecall_testing.clock import virtual_backend
from voicecall_testing.contracts.agent import AgentContract
from voicecall_testing.contracts.audio import silence
from voicecall_testing.contracts.failure import (
    RealtimeFailureContract,
    TranscriptionFailureContract,
)
from voicecall_testing.contracts.realtime import RealtimeContract
from voicecall_testing.contracts.transcription import TranscriptionContract, hear
from voicecall_testing.contracts.tts import SpeechContract
from voicecall_testing.duplex import ScriptedRealtime, ScriptedRealtimeSession
from voicecall_testing.echo import EchoProvider
from voicecall_testing.fakes import ScriptedAgentBackend, ScriptedTranscription

pytestmark = [pytest.mark.unit, pytest.mark.anyio]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_backend


# --- a recogniser whose events never end ------------------------------------------------------


class EndlessSession(TranscriptionSession):
    def send_audio(self, audio: bytes) -> None: ...

    def commit(self) -> None: ...

    async def finish(self) -> None: ...

    async def __aiter__(self) -> AsyncIterator[TranscriptionEvent]:
        yield SpeechStarted(utterance=1, at_ms=0)
        await anyio.sleep_forever()


class Endless(TranscriptionProvider):
    @asynccontextmanager
    async def session(self, options: TranscriptionOptions) -> AsyncIterator[TranscriptionSession]:
        yield EndlessSession()


class EndlessSuite(TranscriptionContract):
    @pytest.fixture
    def provider(self) -> TranscriptionProvider:
        return Endless()

    @pytest.fixture
    def speech(self) -> Sequence[tuple[str, bytes]]:
        return []


async def test_a_recogniser_that_never_ends_is_given_up() -> None:
    sentence = ("hello", silence(100, MULAW_8K))
    with pytest.raises(TimeoutError, match=r"the end of the iteration after finish\(\)"):
        await hear(EndlessSession(), sentence[1])
    suite = EndlessSuite()
    with pytest.raises(TimeoutError, match="the end of the iteration"):
        await suite.test_audio_may_come_before_anyone_reads(Endless(), [sentence])
    with pytest.raises(TimeoutError, match=r"the Final after commit\(\)"):
        await suite.test_commit_ends_the_utterance(Endless(), [sentence])


# --- a recogniser that takes every format for mu-law -------------------------------------------


class OneFormatSession(EndlessSession):
    """Understands audio that lasts two seconds or less."""

    def __init__(self) -> None:
        self.audio = bytearray()
        self.over = anyio.Event()

    def send_audio(self, audio: bytes) -> None:
        self.audio += audio

    async def finish(self) -> None:
        self.over.set()

    async def __aiter__(self) -> AsyncIterator[TranscriptionEvent]:
        await self.over.wait()
        at_ms = round(MULAW_8K.duration_ms(len(self.audio)))
        if at_ms <= 2000:
            yield Final(utterance=1, at_ms=at_ms, text="hello")


class OneFormat(TranscriptionProvider):
    @asynccontextmanager
    async def session(self, options: TranscriptionOptions) -> AsyncIterator[TranscriptionSession]:
        yield OneFormatSession()


async def test_a_recogniser_must_take_the_format_that_it_is_told() -> None:
    suite, sentence = EndlessSuite(), ("hello", silence(400, MULAW_8K))
    await suite.test_other_formats_are_taken(OneFormat(), [sentence], AudioFormat("alaw", 8000))
    with pytest.raises(AssertionError):
        await suite.test_other_formats_are_taken(OneFormat(), [sentence], PCM16_16K)


# --- a voice model that never opens -----------------------------------------------------------


class Shut(EchoProvider):
    @asynccontextmanager
    async def session(self, options: RealtimeOptions) -> AsyncIterator[RealtimeSession]:
        async with super().session(options) as session:
            await anyio.sleep_forever()
            yield session


class ShutSuite(RealtimeContract):
    @pytest.fixture
    def provider(self) -> RealtimeProvider:
        return Shut()

    @pytest.fixture
    def speech(self) -> bytes:
        return b""


async def test_a_voice_model_that_never_opens_is_given_up() -> None:
    with pytest.raises(TimeoutError, match="a session that opens and closes: waited 20 s"):
        await ShutSuite().test_context_draws_no_response(Shut())


# --- a voice model that lets itself be talked over ----------------------------------------------


class MeekSession(ScriptedRealtimeSession):
    """Breaks off when the caller speaks. ``firm``: unless it may not be interrupted."""

    firm = False
    _talked_over = False

    async def greet(self, instructions: str) -> None:
        self.tell(ResponseStarted("r"))
        self.write("a", 200)

    def send_audio(self, audio: bytes) -> None:
        if not self._talked_over:
            self._talked_over = True
            goes_on = self.firm and not self.options.interruptible
            self.tell(ResponseDone("r", "completed" if goes_on else "cancelled"))


class Meek(ScriptedRealtime):
    def __init__(self, *, firm: bool) -> None:
        super().__init__()
        self.firm = firm

    @asynccontextmanager
    async def session(self, options: RealtimeOptions) -> AsyncIterator[ScriptedRealtimeSession]:
        session = MeekSession(self, options)
        session.firm = self.firm
        with closing(session):
            yield session


async def test_a_voice_model_must_not_break_off_where_it_may_not_be_interrupted() -> None:
    test = ShutSuite().test_where_the_caller_may_not_interrupt_the_answer_goes_on
    speech = silence(40, MULAW_8K)
    await test(Meek(firm=True), speech)
    with pytest.RaisesGroup(AssertionError):
        await test(Meek(firm=False), speech)


# --- a voice model whose responses have no ids ---------------------------------------------------


class NamingSession(ScriptedRealtimeSession):
    """Gives its responses the names of its provider."""

    names: list[str]

    async def greet(self, instructions: str) -> None:
        name = self.names.pop()
        self.tell(ResponseStarted(name), ResponseDone(name, "completed"))


class Naming(ScriptedRealtime):
    def __init__(self, *names: str) -> None:
        super().__init__()
        self.names = list(names)

    @asynccontextmanager
    async def session(self, options: RealtimeOptions) -> AsyncIterator[ScriptedRealtimeSession]:
        session = NamingSession(self, options)
        session.names = self.names
        with closing(session):
            yield session


async def test_a_voice_model_must_name_its_responses() -> None:
    test = ShutSuite().test_each_response_has_an_id_of_its_own
    await test(Naming("a", "b"))
    for names in [("", ""), ("a", ""), ("a", "a")]:
        with pytest.RaisesGroup(AssertionError):
            await test(Naming(*names))


# --- a voice that cannot be cancelled ---------------------------------------------------------


class StubbornUtterance(Utterance):
    """Speaks half a second for each text, 20 ms every 20 ms, whatever happens. ``quits``: reports a
    cancelled utterance as done at once."""

    def __init__(self, item: str, sink: AudioSink, *, quits: bool) -> None:
        self._item = item
        self._sink = sink
        self._quits = quits
        self._texts = 0
        self._cancelled = False
        self._flushed = anyio.Event()
        self._spoken = anyio.Event()

    def send(self, text: str) -> None:
        self._texts += 1

    def flush(self) -> None:
        self._flushed.set()

    def cancel(self, heard_ms: float) -> None:
        self._cancelled = True

    async def done(self) -> None:
        if not (self._quits and self._cancelled):
            await self._spoken.wait()

    async def run(self) -> None:
        await self._flushed.wait()
        for _ in range(25 * self._texts):
            self._sink.write(self._item, b"\x00" * MULAW_8K.size(20))
            await anyio.sleep(0.02)
        self._spoken.set()


class StubbornSession(SpeechSession):
    def __init__(self, tasks: anyio.abc.TaskGroup, *, quits: bool) -> None:
        self._tasks = tasks
        self._quits = quits

    def utterance(self, item_id: str, sink: AudioSink) -> Utterance:
        utterance = StubbornUtterance(item_id, sink, quits=self._quits)
        self._tasks.start_soon(utterance.run)
        return utterance


class Stubborn(SpeechProvider):
    def __init__(self, *, quits: bool) -> None:
        self._quits = quits

    @asynccontextmanager
    async def session(
        self, voice: str | None, audio_format: AudioFormat
    ) -> AsyncIterator[SpeechSession]:
        async with anyio.create_task_group() as tasks:
            yield StubbornSession(tasks, quits=self._quits)
            tasks.cancel_scope.cancel()


class StubbornSuite(SpeechContract):
    @pytest.fixture
    def provider(self) -> SpeechProvider:
        return Stubborn(quits=True)


@pytest.mark.parametrize("quits", [False, True])
async def test_a_voice_that_goes_on_after_cancel_does_not_conform(quits: bool) -> None:
    with pytest.RaisesGroup(AssertionError, allow_unwrapped=True, flatten_subgroups=True):
        await StubbornSuite().test_cancel_stops_the_audio(Stubborn(quits=quits))


# --- what never comes to an end ---------------------------------------------------------------


class SpeechlessUtterance(StubbornUtterance):
    async def done(self) -> None:
        await anyio.sleep_forever()


class Speechless(SpeechProvider):
    @asynccontextmanager
    async def session(
        self, voice: str | None, audio_format: AudioFormat
    ) -> AsyncIterator[SpeechSession]:
        class Session(SpeechSession):
            def utterance(self, item_id: str, sink: AudioSink) -> Utterance:
                return SpeechlessUtterance(item_id, sink, quits=False)

        yield Session()


async def test_a_voice_that_is_never_done_is_given_up() -> None:
    with pytest.raises(TimeoutError, match=r"the end of done\(\): waited 20 s"):
        await StubbornSuite().test_nothing_to_say_is_no_error(Speechless(), None)


class AgentSuite(AgentContract):
    @pytest.fixture
    def backend(self) -> AgentBackend:
        return ScriptedAgentBackend()

    @pytest.fixture
    def slow(self) -> AgentBackend:
        return ScriptedAgentBackend()

    async def remembered(
        self, backend: AgentBackend, session_key: str
    ) -> Sequence[tuple[str, str]]:
        return []


async def test_an_agent_that_never_answers_is_given_up() -> None:
    suite = AgentSuite()
    backend = ScriptedAgentBackend()
    backend.then(10_000)
    with pytest.raises(TimeoutError, match="the end of an answer: waited 60 s"):
        await suite.test_the_answer_is_streamed(backend)
    backend.then()
    with pytest.RaisesGroup(pytest.RaisesExc(TimeoutError, match="the first words")):
        await suite.test_cancelling_the_reader_stops_the_run(backend)


# --- providers that fail ----------------------------------------------------------------------


class ShutRecogniserSuite(TranscriptionFailureContract):
    @pytest.fixture
    def failing(self) -> TranscriptionProvider:
        recogniser = ScriptedTranscription()
        recogniser.open_errors.extend(ProviderUnavailable("no line", provider="x") for _ in "ab")
        return recogniser


class TestShutRecogniser(ShutRecogniserSuite):
    reason = "no line"


async def test_a_recogniser_that_is_lost_without_a_word_is_given_up() -> None:
    with pytest.raises(TimeoutError, match="a fatal SessionLost: waited 20 s"):
        await ShutRecogniserSuite().test_a_failure_is_told(Endless(), b"")


class LostSession(ScriptedRealtimeSession):
    """Asked to greet, yields the events ``told`` and nothing more."""

    told: Sequence[RealtimeEvent] = ()

    async def greet(self, instructions: str) -> None:
        self.tell(*self.told)
        self.end()


class LostModel(ScriptedRealtime):
    def __init__(self, *told: RealtimeEvent) -> None:
        super().__init__()
        self.told = told

    @asynccontextmanager
    async def session(self, options: RealtimeOptions) -> AsyncIterator[ScriptedRealtimeSession]:
        session = LostSession(self, options)
        session.told = self.told
        with closing(session):
            yield session


class LostModelSuite(RealtimeFailureContract):
    @pytest.fixture
    def failing(self) -> RealtimeProvider:
        return LostModel(SessionLost("a moment", False), SessionLost("out of credit", True))


class TestLostModel(LostModelSuite):
    reason = "out of credit"


@pytest.mark.parametrize("told", [(), (SessionLost("", True),), (SessionLost("soon", False),)])
async def test_a_model_that_is_lost_without_a_reason_does_not_conform(
    told: Sequence[RealtimeEvent],
) -> None:
    with pytest.raises(AssertionError):
        await LostModelSuite().test_a_failure_is_told(LostModel(*told))


# --- a suite that lacks what it needs ---------------------------------------------------------


def test_a_suite_without_its_fixtures_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "test_hum.py").write_text(
        "from voicecall_testing.contracts.telephony import TelephonyContract\n"
        "from voicecall_testing.contracts.tts import SpeechContract\n\n\n"
        "class TestHum(SpeechContract):\n"
        "    def providr(self): ...\n\n\n"
        "class Shared(TelephonyContract): ...\n"
    )
    options = ["-p", "no:cacheprovider", "-W", "error", "test_hum.py"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == pytest.ExitCode.INTERRUPTED, done.stdout + done.stderr
    assert "TestHum must override these of its conformance suite: provider" in done.stdout
