"""The pure half of the mock carrier: signatures, parsing, rendering, media messages."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicecall import ProviderContext, media
from voicecall import events as ev
from voicecall import telephony as tel
from voicecall.errors import MediaProtocolError, WebhookRejected
from voicecall.media import Upgrade
from voicecall.model import Direction, EndReason
from voicecall_mock.config import MockConfig
from voicecall_mock.protocol import sign
from voicecall_mock.provider import MockProvider

pytestmark = pytest.mark.unit

NOW = 1_700_000_000_000
TOKEN = "a-shared-token"
URL = "http://127.0.0.1:3334/voice/webhook"
PROVIDER = MockProvider(MockConfig(auth_token=TOKEN), ProviderContext(Path("unused")))


def webhook(body: bytes, headers: dict[str, str] | None = None) -> tel.WebhookRequest:
    signed = {
        "mock-timestamp": str(NOW),
        "mock-signature": sign(TOKEN, str(NOW), URL, body),
        **(headers or {}),
    }
    return tel.WebhookRequest(
        method="POST", url=URL, query={}, headers=signed, body=body, client="127.0.0.1"
    )


def body_of(type_: str, **more: Any) -> bytes:
    call = {"id": "mk-1", "direction": "inbound", "from": "+1555", "to": "+1666", "reference": None}
    return json.dumps({"id": "ev-1", "type": type_, "at": NOW, "call": call, **more}).encode()


def test_a_signed_webhook_is_accepted_and_has_a_stable_key() -> None:
    request = webhook(body_of("call.ringing"))
    assert PROVIDER.verify(request, NOW) == PROVIDER.verify(request, NOW + 1000)


@pytest.mark.parametrize(
    ("change", "now"),
    [
        ({"mock-signature": "00"}, NOW),
        ({"mock-signature": "ü"}, NOW),
        ({"mock-timestamp": "12x"}, NOW),
        ({"mock-timestamp": str(NOW + 1)}, NOW),
        ({}, NOW + 300_001),
    ],
)
def test_a_wrong_or_old_signature_is_401(change: dict[str, str], now: int) -> None:
    request = webhook(body_of("call.ringing"), change)
    with pytest.raises(WebhookRejected) as caught:
        PROVIDER.verify(request, now)
    assert caught.value.status == 401


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_the_signature_covers_the_body(body: bytes, other: bytes) -> None:
    signature = sign(TOKEN, "1", URL, body)
    assert (sign(TOKEN, "1", URL, other) == signature) == (body == other)


@pytest.mark.parametrize(
    ("type_", "more", "wanted"),
    [
        ("call.initiated", {}, ev.Initiated),
        ("call.ringing", {}, ev.Ringing),
        ("call.answered", {}, ev.Answered),
        ("call.speech", {"text": "hi", "token": "t"}, ev.SpeechHeard),
        ("call.digits", {"digits": "1#"}, ev.DigitsPressed),
        ("call.playback", {"utterance": "u", "ok": False}, ev.PlaybackEnded),
        ("call.stream-failed", {"error": "gone"}, ev.StreamFailed),
        ("call.error", {"error": "x", "retryable": True}, ev.CallFailed),
        ("call.ended", {"reason": "busy"}, ev.CallEnded),
    ],
)
def test_every_event_is_understood(
    type_: str, more: dict[str, Any], wanted: type[ev.CarrierEvent]
) -> None:
    (event,) = PROVIDER.parse(webhook(body_of(type_, **more)), NOW)
    assert type(event) is wanted
    assert (event.key, event.provider_call_id) == ("mock:ev-1", "mk-1")
    assert event.direction is Direction.INBOUND


@pytest.mark.parametrize(
    ("type_", "needed", "name", "attribute", "given", "otherwise"),
    [
        ("call.speech", {"text": "hi"}, "final", "final", False, True),
        ("call.speech", {"text": "hi"}, "confidence", "confidence", 0.0, None),
        ("call.speech", {"text": "hi"}, "token", "turn_token", "", None),
        ("call.playback", {"utterance": "u"}, "ok", "ok", False, True),
    ],
)
def test_what_is_false_or_nothing_is_not_taken_for_absent(
    type_: str, needed: dict[str, Any], name: str, attribute: str, given: object, otherwise: object
) -> None:
    (event,) = PROVIDER.parse(webhook(body_of(type_, **needed, **{name: given})), NOW)
    assert getattr(event, attribute) == given
    (event,) = PROVIDER.parse(webhook(body_of(type_, **needed)), NOW)
    assert getattr(event, attribute) == otherwise


def test_an_end_has_its_reason() -> None:
    (event,) = PROVIDER.parse(webhook(body_of("call.ended", reason="no-answer")), NOW)
    assert isinstance(event, ev.CallEnded)
    assert event.reason is EndReason.NO_ANSWER


def test_unknown_event_types_say_nothing() -> None:
    assert PROVIDER.parse(webhook(body_of("call.recording")), NOW) == ()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        body_of("call.ended"),
        body_of("call.ended", reason="x"),
        b'{"type":"call.ringing","id":"1","at":1,"call":3}',
    ],
)
def test_what_cannot_be_read_is_400(body: bytes) -> None:
    with pytest.raises(WebhookRejected) as caught:
        PROVIDER.parse(webhook(body), NOW)
    assert caught.value.status == 400


@given(st.binary(max_size=300))
def test_arbitrary_bodies_raise_only_what_is_documented(body: bytes) -> None:
    status = 400
    try:
        PROVIDER.parse(webhook(body), NOW)
    except WebhookRejected as error:
        status = error.status
    assert status == 400


def test_actions_travel_in_the_reply() -> None:
    stream = tel.StreamRequest("ws://127.0.0.1/voice/stream", "tok")
    actions: list[tel.Action] = [
        tel.Answer(stream),
        tel.Speak("u1", "Hello", None, tel.Listen("t1")),
        tel.AttachStream(stream),
        tel.Hangup(),
    ]
    rendered = PROVIDER.render(webhook(b"{}"), None, actions)
    assert rendered.rest == ()
    document = json.loads(rendered.reply.body)["actions"]
    assert [a["action"] for a in document] == ["answer", "speak", "stream", "hangup"]
    assert document[0]["stream"] == {"url": stream.url, "token": "tok"}
    assert document[1]["listen"] == {"token": "t1", "endSilenceMs": 800}


class TestCodec:
    codec = PROVIDER.media_codec(Upgrade("/voice/stream", {}, {}, "127.0.0.1"))

    def test_audio_comes_back_as_it_was_sent(self) -> None:
        payload = bytes(range(160))
        message = json.loads(self.codec.audio(payload))
        assert base64.b64decode(message["payload"]) == payload
        event = self.codec.decode(json.dumps({**message, "at": 40}))
        assert isinstance(event, media.Audio)
        assert (event.payload, event.timestamp_ms) == (payload, 40)

    def test_start_carries_the_token(self) -> None:
        event = self.codec.decode('{"event":"start","stream":"s","call":"c","token":"t"}')
        assert isinstance(event, media.Started)
        assert (event.token, event.stream_id, event.provider_call_id) == ("t", "s", "c")

    def test_marks_digits_and_stop(self) -> None:
        assert self.codec.decode('{"event":"mark","name":"m"}') == media.MarkReached("m")
        assert self.codec.decode('{"event":"digits","digits":"5"}') == media.Dtmf("5")
        assert self.codec.decode('{"event":"stop"}') == media.Stopped("")

    @given(st.one_of(st.binary(max_size=200), st.text(max_size=200)))
    def test_garbage_raises_only_what_is_documented(self, message: bytes | str) -> None:
        with pytest.raises(MediaProtocolError):
            self.codec.decode(message)
