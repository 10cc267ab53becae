"""Repair of text with half a surrogate pair, as in JSON that was cut in the middle of one."""

from __future__ import annotations

from typing import TypeVar

from msgspec.structs import replace

from .events import CallEvent

__all__ = ["well_formed", "well_formed_text"]

Event = TypeVar("Event", bound=CallEvent)


def well_formed_text(text: str) -> str:
    """``text`` with its surrogate pairs joined, and a replacement character for each unpaired
    surrogate: a text with surrogates cannot be encoded, and thus neither stored nor sent."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def well_formed(event: Event) -> Event:
    """``event`` with all its texts well formed."""
    changes = {}
    for name in event.__struct_fields__:
        value = getattr(event, name)
        if type(value) is str and (text := well_formed_text(value)) is not value:
            changes[name] = text
    return replace(event, **changes) if changes else event
