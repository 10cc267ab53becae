"""Places for webhooks, which nobody keeps by sending slowly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import anyio

from .limits import InFlight

__all__ = ["Place", "Places"]


class Place:
    """The place of one webhook. ``lost``: it went to another one."""

    def __init__(self, client: str) -> None:
        self.client = client
        self.lost = False
        self.scope = anyio.CancelScope()


class Places:
    """As many places as `InFlight` has. Where none is free, the webhook whose body is awaited
    longest gives its place up: a carrier sends a request in one go, and behind a tunnel everybody
    has the carrier's address."""

    def __init__(self, *, per_client: int, total: int) -> None:
        self._limits = InFlight(per_client=per_client, total=total)
        self._reading: dict[Place, None] = {}

    def take(self, client: str) -> Place | None:
        """None where there is no place; else `give_back` follows."""
        if not self._limits.enter(client):
            slowest = self._slowest(client)
            if slowest is None:
                return None
            self._lose(slowest)
            self._limits.enter(client)
        return Place(client)

    def _slowest(self, client: str) -> Place | None:
        """Whose place helps ``client``: any, unless the client has used up its own."""
        own = self._limits.used_up(client)
        return next((p for p in self._reading if not own or p.client == client), None)

    def _lose(self, place: Place) -> None:
        del self._reading[place]
        self._limits.leave(place.client)
        place.lost = True
        place.scope.cancel()

    @contextmanager
    def reading(self, place: Place) -> Iterator[None]:
        """While the body is awaited. It ends early, and without an error, for a place that is
        lost."""
        self._reading[place] = None
        try:
            with place.scope:
                yield
        finally:
            self._reading.pop(place, None)

    def give_back(self, place: Place) -> None:
        if not place.lost:
            self._limits.leave(place.client)
