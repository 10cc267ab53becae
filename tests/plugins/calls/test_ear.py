"""Hearing: audio is kept until a recogniser's session is up, and a lost session is reopened."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import product
from typing import Any, cast

import anyio
import pytest

from voicecall.audio import MULAW_8K, PCM16_16K
from voicecall.errors import (
    AuthenticationFailed,
    ProviderError,
    ProviderUnavailable,
    RequestRejected,
)
from voicecall.transcription import Final, Partial, TranscriptionEvent, TranscriptionOptions
from voicecall_calls.conversation.ear import Ear
from voicecall_calls.troubles import Trouble
from voicecall_testing.clock import VirtualSeam, virtual_backend
from voicecall_testing.fakes import ScriptedTranscription, ScriptedTranscriptionSession

pytestmark = [pytest.mark.unit, pytest.mark.anyio]

FRAME = MULAW_8K.size(20)


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_backend


def trouble() -> ProviderUnavailable:
    return ProviderUnavailable("no way there", provider="scripted")


class Unreadable(ScriptedTranscriptionSession):
    def __init__(self, options: TranscriptionOptions, error: Exception | SystemExit) -> None:
        super().__init__(options)
        self.error = error

    async def __aiter__(self) -> AsyncIterator[TranscriptionEvent]:
        async for event in super().__aiter__():
            yield event
        raise self.error


class Faulty(ScriptedTranscription):
    """Each of its next sessions fails with one of ``errors``: when an event is read, or
    (``by_reader``) in the session's own task."""

    def __init__(self, errors: Sequence[Exception | SystemExit], *, by_reader: bool) -> None:
        super().__init__()
        self.errors = list(errors)
        self.by_reader = by_reader

    @asynccontextmanager
    async def session(
        self, options: TranscriptionOptions
    ) -> AsyncIterator[ScriptedTranscriptionSession]:
        async with super().session(options) as session, anyio.create_task_group() as tasks:
            error = self.errors.pop(0) if self.errors else None
            if error is None:
                yield session
            elif self.by_reader:
                tasks.start_soon(self._read, error)
                yield session
            else:
                unreadable = Unreadable(options, error)
                await unreadable.finish()
                yield unreadable
                unreadable.close()
            tasks.cancel_scope.cancel()

    async def _read(self, error: Exception | SystemExit) -> None:
        await anyio.sleep(1)
        raise error


class Parting(ScriptedTranscription):
    """Its sessions raise ``error`` at their end, or never end (``shielded``: even if cancelled)."""

    def __init__(self, error: Exception | None = None, *, shielded: bool = False) -> None:
        super().__init__()
        self.error = error
        self.shielded = shielded

    @asynccontextmanager
    async def session(
        self, options: TranscriptionOptions
    ) -> AsyncIterator[ScriptedTranscriptionSession]:
        async with super().session(options) as session:
            try:
                yield session
            finally:
                if self.error is not None:
                    raise self.error
                with anyio.CancelScope(shield=self.shielded):
                    await anyio.sleep_forever()


class Leisurely(ScriptedTranscription):
    """Its sessions take two seconds to close; ``in_order`` counts those that finished."""

    def __init__(self) -> None:
        super().__init__()
        self.in_order = 0

    @asynccontextmanager
    async def session(
        self, options: TranscriptionOptions
    ) -> AsyncIterator[ScriptedTranscriptionSession]:
        async with super().session(options) as session:
            yield session
            await anyio.sleep(2)
            self.in_order += 1


class Locked(ScriptedTranscription):
    def session(self, options: TranscriptionOptions) -> Any:
        raise SystemExit(3)


class Refusing(ScriptedTranscriptionSession):
    def send_audio(self, audio: bytes) -> None:
        raise ConnectionResetError


class Leaving(ScriptedTranscriptionSession):
    def send_audio(self, audio: bytes) -> None:
        raise SystemExit(3)


class Refused(ScriptedTranscription):
    """Whose first sessions, so many, are of a ``kind`` that takes no audio. ``refused`` counts
    them."""

    def __init__(self, sessions: int, kind: type[ScriptedTranscriptionSession] = Refusing) -> None:
        super().__init__()
        self.kind = kind
        self.left = sessions
        self.refused = 0

    @asynccontextmanager
    async def session(
        self, options: TranscriptionOptions
    ) -> AsyncIterator[ScriptedTranscriptionSession]:
        if not self.left:
            async with super().session(options) as session:
                yield session
            return
        await anyio.sleep(self.open_delay_s)
        self.left -= 1
        self.refused += 1
        refusing = self.kind(options)
        try:
            yield refusing
        finally:
            refusing.close()


