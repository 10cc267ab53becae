"""Random events at random times of a call: it ends once, every request gets an answer, and nothing
is begun after its end."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voicecall import events as ev
from voicecall import telephony as tel
from voicecall.agent import EndCall
from voicecall.errors import ProviderUnavailable, VoicecallError
from voicecall.model import EndDetail, MediaPath
from voicecall.realtime import (
    Interrupted,
    ResponseDone,
    SessionExpiring,
    SessionReset,
    SpeechStarted,
    ToolCall,
)
from voicecall_calls.engine.places import INBOUND_CAP
from voicecall_testing.clock import virtual_backend
from voicecall_testing.duplex import ScriptedRealtime
from voicecall_testing.harness import Phone, open_phone

from .realtime_room import open_realtime

pytestmark = pytest.mark.integration

DOWN = ProviderUnavailable("down", provider="scripted")
WHENEVER = ("say", "ask", "tones", "keys", "slow", "fast", "again")
CALLER = ("words", "goodbye")
STREAM = ("drop", "begins to speak")
MODEL = ("answer", "consult", "expire", "reset", "lose", "fail", "speech", "interrupted", "idle")
MEDIA = {
    MediaPath.NATIVE: (*WHENEVER, *CALLER),
    MediaPath.STREAM: (*WHENEVER, *CALLER, *STREAM),
    MediaPath.REALTIME: (*WHENEVER, "words", "drop", *MODEL),
}
pauses = st.sampled_from([0.0, 0.01, 0.05, 0.2, 0.5, 1.0, 2.0, 4.0])


@dataclass
class Scene:
    """A call, with the number of requests on it (``asked``) and of answers (``answered``)."""

    phone: Phone
    model: ScriptedRealtime
    call_id: str = ""
    asked: int = 0
    answered: int = 0
    numbers: count[int] = field(default_factory=count)

    def request(self, job: Callable[[], Coroutine[Any, Any, object]]) -> None:
        async def run() -> None:
            with suppress(VoicecallError):
                await job()
            self.answered += 1

        self.asked += 1
        self.phone.tasks.start_soon(run)

    async def act(self, what: str) -> None:
        phone, operations = self.phone, self.phone.operations
        match what:
            case "say":
                self.request(partial(operations.speak, self.call_id, "A word in between."))
            case "ask":
                self.request(partial(operations.ask, self.call_id, "Really?"))
            case "tones":
                self.request(partial(operations.dtmf, self.call_id, "1w2"))
            case "keys":
                await phone.event(ev.DigitsPressed, digits="5")
            case "slow":
                phone.store.delay_s = 0.5
            case "fast":
                phone.store.delay_s = 0
            case "again":
                await phone.event(ev.Answered)
            case "words":
                await self.hear(0.3, "It is ten ", 1.0, "past nine.")
            case "goodbye":
                await self.hear("Goodbye.", EndCall())
            case "drop":
                phone.socket.drop()
            case "begins to speak":
                phone.stt.started()
                phone.stt.partial("Wait a")
            case _:
                self.tell(what)

    async def hear(self, *answer: Any) -> None:
        phone = self.phone
        phone.agent.then(*answer)
        if phone.media is MediaPath.STREAM:
            phone.hears("What time is it?")
        elif phone.media is MediaPath.NATIVE:
            token = phone.record.listen_token
            await phone.event(ev.SpeechHeard, text="What time is it?", turn_token=token)
        elif self.model.sessions:
            self.tell("words")

    def tell(self, what: str) -> None:
        """Report an event of the model, while it has a session."""
        session = self.model.current
        try:
            match what:
                case "words":
                    session.hears("Please tell me the news.")
                case "answer":
                    session.speak("A long story.", 1500)
                case "consult":
                    call = ToolCall(
                        f"t{next(self.numbers)}", "voicecall_agent_consult", {"question": "Why?"}
                    )
                    session.tell(call)
                case "expire":
                    session.tell(SessionExpiring(5000))
                case "reset":
                    session.tell(SessionReset())
                case "lose":
                    session.end()
                case "fail":
                    session.tell(ResponseDone("r", "failed", "overloaded"))
                case "speech":
                    session.tell(SpeechStarted(1))
                case "interrupted":
                    session.tell(Interrupted())
                case "idle":
                    self.model.idle = not self.model.idle
        except anyio.ClosedResourceError:
            # The session is over.
            return

    def begun(self) -> tuple[int, ...]:
        """How often the carrier, the agent and the model were asked for something."""
        phone = self.phone
        return (
            len(phone.carrier.performed_of(tel.Speak)),
            len(phone.agent.turns),
            sum(len(session.asked) for session in self.model.sessions),
        )


def opened(
    media: MediaPath, directory: Path, model: ScriptedRealtime, forced: bool
) -> AbstractAsyncContextManager[Phone]:
    if media is MediaPath.REALTIME:
        policy = "always" if forced else "auto"
        return open_realtime(
            directory, model, realtime={"inactivityMs": 0, "consultPolicy": policy}
        )
    return open_phone(directory, media=media, config={"silence": {"promptAfterMs": 3000}})


async def play(
    media: MediaPath,
    before: list[tuple[str, float]],
    behind: list[tuple[str, float]],
    forced: bool,
    tones: bool,
    directory: Path,
) -> None:
    model = ScriptedRealtime()
    async with opened(media, directory, model, forced) as phone:
        phone.takes_tones = tones
        scene = Scene(phone, model)
        await phone.call_in()
        scene.call_id = phone.record.call_id
        await phone.settle(0.5)
        for what, pause in before:
            if not phone.engine.lanes:
                break
            await scene.act(what)
            await phone.settle(pause)
        phone.store.delay_s = 0
        await phone.settle(1)
        phone.carrier.fail(tel.Hangup, DOWN, DOWN)
        scene.request(partial(phone.operations.end, scene.call_id))
        await phone.settle(0.05)
        begun = scene.begun()
        for what, pause in behind:
            if not phone.engine.lanes:
                break
            await scene.act(what)
            await phone.settle(pause)
        phone.store.delay_s = 0
        await phone.settle(300)
        assert not phone.engine.lanes
        (record,) = phone.watcher.ends
        assert record.end_detail is not EndDetail.INTERNAL
        assert scene.answered == scene.asked
        assert scene.begun() == begun
        assert await phone.engine.coordinator.holders(INBOUND_CAP) == 0


@pytest.mark.parametrize("media", MediaPath)
@settings(max_examples=25)
@given(st.data())
def test_a_call_ends_once_and_nothing_is_begun_behind_its_end(
    media: MediaPath, data: st.DataObject
) -> None:
    acts = st.lists(st.tuples(st.sampled_from(MEDIA[media]), pauses), max_size=12)
    before, behind = data.draw(acts), data.draw(acts)
    forced, tones = data.draw(st.booleans()), data.draw(st.booleans())
    with tempfile.TemporaryDirectory() as name:
        scene = partial(play, media, before, behind, forced, tones, Path(name))
        backend, options = virtual_backend
        anyio.run(scene, backend=backend, backend_options=options)
