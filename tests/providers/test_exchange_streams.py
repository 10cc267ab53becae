"""The mock exchange's media streams: audio both ways, marks, digits, sockets that break."""

from __future__ import annotations

import io
import wave
from typing import Any

import pytest

from voicecall import media
from voicecall import telephony as tel
from voicecall.audio import mulaw_to_pcm16
from voicecall_mock.exchange import (
    DropSocket,
    HangUp,
    Interrupt,
    Press,
    Say,
    Silent,
    Wait,
    WaitForSilence,
)

pytestmark = [
    pytest.mark.integration,
    pytest.mark.anyio,
    pytest.mark.usefixtures("backstage"),
]

PHONE = "+15550002222"
QUIET = (Silent(),)
LOUD = bytes(range(160)) * 2
"""Two frames with every level in them."""


async def attached(gateway: Any, script: Any, token: str = "t-1") -> tuple[str, Any]:
    """A call in which a media stream is open: its id and the gateway's end of the socket."""
    gateway.exchange.set_phone(PHONE, script)
    gateway.replies["call.answered"] = [gateway.attach(token)]
    call = await gateway.dial()
    socket = await gateway.stream()
    await socket.first(media.Started)
    return call.provider_call_id, socket


async def test_what_the_phone_says_arrives_bit_exact(telephone: Any) -> None:
    async with telephone(speech=False) as gateway:
        script = (Say("levels", audio=LOUD), Wait(60), HangUp())
        call_id, socket = await attached(gateway, script, token="one-use")
        assert (await gateway.event("call.ended"))["reason"] == "hangup-user"
        started = socket.all(media.Started)
        assert [(event.token, event.provider_call_id) for event in started] == [
            ("one-use", call_id)
        ]
        assert await socket.gone() == (1000, "ended")
        assert socket.all(media.Stopped) == [media.Stopped("ended")]
        frames = socket.all(media.Audio)
        assert {len(frame.payload) for frame in frames} == {160}
        assert [frame.timestamp_ms for frame in frames] == [20 * n for n in range(len(frames))]
        assert socket.audio.count(LOUD) == 1
        assert socket.audio.replace(LOUD, b"").strip(b"\xff") == b""
        assert socket.text_only


async def test_what_the_gateway_sends_is_played_and_marked(telephone: Any) -> None:
    async with telephone() as gateway:
        call_id, socket = await attached(gateway, QUIET)
        audio = LOUD * 5
        await socket.send(socket.codec.audio(audio))
        await socket.send(socket.codec.mark("m-1"))
        await socket.send(socket.codec.audio(LOUD))
        await socket.send(socket.codec.mark("m-2"))
        await socket.first(media.MarkReached, 2)
        assert [mark.name for mark in socket.all(media.MarkReached)] == ["m-1", "m-2"]
        line = gateway.exchange.calls[call_id].line
        assert line.recording.heard.strip(b"\xff") == (audio + LOUD).strip(b"\xff")
        assert line.recording.heard.count(LOUD) == 6
        assert gateway.exchange.stats(call_id).underruns == 0


async def test_a_clear_returns_all_marks_and_silences_the_phone(telephone: Any) -> None:
    async with telephone() as gateway:
        call_id, socket = await attached(gateway, QUIET)
        await socket.send(socket.codec.audio(LOUD * 500))
        for name in ("m-1", "m-2"):
            await socket.send(socket.codec.mark(name))
        await socket.send(socket.codec.clear())
        await socket.first(media.MarkReached, 2)
        assert [mark.name for mark in socket.all(media.MarkReached)] == ["m-1", "m-2"]
        call = gateway.exchange.calls[call_id]
        assert call.line.stream.playback.pending_ms == 0


async def test_digits_both_ways(telephone: Any) -> None:
    async with telephone() as gateway:
        script = (WaitForSilence(100), Press("12#"), WaitForSilence(100), HangUp())
        call_id, socket = await attached(gateway, script)
        await socket.send(socket.codec.audio(LOUD * 3))
        assert (await socket.first(media.Dtmf)).digits == "12#"
        await socket.send(socket.codec.digits("99"))
        await socket.send(socket.codec.audio(LOUD * 3))
        await gateway.event("call.ended")
        stats = gateway.exchange.stats(call_id)
        assert (stats.digits_heard, stats.digits_pressed) == ("99", "12#")
        assert not gateway.all("call.digits")


