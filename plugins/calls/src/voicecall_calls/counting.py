"""Numbers of refused calls, webhooks and media sockets, for the phone's status."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["refusals"]


def refusals(
    *, calls: Mapping[str, int], webhooks: Mapping[int, int], sockets: Mapping[int, int]
) -> dict[str, Any]:
    """``{"refused": {kind: {reason: count}}}`` since the phone started; empty if nothing was
    refused. The reason of a call is its ``endDetail``, of a webhook the HTTP status, of a media
    socket the HTTP status, or the close code if it was open but not yet admitted."""
    kinds: dict[str, Mapping[Any, int]] = {
        "calls": calls,
        "webhooks": webhooks,
        "mediaSockets": sockets,
    }
    counted = {
        kind: {str(reason): counts[reason] for reason in sorted(counts)}
        for kind, counts in kinds.items()
        if counts
    }
    return {"refused": counted} if counted else {}
