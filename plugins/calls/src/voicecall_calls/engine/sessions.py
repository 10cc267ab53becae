"""Session keys: which conversation history a call belongs to. Chosen once, when it is created."""

from __future__ import annotations

from typing import Literal

from voicecall.errors import InvalidRequest
from voicecall_calls.engine.addresses import digits_of, is_address

__all__ = ["session_key"]

Scope = Literal["per-phone", "per-call", "main"]


def session_key(
    *,
    agent_id: str,
    scope: Scope,
    call_id: str,
    remote_number: str | None,
    explicit: str | None = None,
    one_for_all: bool = False,
) -> str:
    """The key, in lower case. ``one_for_all``: agents share the main session.

    ``explicit`` takes precedence: ``global``, ``unknown`` and keys of this agent are kept;
    anything else is placed into this agent's namespace.
    """
    agent = agent_id.strip().lower()
    if explicit is not None:
        return _explicit(agent, explicit)
    if scope == "main":
        return "global" if one_for_all else f"agent:{agent}:main"
    if scope == "per-call":
        return f"agent:{agent}:voice:call:{call_id}".lower()
    whose = digits_of(remote_number)
    if not whose and is_address(remote_number):
        whose = str(remote_number)
    return f"agent:{agent}:voice:{whose or call_id}".lower()


def _explicit(agent: str, text: str) -> str:
    key = text.strip().lower()
    if not key:
        raise InvalidRequest("sessionKey must not be blank")
    if key in ("global", "unknown"):
        return key
    own = f"agent:{agent}:"
    if key.startswith(own) and len(key) > len(own):
        return key
    return own + key
