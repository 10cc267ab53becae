"""Places for webhooks in flight, which slow senders cannot keep occupied."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import anyio

from .limits import InFlight

__all__ = ["Place", "Places"]

STANDING_S = 0.5
"""How long the body of a request without a place may take. Carriers send it with the head."""


class Place:
    """The place of one webhook, or, if ``standing``, room to wait until it is known to be genuine.
    ``lost``: another webhook got its place or room. ``late``: its body did not arrive in time."""

    def __init__(self, client: str, *, standing: bool) -> None:
        self.client = client
        self.standing = standing
        self.lost = False
        self.late = False
        self.scope: anyio.CancelScope | None = None


class Places:
    """As many places as `InFlight` has.

    If none is free because bodies are awaited, as many more requests may stand. One that proves
    genuine gets the place of the request whose body has been awaited longest: behind a tunnel all
    clients have the carrier's address, and a few slow senders would shut the carrier out.
    """

    def __init__(self, *, per_client: int, total: int) -> None:
        self._limits = InFlight(per_client=per_client, total=total)
        self._room = total
        self._reading: dict[Place, None] = {}
        self._standing: dict[Place, None] = {}

    def take(self, client: str) -> Place | None:
        """Take a place or room to stand; None if there is neither. `give_back` must follow."""
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
        """Wrap the reading of the body. It is cut off, without an error, after ``timeout_s`` or
        when the place is lost."""
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
        """The reason why ``client`` gets no place."""
        if self._limits.used_up(client):
            return "too many webhooks of this client (webhookSecurity.maxInFlightPerClient)"
        return "too many webhooks in flight (webhookSecurity.maxInFlight)"

    def claim(self, place: Place) -> bool:
        """Give a genuine webhook a place if it is standing; False if there is none."""
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
        """The longest-waiting place whose loss helps ``client``: one of its own if it has reached
        its cap, else any."""
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
