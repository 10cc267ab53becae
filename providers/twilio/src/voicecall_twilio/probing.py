"""Checks of whether the account at Twilio is set up for us. They change nothing there."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from voicecall.errors import AuthenticationFailed, ProviderError
from voicecall.telephony import Probe

from .callbacks import REDELIVERY, Kind, base_url, callback
from .client import TwilioClient
from .resources import CallerIdPage, Number, NumberPage

__all__ = ["probe"]


async def probe(client: TwilioClient, webhook_url: str, numbers: Sequence[str]) -> list[Probe]:
    """``credentials``, ``webhook-host`` if Twilio does not accept that host, then
    ``number-owned``, ``number-webhook`` and ``number-status`` of each number. What cannot be
    checked is left out."""
    try:
        await client.get("/IncomingPhoneNumbers.json", NumberPage, {"PageSize": 1})
    except AuthenticationFailed as error:
        return [Probe("credentials", False, str(error))]
    except ProviderError as error:
        return [Probe("credentials", False, f"could not be checked: {error}")]
    found = [Probe("credentials", True, "Twilio accepts the credentials")]
    host = urlsplit(webhook_url).hostname or ""
    if "_" in host:
        text = f"Twilio rejects the host name {host} for its underscore (error 21609): rename it"
        found.append(Probe("webhook-host", False, text))
    for number in numbers:
        found += await _number(client, webhook_url, number)
    return found


async def _number(client: TwilioClient, webhook_url: str, number: str) -> list[Probe]:
    try:
        page = await client.get("/IncomingPhoneNumbers.json", NumberPage, {"PhoneNumber": number})
        # Twilio also returns numbers that contain this one.
        entries = [entry for entry in page.incoming_phone_numbers if entry.phone_number == number]
        verified = not entries and await _is_verified(client, number)
    except ProviderError as error:
        return [Probe("number-owned", False, f"{number} could not be looked up: {error}")]
    if verified:
        text = f"{number} is a verified caller ID: it can place calls, but none come here"
        return [Probe("number-owned", True, text)]
    if not entries:
        text = f"{number} is not a number of this account in this region: buy it, or correct it"
        return [Probe("number-owned", False, text)]
    owned = Probe("number-owned", True, f"{number} belongs to the account")
    problem = _problem(entries[0], webhook_url)
    if problem is not None:
        return [owned, Probe("number-webhook", False, f"{number}: {problem}")]
    voice_url = entries[0].voice_url or ""
    text = f"calls to {number} come here, if they are routed to region {client.region}"
    if base_url(voice_url) + REDELIVERY != voice_url:
        text += f"; append {REDELIVERY} to the URL to have lost requests repeated"
    return [owned, Probe("number-webhook", True, text), _status(entries[0], webhook_url)]


async def _is_verified(client: TwilioClient, number: str) -> bool:
    page = await client.get("/OutgoingCallerIds.json", CallerIdPage, {"PhoneNumber": number})
    return any(each.phone_number == number for each in page.outgoing_caller_ids)


def _status(entry: Number, webhook_url: str) -> Probe:
    """Whether Twilio reports the end of calls to a number to us."""
    name, wanted = "number-status", callback(base_url(webhook_url), Kind.STATUS)
    given, number = entry.status_callback or "", entry.phone_number
    if given.partition("#")[0] != wanted.partition("#")[0]:
        text = f'{number}: "Call status changes" is {given or "empty"}; set it to {wanted}'
        return Probe(name, False, f"{text}, or the end of a call may be noticed a minute late")
    if entry.status_callback_method not in (None, "POST"):
        text = f'"Call status changes" uses HTTP {entry.status_callback_method}; choose HTTP POST'
        return Probe(name, False, f"{number}: {text}")
    return Probe(name, True, f"the end of calls to {number} is reported here")


def _problem(entry: Number, webhook_url: str) -> str | None:
    """Why calls to a number do not come to us; None if they do."""
    wanted = base_url(webhook_url)
    for sid, name in ((entry.voice_application_sid, "TwiML app"), (entry.trunk_sid, "SIP trunk")):
        if sid:
            return f"a {name} ({sid}) handles its calls; choose Webhook instead"
    given = entry.voice_url or ""
    if given.partition("#")[0] != wanted:
        return f'"A call comes in" is {given or "empty"}; set it to {wanted}{REDELIVERY}'
    if entry.voice_method != "POST":
        return f'"A call comes in" uses HTTP {entry.voice_method}; choose HTTP POST'
    return None
