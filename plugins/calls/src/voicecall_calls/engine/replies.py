"""Conversion of webhook replies between the carrier's and the store's form."""

from __future__ import annotations

from voicecall import telephony as tel
from voicecall.store import RecordedReply

__all__ = ["as_reply", "recorded"]


def recorded(reply: tel.WebhookReply, key: str, at: int) -> RecordedReply:
    """What the store keeps under the ``key`` of the request or event."""
    return RecordedReply(key, at, reply.status, reply.body, reply.content_type, reply.headers)


def as_reply(kept: RecordedReply | None) -> tel.WebhookReply | None:
    """The carrier's form of a stored reply; None for None."""
    if kept is None:
        return None
    return tel.WebhookReply(kept.status, kept.body, kept.content_type, kept.headers)
