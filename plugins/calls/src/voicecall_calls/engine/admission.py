"""Who may call in. A caller id is a filter, no proof of identity."""

from __future__ import annotations

import re

from voicecall.model import EndDetail
from voicecall_calls.config import NumberRoute, VoiceCallConfig

__all__ = ["admit_inbound", "route_for"]


def _digits(number: str | None) -> str:
    return re.sub(r"\D", "", number or "")


def admit_inbound(config: VoiceCallConfig, from_number: str | None) -> EndDetail | None:
    """None lets the caller in; otherwise why not. Equality of digits, no suffix match."""
    match config.inbound_policy:
        case "open":
            return None
        case "allowlist" | "pairing":
            caller = _digits(from_number)
            listed = {_digits(number) for number in config.allow_from}
            return None if caller and caller in listed else EndDetail.POLICY
        case "disabled":
            return EndDetail.POLICY


def route_for(config: VoiceCallConfig, to_number: str | None) -> tuple[str, NumberRoute] | None:
    """The route of a dialled number: the exact key, else the one with the same digits."""
    if to_number in config.numbers:
        return to_number, config.numbers[to_number]
    dialled = _digits(to_number)
    for key, route in config.numbers.items():
        if dialled and _digits(key) == dialled:
            return key, route
    return None
