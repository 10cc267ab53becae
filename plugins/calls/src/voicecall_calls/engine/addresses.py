"""The other end of a call, as carriers write it: a telephone number, or an address of another
kind, of which the caller may choose every character."""

from __future__ import annotations

import re

__all__ = ["digits_of", "is_address"]

_NUMBER = re.compile(r"\+?[0-9 ().\-/]*")
_NO_DIGITS = re.compile(r"[^0-9]")


def digits_of(caller: str | None) -> str:
    """The digits of a telephone number; empty for anything else, such as
    ``sip:+15550001234@example.com`` and ``client:alice1``."""
    text = (caller or "").strip()
    return _NO_DIGITS.sub("", text) if _NUMBER.fullmatch(text) else ""


def is_address(caller: str | None) -> bool:
    """Whether it is an address other than a telephone number."""
    return ":" in (caller or "") or "@" in (caller or "")
