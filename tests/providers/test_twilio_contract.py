"""The Twilio carrier against the conformance suite for carriers."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlencode

import pytest

from voicecall import ProviderContext
from voicecall.media import Message
from voicecall.telephony import TelephonyProvider, WebhookRequest
from voicecall_testing.contracts.telephony import TelephonyContract
from voicecall_twilio.config import TwilioConfig
from voicecall_twilio.provider import TwilioProvider
from voicecall_twilio.signature import form_of, material, sign

pytestmark = pytest.mark.contract

TOKEN = "12345678901234567890123456789012"
URL = "https://gateway.example/voice/webhook?callId=c-1&type=status"
CALL = {
    "CallSid": "CA00000000000000000000000000000001",
    "AccountSid": "AC00000000000000000000000000000001",
    "From": "+15550001234",
    "To": "+15550005678",
    "Direction": "outbound-api",
    "ApiVersion": "2010-04-01",
    "CallbackSource": "call-progress-events",
}


class TestTwilioCarrier(TelephonyContract):
    url = URL

    def make_provider(self) -> TelephonyProvider:
        config = TwilioConfig(account_sid="AC00000000000000000000000000000001", auth_token=TOKEN)
        return TwilioProvider(config, ProviderContext(Path("unused")))

    def signed(self, body: bytes) -> WebhookRequest:
        request = WebhookRequest(
            method="POST",
            url=self.url,
            query={},
            headers={"content-type": "application/x-www-form-urlencoded; charset=UTF-8"},
            body=body,
            client="203.0.113.7",
        )
        # Our own text, since Twilio's library signs no bytes that are no UTF-8; its signatures
        # have their own tests.
        text = material(self.url, form_of(request) or [])
        headers = {**request.headers, "x-twilio-signature": sign(text, TOKEN, "sha1").decode()}
        return WebhookRequest(
            method="POST",
            url=self.url,
            query={},
            headers=headers,
            body=body,
            client="203.0.113.7",
        )

    def redelivered(self, body: bytes) -> WebhookRequest:
        return self.signed(body)

    def event_bodies(self) -> Sequence[bytes]:
        events: list[dict[str, str]] = [
            {"CallStatus": "initiated", "SequenceNumber": "0"},
            {"CallStatus": "ringing", "SequenceNumber": "1"},
            {"CallStatus": "in-progress", "SequenceNumber": "2"},
            {"CallStatus": "completed", "SequenceNumber": "3", "CallDuration": "12"},
        ]
        return [urlencode({**CALL, **event}).encode() for event in events]

    def stream_start(self, token: str) -> Message:
        start = {
            "streamSid": "MZ1",
            "accountSid": CALL["AccountSid"],
            "callSid": CALL["CallSid"],
            "tracks": ["inbound"],
            "customParameters": {"token": token},
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        }
        return json.dumps(
            {"event": "start", "sequenceNumber": "1", "streamSid": "MZ1", "start": start}
        )

    def caller_audio(self, payload: bytes) -> Message:
        media = {
            "track": "inbound",
            "chunk": "1",
            "timestamp": "5",
            "payload": base64.b64encode(payload).decode(),
        }
        return json.dumps(
            {"event": "media", "sequenceNumber": "3", "streamSid": "MZ1", "media": media}
        )


class TestTwilioDocuments(TestTwilioCarrier):
    """The same for requests whose replies steer the call."""

    url = "https://gateway.example/voice/webhook?callId=c-1&type=turn&i=d1&n=0&t=tok&s=1"

    def event_bodies(self) -> Sequence[bytes]:
        call = {key: value for key, value in CALL.items() if key != "CallbackSource"}
        events: list[dict[str, str]] = [
            {"CallStatus": "in-progress", "SpeechResult": "Grüße & so", "Confidence": "0.91"},
            {"CallStatus": "in-progress", "Digits": "12#"},
            {"CallStatus": "in-progress", "SpeechResult": ""},
            {"CallStatus": "completed"},
        ]
        return [urlencode({**call, **event}).encode() for event in events]
