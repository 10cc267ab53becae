"""Twilio's emulator: media streams, their messages, callbacks and failures."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import wave
from typing import Any

import anyio
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from twilio.request_validator import RequestValidator

from voicecall.model import EndReason
from voicecall.seam import SystemSeam
from voicecall_mock.exchange import DropSocket, HangUp, Press, Say, Silent, Wait, WaitForSilence
from voicecall_mock.exchange.board import Switchboard
from voicecall_mock.exchange.ledger import Ledger
from voicecall_mock.exchange.line import CarrierLine
from voicecall_mock.exchange.sockets import MediaClock
from voicecall_mock.exchange.voice import Voice
from voicecall_testing.twilio import TwilioOptions
from voicecall_testing.twilio.streams import TwilioStream
from voicecall_testing.twilio.twiml import Stream

pytestmark = [
    pytest.mark.integration,
    pytest.mark.anyio,
    pytest.mark.usefixtures("backstage"),
]

HERE = "+15550100000"
CALLER = "+15550100001"
QUIET = (Silent(),)
LOUD = bytes([0x80, 0x00] * 80)
"""20 ms of mu-law at full amplitude."""


def payload(frames: int) -> str:
    return base64.b64encode(LOUD * frames).decode()


async def until(condition: Any) -> None:
    with anyio.fail_after(15):
        while not condition():
            await anyio.sleep(0.005)


async def test_the_frames_of_a_stream(customer: Any) -> None:
    async with customer() as c:
        c.answer("/voice", c.stream(token="t-1", other="&lt;&amp;"))
        sid = c.twilio.dial_in(CALLER, HERE, (Wait(100), Press("1#"), Silent()))
        socket = await c.socket()
        await until(lambda: len(socket.of("media")) >= 10 and len(socket.of("dtmf")) == 2)
        connected, start = socket.frames[:2]
        assert connected == {"event": "connected", "protocol": "Call", "version": "1.0.0"}
        assert start["sequenceNumber"] == "1"
        assert start["start"] == {
            "streamSid": start["streamSid"],
            "accountSid": c.twilio.options.account_sid,
            "callSid": sid,
            "tracks": ["inbound"],
            "customParameters": {"token": "t-1", "other": "<&"},
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        }
        media = socket.of("media")
        assert [frame["media"]["chunk"] for frame in media] == [
            str(n + 1) for n in range(len(media))
        ]
        assert media[3]["media"]["timestamp"] == "60"
        assert base64.b64decode(media[0]["media"]["payload"]) == b"\xff" * 160
        numbers = [int(frame["sequenceNumber"]) for frame in socket.frames[1:]]
        assert numbers == list(range(1, len(numbers) + 1))
        assert [frame["dtmf"]["digit"] for frame in socket.of("dtmf")] == ["1", "#"]
        validator = RequestValidator(c.twilio.options.auth_token)
        assert validator.validate(c.stream_url, {}, socket.signature)
        c.twilio.calls[sid].hang_up()
        await until(lambda: socket.closed)
        assert socket.frames[-1]["event"] == "stop"
        assert socket.frames[-1]["stop"]["callSid"] == sid


async def test_marks_come_back_when_played_and_all_at_once_on_clear(customer: Any) -> None:
    async with customer() as c:
        c.answer("/voice", c.stream())
        sid = c.twilio.dial_in(CALLER, HERE, QUIET)
        socket = await c.socket()
        await socket.send("mark", name="at-once")
        await socket.send("media", payload=payload(10))
        await socket.send("mark", name="played")
        await socket.send("media", payload=payload(3000))
        await socket.send("mark", name="cut")
        await until(lambda: len(socket.of("mark")) == 2)
        after = socket.frames.index(socket.of("mark")[1])
        assert sum(frame["event"] == "media" for frame in socket.frames[:after]) >= 10
        await socket.send("clear")
        await until(lambda: len(socket.of("mark")) == 3)
        names = [frame["mark"]["name"] for frame in socket.of("mark")]
        assert names == ["at-once", "played", "cut"]
        heard = len(socket.of("media"))
        await until(lambda: len(socket.of("media")) >= heard + 10)
        with wave.open(io.BytesIO(c.twilio.recording(sid))) as reader:
            both = np.frombuffer(reader.readframes(reader.getnframes()), "<i2")
        far = np.abs(both[1::2].astype(np.int32)).reshape(-1, 160).max(axis=1) > 1000
        assert 10 <= far.sum() < 3000
        assert not far[-5:].any()


async def test_bad_messages_are_warnings(customer: Any) -> None:
    async with customer() as c:
        c.answer("/voice", c.stream())
        sid = c.twilio.dial_in(CALLER, HERE, QUIET)
        socket = await c.socket()
        await socket.socket.send(b"\x00\x01")
        for text in (
            "no json",
            '{"a":' * 100_000,
            '{"event":"sing"}',
            '{"event":"clear","streamSid":"MZ0"}',
            f'{{"event":"clear","streamSid":"{socket.sid}","extra":1}}',
            f'{{"event":"media","streamSid":"{socket.sid}","media":{{"payload":"?"}}}}',
        ):
            await socket.socket.send(text)
        await socket.send("mark", name="still here")
        await until(lambda: socket.of("mark"))
        assert sorted(c.codes(sid)) == [31950, 31951]


async def test_the_next_verb_runs_when_the_server_closes(customer: Any) -> None:
    async with customer() as c:
        c.answer("/voice", c.stream() + "<Say>After it.</Say>")
        sid = c.twilio.dial_in(CALLER, HERE, QUIET)
        socket = await c.socket()
        await socket.socket.close()
        assert await c.ended(sid) == "completed"
        assert c.heard(sid) == [("After it.", True)]
        assert c.codes(sid) == [31921]
        assert not socket.of("stop")


async def test_a_connect_with_an_action_goes_on_there(customer: Any) -> None:
    async with customer() as c:
        inner = c.stream().replace("<Connect>", '<Connect action="/after">')
        c.answer("/voice", inner + "<Say>Never said.</Say>")
        c.answer("/after", "<Say>From the action.</Say>")
        sid = c.twilio.dial_in(CALLER, HERE, QUIET)
        await (await c.socket()).socket.close()
        await c.ended(sid)
        assert c.heard(sid) == [("From the action.", True)]
        assert c.at("/after")[0].valid


async def test_a_redirect_stops_the_stream_and_another_attaches(customer: Any) -> None:
    async with customer() as c:
        c.answer("/voice", c.stream())
        c.answer("/again", '<Play digits="12"/>' + c.stream(token="second"))
        sid = c.twilio.dial_in(CALLER, HERE, QUIET)
        first = await c.socket()
        await c.sdk(lambda client: client.calls(sid).update(url=f"{c.base}/again"))
        second = await c.socket(2)
        await until(lambda: first.closed and len(second.of("media")) > 3)
        assert first.frames[-1]["event"] == "stop"
        assert first.sid != second.sid
        assert second.of("start")[0]["start"]["customParameters"] == {"token": "second"}
        stats = c.twilio.stats(sid)
        assert (stats.digits_heard, stats.streams) == ("12", 2)
        assert c.twilio.calls[sid].status == "in-progress"


async def test_a_phone_talks_on_a_stream(customer: Any) -> None:
    async with customer() as c:
        c.answer("/voice", c.stream())
        steps = (WaitForSilence(100), Say("Hello.", audio=LOUD * 5), HangUp())
        sid = c.twilio.dial_in(CALLER, HERE, steps)
        socket = await c.socket()
        await socket.send("media", payload=payload(5))
        assert await c.ended(sid) == "completed"
        await until(lambda: socket.closed)
        said = [base64.b64decode(frame["media"]["payload"]) for frame in socket.of("media")]
        assert said.count(LOUD) == 5
        assert c.twilio.calls[sid].reason is EndReason.HANGUP_USER
        assert c.twilio.stats(sid).log == (("said", "Hello."),)


async def test_stream_status_callbacks(customer: Any) -> None:
    async with customer() as c:
        inner = c.stream().replace("<Stream ", '<Stream name="line" statusCallback="{0}" ')
        c.answer("/voice", inner.format(f"{c.base}/stream"))
        sid = await c.dial(status_callback=f"{c.base}/status")
        socket = await c.socket()
        await c.sdk(lambda client: client.calls(sid).update(status="completed"))
        await c.ended(sid)
        started, stopped = (await c.first("/stream"), await c.first("/stream", 2))
        assert started.params["StreamEvent"] == "stream-started"
        assert stopped.params["StreamEvent"] == "stream-stopped"
        assert started.params["StreamSid"] == socket.sid
        assert started.params["StreamName"] == "line"
        await c.first("/status")
        assert [seen.path for seen in c.seen][-2:] == ["/stream", "/status"]
        assert all(seen.valid for seen in c.seen)


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("ws://voice.example.com/media", 31922),
        ("http://127.0.0.1/media", 31922),
        ("ws://127.0.0.1:9/media", 31920),
    ],
)
async def test_a_stream_that_cannot_be_opened(customer: Any, url: str, code: int) -> None:
    async with customer() as c:
        callback = f"{c.base}/stream"
        c.answer(
            "/voice",
            f'<Connect><Stream url="{url}" statusCallback="{callback}"/></Connect>'
            "<Say>Sorry.</Say>",
        )
        sid = c.twilio.dial_in(CALLER, HERE, QUIET)
        await c.ended(sid)
        assert c.codes(sid) == [code]
        assert c.heard(sid) == [("Sorry.", True)]
        failed = await c.first("/stream")
        assert failed.params["StreamEvent"] == "stream-error"
        assert failed.params["StreamError"]


async def test_the_query_of_a_streams_url_is_dropped(customer: Any) -> None:
    async with customer() as c:
        c.answer("/voice", c.stream().replace("/media", "/media?token=secret"))
        sid = c.twilio.dial_in(CALLER, HERE, QUIET)
        assert (await c.socket()).path == "/media"
        assert c.twilio.ledger.entries("warning", call=sid)


async def test_sockets_break_on_command_and_by_the_script(customer: Any) -> None:
    async with customer() as c:
        c.answer("/voice", c.stream() + c.stream() + c.stream())
        sid = c.twilio.dial_in(CALLER, HERE, (Wait(100), DropSocket(), Silent()))
        first = await c.socket()
        second = await c.socket(2)
        assert first.closed
        assert not first.of("stop")
        call = c.twilio.calls[sid]
        await until(lambda: call.line.stream is not None)
        assert call.streams.break_one(drop=True)
        third = await c.socket(3)
        assert second.closed
        await until(lambda: call.line.stream is not None)
        assert call.streams.break_one(drop=False)
        heard = len(third.frames)
        await third.send("mark", name="unread")
        await anyio.sleep(0.2)
        assert len(third.frames) <= heard + 1
        assert not third.of("mark")
        assert not third.closed
        call.hang_up()
        await until(lambda: third.closed)


async def test_audio_for_a_slow_server_is_thrown_away(customer: Any) -> None:
    async with customer() as c:
        c.answer("/voice", c.stream())
        sid = c.twilio.dial_in(CALLER, HERE, QUIET)
        socket = await c.socket()
        socket.socket.transport.pause_reading()
        (stream,) = c.twilio.calls[sid].streams.all
        for _ in range(200):
            for _ in range(500):
                stream.tick()
            await anyio.sleep(0.001)
            if c.codes(sid):
                break
        assert c.codes(sid) == [31930]
        socket.socket.transport.resume_reading()
        await until(lambda: stream.backlog == 0)
        stream.tick()
        last = json.loads(stream.media_message(0, b""))
        await until(lambda: int(socket.frames[-1]["sequenceNumber"]) >= int(last["sequenceNumber"]))
        chunks = [int(frame["media"]["chunk"]) for frame in socket.of("media")]
        assert len(chunks) < chunks[-1]
        assert not socket.closed


class Warned:
    """A call that only counts warnings."""

    line: CarrierLine

    def __init__(self) -> None:
        self.codes: list[int] = []

    def stream_opened(self, stream: TwilioStream) -> None: ...

    def stream_closed(self, stream: TwilioStream) -> None: ...

    def stream_warning(self, stream: TwilioStream, code: int, message: str) -> None:
        self.codes.append(code)


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=20),
            st.text(max_size=20),
            st.builds(
                lambda event, sid, body: json.dumps(
                    {"event": event, "streamSid": sid, event: body}
                ),
                st.sampled_from(["media", "mark", "clear", "start"]),
                st.sampled_from(["MZ1", "MZ2", None, 1]),
                st.sampled_from([{"payload": "gICA"}, {"payload": "&"}, {"name": "a"}, {}, None]),
            ),
        ),
        max_size=8,
    )
)
def test_any_message_is_taken_or_warned_about_once(messages: list[str | bytes]) -> None:
    codes = asyncio.run(warnings_about(messages))
    assert len(codes) == len(set(codes))
    assert set(codes) <= {31950, 31951}
    assert (31950 in codes) is any(isinstance(message, bytes) for message in messages)


async def warnings_about(messages: list[str | bytes]) -> list[int]:
    owner, seam, verb = Warned(), SystemSeam(), Stream(url="wss://a.example/")
    ledger = Ledger(seam)
    board = Switchboard(
        options=TwilioOptions(),
        seam=seam,
        ledger=ledger,
        voice=Voice(None, None, ledger),
        clock=MediaClock(seam),
    )
    stream = TwilioStream(verb, "MZ1", "AC1", "CA1", owner, board, {})
    for message in messages:
        stream.received(message)
    return owner.codes
