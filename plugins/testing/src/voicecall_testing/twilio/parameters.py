"""What Twilio reports of a call: form parameters of webhooks, and the REST resource."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .calls import Call

__all__ = ["API_VERSION", "call_params", "call_resource", "rfc2822", "status_params"]

API_VERSION = "2010-04-01"
_SIP_CODES = {
    "completed": "200",
    "busy": "486",
    "no-answer": "487",
    "canceled": "487",
    "failed": "404",
}
_PLACES = ("City", "State", "Zip", "Country")


def rfc2822(epoch_ms: int | None) -> str | None:
    return (
        None if epoch_ms is None else format_datetime(datetime.fromtimestamp(epoch_ms // 1000, UTC))
    )


def iso8601(epoch_ms: int) -> str:
    return datetime.fromtimestamp(epoch_ms / 1000, UTC).isoformat(timespec="milliseconds")


def call_params(call: Call) -> dict[str, str]:
    """Parameters of every request about a call. Places are mostly unknown and empty, as they are in
    reality."""
    plan = call.plan
    params = {
        "CallSid": call.sid,
        "AccountSid": call.account_sid,
        "From": plan.from_number,
        "To": plan.to_number,
        "Caller": plan.from_number,
        "Called": plan.to_number,
        "CallStatus": call.status,
        "ApiVersion": API_VERSION,
        "Direction": plan.direction,
    }
    for side in ("From", "To", "Caller", "Called"):
        params |= {f"{side}{place}": "US" if place == "Country" else "" for place in _PLACES}
    if plan.direction == "inbound":
        params["CallToken"] = call.call_token
        params["StirVerstat"] = "TN-Validation-Passed-A"
    return params


def status_params(call: Call, status: str, sequence: int, now_ms: int) -> dict[str, str]:
    """Parameters of a status callback; once the call is over, with its duration and SIP code."""
    params = call_params(call) | {
        "CallStatus": status,
        "CallbackSource": "call-progress-events",
        "SequenceNumber": str(sequence),
        "Timestamp": rfc2822(now_ms) or "",
    }
    if call.over.is_set():
        seconds = call.duration_s
        params["CallDuration"] = str(seconds)
        params["Duration"] = str(-(-seconds // 60))
        params["SipResponseCode"] = _SIP_CODES[status]
    return params


def call_resource(call: Call, base: str) -> Mapping[str, Any]:
    """The JSON object; ``base`` is the path of the account."""
    plan = call.plan
    over = call.over.is_set()
    path = f"{base}/Calls/{call.sid}"
    return {
        "sid": call.sid,
        "account_sid": call.account_sid,
        "parent_call_sid": None,
        "api_version": API_VERSION,
        "status": call.status,
        "direction": plan.direction,
        "to": plan.to_number,
        "to_formatted": _formatted(plan.to_number),
        "from": plan.from_number,
        "from_formatted": _formatted(plan.from_number),
        "phone_number_sid": call.number_sid,
        "date_created": rfc2822(call.started_ms),
        "date_updated": rfc2822(call.ended_ms or call.answered_ms or call.started_ms),
        "start_time": rfc2822(call.started_ms),
        "end_time": rfc2822(call.ended_ms),
        "duration": str(call.duration_s) if over else None,
        "price": None,
        "price_unit": "USD",
        "answered_by": None,
        "forwarded_from": None,
        "caller_name": None,
        "group_sid": None,
        "queue_time": str(call.queue_ms),
        "trunk_sid": None,
        "stir_verstat": None,
        "annotation": None,
        "uri": f"{path}.json",
        "subresource_uris": {"recordings": f"{path}/Recordings.json"},
    }


def _formatted(number: str) -> str:
    """A North American number in its national format; other numbers are unchanged."""
    digits = number.removeprefix("+1")
    if not number.startswith("+1") or len(digits) != 10:
        return number
    return f"({digits[:3]}) {digits[3:6]}-{digits[6:]}"
