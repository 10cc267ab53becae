"""The wire protocol between a gateway and the mock exchange. Pure: no clock, no socket.

Webhooks are JSON, signed like this::

    mock-timestamp: <epoch ms>
    mock-signature: hex(HMAC-SHA256(auth token, timestamp + "\\n" + url + "\\n" + body))

    {"id": "ev-…", "type": "call.answered", "at": 1700000000000,
     "call": {"id": "mk-…", "direction": "inbound", "from": "+1…", "to": "+1…",
              "reference": "<our call id or null>"}, …}

=================== ==========================================================================
``type``            further members
=================== ==========================================================================
call.initiated      inbound only; the reply decides
call.ringing
call.answered
call.speech         ``text``, ``final``, ``confidence``, ``token``
call.digits         ``digits``
call.playback       ``utterance``, ``ok``
call.stream-failed  ``error``, ``stream`` (id of the stream)
call.error          ``error``, ``retryable``
call.ended          ``reason`` (an end reason of voicecall)
=================== ==========================================================================

A reply of 200 may carry ``{"actions": [action, …]}``; the same objects are posted one by one to
``/v1/calls/<id>/actions``. Actions: ``answer`` (``stream``), ``reject`` (``text``, ``busy``),
``speak`` (``utterance``, ``text``, ``voice``, ``listen``), ``listen`` (``token``,
``endSilenceMs``), ``stop-listening``, ``digits`` (``digits``), ``stream`` (``url``, ``token``),
``limit`` (``seconds`` from the answer), ``hangup``.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from typing import Any

from voicecall import telephony as tel
from voicecall.errors import WebhookRejected

__all__ = [
    "MAX_SKEW_MS",
    "SIGNATURE_HEADER",
    "TIMESTAMP_HEADER",
    "action_to_json",
    "actions_document",
    "parse_json_object",
    "sign",
]

SIGNATURE_HEADER = "mock-signature"
TIMESTAMP_HEADER = "mock-timestamp"
MAX_SKEW_MS = 300_000


def sign(auth_token: str, timestamp: str, url: str, body: bytes) -> str:
    """The value of the signature header."""
    signed = f"{timestamp}\n{url}\n".encode() + body
    return hmac.new(auth_token.encode(), signed, hashlib.sha256).hexdigest()


def parse_json_object(body: bytes) -> Mapping[str, Any]:
    """The JSON object in a webhook body. Raises :exc:`WebhookRejected` (400)."""
    try:
        value = json.loads(body.decode())
        if b"\\u" in body:
            json.dumps(value, ensure_ascii=False).encode()  # raises for half a surrogate pair
    except (ValueError, RecursionError) as error:
        raise WebhookRejected(400, f"the body is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise WebhookRejected(400, "the body must be a JSON object")
    return value


def _stream(stream: tel.StreamRequest) -> dict[str, str]:
    return {"url": stream.url, "token": stream.token}


def _listen(listen: tel.Listen) -> dict[str, Any]:
    return {"token": listen.token, "endSilenceMs": listen.end_silence_ms}


def action_to_json(action: tel.Action) -> dict[str, Any]:
    """The JSON object of one action."""
    match action:
        case tel.Answer(stream):
            return {"action": "answer", "stream": None if stream is None else _stream(stream)}
        case tel.Reject(text, busy):
            return {"action": "reject", "text": text, "busy": busy}
        case tel.Speak(utterance, text, voice, listen):
            return {
                "action": "speak",
                "utterance": utterance,
                "text": text,
                "voice": voice,
                "listen": None if listen is None else _listen(listen),
            }
        case tel.Listen():
            return {"action": "listen", **_listen(action)}
        case tel.StopListening():
            return {"action": "stop-listening"}
        case tel.PlayDigits(digits):
            # Digits interrupt neither a stream nor the recogniser, so nothing must be resumed.
            return {"action": "digits", "digits": digits}
        case tel.AttachStream(stream):
            return {"action": "stream", **_stream(stream)}
        case tel.LimitDuration(seconds):
            return {"action": "limit", "seconds": seconds}
        case tel.Hangup():
            return {"action": "hangup"}


def actions_document(actions: Sequence[tel.Action]) -> bytes:
    """The body of a webhook reply."""
    return json.dumps({"actions": [action_to_json(action) for action in actions]}).encode()