class Awaiting(ScriptedTranscriptionSession):
    """Violates the contract: its coroutine is never awaited."""

    async def send_audio(self, audio: bytes) -> None:  # type: ignore[override]
        raise AssertionError("nobody awaits this")


class Awaited(ScriptedTranscription):
    @asynccontextmanager
    async def session(
        self, options: TranscriptionOptions
    ) -> AsyncIterator[ScriptedTranscriptionSession]:
        session = Awaiting(options)
        try:
            yield session
        finally:
            session.close()


class Listening:
    def __init__(self, stt: ScriptedTranscription) -> None:
        self.stt = stt
        self.events: list[TranscriptionEvent] = []
        self.deaf: list[str] = []
        self.trouble = Trouble(VirtualSeam())
        self.ear = Ear(
            stt,
            TranscriptionOptions(),
            VirtualSeam(),
            call_id="call-1",
            heard=self.events.append,
            deaf=self.deaf.append,
            trouble=self.trouble,
        )


@asynccontextmanager
async def listening(stt: ScriptedTranscription) -> AsyncIterator[Listening]:
    it = Listening(stt)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(it.ear.run)
        yield it
        tasks.cancel_scope.cancel()


async def test_audio_from_the_first_frame_on_reaches_a_slow_session() -> None:
    stt = ScriptedTranscription()
    stt.open_delay_s = 1.0
    async with listening(stt) as it:
        sent = [bytes([n]) * FRAME for n in range(100)]
        for frame in sent:
            it.ear.hear(frame)
            await anyio.sleep(0.02)
        await anyio.sleep(0.1)
        assert bytes(stt.current.audio) == b"".join(sent)


async def test_what_waits_is_bounded_and_the_oldest_goes() -> None:
    stt = ScriptedTranscription()
    stt.open_delay_s = 9.0
    async with listening(stt) as it:
        for n in range(15):
            it.ear.hear(bytes([n]) * MULAW_8K.size(1000))
        await anyio.sleep(10)
        kept = bytes(stt.current.audio)
        assert MULAW_8K.duration_ms(len(kept)) == 10_000
        assert set(kept) == set(range(5, 15))


async def test_ready_means_that_a_session_is_up() -> None:
    stt = ScriptedTranscription()
    stt.open_delay_s = 1.0
    async with listening(stt) as it:
        with anyio.move_on_after(0.9) as early:
            await it.ear.ready()
        assert early.cancelled_caught
        with anyio.fail_after(0.2):
            await it.ear.ready()


async def test_a_passing_loss_is_the_providers_own_business() -> None:
    stt = ScriptedTranscription()
    async with listening(stt) as it:
        await it.ear.ready()
        stt.lost(fatal=False)
        stt.started()
        await anyio.sleep(5)
        assert len(stt.sessions) == 1
        assert len(it.events) == 1
        assert it.deaf == []


async def test_a_session_that_ends_without_a_word_is_opened_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stt = ScriptedTranscription()
    async with listening(stt) as it:
        await it.ear.ready()
        await stt.current.finish()
        await anyio.sleep(1)
        assert len(stt.sessions) == 2
        assert it.deaf == []
    assert "transcription lost: the session ended" in caplog.text


async def test_a_lost_session_is_opened_again_with_what_was_said_meanwhile() -> None:
    stt = ScriptedTranscription()
    async with listening(stt) as it:
        await it.ear.ready()
        it.ear.hear(b"\x01" * FRAME)
        stt.lost()
        await anyio.sleep(0.05)
        it.ear.hear(b"\x02" * FRAME)
        await anyio.sleep(1)
        assert len(stt.sessions) == 2
        assert bytes(stt.current.audio) == b"\x02" * FRAME
        assert stt.sessions[0].options == stt.sessions[1].options
        assert it.deaf == []


