"""Several speech providers as one: who takes over if one fails, and that nothing is repeated."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from voicecall.audio import MULAW_8K, AudioFormat
from voicecall.errors import ProviderError, ProviderTimeout, ProviderUnavailable
from voicecall.media import AudioSink
from voicecall.model import EndDetail
from voicecall.tts import SpeechProvider, SpeechSession, Utterance
from voicecall_calls.config import PhrasesConfig
from voicecall_calls.speech.chain import ChainMember, ChainSpeech, Rest
from voicecall_calls.troubles import Trouble
from voicecall_testing.clock import VirtualSeam, virtual_backend
from voicecall_testing.fakes import ScriptedSpeech
from voicecall_testing.harness import open_phone

pytestmark = [pytest.mark.unit, pytest.mark.anyio]

TIMEOUT_S = 4.0
HANG_S = 3600.0
SAY = PhrasesConfig()


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_backend


class Voice(ScriptedSpeech):
    """``asked`` are the texts; a text in ``breaks`` fails after its first piece, one in ``stalls``
    never gets its rest. Opening takes ``open_s`` and fails with ``open_errors``. The session ends
    by itself when ``end`` is set; if it ``hangs``, it never ends."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.asked: list[str] = []
        self.breaks: set[str] = set()
        self.stalls: set[str] = set()
        self.open_s = 0.0
        self.open_errors: list[Exception] = []
        self.opened: list[tuple[str | None, AudioFormat]] = []
        self.live = 0
        self.end = anyio.Event()
        self.hangs = False

    def broken(self) -> ProviderUnavailable:
        return ProviderUnavailable("out of order: Good day.", provider=self.name)

    @asynccontextmanager
    async def session(
        self, voice: str | None, audio_format: AudioFormat
    ) -> AsyncIterator[SpeechSession]:
        await anyio.sleep(self.open_s)
        if self.open_errors:
            raise self.open_errors.pop(0)
        self.opened.append((voice, audio_format))
        self.live += 1
        try:
            async with super().session(voice, audio_format) as session:
                with anyio.CancelScope() as scope:
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(self._lose, scope)
                        try:
                            yield session
                        finally:
                            tasks.cancel_scope.cancel()
                if scope.cancelled_caught:
                    raise self.broken()
        finally:
            with anyio.CancelScope(shield=True):
                if self.hangs:
                    await anyio.sleep_forever()
            self.live -= 1

    async def _lose(self, scope: anyio.CancelScope) -> None:
        await self.end.wait()
        self.end = anyio.Event()
        scope.cancel()

    async def synthesize(self, text: str, voice: str | None) -> AsyncIterator[bytes]:
        said = text.strip()
        self.asked.append(said)
        pieces = 0
        async for audio in super().synthesize(text, voice):
            yield audio
            pieces += 1
            if said in self.breaks:
                raise self.broken()
            if said in self.stalls:
                await anyio.sleep(HANG_S)


class Ear:
    """A sink."""

    def __init__(self) -> None:
        self.audio = bytearray()

    def write(self, item_id: str, audio: bytes) -> None:
        assert item_id == "item"
        self.audio += audio


def new_rest() -> Rest:
    return Rest(VirtualSeam(), Trouble(VirtualSeam()))


def chain(
    voices: Sequence[Voice], *, rests: Sequence[Rest] = (), max_text: int = 4096
) -> ChainSpeech:
    made = list(rests) or [new_rest() for _ in voices]
    members = [
        ChainMember(voice.name, voice, f"voice of {voice.name}", rest)
        for voice, rest in zip(voices, made, strict=True)
    ]
    return ChainSpeech(members, timeout_s=TIMEOUT_S, max_text=max_text, call_id="call-1")


async def say(session: SpeechSession, *texts: str) -> bytes:
    """The audio of one utterance."""
    ear = Ear()
    utterance = session.utterance("item", ear)
    for text in texts:
        utterance.send(text)
    utterance.flush()
    await utterance.done()
    return bytes(ear.audio)


