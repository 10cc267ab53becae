"""An utterance of a full-duplex voice model, and who waits for the next one."""

from __future__ import annotations

from dataclasses import dataclass, field

import anyio

from voicecall.audio import Converter
from voicecall_calls.conversation.turntimes import CallerTimes, TurnTimes

__all__ = ["Item", "Ticket", "Tickets"]


@dataclass(slots=True, eq=False)
class Item:
    """``id`` is the model's, empty once its session is over; ``key`` ours. ``answers``: what the
    caller had said when it began. ``sounded``: audio of it came; ``total_ms``: how long it was when
    it was cut. ``over``: no more audio comes; ``told``: its text is complete."""

    id: str
    key: str
    times: TurnTimes
    converter: Converter
    converts: bool
    answers: CallerTimes
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
    being made before. ``begun`` is also set when none will (``item`` is None); ``cancelled``: since
    the caller interrupted it before. ``done``: the item was played or interrupted."""

    message: str | None = None
    behind: str | None = None
    item: Item | None = None
    cancelled: bool = False
    begun: anyio.Event = field(default_factory=anyio.Event)
    done: anyio.Event = field(default_factory=anyio.Event)

    @property
    def failed(self) -> str | None:
        """Why it was not said; None also where it was interrupted."""
        if self.item is not None:
            return self.item.error
        return None if self.cancelled else "the model said nothing"


class Tickets:
    """Those whose item has yet to begin, in order. ``response`` is the one that is being made, None
    between two."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[Ticket] = []

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def draw(self, message: str | None, response: str | None) -> Ticket:
        """One for the item that begins next."""
        ticket = Ticket(message, behind=response)
        self._waiting.append(ticket)
        return ticket

    def due(self, response: str | None) -> Ticket | None:
        """That of an item which begins now. What is still of a response that was being made before
        has none."""
        ticket = self._waiting[0] if self._waiting else None
        if ticket is None or response is None or ticket.behind != response:
            return ticket
        return None

    def take(self, item: Item, response: str | None) -> None:
        """``item`` begins."""
        if (ticket := self.due(response)) is not None:
            del self._waiting[0]
            item.ticket, ticket.item = ticket, item
            ticket.begun.set()

    def give_up(self, ticket: Ticket) -> None:
        """Its item will not come."""
        if ticket in self._waiting:
            self._waiting.remove(ticket)
        ticket.begun.set()

    def nothing_came(self, response: str, *, cancelled: bool) -> None:
        """``response`` is over, and had no item."""
        # The end of a response that was cut off may come when its successor is asked for.
        if self._waiting and self._waiting[0].behind != response:
            self._waiting[0].cancelled = cancelled
            self.give_up(self._waiting[0])

    def close(self) -> None:
        """No item will come of what was asked for so far."""
        for ticket in list(self._waiting):
            self.give_up(ticket)
