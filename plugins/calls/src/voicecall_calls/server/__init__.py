"""The webhook server and the media server, on one port."""

from __future__ import annotations

from .options import ServeOptions, StreamOptions, WebhookSecurity
from .server import CallServer

__all__ = ["CallServer", "ServeOptions", "StreamOptions", "WebhookSecurity"]
