"""Twilio's requests as events of a call.

Source: Twilio's documentation of TwiML requests, call status callbacks, Gather and Stream. New
parameters appear without notice, so unknown ones are ignored.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import chain
from typing import Any

from voicecall import events as ev
from voicecall.errors import WebhookRejected
from voicecall.model import Direction, EndReason
from voicecall.telephony import WebhookRequest

from .callbacks import Kind, added_to, failed_url, kind_of
from .signature import form_of, query_of

__all__ = ["CONNECTED", "LIVE", "TERMINAL", "end_reason", "parse"]

_log = logging.getLogger("voicecall.twilio")

LIVE = frozenset({"queued", "initiated", "ringing"})
CONNECTED = "in-progress"
TERMINAL: Mapping[str, EndReason] = {
    "completed": EndReason.COMPLETED,
    "busy": EndReason.BUSY,
    "failed": EndReason.FAILED,
    "no-answer": EndReason.NO_ANSWER,
    "canceled": EndReason.HANGUP_BOT,
}

_WORDS = ("anonymous", "blocked", "private", "restricted", "unavailable", "unknown")
_KEYPAD = str.maketrans("abcdefghijklmnopqrstuvwxyz", "22233344455566677778889999")
_WITHHELD = frozenset(
    form
    for word in _WORDS
    for keys in (word.translate(_KEYPAD),)
    for form in (word, keys, "1" + keys)
)
"""Values of ``From``, with or without a plus, if the caller withholds the number: a word, or the
word typed on a telephone keypad, also with the country code 1."""

_NUMBER = re.compile(r"[0-9]{1,9}")


def end_reason(status: str, direction: str | None) -> EndReason:
    """Why a call with a terminal ``status`` ended."""
    if status == "canceled" and direction == "inbound":
        return EndReason.HANGUP_USER
    return TERMINAL[status]


def parse(request: WebhookRequest, now_ms: int) -> Sequence[ev.CarrierEvent]:
    """The events in a verified webhook.

    Raises :exc:`voicecall.errors.WebhookRejected` (400) for a form that is not UTF-8 or names no
    call.
    """
    form = form_of(request)
    if form is None:
        return ()
    try:
        "".join(chain.from_iterable(form)).encode()
    except UnicodeEncodeError:
        raise WebhookRejected(400, "the form is not UTF-8") from None
    return _Reading(dict(form), request.url, now_ms).events()


class _Reading:
    """One form, and the parameters that we added to its URL."""

    def __init__(self, form: Mapping[str, str], url: str, now_ms: int) -> None:
        self.form = form
        failed = failed_url(url, form)
        self.is_fallback = failed is not None
        url = failed or url
        self.query = added_to(url)
        self.kind = kind_of(url)
        self.sid = form.get("CallSid", "")
        if not self.sid:
            raise WebhookRejected(400, "a form without CallSid")
        direction = form.get("Direction", "")
        self.common: dict[str, Any] = {
            "at": _time(form.get("Timestamp", ""), now_ms),
            "provider_call_id": self.sid,
            "call_id": query_of(url).get("callId") or None,
            "direction": _direction(direction),
            "from_number": _caller(form.get("From", "")),
            "to_number": form.get("To") or None,
        }

    def events(self) -> list[ev.CarrierEvent]:
        status = self.form.get("CallStatus", "")
        if "ErrorUrl" in self.form:
            _tell_of_loss(self.sid, self.form.get("ErrorCode", ""))
        if self.kind is Kind.STREAM:
            return self._stream()
        if status in TERMINAL:
            return [self._ended(status)]
        if self.kind is Kind.STATUS or "CallbackSource" in self.form:
            return self._progress(status)
        if self.is_fallback:
            # What was heard is lost. The reply belongs to this new event, because the reply to
            # the others may be the document that could not be carried out.
            return [*self._told(), self._active("fallback-")]
        match self.kind:
            case Kind.VOICE:
                inbound = self.common["direction"] is Direction.INBOUND
                # The reply to the first request of an inbound call answers it.
                return self._progress(CONNECTED if inbound else status) or [self._active()]
            case Kind.TURN:
                return self._turn()
            case Kind.PLAYED:
                return self._told() or [self._active()]
        return [self._active()]

    def _key(self, what: str) -> str:
        return f"twilio:{self.sid}:{what}"

    def _here(self, what: str) -> str:
        """The key of something that happens once in a document."""
        return self._key(f"{what}:{self.query.get('i', '')}:{self.query.get('n', '')}")

    def _progress(self, status: str) -> list[ev.CarrierEvent]:
        if status == CONNECTED:
            return [ev.Answered(key=self._key("answered"), **self.common)]
        if status == "ringing":
            return [ev.Ringing(key=self._key("ringing"), **self.common)]
        if status in LIVE and self.common["direction"] is not Direction.INBOUND:
            return [ev.Initiated(key=self._key("initiated"), **self.common)]
        return []

    def _active(self, how: str = "") -> ev.CarrierEvent:
        return ev.Active(key=self._here(how + self.kind.value), **self.common)

    def _told(self) -> list[ev.CarrierEvent]:
        """The events that the URL alone reports."""
        first = self._progress(CONNECTED) if "first" in self.query else []
        return [*first, *self._played()]

    def _played(self) -> list[ev.CarrierEvent]:
        utterance = self.query.get("u")
        if not utterance:
            return []
        key = self._key(f"played:{utterance}")
        return [ev.PlaybackEnded(key=key, utterance_id=utterance, **self.common)]

    def _turn(self) -> list[ev.CarrierEvent]:
        found = self._played()
        text = self.form.get("SpeechResult", "")
        if text.strip():
            found.append(
                ev.SpeechHeard(
                    key=self._here("speech"),
                    text=text,
                    confidence=_confidence(self.form.get("Confidence", "")),
                    turn_token=self.query.get("t"),
                    **self.common,
                )
            )
        # The key that ended the input counts like any other.
        digits = self.form.get("Digits", "") + self.form.get("FinishedOnKey", "")
        if digits:
            found.append(
                ev.DigitsPressed(
                    key=self._here("digits"),
                    digits=digits,
                    turn_token=self.query.get("t"),
                    **self.common,
                )
            )
        return found or [self._active()]

    def _stream(self) -> list[ev.CarrierEvent]:
        event, stream = self.form.get("StreamEvent"), self.form.get("StreamSid") or None
        if event == "stream-stopped" and stream:
            key = self._key(f"stopped:{stream}")
            return [ev.StreamStopped(key=key, stream_id=stream, **self.common)]
        if event != "stream-error":
            return []
        error = self.form.get("StreamError", "")
        _log.info("call %.40s: its media socket failed, says Twilio: %.200r", self.sid, error)
        return [
            ev.StreamFailed(
                key=self._key(f"stream:{stream}") if stream else self._here("stream"),
                error=error,
                stream_id=stream,
                **self.common,
            )
        ]

    def _ended(self, status: str) -> ev.CarrierEvent:
        reason = end_reason(status, self.form.get("Direction"))
        limit, duration = self.query.get("limit", ""), self.form.get("CallDuration", "")
        numbers = _NUMBER.fullmatch(limit) and _NUMBER.fullmatch(duration)
        if reason is EndReason.COMPLETED and numbers and int(duration) >= int(limit):
            # Twilio also reports "completed" for a call that it ended at its limit.
            reason = EndReason.TIMEOUT
        code = self.form.get("SipResponseCode", "")
        detail = f"SIP {code}" if _NUMBER.fullmatch(code) and code != "200" else None
        return ev.CallEnded(key=self._key("ended"), reason=reason, detail=detail, **self.common)


def _tell_of_loss(sid: str, code: str) -> None:
    """Log that Twilio asks the fallback, with its error code."""
    why = f"error {code}" if _NUMBER.fullmatch(code) else "no error code"
    text = "call %.40s: Twilio got no document that it could use (%s), and asks the fallback"
    _log.warning(text, sid, why)


def _direction(text: str) -> Direction | None:
    if text.startswith("outbound"):
        return Direction.OUTBOUND
    return Direction.INBOUND if text == "inbound" else None


def _caller(text: str) -> str | None:
    given = text.lower()
    if ":" in given:
        # A SIP address or a client. Callers who withhold theirs must not share a history.
        name, _, host = given.partition(":")[2].partition("@")
        given = "" if host.startswith("anonymous.invalid") else name
    withheld = not given or given.removeprefix("+") in _WITHHELD
    return None if withheld else text


def _confidence(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0.0 <= value <= 1.0 else None


def _time(text: str, now_ms: int) -> int:
    """A ``Timestamp`` (RFC 2822, or ISO 8601 for streams) in epoch milliseconds. Twilio truncates
    it to seconds, so this is the end of its second, but never later than ``now_ms``. ``now_ms`` if
    there is none."""
    if not text:
        return now_ms
    try:
        told = parsedate_to_datetime(text) if "," in text else datetime.fromisoformat(text)
        told = told if told.tzinfo is not None else told.replace(tzinfo=UTC)
        return max(0, min(now_ms, int(told.timestamp()) * 1000 + 999))
    except (ValueError, TypeError, OverflowError, IndexError):
        return now_ms
