"""Caps on things in flight: per client and in total."""

from __future__ import annotations

__all__ = ["InFlight"]


class InFlight:
    """Counts what is in flight. The total cap also bounds the number of clients remembered, so no
    count is ever dropped to make room."""

    def __init__(self, *, per_client: int, total: int) -> None:
        self._per_client = per_client
        self._limit = total
        self._clients: dict[str, int] = {}
        self.total = 0

    def enter(self, client: str) -> bool:
        """Take a place; False if none is free. Each True must be followed by one `leave`."""
        held = self._clients.get(client, 0)
        if self.total >= self._limit or held >= self._per_client:
            return False
        self._clients[client] = held + 1
        self.total += 1
        return True

    def used_up(self, client: str) -> bool:
        """True if the client has reached its own cap."""
        return self._clients.get(client, 0) >= self._per_client

    def leave(self, client: str) -> None:
        """Free a place."""
        held = self._clients[client] - 1
        self.total -= 1
        if held:
            self._clients[client] = held
        else:
            del self._clients[client]
