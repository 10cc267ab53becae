"""Contract of the coordinator: leases, rates and tokens, shared between nodes, which expire."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import msgspec

from .providers import Provider

__all__ = ["Coordinator", "Lease"]


class Lease(msgspec.Struct, frozen=True):
    """A place under a cap, or the ownership of a thing; void at ``expires_at`` (epoch ms)."""

    name: str
    holder: str
    expires_at: int


class Coordinator(Provider):
    @abstractmethod
    async def acquire(self, name: str, holder: str, *, limit: int, ttl_ms: int) -> Lease | None:
        """A lease for ``ttl_ms``, one of at most ``limit`` of this name; None if all are taken. A
        holder that has one already gets it extended."""

    @abstractmethod
    async def release(self, name: str, holder: str) -> None:
        """Give a lease back. One that does not exist is not an error."""

    @abstractmethod
    async def holders(self, name: str) -> int:
        """The number of unexpired leases of this name. Not used yet."""

    @abstractmethod
    async def allow(self, name: str, *, per_minute: int) -> bool:
        """Whether one more event of this name is within its rate. If so, it is counted."""

    @abstractmethod
    async def put_token(self, token: str, value: Mapping[str, Any], *, ttl_ms: int) -> None:
        """Store ``value`` under a one-use token for ``ttl_ms``."""

    @abstractmethod
    async def take_token(self, token: str) -> Mapping[str, Any] | None:
        """The value of an unexpired token, which is used up by this; None for any other token."""
