"""The codec for messages of Twilio's Media Streams."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest

from voicecall import MULAW_8K
from voicecall.errors import MediaProtocolError
from voicecall.media import Audio, Dtmf, MarkReached, Started, Stopped
from voicecall_twilio.codec import TwilioCodec

pytestmark = pytest.mark.unit

START = {
    "streamSid": "MZ1",
    "accountSid": "AC1",
    "callSid": "CA1",
    "tracks": ["inbound"],
    "customParameters": {"token": "one-use", "other": "x"},
    "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
}


def frame(event: str, content: Any = None, **more: Any) -> str:
    whole = {"event": event, "sequenceNumber": "2", "streamSid": "MZ1", **more}
    return json.dumps(whole if content is None else {**whole, event: content})


def started(**changes: Any) -> TwilioCodec:
    codec = TwilioCodec()
    assert isinstance(codec.decode(frame("start", {**START, **changes})), Started)
    return codec


def test_the_start_message() -> None:
    codec = TwilioCodec()
    assert codec.decode('{"event":"connected","protocol":"Call","version":"1.0.0"}') is None
    assert codec.decode(frame("start", START)) == Started(
        "one-use", "MZ1", "CA1", MULAW_8K, MULAW_8K, {"token": "one-use", "other": "x"}
    )


def test_messages_from_the_caller() -> None:
    codec = started()
    payload = bytes(range(160))
    media = {"track": "inbound", "chunk": "1", "timestamp": "25"}
    encoded = b64encode(payload).decode()
    assert codec.decode(frame("media", {**media, "payload": encoded})) == Audio(payload, 25)
    assert codec.decode(frame("media", {**media, "payload": encoded, "timestamp": 25})) == Audio(
        payload, 25
    )
    assert codec.caller_audio(frame("media", {**media, "payload": encoded})) == payload
    outbound = {**media, "track": "outbound", "payload": encoded}
    assert codec.decode(frame("media", outbound)) is None
    assert codec.caller_audio(frame("media", outbound)) is None
    assert codec.caller_audio(frame("mark", {"name": "tts-1"})) is None
    assert codec.decode(frame("dtmf", {"track": "inbound_track", "digit": "#"})) == Dtmf("#")
    assert codec.decode(frame("mark", {"name": "tts-1"})) == MarkReached("tts-1")
    assert codec.decode(frame("stop", {"accountSid": "AC1", "callSid": "CA1"})) == Stopped()


def test_what_twilio_adds_is_passed_over() -> None:
    codec = started()
    assert codec.decode(frame("weather", {"rain": True})) is None
    assert codec.decode(frame("mark", {"name": "m", "new": [1]}, more={"x": 1})) == MarkReached("m")


@pytest.mark.parametrize(
    "message",
    [
        "",
        "{",
        "[]",
        "null",
        '{"event":1}',
        "{}",
        frame("media"),
        frame("media", {}),
        frame("media", {"payload": "*"}),
        frame("media", {"payload": "AA==", "timestamp": "x"}),
        frame("media", {"payload": "AA==", "timestamp": "-1"}),
        frame("mark"),
        frame("dtmf", {}),
        frame("start"),
        frame("start", {**START, "callSid": ""}),
        frame("start", {**START, "streamSid": ""}),
        frame("start", {**START, "mediaFormat": {"encoding": "audio/opus"}}),
        frame("start", {**START, "mediaFormat": {"sampleRate": 16000}}),
        frame("start", {**START, "mediaFormat": {"channels": 2}}),
        b'{"event":"connected"}',
        b"\xff\xff",
    ],
)
def test_what_is_not_of_the_protocol(message: str | bytes) -> None:
    with pytest.raises(MediaProtocolError):
        TwilioCodec().decode(message)
    assert TwilioCodec().caller_audio(message) is None


def test_messages_to_twilio_name_their_stream() -> None:
    codec = started(streamSid='MZ"1\\')
    payload = bytes(range(256)) * 3
    sent = [codec.audio(payload), codec.mark('a "mark"'), codec.clear()]
    audio, mark, clear = (json.loads(message or "") for message in sent)
    sid = 'MZ"1\\'
    assert audio == {
        "event": "media",
        "streamSid": sid,
        "media": {"payload": b64encode(payload).decode()},
    }
    assert mark == {"event": "mark", "streamSid": sid, "mark": {"name": 'a "mark"'}}
    assert clear == {"event": "clear", "streamSid": sid}
    assert codec.digits("1") is None