def open_chain(provider: SpeechProvider) -> Any:
    return provider.session("given", MULAW_8K)


def switches(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if "falls back" in r.getMessage()]


async def test_the_first_speaks_as_long_as_it_can(caplog: pytest.LogCaptureFixture) -> None:
    one, two = Voice("one"), Voice("two")
    async with open_chain(chain([one, two])) as session:
        audio = await say(session, "Good day. ", "How are you? ")
        assert one.asked == ["Good day.", "How are you?"]
        assert [text for text, _ in one.texts_in(audio)] == one.asked
        assert one.live == 1
    assert (two.opened, two.asked, one.live) == ([], [], 0)
    assert one.opened == [("given", MULAW_8K)]
    assert switches(caplog) == []


async def test_a_failure_without_audio_is_said_by_the_next(
    caplog: pytest.LogCaptureFixture,
) -> None:
    one, two = Voice("one"), Voice("two")
    one.errors.append(one.broken())
    async with open_chain(chain([one, two])) as session:
        audio = await say(session, "Good day. ", "How are you? ")
        assert two.asked == ["Good day.", "How are you?"]
        assert [text for text, _ in two.texts_in(audio)] == two.asked
        assert two.opened == [("voice of two", MULAW_8K)]
        assert (one.live, two.live) == (0, 1)
        # A call keeps the voice that took over, however long it lasts.
        await anyio.sleep(HANG_S)
        await say(session, "Goodbye.")
        assert (one.asked, two.asked[-1]) == (["Good day."], "Goodbye.")
    [line] = switches(caplog)
    assert "call-1: speech falls back from one to two: provider_error" in line
    assert "chain: one, two" in line
    assert "Good day" not in caplog.text


async def test_text_that_comes_later_reaches_the_one_that_took_over() -> None:
    one, two = Voice("one"), Voice("two")
    one.errors.append(one.broken())
    async with open_chain(chain([one, two])) as session:
        ear = Ear()
        utterance = session.utterance("item", ear)
        utterance.send("Good day. ")
        await anyio.sleep(1)
        utterance.send("How are you? ")
        await anyio.sleep(1)
        assert [text for text, _ in two.texts_in(bytes(ear.audio))] == ["Good day.", "How are you?"]
        utterance.flush()
        await utterance.done()
    assert one.asked == ["Good day."]


async def test_what_was_begun_is_not_said_again() -> None:
    one, two = Voice("one"), Voice("two")
    one.breaks.add("Good day.")
    async with open_chain(chain([one, two])) as session:
        with pytest.raises(ProviderUnavailable, match=r"^one: out of order"):
            await say(session, "Good day. ", "How are you? ")
        assert two.asked == []
        await say(session, "Sorry.")
        assert (one.asked, two.asked) == (["Good day."], ["Sorry."])


async def test_a_voice_that_hangs_has_its_time_and_no_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    one, two, three = Voice("one"), Voice("two"), Voice("three")
    one.delay_s = two.open_s = HANG_S
    async with open_chain(chain([one, two, three])) as session:
        began = anyio.current_time()
        ear = Ear()
        utterance = session.utterance("item", ear)
        # The time runs from the first text, not from the end of the text.
        await anyio.sleep(60)
        utterance.send("Good day. ")
        await anyio.sleep(2 * TIMEOUT_S - 0.1)
        assert not ear.audio
        await anyio.sleep(0.2)
        assert ear.audio
        utterance.flush()
        await utterance.done()
        assert anyio.current_time() - began == pytest.approx(60 + 2 * TIMEOUT_S + 0.1)
        assert (one.asked, two.asked, three.asked) == (["Good day."], [], ["Good day."])
    assert [line.split("from ")[1].split(" (")[0] for line in switches(caplog)] == [
        "one to two: timeout",
        "two to three: timeout",
    ]


