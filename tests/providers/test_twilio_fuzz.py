"""Fuzzed input for the Twilio adapter's parsers: only documented errors result."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable

import pytest

from voicecall.errors import MediaProtocolError, WebhookRejected
from voicecall.events import CarrierEvent
from voicecall.media import Audio, MediaEvent
from voicecall.telephony import (
    Action,
    AttachStream,
    CallRef,
    LimitDuration,
    Listen,
    Speak,
    StreamRequest,
    WebhookRequest,
)
from voicecall_twilio.codec import TwilioCodec
from voicecall_twilio.rendering import Style, render
from voicecall_twilio.signature import Keys, verify_request
from voicecall_twilio.webhooks import parse

pytestmark = pytest.mark.unit

NOW = 1_700_000_000_000
URLS = [
    "https://g.example/voice/webhook",
    "https://g.example/voice/webhook?callId=c-1&type=status&limit=300",
    "https://g.example/voice/webhook?callId=c-1&type=turn&i=ab12&n=3&t=tok&s=1&u=u-1",
    "https://g.example/voice/webhook?callId=c-1&type=played&i=ab12&u=u-1&first=1",
    "https://g.example/voice/webhook?callId=c-1&type=hold&i=ab12&n=0",
    "https://g.example/voice/webhook?callId=c-1&type=stream&i=ab12",
]
BODIES = [
    (
        b"CallSid=CA01&AccountSid=AC01&From=%2B15550001234&To=%2B15550005678&CallStatus=ringing"
        b"&ApiVersion=2010-04-01&Direction=inbound"
    ),
    (
        b"CallSid=CA01&CallStatus=in-progress&Direction=outbound-api&SpeechResult=Gr%C3%BC%C3%9Fe"
        b"&Confidence=0.91&Digits=12%23"
    ),
    (
        b"CallSid=CA01&CallStatus=completed&CallDuration=300&SipResponseCode=200&SequenceNumber=3"
        b"&Timestamp=Sat%2C+21+Nov+2026+12%3A00%3A00+%2B0000&CallbackSource=call-progress-events"
    ),
    (
        b"CallSid=CA01&StreamSid=MZ01&StreamEvent=stream-error&StreamError=31920"
        b"&Timestamp=2026-11-21T12%3A00%3A00.123Z"
    ),
]
FRAMES = [
    '{"event":"connected","protocol":"Call","version":"1.0.0"}',
    (
        '{"event":"start","sequenceNumber":"1","streamSid":"MZ1","start":{"streamSid":"MZ1",'
        '"accountSid":"AC1","callSid":"CA1","tracks":["inbound"],"customParameters":{"token":"t"},'
        '"mediaFormat":{"encoding":"audio/x-mulaw","sampleRate":8000,"channels":1}}}'
    ),
    (
        '{"event":"media","sequenceNumber":"3","streamSid":"MZ1","media":{"track":"inbound",'
        '"chunk":"1","timestamp":"5","payload":"/v7+/v7+"}}'
    ),
    (
        '{"event":"dtmf","sequenceNumber":"5","streamSid":"MZ1","dtmf":{"track":"inbound_track",'
        '"digit":"1"}}'
    ),
    '{"event":"mark","sequenceNumber":"4","streamSid":"MZ1","mark":{"name":"tts-1"}}',
    '{"event":"stop","sequenceNumber":"9","streamSid":"MZ1","stop":{"callSid":"CA1"}}',
]
SPLINTERS = [
    b"%00", b"%", b"%zz", b"%ff", b"\xff\xfe", b"&", b"&&=", b"=", b"+", b";", b"%ED%A0%80",
    b"CallStatus=completed", b"CallStatus=", b"CallSid=", b"Timestamp=1", b"Confidence=nan",
    b"Confidence=1e999", b"Timestamp=Sat%2C+21+Nov+99999+12%3A00%3A00+%2B9999",
    b"Timestamp=0001-01-01T00%3A00%3A00%2B23%3A59", b"limit=99999999999999999999", b"n=-1",
    b"n=%D9%A3", b"s=0", b"type=amd", b"u=%3C%26%3E%22%00", b"[", b"#", b"?", b"\x00", b"a" * 3000,
    b"null", b"{", b"}", b"[]", b'"', b"1e400", b'"timestamp":"-1"', b'"payload":"="', b"\\ud800",
    b'"media":null', b'"event":"media"', b'"start":{}', b"99999999999999999999999",
]  # fmt: skip


def damaged(chance: random.Random, sample: bytes) -> bytes:
    """``sample`` after a few random cuts, changes and insertions."""
    text = bytearray(sample)
    for _ in range(chance.randrange(4)):
        at = chance.randrange(len(text) + 1)
        match chance.randrange(4):
            case 0:
                text[at:at] = chance.choice(SPLINTERS)
            case 1:
                del text[at : at + chance.randrange(1, 12)]
            case 2 if at < len(text):
                text[at] = chance.randrange(256)
            case _:
                other = chance.randrange(len(text) + 1)
                text[at:at] = text[other : other + chance.randrange(1, 40)]
    return bytes(text)


ACTIONS: list[list[Action]] = [
    [],
    [Speak("u-2", "Hello <&> \x00 \ud800", None, Listen("tok"))],
    [LimitDuration(300), AttachStream(StreamRequest("wss://g.example/voice/stream", "tok"))],
]


def webhook(chance: random.Random) -> None:
    url = damaged(chance, chance.choice(URLS).encode()).decode("latin-1")
    kinds = ["application/x-www-form-urlencoded", "application/json", "x", ""]
    kind = chance.choices(kinds, [20, 1, 1, 1])[0]
    request = WebhookRequest(
        method="POST",
        url=url,
        query={},
        headers={"content-type": kind, "x-twilio-signature": "c2lnbmVk"},
        body=damaged(chance, chance.choice(BODIES)),
        client="203.0.113.7",
    )
    with pytest.raises(WebhookRejected) as refused:
        verify_request(request, Keys("token"))
    assert refused.value.status == 401
    status, events = 400, list[CarrierEvent]()
    try:
        events += parse(request, NOW)
    except WebhookRejected as error:
        status = error.status
    assert status == 400
    for event in events:
        assert isinstance(event, CarrierEvent)
        assert event.provider_call_id
        assert 0 <= event.at <= NOW
    call = chance.choice([None, CallRef("c-1", "CA01")])
    rendered = render(request, call, chance.choice(ACTIONS), Style())
    assert rendered.reply.status == 200
    assert rendered.reply.body.endswith((b"</Response>", b"<Response />"))


ODD = [None, True, 0, -1, 1.5, 2**70, "", "-1", "1e9", "AA=", "\x00", [], [1], {}, {"a": 1}]


def misshapen(chance: random.Random, sample: str) -> str:
    """``sample`` with one member of another type, without it, or with one more."""
    whole = json.loads(sample)
    inner = [value for value in whole.values() if isinstance(value, dict)]
    members = chance.choice([whole, *inner])
    name = chance.choice([*members, "new"])
    if chance.random() < 0.3:
        members.pop(name, None)
    else:
        members[name] = chance.choice(ODD)
    return json.dumps(whole)


def frame(chance: random.Random) -> None:
    codec = TwilioCodec()
    for _ in range(2):
        sample = chance.choice(FRAMES)
        if chance.random() < 0.5:
            message = misshapen(chance, sample)
        else:
            message = damaged(chance, sample.encode()).decode("utf-8", "replace")
        audio = codec.caller_audio(message)
        try:
            event = codec.decode(message)
        except MediaProtocolError:
            assert audio is None
            continue
        assert audio == (event.payload if isinstance(event, Audio) else None)
        assert event is None or isinstance(event, MediaEvent)
        assert codec.audio(b"\xff" * 160)


def fuzz(parser: Callable[[random.Random], None], count: int, seed: int) -> None:
    chance = random.Random(seed)
    for number in range(count):
        try:
            parser(chance)
        except Exception as error:
            error.add_note(f"seed {seed}, number {number}")
            raise


@pytest.mark.parametrize("parser", [webhook, frame])
def test_only_documented_errors(parser: Callable[[random.Random], None]) -> None:
    fuzz(parser, 3000, 7)


@pytest.mark.soak
@pytest.mark.parametrize("parser", [webhook, frame])
def test_only_documented_errors_in_many_inputs(parser: Callable[[random.Random], None]) -> None:
    count = int(os.environ.get("VOICECALL_FUZZ_COUNT", "1000000"))
    fuzz(parser, count // 2, random.SystemRandom().randrange(10**9))
