"""Contract of the coordinator: what is shared between nodes and expires by itself."""

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
        """A lease among at most ``limit`` of this name; None where they are all taken. A holder
        that has one already gets it prolonged."""

    @abstractmethod
    async def release(self, name: str, holder: str) -> None:
        """Give a lease back; unknown ones are fine."""

    @abstractmethod
    async def holders(self, name: str) -> int:
        """How many unexpired leases of this name there are."""

    @abstractmethod
    async def allow(self, name: str, *, per_minute: int) -> bool:
        """Whether one more event of this name is within its rate; counts it if so."""

    @abstractmethod
    async def put_token(self, token: str, value: Mapping[str, Any], *, ttl_ms: int) -> None:
        """Make a one-use token known."""

    @abstractmethod
    async def take_token(self, token: str) -> Mapping[str, Any] | None:
        """What belongs to an unexpired token; it is used up. None for any other."""