class Stubborn(Utterance):
    """Is told of everything, says nothing, and writes when the test does. ``faults`` are raised
    once each, by the name of what it is told."""

    def __init__(self, sink: AudioSink, faults: dict[str, Exception | SystemExit]) -> None:
        self.sink = sink
        self.told: list[object] = []
        self.faults = faults

    def _fail(self, what: str) -> None:
        if what in self.faults:
            raise self.faults.pop(what)

    def send(self, text: str) -> None:
        self.told.append(text)
        self._fail("send")

    def flush(self) -> None:
        self.told.append("flush")
        self._fail("flush")

    def cancel(self, heard_ms: float) -> str | None:
        self.told.append(("cancel", heard_ms))
        self._fail("cancel")
        return "Good"

    async def done(self) -> None:
        await anyio.sleep_forever()


class StubbornVoice(SpeechProvider):
    def __init__(self) -> None:
        self.said: list[Stubborn] = []
        self.faults: dict[str, Exception | SystemExit] = {}
        self.kind: type[Stubborn] = Stubborn

    @asynccontextmanager
    async def session(
        self, voice: str | None, audio_format: AudioFormat
    ) -> AsyncIterator[SpeechSession]:
        said, faults, kind = self.said, self.faults, self.kind

        class Session(SpeechSession):
            def utterance(self, item_id: str, sink: AudioSink) -> Utterance:
                said.append(kind(sink, faults))
                return said[-1]

        yield Session()


FAULTS = [
    ProviderUnavailable("out of order", provider="one"),
    KeyError("a mistake"),
    SystemExit(3),
]


def stubborn_first(one: StubbornVoice, two: Voice) -> ChainSpeech:
    members = [ChainMember("one", one, None, new_rest()), ChainMember("two", two, None, new_rest())]
    return ChainSpeech(members, timeout_s=TIMEOUT_S, max_text=4096, call_id="call-1")


