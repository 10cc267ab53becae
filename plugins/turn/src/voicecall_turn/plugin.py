"""Entry point of the WebRTC detector. Importing it does not load the library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from voicecall import ProviderContext, ProviderInfo, ProviderKind, hookimpl


def _factory(config: Any, context: ProviderContext) -> Any:
    from .provider import WebRtcProvider

    return WebRtcProvider()


@hookimpl
def voicecall_turn_detectors() -> Sequence[ProviderInfo]:
    return [
        ProviderInfo(
            kind=ProviderKind.TURN,
            id="webrtc",
            label="WebRTC voice activity detector",
            factory=_factory,
        )
    ]
