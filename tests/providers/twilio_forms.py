"""Requests as Twilio sends them, unsigned, and an adapter that reads them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from voicecall import ProviderContext
from voicecall import events as ev
from voicecall import telephony as tel
from voicecall_twilio.config import TwilioConfig
from voicecall_twilio.provider import TwilioProvider

NOW = 1_795_262_400_000  # 2026-11-21T12:00:00Z
SID = "CA00000000000000000000000000000001"
HOOK = "https://gateway.example/voice/webhook"
OURS = f"{HOOK}?callId=c-1"
TURN = f"{OURS}&type=turn&i=ab&n=0&t=tok-1&u=u-1&s=1"
NEXT = f"{OURS}&type=turn&i=cd&n=1&t=tok-1&s=1"
AGAIN = "#rc=3&rp=all&rt=4500"


def provider(**changes: Any) -> TwilioProvider:
    config = TwilioConfig(account_sid="AC01", auth_token="secret", **changes)
    return TwilioProvider(config, ProviderContext(Path("unused")))


PROVIDER = provider()


def request(url: str = OURS, **form: str) -> tel.WebhookRequest:
    given = {"CallSid": SID, "From": "+15550001234", "To": "+15550005678", **form}
    return tel.WebhookRequest(
        method="POST",
        url=url,
        query={},
        headers={"content-type": "application/x-www-form-urlencoded"},
        body=urlencode(given).encode(),
        client="203.0.113.7",
    )


def inbound(url: str = HOOK, status: str = "ringing", **form: str) -> tel.WebhookRequest:
    return request(url, CallStatus=status, Direction="inbound", **form)


def outbound(url: str = OURS, status: str = "in-progress", **form: str) -> tel.WebhookRequest:
    return request(url, CallStatus=status, Direction="outbound-api", **form)


def events(asked: tel.WebhookRequest) -> Sequence[ev.CarrierEvent]:
    return PROVIDER.parse(asked, NOW)


def kinds(asked: tel.WebhookRequest) -> list[type[ev.CarrierEvent]]:
    return [type(event) for event in events(asked)]
