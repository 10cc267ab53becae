"""Contract of the coordinator: expiring leases, rates and one-use tokens, shared between nodes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import msgspec

from .providers import Provider

__all__ = ["Coordinator", "Lease"]


class Lease(msgspec.Struct, frozen=True):
    """A place under a cap, or the ownership of something, until ``expires_at`` (milliseconds since
    the epoch)."""

    name: str
    holder: str
    expires_at: int


class Coordinator(Provider):
    """Holds leases, counts events and keeps one-use tokens."""

    @abstractmethod
    async def acquire(self, name: str, holder: str, *, limit: int, ttl_ms: int) -> Lease | None:
        """A lease for ``ttl_ms`` milliseconds, one of at most ``limit`` with this name; None if all
        are taken. If ``holder`` already has one, that is extended."""

    @abstractmethod
    async def release(self, name: str, holder: str) -> None:
        """Give a lease back; no effect if it does not exist."""

    @abstractmethod
    async def holders(self, name: str) -> int:
        """The number of unexpired leases with this name. Not used yet."""

    @abstractmethod
    async def allow(self, name: str, *, per_minute: int) -> bool:
        """Whether one more event with this name is within its rate; if so, it is counted."""

    @abstractmethod
    async def put_token(self, token: str, value: Mapping[str, Any], *, ttl_ms: int) -> None:
        """Store ``value`` under a one-use token for ``ttl_ms`` milliseconds."""

    @abstractmethod
    async def take_token(self, token: str) -> Mapping[str, Any] | None:
        """The value of an unexpired token, which this uses up; None for any other token."""
