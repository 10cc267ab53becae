"""Utterances of a full-duplex voice model, and tickets for those that were requested."""

from __future__ import annotations

from dataclasses import dataclass, field

import anyio

from voicecall.audio import Converter
from voicecall_calls.conversation.turntimes import CallerTimes, TurnTimes

__all__ = ["Item", "Ticket", "Tickets"]


@dataclass(slots=True, eq=False)
class Item:
    """One utterance of the model.

    ``id`` is the model's id for it, empty once its session is over; ``key`` is ours. ``answers``:
    the caller's times when it began. ``sounded``: it has had audio. ``cut_ms`` and ``total_ms``: if
    it was cut off, how much was heard, and how long it was at that moment. ``over``: no more audio
    will come. ``told``: its text is complete."""

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
        """The call's first message, if the item speaks it."""
        return self.ticket.message if self.ticket is not None else None

    def let_go(self) -> None:
        """The item was played or interrupted, or the call is over: release whoever waits."""
        if self.ticket is not None:
            self.ticket.done.set()


@dataclass(slots=True, eq=False)
class Ticket:
    """A request for an item, which the next item that begins fulfils.

    ``message``: the first message that it is to speak, if any. ``behind``: the response that was in
    progress when it was requested. ``begun`` is set when the item begins, and also when it is known
    that none will (``item`` is None; ``cancelled``: because the caller interrupted before it
    began). ``done`` is set when the item was played or interrupted."""

    message: str | None = None
    behind: str | None = None
    item: Item | None = None
    cancelled: bool = False
    begun: anyio.Event = field(default_factory=anyio.Event)
    done: anyio.Event = field(default_factory=anyio.Event)

    @property
    def failed(self) -> str | None:
        """Why it was not said; None if it was, or if it was interrupted."""
        if self.item is not None:
            return self.item.error
        return None if self.cancelled else "the model said nothing"


class Tickets:
    """The tickets whose items have yet to begin, in order. ``response`` is the id of the response
    in progress, None between responses."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[Ticket] = []

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def draw(self, message: str | None, response: str | None) -> Ticket:
        """A ticket for the next item that begins."""
        ticket = Ticket(message, behind=response)
        self._waiting.append(ticket)
        return ticket

    def due(self, response: str | None) -> Ticket | None:
        """The ticket for an item that begins now; None if there is none, or if the item belongs to
        a response that was in progress before the ticket was drawn."""
        ticket = self._waiting[0] if self._waiting else None
        if ticket is None or response is None or ticket.behind != response:
            return ticket
        return None

    def take(self, item: Item, response: str | None) -> None:
        """``item`` begins: give it its ticket, if one is due."""
        if (ticket := self.due(response)) is not None:
            del self._waiting[0]
            item.ticket, ticket.item = ticket, item
            ticket.begun.set()

    def give_up(self, ticket: Ticket) -> None:
        """The item of ``ticket`` will not come."""
        if ticket in self._waiting:
            self._waiting.remove(ticket)
        ticket.begun.set()

    def nothing_came(self, response: str, *, cancelled: bool) -> None:
        """``response`` ended without an item."""
        # The end of a response that was cut off may arrive after its successor was requested.
        if self._waiting and self._waiting[0].behind != response:
            self._waiting[0].cancelled = cancelled
            self.give_up(self._waiting[0])

    def close(self) -> None:
        """No item will come for any ticket drawn so far."""
        for ticket in list(self._waiting):
            self.give_up(ticket)
