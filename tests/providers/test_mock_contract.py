"""The mock carrier against the conformance suite, and carriers that do not conform."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from msgspec import ValidationError, structs

from voicecall import ProviderContext
from voicecall.errors import WebhookRejected
from voicecall.events import CarrierEvent
from voicecall.media import MediaCodec, MediaEvent, Message, Started, Upgrade
from voicecall.telephony import (
    Action,
    CallRef,
    Rendered,
    TelephonyProvider,
    Verified,
    WebhookReply,
    WebhookRequest,
)
from voicecall_mock.codec import MockCodec
from voicecall_mock.config import MockConfig
from voicecall_mock.plugin import CAPABILITIES
from voicecall_mock.protocol import sign
from voicecall_mock.provider import MockProvider
from voicecall_testing.contracts.telephony import TelephonyContract

pytestmark = pytest.mark.contract

TOKEN = "contract-token"
URL = "https://gateway.example/voice/webhook"


class TestMockCarrier(TelephonyContract):
    def make_provider(self) -> TelephonyProvider:
        return MockProvider(MockConfig(auth_token=TOKEN), ProviderContext(Path("unused")))

    def signed(self, body: bytes) -> WebhookRequest:
        return self._request(body, self.now_ms)

    def redelivered(self, body: bytes) -> WebhookRequest:
        return self._request(body, self.now_ms + 60_000)

    def _request(self, body: bytes, at: int) -> WebhookRequest:
        headers = {
            "mock-timestamp": str(at),
            "mock-signature": sign(TOKEN, str(at), URL, body),
        }
        return WebhookRequest(
            method="POST", url=URL, query={}, headers=headers, body=body, client="127.0.0.1"
        )

    def event_bodies(self) -> Sequence[bytes]:
        events: list[dict[str, Any]] = [
            {"type": "call.initiated"},
            {"type": "call.answered"},
            {"type": "call.speech", "text": "hello", "final": True, "token": "t"},
            {"type": "call.digits", "digits": "12#"},
            {"type": "call.ended", "reason": "completed"},
        ]
        call = {
            "id": "mk-1",
            "direction": "inbound",
            "from": "+15550001",
            "to": "+15550002",
            "reference": None,
        }
        return [
            json.dumps({"id": f"ev-{number}", "at": self.now_ms, "call": call, **event}).encode()
            for number, event in enumerate(events)
        ]

    def stream_start(self, token: str) -> Message:
        return json.dumps({"event": "start", "stream": "s-1", "call": "mk-1", "token": token})

    def caller_audio(self, payload: bytes) -> Message:
        encoded = base64.b64encode(payload).decode()
        return json.dumps({"event": "media", "payload": encoded, "at": 20})


class BodySigned(MockProvider):
    """A carrier whose signature does not cover the URL."""

    def verify(self, request: WebhookRequest, now_ms: int) -> Verified:
        return super().verify(replace(request, url=URL), now_ms)


class TestBodySignedCarrier(TestMockCarrier):
    signs_url = False

    def make_provider(self) -> TelephonyProvider:
        return BodySigned(MockConfig(auth_token=TOKEN), ProviderContext(Path("unused")))


class TokenInUrlCodec(MockCodec):
    def __init__(self, upgrade: Upgrade) -> None:
        self._token = upgrade.query.get("token", "")

    def decode(self, message: Message) -> MediaEvent | None:
        event = super().decode(message)
        return replace(event, token=self._token) if isinstance(event, Started) else event


class TokenInUrl(MockProvider):
    """A carrier whose start message has no place for a token."""

    def media_codec(self, upgrade: Upgrade) -> MediaCodec:
        return TokenInUrlCodec(upgrade)


class TestTokenInUrlCarrier(TestMockCarrier):
    def make_provider(self) -> TelephonyProvider:
        return TokenInUrl(MockConfig(auth_token=TOKEN), ProviderContext(Path("unused")))

    def stream_upgrade(self, token: str) -> Upgrade:
        return replace(super().stream_upgrade(token), query={"token": token})

    def stream_start(self, token: str) -> Message:
        return super().stream_start("")


def test_a_carrier_that_signs_the_url_must_mind_it() -> None:
    suite = TestBodySignedCarrier()
    suite.signs_url = True
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        suite.test_the_signature_covers_body_and_url()


class Careless(MockProvider):
    """A carrier whose events and replies have members of wrong types."""

    def __init__(self, event: Mapping[str, Any], reply: Mapping[str, Any]) -> None:
        super().__init__(MockConfig(auth_token=TOKEN), ProviderContext(Path("unused")))
        self._event = event
        self._reply = reply

    def parse(self, request: WebhookRequest, now_ms: int) -> Sequence[CarrierEvent]:
        return [structs.replace(one, **self._event) for one in super().parse(request, now_ms)]

    def render(
        self, request: WebhookRequest, call: CallRef | None, actions: Sequence[Action]
    ) -> Rendered:
        return Rendered(WebhookReply(**self._reply), tuple(actions))


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ({"direction": "inbound"}, "direction of Initiated is of type str, not Direction"),
        ({"direction": "incoming"}, "Invalid enum value 'incoming'"),
        ({"from_number": 15550001}, "got `int` - at `$.from_number`"),
        ({"at": 1_700_000_000}, "not a time in milliseconds"),
    ],
)
def test_events_of_wrong_types_do_not_conform(event: dict[str, Any], words: str) -> None:
    with pytest.raises((AssertionError, ValidationError), match=re.escape(words)):
        TestMockCarrier().test_every_event_names_its_call(Careless(event, {}))


@pytest.mark.parametrize("reply", [{"body": "text"}, {"status": "200"}, {"headers": {"a": 1}}])
def test_replies_that_cannot_be_sent_do_not_conform(reply: dict[str, Any]) -> None:
    suite = TestMockCarrier()
    for test in (suite.test_rendering_loses_no_action, suite.test_rendering_for_an_unknown_call):
        with pytest.raises(AssertionError):
            test(Careless({}, reply))


class Shapeless(MockProvider):
    """A carrier whose codec returns objects instead of text or bytes."""

    def media_codec(self, upgrade: Upgrade) -> MediaCodec:
        class Codec(MockCodec):
            def mark(self, name: str) -> Any:
                return {"event": "mark", "name": name}

        return Codec()


class ShapelessSuite(TestMockCarrier):
    def make_provider(self) -> TelephonyProvider:
        return Shapeless(MockConfig(auth_token=TOKEN), ProviderContext(Path("unused")))


def test_media_messages_that_are_neither_text_nor_bytes_do_not_conform() -> None:
    suite = ShapelessSuite()
    with pytest.raises(AssertionError):
        suite.test_audio_marks_and_clear_are_messages(suite.make_provider())


class Plain(MockProvider):
    """A carrier without media sockets."""

    capabilities = replace(CAPABILITIES, stream=frozenset())

    def media_codec(self, upgrade: Upgrade) -> MediaCodec:
        raise WebhookRejected(404, "there are no media sockets")


class TestPlainCarrier(TestMockCarrier):
    def make_provider(self) -> TelephonyProvider:
        return Plain(MockConfig(auth_token=TOKEN), ProviderContext(Path("unused")))

    def stream_start(self, token: str) -> Message:
        raise AssertionError("a carrier without media sockets is asked for the start of a stream")

    def caller_audio(self, payload: bytes) -> Message:
        raise AssertionError("a carrier without media sockets is asked for caller audio")


def test_a_carrier_without_media_sockets_must_refuse_them() -> None:
    suite = TestPlainCarrier()
    provider = suite.make_provider()
    provider.media_codec = lambda upgrade: MockCodec()  # type: ignore[method-assign]
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        suite.test_without_media_sockets_there_is_no_codec(provider)
