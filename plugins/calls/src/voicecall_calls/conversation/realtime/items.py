"""An utterance of a full-duplex voice model, and who waits for the next one."""

from __future__ import annotations

from dataclasses import dataclass, field

import anyio

from voicecall.audio import Converter
from voicecall_calls.conversation.turntimes import TurnTimes

__all__ = ["Item", "Ticket"]


@dataclass(slots=True, eq=False)
class Item:
    """``id`` is the model's, empty once its session is over; ``key`` ours. ``sounded``: audio of it
    came; ``total_ms``: how long it was when it was cut. ``over``: no more audio comes; ``told``:
    its text is complete."""

    id: str
    key: str
    times: TurnTimes
    converter: Converter
    converts: bool
    ticket: Ticket | None = None
    text: str = ""
    sounded: bool = False
    total_ms: float = 0.0
    cut_ms: float | None = None
    error: str | None = None
    told: bool = False
    over: bool = False

    @property
    def message(self) -> str | None:
        """The first message, where it speaks that."""
        return self.ticket.message if self.ticket is not None else None

    def let_go(self) -> None:
        """It was played or interrupted, or the call is over."""
        if self.ticket is not None:
            self.ticket.done.set()


@dataclass(slots=True, eq=False)
class Ticket:
    """The next item that begins, to speak ``message``, if any. ``behind``: the response that was
    being made before. ``begun`` is also set when none will (``item`` is None). ``done``: the item
    was played or interrupted."""

    message: str | None = None
    behind: str | None = None
    item: Item | None = None
    begun: anyio.Event = field(default_factory=anyio.Event)
    done: anyio.Event = field(default_factory=anyio.Event)
