"""The audio line: playback over lost and replaced sockets, marks that never come, events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voicecall.audio import MULAW_8K, AudioFormat
from voicecall.media import Dtmf, MarkReached, MediaError, Message, Started, Stopped
from voicecall_calls.conversation.line import AudioLine
from voicecall_testing.clock import VirtualSeam, virtual_backend
from voicecall_testing.fakecarrier import ScriptedCodec
from voicecall_testing.phone import PhoneSocket

pytestmark = [pytest.mark.unit, pytest.mark.anyio]

SECOND = MULAW_8K.size(1000)


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_backend


def ramp(milliseconds: int) -> bytes:
    """Audio in which every piece is different."""
    return b"".join(bytes([n % 251]) * 80 for n in range(milliseconds // 10))


class FaultyCodec(ScriptedCodec):
    def mark(self, name: str) -> Message | None:
        raise KeyError("bug")

    def clear(self) -> Message | None:
        raise KeyError("bug")

    def digits(self, digits: str) -> Message | None:
        raise KeyError("bug")


class FaultySocket(PhoneSocket):
    codec = FaultyCodec()


class Room:
    """A line, its task, and the sockets it had."""

    def __init__(self, tasks: anyio.abc.TaskGroup, *, marks: bool = True) -> None:
        self.lost: list[str] = []
        self.keys: list[tuple[str, str]] = []
        self.line = AudioLine(
            VirtualSeam(),
            call_id="call-1",
            marks=marks,
            lost=self.lost.append,
            digits=lambda stream, digits: self.keys.append((stream, digits)),
        )
        self.sockets: list[PhoneSocket] = []
        self._tasks = tasks
        tasks.start_soon(self.line.run)

    def connect(
        self,
        *,
        returns_marks: bool = True,
        audio_format: AudioFormat = MULAW_8K,
        kind: type[PhoneSocket] = PhoneSocket,
    ) -> PhoneSocket:
        socket = kind(
            f"s-{len(self.sockets)}", returns_marks=returns_marks, audio_format=audio_format
        )
        started = Started("t", socket.stream_id, "c", audio_format, audio_format)
        socket.listener = self.line.attach(socket, started)
        self.sockets.append(socket)
        self._tasks.start_soon(socket.run)
        return socket


@asynccontextmanager
async def room(*, marks: bool = True) -> AsyncIterator[Room]:
    async with anyio.create_task_group() as tasks:
        yield Room(tasks, marks=marks)
        tasks.cancel_scope.cancel()


async def test_what_is_written_is_played_in_order_and_reported() -> None:
    async with room() as it:
        socket = it.connect()
        audio = ramp(1500)
        it.line.write("a", audio)
        it.line.finish("a")
        heard = await it.line.played("a")
        assert bytes(socket.heard) == audio
        assert heard.complete
        assert heard.milliseconds == 1500


async def test_audio_waits_for_a_socket() -> None:
    async with room() as it:
        it.line.write("a", ramp(200))
        it.line.finish("a")
        await anyio.sleep(3)
        assert it.line.pacer.pending("a")
        socket = it.connect()
        await it.line.played("a")
        assert bytes(socket.heard) == ramp(200)


async def test_two_items_play_one_after_the_other() -> None:
    async with room() as it:
        socket = it.connect()
        it.line.write("a", b"\x01" * SECOND)
        it.line.finish("a")
        it.line.write("b", b"\x02" * SECOND)
        it.line.finish("b")
        await it.line.played("a")
        assert set(socket.heard) <= {1, 2}
        await it.line.played("b")
        assert bytes(socket.heard) == b"\x01" * SECOND + b"\x02" * SECOND


async def test_clear_silences_at_once_and_tells_what_was_heard() -> None:
    async with room() as it:
        socket = it.connect()
        it.line.write("a", b"\x01" * SECOND)
        it.line.write("b", b"\x02" * SECOND)
        await anyio.sleep(0.5)
        heard = it.line.clear()
        await anyio.sleep(3)
        assert socket.clears == 1
        assert len(socket.heard) == pytest.approx(SECOND / 2, abs=MULAW_8K.size(20))
        assert heard["a"].milliseconds == pytest.approx(500, abs=20)
        assert not heard["a"].complete
        assert heard["b"].milliseconds == 0
        # The line is free for what comes next.
        it.line.write("c", b"\x03" * SECOND)
        it.line.finish("c")
        await it.line.played("c")
        assert bytes(socket.heard).endswith(b"\x03" * SECOND)


@pytest.mark.parametrize("marks", [True, False])
@pytest.mark.parametrize("at_s", [0.0, 0.3, 0.333, 0.48, 1.45])
async def test_a_pause_is_silent_at_once_and_loses_nothing(at_s: float, marks: bool) -> None:
    async with room(marks=marks) as it:
        socket = it.connect(returns_marks=marks)
        audio = ramp(1500)
        it.line.write("a", audio[: SECOND // 2])
        await anyio.sleep(at_s)
        it.line.pause()
        await anyio.sleep(0)
        heard = len(socket.heard)
        # What comes meanwhile waits as well.
        it.line.write("a", audio[SECOND // 2 :])
        it.line.finish("a")
        await anyio.sleep(10)
        assert len(socket.heard) == heard
        assert socket.clears == 1
        it.line.resume()
        told = await it.line.played("a")
        assert bytes(socket.heard) == audio
        assert told.milliseconds == pytest.approx(1500, abs=0.2)
        assert told.complete or not marks


async def test_a_pause_behind_the_last_word_is_the_end() -> None:
    async with room() as it:
        socket = it.connect()
        it.line.write("a", ramp(400))
        it.line.finish("a")
        await anyio.sleep(0.4)
        it.line.pause()
        assert (await it.line.played("a")).complete
        assert bytes(socket.heard) == ramp(400)


async def test_clearing_ends_a_pause() -> None:
    async with room() as it:
        socket = it.connect()
        it.line.write("a", ramp(1000))
        await anyio.sleep(0.3)
        it.line.pause()
        await anyio.sleep(1)
        heard = it.line.clear()
        assert heard["a"].milliseconds == pytest.approx(300, abs=1)
        it.line.write("b", ramp(200))
        it.line.finish("b")
        await it.line.played("b")
        assert bytes(socket.heard) == ramp(1000)[: SECOND * 3 // 10] + ramp(200)


async def test_a_pause_outlives_the_socket() -> None:
    async with room() as it:
        first = it.connect()
        audio = ramp(1000)
        it.line.write("a", audio)
        it.line.finish("a")
        await anyio.sleep(0.3)
        it.line.pause()
        await anyio.sleep(0)
        first.drop()
        await anyio.sleep(1)
        second = it.connect()
        await anyio.sleep(1)
        assert bytes(second.heard) == b""
        it.line.resume()
        await it.line.played("a")
        assert bytes(first.heard + second.heard) == audio


@pytest.mark.parametrize("after_s", [0.0, 0.05, 0.73, 1.4])
async def test_only_what_was_not_confirmed_is_sent_again(after_s: float) -> None:
    async with room() as it:
        first = it.connect()
        audio = ramp(1500)
        it.line.write("a", audio)
        it.line.finish("a")
        await anyio.sleep(after_s)
        # What was confirmed by marks is known to have been heard.
        confirmed = MULAW_8K.size(it.line.heard_ms("a"))
        first.drop()
        await anyio.sleep(0.3)
        assert it.lost == ["s-0"]
        second = it.connect()
        await it.line.played("a")
        again = bytes(second.heard)
        assert audio.endswith(again)
        assert len(first.heard) + len(again) >= len(audio)
        assert len(again) <= len(audio) - confirmed + MULAW_8K.size(300)


@pytest.mark.parametrize("after_s", [0.05, 0.73, 1.4])
@pytest.mark.parametrize("ends", ["drop", "stop", "replaced"])
async def test_caller_audio_confirms_what_was_played(after_s: float, ends: str) -> None:
    async with room() as it:
        first = it.connect()
        audio = ramp(1500)
        await first.speak(b"\x7f" * 320)
        it.line.write("a", audio)
        it.line.finish("a")
        await first.speak(b"\x7f" * MULAW_8K.size(after_s * 1000))
        if ends != "replaced":
            getattr(first, ends)()
            await anyio.sleep(0.3)
        second = it.connect()
        await it.line.played("a")
        again = bytes(second.heard)
        assert audio.endswith(again)
        # A tenth of a second may have been on its way.
        twice_ms = MULAW_8K.duration_ms(len(first.heard) + len(again) - len(audio))
        assert min(after_s * 1000, 100) - 1 <= twice_ms <= 130


async def test_audio_in_real_time_is_marked_as_often() -> None:
    async with room() as it:
        socket = it.connect()
        for _ in range(200):
            it.line.write("a", ramp(20))
            await anyio.sleep(0.02)
        assert 15 <= len(socket.marks) <= 18


async def test_few_marks_do_while_the_caller_is_heard() -> None:
    async with room() as it:
        socket = it.connect()
        it.line.write("a", ramp(9000))
        await socket.speak(b"\x7f" * 4 * SECOND)
        assert len(socket.marks) <= 6
        # Then only marks tell what arrives.
        known = len(socket.marks)
        await anyio.sleep(4)
        assert len(socket.marks) - known >= 12


@settings(max_examples=25)
@given(st.lists(st.integers(10, 900), min_size=1, max_size=4))
def test_no_word_is_lost_over_any_number_of_sockets(losses_ms: list[int]) -> None:
    audio = ramp(2000)

    async def scene() -> list[bytes]:
        async with room() as it:
            it.line.write("a", audio)
            it.line.finish("a")
            for loss in losses_ms:
                socket = it.connect()
                await anyio.sleep(loss / 1000)
                socket.drop()
                await anyio.sleep(0.1)
            it.connect()
            await it.line.played("a")
            return [bytes(socket.heard) for socket in it.sockets]

    backend, options = virtual_backend
    parts = anyio.run(scene, backend=backend, backend_options=options)
    # Every socket goes on at or before where the last one stopped, never after.
    reached = 0
    for part in parts:
        at = audio.find(part) if part else reached
        assert 0 <= at <= reached
        reached = max(reached, at + len(part))
    assert reached == len(audio)


async def test_an_error_that_the_carrier_reports_is_told_and_no_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with room() as it:
        socket = it.connect()
        assert socket.listener is not None
        socket.listener.received(MediaError("code 31951"))
        assert socket.close_code is None
        assert it.lost == []
    assert "call call-1: the carrier reports a media error: code 31951" in caplog.text


async def test_a_replaced_socket_is_closed_and_means_nothing_any_more() -> None:
    async with room() as it:
        heard: list[bytes] = []
        it.line.listen(heard.append)
        old = it.connect()
        it.line.write("a", ramp(1000))
        it.line.finish("a")
        await anyio.sleep(0.4)
        new = it.connect()
        assert (old.close_code, old.close_reason) == (1000, "Replaced")
        late = old.listener
        assert late is not None
        late.received(Dtmf("8"))
        late.received(Stopped("over"))
        for mark in old.marks:
            late.received(MarkReached(mark))
        with anyio.fail_after(5):
            await it.line.played("a")
        assert it.lost == []
        assert ramp(1000).endswith(bytes(new.heard))
        assert len(old.heard) + len(new.heard) >= SECOND
        assert it.line.socket is new
        await new.speak(b"\x05" * 160)
        new.press("7")
        assert heard == [b"\x05" * 160]
        assert it.keys == [("s-1", "7")]


@pytest.mark.parametrize("known", [True, False])
async def test_marks_that_never_come_are_not_waited_for_for_ever(known: bool) -> None:
    """``known``: whether the carrier says that it has none."""
    async with room(marks=not known) as it:
        it.connect(returns_marks=False)
        it.line.write("a", ramp(1000))
        it.line.finish("a")
        with anyio.move_on_after(60) as patience:
            begun = anyio.current_time()
            await it.line.played("a")
        assert not patience.cancelled_caught
        took = anyio.current_time() - begun
        assert 1.0 <= took <= 3.2
        if not known:
            assert took >= 2.9


async def test_a_lost_socket_is_no_reason_to_take_audio_for_played() -> None:
    async with room() as it:
        it.connect()
        it.line.write("a", ramp(1000))
        it.line.finish("a")
        await anyio.sleep(0.3)
        it.sockets[0].drop()
        with anyio.move_on_after(30) as waited:
            await it.line.played("a")
        assert waited.cancelled_caught


async def test_the_carriers_end_of_the_stream_closes_the_socket() -> None:
    async with room() as it:
        socket = it.connect()
        await anyio.sleep(0.01)
        socket.stop()
        await anyio.sleep(0.01)
        assert (socket.close_code, socket.close_reason) == (1000, "Stopped")
        assert it.lost == ["s-0"]
        assert it.line.socket is None
        with anyio.move_on_after(1) as waiting:
            await it.line.attached()
        assert waiting.cancelled_caught


async def test_hanging_the_line_up_is_no_loss() -> None:
    async with room() as it:
        socket = it.connect()
        await anyio.sleep(0.01)
        it.line.close()
        await anyio.sleep(0.01)
        assert socket.close_code == 1000
        assert it.lost == []


async def test_too_much_audio_is_dropped_and_the_line_goes_on() -> None:
    async with room() as it:
        socket = it.connect()
        it.line.write("a", ramp(1000))
        it.line.write("a", bytes(601 * SECOND))
        it.line.finish("a")
        await it.line.played("a")
        assert bytes(socket.heard) == ramp(1000)


async def test_dropped_audio_is_told_of_once_an_item(caplog: pytest.LogCaptureFixture) -> None:
    async with room() as it:
        it.connect()
        for item in ("a", "b"):
            for _ in range(200):
                it.line.write(item, bytes(4 * SECOND))
                await anyio.sleep(0.1)
            it.line.clear()
    assert caplog.text.count("call call-1: audio for the caller is dropped") == 2


async def test_keys_go_out_where_the_carrier_takes_them() -> None:
    async with room() as it:
        assert not it.line.send_digits("1")
        socket = it.connect()
        assert it.line.send_digits("12#")
        assert socket.digits == ["12#"]


async def test_the_times_of_an_item_are_known_until_it_is_forgotten() -> None:
    async with room() as it:
        it.line.write("a", ramp(100))
        await anyio.sleep(2)
        it.connect()
        await anyio.sleep(0.01)
        written, sent = it.line.first_written("a"), it.line.first_sent("a")
        assert written is not None
        assert sent is not None
        assert sent - written == pytest.approx(2000, abs=5)
        it.line.finish("a")
        await it.line.played("a")
        assert it.line.heard_ms("a") == 100
        it.line.forget("a")
        assert it.line.first_sent("a") is None
        assert it.line.heard_ms("a") == 0


async def test_a_wideband_carrier_is_paced_in_its_own_format() -> None:
    wide = AudioFormat("pcm16", 16_000)
    async with room() as it:
        socket = it.connect(audio_format=wide)
        audio = bytes(range(200)) * 160
        begun = anyio.current_time()
        it.line.write("a", audio)
        it.line.finish("a")
        heard = await it.line.played("a")
        assert heard.milliseconds == 1000
        assert anyio.current_time() - begun == pytest.approx(1.0, abs=0.01)
        assert bytes(socket.heard) == audio


@pytest.mark.parametrize("what", ["mark", "clear", "pause", "digits"])
async def test_a_codec_that_fails_costs_its_socket_and_nothing_else(
    what: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with room() as it:
        socket = it.connect(kind=FaultySocket)
        match what:
            case "mark":
                it.line.write("a", ramp(1500))
            case "clear":
                it.line.clear()
            case "pause":
                it.line.pause()
                it.line.resume()
            case _:
                assert not it.line.send_digits("1")
        assert socket.close_code == 1011
        await anyio.sleep(0.1)
        assert it.lost == ["s-0"]
        it.line.write("b", ramp(500))
        it.line.finish("a")
        it.line.finish("b")
        later = it.connect()
        await it.line.played("b")
        assert bytes(later.heard) == (ramp(1500) if what == "mark" else b"") + ramp(500)
    assert caplog.text.count("call call-1: the media codec failed\n") == 1
