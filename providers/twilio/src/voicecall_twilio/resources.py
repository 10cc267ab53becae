"""Documents of Twilio's REST API, reduced to the members that are read here.

Source: Twilio's REST API documentation (Call, IncomingPhoneNumber and OutgoingCallerId resources,
error replies).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

__all__ = ["Call", "CallPage", "CallerId", "CallerIdPage", "Number", "NumberPage", "Refusal"]


class Call(msgspec.Struct):
    """A call; ``date_created`` is RFC 2822."""

    sid: str
    status: str = ""
    direction: str | None = None
    date_created: str | None = None


class CallPage(msgspec.Struct):
    """Calls, the newest first."""

    calls: Sequence[Call]
    next_page_uri: str | None = None


class Number(msgspec.Struct):
    """A phone number of the account, and where its calls go."""

    phone_number: str
    voice_url: str | None = None
    voice_method: str | None = None
    status_callback: str | None = None
    status_callback_method: str | None = None
    voice_application_sid: str | None = None
    trunk_sid: str | None = None


class NumberPage(msgspec.Struct):
    incoming_phone_numbers: Sequence[Number]


class CallerId(msgspec.Struct):
    """A verified number outside of the account that it may call from."""

    phone_number: str


class CallerIdPage(msgspec.Struct):
    outgoing_caller_ids: Sequence[CallerId]


class Refusal(msgspec.Struct):
    """Why a request failed."""

    code: int | None = None
    message: str | None = None
