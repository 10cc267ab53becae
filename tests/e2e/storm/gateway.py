"""The gateway in the storm: the one of the crash campaign, set up for Twilio's emulator."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.e2e.crash.gateway import STREAMED, Gateway
from tests.ports import reserve_port

from voicecall.model import MediaPath
from voicecall_testing.twilio import TwilioEmulator

__all__ = ["INBOUND", "MAX_DURATION_S", "OUR_NUMBER", "OUTBOUND", "StormGateway"]

OUR_NUMBER = "+15550100000"
OUTBOUND = 12
INBOUND = 12
"""Caps of the gateway, above what the crowd has under way at a time."""
MAX_DURATION_S = 9

_BY_MEDIA: Mapping[MediaPath, Mapping[str, Any]] = {
    MediaPath.NATIVE: {},
    MediaPath.STREAM: STREAMED,
    MediaPath.REALTIME: {"realtime": {"enabled": True, "provider": "echo"}},
}


class StormGateway(Gateway):
    """``talk_by`` sets how gateways that are started later talk."""

    def __init__(self, root: Path, twilio: TwilioEmulator) -> None:
        super().__init__(root, twilio.base_url, MediaPath.NATIVE)
        self._twilio = twilio
        self._webhook_port = reserve_port()
        self.up = False
        """It was seen ready, and has not been ended since."""
        self.talk_by(MediaPath.NATIVE)

    @property
    def webhook_url(self) -> str:
        return f"http://127.0.0.1:{self._webhook_port}/voice/webhook"

    async def ready(self) -> None:
        await super().ready()
        self.up = True

    async def kill(self) -> str:
        self.up = False
        return await super().kill()

    async def stop(self) -> str:
        self.up = False
        return await super().stop()

    def talk_by(self, media: MediaPath) -> None:
        self.media = media
        options = self._twilio.options
        phone = {
            "provider": "twilio",
            "fromNumber": OUR_NUMBER,
            "twilio": {
                "accountSid": options.account_sid,
                "authToken": options.auth_token,
                "apiBaseUrl": self._twilio.base_url,
                "callsPerSecond": options.calls_per_second,
            },
            "serve": {"port": self._webhook_port},
            "inboundPolicy": "open",
            "inboundGreeting": "Good day to you.",
            "phrases": {"resumed": "Here I am."},
            "outbound": {"notifyHangupDelaySec": 1},
            "silence": {"promptAfterMs": 2500, "prompts": 1},
            "maxConcurrentCalls": OUTBOUND,
            "maxConcurrentInboundCalls": INBOUND,
            "maxDurationSeconds": MAX_DURATION_S,
            "ringTimeoutMs": 3000,
            **_BY_MEDIA[media],
        }
        tree = {
            "gateway": {"port": self.port},
            "plugins": {"entries": {"voice-call": {"config": phone}}},
        }
        self._config.write_text(json.dumps(tree))
