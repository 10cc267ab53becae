"""How many calls, webhooks and media sockets were refused, for whoever asks how the phone is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["refusals"]


def refusals(
    *, calls: Mapping[str, int], webhooks: Mapping[int, int], sockets: Mapping[int, int]
) -> dict[str, Any]:
    """``{"refused": {kind: {reason: count}}}`` of what was counted since the phone started; empty
    where nothing was. Reasons: of calls their ``endDetail``; of webhooks the HTTP status; of media
    sockets the HTTP status, or the close code of one that was open but not let in yet."""
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
