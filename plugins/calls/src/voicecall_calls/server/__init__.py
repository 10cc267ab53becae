"""The webhook server and the media server, on one port."""

from __future__ import annotations

from .options import StreamOptions, WebhookSecurity
from .server import CallServer

__all__ = ["CallServer", "StreamOptions", "WebhookSecurity"]