async def test_a_dropped_socket_is_reported_and_replaced(telephone: Any) -> None:
    async with telephone() as gateway:
        script = (WaitForSilence(100), DropSocket(), Say("Still here."), HangUp())
        gateway.replies["call.stream-failed"] = [gateway.attach("t-2")]
        call_id, socket = await attached(gateway, script)
        await socket.send(socket.codec.audio(LOUD))
        assert "broke" in (await gateway.event("call.stream-failed"))["error"]
        assert (await socket.gone())[0] == 1006
        second = await gateway.stream(2)
        assert (await second.first(media.Started)).token == "t-2"
        assert (await gateway.event("call.ended"))["reason"] == "hangup-user"
        assert second.audio.strip(b"\xff") != b""
        stats = gateway.exchange.stats(call_id)
        assert (stats.streams, stats.log) == (2, (("said", "Still here."),))


@pytest.mark.parametrize("code", [1008, 1011])
async def test_a_socket_closed_by_the_gateway_with_an_error(telephone: Any, code: int) -> None:
    async with telephone() as gateway:
        call_id, socket = await attached(gateway, QUIET)
        await socket.connection.close(code)
        assert str(code) in (await gateway.event("call.stream-failed"))["error"]
        assert gateway.exchange.calls[call_id].status == "in-progress"


async def test_a_socket_that_cannot_be_opened(telephone: Any) -> None:
    async with telephone() as gateway:
        gateway.exchange.set_phone(PHONE, QUIET)
        nowhere = tel.StreamRequest("ws://127.0.0.1:1/media", "t")
        gateway.replies["call.answered"] = [tel.AttachStream(nowhere)]
        await gateway.dial()
        assert "cannot connect" in (await gateway.event("call.stream-failed"))["error"]


@pytest.mark.parametrize(
    "message",
    ['{"event": "media", "payload": "no base64!"}', '{"a":' * 100_000],
    ids=["no-base64", "deep"],
)
async def test_a_message_that_is_none_breaks_the_stream(telephone: Any, message: str) -> None:
    async with telephone() as gateway:
        _, socket = await attached(gateway, QUIET)
        await socket.send(message)
        assert (await socket.gone())[0] == 1007
        assert "not a media message" in (await gateway.event("call.stream-failed"))["error"]


async def test_a_new_stream_replaces_the_old_one(telephone: Any) -> None:
    async with telephone() as gateway:
        call_id, socket = await attached(gateway, QUIET)
        call = tel.CallRef("ours-1", call_id)
        await gateway.provider.perform(call, gateway.attach("t-2"))
        assert await socket.gone() == (1000, "replaced")
        second = await gateway.stream(2)
        await second.first(media.Audio)
        assert not gateway.all("call.stream-failed")
        assert gateway.exchange.calls[call_id].status == "in-progress"


async def test_an_interruption_is_measured_and_recorded(telephone: Any) -> None:
    async with telephone() as gateway:
        script = (Interrupt(60, "Stop please"), Silent(200), HangUp())
        call_id, socket = await attached(gateway, script)
        await socket.send(socket.codec.audio(LOUD * 500))
        await socket.changed.until(socket.speech)
        await socket.send(socket.codec.clear())
        await gateway.event("call.ended")
        stats = gateway.exchange.stats(call_id)
        assert len(stats.barge_in_stop_ms) == 1
        assert 0 <= stats.barge_in_stop_ms[0] < 10_000
        with wave.open(io.BytesIO(gateway.exchange.recording(call_id))) as file:
            assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (2, 2, 8000)
            samples = file.readframes(file.getnframes())
        recording = gateway.exchange.calls[call_id].line.recording
        left = b"".join(samples[n : n + 2] for n in range(0, len(samples), 4))
        assert left == mulaw_to_pcm16(recording.said)
        report = gateway.exchange.report(call_id)["calls"][0]["stats"]
        assert report["barge_in_stop_ms"] == stats.barge_in_stop_ms
        served = await gateway.rest("GET", f"/v1/calls/{call_id}/recording")
        assert served.content == gateway.exchange.recording(call_id)


async def test_the_default_phone_answers_what_it_hears(telephone: Any) -> None:
    async with telephone() as gateway:
        gateway.replies["call.answered"] = [gateway.attach()]
        call = await gateway.dial()
        socket = await gateway.stream()
        await socket.send(socket.codec.audio(LOUD * 10))
        await socket.changed.until(socket.speech)
        log = gateway.exchange.stats(call.provider_call_id).log
        assert log == (("said", "I heard you. Please go on."),)


async def test_many_streams_share_one_clock(telephone: Any) -> None:
    async with telephone() as gateway:
        gateway.exchange.set_phone(PHONE, (Say("hi"), Silent()))
        gateway.replies["call.answered"] = [gateway.attach()]
        for index in range(20):
            await gateway.dial(call_id=f"ours-{index}")
        await gateway.stream(20)
        for socket in gateway.sockets:
            await socket.changed.until(socket.speech)
        assert len({socket.all(media.Started)[0].stream_id for socket in gateway.sockets}) == 20