@pytest.mark.parametrize(
    ("error", "by_reader"),
    [
        *product([trouble(), ConnectionResetError("mine"), KeyError("theirs")], [False, True]),
        # In the session's own task it cannot be caught.
        (SystemExit(3), False),
    ],
)
async def test_whatever_a_session_raises_it_is_lost_and_opened_again(
    error: Exception | SystemExit, by_reader: bool, caplog: pytest.LogCaptureFixture
) -> None:
    stt = Faulty([error] * 2, by_reader=by_reader)
    async with listening(stt) as it:
        await anyio.sleep(5)
        assert len(stt.sessions) == 3
        stt.started()
        await anyio.sleep(0.1)
        assert len(it.events) == 1
        assert it.deaf == []
    known = isinstance(error, ProviderUnavailable)
    said = "speech recognition raised an error that is not a ProviderError"
    assert caplog.text.count(said) == (0 if known else 2)
    reason = "scripted: no way there" if known else type(error).__name__
    assert caplog.text.count(f"call call-1: transcription lost: {reason}\n") == 2


async def test_a_session_that_yields_what_is_no_event_is_told_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stt = ScriptedTranscription()
    async with listening(stt) as it:
        await it.ear.ready()
        stt.current.tell(cast(Any, "hello there"))
        await anyio.sleep(1)
        assert len(stt.sessions) == 2
        assert it.events == []
    assert "TypeError: str is not an event of a recogniser" in caplog.text


async def test_a_session_whose_send_audio_is_async_is_told_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with listening(Awaited()) as it:
        it.ear.hear(b"\xff" * MULAW_8K.size(20))
        await anyio.sleep(10)
        assert it.deaf == ["TypeError"]
    assert "Awaiting.send_audio is a coroutine function; it must be a plain one" in caplog.text


async def test_what_waits_is_kept_as_long_where_a_session_did_not_take_it() -> None:
    stt = Refused(1)
    stt.open_delay_s = 1.0
    async with listening(stt) as it:
        for n in range(8):
            it.ear.hear(bytes([n]) * MULAW_8K.size(1000))
        await anyio.sleep(1.1)
        assert stt.refused == 1
        for n in range(8, 17):
            it.ear.hear(bytes([n]) * MULAW_8K.size(1000))
        await anyio.sleep(5)
        kept = bytes(stt.current.audio)
        assert MULAW_8K.duration_ms(len(kept)) == 10_000
        assert set(kept) == set(range(7, 17))


async def test_what_was_understood_of_an_utterance_survives_the_session() -> None:
    stt = ScriptedTranscription()
    async with listening(stt) as it:
        await it.ear.ready()
        stt.started()
        stt.partial("No")
        stt.partial("No, stop")
        stt.lost()
        await anyio.sleep(1)
        kinds = [type(event).__name__ for event in it.events]
        assert kinds == ["SpeechStarted", "Partial", "Partial", "Final", "SpeechEnded"]
        final = it.events[3]
        assert isinstance(final, Final)
        assert final.text == "No, stop"
        # A sound without words is only over.
        it.events.clear()
        stt.started()
        stt.partial(" ")
        stt.lost()
        await anyio.sleep(2)
        kinds = [type(event).__name__ for event in it.events]
        assert kinds == ["SpeechStarted", "Partial", "SpeechEnded"]
        # And so is one of which nothing was understood yet.
        it.events.clear()
        stt.started()
        stt.lost()
        await anyio.sleep(3)
        assert [type(event).__name__ for event in it.events] == ["SpeechStarted", "SpeechEnded"]
        # And what is over is not told again.
        it.events.clear()
        stt.started()
        stt.final("Yes.")
        await anyio.sleep(1)
        assert [type(event).__name__ for event in it.events] == ["SpeechStarted", "Final"]
        assert it.deaf == []


async def test_what_was_understood_is_told_before_the_session_has_ended() -> None:
    stt = Parting(shielded=True)
    async with listening(stt) as it:
        await it.ear.ready()
        stt.started()
        stt.partial("No, stop")
        stt.lost()
        await anyio.sleep(0.1)
        assert isinstance(it.events[2], Final)
        assert it.events[2].text == "No, stop"


async def test_a_lost_session_may_take_a_moment_to_end() -> None:
    stt = Leisurely()
    async with listening(stt) as it:
        await it.ear.ready()
        stt.lost()
        await anyio.sleep(1.5)
        assert stt.in_order == 0
        await anyio.sleep(1)
        assert stt.in_order == 1
        assert len(stt.sessions) == 2


