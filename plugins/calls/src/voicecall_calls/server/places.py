"""Places for webhooks, which nobody keeps by sending slowly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import anyio

from .limits import InFlight

__all__ = ["Place", "Places"]

STANDING_S = 0.5
"""How long the body of a request without a place may take. A carrier sends it with the head."""


class Place:
    """The place of one webhook, or room to ``stand`` in until it is known to be genuine.
    ``lost``: it must go. ``late``: its body did not come in time."""

    def __init__(self, client: str, *, standing: bool) -> None:
        self.client = client
        self.standing = standing
        self.lost = False
        self.late = False
        self.scope: anyio.CancelScope | None = None


class Places:
    """As many places as `InFlight` has.

    Where none is free because bodies are awaited, a few more may stand. One that proves to be
    genuine gets the place of the body that is awaited longest: behind a tunnel everybody has the
    carrier's address, and a few slow senders would shut the carrier out.
    """

    def __init__(self, *, per_client: int, total: int) -> None:
        self._limits = InFlight(per_client=per_client, total=total)
        self._room = total
        self._reading: dict[Place, None] = {}
        self._standing: dict[Place, None] = {}

    def take(self, client: str) -> Place | None:
        """None where there is neither a place nor room; else `give_back` follows."""
        standing = not self._limits.enter(client)
        place = Place(client, standing=standing)
        if standing:
            if self._slowest(client) is None:
                return None
            if len(self._standing) >= self._room:
                self._lose(next(iter(self._standing)))
            self._standing[place] = None
        return place

    @contextmanager
    def reading(self, place: Place, timeout_s: float) -> Iterator[None]:
        """While the body is awaited, for at most ``timeout_s``. It ends early, and without an
        error, for a place that is lost or late."""
        if place.standing:
            timeout_s = min(timeout_s, STANDING_S)
        else:
            self._reading[place] = None
        place.scope = scope = anyio.move_on_after(timeout_s)
        try:
            with scope:
                yield
        finally:
            self._reading.pop(place, None)
            place.late = scope.cancelled_caught and not place.lost

    def why_none(self, client: str) -> str:
        """What keeps ``client`` from a place."""
        if self._limits.used_up(client):
            return "too many webhooks of this client (webhookSecurity.maxInFlightPerClient)"
        return "too many webhooks in flight (webhookSecurity.maxInFlight)"

    def claim(self, place: Place) -> bool:
        """Give a genuine webhook the place that it may lack; False where there is none."""
        if not place.standing:
            return True
        slowest = self._slowest(place.client)
        if slowest is not None:
            self._lose(slowest)
        if not self._limits.enter(place.client):
            return False
        del self._standing[place]
        place.standing = False
        return True

    def give_back(self, place: Place) -> None:
        if place.standing:
            self._standing.pop(place, None)
        elif not place.lost:
            self._limits.leave(place.client)

    def _slowest(self, client: str) -> Place | None:
        """Whose place helps ``client``: any, unless the client has used up its own."""
        own = self._limits.used_up(client)
        return next((p for p in self._reading if not own or p.client == client), None)

    def _lose(self, place: Place) -> None:
        place.lost = True
        if place.scope is not None:
            place.scope.cancel()
        if place.standing:
            del self._standing[place]
        else:
            del self._reading[place]
            self._limits.leave(place.client)
