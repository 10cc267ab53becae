"""Messages of all media sockets, sent together at the end of a round of the event loop.

Frames of many calls arrive together. First all of them are handled, then all answers are sent:
either half of the code stays in the processor's caches, and a peer that receives several is woken
once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from voicecall.media import Message

__all__ = ["Outbox", "Sender"]


class Sender(Protocol):
    """Who has put a message into the box."""

    def deliver(self, message: Message) -> None:
        """Send the message now."""
        ...


class Outbox:
    """One a listener, for its event loop."""

    __slots__ = ("_call_soon", "_waiting")

    def __init__(self) -> None:
        self._waiting: list[tuple[Sender, Message]] = []
        self._call_soon: Callable[..., object] | None = None

    def put(self, sender: Sender, message: Message) -> None:
        """Have ``sender`` deliver ``message``, after everything put before."""
        if not self._waiting:
            if self._call_soon is None:
                # To ask for the loop is a system call in Python 3.11.
                self._call_soon = asyncio.get_running_loop().call_soon
            self._call_soon(self.flush)
        self._waiting.append((sender, message))

    def size(self, sender: Sender) -> int:
        """How much of what ``sender`` has put waits, in bytes or characters."""
        return sum(len(message) for putter, message in self._waiting if putter is sender)

    def flush(self) -> None:
        """Send what waits now."""
        waiting, self._waiting = self._waiting, []
        for sender, message in waiting:
            sender.deliver(message)
