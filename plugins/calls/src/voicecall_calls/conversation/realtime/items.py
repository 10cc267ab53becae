"""An utterance of a full-duplex voice model, and who waits for the next one."""

from __future__ import annotations

from dataclasses import dataclass, field

import anyio

from voicecall.audio import Converter
from voicecall_calls.conversation.turntimes import TurnTimes

__all__ = ["Item", "Ticket"]


@dataclass(slots=True)
class Item:
    """``id`` is the model's, empty once its session is over; ``key`` ours. ``message``: the first
    message, where it speaks that. ``sounded``: audio of it came; ``size``: its bytes in the line
    when it was cut. ``over``: no more audio comes; ``told``: its text is complete. ``done``: of its
    ticket."""

    id: str
    key: str
    times: TurnTimes
    converter: Converter
    converts: bool
    message: str | None = None
    text: str = ""
    sounded: bool = False
    size: int = 0
    cut_ms: float | None = None
    error: str | None = None
    told: bool = False
    over: bool = False
    done: anyio.Event | None = None


@dataclass(slots=True)
class Ticket:
    """The next item that begins. ``behind``: the response that was being made before. ``begun`` is
    also set when none will (``item`` is None). ``done``: the item was played or interrupted."""

    message: str | None = None
    behind: str | None = None
    item: Item | None = None
    begun: anyio.Event = field(default_factory=anyio.Event)
    done: anyio.Event = field(default_factory=anyio.Event)
