"""The caller's side of a realtime conversation: keys, words and signs of life."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from voicecall import MULAW_8K
from voicecall.media import Started
from voicecall.realtime import Transcript
from voicecall_calls.conversation.keys import CallerKeys
from voicecall_calls.conversation.line import AudioLine
from voicecall_calls.conversation.realtime.caller import MediaWatch
from voicecall_testing.clock import VirtualSeam, virtual_backend
from voicecall_testing.duplex import ScriptedRealtime
from voicecall_testing.phone import PhoneSocket

from .realtime_room import open_realtime

pytestmark = [pytest.mark.integration, pytest.mark.anyio]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_backend


# --- keys ------------------------------------------------------------------------------------


async def test_keys_are_told_when_no_more_follow() -> None:
    told: list[str] = []
    keys = CallerKeys(told.append)
    async with anyio.create_task_group() as tasks:
        keys.begin(tasks.start_soon)
        for key in "12":
            keys.press(key)
            await anyio.sleep(0.9)
        assert told == []
        await anyio.sleep(0.2)
        assert told == ["12"]
        # Another time of collecting, ended by its last key.
        keys.press("3")
        keys.press("#")
        await anyio.sleep(0)
        assert told == ["12", "3#"]


async def test_keys_wait_for_the_conversation() -> None:
    told: list[str] = []
    keys = CallerKeys(told.append)
    async with anyio.create_task_group() as tasks:
        keys.press("4")
        keys.press("5")
        await anyio.sleep(5)
        assert told == []
        keys.begin(tasks.start_soon)
        await anyio.sleep(0.5)
        keys.press("6")
    assert told == ["456"]


async def test_keys_pressed_in_a_pause_wait_for_its_end() -> None:
    told: list[str] = []
    keys = CallerKeys(told.append)
    async with anyio.create_task_group() as tasks:
        keys.begin(tasks.start_soon)
        keys.press("1")
        await anyio.sleep(0.5)
        keys.pause()
        await anyio.sleep(5)
        keys.press("2")
        await anyio.sleep(5)
        assert told == []
        keys.begin(tasks.start_soon)
    assert told == ["12"]


# --- signs of life ---------------------------------------------------------------------------


class Watched:
    """A line that is watched with a patience of 10 s, and when it was given up."""

    def __init__(self, patience_ms: int = 10_000) -> None:
        self.seam = VirtualSeam()
        self.given_up: list[float] = []
        self.line = AudioLine(
            self.seam,
            call_id="call-1",
            marks=True,
            lost=lambda stream: None,
            digits=lambda stream, digits: None,
        )
        self.watch = MediaWatch(self.line, self.seam, patience_ms, lost=self._lost)
        self.began = self.seam.monotonic()

    def _lost(self) -> None:
        self.given_up.append(round(self.seam.monotonic() - self.began, 3))

    def connect(self) -> PhoneSocket:
        socket = PhoneSocket("s")
        started = Started("t", socket.stream_id, "c", MULAW_8K, MULAW_8K)
        socket.listener = self.line.attach(socket, started)
        return socket


async def test_a_silent_carrier_is_given_up_once() -> None:
    it = Watched()
    phone = it.connect()
    with it.watch.watching():
        await anyio.sleep(7)
        await phone.speak(b"\xff" * 160)
        await anyio.sleep(100)
    assert it.given_up == [19]


async def test_a_lost_socket_is_not_silence() -> None:
    it = Watched()
    with it.watch.watching():
        await anyio.sleep(100)
        assert it.given_up == []
        it.connect()
        await anyio.sleep(100)
    (when,) = it.given_up
    # It was last looked at with no socket up to 10 s before the socket came.
    assert 102 <= when <= 112


async def test_the_patience_begins_with_the_watch() -> None:
    it = Watched()
    await anyio.sleep(8)
    it.connect()
    with it.watch.watching():
        await anyio.sleep(100)
    assert it.given_up == [20]


@pytest.mark.parametrize("patience_ms", [0, 10_000])
async def test_nothing_is_watched_for_ever_or_when_it_is_over(patience_ms: int) -> None:
    it = Watched(patience_ms)
    it.connect()
    with it.watch.watching():
        await anyio.sleep(11 if patience_ms else 1000)
    await anyio.sleep(1000)
    assert it.given_up == []


# --- words -----------------------------------------------------------------------------------


async def test_words_enter_the_record_in_order(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await phone.call_in()
        await phone.settle(1.5)
        for text in ("One.", "Two.", "Three."):
            model.current.tell(Transcript("user", "i", text, final=True))
        await phone.settle(1)
        model.current.tell(Transcript("user", "i", "Four.", final=True))
        await phone.settle(1)
        said = [text for who, text in phone.said if who == "user"]
        assert said == ["One.", "Two.", "Three.", "Four."]
