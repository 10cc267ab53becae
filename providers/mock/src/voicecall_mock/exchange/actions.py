"""Actions from the gateway: the JSON of :mod:`voicecall_mock.protocol`, read strictly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from voicecall import telephony as tel
from voicecall.errors import InvalidRequest
from voicecall.tones import check_digits

__all__ = [
    "ActionError",
    "ActionRefused",
    "action_from_json",
    "actions_from_reply",
    "checked_digits",
]


class ActionError(ValueError):
    """Not an action of the protocol."""


class ActionRefused(Exception):
    """The call cannot carry out the action (it is over, or not answered)."""


def _text(data: Mapping[str, Any], key: str) -> str:
    value = data.get(key)
    if not isinstance(value, str) or not value:
        raise ActionError(f"{key} must be a string")
    return value


def _optional(data: Mapping[str, Any], key: str) -> str | None:
    return None if data.get(key) is None else _text(data, key)


def _stream(data: Any) -> tel.StreamRequest:
    if not isinstance(data, Mapping):
        raise ActionError("stream must be an object")
    url = _text(data, "url")
    if not url.startswith(("ws://", "wss://")):
        raise ActionError("url must be a WebSocket URL")
    return tel.StreamRequest(url, _text(data, "token"))


def _listen(data: Any) -> tel.Listen:
    if not isinstance(data, Mapping):
        raise ActionError("listen must be an object")
    silence = data.get("endSilenceMs", 800)
    if not isinstance(silence, int) or isinstance(silence, bool) or silence < 0:
        raise ActionError("endSilenceMs must be a number of milliseconds")
    return tel.Listen(_text(data, "token"), silence)


def _seconds(data: Mapping[str, Any]) -> int:
    seconds = data.get("seconds")
    if not isinstance(seconds, int) or isinstance(seconds, bool) or seconds < 1:
        raise ActionError("seconds must be a number of seconds")
    return seconds


def checked_digits(digits: str) -> str:
    """``digits`` for :class:`~voicecall.telephony.PlayDigits`. Raises :exc:`ActionError`."""
    try:
        return check_digits(digits)
    except InvalidRequest as error:
        raise ActionError(str(error)) from None


def action_from_json(data: Any) -> tel.Action:
    """One action. Raises :exc:`ActionError`."""
    if not isinstance(data, Mapping):
        raise ActionError("an action is an object")
    match data.get("action"):
        case "answer":
            stream = data.get("stream")
            return tel.Answer(None if stream is None else _stream(stream))
        case "reject":
            return tel.Reject(_optional(data, "text"), data.get("busy") is True)
        case "speak":
            listen = data.get("listen")
            return tel.Speak(
                _text(data, "utterance"),
                _text(data, "text"),
                _optional(data, "voice"),
                None if listen is None else _listen(listen),
            )
        case "listen":
            return _listen(data)
        case "stop-listening":
            return tel.StopListening()
        case "digits":
            return tel.PlayDigits(checked_digits(_text(data, "digits")))
        case "stream":
            return tel.AttachStream(_stream(data))
        case "limit":
            return tel.LimitDuration(_seconds(data))
        case "hangup":
            return tel.Hangup()
        case other:
            raise ActionError(f"unknown action {other!r}")


def actions_from_reply(data: Any) -> list[tel.Action]:
    """The actions in a webhook reply, which may have none. Raises :exc:`ActionError`."""
    if data is None:
        return []
    actions = data.get("actions", []) if isinstance(data, Mapping) else None
    if not isinstance(actions, list):
        raise ActionError("a reply is an object with a list of actions")
    return [action_from_json(action) for action in actions]
