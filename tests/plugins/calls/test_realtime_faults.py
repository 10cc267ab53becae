"""A voice model that raises unexpected errors: its session is lost, the call goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal, cast

import anyio
import pytest

from voicecall.audio import PCM16_24K
from voicecall.errors import ProviderUnavailable
from voicecall.model import EndDetail
from voicecall.realtime import (
    Interrupted,
    Interrupter,
    RealtimeCapabilities,
    RealtimeEvent,
    RealtimeOptions,
    SessionExpiring,
    SessionLost,
    SpeechStarted,
    ToolCall,
)
from voicecall_calls.config import PhrasesConfig
from voicecall_testing.clock import virtual_backend
from voicecall_testing.duplex import ScriptedRealtime, ScriptedRealtimeSession
from voicecall_testing.harness import Phone

from .realtime_room import open_realtime

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

SAY = PhrasesConfig()
LOUD = b"\x20" * 160
TROUBLES = [
    ProviderUnavailable("no way there", provider="model"),
    ConnectionResetError("reset"),
    KeyError("theirs"),
]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_backend


async def greeted(phone: Phone) -> None:
    """A call whose greeting is over."""
    await phone.call_in()
    await phone.settle(1.5)


class FaultySession(ScriptedRealtimeSession):
    """``faults`` are raised, by the name of what is asked of it; it ``takes_result_s`` to take the
    result of a tool."""

    def __init__(self, provider: ScriptedRealtime, options: RealtimeOptions) -> None:
        super().__init__(provider, options)
        self.faults: dict[str, Exception | SystemExit] = {}
        self.takes_result_s = 0.0

    def _fail(self, what: str) -> None:
        if what in self.faults:
            raise self.faults[what]

    def send_audio(self, audio: bytes) -> None:
        self._fail("audio")
        super().send_audio(audio)

    async def greet(self, instructions: str) -> None:
        self._fail("greet")
        await super().greet(instructions)

    async def say(self, text: str) -> None:
        self._fail("say")
        await super().say(text)

    def mute(self, muted: bool) -> None:
        self._fail("mute")
        super().mute(muted)

    async def interrupt(self, heard: Mapping[str, float]) -> None:
        self._fail("interrupt")
        await super().interrupt(heard)

    async def tool_result(
        self,
        call_id: str,
        result: Any,
        *,
        will_continue: bool = False,
        when: Literal["now", "idle", "silent"] = "now",
    ) -> None:
        self._fail("interim" if will_continue else "result")
        await anyio.sleep(self.takes_result_s)
        await super().tool_result(call_id, result, will_continue=will_continue, when=when)

    async def __aiter__(self) -> AsyncIterator[RealtimeEvent]:
        async for event in super().__aiter__():
            self._fail("event")
            yield event


class FaultyModel(ScriptedRealtime):
    """``faults`` and ``takes_result_s`` are those of its next session, which takes ``opens_s`` to
    open and ``end_s`` to end, also when it is cancelled (``shielded``); ``broken`` breaks the
    reader task of a session."""

    def __init__(self, capabilities: RealtimeCapabilities | None = None) -> None:
        super().__init__(capabilities)
        self.faults: dict[str, Exception | SystemExit] = {}
        self.takes_result_s = 0.0
        self.opens_s = 0.0
        self.end_s = 0.0
        self.shielded = False
        self.broken: Exception | None = None
        self._broke = anyio.Event()

    def break_reader(self, error: Exception) -> None:
        self.broken = error
        self._broke.set()

    @asynccontextmanager
    async def session(self, options: RealtimeOptions) -> AsyncIterator[ScriptedRealtimeSession]:
        with anyio.CancelScope(shield=self.shielded):
            await anyio.sleep(self.opens_s)
        session = FaultySession(self, options)
        session.faults, self.faults = self.faults, {}
        session.takes_result_s = self.takes_result_s
        self.sessions.append(session)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._read)
                yield session
                with anyio.CancelScope(shield=self.shielded):
                    await anyio.sleep(self.end_s)
                tasks.cancel_scope.cancel()
        finally:
            session.close()

    async def _read(self) -> None:
        await self._broke.wait()
        self._broke = anyio.Event()
        if self.broken is not None:
            raise self.broken


async def test_a_session_that_yields_what_is_no_event_is_told_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = FaultyModel()
    async with open_realtime(tmp_path, model) as phone:
        await greeted(phone)
        model.current.tell(cast(Any, {"type": "transcript"}))
        await phone.settle(1)
        assert len(model.sessions) == 2
        assert phone.record.live
        call_id = phone.record.call_id
    assert f"call {call_id}: the voice model's session is lost: TypeError\n" in caplog.text
    assert "TypeError: dict is not an event of a voice model" in caplog.text


class AwaitingSession(ScriptedRealtimeSession):
    """Violates the contract: its coroutine is never awaited."""

    async def send_audio(self, audio: bytes) -> None:  # type: ignore[override]
        raise AssertionError("nobody awaits this")


class AwaitingModel(ScriptedRealtime):
    @asynccontextmanager
    async def session(self, options: RealtimeOptions) -> AsyncIterator[ScriptedRealtimeSession]:
        session = AwaitingSession(self, options)
        try:
            yield session
        finally:
            session.close()


async def test_a_session_whose_send_audio_is_async_is_told_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_realtime(tmp_path, AwaitingModel()) as phone:
        await phone.call_in()
        await phone.settle(60)
        assert not phone.record.live
    wrong = "AwaitingSession.send_audio is a coroutine function; it must be a plain one"
    assert caplog.text.count(wrong) == 2


@pytest.mark.parametrize("error", TROUBLES)
@pytest.mark.parametrize("by_reader", [False, True])
async def test_whatever_a_session_raises_it_is_lost_and_opened_again(
    tmp_path: Path, error: Exception, by_reader: bool, caplog: pytest.LogCaptureFixture
) -> None:
    model = FaultyModel()
    async with open_realtime(tmp_path, model) as phone:
        await greeted(phone)
        if by_reader:
            model.break_reader(error)
        else:
            session = model.current
            assert isinstance(session, FaultySession)
            session.faults["event"] = error
            session.hears("Hello?")
        await phone.settle(0.1)
        await phone.socket.speak(LOUD * 3)
        await phone.settle(1)
        assert len(model.sessions) == 2
        assert bytes(model.current.audio) == LOUD * 3
        model.current.hears("Still there?")
        await phone.settle(0.5)
        assert phone.said[-1] == ("user", "Still there?")
        assert phone.record.live
    logged = caplog.text.count("the voice model raised an error that is not a ProviderError")
    assert logged == (0 if isinstance(error, ProviderUnavailable) else 1)


@pytest.mark.parametrize("error", TROUBLES)
async def test_an_interruption_that_fails_before_the_loss_does_not_end_the_call(
    tmp_path: Path, error: Exception
) -> None:
    model = FaultyModel()
    model.faults["interrupt"] = error
    async with open_realtime(tmp_path, model) as phone:
        await greeted(phone)
        model.current.speak("A long sentence.", 5000)
        await phone.settle(1)
        model.current.tell(SpeechStarted(0))
        await phone.settle(0.1)
        model.current.tell(SessionLost("gone", fatal=True))
        await phone.settle(2)
        assert len(model.sessions) == 2
        assert phone.record.live


@pytest.mark.parametrize("error", [*TROUBLES, SystemExit(3)])
async def test_a_greeting_that_raises_is_one_that_failed(
    tmp_path: Path, error: Exception | SystemExit
) -> None:
    model = FaultyModel()
    model.faults["greet"] = error
    async with open_realtime(tmp_path, model, inboundGreeting="Good day.") as phone:
        await phone.call_in()
        await phone.settle(60)
        assert phone.record.end_detail is EndDetail.MESSAGE_FAILED
        assert phone.said == [("bot", SAY.failed)]


@pytest.mark.parametrize("error", [KeyError("theirs"), SystemExit(3)])
async def test_a_session_that_cannot_be_muted_can_be_interrupted(
    tmp_path: Path, error: Exception | SystemExit
) -> None:
    model = FaultyModel()
    model.faults["mute"] = error
    model.answer_ms = 20_000
    async with open_realtime(tmp_path, model) as phone:
        await phone.call_in()
        await phone.settle(1)
        model.current.tell(Interrupted())
        await phone.settle(0.1)
        assert phone.socket.clears == 1


@pytest.mark.parametrize("error", TROUBLES)
async def test_words_that_the_model_raises_at_are_refused(tmp_path: Path, error: Exception) -> None:
    model = FaultyModel()
    model.faults["say"] = error
    async with open_realtime(tmp_path, model) as phone:
        await greeted(phone)
        with pytest.raises(ProviderUnavailable):
            await phone.operations.speak(phone.record.call_id, "Good day.")
        await phone.settle(1)
        assert phone.record.live


class LockedModel(ScriptedRealtime):
    def session(self, options: RealtimeOptions) -> Any:
        raise SystemExit(3)


async def test_one_that_raises_system_exit_before_a_session_ends_its_own_call(
    tmp_path: Path,
) -> None:
    async with open_realtime(tmp_path, LockedModel()) as phone:
        await phone.call_in()
        await phone.settle(60)
        assert phone.record.end_detail is EndDetail.LISTENING_FAILED


@pytest.mark.parametrize("what", ["say", "interrupt", "interim", "event"])
async def test_one_that_raises_system_exit_ends_no_call(tmp_path: Path, what: str) -> None:
    model = FaultyModel()
    model.faults = {what: SystemExit(3)}
    async with open_realtime(tmp_path, model) as phone:
        await greeted(phone)
        phone.agent.then(4.0, "Sunny.")
        model.current.speak("A long sentence.", 5000)
        await phone.settle(1)
        model.current.tell(Interrupted())
        await phone.settle(1)
        question = {"question": "What is the weather like?"}
        model.current.tell(ToolCall("t1", "voicecall_agent_consult", question))
        if what == "say":
            with pytest.raises(ProviderUnavailable, match="SystemExit"):
                await phone.operations.speak(phone.record.call_id, "Your taxi is here.")
        await phone.settle(6)
        assert phone.record.live
        assert len(model.sessions) == (2 if what == "event" else 1)


@pytest.mark.parametrize("how", ["raises", "never takes it"])
async def test_a_model_that_takes_no_result_can_hang_up(tmp_path: Path, how: str) -> None:
    model = FaultyModel()
    if how == "raises":
        model.faults = {"result": ProviderUnavailable("gone", provider="model")}
    else:
        model.takes_result_s = 3600
    async with open_realtime(tmp_path, model) as phone:
        await greeted(phone)
        model.current.tell(ToolCall("t1", "voicecall_end_call", {}))
        await phone.settle(3)
        assert phone.record.end_detail is EndDetail.AGENT


# The last one: of a provider whose author has left out what ``will_continue`` asks for.
@pytest.mark.parametrize("error", [*TROUBLES, NotImplementedError()])
async def test_a_model_that_takes_no_interim_result_gets_the_answer(
    tmp_path: Path, error: Exception
) -> None:
    model = FaultyModel()
    model.faults = {"interim": error}
    async with open_realtime(tmp_path, model) as phone:
        await greeted(phone)
        phone.agent.then(4.0, "Sunny.")
        question = {"question": "What is the weather like?"}
        model.current.tell(ToolCall("t1", "voicecall_agent_consult", question))
        await phone.settle(5)
        assert model.current.results == [("t1", {"answer": "Sunny."}, False)]
        assert len(model.sessions) == 1


async def test_a_question_while_an_answer_is_being_taken_has_an_answer_of_its_own(
    tmp_path: Path,
) -> None:
    model = FaultyModel()
    model.takes_result_s = 1.0
    async with open_realtime(tmp_path, model) as phone:
        await greeted(phone)
        for number, (question, answer) in enumerate(
            [("How is the weather?", "Sunny."), ("And what time is it?", "Noon.")]
        ):
            phone.agent.then(answer)
            name = "voicecall_agent_consult"
            model.current.tell(ToolCall(f"t{number}", name, {"question": question}))
            await phone.settle(0.5)
        await phone.settle(2)
        assert model.current.results == [
            ("t0", {"answer": "Sunny."}, False),
            ("t1", {"answer": "Noon."}, False),
        ]


@pytest.mark.parametrize("shielded", [False, True])
async def test_a_lost_session_that_does_not_end_is_left(tmp_path: Path, shielded: bool) -> None:
    model = FaultyModel()
    model.shielded = shielded
    async with open_realtime(tmp_path, model) as phone:
        await greeted(phone)
        model.end_s = 3600.0
        model.current.tell(SessionLost("gone", fatal=True))
        await phone.settle(0.1)
        await phone.socket.speak(LOUD * 3)
        await phone.settle(7 if shielded else 5)
        lost, present = model.sessions
        assert bytes(present.audio) == LOUD * 3
        assert phone.record.live
        # What it says now is heard by nobody, whatever name it gives to it.
        said = len(phone.socket.audio_sent)
        present.write("a", 200)
        lost.write("a", 100, 2)
        lost.write("b", 100, 2)
        present.write("a", 200)
        await phone.settle(1)
        assert phone.socket.audio_sent[said:] == b"\x01" * 400 * 8


async def test_a_session_that_opens_too_late_is_not_heard(tmp_path: Path) -> None:
    model = FaultyModel()
    model.opens_s = 14.0
    model.shielded = True
    async with open_realtime(tmp_path, model, realtime={"inactivityMs": 0}) as phone:
        await phone.call_in()
        await phone.settle(5)
        model.opens_s = 0.0
        await phone.settle(10)
        present, late = model.sessions
        said = len(phone.socket.audio_sent)
        late.write("x", 500, 2)
        await phone.settle(1)
        assert b"\x02" not in phone.socket.audio_sent[said:]
        assert present.asked


@pytest.mark.parametrize("error", [ConnectionResetError("reset"), SystemExit(3)])
@pytest.mark.parametrize(
    "capabilities",
    [
        RealtimeCapabilities(),
        RealtimeCapabilities(formats=(PCM16_24K,)),
        RealtimeCapabilities(interrupts=Interrupter.CLIENT),
    ],
)
async def test_a_session_that_does_not_take_audio_is_lost_and_opened_again(
    tmp_path: Path,
    capabilities: RealtimeCapabilities,
    error: Exception | SystemExit,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = FaultyModel(capabilities)
    async with open_realtime(tmp_path, model) as phone:
        await greeted(phone)
        session = model.current
        assert isinstance(session, FaultySession)
        session.faults["audio"] = error
        await phone.socket.speak(LOUD * 10)
        await phone.settle(1)
        assert len(model.sessions) == 2
        before = len(model.current.audio)
        assert before
        await phone.socket.speak(LOUD * 10)
        assert len(model.current.audio) > before
        assert len(phone.sockets) == 1
        assert phone.record.live
    assert caplog.text.count("the voice model raised an error that is not a ProviderError") == 1


async def test_a_model_that_takes_no_audio_at_all_ends_the_call(tmp_path: Path) -> None:
    model = FaultyModel()
    async with open_realtime(tmp_path, model) as phone:
        await greeted(phone)
        session = model.current
        assert isinstance(session, FaultySession)
        session.faults["audio"] = model.faults["audio"] = ConnectionResetError("reset")
        for _ in range(4):
            await phone.socket.speak(LOUD * 10)
            await phone.settle(1)
        assert len(model.sessions) == 2
        await phone.settle(10)
        assert phone.record.end_detail is EndDetail.LISTENING_FAILED


async def test_a_session_that_expires_soon_behind_a_loss_is_no_second_loss(
    tmp_path: Path,
) -> None:
    model = FaultyModel()
    async with open_realtime(tmp_path, model) as phone:
        await greeted(phone)
        session = model.current
        assert isinstance(session, FaultySession)
        session.faults["audio"] = ConnectionResetError("reset")
        await phone.socket.speak(LOUD * 3)
        await phone.settle(1)
        model.current.tell(SessionExpiring(1_000))
        await phone.settle(5)
        assert len(model.sessions) == 3
        assert phone.record.live


async def test_a_lost_session_may_take_a_moment_to_end(tmp_path: Path) -> None:
    model = FaultyModel()
    async with open_realtime(tmp_path, model) as phone:
        await greeted(phone)
        model.end_s = 2.0
        model.current.tell(SessionLost("gone", fatal=True))
        await phone.settle(2)
        assert len(model.sessions) == 1
        await phone.settle(0.5)
        assert len(model.sessions) == 2
        assert phone.record.live