@pytest.mark.parametrize("name", ["send", "flush", "cancel"])
async def test_an_utterance_with_a_method_that_nobody_awaits_is_told_so(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def awaited(self: Stubborn, *arguments: object) -> None: ...

    one, two = StubbornVoice(), Voice("two")
    one.kind = type("Awaited", (Stubborn,), {name: awaited})
    async with open_chain(stubborn_first(one, two)) as session:
        await say(session, "Good day.")
    assert two.asked == ["Good day."]
    assert f"Awaited.{name} is a coroutine function; it must be a plain one" in caplog.text


async def test_one_that_was_given_up_is_told_and_no_longer_heard() -> None:
    one, two = StubbornVoice(), Voice("two")
    async with open_chain(stubborn_first(one, two)) as session:
        ear = Ear()
        utterance = session.utterance("item", ear)
        utterance.send("Good day. ")
        utterance.flush()
        await utterance.done()
        [stubborn] = one.said
        assert stubborn.told == ["Good day. ", "flush", ("cancel", 0.0)]
        stubborn.sink.write("item", b"late")
        assert two.duration_s("Good day.") * 8000 == len(ear.audio)
        assert b"late" not in ear.audio


@pytest.mark.parametrize("error", FAULTS)
@pytest.mark.parametrize("what", ["send", "flush"])
async def test_one_that_does_not_take_the_text_is_followed_by_the_next(
    what: str, error: Exception | SystemExit, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = StubbornVoice(), Voice("two")
    async with open_chain(stubborn_first(one, two)) as session:
        ear = Ear()
        utterance = session.utterance("item", ear)
        utterance.send("Good day. ")
        await anyio.sleep(0.1)
        one.faults |= {what: error, "cancel": KeyError("another mistake")}
        began = anyio.current_time()
        utterance.send("How are you? ")
        utterance.flush()
        await utterance.done()
        assert anyio.current_time() == began
        said = [text for text, _ in two.texts_in(bytes(ear.audio))]
        assert said == two.asked == ["Good day.", "How are you?"]
    assert len(switches(caplog)) == 1


class LockedVoice(StubbornVoice):
    def session(self, voice: str | None, audio_format: AudioFormat) -> Any:
        raise SystemExit(3)


async def test_one_that_raises_system_exit_before_a_session_is_followed_by_the_next() -> None:
    two = Voice("two")
    async with open_chain(stubborn_first(LockedVoice(), two)) as session:
        await say(session, "Good day.")
    assert two.asked == ["Good day."]


@pytest.mark.parametrize("error", FAULTS)
async def test_one_that_cannot_be_stopped_is_no_longer_heard(
    error: Exception | SystemExit,
) -> None:
    one, two = StubbornVoice(), Voice("two")
    async with open_chain(stubborn_first(one, two)) as session:
        ear = Ear()
        utterance = session.utterance("item", ear)
        utterance.send("Good day. ")
        await anyio.sleep(0.1)
        one.said[0].sink.write("item", b"audio")
        one.faults["cancel"] = error
        assert utterance.cancel(120.0) is None
        one.said[0].sink.write("item", b" that comes late")
        await utterance.done()
        assert (bytes(ear.audio), two.asked) == (b"audio", [])


async def test_what_was_heard_is_told_by_whoever_spoke() -> None:
    one = StubbornVoice()
    member = ChainMember("one", one, None, new_rest())
    provider = ChainSpeech([member], timeout_s=TIMEOUT_S, max_text=4096, call_id="call-1")
    async with open_chain(provider) as session:
        ear = Ear()
        utterance = session.utterance("item", ear)
        utterance.send("Good day. ")
        await anyio.sleep(0.1)
        one.said[0].sink.write("item", b"audio")
        assert utterance.cancel(120.0) == "Good"
        assert one.said[0].told[-1] == ("cancel", 120.0)
        one.said[0].sink.write("item", b" that comes late")
        await utterance.done()
        assert ear.audio == b"audio"


async def test_a_silence_in_the_middle_is_bounded_but_waiting_for_text_is_not() -> None:
    one, two = Voice("one"), Voice("two")
    async with open_chain(chain([one, two])) as session:
        ear = Ear()
        utterance = session.utterance("item", ear)
        utterance.send("Let me see. ")
        await anyio.sleep(10 * TIMEOUT_S)
        utterance.send("Here it is. ")
        utterance.flush()
        await utterance.done()
        assert one.asked == ["Let me see.", "Here it is."]
        one.stalls.add("Good day.")
        with pytest.raises(ProviderTimeout, match=r"^one: gave no audio for 4 s"):
            await say(session, "Good day.")
        assert two.asked == []


async def test_a_voice_without_audio_has_failed_but_not_for_a_text_without_words() -> None:
    one, two = Voice("one"), Voice("two")
    one.mute |= {"Good day.", "..."}
    async with open_chain(chain([one, two])) as session:
        assert await say(session, "...") == b""
        assert two.asked == []
        await say(session, "Good day.")
        assert two.asked == ["Good day."]


async def test_a_session_that_cannot_be_opened_is_that_of_the_next(
    caplog: pytest.LogCaptureFixture,
) -> None:
    one, two, three = Voice("one"), Voice("two"), Voice("three")
    one.open_errors = [one.broken()]
    two.open_errors = [OSError("a mistake in the package")]
    began = anyio.current_time()
    async with open_chain(chain([one, two, three])) as session:
        assert anyio.current_time() == began
        assert (one.live, two.live, three.live) == (0, 0, 1)
        await say(session, "Good day.")
    assert len(switches(caplog)) == 2
    assert "the speech provider two raised an error that is not a ProviderError" in caplog.text


async def test_a_session_that_is_not_open_in_time_is_that_of_the_next(
    caplog: pytest.LogCaptureFixture,
) -> None:
    one, two = Voice("one"), Voice("two")
    one.open_s = HANG_S
    began = anyio.current_time()
    async with open_chain(chain([one, two])):
        assert anyio.current_time() - began == pytest.approx(TIMEOUT_S)
        assert (one.live, two.live) == (0, 1)
    [switch] = switches(caplog)
    assert "from one to two: timeout" in switch


async def test_what_a_task_of_a_session_raised_is_told_without_its_group(
    caplog: pytest.LogCaptureFixture,
) -> None:
    one, two, three = Voice("one"), Voice("two"), Voice("three")
    one.open_errors = [ExceptionGroup("tasks", [one.broken()])]
    two.open_errors = [ExceptionGroup("tasks", [OSError("a mistake in the package")])]
    async with open_chain(chain([one, two, three])):
        pass
    told = [record for record in caplog.records if "is not a ProviderError" in record.getMessage()]
    assert [type(record.exc_info[1]) for record in told if record.exc_info] == [OSError]


async def test_of_tasks_that_fail_together_the_providers_own_error_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    one = Voice("one")
    error = one.broken()
    one.open_errors = [
        ExceptionGroup("tasks", [error, one.broken()]),
        ExceptionGroup("tasks", [OSError("a mistake in the package"), error]),
    ]
    for mistakes in (0, 1):
        with pytest.raises(ProviderUnavailable) as caught:
            async with open_chain(chain([one])):
                raise AssertionError("nobody is there to speak")
        assert caught.value is error
        assert caplog.text.count("is not a ProviderError") == mistakes


async def test_where_all_fail_the_error_names_them_all() -> None:
    voices = [Voice("one"), Voice("two")]
    for voice in voices:
        voice.open_errors = [voice.broken()]
    with pytest.raises(ProviderUnavailable, match=r"one: out of order.*; two: out of order"):
        async with open_chain(chain(voices)):
            raise AssertionError("nobody is there to speak")
    # All rest now, and are asked nevertheless.
    async with open_chain(chain(voices)) as session:
        for voice in voices:
            voice.errors.extend([voice.broken()])
        with pytest.raises(ProviderUnavailable, match=r"one: out of order.*; two: out of order"):
            await say(session, "Good day.")
        assert await say(session, "Good day.")
    assert voices[0].asked == ["Good day."] * 2


async def test_the_error_of_a_voice_alone_is_its_own() -> None:
    one = Voice("one")
    error = one.broken()
    one.errors.append(error)
    async with open_chain(chain([one])) as session:
        with pytest.raises(ProviderError) as caught:
            await say(session, "Good day.")
        assert caught.value is error
        assert await say(session, "Good day.")


async def test_a_session_that_ends_by_itself_is_opened_again() -> None:
    one, two = Voice("one"), Voice("two")
    async with open_chain(chain([one, two])) as session:
        one.end.set()
        await anyio.sleep(1)
        assert one.live == 0
        await say(session, "Good day.")
        assert (len(one.opened), one.asked) == (2, ["Good day."])
        # In the middle of an utterance it is a failure.
        one.delay_s = 1.0
        ear = Ear()
        utterance = session.utterance("item", ear)
        utterance.send("Still there? ")
        utterance.flush()
        await anyio.sleep(0.5)
        one.end.set()
        await utterance.done()
        assert two.asked == ["Still there?"]


async def test_a_session_that_does_not_end_is_left(caplog: pytest.LogCaptureFixture) -> None:
    one, two = Voice("one"), Voice("two")
    one.hangs = two.hangs = True
    one.errors.append(one.broken())
    async with open_chain(chain([one, two])) as session:
        await say(session, "Good day.")
        assert two.asked == ["Good day."]
        ends_at = anyio.current_time()
    assert anyio.current_time() - ends_at <= 2
    for voice in (one, two):
        assert f"the session of the speech provider {voice.name} does not end" in caplog.text


async def test_an_interruption_stops_whoever_speaks() -> None:
    one, two = Voice("one"), Voice("two")
    one.delay_s = 1.0
    async with open_chain(chain([one, two])) as session:
        ear = Ear()
        utterance = session.utterance("item", ear)
        utterance.send("Good day. ")
        await anyio.sleep(0.5)
        assert utterance.cancel(0.0) is None
        await utterance.done()
        await anyio.sleep(HANG_S)
        assert not ear.audio
        assert not two.asked
        one.delay_s = 0.0
        assert await say(session, "Yes?")


async def test_one_that_failed_is_asked_last_for_a_while(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "voicecall.calls")
    one, two = Voice("one"), Voice("two")
    rests = [new_rest() for _ in range(2)]
    one.open_errors = [one.broken()]

    async def speaker() -> str:
        async with open_chain(chain([one, two], rests=rests)):
            return "one" if one.live else "two"

    assert await speaker() == "two"
    assert await speaker() == "two"
    assert "speech begins with two, since one failed recently" in caplog.text
    await anyio.sleep(30)
    assert await speaker() == "one"


async def test_who_speaks_again_rests_no_more() -> None:
    one, two = Voice("one"), Voice("two")
    troubles = [Trouble(VirtualSeam()) for _ in range(2)]
    rests = [Rest(VirtualSeam(), trouble) for trouble in troubles]
    async with open_chain(chain([one, two], rests=rests)) as session:
        one.errors.append(one.broken())
        two.errors.append(two.broken())
        with pytest.raises(ProviderUnavailable):
            await say(session, "Good day.")
        assert [rest.resting for rest in rests] == [True, True]
        assert [trouble.in_a_row for trouble in troubles] == [1, 1]
        await say(session, "Good day.")
        assert [rest.resting for rest in rests] == [False, True]
        assert [trouble.in_a_row for trouble in troubles] == [0, 1]
        reports = [trouble.report() for trouble in troubles]
        assert {(one["callId"], one["reason"]) for one in reports} == {
            ("call-1", "ProviderUnavailable")
        }


async def test_the_rest_grows_with_each_failure_and_ends_with_a_success() -> None:
    rest = new_rest()
    lasted = []
    for _ in range(6):
        rest.failed("call-1", "ProviderTimeout")
        rest.failed("call-1", "ProviderTimeout")
        began = anyio.current_time()
        while rest.resting:
            await anyio.sleep(1)
        lasted.append(anyio.current_time() - began)
    assert lasted == [30, 60, 120, 240, 300, 300]
    rest.failed("call-1", "ProviderTimeout")
    rest.spoke()
    assert not rest.resting
    rest.failed("call-1", "ProviderTimeout")
    await anyio.sleep(30)
    assert not rest.resting


async def test_no_request_is_longer_than_allowed() -> None:
    one = Voice("one")
    async with open_chain(chain([one], max_text=20)) as session:
        await say(session, "Good day. How are you? Unbelievablyverylongword. Fine. ")
    assert all(len(text) <= 20 for text in one.asked)
    assert one.asked == ["Good day.", "How are you?", "Unbelievablyverylong", "word. Fine."]


# --- in a call -------------------------------------------------------------------------------


async def test_a_caller_hears_the_second_voice(tmp_path: Path) -> None:
    one, two = Voice("one"), Voice("two")
    one.delay_s = HANG_S
    speech = chain([one, two])
    config = {"tts": {"timeoutMs": round(speech.patience_s * 1000)}}
    async with open_phone(tmp_path, config=config, speech=speech) as phone:
        await phone.call_in()
        await phone.settle(TIMEOUT_S + 4)
        phone.hears("Hello?")
        await phone.settle(4)
        assert phone.said == [("bot", SAY.greeting), ("user", "Hello?"), ("bot", "Yes.")]
        heard = two.texts_in(b"".join(bytes(socket.heard) for socket in phone.sockets))
        assert [text for text, _ in heard] == [SAY.greeting, "Yes."]
        assert phone.record.live


async def test_a_call_that_nobody_can_speak_for_ends(tmp_path: Path) -> None:
    one, two = Voice("one"), Voice("two")
    one.delay_s = two.delay_s = HANG_S
    speech = chain([one, two])
    config = {"tts": {"timeoutMs": round(speech.patience_s * 1000)}}
    async with open_phone(tmp_path, config=config, speech=speech) as phone:
        await phone.call_in()
        await phone.settle(10 * TIMEOUT_S)
        assert phone.record.end_detail is EndDetail.MESSAGE_FAILED
        # By the carrier's own voice.
        assert phone.said == [("bot", SAY.failed)]
        assert phone.heard == []
