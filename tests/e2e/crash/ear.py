"""Whether a phone hears what its gateway was asked to say."""

from __future__ import annotations

import anyio

from voicecall.audio import mulaw_to_pcm16
from voicecall.model import MediaPath
from voicecall_gateway.client import RpcError
from voicecall_mock.exchange.calls import Call
from voicecall_testing.fsk import FskDecoder

from .gateway import Gateway
from .summary import RECOVERY_S

__all__ = ["is_heard"]

SAID_AGAIN = 5
"""The phone may interrupt before the first word."""
FRAME = 160


async def is_heard(gateway: Gateway, call: Call, call_id: str, text: str) -> bool:
    """Have ``text`` said on a live call. False if the call ended first. Raises ``AssertionError``
    if neither happens."""
    for _ in range(SAID_AGAIN):
        begun = call.line.recording.duration_ms
        try:
            await gateway.call("voicecall.speak", {"callId": call_id, "message": text})
        except RpcError:
            # It may have been about to end; then it is over soon.
            with anyio.fail_after(RECOVERY_S):
                await call.over.wait()
        if text in _heard(gateway.media, call, begun):
            return True
        if call.over.is_set():
            return False
    raise AssertionError(f"recovered, but not heard: {call.to_json()} {call.stats}")


def _heard(media: MediaPath, call: Call, begun_ms: int) -> list[str | None]:
    if media is MediaPath.NATIVE:
        return [text for kind, text in call.stats.log if kind == "heard"]
    heard = call.line.recording.heard[begun_ms * 8 :]
    starts = range(0, len(heard), FRAME)
    frames = [mulaw_to_pcm16(heard[start : start + FRAME]) for start in starts]
    # Silence is left out: a busy machine makes gaps inside of a sentence.
    pcm = b"".join(frame for frame in frames if any(frame))
    decoder = FskDecoder()
    return decoder.feed(pcm) + decoder.finish()
