"""Placing calls: the create request, its rate, and finding a call whose outcome is unknown."""

from __future__ import annotations

from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

import anyio

from voicecall import telephony as tel
from voicecall.errors import (
    OutcomeUnknown,
    ProviderTimeout,
    ProviderUnavailable,
    RequestRejected,
)
from voicecall.seam import Seam

from .callbacks import REDELIVERY, Kind, base_url, callback, time_limit
from .client import PROVIDER, Form, TwilioClient
from .plugin import LONGEST_DIGITS
from .rendering import Style
from .resources import Call, CallPage
from .twiml import TWIML_LIMIT, keypad

__all__ = ["Pace", "dial_form", "find_dial", "notice"]

_RING_LIMIT_S = 600
_PATIENCE_S = 20.0
_CLOCKS_APART_S = 30
_LOOKS = (1.0, 3.0, 0.0)
"""Pauses after each search for a call: a new call is not listed at once."""
_PAGE = 100
_PAGES = 5
_ANY_URL = "https://" + "u" * 400
"""Stands for a webhook URL that is not known yet."""


class Pace:
    """Lets ``rate`` requests per second through, evenly spaced."""

    def __init__(self, rate: float, seam: Seam) -> None:
        self._interval = 1 / rate
        self._seam = seam
        self._free_at = 0.0

    async def wait(self) -> None:
        """Wait for a turn. Raises :exc:`ProviderUnavailable` if it is too far off."""
        now = self._seam.monotonic()
        turn = max(now, self._free_at)
        if turn - now > _PATIENCE_S:
            raise ProviderUnavailable(
                "too many calls are waiting to be placed (callsPerSecond)", provider=PROVIDER
            )
        self._free_at = turn + self._interval
        if turn > now:
            await anyio.sleep(turn - now)


def notice(message: tel.Speak, webhook_url: str | None, style: Style) -> str | None:
    """The document that speaks ``message`` as soon as a call is answered; None if it does not fit
    into a request."""
    if message.listen is not None or len(message.text) > TWIML_LIMIT:
        return None
    document = style.document(base_url(webhook_url or _ANY_URL), "dial")
    document.say(message.text, message.voice)
    document.played(message.utterance_id, first=True)
    return document.text if len(document.text) <= TWIML_LIMIT else None


def dial_form(request: tel.DialRequest, style: Style) -> Form:
    """The parameters of the create request.

    Raises :exc:`RequestRejected` for what Twilio would refuse.
    """
    base = base_url(request.webhook_url)
    told = ["initiated", "ringing", "completed"]
    limit = time_limit(request.time_limit_s)
    form: dict[str, Any] = {
        "To": request.to_number,
        "From": request.from_number,
        "Timeout": min(request.ring_timeout_s, _RING_LIMIT_S),
        "TimeLimit": limit,
        "StatusCallback": callback(base, Kind.STATUS, limit=limit),
        "StatusCallbackMethod": "POST",
        "StatusCallbackEvent": told,
    }
    url = base + REDELIVERY
    # If a document is lost for good, Twilio asks here once more.
    form |= {"FallbackUrl": url, "FallbackMethod": "POST"}
    if request.message is None:
        form |= {"Url": url, "Method": "POST"}
    else:
        document = notice(request.message, request.webhook_url, style)
        if document is None:
            raise RequestRejected(
                f"the message does not fit into {TWIML_LIMIT} characters of TwiML",
                provider=PROVIDER,
            )
        form["Twiml"] = document
        # Twilio requests no document, so only this reports the answer.
        told.insert(2, "answered")
    if request.dtmf_sequence:
        form["SendDigits"] = _send_digits(request.dtmf_sequence)
    return form


def _send_digits(sequence: str) -> str:
    keys = keypad(sequence)
    if keys is None or len(keys) > LONGEST_DIGITS:
        raise RequestRejected(
            f"dtmfSequence must consist of at most {LONGEST_DIGITS} keys and pauses",
            provider=PROVIDER,
        )
    return keys


async def find_dial(client: TwilioClient, query: tel.DialQuery) -> str | None:
    """The call that a create request made, or None after a few searches."""
    try:
        for pause in _LOOKS:
            found = await _candidates(client, query)
            if found:
                break
            await anyio.sleep(pause)
    except (ProviderUnavailable, ProviderTimeout) as error:
        raise OutcomeUnknown(
            f"calls cannot be listed: {error}", provider=PROVIDER, request_id=error.request_id
        ) from None
    if len(found) > 1:
        raise OutcomeUnknown(
            f"{len(found)} calls match: {', '.join(sorted(found))}", provider=PROVIDER
        )
    return next(iter(found), None)


async def _candidates(client: TwilioClient, query: tel.DialQuery) -> set[str]:
    """Calls between the two numbers that were placed since then and are not known yet."""
    # No filter by start time: a call that is still queued has none.
    first = {"To": query.to_number, "From": query.from_number, "PageSize": str(_PAGE)}
    page = await client.get("/Calls.json", CallPage, first)
    found: set[str] = set()
    for _ in range(_PAGES):
        newer = [call for call in page.calls if _made_since(call, query.placed_at)]
        ours = {call.sid for call in newer if call.direction == "outbound-api"}
        found |= ours - query.known
        # The newest calls come first.
        if not page.next_page_uri or len(newer) < len(page.calls):
            return found
        page = await client.get(page.next_page_uri, CallPage)
    raise OutcomeUnknown("too many calls to search", provider=PROVIDER)


def _made_since(call: Call, placed_at: int) -> bool:
    try:
        made = parsedate_to_datetime(call.date_created or "")
    except ValueError:
        return True  # not made yet
    made = made if made.tzinfo is not None else made.replace(tzinfo=UTC)
    return made.timestamp() >= placed_at / 1000 - _CLOCKS_APART_S
