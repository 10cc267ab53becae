"""What happens on a call's audio line, as events of the call."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from voicecall import events as ev

if TYPE_CHECKING:
    from voicecall_calls.engine.lane import CallLane

__all__ = ["LineNews"]


class LineNews:
    """Turns lost sockets and pressed keys into events and hands them to the call's lane."""

    def __init__(self, lane: CallLane) -> None:
        self._lane = lane
        self._seam = lane.host.seam
        self._digits = 0

    def lost(self, stream_id: str) -> None:
        """The current socket went away. The call asks for another one once it knows."""
        gone = ev.StreamDetached(at=self._seam.now_ms(), stream_id=stream_id)
        self._lane.spawn(partial(self._lane.bring, gone))

    def digits(self, stream_id: str, digits: str) -> None:
        """The caller pressed keys."""
        record = self._lane.record
        self._digits += 1
        pressed = ev.DigitsPressed(
            at=self._seam.now_ms(),
            key=f"{stream_id}:digits:{self._digits}",
            provider_call_id=record.provider_call_id or "",
            call_id=record.call_id,
            digits=digits,
        )
        self._lane.spawn(partial(self._lane.apply, pressed))
