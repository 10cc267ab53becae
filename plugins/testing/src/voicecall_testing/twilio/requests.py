"""Requests to create or update a call, checked as Twilio does.

Source: https://www.twilio.com/docs/voice/api/call-resource; codes: see :mod:`.errors`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from .calls import CallPlan
from .delivery import is_http_url
from .documents import Source
from .errors import ApiError
from .twiml import KEYS

__all__ = ["CallUpdate", "Form", "read_create", "read_update"]

MAX_INLINE = 4000
_E164 = re.compile(r"\+[1-9]\d{6,14}")
_EVENTS = frozenset({"initiated", "ringing", "answered", "completed"})
_INVALID = 20001
"""For invalid parameters without their own code in Twilio's documentation."""


class Form:
    """A form-urlencoded body; a repeated name is a list. ``unread`` are the names that have not
    been read."""

    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in pairs:
            self._values.setdefault(name, []).append(value)
        self.unread = set(self._values)

    def get(self, name: str) -> str:
        """The first value; empty if there is none."""
        return next(iter(self.all(name)), "")

    def all(self, name: str) -> list[str]:
        self.unread.discard(name)
        return self._values.get(name, [])

    def flat(self) -> dict[str, str]:
        """All parameters, the first value of each."""
        return {name: self.get(name) for name in self._values}


def read_create(
    form: Form, *, numbers: Collection[str], refused: Mapping[str, int], longest_s: int
) -> CallPlan:
    """The call to make. ``numbers`` may be called from; ``refused`` maps numbers that cannot be
    called to error codes; ``longest_s`` is the account's limit. Raises :exc:`.errors.ApiError`."""
    to, from_ = form.get("To"), form.get("From")
    if not to:
        raise ApiError(400, 21201, "No 'To' number is specified")
    if not from_:
        raise ApiError(400, 21213, "No 'From' number is specified")
    if not _E164.fullmatch(to):
        raise ApiError(
            400, 21211, f"The phone number you are attempting to call, {to}, is not valid."
        )
    if not _E164.fullmatch(from_):
        raise ApiError(400, 21212, f"The source phone number provided, {from_}, is not valid.")
    if from_ not in numbers:
        raise ApiError(400, 21210, f"The source phone number provided, {from_}, is not verified.")
    if to in refused:
        raise ApiError(400, refused[to], f"The phone number {to} cannot be called.")
    source = _source(form)
    if source is None:
        raise ApiError(400, 21205, "Url parameter is required.")
    events = _events(form)
    return CallPlan(
        direction="outbound-api",
        from_number=from_,
        to_number=to,
        source=source,
        fallback=_fallback(form),
        status_callback=_callback(form),
        status_callback_method=_method(form, "StatusCallbackMethod"),
        status_callback_events=events or frozenset({"completed"}),
        timeout=_seconds(form, "Timeout", 60, most=600),
        time_limit=_time_limit(form, longest_s) or longest_s,
        send_digits=_digits(form),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CallUpdate:
    """What changes; None leaves a value as it is."""

    source: Source | None = None
    status: str | None = None
    time_limit: float | None = None
    fallback: Source | None = None
    status_callback: str | None = None
    status_callback_method: str = "POST"


def read_update(form: Form, *, longest_s: int) -> CallUpdate:
    """The changes to make. Raises :exc:`.errors.ApiError`."""
    status = form.get("Status") or None
    if status not in (None, "completed", "canceled"):
        raise ApiError(400, _INVALID, f"Status {status!r} is neither completed nor canceled")
    if form.get("Url") and form.get("Twiml"):
        raise ApiError(400, _INVALID, "Url and Twiml exclude each other")
    return CallUpdate(
        source=_source(form, "update"),
        status=status,
        time_limit=_time_limit(form, longest_s),
        fallback=_fallback(form),
        status_callback=_callback(form) or None,
        status_callback_method=_method(form, "StatusCallbackMethod"),
    )


def _source(form: Form, type_: str = "voice") -> Source | None:
    """A URL takes precedence over inline TwiML."""
    url, twiml = form.get("Url"), form.get("Twiml")
    method = _method(form, "Method")
    if url:
        if not is_http_url(url):
            raise ApiError(400, 21205, f"Url is not a valid URL: {url}")
        return Source(type_, url, method)
    if not twiml:
        return None
    if len(twiml) > MAX_INLINE:
        raise ApiError(400, 32018, f"Twiml is longer than {MAX_INLINE} characters")
    return Source(type_, inline=twiml)


def _fallback(form: Form) -> Source | None:
    url, method = form.get("FallbackUrl"), _method(form, "FallbackMethod")
    if url and not is_http_url(url):
        raise ApiError(400, 21205, f"FallbackUrl is not a valid URL: {url}")
    return Source("fallback", url, method) if url else None


def _callback(form: Form) -> str:
    url = form.get("StatusCallback")
    if url and not is_http_url(url):
        raise ApiError(400, 21609, f"The 'StatusCallback' URL {url} is not a valid URL.")
    return url


def _events(form: Form) -> frozenset[str]:
    events = frozenset(form.all("StatusCallbackEvent"))
    if not events <= _EVENTS:
        raise ApiError(400, 21626, f"StatusCallbackEvents {sorted(events - _EVENTS)} are invalid")
    return events


def _method(form: Form, name: str) -> str:
    method = form.get(name) or "POST"
    if method not in ("GET", "POST"):
        raise ApiError(400, _INVALID, f"{name} must be GET or POST")
    return method


def _seconds(form: Form, name: str, default: float, most: float) -> float:
    text = form.get(name)
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= most):
        raise ApiError(400, _INVALID, f"{name} must be a number of seconds up to {most:g}")
    return int(text)


def _time_limit(form: Form, longest_s: int) -> float | None:
    text = form.get("TimeLimit")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= longest_s):
        raise ApiError(400, 13216, "Invalid TimeLimit value")
    return int(text)


def _digits(form: Form) -> str:
    digits = form.get("SendDigits")
    if len(digits) > 32 or not KEYS.issuperset(digits):
        raise ApiError(400, 21206, "SendDigits are up to 32 keys")
    return digits
