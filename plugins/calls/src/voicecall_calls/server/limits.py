"""Caps on things in flight: one for each client, one for all of them."""

from __future__ import annotations

__all__ = ["InFlight"]


class InFlight:
    """Counts what is in flight. The cap on all of them also bounds the clients remembered, so
    no count is ever dropped to make room."""

    def __init__(self, *, per_client: int, total: int) -> None:
        self._per_client = per_client
        self._limit = total
        self._clients: dict[str, int] = {}
        self.total = 0

    def enter(self, client: str) -> bool:
        """Take a place; False where there is none. Each True is followed by one `leave`."""
        held = self._clients.get(client, 0)
        if self.total >= self._limit or held >= self._per_client:
            return False
        self._clients[client] = held + 1
        self.total += 1
        return True

    def used_up(self, client: str) -> bool:
        """True where the client itself has as much as it may have."""
        return self._clients.get(client, 0) >= self._per_client

    def leave(self, client: str) -> None:
        """Give a place back."""
        held = self._clients[client] - 1
        self.total -= 1
        if held:
            self._clients[client] = held
        else:
            del self._clients[client]
