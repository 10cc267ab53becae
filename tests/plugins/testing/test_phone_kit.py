"""The test phone is itself exact: what it plays, confirms and drops, and its voice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from voicecall import telephony as tel
from voicecall.audio import MULAW_8K
from voicecall.errors import MediaProtocolError
from voicecall.media import Audio, Dtmf, MarkReached, MediaEvent, Stopped
from voicecall_testing.clock import virtual_backend
from voicecall_testing.fakes import ScriptedCarrier, ScriptedCodec, ScriptedSpeech
from voicecall_testing.harness import open_phone
from voicecall_testing.phone import PhoneSocket

pytestmark = [pytest.mark.unit, pytest.mark.anyio]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_backend


class Listener:
    def __init__(self) -> None:
        self.events: list[tuple[float, MediaEvent]] = []
        self.closes = 0

    def received(self, event: MediaEvent) -> None:
        self.events.append((anyio.current_time(), event))

    def closed(self) -> None:
        self.closes += 1


async def test_it_plays_in_real_time_and_confirms_at_the_right_moment() -> None:
    socket, listener, codec = PhoneSocket("s"), Listener(), ScriptedCodec()
    socket.listener = listener
    begun = anyio.current_time()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(socket.run)
        socket.send(codec.audio(b"\x01" * MULAW_8K.size(700)))
        socket.send(codec.mark("m") or "")
        socket.send(codec.audio(b"\x02" * MULAW_8K.size(700)))
        socket.send(codec.mark("n") or "")
        await anyio.sleep(1.0)
        ((at, event),) = listener.events
        assert event == MarkReached("m")
        assert at - begun == pytest.approx(0.7)
        socket.send(codec.clear() or "")
        await anyio.sleep(1.0)
        at, event = listener.events[-1]
        assert event == MarkReached("n")
        assert at - begun == pytest.approx(1.0)
        assert len(socket.heard) == MULAW_8K.size(1000)
        socket.press("1")
        socket.stop()
        socket.close(1000, "over")
        socket.close(1001, "again")
    assert [event for _, event in listener.events[-2:]] == [Dtmf("1"), Stopped("hung up")]
    assert (socket.close_code, socket.close_reason, listener.closes) == (1000, "over", 1)
    socket.send(codec.audio(b"\x03" * 160))
    assert b"\x03" not in socket.audio_sent


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"audio": "%"}', '{"a": 1, "b": 2}', "null"])
def test_what_is_no_message_is_refused(text: str) -> None:
    with pytest.raises(MediaProtocolError):
        ScriptedCodec().decode(text)


def test_audio_survives_the_codec() -> None:
    codec = ScriptedCodec()
    assert codec.decode(codec.audio(bytes(range(256)))) == Audio(bytes(range(256)), 0)


async def test_the_voice_can_be_read_back_with_its_durations() -> None:
    voice = ScriptedSpeech(ms_per_char=40)
    audio = b""
    for text in ("Hello.", "Bye, then."):
        audio += b"".join([piece async for piece in voice.synthesize(text, None)])
    assert voice.texts_in(audio) == [("Hello.", 240.0), ("Bye, then.", 400.0)]
    assert voice.duration_s("Hello.") == pytest.approx(0.24)


async def test_a_failed_assertion_comes_out_as_itself(tmp_path: Path) -> None:
    async def scene() -> None:
        async with open_phone(tmp_path) as phone:
            await phone.call_in()
            raise AssertionError("told by the test")

    with pytest.raises(AssertionError, match="told by the test"):
        await scene()


async def test_the_same_seed_gives_the_same_call(tmp_path: Path) -> None:
    ids = []
    for name in ("a", "b"):
        async with open_phone(tmp_path / name) as phone:
            await phone.call_in()
            ids.append(phone.record.call_id)
    assert ids[0] == ids[1]


async def test_calls_that_are_placed_at_once_have_each_their_own_id() -> None:
    carrier = ScriptedCarrier()
    found: dict[str, str] = {}

    async def place(call_id: str) -> None:
        found[call_id] = await carrier.place_call(dialling(call_id))

    async with anyio.create_task_group() as tasks:
        for number in range(3):
            tasks.start_soon(place, f"c-{number}")
    assert len(set(found.values())) == 3
    for call_id, carrier_id in found.items():
        query = tel.DialQuery(
            call_id=call_id,
            from_number="+15550001111",
            to_number="+15550002222",
            placed_at=0,
            known=frozenset(),
        )
        assert await carrier.find_dial(query) == carrier_id


def dialling(call_id: str) -> tel.DialRequest:
    return tel.DialRequest(
        call_id=call_id,
        from_number="+15550001111",
        to_number="+15550002222",
        webhook_url="https://phone.test/voice/webhook",
        ring_timeout_s=20,
        time_limit_s=60,
    )
