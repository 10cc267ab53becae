"""Collecting the times of one turn."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec
from msgspec.structs import asdict

from voicecall.store import TurnRow
from voicecall.wellformed import well_formed_text
from voicecall_calls.conversation.mouth import SpeechTimes

__all__ = ["CallerTimes", "KeepTurn", "TurnTimes"]

KeepTurn = Callable[[TurnRow], Awaitable[None]]
"""Stores the times of a finished turn."""


@dataclass(slots=True)
class CallerTimes:
    """When the caller spoke last; milliseconds since the epoch."""

    started: int | None = None
    ended: int | None = None
    final: int | None = None

    @property
    def speaks(self) -> bool:
        """The caller began an utterance whose text is not known and that no item has answered."""
        return self.started is not None and (self.final or 0) < self.started

    @property
    def wordless(self) -> bool:
        """The caller ended an utterance whose text is not known."""
        return self.speaks and (self.ended or 0) >= (self.started or 0)

    @property
    def waits_since(self) -> int | None:
        """When the caller ended an utterance that no item has answered."""
        ended = max(self.ended or 0, self.final or 0)
        return ended if ended and ended >= (self.started or 0) else None


class TurnTimes(msgspec.Struct):
    """The times of a turn, filled in as it goes on; milliseconds since the epoch."""

    call_id: str
    turn_id: str
    kind: str
    at: int
    speech_started: int | None = None
    speech_ended: int | None = None
    stt_final: int | None = None
    agent_start: int | None = None
    first_token: int | None = None
    agent_done: int | None = None
    barge_in_at: int | None = None
    barge_in_stop_ms: int | None = None
    filler: bool = False
    failed: str | None = None

    def row(self, speech: SpeechTimes | None) -> TurnRow:
        """The finished row; ``speech`` has the times of the reply itself."""
        times = speech or SpeechTimes()
        values = asdict(self)
        if self.failed is not None:
            values["failed"] = well_formed_text(self.failed)
        return TurnRow(
            **values,
            tts_first_byte=times.first_byte,
            first_audio_sent=times.first_sent,
            playback_done=times.done,
        )