@pytest.mark.parametrize("shielded", [False, True])
async def test_a_lost_session_that_does_not_end_is_left(shielded: bool) -> None:
    stt = Parting(shielded=shielded)
    async with listening(stt) as it:
        await it.ear.ready()
        stt.lost()
        await anyio.sleep(0.1)
        it.ear.hear(b"\x02" * FRAME)
        await anyio.sleep(7 if shielded else 5)
        assert len(stt.sessions) == 2
        assert bytes(stt.current.audio) == b"\x02" * FRAME
        assert it.deaf == []


async def test_the_end_of_the_call_waits_a_moment_for_a_session_that_does_not_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with listening(Parting(shielded=True)) as it:
        await it.ear.ready()
        ends_at = anyio.current_time()
    assert anyio.current_time() - ends_at <= 2
    assert "the session of speech recognition does not end" in caplog.text


@pytest.mark.parametrize(
    ("kind", "reason"), [(Refusing, "ConnectionResetError"), (Leaving, "SystemExit")]
)
async def test_a_session_that_does_not_take_audio_is_lost_and_opened_again(
    kind: type[ScriptedTranscriptionSession], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    stt = Refused(2, kind)
    async with listening(stt) as it:
        await it.ear.ready()
        # The first session does not take the first frame, the second not what has waited.
        for number in range(5):
            it.ear.hear(bytes([number]) * FRAME)
        await anyio.sleep(5)
        it.ear.hear(b"\x05" * FRAME)
        assert (stt.refused, it.deaf) == (2, [])
        assert bytes(stt.current.audio) == b"".join(bytes([n]) * FRAME for n in range(1, 6))
    assert caplog.text.count(f"transcription lost: {reason}\n") == 2


async def test_one_that_raises_system_exit_before_a_session_ends_nothing_else() -> None:
    stt = Locked()
    async with listening(stt) as it:
        await anyio.sleep(60)
        assert it.deaf == ["SystemExit"]


async def test_what_was_understood_survives_a_session_that_takes_no_more_audio() -> None:
    stt = ScriptedTranscription()
    async with listening(stt) as it:
        await it.ear.ready()
        stt.started()
        stt.partial("No, stop")
        await anyio.sleep(0.1)
        stt.current.send_audio = Refusing.send_audio.__get__(stt.current)  # type: ignore[method-assign]
        it.ear.hear(b"\x01" * FRAME)
        await anyio.sleep(1)
        kinds = [type(event).__name__ for event in it.events]
        assert kinds == ["SpeechStarted", "Partial", "Final", "SpeechEnded"]
        assert bytes(stt.current.audio) == b"\x01" * FRAME
        # Another loss has another reason.
        stt.open_errors.extend([trouble()] * 4)
        stt.lost()
        await anyio.sleep(60)
        assert it.deaf == ["scripted: no way there"]


async def test_words_begin_an_utterance_whose_begin_was_not_told() -> None:
    stt = ScriptedTranscription()
    async with listening(stt) as it:
        await it.ear.ready()
        tell = stt.current.tell
        tell(Partial(utterance=1, at_ms=100, text="Good"))
        tell(Partial(utterance=1, at_ms=200, text="Good day"))
        tell(Final(utterance=1, at_ms=300, text="Good day."))
        tell(Final(utterance=2, at_ms=900, text="How are you?"))
        # One that numbers nothing.
        tell(Partial(utterance=2, at_ms=1500, text="Well"))
        tell(Final(utterance=2, at_ms=1600, text="Well?"))
        await anyio.sleep(1)
        told = [(type(event).__name__, getattr(event, "at_ms", None)) for event in it.events]
        assert told == [
            ("SpeechStarted", 100),
            ("Partial", 100),
            ("Partial", 200),
            ("Final", 300),
            ("SpeechStarted", 900),
            ("Final", 900),
            ("SpeechStarted", 1500),
            ("Partial", 1500),
            ("Final", 1600),
        ]
        # The next session may number its utterances as this one did.
        it.events.clear()
        stt.lost()
        await anyio.sleep(1)
        stt.current.tell(Final(utterance=2, at_ms=50, text="Hello?"))
        await anyio.sleep(1)
        assert [type(event).__name__ for event in it.events] == ["SpeechStarted", "Final"]


async def test_late_words_begin_no_utterance() -> None:
    stt = ScriptedTranscription()
    async with listening(stt) as it:
        await it.ear.ready()
        stt.started()
        stt.ended()
        stt.final("Good day.")
        await anyio.sleep(1)
        kinds = [type(event).__name__ for event in it.events]
        assert kinds == ["SpeechStarted", "SpeechEnded", "Final"]


async def test_an_end_of_the_call_is_no_loss_whatever_the_session_raises_then(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with listening(Parting(ConnectionResetError())) as it:
        await it.ear.ready()
    assert it.deaf == []
    assert "transcription lost" not in caplog.text


async def test_after_the_last_attempt_the_call_is_deaf_once() -> None:
    stt = ScriptedTranscription()
    stt.open_errors.extend([trouble()] * 20)
    async with listening(stt) as it:
        # A vendor that is down for a moment is given one.
        await anyio.sleep(3)
        assert it.deaf == []
        await anyio.sleep(57)
        assert it.deaf == ["scripted: no way there"]
        assert len(stt.open_errors) == 16
        with anyio.fail_after(0.1):
            await it.ear.ready()


@pytest.mark.parametrize(
    "error",
    [
        AuthenticationFailed("the key is not accepted", provider="scripted", status=401),
        RequestRejected("no such model", provider="scripted", status=400),
        ProviderUnavailable("the quota is used up", provider="scripted", retryable=False),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_vendor_that_refuses_a_session_is_not_asked_again(error: ProviderError) -> None:
    stt = ScriptedTranscription()
    stt.open_errors.append(error)
    async with listening(stt) as it:
        with anyio.fail_after(0.1):
            await it.ear.ready()
        await anyio.sleep(60)
    assert it.deaf == [str(error)]
    assert not stt.sessions


async def test_a_refusal_at_the_end_of_a_session_refuses_no_other() -> None:
    stt = Parting(RequestRejected("the session is over already", provider="scripted"))
    async with listening(stt) as it:
        await it.ear.ready()
        stt.lost()
        await anyio.sleep(5)
        assert it.deaf == []
        assert len(stt.sessions) == 2


async def test_attempts_are_counted_anew_after_a_healthy_while() -> None:
    stt = ScriptedTranscription()
    async with listening(stt) as it:
        for _ in range(6):
            await anyio.sleep(40)
            stt.lost()
        await anyio.sleep(5)
        assert it.deaf == []
        assert len(stt.sessions) == 7


async def test_attempts_are_counted_anew_behind_a_healthy_while_that_another_format_ended() -> None:
    stt = ScriptedTranscription()
    async with listening(stt) as it:
        for _ in range(3):
            await it.ear.ready()
            stt.lost()
            await anyio.sleep(5)
        await anyio.sleep(30)
        it.ear.expect(PCM16_16K)
        await anyio.sleep(1)
        stt.lost()
        await anyio.sleep(5)
        assert it.deaf == []
        assert len(stt.sessions) == 6


async def test_how_long_ago_a_sound_was() -> None:
    stt = ScriptedTranscription()
    async with listening(stt) as it:
        await it.ear.ready()
        it.ear.hear(bytes(MULAW_8K.size(1000)))
        assert it.ear.age_s(800) == pytest.approx(0.2)
        assert it.ear.age_s(1200) == 0.0


async def test_another_format_takes_another_session_and_drops_what_waited() -> None:
    stt = ScriptedTranscription()
    stt.open_delay_s = 1.0
    async with listening(stt) as it:
        it.ear.hear(b"\x01" * FRAME)
        await anyio.sleep(0.5)
        it.ear.expect(PCM16_16K)
        it.ear.hear(b"\x02" * FRAME)
        await anyio.sleep(0.9)
        assert stt.sessions == []
        await anyio.sleep(0.2)
        assert [session.options.audio_format for session in stt.sessions] == [PCM16_16K]
        assert bytes(stt.current.audio) == b"\x02" * FRAME
        assert it.ear.age_s(0) == PCM16_16K.duration_ms(FRAME) / 1000
        # An open session is given up, and the ear is not ready before there is another one.
        it.ear.expect(MULAW_8K)
        it.ear.hear(b"\x03" * FRAME)
        with anyio.move_on_after(0.5) as early:
            await it.ear.ready()
        assert early.cancelled_caught
        await it.ear.ready()
        assert stt.current.options.audio_format == MULAW_8K
        assert [bytes(session.audio)[:1] for session in stt.sessions] == [b"\x02", b"\x03"]
        assert it.deaf == []
